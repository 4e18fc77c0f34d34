//! Photos: from a stream that runs, or from a camera that is opened for them.

use super::*;

#[test]
fn photos_come_from_a_managed_stream_and_from_the_apps_own() {
    let mut daemon = Daemon::new();
    daemon.start("a", "s1", StreamKind::Unmanaged);
    let (own, foreign) = (daemon.photo("a"), daemon.photo("b"));
    assert!(matches!(daemon.reply(own), Ok(Answer::Photo(_))));
    assert_eq!(daemon.refused(foreign).1.unwrap().name, "a");
    let stop = daemon.ask(1, Request::Stop { stream_id: None });
    assert!(daemon.reply(stop).is_ok());
    daemon.start("cloud", "m1", StreamKind::Managed);
    let any = daemon.photo("b");
    assert!(matches!(daemon.reply(any), Ok(Answer::Photo(_))));
}

#[test]
fn the_link_gets_its_photos_or_the_reason_and_each_once() {
    let mut daemon = Daemon::new();
    daemon.give(Input::LinkUp(LinkId::Cloud));
    let ask =
        |name: &str, app: &str| json!({"type": "photo_request", "requestId": name, "appId": app, "size": "medium"});
    daemon.cloud(&ask("p1", "b"));
    let (head, at) = crate::protocol::photo::parse_frame(&daemon.photos[0]).unwrap();
    assert_eq!((head.request_id.as_str(), &daemon.photos[0][at..]), ("p1", &[0xff, 0xd8][..]));
    daemon.start("a", "s1", StreamKind::Unmanaged);
    daemon.cloud(&ask("p2", "b"));
    let refused = daemon.sent.last().unwrap();
    assert_eq!((&refused["requestId"], &refused["success"]), (&json!("p2"), &json!(false)));
    assert_eq!((&refused["errorCode"], &refused["cause"]), (&json!("CAMERA_BUSY"), &json!("camera_busy")));
    daemon.cloud(&ask("p3", "a"));
    assert_eq!(daemon.photos.len(), 2, "from its own stream");
    assert_eq!(daemon.core.links.photos_asked_for(), 0);

    let mut silent = Daemon::new();
    silent.world = World::Silent;
    silent.give(Input::LinkUp(LinkId::Cloud));
    silent.cloud(&ask("p1", "a"));
    silent.cloud(&ask("p1", "a"));
    silent.now += Duration::from_secs(30);
    silent.give(Input::Tick);
    let failures: Vec<_> = silent.sent.iter().filter(|m| m["type"] == "photo_response").collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0]["errorCode"], "CAMERA_TIMEOUT");
}

#[test]
fn a_photo_opens_the_camera_and_leaves_it_open_for_a_while() {
    let mut daemon = Daemon::new();
    let first = daemon.photo("a");
    assert!(daemon.reply(first).is_ok());
    daemon.pass(Duration::from_secs(4));
    let second = daemon.photo("b");
    assert!(daemon.reply(second).is_ok());
    assert_eq!(daemon.captures, [1], "not reopened");
    daemon.pass(Duration::from_secs(6));
    assert!(daemon.core.is_idle());
}

#[test]
fn a_photo_of_a_camera_that_gives_none_is_refused_in_time() {
    let mut daemon = Daemon::new();
    daemon.world = World::Silent;
    let request = daemon.photo("a");
    daemon.pass(PHOTO_LIMIT);
    assert_eq!(daemon.refused(request).0, Cause::CameraStalled);
}

#[test]
fn a_photo_that_this_camera_cannot_give_is_refused_with_the_reason() {
    let mut daemon = Daemon::new();
    daemon.world = World::Silent;
    let request = daemon.photo("a");
    let reason = Refusal { cause: Cause::CameraFailed, message: "no decoder".into(), owner: None };
    daemon.give(Input::PhotoTaken(request, Err(reason.clone())));
    assert_eq!(daemon.reply(request), &Err(reason));
}
