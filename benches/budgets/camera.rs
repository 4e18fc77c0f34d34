//! A camera that encodes by itself beside one whose pictures are decoded and encoded, on real drivers in the rig of
//! `hw-fixtures/`.

use std::time::Duration;

use crate::figures::{Row, Section, Unit};
use crate::support::{Guest, GuestDaemon, Nginx, monotonic};
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
/// The daemon's CPU, % of the guest's one, and the pictures a second that arrived.
fn measure(window: Duration, camera: &str, encoder: &str) -> (f64, f64) {
    let guest = Guest::boot();
    guest.webcam("0001", camera);
    let nginx = Nginx::start_at(guest.host());
    let recordings = nginx.recordings();
    let daemon = GuestDaemon::start(&guest, "");
    let url = nginx.url("live", "key");
    let request = crate::support::control::start(&url, "org.example", "s-1", (640, 480), 30, 1_000_000);
    daemon.control().granted(&request);
    recordings.wait_first_frame(0, LIVE);
    std::thread::sleep(SETTLE);
    assert_eq!(daemon.control().status()["camera"]["encoder"], encoder);
    let pid = daemon.program().pid();
    let (before, from) = (cpu_seconds(&guest, pid), monotonic());
    std::thread::sleep(window);
    let (after, to) = (cpu_seconds(&guest, pid), monotonic());
    let seconds = to.saturating_sub(from).as_secs_f64();
    let frames = recordings.wait("the recording", LIVE, |all| {
        Some(all.first()?.frames().iter().filter(|frame| frame.at > from && frame.at <= to).count())
    });
    daemon.finish();
    (100.0 * (after - before) / seconds, frames as f64 / seconds)
}

/// User and system time of all threads of a process in the guest, ended ones too, by its CPU clock: the ticks that
/// `/proc/PID/stat` counts beat with the camera's frames.
fn cpu_seconds(guest: &Guest, pid: u32) -> f64 {
    // The clock's number as clock_getcpuclockid(3) makes it: the process, and "as scheduled".
    let clock = (!i64::from(pid) << 3) | 2;
    let seconds = guest.shell(&format!("python3 -c 'import time; print(time.clock_gettime({clock}))'"));
    seconds.trim().parse().expect("a number of seconds")
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
             640x480 at 30 fps, 1 Mbit/s, no sound. CPU is user and system time of the daemon by its CPU clock in \
             the guest, over {} s, {} s after the first picture arrived. By turns, and compared round by round.",
            window.as_secs(),
            SETTLE.as_secs()
        ),
        rows,
    }
}
