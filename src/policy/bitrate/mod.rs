//! How many bits the encoder should make, so that what it makes gets through at once.
//!
//! A [`Rule`] takes samples of the connection and decides what the encoder makes. It asks for fewer bits first, then
//! for fewer pictures. The daemon uses [`Follow`]; the trait exists so that the simulator in `benches/uplink/` can
//! compare it with other rules.

mod follow;
mod history;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use follow::{Follow, FollowSettings};

use super::Time;
use crate::protocol::PictureShare;

/// How often a sample is due.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// A sample of a publication and its socket. Byte counts begin with the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UplinkSample {
    /// Bytes that the peer's kernel acknowledged (`tcpi_bytes_acked`).
    pub acked: u64,
    /// Bytes that arrived at the peer, in order or not, as nearly as the kernel knows.
    pub arrived: u64,
    /// Bytes in the kernel that are not acknowledged, sent or not (`SIOCOUTQ`).
    pub outstanding: u64,
    /// The unsent part of `outstanding` (`tcpi_notsent_bytes`).
    pub unsent: u64,
    /// Bytes that passed the gate and wait in front of the kernel.
    pub waiting: u64,
    /// Duration of the media that waits in front of the kernel.
    pub queued: Duration,
    /// Smoothed round-trip time (`tcpi_rtt`).
    pub round_trip: Duration,
    /// Bytes of video that left the encoder, whether or not they passed the gate.
    pub encoded: u64,
}

impl UplinkSample {
    /// Bytes on their way that are not acknowledged.
    pub fn backlog(&self) -> u64 {
        self.outstanding + self.waiting
    }
}

/// Input to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkEvent {
    /// A connection begins, with counts at 0.
    Connected,
    /// A new sample.
    Sampled(UplinkSample),
    /// The new maximum, bit/s of video.
    Limit(u32),
    /// What the network carried last time, bit/s of video. If that is less than the limit, start there.
    Known(u32),
}

/// What the encoder should make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Bit/s of video.
    pub bitrate: u32,
    /// Which of the camera's pictures are encoded.
    pub pictures: Pictures,
}

/// Which of the camera's pictures are encoded, from most to least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pictures {
    /// All pictures.
    #[default]
    All,
    /// Every second picture.
    Half,
    /// Every fourth picture.
    Quarter,
    /// One per second, as a key frame: sound goes on, and the viewer sees that the stream lives.
    KeyFrames,
}

impl Pictures {
    /// N where one picture in N is encoded, at `frame_rate` pictures a second.
    pub fn one_in(self, frame_rate: u32) -> u32 {
        match self {
            Self::All => 1,
            Self::Half => 2,
            Self::Quarter => 4,
            Self::KeyFrames => frame_rate.max(1),
        }
    }
}

impl From<Pictures> for PictureShare {
    fn from(pictures: Pictures) -> Self {
        match pictures {
            Pictures::All => Self::All,
            Pictures::Half => Self::Half,
            Pictures::Quarter => Self::Quarter,
            Pictures::KeyFrames => Self::KeyFrames,
        }
    }
}

/// Decides how much is encoded.
pub trait Rule {
    /// Handles an event; returns what the encoder should make from now on.
    fn on(&mut self, event: UplinkEvent, now: Time) -> Decision;
}
