//! The publishers: the daemon, and common alternatives.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::support::control::start;
use crate::support::process::run;
use crate::support::{Daemon, Process};

/// The app for which the daemon streams.
pub const APP: &str = "org.example.bench";

/// A picture format and its bitrate.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    pub size: (u32, u32),
    pub frame_rate: u32,
    /// Bit/s of video.
    pub bitrate: u32,
}

/// The format used to compare costs.
pub const HD: Picture = Picture { size: (1280, 720), frame_rate: 30, bitrate: 2_000_000 };
/// 300 kbit/s, of which 64 are sound: a small stream in large buffers hides a dead server longest.
pub const SMALL: Picture = Picture { size: (320, 240), frame_rate: 15, bitrate: 236_000 };
/// The format that the daemon uses for a photo; a stream that requests it finds the camera open.
pub const AS_FOR_PHOTOS: Picture = Picture { size: (960, 540), frame_rate: 15, bitrate: 1_000_000 };

impl Picture {
    /// A request to the daemon for a stream in this format.
    pub fn request(self, url: &str, stream_id: &str) -> Value {
        start(url, APP, stream_id, self.size, self.frame_rate, self.bitrate)
    }
}

/// Nothing shows when a new daemon has finished its background work, so it gets this long.
const WARM: Duration = Duration::from_secs(2);

/// A newly started daemon, after its background work.
pub fn warm_daemon() -> Daemon {
    let daemon = Daemon::start_logging("", "info", &[]);
    sleep(WARM);
    daemon
}

/// The other publishers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    GstLaunch,
    Ffmpeg,
}

impl Peer {
    /// Encodes [`HD`] from a test picture and a tone, and publishes it.
    pub fn encode(self, url: &str) -> Process {
        match self {
            // The daemon's elements and properties, except for what stands between capture and sink.
            Self::GstLaunch => gst_launch(&format!(
                "videotestsrc is-live=true pattern=smpte \
                 ! video/x-raw,format=I420,width=1280,height=720,framerate=30/1,pixel-aspect-ratio=1/1 \
                 ! queue max-size-buffers=3 leaky=downstream \
                 ! x264enc tune=zerolatency speed-preset=ultrafast bframes=0 aud=false vbv-buf-capacity=150 \
                   bitrate=2000 key-int-max=30 \
                 ! video/x-h264,profile=constrained-baseline ! h264parse \
                 ! flvmux name=mux streamable=true ! rtmp2sink chunk-size=65536 location={url} \
                 audiotestsrc is-live=true samplesperbuffer=1024 ! queue ! audioconvert ! audioresample \
                 ! audio/x-raw,format=S16LE,rate=44100,channels=1 ! voaacenc bitrate=64000 ! aacparse ! mux."
            )),
            Self::Ffmpeg => ffmpeg(&format!(
                "-re -f lavfi -i testsrc2=size=1280x720:rate=30 -re -f lavfi -i sine=frequency=440:sample_rate=44100 \
                 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -tune zerolatency -profile:v baseline -g 30 \
                 -b:v 2000k -maxrate 2000k -bufsize 1000k -c:a aac -b:a 64k -ac 1 -f flv {url}"
            )),
        }
    }

    /// Publishes the H.264 of `file` unchanged, at its own pace.
    pub fn pass_through(self, file: &Path, url: &str) -> Process {
        let file = file.display();
        match self {
            Self::GstLaunch => gst_launch(&format!(
                "filesrc location={file} ! qtdemux ! h264parse \
                 ! flvmux streamable=true ! rtmp2sink chunk-size=65536 location={url}"
            )),
            Self::Ffmpeg => ffmpeg(&format!("-re -i {file} -c copy -f flv {url}")),
        }
    }
}

fn gst_launch(pipeline: &str) -> Process {
    let mut command = Command::new("gst-launch-1.0");
    command.arg("--quiet").args(pipeline.split_whitespace());
    spawn(&mut command)
}

fn ffmpeg(arguments: &str) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostats"]).args(arguments.split_whitespace());
    spawn(&mut command)
}

fn spawn(command: &mut Command) -> Process {
    Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

/// Writes [`HD`] of this `length` as H.264 without sound to an MP4 file.
pub fn prepare_file(file: &Path, length: Duration) {
    let length = length.as_secs().to_string();
    let source = ["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30", "-t", &length];
    let encoder = "-pix_fmt yuv420p -c:v libx264 -preset ultrafast -tune zerolatency -profile:v baseline -g 30 \
                   -b:v 2000k -maxrate 2000k -bufsize 1000k -movflags +faststart";
    let encoder: Vec<&str> = encoder.split_whitespace().collect();
    run("ffmpeg", &[&source[..], &encoder, &[file.to_str().expect("UTF-8 path")]].concat());
}
