use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{AudioFormat, VideoFormat};

/// One encoded picture (access unit) or one AAC frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The number of the publisher's connection, rising with each. A change is a discontinuity.
    pub publication: u64,
    /// Decoding time since the stream's beginning. Strictly rising within a track, also across publications. The first
    /// frame of a publication is placed at its arrival, so media time keeps step with the wall clock.
    pub dts: Duration,
    pub media: Media,
    /// The access unit with four-byte length prefixes, without parameter sets; or a raw AAC frame without ADTS header.
    pub data: Bytes,
    /// When all of it had arrived.
    pub arrived: Instant,
}

/// The media of a frame.
#[derive(Clone, Debug)]
pub enum Media {
    Video {
        /// How to decode it; the same `Arc` until it changes.
        format: Arc<VideoFormat>,
        /// Presentation time since the stream's beginning; later than `dts` only with B-frames.
        pts: Duration,
        /// Whether decoding can begin here (IDR).
        key: bool,
    },
    /// Sound; each AAC frame is 1024 samples.
    Audio {
        /// How to decode it; the same `Arc` until it changes.
        format: Arc<AudioFormat>,
    },
}

impl Frame {
    /// Whether decoding of the picture can begin here.
    pub fn is_key(&self) -> bool {
        matches!(self.media, Media::Video { key: true, .. })
    }

    /// Whether it is a picture.
    pub fn is_video(&self) -> bool {
        matches!(self.media, Media::Video { .. })
    }
}
