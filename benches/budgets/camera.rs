//! A camera that encodes by itself beside one whose pictures are decoded and encoded, on real drivers in the rig of
//! `hw-fixtures/`.

use std::time::Duration;

use crate::figures::{Row, Section, Unit};
use crate::support::{Guest, GuestDaemon, Nginx, monotonic};
use crate::usage::family_cpu_time;
use crate::{Extent, progress};

/// One emulated CPU, and a trial of each encoder before the first frame.
const LIVE: Duration = Duration::from_secs(40);
const SETTLE: Duration = Duration::from_secs(3);
/// A guest lives for minutes only.
const WINDOW_LIMIT: Duration = Duration::from_secs(10);
/// Cameras, who must be the encoder, and what they are called. Real pictures lie between flat bands and random blocks.
const CAMERAS: [(&str, &str, &str); 3] = [
    ("--mode h264:640x480@30", "camera", "H.264 passed through"),
    ("--mode mjpeg:640x480@30 --pattern bands", "x264", "MJPEG of flat bands, decoded, encoded by x264"),
    ("--mode mjpeg:640x480@30 --pattern noise", "x264", "MJPEG of random blocks, decoded, encoded by x264"),
];
/// What the daemon costs beyond a program that only takes the camera's pictures, % of a core, and the pictures a second
/// that arrived.
fn measure(window: Duration, camera: &str, encoder: &str) -> (f64, f64) {
    let guest = Guest::boot();
    let webcam = guest.webcam("0001", camera);
    let taker = guest.start(&["v4l2-ctl", "-d", webcam.node(), "--stream-mmap=4", "--stream-count=100000"], &[]);
    std::thread::sleep(SETTLE);
    let alone = guest_cpu(&guest, window);
    assert_eq!(taker.exited(), None, "it takes pictures: {}", taker.output());
    taker.signal(nix::sys::signal::Signal::SIGKILL);
    taker.wait(LIVE);
    let nginx = Nginx::start_at(guest.host());
    let recordings = nginx.recordings();
    let daemon = GuestDaemon::start(&guest, "");
    let url = nginx.url("live", "key");
    let request = crate::support::control::start(&url, "org.example", "s-1", (640, 480), 30, 1_000_000);
    daemon.control().granted(&request);
    recordings.wait_first_frame(0, LIVE);
    assert_eq!(daemon.control().status()["camera"]["encoder"], encoder);
    std::thread::sleep(SETTLE);
    let from = monotonic();
    let streaming = guest_cpu(&guest, window);
    let to = monotonic();
    let frames = recordings.wait("the recording", LIVE, |all| {
        Some(all.first()?.frames().iter().filter(|frame| frame.at > from && frame.at <= to).count())
    });
    daemon.finish();
    progress(&format!("the guest: {alone:.1} % of a core without the daemon, {streaming:.1} % with it"));
    (streaming - alone, frames as f64 / to.saturating_sub(from).as_secs_f64())
}

/// What the whole guest takes, % of a core. The guest's own accounts go by its ticks, which beat with the camera's
/// frames: they show anything from nothing to twice the truth.
fn guest_cpu(guest: &Guest, window: Duration) -> f64 {
    let (from, before) = (monotonic(), family_cpu_time(guest.runner()));
    std::thread::sleep(window);
    let (cpu, time) = (family_cpu_time(guest.runner()).saturating_sub(before), monotonic().saturating_sub(from));
    100.0 * cpu.as_secs_f64() / time.as_secs_f64()
}

/// By turns, and compared round by round.
pub fn section(extent: &Extent) -> Section {
    let window = extent.window.min(WINDOW_LIMIT);
    let (mut cpu, mut rate) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for round in 0..extent.runs {
        for (who, (camera, encoder, name)) in CAMERAS.into_iter().enumerate() {
            let (percent, frames) = measure(window, camera, encoder);
            progress(&format!("camera, round {}: {name}: {percent:.1} % of the CPU, {frames:.1} fps", round + 1));
            cpu[who].push(percent);
            rate[who].push(frames);
        }
    }
    let mut rows = Vec::new();
    for (who, (_, _, name)) in CAMERAS.into_iter().enumerate() {
        rows.push(Row::new(format!("camera, CPU: {name}"), Unit::PercentOfCore, cpu[who].clone()));
        rows.push(Row::new(format!("camera, pictures that arrived: {name}"), Unit::FramesPerSecond, rate[who].clone()));
    }
    for who in 1..CAMERAS.len() {
        let ratio: Vec<f64> = cpu[0].iter().zip(&cpu[who]).map(|(passed, encoded)| passed / encoded).collect();
        let what = format!("camera, CPU: {} / {}", CAMERAS[0].2, CAMERAS[who].2);
        rows.push(Row::new(what, Unit::Ratio, ratio).budget(0.25));
    }
    Section {
        title: "Cost of a camera that encodes by itself",
        method: format!(
            "A USB webcam of the rig (the stock uvcvideo driver in a guest with one CPU, where a system call costs 22 us), \
             640x480 at 30 fps, 1 Mbit/s, no sound. CPU is that of the whole guest over {} s, {} s after the first picture \
             arrived, less what it is while v4l2-ctl only takes the same camera's pictures: a guest's own accounts are too \
             coarse. By turns, and compared round by round.",
            window.as_secs(),
            SETTLE.as_secs()
        ),
        rows,
    }
}
