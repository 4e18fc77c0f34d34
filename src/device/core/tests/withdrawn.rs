//! Starts that wait for the end of another stream, and are no longer wanted before it.

use super::*;

/// `s1` takes its time to end, and `s2` of the same app waits for that.
fn waiting() -> (Daemon, RequestId) {
    let mut daemon = Daemon::new();
    daemon.world = World::Silent;
    daemon.start("a", "s1", StreamKind::Unmanaged);
    let second = daemon.start("a", "s2", StreamKind::Unmanaged);
    assert!(!daemon.replies.contains_key(&second), "it waits");
    (daemon, second)
}

#[test]
fn a_links_stop_reaches_them_by_name_and_without() {
    for stop in [json!({"type": "stop_stream", "streamId": "s2"}), json!({"type": "stop_stream"})] {
        let mut daemon = Daemon::new();
        daemon.give(Input::LinkUp(LinkId::Cloud));
        daemon.world = World::Silent;
        daemon.cloud(&start_message("s1", "a"));
        daemon.cloud(&start_message("s2", "a"));
        assert_eq!(daemon.statuses("s2"), [""; 0], "it waits");
        daemon.cloud(&stop);
        daemon.pass(Duration::from_secs(10));
        assert_eq!(daemon.statuses("s1").last(), Some(&"stopped"), "{stop}");
        assert_eq!(daemon.statuses("s2"), ["stopped"], "{stop}");
        assert!(daemon.core.state(daemon.now).stream.is_none(), "{stop}");
    }
}

#[test]
fn a_persons_stop_reaches_them_and_is_answered_when_all_is_over() {
    for id in [None, Some("s2")] {
        let (mut daemon, second) = waiting();
        let stop = daemon.ask(3, Request::Stop { stream_id: id.map(str::to_owned) });
        assert_eq!(daemon.refused(second).0, Cause::Requested);
        assert_eq!(daemon.replies.contains_key(&stop), id.is_some(), "{id:?}");
        daemon.pass(Duration::from_secs(10));
        assert!(matches!(daemon.reply(stop), Ok(Answer::Done)), "{id:?}");
        assert!(daemon.core.state(daemon.now).stream.is_none(), "{id:?}");
    }
}

#[test]
fn the_daemons_end_refuses_them_and_leaves_nothing_to_the_next_one() {
    let (mut daemon, second) = waiting();
    daemon.give(Input::Shutdown);
    assert_eq!(daemon.refused(second).0, Cause::Shutdown);
    daemon.pass(Duration::from_secs(10));
    assert!(daemon.core.state(daemon.now).stream.is_none());
    assert!(daemon.kept.is_none(), "{:?}", daemon.kept);
}

#[test]
fn nothing_is_judged_against_them_any_more() {
    let mut daemon = Daemon::new();
    daemon.give(Input::LinkUp(LinkId::Cloud));
    daemon.world = World::Silent;
    let photo = daemon.photo("b");
    daemon.cloud(&start_message("m1", "MANAGED_STREAM"));
    daemon.cloud(&json!({"type": "stop_stream", "streamId": "m1"}));
    daemon.cloud(&start_message("m2", "MANAGED_STREAM"));
    daemon.world = World::Works;
    let generation = daemon.captures[0];
    daemon.give(Input::Capture(generation, capture::CaptureEvent::Running));
    daemon.pass(Duration::from_secs(1));
    assert!(daemon.reply(photo).is_ok());
    assert_eq!(daemon.statuses("m1"), ["stopped"]);
    assert_eq!(daemon.statuses("m2").last(), Some(&"streaming"));
}
