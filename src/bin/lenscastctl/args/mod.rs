//! The command line. `packaging/manual.rs` also makes manual pages and completions from it, so it must not depend on
//! other modules.

#[cfg(feature = "cloud")]
pub mod cloud;
pub mod doctor;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use lenscast::protocol::StreamKind;
use lenscast::protocol::control::{AudioWish, Start, VideoWish};

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  refused or failed; the cause is on standard error
  2  wrong usage
  3  the daemon cannot be reached";

/// Controls lenscast, live streaming for smart glasses.
#[derive(Debug, Parser)]
#[command(name = "lenscastctl", version, after_help = EXIT_STATUS)]
pub struct Arguments {
    /// The daemon's control socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "LENSCAST_SOCKET",
        default_value = "/run/lenscast/control.sock"
    )]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the daemon is doing
    Status {
        /// Print the state as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Follow what the daemon is doing
    ///
    /// On a terminal: a live view, until Ctrl-C. In a pipe: a line for every change.
    Watch {
        /// Print every event as one line of JSON; the first is the whole state
        #[arg(long)]
        json: bool,
        /// Show these lines below the live view
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Start a stream and print its id
    Start(StartArguments),
    /// Stop a stream: the running one, or the one with this id if it runs
    Stop {
        /// The id that `start` or `status` printed
        stream_id: Option<String>,
    },
    /// Change the running stream's video bitrate
    Bitrate {
        /// Bits per second, 100k to 10M; accepts k and M
        #[arg(value_parser = scaled)]
        bitrate: u32,
    },
    /// Take a photo; works while a stream runs
    Photo {
        /// Where to write the JPEG; - for standard output
        file: PathBuf,
        /// The app to take it for; an unmanaged stream allows photos to its own app only
        #[arg(long)]
        app: Option<String>,
    },
    /// List and reserve cameras
    #[command(subcommand)]
    Camera(CameraCommand),
    /// Check cameras, encoders, permissions and configuration; fails if something does not work
    Doctor(doctor::DoctorArguments),
    /// Check a configuration file for lenscastd without the daemon
    CheckConfig {
        /// For example /etc/lenscast/lenscastd.toml
        file: PathBuf,
        /// The file is for lenscast-cloud
        #[cfg(feature = "cloud")]
        #[arg(long)]
        cloud: bool,
    },
    /// Control lenscast-cloud: apps, glasses, streams
    #[cfg(feature = "cloud")]
    Cloud(cloud::CloudArguments),
}

/// What to do with cameras.
#[derive(Debug, Subcommand)]
pub enum CameraCommand {
    /// List the cameras, their modes and who uses them
    List {
        /// Print the cameras as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Show who has the camera
    Who {
        /// Print the owner as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a program while the camera is reserved for it
    ///
    /// The program finds the device's path in the environment variable `LENSCAST_CAMERA`. The reservation ends with the
    /// program. Exits with the program's status, 128 + N if signal N ended it, or 126 or 127 if it could not be run.
    /// SIGINT, SIGTERM and SIGHUP are forwarded.
    #[command(after_help = "\
Example:
  lenscastctl camera acquire -- sh -c 'v4l2-ctl -d $LENSCAST_CAMERA --all'")]
    Acquire {
        /// Name to show to others; by default the program's
        #[arg(long)]
        program: Option<String>,
        /// The program and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
}

/// A stream to start.
#[derive(Args, Debug)]
#[command(after_help = "\
What is left out takes the daemon's defaults. The URL ends in the stream key, and every user of this machine can see a
running command's arguments; with - as the URL it is read from standard input instead:
  lenscastctl start - < url.txt")]
pub struct StartArguments {
    /// rtmp:// or rtmps:// with server, application and stream key; - to read it from standard input
    pub url: String,
    /// The app the stream runs for
    #[arg(long)]
    pub app: Option<String>,
    /// The stream's id; by default the daemon makes one
    #[arg(long, value_name = "ID")]
    pub stream_id: Option<String>,
    /// Start a managed stream, which leaves the camera shareable
    #[arg(long)]
    pub managed: bool,
    /// Picture width in pixels
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<u32>,
    /// Picture height in pixels
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<u32>,
    /// Frames per second
    #[arg(long)]
    pub fps: Option<u32>,
    /// Video bits per second; accepts k and M, as in 1.5M
    #[arg(long, value_name = "BITS", value_parser = scaled)]
    pub bitrate: Option<u32>,
    /// Audio bits per second; accepts k and M, as in 96k
    #[arg(long, value_name = "BITS", value_parser = scaled)]
    pub audio_bitrate: Option<u32>,
    /// Audio samples per second; accepts k, as in 44.1k
    #[arg(long, value_name = "HERTZ", value_parser = scaled)]
    pub sample_rate: Option<u32>,
    /// Stop after this many seconds of streaming
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub duration: Option<u64>,
    /// Wait until the stream is live; fail if it ends first
    #[arg(long)]
    pub wait: bool,
}

impl StartArguments {
    /// The request, with this URL.
    pub fn request(&self, url: String) -> Start {
        let video = VideoWish { width: self.width, height: self.height, bitrate: self.bitrate, frame_rate: self.fps };
        let audio = AudioWish { bitrate: self.audio_bitrate, sample_rate: self.sample_rate };
        Start {
            url,
            app: self.app.clone(),
            stream_id: self.stream_id.clone(),
            kind: self.managed.then_some(StreamKind::Managed),
            video: Some(video).filter(|video| *video != VideoWish::default()),
            audio: Some(audio).filter(|audio| *audio != AudioWish::default()),
            duration_s: self.duration,
        }
    }
}

/// Reads `1500000`, `1500k` or `1.5M`.
fn scaled(text: &str) -> Result<u32, String> {
    let (number, factor) = match text.strip_suffix(['k', 'K', 'M']) {
        Some(number) => (number, if text.ends_with('M') { 1e6 } else { 1e3 }),
        None => (text, 1.0),
    };
    let value = number.parse::<f64>().map_err(|_| "not a number; for example 1500000, 1500k or 1.5M")? * factor;
    // Floating point: 44.1 * 1000 is not exactly 44100.
    let value = value.round();
    // "NaN" parses as a number and lies in no range.
    if (1.0..=f64::from(u32::MAX)).contains(&value) { Ok(value as u32) } else { Err("out of range".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn start(line: &str) -> Start {
        let words = ["lenscastctl", "start", "rtmp://h/a/k"].into_iter().chain(line.split_whitespace());
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Start(arguments) => arguments.request(arguments.url.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clap_finds_no_contradictions() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn only_what_was_said_is_asked_for() {
        let plain = start("");
        assert_eq!((plain.url.as_str(), plain.kind, plain.video, plain.audio), ("rtmp://h/a/k", None, None, None));
        let full =
            start("--managed --width 640 --fps 24 --bitrate 1.5M --sample-rate 44.1k --duration 60 --stream-id s");
        assert_eq!(full.kind, Some(StreamKind::Managed));
        let video = full.video.unwrap();
        assert_eq!(
            (video.width, video.height, video.bitrate, video.frame_rate),
            (Some(640), None, Some(1_500_000), Some(24))
        );
        assert_eq!(full.audio.unwrap(), AudioWish { bitrate: None, sample_rate: Some(44_100) });
        assert_eq!((full.duration_s, full.stream_id.as_deref()), (Some(60), Some("s")));
    }

    #[test]
    fn rates_take_suffixes() {
        assert_eq!(scaled("800k"), Ok(800_000));
        assert_eq!(scaled("2M"), Ok(2_000_000));
        assert_eq!(scaled("64000"), Ok(64_000));
        for wrong in ["", "k", "-1", "0", "2G", "9e99", "NaN", "inf"] {
            assert!(scaled(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_program_comes_after_two_dashes() {
        let words = ["lenscastctl", "camera", "acquire", "--", "ffmpeg", "-i", "x", "--json"];
        let Command::Camera(CameraCommand::Acquire { command, .. }) = Arguments::try_parse_from(words).unwrap().command
        else {
            panic!()
        };
        assert_eq!(command, ["ffmpeg", "-i", "x", "--json"]);
        assert!(Arguments::try_parse_from(["lenscastctl", "camera", "acquire"]).is_err());
    }
}
