//! Glasses: their messages, their silence, and links that break.

use super::*;

#[test]
fn glasses_that_do_not_confirm_a_stop_hold_nobody_up() {
    let mut cloud = Cloud::live();
    cloud.stop_managed("a").managed("b").wait(4);
    assert_eq!(cloud.told("b"), Vec::<String>::new(), "waits for the end of the first");
    cloud.wait(2);
    assert_eq!(
        (cloud.told("a"), cloud.told("b")),
        (vec!["stopping".into(), "stopped".into()], vec!["initializing".to_owned()])
    );
    assert_eq!(cloud.commands(), ["stop m1", "start m3"]);
}

#[test]
fn glasses_statuses_are_told_truthfully() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "initializing").glasses("s1", "streaming").glasses("s1", "reconnecting");
    cloud.glasses("s1", "reconnected").glasses("s1", "reconnect_failed").glasses("s1", "stopped");
    assert_eq!(cloud.told("a"), ["initializing", "active", "reconnecting", "active", "error"]);

    let mut cloud = Cloud::live();
    cloud.glasses("m1", "reconnecting");
    assert_eq!(cloud.told("a"), ["preparing"]);
    assert_eq!(cloud.last_managed("a").message.unwrap(), "The glasses are reconnecting: because");
    cloud.event(Event::PublisherLost { stream_id: "m1".into(), why: "closed".into() });
    cloud.publishing("m1").glasses("m1", "reconnected");
    assert_eq!(cloud.told("a"), ["preparing"], "not before something plays");
    cloud.playable("m1").glasses("m1", "error");
    assert_eq!(cloud.told("a"), ["preparing", "active", "error"]);
    cloud.clear().glasses("m1", "stopped").wait(300);
    assert!(cloud.told("a").is_empty(), "one end is enough");
}

#[test]
fn measurements_reach_the_app_without_new_states() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").clear();
    for _ in 0..2 {
        let numbers = json!({"b": 2_000_000, "f": 30, "w": 1280, "h": 720, "d": 0, "u": 4});
        cloud.glasses_say(&json!({"type": "stream_status", "streamId": "s1", "status": "streaming", "m": numbers}));
    }
    assert_eq!(cloud.told("a"), ["active", "active"]);
    assert_eq!(cloud.last_unmanaged("a").stats.unwrap()["bitrate"], 2_000_000);
}

#[test]
fn missed_keep_alives_end_a_stream_and_stop_the_glasses() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").clear().wait(60);
    assert_eq!((cloud.told("a"), cloud.commands()), (vec!["timeout".to_owned()], vec!["stop s1".to_owned()]));

    let mut cloud = Cloud::live();
    cloud.wait_with_media("m1", 120);
    assert!(cloud.told("a").is_empty(), "media that arrives is answer enough");
    cloud.wait(60);
    assert_eq!(
        (cloud.told("a"), cloud.commands()),
        (vec!["preparing".into(), "error".to_owned()], vec!["stop m1".to_owned()])
    );
}

#[test]
fn a_publisher_that_says_nothing_does_not_play() {
    let mut cloud = Cloud::live();
    cloud.wait(5);
    assert_eq!(cloud.told("a"), ["preparing"]);
    assert!(cloud.last_managed("a").message.unwrap().contains("no media arrives"));
    cloud.event(Event::Media { stream_id: "m1".into() });
    assert_eq!(cloud.told("a"), ["preparing", "active"]);
}

#[test]
fn answered_keep_alives_go_on_while_reconnecting() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").glasses("s1", "reconnecting").clear();
    let mut sent = 0;
    for _ in 0..100 {
        cloud.wait(1);
        for action in std::mem::take(&mut cloud.said) {
            if let Action::Device { command: GlassesCommand::KeepAlive { stream_id, ack_id }, .. } = action {
                sent += 1;
                cloud.glasses_say(&json!({"type": "keep_alive_ack", "streamId": stream_id, "ackId": ack_id}));
            }
        }
    }
    assert!((6..=8).contains(&sent) && cloud.machine.overview(0).unwrap().stream.status == "reconnecting", "{sent}");
}

#[test]
fn a_lost_link_is_no_end_before_its_time() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").event(Event::DeviceDown).wait(110);
    assert_eq!(cloud.told("a"), ["initializing", "active", "reconnecting"]);
    assert_eq!(cloud.last_unmanaged("a").details.as_deref(), Some("glasses link lost"));
    cloud.clear().event(Event::DeviceUp { device: "glasses".into() });
    assert!(cloud.told("a").is_empty(), "the link is no word of theirs");
    cloud.glasses_say(&json!({"type": "stream_status", "kind": "snapshot", "status": "streaming", "streamId": "s1"}));
    assert_eq!(cloud.told("a").last().unwrap(), "active");
    cloud.event(Event::DeviceDown).wait(121);
    assert_eq!(cloud.told("a").last().unwrap(), "error");
    cloud.clear().event(Event::DeviceUp { device: "glasses".into() });
    assert_eq!(cloud.commands(), ["stop s1"], "what was given up must not run on");
}

#[test]
fn a_stop_without_a_link_is_delivered_later() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").event(Event::DeviceDown).clear().stop_unmanaged("a").wait(30);
    assert_eq!((cloud.told("a"), cloud.commands().len()), (vec!["stopping".to_owned()], 0));
    cloud.event(Event::DeviceUp { device: "glasses".into() });
    assert_eq!(cloud.commands(), ["stop s1"]);
    cloud.glasses("s1", "stopped");
    assert_eq!(cloud.told("a"), ["stopping", "stopped"]);
    cloud.clear().event(Event::DeviceDown).event(Event::DeviceUp { device: "glasses".into() });
    assert!(cloud.commands().is_empty());
}

#[test]
fn managed_goes_on_without_a_link_while_media_arrives() {
    let mut cloud = Cloud::live();
    cloud.event(Event::DeviceDown).wait_with_media("m1", 300);
    assert!(cloud.told("a").is_empty());
    cloud.event(Event::PublisherLost { stream_id: "m1".into(), why: "closed".into() }).wait(121);
    assert_eq!(cloud.told("a"), ["preparing", "error"]);
}

#[test]
fn glasses_that_restarted_are_started_again() {
    let mut cloud = Cloud::live();
    cloud.event(Event::PublisherLost { stream_id: "m1".into(), why: "closed".into() });
    cloud.event(Event::DeviceDown).event(Event::DeviceUp { device: "glasses".into() }).clear();
    let empty = json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"});
    cloud.glasses_say(&empty);
    assert_eq!((cloud.commands(), cloud.told("a").len()), (vec!["start m1".to_owned()], 0));
    let ended = json!({"type": "stream_status", "kind": "snapshot", "status": "stopped",
                       "lastEnd": {"streamId": "m1", "status": "error", "cause": "camera_lost"}});
    cloud.glasses_say(&ended);
    assert_eq!(cloud.told("a"), ["error"]);
    assert_eq!(cloud.last_managed("a").message.as_deref(), Some("camera_lost"));
}

/// They send their state when their link is up and when asked. All of it may be on its way before the start reaches
/// them.
#[test]
fn what_glasses_told_before_they_heard_of_a_start_is_no_loss() {
    let empty = json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"});
    let mut cloud = Cloud::live();
    cloud.event(Event::DeviceDown).event(Event::DeviceUp { device: "glasses".into() }).clear();
    for _ in 0..5 {
        cloud.glasses_say(&empty);
    }
    cloud.glasses("m1", "streaming");
    assert_eq!((cloud.commands(), cloud.told("a").len()), (vec!["start m1".to_owned()], 0));
    cloud.clear().glasses_say(&empty);
    assert_eq!(cloud.commands(), ["start m1"], "they had heard of it, so it is lost");
    cloud.clear().wait(12).glasses_say(&empty);
    assert!(cloud.commands().contains(&"start m1".to_owned()), "they never heard of it");
    let mut cloud = Cloud::new();
    cloud.managed("a").glasses_say(&empty);
    assert_eq!(cloud.commands(), ["start m1"], "a first start is as slow");
}

#[test]
fn the_end_of_the_run_before_a_restart_ends_nothing() {
    for (cause, word) in [
        ("daemon_restarted", "stopped"),
        ("shutdown", "stopped"),
        ("link_lost", "error"),
        ("keep_alive_timeout", "timeout"),
    ] {
        let mut cloud = Cloud::new();
        cloud
            .unmanaged("a")
            .glasses("s1", "streaming")
            .event(Event::DeviceDown)
            .event(Event::DeviceUp { device: "glasses".into() })
            .clear();
        let end = json!({"type": "stream_status", "streamId": "s1", "status": word, "cause": cause});
        let mut snapshot = json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"});
        snapshot["lastEnd"] = end.clone();
        cloud.glasses_say(&snapshot).glasses_say(&end).glasses("s1", "initializing").glasses("s1", "streaming");
        assert_eq!(cloud.commands(), ["start s1"], "{cause}");
        assert_eq!(cloud.told("a"), ["initializing", "active"], "{cause}");
        cloud.glasses_say(&end);
        assert_eq!(cloud.told("a").last().unwrap(), word, "now it is this run's");
    }
}

#[test]
fn a_stop_is_owed_to_the_glasses_that_had_the_stream() {
    let up = |device: &str| Event::DeviceUp { device: device.into() };
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").stop_unmanaged("a").wait(6).event(Event::DeviceDown).clear();
    cloud.event(up("others")).glasses("s1", "error");
    cloud.glasses_say(&json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"}));
    assert_eq!(cloud.commands(), [""; 0], "it is none of theirs");
    assert_eq!(cloud.machine.owed_to("others"), []);
    cloud.event(Event::DeviceDown).restart();
    cloud.event(up("glasses"));
    assert_eq!(cloud.commands(), ["stop s1"]);
    cloud.glasses("s1", "stopped");
    assert_eq!(cloud.machine.owed_to("glasses"), []);
}
