//! CPU and memory of a stream, compared with gst-launch-1.0 and ffmpeg.

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
/// Time from the first picture until rate control and buffers have settled.
const SETTLE: Duration = Duration::from_secs(3);

const NAMES: [&str; 3] = ["lenscastd", "gst-launch-1.0", "ffmpeg"];

#[derive(Clone, Copy)]
struct Measured {
    usage: Usage,
    frames_per_second: f64,
}

/// A separate server for each of the three, and its recordings.
struct Ground {
    // Dropped before the server: the recordings are in its folder.
    recordings: Recordings,
    nginx: Nginx,
}

impl Ground {
    fn new() -> Self {
        let nginx = Nginx::start();
        Self { recordings: nginx.recordings(), nginx }
    }

    fn url(&self) -> String {
        self.nginx.url("live", "key")
    }

    fn frames_between(&self, from: Duration, to: Duration) -> usize {
        self.recordings.wait("the recording", SOON, |all| {
            Some(all.first()?.frames().iter().filter(|frame| frame.at > from && frame.at <= to).count())
        })
    }
}

/// Measures the three at the same time, once they all run steadily, so that other load and the cores' present speed
/// affect them alike.
fn side_by_side(extent: &Extent, grounds: &[Ground; 3], pids: [u32; 3]) -> [Measured; 3] {
    for ground in grounds {
        ground.recordings.wait_first_frame(0, SOON);
    }
    sleep(SETTLE);
    let from = monotonic();
    let usage = Usage::over(extent.window, &pids);
    let to = monotonic();
    let seconds = to.saturating_sub(from).as_secs_f64();
    std::array::from_fn(|who| {
        let frames_per_second = grounds[who].frames_between(from, to) as f64 / seconds;
        Measured { usage: usage[who], frames_per_second }
    })
}

fn rounds(extent: &Extent, what: &str, measure: impl Fn(&[Ground; 3]) -> [Measured; 3]) -> [Vec<Measured>; 3] {
    let mut all = [const { Vec::new() }; 3];
    for round in 0..extent.runs {
        let measured = measure(&std::array::from_fn(|_| Ground::new()));
        for (who, one) in measured.into_iter().enumerate() {
            let Measured { usage, frames_per_second } = one;
            progress(&format!(
                "{what}, round {}: {}: {:.2} % of a core, peak RSS {:.1} MiB, {frames_per_second:.1} fps",
                round + 1,
                NAMES[who],
                usage.cpu,
                usage.peak_rss
            ));
            all[who].push(one);
        }
    }
    all
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

/// Compares ours with `gst-launch-1.0`'s, round by round.
fn compared(measured: &[Vec<Measured>; 3], compare: impl Fn(&Usage, &Usage) -> f64) -> Vec<f64> {
    measured[0].iter().zip(&measured[1]).map(|(ours, theirs)| compare(&ours.usage, &theirs.usage)).collect()
}

fn more_memory(measured: &[Vec<Measured>; 3], what: &str) -> Row {
    let more = compared(measured, |ours, theirs| ours.peak_rss - theirs.peak_rss);
    Row::new(format!("{what}, peak RSS: lenscastd more than gst-launch-1.0"), Unit::Mebibytes, more).budget(6.0)
}

/// A test picture, encoded by x264.
pub fn encoding(extent: &Extent) -> Section {
    let measured = rounds(extent, "x264", |grounds| {
        let mut daemon = warm_daemon();
        daemon.control().granted(&HD.request(&grounds[0].url(), "stream-1"));
        let gst_launch = Peer::GstLaunch.encode(&grounds[1].url());
        let ffmpeg = Peer::Ffmpeg.encode(&grounds[2].url());
        let measured = side_by_side(extent, grounds, [daemon.process().pid(), gst_launch.pid(), ffmpeg.pid()]);
        daemon.finish();
        measured
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
             RSS is that of the process's whole life. All three at the same time, compared round by round.",
            extent.window.as_secs(),
            SETTLE.as_secs()
        ),
        rows,
    }
}

/// H.264 that is passed on unchanged.
pub fn passing_through(extent: &Extent) -> Section {
    let dir = TempDir::new().expect("a folder for the file");
    let file = dir.path().join("h264.mp4");
    prepare_file(&file, SETTLE + extent.window + Duration::from_secs(10));
    let measured = rounds(extent, "passthrough", |grounds| {
        let ours = passthrough::spawn(&file, &grounds[0].url());
        let gst_launch = Peer::GstLaunch.pass_through(&file, &grounds[1].url());
        let ffmpeg = Peer::Ffmpeg.pass_through(&file, &grounds[2].url());
        side_by_side(extent, grounds, [ours.pid(), gst_launch.pid(), ffmpeg.pid()])
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
             ffmpeg copies (-re -c copy). All three at the same time, compared round by round.",
            extent.window.as_secs()
        ),
        rows,
    }
}
