//! Every picture that the glasses sent is in HLS and DASH, with the sound in step.

use std::thread;

use serde_json::{Value, json};

use crate::browser::small;
use crate::sdk::{CAMERA, SOON, Stage, start_managed, text};
use crate::support::process::run;
use crate::support::{heavy, poll_until};

/// Presentation times in seconds, rising.
struct Seen {
    pictures: Vec<f64>,
    sounds: Vec<f64>,
    complaints: String,
}

impl Seen {
    /// The frames that `ffprobe` decodes.
    fn by_ffprobe(arguments: &[&str]) -> Self {
        let entries = ["-v", "error", "-show_entries", "frame=media_type,best_effort_timestamp_time", "-of", "json"];
        let output = run("timeout", &[&["60", "ffprobe"], &entries[..], arguments].concat());
        let json: Value = serde_json::from_slice(&output.stdout).expect("ffprobe writes JSON");
        let frames = json["frames"].as_array().expect("frames");
        let times = |kind: &str| {
            let of_kind = frames.iter().filter(|frame| frame["media_type"] == kind);
            let time = |frame: &Value| frame["best_effort_timestamp_time"].as_str()?.parse().ok();
            let mut times: Vec<f64> = of_kind.filter_map(time).collect();
            times.sort_by(f64::total_cmp);
            times
        };
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { pictures: times("video"), sounds: times("audio"), complaints }
    }

    fn span(&self) -> (f64, f64) {
        let ends = |times: &[f64]| times.first().copied().zip(times.last().copied()).expect("something was decoded");
        let ((first, last), (sound, silence)) = (ends(&self.pictures), ends(&self.sounds));
        println!("pictures {first:.3} to {last:.3} s, sound {sound:.3} to {silence:.3} s: {}", self.complaints);
        assert!((first - sound).abs() < 0.1 && (last - silence).abs() < 0.1, "sound is not in step");
        (first, last)
    }
}

#[test]
fn hls_and_dash_have_98_of_100_pictures_of_20_s_and_sound_in_step() {
    let _turn = heavy::alone();
    let mut stage = Stage::new(&[("org.one", CAMERA)]);
    let result = start_managed(&mut stage.apps[0], &small(false)).expect("it starts");
    let (hls, dash) = (text(&result, "hlsUrl").to_owned(), text(&result, "dashUrl").to_owned());
    // One from the stream's first picture to its end, one for 20 s.
    let hls = thread::spawn(move || Seen::by_ffprobe(&["-live_start_index", "0", &hls]));
    let dash = thread::spawn(move || Seen::by_ffprobe(&["-read_intervals", "%+20", &dash]));
    let dash = dash.join().expect("ffprobe reads DASH");
    let sent = stage.daemon.control().status()["stream"]["metrics"]["sent_frames"].as_u64().expect("a count");
    stage.apps[0].call("stopManagedStream", &json!([])).expect("it ends");
    let hls = hls.join().expect("ffprobe reads HLS to its end");
    poll_until("the glasses to be idle", SOON, || stage.daemon.control().status()["stream"].is_null().then_some(()));

    hls.span();
    println!("HLS: {} pictures, the glasses had sent {sent} a little earlier", hls.pictures.len());
    // These figures may be a second old, and a slow machine drops some pictures before they are sent.
    assert!(sent > 540, "the glasses sent {sent} pictures in 20 s");
    assert!(hls.pictures.len() as u64 * 100 >= sent * 98, "{} of {sent}", hls.pictures.len());
    let (first, last) = dash.span();
    let same = hls.pictures.iter().filter(|&&at| at > first - 0.001 && at < last + 0.001).count();
    println!("DASH: {} pictures, HLS has {same} of that time", dash.pictures.len());
    assert!((same * 98 / 100..=same).contains(&dash.pictures.len()), "{} of {same}", dash.pictures.len());
    assert!(last - first > 19.5, "{first} to {last}");
    stage.finish();
}
