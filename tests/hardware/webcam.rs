//! The main job on real drivers: a USB webcam, a hardware encoder, a server.

use std::time::Duration;

use crate::support::control::start;
use crate::support::{Guest, GuestDaemon, Nginx, probe};

/// Limit for going live: one emulated CPU, and a trial of each encoder before the first frame.
const LIVE: Duration = Duration::from_secs(40);

#[test]
fn a_usb_webcam_goes_live_through_the_hardware_encoder_and_is_unplugged() {
    const SECONDS: u64 = 10;
    let guest = Guest::boot_alone();
    guest.hardware("encoder");
    let webcam = guest.webcam("0001", "--name TestCam");
    let nginx = Nginx::start_at(guest.host());
    let recordings = nginx.recordings();
    let daemon = GuestDaemon::start(&guest, "");
    let mut watch = daemon.watch();
    daemon.control().granted(&start(&nginx.url("live", "key"), "org.example", "s-1", (640, 480), 30, 1_500_000));
    watch.wait_state("streaming", LIVE);
    let state = watch.wait_snapshot("some seconds of streaming", Duration::from_secs(SECONDS + 30), |state| {
        state["stream"]["metrics"]["duration_s"].as_u64() >= Some(SECONDS)
    });
    let camera = &state["camera"];
    assert_eq!(camera["encoder"], "v4l2", "the hardware encoder is used: {camera}");
    assert!(camera["name"].as_str().is_some_and(|name| name.contains("TestCam")), "the webcam is named: {camera}");
    assert_eq!(camera["device"], webcam.node(), "its node is named: {camera}");

    webcam.unplug();
    let lost = watch.wait("the loss to be told", Duration::from_secs(3), |event| event.report().is_some());
    assert_eq!((lost.report(), lost.cause()), (Some("reconnecting"), "camera_lost"));
    daemon.finish();
    recordings.wait_closed(0, Duration::from_secs(10));

    let all = recordings.finish();
    let frames = all[0].frames();
    assert!(frames.is_sorted_by(|a, b| a.dts_ms < b.dts_ms), "decoding times rise strictly");
    let seconds = f64::from(frames[frames.len() - 1].dts_ms) / 1000.0;
    assert!(seconds >= SECONDS as f64, "{seconds} s arrived");
    assert!(frames.len() as f64 >= 0.8 * 30.0 * seconds, "only {} frames in {seconds} s", frames.len());
    let probe = probe::probe(&all[0].path);
    assert_eq!((probe.frames, probe.size, probe.complaints), (frames.len() as u64, (640, 480), String::new()));
}
