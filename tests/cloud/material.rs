//! Media to publish, made once, with known numbers of frames.

use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::run;

/// A file and its numbers of frames.
pub struct Material {
    _dir: TempDir,
    pub file: PathBuf,
    pub pictures: u64,
    pub sounds: u64,
}

/// 3 s of 320x180 at 30/s, with a key frame every second and two B-frames between other pictures; AAC.
pub fn short() -> &'static Material {
    static MADE: OnceLock<Material> = OnceLock::new();
    MADE.get_or_init(|| make(3))
}

/// The same, 8 s long.
pub fn long() -> &'static Material {
    static MADE: OnceLock<Material> = OnceLock::new();
    MADE.get_or_init(|| make(8))
}

fn make(seconds: u32) -> Material {
    let dir = TempDir::new().expect("a folder for media");
    let file = dir.path().join("media.mp4");
    let name = file.to_str().expect("UTF-8");
    let picture = format!("testsrc2=size=320x180:rate=30:duration={seconds}");
    let sound = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    let sources = ["-v", "error", "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound];
    let codecs = ["-c:v", "libx264", "-preset", "veryfast", "-g", "30", "-bf", "2", "-b_strategy", "0", "-c:a", "aac"];
    run("ffmpeg", &[&sources[..], &codecs, &[name]].concat());
    let output = run("ffprobe", &["-v", "error", "-count_packets", "-show_streams", "-of", "json", name]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("ffprobe writes JSON");
    let count = |kind: &str| {
        let streams = json["streams"].as_array().expect("streams");
        let stream = streams.iter().find(|stream| stream["codec_type"] == kind).expect("a stream of this kind");
        stream["nb_read_packets"].as_str().and_then(|n| n.parse().ok()).expect("a count")
    };
    Material { pictures: count("video"), sounds: count("audio"), _dir: dir, file }
}
