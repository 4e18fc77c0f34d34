//! Frames as a publisher sends them: x264 and AAC, encoded by `ffmpeg` and read from an FLV file.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lenscast::broadcast::{AudioFormat, Broadcast, Frame, Media, VideoFormat};

use crate::support::process::run;

/// Encodes `seconds` of a test picture at 30 frames/s, and a tone. `encoder` has further options of x264.
pub fn encode(file: &Path, seconds: u32, size: &str, encoder: &[&str]) -> Vec<Frame> {
    let picture = format!("testsrc2=size={size}:rate=30:duration={seconds}");
    let tone = format!("sine=frequency=440:sample_rate=44100:duration={seconds}");
    let mut arguments = vec!["-v", "error", "-y", "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone];
    arguments.extend(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-b:v", "600k"]);
    arguments.extend(encoder);
    arguments.extend(["-c:a", "aac", "-ac", "2", "-b:a", "96k", file.to_str().expect("UTF-8 path")]);
    run("ffmpeg", &arguments);
    demux(&std::fs::read(file).expect("just written"))
}

fn demux(file: &[u8]) -> Vec<Frame> {
    const HEADER_AND_BACK_POINTER: usize = 13;
    let (mut video, mut audio) = (None, None);
    let mut frames = Vec::new();
    let mut rest = &file[HEADER_AND_BACK_POINTER..];
    while rest.len() > 11 {
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let size = number(&rest[1..4]) as usize;
        let dts = number(&[rest[7], rest[4], rest[5], rest[6]]);
        let (kind, body) = (rest[0], &rest[11..11 + size]);
        rest = &rest[11 + size + 4..];
        let data = |from: usize| Bytes::copy_from_slice(&body[from..]);
        let media = match (kind, body[1]) {
            (9, 0) => {
                video = Some(Arc::new(VideoFormat::parse(data(5)).expect("ffmpeg writes an avcC")));
                continue;
            }
            (8, 0) => {
                audio = Some(Arc::new(AudioFormat::parse(data(2)).expect("ffmpeg writes an AudioSpecificConfig")));
                continue;
            }
            (9, 1) => {
                let (format, cts) = (video.clone().expect("comes first"), number(&body[2..5]));
                Media::Video { format, pts: Duration::from_millis(dts + cts), key: body[0] >> 4 == 1 }
            }
            (8, 1) => Media::Audio { format: audio.clone().expect("comes first") },
            _ => continue,
        };
        let data = if kind == 9 { data(5) } else { data(2) };
        frames.push(Frame { publication: 1, dts: Duration::from_millis(dts), media, data, arrived: Instant::now() });
    }
    frames
}

/// Publishes `frames` from stream time `start` on, `speed` times as fast as they play.
pub async fn publish(broadcast: &Broadcast, publication: u64, frames: &[Frame], start: Duration, speed: u32) {
    let begun = tokio::time::Instant::now();
    for frame in frames {
        tokio::time::sleep_until(begun + frame.dts / speed).await;
        let mut frame = Frame { publication, dts: start + frame.dts, arrived: Instant::now(), ..frame.clone() };
        if let Media::Video { pts, .. } = &mut frame.media {
            *pts += start;
        }
        broadcast.push(frame);
    }
}
