//! A maker's acceptance run on real drivers.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Guest, GuestDaemon, poll_until};

/// Ten seconds, one emulated CPU, and a trial of each encoder.
const RUN: Duration = Duration::from_mins(3);
const SERIAL: &str = "SN-4711";

#[test]
fn a_camera_is_unplugged_on_request_and_its_modes_and_the_hardware_encoder_tried() {
    let guest = Guest::boot();
    guest.hardware("encoder");
    let webcam = guest.webcam(SERIAL, "--mode yuyv:320x240@30 --mode mjpeg:640x480@15");
    let daemon = GuestDaemon::start(&guest, "");
    let program = env!("CARGO_BIN_EXE_lenscastctl");
    let line = format!(
        "{program} doctor --full /host/report.json --minutes 0.15 --width 320 --height 240 --fps 30 --bitrate 400k"
    );
    // On a terminal, where a person is asked.
    let run = guest.start(&["script", "--quiet", "--return", "--flush", "--command", &line, "/dev/null"], &[]);
    poll_until("to be asked", RUN, || run.output().contains("pull the camera's plug out now").then_some(()));
    webcam.unplug();
    poll_until("the daemon to miss the camera", RUN, || run.output().contains("put the plug back in").then_some(()));
    webcam.plug();
    let status = run.wait(RUN);
    let output = run.output();

    let text = fs::read_to_string(guest.shared().join("report.json")).expect("a report");
    assert!(!text.contains(SERIAL), "no serial number is told: {text}");
    let report: Value = serde_json::from_str(&text).expect("the report is JSON");
    assert_eq!(report["complete"], true, "{output}");
    let step = |name: &str| {
        let steps = report["steps"].as_array().expect("steps");
        steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name}: {output}"))
    };
    for name in
        ["photo", "unplug", "stream", "camera mode 320x240 at 30 fps YUYV", "camera mode 640x480 at 15 fps MJPG"]
    {
        assert_eq!(step(name)["outcome"], "passed", "{name}: {output}");
    }
    let rate = step("camera mode 320x240 at 30 fps YUYV")["figures"]["rate"]["value"].as_f64();
    assert!(rate.is_some_and(|rate| (24.0..33.0).contains(&rate)), "{rate:?}");
    let encoder = step("encoder v4l2");
    assert_eq!(encoder["outcome"], "passed", "{output}");
    assert_eq!(encoder["figures"]["bitrate_high_asked"]["value"], 400e3, "{encoder}");
    assert_eq!(step("sound")["outcome"], "skipped", "{output}");

    let devices = report["device"].as_array().expect("devices");
    let camera = devices.iter().find(|device| device["kind"] == "camera").expect("the camera is listed");
    assert_eq!(camera["driver"], "uvcvideo");
    assert_eq!(camera["formats"], serde_json::json!(["YUYV", "MJPG"]));
    assert!(devices.iter().any(|device| device["kind"] == "encoder"), "{text}");
    // OpenH264 does not keep every bitrate.
    assert!(matches!(status, 0 | 4), "{status}: {output}");
    assert_eq!(daemon.control().status()["owner"], Value::Null);
    daemon.finish();
}
