//! Hardware encoders that are absent, busy, failing, hanging or slow; and their bitrate.

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

/// As at boot, when drivers come in any order.
#[test]
fn one_that_comes_after_the_daemon_is_used() {
    let guest = Guest::boot();
    let mut live = Live::prepare(&guest, "");
    guest.hardware("encoder");
    guest.webcam("0001", WEBCAM);
    live.daemon.control().granted(&live.request(SIZE, 500_000));
    live.watch.wait_state("streaming", LIVE);
    live.recordings.wait_frames(0, 30, LIVE);
    assert_eq!(live.camera()["encoder"], "v4l2");
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

/// The fault is noticed, and the stream goes on with the next encoder, on the same connection, and reports it.
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

/// Streams moving content, and measures windows of 5 s of it, before and after a change: each must have the requested
/// bits.
fn obeys_bitrate(guest: &Guest, encoder: &str) {
    guest.webcam("0001", &format!("{WEBCAM} --pattern noise"));
    let live = Live::begin(guest, "", (640, 480), 800_000);
    assert_eq!(live.camera()["encoder"], encoder);
    measure(&live, 800_000);
    for changed in [400_000, 1_000_000] {
        live.daemon.control().granted(&json!({"cmd": "bitrate", "bitrate": changed}));
        measure(&live, changed);
    }
    live.finish();
}

fn measure(live: &Live, asked: u32) {
    const WINDOW_MS: u32 = 5_000;
    // Encoders follow downwards at once; x264 takes this long to use more.
    const SETTLED_MS: u32 = 4_000;
    let index = live.recordings.count() - 1;
    let now = live.recordings.wait("frames", LIVE, |all| Some(all[index].frames().last()?.dts_ms));
    let begin = now + SETTLED_MS;
    let frames = live.recordings.wait("two windows", LIVE, |all| {
        let frames = all[index].frames();
        (frames.last()?.dts_ms >= begin + 2 * WINDOW_MS).then_some(frames)
    });
    for from in [begin, begin + WINDOW_MS] {
        let window: Vec<_> = frames.iter().filter(|frame| (from..from + WINDOW_MS).contains(&frame.dts_ms)).collect();
        let bits = 8 * window.iter().map(|frame| frame.bytes).sum::<usize>();
        // Encoders divide bits by frame, 30 a second; on a busy machine the camera delivers fewer.
        let measured = bits as f64 * 30.0 / window.len() as f64;
        println!("{measured:.0} bit/s where {asked} were asked; {} frames in 5 s", window.len());
        let asked = f64::from(asked);
        assert!((measured - asked).abs() <= 0.15 * asked, "{measured:.0} bit/s in 5 s where {asked:.0} were asked");
    }
}

#[test]
fn the_bitrate_of_hardware_is_what_was_asked_also_after_a_change() {
    let guest = Guest::boot_alone();
    guest.hardware("encoder");
    obeys_bitrate(&guest, "v4l2");
}

#[test]
fn the_bitrate_of_software_is_what_was_asked_also_after_a_change() {
    obeys_bitrate(&Guest::boot_alone(), "x264");
}
