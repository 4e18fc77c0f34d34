//! The cloud's process ends, and another takes over.

use super::*;

#[test]
fn a_restarted_cloud_takes_live_streams_over() {
    let mut cloud = Cloud::live();
    cloud.managed("b");
    let actions = cloud.restart();
    let Action::Open { stream_id, key, playback, webrtc, .. } = &actions[0] else { panic!("{actions:?}") };
    assert_eq!((stream_id.as_str(), key.expose(), playback.as_str(), *webrtc), ("m1", "k1", "p1", true));
    cloud.app_up("b").publishing("m1");
    assert_eq!(cloud.told("b"), ["preparing"]);
    cloud
        .event(Event::DeviceUp { device: "glasses".into() })
        .glasses("m1", "streaming")
        .playable("m1")
        .wait_with_media("m1", 9);
    cloud.app_up("a");
    assert_eq!(
        (cloud.told("a"), cloud.told("b")),
        (vec!["active".to_owned()], vec!["preparing".into(), "active".to_owned()])
    );
    assert!(!format!("{:?}", cloud.machine.durable()).contains("k1"));
}

#[test]
fn a_restarted_cloud_gives_what_played_the_time_to_recover() {
    let mut cloud = Cloud::live();
    cloud.restart();
    cloud.app_up("a").wait(110);
    assert_eq!(cloud.told("a"), ["preparing"]);
    cloud.wait(11);
    assert_eq!(cloud.told("a"), ["preparing", "error"]);
}

#[test]
fn glasses_that_take_their_time_to_come_back_to_a_restarted_cloud_keep_their_stream() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").restart();
    cloud
        .app_up("a")
        .wait(60)
        .event(Event::DeviceUp { device: "glasses".into() })
        .wait(1)
        .glasses("s1", "streaming")
        .wait(1);
    let told = cloud.told("a");
    assert!(told.last().unwrap() == "active" && !told.contains(&"error".to_owned()), "{told:?}");
}

#[test]
fn a_restarted_cloud_tells_the_ends_that_the_one_before_did_not() {
    let mut cloud = Cloud::live();
    cloud.stop_managed("a").managed("b").restart();
    cloud.app_up("a").app_up("b").wait(1);
    assert_eq!((cloud.told("a"), cloud.told("b")), (vec!["stopped".to_owned()], vec!["error".to_owned()]));
    assert_eq!(cloud.last_managed("a").stream_id.as_deref(), Some("m1"));
    assert!(cloud.last_managed("b").message.unwrap().contains("ask again"));
    cloud.restart();
    cloud.app_up("a").app_up("b").wait(1);
    assert!(cloud.told("a").is_empty() && cloud.told("b").is_empty(), "once");

    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").event(Event::AppDown { app: "a".into(), deliberate: false });
    cloud.clear().glasses("s1", "timeout");
    assert!(cloud.told("a").is_empty());
    let missed = cloud.machine.apps["a"].missed.clone();
    cloud.restart();
    cloud.app_up("b").restart();
    cloud.app_up("a");
    assert!(missed.len() == 1 && cloud.said.starts_with(&missed), "{missed:?}, {:?}", cloud.said);
    assert_eq!(cloud.last_unmanaged("a").word, "timeout");

    let mut cloud = Cloud::live();
    cloud.stop_managed("a").managed("b").stop_managed("b").restart();
    cloud.app_up("b").wait(1);
    assert!(cloud.told("b").is_empty(), "it was told");

    let old = json!({"streams": [], "to_stop": [], "apps": [["a", true]]});
    cloud.kept = serde_json::from_value(old).expect("what an older version has written");
    cloud.restart();
    assert!(cloud.machine.has_app("a"));
}
