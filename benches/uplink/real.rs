//! A real link, real TCP, a real server: tbf in a network namespace, 2 → 0.6 → 2 Mbit/s, all contestants side by side.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use lenscast::protocol::VideoSettings;

use crate::CONTESTANTS;
use crate::figures::{Figures, TABLE};
use crate::phases::{HIGH, LOW, Times};
use crate::publish::publish;
use crate::support::control::start;
use crate::support::{Daemon, Namespace, Nginx, Process, monotonic};

const SOON: Duration = Duration::from_secs(20);
/// More than the link carries; noise, which fills any bitrate.
pub const VIDEO: VideoSettings = VideoSettings { width: 640, height: 360, frame_rate: 30, bitrate: 2_500_000 };

#[derive(Clone, Copy)]
pub enum Who {
    /// The daemon with this in its configuration.
    Daemon(&'static str),
    /// The daemon's capture and publisher under the rule of this contestant.
    Rule(&'static str),
    GstLaunch,
}

/// The contestants; lenscast is the first.
pub const ALL: [(&str, Who); 5] = [
    ("lenscast", Who::Daemon("")),
    ("belacoder's rule", Who::Rule("belacoder")),
    ("OBS's rule", Who::Rule("OBS")),
    ("lenscast, adaptive = false", Who::Daemon("[stream]\nadaptive = false\n")),
    ("gst-launch-1.0", Who::GstLaunch),
];

/// The table for each congestion control; `phase` is the duration of each rate.
pub fn section(phase: Duration) -> String {
    let mut text = format!(
        "## A real link\n\ntbf (burst 16 kB, 400 ms of queue) in a network namespace, 2 → 0.6 → 2 Mbit/s, {} s each; \
         640x360 at 30 fps of noise, asked for at 2.5 Mbit/s, with 64 kbit/s of sound; to nginx-rtmp. *Waits* is the 95th \
         percentile over all pictures but those of the start (5 s) and of the first second of the fall, above the least \
         that one took; *gap* the longest time without a picture in the same; *used* is pictures and sound as a share of \
         the link, from 6 s after a change on; *back* is how soon 90 % of the rate before the fall arrived again. The rules \
         of others steer the daemon's own capture and publisher, and so have its gate, which bounds the queue. \
         All of a table run at the same time.\n",
        phase.as_secs()
    );
    for congestion in ["bbr", "cubic"] {
        let _ = writeln!(text, "\n### {congestion}\n\n{TABLE}");
        let rows = thread::scope(|scope| {
            let runs = ALL.map(|one| scope.spawn(move || run(one, congestion, phase).to_string()));
            runs.map(|run| run.join().unwrap_or_else(|_| "| a run failed |".to_owned()))
        });
        text.push_str(&rows.join("\n"));
        text.push('\n');
    }
    text
}

/// One run.
pub fn run((name, who): (&str, Who), congestion: &str, phase: Duration) -> Figures {
    let namespace = Namespace::new();
    namespace.congestion_control(congestion);
    let nginx = Nginx::start_in(&namespace);
    namespace.limit(HIGH);
    let recordings = nginx.recordings();
    let url = nginx.url("live", "key");
    let stop = AtomicBool::new(false);
    let times = thread::scope(|scope| {
        let (mut daemon, mut other) = (None, None);
        match who {
            Who::Daemon(more) => {
                let running = Daemon::start_logging(&format!("[camera]\ndevice = \"test:snow\"\n{more}"), "info", &[]);
                let (size, rate) = ((VIDEO.width, VIDEO.height), VIDEO.frame_rate);
                running.control().granted(&start(&url, "org.example.bench", "s", size, rate, VIDEO.bitrate));
                daemon = Some(running);
            }
            Who::Rule(rule) => {
                let rival = CONTESTANTS.iter().find(|rival| rival.name == rule).expect("it takes part");
                let (url, stop) = (&url, &stop);
                scope.spawn(move || {
                    publish(url, VIDEO, (rival.rule)(VIDEO.bitrate).as_mut(), rival.interval, stop);
                });
            }
            Who::GstLaunch => other = Some(gst_launch(&url)),
        }
        recordings.wait_first_frame(0, SOON);
        let begun = monotonic();
        sleep(phase);
        let fell = monotonic();
        namespace.limit(LOW);
        sleep(phase);
        let rose = monotonic();
        namespace.limit(HIGH);
        sleep(phase);
        let end = monotonic();
        stop.store(true, Ordering::Relaxed);
        drop((daemon, other));
        Times { begun, fell, rose, end }
    });
    let all = recordings.finish();
    Figures::of(name, &all, &times, None)
}

/// The daemon's own elements with its own properties, and nothing that controls them.
fn gst_launch(url: &str) -> Process {
    let mut command = Command::new("gst-launch-1.0");
    command.arg("--quiet").args(gst_pipeline(url).split_whitespace());
    Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// The pipeline for gst-launch.
pub fn gst_pipeline(url: &str) -> String {
    format!(
        "videotestsrc is-live=true pattern=snow ! video/x-raw,format=I420,width=640,height=360,framerate=30/1 \
         ! queue max-size-buffers=3 leaky=downstream \
         ! x264enc tune=zerolatency speed-preset=ultrafast bframes=0 aud=false vbv-buf-capacity=150 \
           bitrate=2500 key-int-max=30 \
         ! video/x-h264,profile=constrained-baseline ! h264parse \
         ! flvmux name=mux streamable=true ! rtmp2sink chunk-size=65536 location={url} \
         audiotestsrc is-live=true samplesperbuffer=1024 ! queue ! audioconvert ! audioresample \
         ! audio/x-raw,format=S16LE,rate=44100,channels=1 ! voaacenc bitrate=64000 ! aacparse ! mux."
    )
}
