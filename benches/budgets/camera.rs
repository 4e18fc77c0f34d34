//! A camera that encodes by itself: the cost of passing its stream through the daemon, against decoding and
//! re-encoding it, on real drivers in the rig of `hw-fixtures/`.
//!
//! Both take the same pictures from the same webcam: 1280x720 at 30 fps, about 4 Mbit/s, a zoom into the Mandelbrot
//! set with a sensor's noise, so that every block moves and has detail. Both are published by RTMP. The daemon never
//! decodes what it can pass on, so re-encoding is done by a gst-launch-1.0 of the elements it would use, at their
//! cheapest: libav's decoder, no conversion, x264 at the daemon's settings.
//!
//! In the rig the webcam is itself a program, and each system call costs 22 us; this cost is the same for both. So the
//! whole guest's CPU time while a program only takes the camera's pictures (`v4l2-ctl --stream-mmap`, quietly) is
//! measured in the same guest, before and after, and its mean is subtracted from both. CPU time is measured from
//! outside: a guest's own accounts go by ticks, which beat with the camera's frames.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::figures::{Row, Section, Unit};
use crate::support::guest::Program;
use crate::support::{Guest, GuestDaemon, Nginx, monotonic};
use crate::usage::family_cpu_time;
use crate::{Extent, progress};

/// Limit for going live on one emulated CPU.
const LIVE: Duration = Duration::from_secs(40);
const SETTLE: Duration = Duration::from_secs(3);
/// Limit for a window: a guest lives only minutes, and four windows must fit in.
const WINDOW_LIMIT: Duration = Duration::from_secs(10);
const BITRATE: u32 = 4_000_000;

/// CPU of each, % of a core: a program that only takes the camera's pictures, and what comes on top of that.
struct Round {
    camera: f64,
    passed: f64,
    encoded: f64,
    /// Pictures per second that arrived from each.
    rates: [f64; 2],
}

fn round(window: Duration) -> Round {
    let guest = Guest::boot();
    film(&guest);
    let webcam = guest.webcam("0001", "--mode h264:1280x720@30 --h264-file /host/film.h264");
    let node = webcam.node();
    let before = taken(&guest, node, window);
    let (passing, passed_rate) = passing(&guest, window);
    let (encoding, encoded_rate) = encoding(&guest, node, window);
    let after = taken(&guest, node, window);
    progress(&format!(
        "the guest, % of a core: {before:.1} and {after:.1} with a reader, {passing:.1} passed through, {encoding:.1} \
         encoded again; {passed_rate:.1} and {encoded_rate:.1} fps arrived"
    ));
    let camera = f64::midpoint(before, after);
    Round { camera, passed: passing - camera, encoded: encoding - camera, rates: [passed_rate, encoded_rate] }
}

/// Creates what the camera sees, as `/host/film.h264`.
fn film(guest: &Guest) {
    let bits = BITRATE.to_string();
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-f", "lavfi", "-i"]);
    command.args(["mandelbrot=size=1280x720:rate=30:maxiter=400,noise=alls=3:allf=t", "-t", "4", "-c:v", "libx264"]);
    command.args(["-preset", "superfast", "-profile:v", "baseline", "-pix_fmt", "yuv420p", "-g", "30"]);
    command.args(["-b:v", &bits, "-maxrate", &bits, "-bufsize", &bits, "-f", "h264"]);
    assert!(command.arg(guest.shared().join("film.h264")).status().expect("ffmpeg starts").success());
}

/// The guest's CPU while a program only takes pictures.
fn taken(guest: &Guest, node: &str, window: Duration) -> f64 {
    let line = format!("exec v4l2-ctl -d {node} --stream-mmap=4 --stream-count=100000 > /dev/null 2>&1");
    let taker = guest.start(&["bash", "-c", &line], &[]);
    std::thread::sleep(SETTLE);
    let cpu = guest_cpu(guest, window);
    assert_eq!(taker.exited(), None, "it takes pictures");
    end(&taker);
    cpu
}

/// The guest's CPU while the daemon passes the camera's stream on, and the pictures per second that arrived.
fn passing(guest: &Guest, window: Duration) -> (f64, f64) {
    let nginx = Nginx::start_at(guest.host());
    let daemon = GuestDaemon::start(guest, "");
    let url = nginx.url("live", "key");
    let request = crate::support::control::start(&url, "org.example", "s-1", (1280, 720), 30, BITRATE);
    daemon.control().granted(&request);
    let measured = arriving(guest, &nginx, window);
    assert_eq!(daemon.control().status()["camera"]["encoder"], "camera");
    daemon.finish();
    measured
}

/// The same, decoding and re-encoding the stream.
fn encoding(guest: &Guest, node: &str, window: Duration) -> (f64, f64) {
    let nginx = Nginx::start_at(guest.host());
    let line = format!(
        "exec gst-launch-1.0 -q v4l2src device={node} io-mode=mmap ! video/x-h264,width=1280,height=720 ! h264parse ! \
         avdec_h264 ! x264enc tune=zerolatency speed-preset=ultrafast bframes=0 aud=false vbv-buf-capacity=500 \
         key-int-max=30 bitrate={} ! video/x-h264,profile=constrained-baseline ! h264parse ! flvmux streamable=true ! \
         rtmp2sink location={} 2>&1",
        BITRATE / 1000,
        nginx.url("live", "key")
    );
    let launch = guest.start(&["bash", "-c", &line], &[]);
    let measured = arriving(guest, &nginx, window);
    assert_eq!(launch.exited(), None, "it goes on: {}", launch.output());
    end(&launch);
    measured
}

fn end(program: &Program) {
    program.signal(Signal::SIGKILL);
    program.wait(LIVE);
}

/// The guest's CPU once pictures arrive, and how many arrive per second.
fn arriving(guest: &Guest, nginx: &Nginx, window: Duration) -> (f64, f64) {
    let recordings = nginx.recordings();
    recordings.wait_first_frame(0, LIVE);
    std::thread::sleep(SETTLE);
    let from = monotonic();
    let cpu = guest_cpu(guest, window);
    let to = monotonic();
    let frames = recordings.wait("the recording", LIVE, |all| {
        Some(all.first()?.frames().iter().filter(|frame| frame.at > from && frame.at <= to).count())
    });
    (cpu, frames as f64 / to.saturating_sub(from).as_secs_f64())
}

/// The whole guest's CPU, % of a core.
fn guest_cpu(guest: &Guest, window: Duration) -> f64 {
    let (from, before) = (monotonic(), family_cpu_time(guest.runner()));
    std::thread::sleep(window);
    let (cpu, time) = (family_cpu_time(guest.runner()).saturating_sub(before), monotonic().saturating_sub(from));
    100.0 * cpu.as_secs_f64() / time.as_secs_f64()
}

/// Measures round by round.
pub fn section(extent: &Extent) -> Section {
    let window = extent.window.min(WINDOW_LIMIT);
    let rounds: Vec<Round> = (0..extent.runs).map(|_| round(window)).collect();
    let each = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
    let rows = vec![
        Row::new("camera, CPU: the guest with a reader only", Unit::PercentOfCore, each(|round| round.camera)),
        Row::new("camera, CPU on top: passed through", Unit::PercentOfCore, each(|round| round.passed)),
        Row::new("camera, CPU on top: decoded, encoded again", Unit::PercentOfCore, each(|round| round.encoded)),
        Row::new(
            "camera, CPU: passed through / encoded again",
            Unit::Ratio,
            each(|round| round.passed / round.encoded),
        )
        .budget(0.25),
        Row::new("camera, arrived: passed through", Unit::FramesPerSecond, each(|round| round.rates[0])),
        Row::new("camera, arrived: encoded again", Unit::FramesPerSecond, each(|round| round.rates[1])),
    ];
    Section {
        title: "Cost of a camera that encodes by itself",
        method: format!(
            "A USB webcam of the rig (the stock uvcvideo driver in a guest with one CPU, where a system call costs 22 us) \
             that delivers H.264, 1280x720 at 30 fps, 4 Mbit/s, every block moving and noisy; published by RTMP: by the \
             daemon as it is, and by gst-launch-1.0 (avdec_h264, x264enc ultrafast) decoded and encoded again. CPU is \
             that of the whole guest over {} s, {} s after the first picture arrived, less what it is while v4l2-ctl only \
             takes the same camera's pictures, before and after, in the same guest.",
            window.as_secs(),
            SETTLE.as_secs()
        ),
        rows,
    }
}
