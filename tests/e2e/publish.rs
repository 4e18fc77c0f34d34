//! A stream without faults arrives complete and well-formed.

use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::control::{small, start};
use crate::support::flv::Body;
use crate::support::recordings::Recording;
use crate::support::{Daemon, Nginx, Process, heavy, probe};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn twenty_seconds_of_720p_arrive_whole() {
    let _turn = heavy::turn();
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    // The only test that leaves the choice of encoder to the daemon.
    let daemon = Daemon::start("[encoder]\nprofile = \"auto\"\n");
    let mut watch = daemon.watch();
    let mut control = daemon.control();
    control.granted(&start(&nginx.url("live", "key"), "org.example.app", "stream-1", (1280, 720), 30, 2_000_000));
    watch.wait_state("streaming", SOON);
    let state = watch.wait_snapshot("20 s of streaming", Duration::from_mins(1), |state| {
        state["stream"]["metrics"]["duration_s"].as_u64() >= Some(20)
    });
    control.granted(&json!({"cmd": "stop"}));
    let stopped = watch.wait_state("stopped", SOON);
    assert_eq!(stopped.cause(), "requested");
    recordings.wait_closed(0, SOON);
    daemon.finish();
    let all = recordings.finish();
    assert_eq!(all.len(), 1, "one publication");

    assert_whole(&all[0], &state["stream"]["metrics"]);
    assert_well_timed(&all[0]);
    let probe = probe::probe(&all[0].path);
    assert_eq!(probe.codecs, ["h264", "aac"]);
    assert_eq!(probe.size, (1280, 720));
    assert_eq!(probe.frames, all[0].frames().len() as u64, "every frame can be decoded");
    assert_eq!(probe.complaints, "");
}

/// Asserts that every frame that passed the gate arrived, and that nearly all passed.
fn assert_whole(recording: &Recording, metrics: &Value) {
    let sequences = recording.sequences();
    assert!(sequences.is_sorted_by(|a, b| a < b), "frames in order, none twice");
    let (first, last) = (sequences[0], sequences[sequences.len() - 1]);
    let there = sequences.len() as u64;
    let missing = last - first + 1 - there;
    let (sent, dropped) = (metrics["sent_frames"].as_u64().unwrap(), metrics["dropped_frames"].as_u64().unwrap());
    assert!(there >= sent, "{there} frames at the server, but {sent} were let through at the last count");
    assert!(missing <= dropped, "{missing} frames are missing, but the gate owns up to {dropped}");
    assert!(missing * 50 <= there + missing, "more than 2 % of the frames were dropped: {missing} besides {there}");
    assert!(there >= 20 * 30 * 9 / 10, "only {there} frames in 20 s at 30 a second");
}

/// Checks key frames, decoding times, and sound against pictures.
fn assert_well_timed(recording: &Recording) {
    const FRAME_MS: u32 = 34;
    let frames = recording.frames();
    assert!(frames[0].key, "the first frame can be decoded");
    assert!(frames.is_sorted_by(|a, b| a.dts_ms < b.dts_ms), "decoding times rise strictly");
    let end = frames[frames.len() - 1].dts_ms;
    let mut keys: Vec<u32> = frames.iter().filter(|f| f.key).map(|f| f.dts_ms).collect();
    keys.push(end);
    let longest = keys.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(end);
    assert!(longest <= 1000 + FRAME_MS, "{longest} ms without a key frame");
    let sound = recording.sound_ms();
    assert!(sound.is_sorted(), "decoding times of the sound rise");
    // At the end one of each may be missing, and what the AAC encoder holds back (36 ms).
    let sound_end = sound[sound.len() - 1];
    assert!(sound_end.abs_diff(end) <= FRAME_MS + 24 + 36, "the picture ends at {end} ms and the sound at {sound_end}");
    let (early, late) = (sound_behind(recording, 1000..6000), sound_behind(recording, end - 5000..end));
    assert!(
        (early - late).abs() <= 20.0,
        "sound is behind the picture by {early:.0} ms at first, {late:.0} ms at last"
    );
}

/// How much longer sound takes from its timestamp to the server than pictures, milliseconds, in a part of a recording.
/// Uses the minimum of each: the rest is due to the machine.
fn sound_behind(recording: &Recording, part: Range<u32>) -> f64 {
    let least = |of: fn(&Body) -> bool| {
        let tags = recording.arrivals.iter().filter(|a| of(&a.tag.body) && part.contains(&a.tag.dts_ms));
        tags.map(|a| a.at.as_secs_f64() * 1000.0 - f64::from(a.tag.dts_ms)).fold(f64::INFINITY, f64::min)
    };
    least(|body| matches!(body, Body::Sound { .. })) - least(|body| matches!(body, Body::Frame { .. }))
}

/// nginx rebases the times it records; ffprobe, as the server, does not.
#[test]
fn decoding_times_on_the_wire_begin_at_zero() {
    let daemon = Daemon::start("");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("rtmp://127.0.0.1:{port}/live/key");
    let mut server = Command::new("ffprobe");
    server.args(["-v", "error", "-listen", "1", "-read_intervals", "%+#40", "-of", "json"]);
    server.args(["-show_entries", "packet=codec_type,dts_time,flags", &url]);
    let output = tempfile::NamedTempFile::new().unwrap();
    server.stdin(Stdio::null()).stdout(output.reopen().unwrap()).stderr(Stdio::null());
    let mut server = Process::spawn(&mut server);
    // The server listens a little later; the daemon retries until then.
    daemon.control().granted(&small(&url, "org.example.app", "stream-1"));
    assert!(server.wait(Duration::from_secs(30)).success(), "ffprobe got its 40 packets");
    daemon.finish();

    let json: Value = serde_json::from_slice(&std::fs::read(output.path()).unwrap()).unwrap();
    let packets = json["packets"].as_array().unwrap();
    let of = |kind: &str| -> Vec<f64> {
        let times = packets.iter().filter(|p| p["codec_type"] == kind).map(|p| &p["dts_time"]);
        times.map(|t| t.as_str().unwrap().parse().unwrap()).collect()
    };
    let (video, audio) = (of("video"), of("audio"));
    assert_eq!(video.first(), Some(&0.0), "{packets:?}");
    assert!(video.is_sorted_by(|a, b| a < b), "{video:?}");
    assert!(audio.first().is_some_and(|first| (0.0..0.2).contains(first)), "{audio:?}");
}
