//! Apps: which one may start a stream, which one joins it, and what each is told.

use super::*;

#[test]
fn urls_come_when_and_only_when_they_play() {
    let mut cloud = Cloud::new();
    cloud.managed("a").glasses("m1", "connecting").glasses("m1", "streaming");
    assert_eq!(cloud.told("a"), ["initializing"], "the glasses' word alone makes nothing active");
    assert!(cloud.last_managed("a").urls.is_none());
    cloud.publishing("m1");
    assert_eq!(cloud.told("a"), ["initializing", "preparing"]);
    cloud.playable("m1").playable("m1");
    assert_eq!(cloud.told("a"), ["initializing", "preparing", "active"]);
    let urls = cloud.last_managed("a").urls.unwrap();
    assert_eq!(
        (urls.hls_url.as_str(), urls.webrtc_url.as_deref()),
        ("https://v/hls/p1/index.m3u8", Some("https://v/whep/p1"))
    );
    let open = cloud
        .said
        .iter()
        .any(|action| matches!(action, Action::Open { stream_id, webrtc: true, .. } if stream_id == "m1"));
    assert!(open && cloud.commands() == ["start m1"]);
}

#[test]
fn a_smaller_camera_is_said() {
    let mut cloud = Cloud::new();
    cloud.managed("a").publishing("m1");
    cloud.event(Event::Playable { stream_id: "m1".into(), width: 1280, height: 720 });
    assert_eq!(cloud.last_managed("a").message.as_deref(), Some("1080p was asked for; the camera gives 1280x720"));
}

#[test]
fn apps_join_and_leave_and_the_last_one_ends_it() {
    let mut cloud = Cloud::live();
    cloud.managed("b");
    assert_eq!(cloud.told("b"), ["active"]);
    assert!(cloud.last_managed("b").message.unwrap().contains("options stay"));
    cloud.clear().stop_managed("a");
    assert_eq!((cloud.told("a"), cloud.told("b").len()), (vec!["stopped".to_owned()], 0));
    cloud.clear().stop_managed("b");
    assert_eq!((cloud.told("b"), cloud.commands()), (vec!["stopping".to_owned()], vec!["stop m1".to_owned()]));
    cloud.glasses("m1", "stopping").glasses("m1", "stopped").wait(200);
    assert_eq!(cloud.told("b"), ["stopping", "stopped"]);
    assert!(cloud.said.contains(&Action::Close { stream_id: "m1".into() }));
    assert_eq!(cloud.commands(), ["stop m1"]);
}

#[test]
fn who_may_not_is_told_so() {
    let mut cloud = Cloud::new();
    cloud.event(Event::AppUp { app: "c".into(), may_stream: false });
    cloud.managed("c").unmanaged("c");
    assert_eq!(cloud.told("c"), ["error", "error"]);
    assert!(cloud.last_managed("c").message.unwrap().contains("permission"));
    cloud.event(Event::DeviceDown).managed("a").unmanaged("a");
    assert!(cloud.last_managed("a").message.unwrap().contains("not connected"));
    assert!(cloud.last_unmanaged("a").details.unwrap().contains("not connected"));
    cloud.event(Event::DeviceUp { device: "glasses".into() });
    cloud
        .glasses_say(&json!({"type": "glasses_connection_state", "status": "CONNECTED", "wifi": {"connected": false}}));
    cloud.managed("a");
    assert!(cloud.last_managed("a").message.unwrap().contains("WiFi"));
    assert!(cloud.commands().is_empty());
    cloud.ask("a", &json!({"type": "managed_stream_request", "quality": "8k"}));
    assert_eq!(word(&cloud.last_managed("a")), "error");
}

#[test]
fn unmanaged_is_exclusive_and_takes_precedence() {
    let mut cloud = Cloud::live();
    cloud.unmanaged("b");
    assert_eq!((cloud.told("a"), cloud.commands()), (vec!["stopping".to_owned()], vec!["stop m1".to_owned()]));
    cloud.glasses("m1", "stopped");
    assert!(cloud.last_managed("a").message.unwrap().contains("b started"));
    assert_eq!(
        (cloud.commands(), cloud.told("b")),
        (vec!["stop m1".into(), "start s2".into()], vec!["initializing".to_owned()])
    );
    cloud.glasses("s2", "streaming");
    assert_eq!(cloud.told("b"), ["initializing", "active"]);
    cloud.clear().managed("a").unmanaged("a").managed("b");
    assert_eq!((cloud.told("a"), cloud.told("b")), (vec!["error".into(), "error".into()], vec!["error".to_owned()]));
    assert!(cloud.last_unmanaged("a").details.unwrap().contains("camera_busy: an unmanaged stream of b"));
    assert!(cloud.commands().is_empty());

    cloud.clear().unmanaged("b").glasses("s2", "stopped");
    assert_eq!(cloud.told("b"), ["stopping", "stopped", "initializing"], "an app's own newer stream takes the place");
}

#[test]
fn a_refusing_cloud_keeps_managed_streams() {
    let mut cloud = Cloud::live();
    cloud.machine.settings.preempt = false;
    cloud.unmanaged("b");
    assert_eq!((cloud.told("a").len(), cloud.told("b")), (0, vec!["error".to_owned()]));
}

#[test]
fn a_start_without_glasses_is_refused_at_once_even_while_another_stream_ends() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").event(Event::DeviceDown).stop_unmanaged("a").clear().managed("b");
    assert_eq!(cloud.told("b"), ["error"]);
    assert!(cloud.last_managed("b").message.unwrap().contains("not connected"));
    cloud.event(Event::DeviceUp { device: "glasses".into() }).glasses("s1", "stopped").wait(1);
    assert_eq!((cloud.told("b").len(), cloud.commands()), (1, vec!["stop s1".to_owned()]), "nobody waits for it");
}

#[test]
fn a_start_that_waits_can_be_taken_back() {
    let mut cloud = Cloud::live();
    cloud.stop_managed("a").managed("b").stop_managed("b");
    assert_eq!(cloud.told("b"), ["stopped"]);
    cloud.glasses("m1", "stopped").wait(10);
    assert_eq!(cloud.told("a"), ["stopping", "stopped"]);
    assert_eq!(cloud.commands(), ["stop m1"]);
}

#[test]
fn an_app_that_comes_back_is_told_again() {
    let mut cloud = Cloud::live();
    let gone = |deliberate| Event::AppDown { app: "a".into(), deliberate };
    cloud.event(gone(false)).wait(3).event(Event::AppUp { app: "a".into(), may_stream: true });
    assert_eq!(cloud.told("a"), ["active"]);
    cloud.clear().event(gone(false)).glasses("m1", "error");
    assert!(cloud.told("a").is_empty());
    cloud.event(Event::AppUp { app: "a".into(), may_stream: true }).wait(1);
    assert_eq!(cloud.told("a"), ["error"], "what ended meanwhile, once");
}

#[test]
fn an_app_that_begins_to_listen_is_told() {
    let mut cloud = Cloud::live();
    let listen = |to: &[&str]| json!({"type": "subscription_update", "subscriptions": to});
    cloud
        .ask("a", &listen(&[]))
        .ask("a", &listen(&["rtmp_stream_status"]))
        .ask("b", &listen(&["managed_stream_status"]));
    assert!(cloud.told("a").is_empty() && cloud.told("b").is_empty());
    cloud.ask("a", &listen(&["managed_stream_status"])).ask("a", &listen(&["managed_stream_status", "location"]));
    assert_eq!(cloud.told("a"), ["active"]);
}

#[test]
fn an_app_that_gave_up_is_started_once() {
    let start = Action::StartApp { app: "a".into() };
    let mut cloud = Cloud::live();
    cloud.event(Event::AppDown { app: "a".into(), deliberate: false }).wait(9);
    assert!(!cloud.said.contains(&start));
    cloud.wait(28);
    assert_eq!(cloud.said.iter().filter(|action| **action == start).count(), 1);
    assert!(cloud.commands().is_empty());
    cloud.wait(10);
    assert_eq!(cloud.commands(), ["stop m1"], "nobody is left");

    let mut cloud = Cloud::new();
    cloud.event(Event::AppDown { app: "a".into(), deliberate: false }).wait(60);
    assert!(!cloud.said.contains(&start), "no stream of it runs");
    let mut cloud = Cloud::live();
    cloud.event(Event::AppDown { app: "a".into(), deliberate: true });
    assert_eq!(cloud.commands(), ["stop m1"], "it said goodbye");
}

#[test]
fn a_check_tells_what_runs_and_hides_keys_of_others() {
    let mut cloud = Cloud::live();
    cloud.ask("b", &json!({"type": "stream_status_check", "sessionId": "unknown-session-id"}));
    let Some(Action::Checked { app, stream: Some(stream) }) = cloud.said.last() else { panic!("{:?}", cloud.said) };
    assert_eq!(
        (app.as_str(), stream.kind, stream.status.as_str(), stream.active_viewers),
        ("b", "managed", "active", Some(7))
    );

    let mut cloud = Cloud::new();
    cloud.ask("a", &json!({"type": "stream_status_check"}));
    assert_eq!(cloud.said, [Action::Checked { app: "a".into(), stream: None }]);
    cloud.unmanaged("a");
    for (app, url) in [("a", "rtmp://h/live/s3cret"), ("b", "rtmp://h/live/***")] {
        cloud.ask(app, &json!({"type": "stream_status_check"}));
        let Some(Action::Checked { stream: Some(stream), .. }) = cloud.said.last() else { panic!() };
        assert_eq!((json!(stream.rtmp_url), stream.requesting_app_id.as_deref()), (json!(url), Some("a")));
    }
}

#[test]
fn stops_of_what_is_not_ones_own() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").clear();
    cloud.ask("b", &json!({"type": "rtmp_stream_stop", "streamId": "s1"})).stop_unmanaged("b").stop_managed("b");
    assert_eq!(cloud.told("b"), ["error", "stopped", "stopped"]);
    assert!(cloud.commands().is_empty() && cloud.last_managed("b").stream_id.is_none());
}

#[test]
fn keys_of_destinations_are_for_the_app_that_gave_them() {
    let mut cloud = Cloud::live();
    cloud.managed("b").clear();
    let url = StreamUrl::parse("rtmp://y/live/k").unwrap();
    let output = Output { url: ShownUrl { url, own: false }, name: None, status: OutputState::Active, error: None };
    cloud.event(Event::Outputs { stream_id: "m1".into(), outputs: vec![output] });
    let url = |app: &str| cloud.last_managed(app).json()["outputs"][0]["url"].clone();
    assert_eq!((url("a"), url("b")), (json!("rtmp://y/live/k"), json!("rtmp://y/live/***")));
}

#[test]
fn photos_are_allowed_by_the_same_rules() {
    let photo = json!({"type": "photo_request", "requestId": "r"});
    let mut cloud = Cloud::live();
    cloud.ask("b", &photo);
    assert!(matches!(cloud.said.last(), Some(Action::Photo { from: Some(id), .. }) if id == "m1"));
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").ask("b", &photo);
    assert!(matches!(cloud.said.last(), Some(Action::PhotoRefused { code: "CAMERA_BUSY", .. })));
    cloud.ask("a", &photo);
    assert!(matches!(cloud.said.last(), Some(Action::Photo { from: None, .. })));
    cloud.event(Event::AppUp { app: "c".into(), may_stream: false }).ask("c", &photo);
    assert!(matches!(cloud.said.last(), Some(Action::PhotoRefused { code: "PERMISSION_DENIED", .. })));
}
