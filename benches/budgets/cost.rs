//! CPU and memory of a stream beside gst-launch-1.0 and ffmpeg.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use crate::figures::{Row, Section, Unit};
use crate::publishers::{HD, Peer, prepare_file, warm_daemon};
use crate::support::recordings::Recordings;
use crate::support::{Nginx, monotonic};
use crate::usage::Usage;
use crate::{Extent, passthrough, progress};

const SOON: Duration = Duration::from_secs(15);
/// From the first picture until rate control and buffers have settled.
const SETTLE: Duration = Duration::from_secs(3);

const NAMES: [&str; 3] = ["lenscastd", "gst-launch-1.0", "ffmpeg"];

#[derive(Clone, Copy)]
struct Measured {
    usage: Usage,
    frames_per_second: f64,
}

/// Each of the three by turns, in every round another one first: what else the machine does hits all alike.
fn rounds(extent: &Extent, what: &str, measure: impl Fn(usize) -> Measured) -> [Vec<Measured>; 3] {
    let mut all = [const { Vec::new() }; 3];
    for round in 0..extent.runs {
        for turn in 0..3 {
            let who = (round + turn) % 3;
            let measured = measure(who);
            let Measured { usage, frames_per_second } = measured;
            progress(&format!(
                "{what}, round {}: {}: {:.2} % of a core, peak RSS {:.1} MiB, {frames_per_second:.1} fps",
                round + 1,
                NAMES[who],
                usage.cpu,
                usage.peak_rss
            ));
            all[who].push(measured);
        }
    }
    all
}

/// Measures whoever publishes to a server of its own, once it runs steadily.
fn steady(extent: &Extent, recordings: &Recordings, pid: u32) -> Measured {
    recordings.wait_first_frame(0, SOON);
    sleep(SETTLE);
    let from = monotonic();
    let usage = Usage::over(extent.window, &[pid])[0];
    let to = monotonic();
    let frames = recordings.wait("the recording", SOON, |all| {
        Some(all.first()?.frames().iter().filter(|frame| frame.at > from && frame.at <= to).count())
    });
    Measured { usage, frames_per_second: frames as f64 / to.saturating_sub(from).as_secs_f64() }
}

fn rows(measured: &[Vec<Measured>; 3], what: &str) -> Vec<Row> {
    let of = |who: usize, value: fn(&Measured) -> f64| measured[who].iter().map(value).collect::<Vec<_>>();
    let all = |unit, name: &'static str, value: fn(&Measured) -> f64| {
        (0..3).map(move |who| Row::new(format!("{what}, {name}: {}", NAMES[who]), unit, of(who, value)))
    };
    let mut rows: Vec<Row> = all(Unit::PercentOfCore, "CPU", |m| m.usage.cpu).collect();
    rows.extend(all(Unit::Mebibytes, "peak RSS", |m| m.usage.peak_rss));
    rows.extend(all(Unit::FramesPerSecond, "pictures that arrived", |m| m.frames_per_second));
    rows
}

/// `ours` and `gst-launch-1.0`'s, round by round.
fn compared(measured: &[Vec<Measured>; 3], compare: impl Fn(&Usage, &Usage) -> f64) -> Vec<f64> {
    measured[0].iter().zip(&measured[1]).map(|(ours, theirs)| compare(&ours.usage, &theirs.usage)).collect()
}

fn more_memory(measured: &[Vec<Measured>; 3], what: &str) -> Row {
    let more = compared(measured, |ours, theirs| ours.peak_rss - theirs.peak_rss);
    Row::new(format!("{what}, peak RSS: lenscastd more than gst-launch-1.0"), Unit::Mebibytes, more).budget(6.0)
}

/// A test picture, encoded by x264.
pub fn encoding(extent: &Extent) -> Section {
    let measured = rounds(extent, "x264", |who| {
        let nginx = Nginx::start();
        let (recordings, url) = (nginx.recordings(), nginx.url("live", "key"));
        if who == 0 {
            let mut daemon = warm_daemon();
            daemon.control().granted(&HD.request(&url, "stream-1"));
            let measured = steady(extent, &recordings, daemon.process().pid());
            daemon.finish();
            return measured;
        }
        let peer = [Peer::GstLaunch, Peer::Ffmpeg][who - 1].encode(&url);
        steady(extent, &recordings, peer.pid())
    });
    let mut rows = rows(&measured, "x264");
    let ratio = compared(&measured, |ours, theirs| ours.cpu / theirs.cpu);
    rows.push(Row::new("x264, CPU: lenscastd / gst-launch-1.0", Unit::Ratio, ratio).budget(1.05));
    rows.push(more_memory(&measured, "x264"));
    Section {
        title: "Cost of a stream that is encoded in software",
        method: format!(
            "1280x720 at 30 fps, x264 ultrafast zerolatency at 2 Mbit/s, AAC at 64 kbit/s, to nginx-rtmp on loopback. \
             gst-launch-1.0 has the same elements with the same properties; ffmpeg encodes another picture (testsrc2), \
             by its own AAC encoder. CPU is user and system time over {} s, {} s after the first picture arrived; peak \
             RSS is that of the process's whole life. By turns, and \
             compared round by round.",
            extent.window.as_secs(),
            SETTLE.as_secs()
        ),
        rows,
    }
}

/// H.264 that is passed on as it is.
pub fn passing_through(extent: &Extent) -> Section {
    let dir = TempDir::new().expect("a folder for the file");
    let file = dir.path().join("h264.mp4");
    prepare_file(&file, SETTLE + extent.window + Duration::from_secs(10));
    let publish = |who: usize, file: &Path, url: &str| match who {
        0 => passthrough::spawn(file, url),
        _ => [Peer::GstLaunch, Peer::Ffmpeg][who - 1].pass_through(file, url),
    };
    let measured = rounds(extent, "passthrough", |who| {
        let nginx = Nginx::start();
        let recordings = nginx.recordings();
        let publisher = publish(who, &file, &nginx.url("live", "key"));
        steady(extent, &recordings, publisher.pid())
    });
    let mut rows = rows(&measured, "passthrough");
    let more = compared(&measured, |ours, theirs| ours.cpu - theirs.cpu);
    let what = "passthrough, CPU: lenscastd more than gst-launch-1.0";
    rows.push(Row::new(what, Unit::PercentOfCore, more).budget(0.5));
    rows.push(more_memory(&measured, "passthrough"));
    Section {
        title: "Cost of a stream that is passed through",
        method: format!(
            "1280x720 at 30 fps, 2 Mbit/s of H.264 from an MP4 file, no sound, at its own pace to nginx-rtmp on \
             loopback, over {} s. The daemon has no file source: \"lenscastd\" is here its feed, gate, FLV writer and \
             publisher in a process of their own, behind the same filesrc, qtdemux and h264parse as gst-launch-1.0's. \
             ffmpeg copies (-re -c copy).",
            extent.window.as_secs()
        ),
        rows,
    }
}
