//! `ffprobe`, the second opinion on a recording.

use std::path::Path;

use serde_json::Value;

use super::process::run;

/// What `ffprobe` says of a stream in a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probe {
    /// Codec names, for example `h264`.
    pub codecs: Vec<String>,
    /// Decoded video frames.
    pub frames: u64,
    /// Picture size.
    pub size: (u64, u64),
    /// What the decoder complained about.
    pub complaints: String,
}

/// Decodes all of `file` and counts.
pub fn probe(file: &Path) -> Probe {
    let output = run(
        "ffprobe",
        &["-v", "error", "-count_frames", "-show_streams", "-of", "json", file.to_str().expect("UTF-8 path")],
    );
    let json: Value = serde_json::from_slice(&output.stdout).expect("ffprobe writes JSON");
    let streams = json["streams"].as_array().cloned().unwrap_or_default();
    let video = streams.iter().find(|s| s["codec_type"] == "video").cloned().unwrap_or_default();
    Probe {
        codecs: streams.iter().filter_map(|s| s["codec_name"].as_str().map(str::to_owned)).collect(),
        frames: video["nb_read_frames"].as_str().and_then(|n| n.parse().ok()).unwrap_or(0),
        size: (video["width"].as_u64().unwrap_or(0), video["height"].as_u64().unwrap_or(0)),
        complaints: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
