//! Photos that phone or cloud request over the link.

use std::time::Duration;

use lenscast::protocol::photo::parse_frame;
use serde_json::{Value, json};

use crate::support::cloud::Heard;
use crate::support::{CloudStandIn, Daemon, Nginx};

/// Includes opening the camera.
const SOON: Duration = Duration::from_secs(10);

fn ask(cloud: &CloudStandIn, request_id: &str, app: &str) {
    cloud.send(&json!({"type": "photo_request", "requestId": request_id, "appId": app, "size": "medium"}));
}

/// The JPEG that answers a request.
fn photo(cloud: &mut CloudStandIn, request_id: &str) -> Vec<u8> {
    let is_it = |heard: &Heard| match heard {
        Heard::Binary(frame) => parse_frame(frame).filter(|(head, _)| head.request_id == request_id).map(|(_, at)| at),
        _ => None,
    };
    let received = cloud.wait("the photo", SOON, |received| is_it(&received.what).is_some());
    let Heard::Binary(frame) = &received.what else { panic!("it was one a moment ago") };
    let jpeg = frame[is_it(&received.what).expect("it was one a moment ago")..].to_vec();
    assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]), "{} bytes, no JPEG", jpeg.len());
    jpeg
}

fn failure(cloud: &mut CloudStandIn, request_id: &str) -> Value {
    cloud.wait_message("the photo's failure", SOON, |m| m["type"] == "photo_response" && m["requestId"] == request_id)
}

#[test]
fn the_link_gets_photos_before_and_during_a_managed_stream_but_not_of_anothers_unmanaged() {
    let nginx = Nginx::start();
    let mut cloud = CloudStandIn::start();
    let daemon = Daemon::start(&cloud.config());
    cloud.wait_connected(SOON);
    ask(&cloud, "idle", "org.example.photos");
    photo(&mut cloud, "idle");

    let start = |app: &str, id: &str| {
        json!({
            "type": "start_stream", "streamUrl": nginx.url("live", id), "appId": app, "streamId": id,
            "video": {"width": 320, "height": 240, "bitrate": 300_000, "frameRate": 15},
        })
    };
    let streaming = |cloud: &mut CloudStandIn, id: &str| {
        cloud.wait_message("the stream to run", SOON, |m| m["streamId"] == id && m["status"] == "streaming");
    };
    cloud.send(&start("MANAGED_STREAM", "managed"));
    streaming(&mut cloud, "managed");
    ask(&cloud, "shared", "org.example.photos");
    photo(&mut cloud, "shared");

    cloud.send(&start("org.example.live", "unmanaged"));
    streaming(&mut cloud, "unmanaged");
    ask(&cloud, "own", "org.example.live");
    photo(&mut cloud, "own");
    ask(&cloud, "foreign", "org.example.photos");
    let refused = failure(&mut cloud, "foreign");
    assert_eq!((&refused["success"], &refused["errorCode"]), (&json!(false), &json!("CAMERA_BUSY")), "{refused}");
    assert!(refused["errorMessage"].as_str().is_some_and(|text| text.contains("org.example.live")), "{refused}");
    daemon.finish();
}

#[test]
fn a_photo_without_a_camera_fails_with_a_reason() {
    let mut cloud = CloudStandIn::start();
    let config = format!("{}[camera]\ndevice = \"/dev/video-that-is-not-there\"\n", cloud.config());
    let daemon = Daemon::start(&config);
    cloud.wait_connected(SOON);
    ask(&cloud, "none", "org.example.photos");
    let failed = failure(&mut cloud, "none");
    assert_eq!((&failed["success"], &failed["errorCode"]), (&json!(false), &json!("CAMERA_INIT_FAILED")), "{failed}");
    daemon.finish();
}
