//! What a process does with the stream of the one before.

use super::*;
use crate::protocol::command::Dialect;

/// The process before, killed while it streamed for the cloud; and what it left.
fn killed() -> Remembered {
    let mut before = Daemon::new();
    before.give(Input::LinkUp(LinkId::Cloud));
    before.cloud(&start_message("s1", "a"));
    before.kept.expect("a stream that lives is kept")
}

/// The next one, that long after.
fn after(seconds: u64, stream: Remembered) -> Daemon {
    let mut daemon = Daemon::new();
    daemon.give(Input::LeftOver(LeftOver { stream, gone_for: Some(Duration::from_secs(seconds)) }));
    daemon
}

impl Daemon {
    fn measure(&mut self, times: u32) {
        for _ in 0..times {
            self.pass(Duration::from_secs(1));
            self.cloud(&json!({"type": "keep_stream_alive", "streamId": "s1", "ackId": "a1"}));
            self.give(Input::Measured(Metrics::default()));
        }
    }
}

#[test]
fn a_stream_goes_on_as_what_it_was_and_the_link_is_told() {
    let mut daemon = after(2, killed());
    let reports: Vec<_> = daemon.reports.iter().map(|(id, state, cause)| (id.as_str(), *state, *cause)).collect();
    let wanted =
        [("s1", StreamState::Reconnecting, Some(Cause::DaemonRestarted)), ("s1", StreamState::Streaming, None)];
    assert_eq!(reports, wanted);
    daemon.give(Input::LinkUp(LinkId::Cloud));
    assert_eq!(daemon.sent[0]["kind"], "snapshot");
    assert!(daemon.sent[0].to_string().contains("\"s1\""), "{}", daemon.sent[0]);
    assert!(!daemon.statuses("s1").iter().any(|status| ["stopped", "error"].contains(status)), "{:?}", daemon.sent);
    daemon.cloud(&json!({"type": "stop_stream", "streamId": "s1"}));
    assert_eq!(daemon.statuses("s1").last(), Some(&"stopped"));
    assert_eq!(daemon.kept, None);
}

#[test]
fn a_stream_whose_keep_alive_is_over_is_told_to_be_over() {
    for gone_for in [Some(Duration::from_secs(61)), None] {
        let mut daemon = Daemon::new();
        daemon.give(Input::LeftOver(LeftOver { stream: killed(), gone_for }));
        daemon.give(Input::LinkUp(LinkId::Cloud));
        let end = daemon.sent.iter().find(|message| message["streamId"] == "s1").unwrap();
        assert_eq!((&end["status"], &end["cause"]), (&json!("stopped"), &json!("daemon_restarted")));
        assert!(daemon.captures.is_empty() && daemon.kept.is_none());
    }
}

#[test]
fn the_old_dialect_is_told_in_its_words() {
    let mut stream = killed();
    stream.link = Some((LinkId::Cloud, Dialect::Rtmp));
    let mut daemon = after(100, stream);
    daemon.give(Input::LinkUp(LinkId::Cloud));
    let end = daemon.sent.iter().find(|message| message["streamId"] == "s1").unwrap();
    assert_eq!(end["type"], "rtmp_stream_status");
}

#[test]
fn a_stream_that_ends_one_process_after_the_other_is_given_up_with_its_cause() {
    let mut stream = killed();
    for _ in 0..3 {
        stream = after(1, stream).kept.expect("taken up");
    }
    let mut last = after(1, stream);
    assert!(last.captures.is_empty() && last.kept.is_none(), "no further try");
    let end = last.core.state(last.now).last_end.unwrap();
    assert_eq!((end.state, end.failure.cause), (StreamState::Error, Cause::DaemonCrashed));
    last.give(Input::LinkUp(LinkId::Cloud));
    assert_eq!(last.statuses("s1"), ["error"]);
}

#[test]
fn a_minute_of_streaming_forgets_the_crashes_and_so_does_an_end_on_purpose() {
    let mut stream = killed();
    for _ in 0..10 {
        let mut daemon = after(1, stream);
        daemon.give(Input::LinkUp(LinkId::Cloud));
        daemon.measure(70);
        stream = daemon.kept.expect("it lives");
        assert_eq!(stream.crashes, 0);
    }
    for _ in 0..10 {
        let mut daemon = after(1, stream);
        daemon.give(Input::HandOver);
        stream = daemon.kept.expect("for the next one");
        assert!(stream.handed_over);
    }
    assert!(!after(1, stream).captures.is_empty());
}

#[test]
fn a_link_that_stays_away_ends_it_in_the_end_even_where_it_must_not_be_missed() {
    let mut settings = config::Config::default();
    settings.stream.on_link_loss = config::OnLoss::Stop;
    let mut daemon = Daemon::with(&settings);
    daemon.give(Input::LeftOver(LeftOver { stream: killed(), gone_for: Some(Duration::ZERO) }));
    daemon.pass(Duration::from_secs(14));
    assert!(daemon.core.state(daemon.now).stream.is_some(), "the link takes its time");
    daemon.pass(Duration::from_secs(2));
    let end = daemon.core.state(daemon.now).last_end.unwrap();
    assert_eq!(end.failure.cause, Cause::LinkLost);
}

#[test]
fn a_board_that_allows_no_stream_ends_it_with_its_own_cause() {
    let mut daemon = Daemon::new();
    daemon.board =
        Reading { battery: Some(crate::policy::battery::Charge { percent: 2, charging: false }), ..Reading::default() };
    daemon.give(Input::LeftOver(LeftOver { stream: killed(), gone_for: Some(Duration::ZERO) }));
    daemon.give(Input::LinkUp(LinkId::Cloud));
    assert_eq!(daemon.statuses("s1"), ["error"]);
    assert_eq!(daemon.core.state(daemon.now).last_end.unwrap().failure.cause, Cause::BatteryLow);
}

#[test]
fn a_stream_started_by_hand_goes_on_too() {
    let mut before = Daemon::new();
    before.start("a", "s1", StreamKind::Unmanaged);
    let stream = before.kept.expect("kept");
    let daemon = after(3, stream);
    assert_eq!(daemon.core.state(daemon.now).stream.unwrap().state, StreamState::Streaming);
    assert_eq!(daemon.chimes, [], "the wearer knows");
}
