use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{AudioFormat, VideoFormat};

/// One encoded picture (access unit) or one AAC frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which connection of the publisher it came by; rises with each. A change is a discontinuity.
    pub publication: u64,
    /// Decoding time since the stream's beginning. Rises strictly within a track, over publications too: the first frame of a
    /// publication is at the time of its arrival, so media time and wall clock keep step.
    pub dts: Duration,
    /// Picture or sound.
    pub media: Media,
    /// The access unit with four-byte length prefixes, without parameter sets; or a raw AAC frame without ADTS header.
    pub data: Bytes,
    /// When it had arrived in full.
    pub arrived: Instant,
}

/// What a frame is of.
#[derive(Clone, Debug)]
pub enum Media {
    /// A picture.
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
