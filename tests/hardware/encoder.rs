//! What happens to hardware encoders: absent, busy, failing, hanging, slow; and their bitrate.

use serde_json::json;

use crate::live::{LIVE, Live, NOTICED, SIZE};
use crate::support::Guest;

const WEBCAM: &str = "--mode yuyv:320x240@30 --mode yuyv:640x480@30";

#[test]
fn without_one_software_encodes() {
    let guest = Guest::boot();
    guest.webcam("0001", WEBCAM);
    let live = Live::begin(&guest, "", SIZE, 500_000);
    assert_eq!(live.camera()["encoder"], "x264");
    live.finish();
}

#[test]
fn one_that_others_hold_is_passed_over() {
    let guest = Guest::boot();
    guest.hardware("encoder max_instances=0");
    guest.webcam("0001", WEBCAM);
    let live = Live::begin(&guest, "", SIZE, 500_000);
    assert_eq!(live.camera()["encoder"], "x264");
    live.finish();
}

/// The fault is noticed, and the stream goes on by the next encoder, on the same connection, and says so.
fn fails_over(parameter: &str, value: &str) {
    let guest = Guest::boot();
    guest.hardware("encoder");
    guest.webcam("0001", WEBCAM);
    let mut live = Live::begin(&guest, "", SIZE, 500_000);
    assert_eq!(live.camera()["encoder"], "v4l2");
    guest.set_encoder(parameter, value);
    let outage = live.watch.wait("the fault to be told", NOTICED, |event| event.report() == Some("reconnecting"));
    assert!(outage.cause().starts_with("encoder_"), "{}", outage.cause());
    live.watch.wait_state("streaming", LIVE);
    assert_eq!(live.camera()["encoder"], "x264");
    live.wait_more_frames(30);
    assert_eq!(live.recordings.count(), 1, "the server saw one publication");
    live.finish();
}

#[test]
fn one_bad_buffer_which_gstreamer_keeps_to_itself_costs_no_stream() {
    fails_over("fail_frames", "1");
}

#[test]
fn one_that_hangs_gives_way_to_the_next() {
    fails_over("hang", "1");
}

#[test]
fn one_that_is_too_slow_gives_way_to_the_next() {
    fails_over("latency_us", "150000");
}

#[test]
fn the_bitrate_is_what_was_asked_also_after_a_change() {
    let guest = Guest::boot_alone();
    guest.hardware("encoder");
    guest.webcam("0001", WEBCAM);
    let live = Live::begin(&guest, "", (640, 480), 1_000_000);
    let measure = |asked: f64| {
        // Bits a frame, at the frames that were asked for: a camera on a busy machine gives fewer.
        live.wait_more_frames(60);
        let index = live.recordings.count() - 1;
        let (frames, bytes) = live.recordings.wait("frames", LIVE, |all| {
            let frames = all[index].frames();
            let last = &frames[frames.len() - 60..];
            Some((last.len(), last.iter().map(|frame| frame.bytes).sum::<usize>()))
        });
        let measured = bytes as f64 * 8.0 * 30.0 / frames as f64;
        assert!((measured - asked).abs() <= 0.15 * asked, "{measured:.0} bit/s where {asked:.0} were asked");
    };
    live.wait_more_frames(90);
    measure(1_000_000.0);
    live.daemon.control().granted(&json!({"cmd": "bitrate", "bitrate": 500_000}));
    live.wait_more_frames(90);
    measure(500_000.0);
    live.finish();
}
