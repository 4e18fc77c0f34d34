//! The two streams that faults are tested on: a small stream in large buffers hides a dead peer longest.

use std::time::Duration;

use serde_json::Value;

use crate::support::control::start;
use crate::support::recordings::Recordings;

/// An incompressible picture: the usual test picture would fill a tenth of the requested bitrate.
pub const NOISE: &str = "[camera]\ndevice = \"test:snow\"\n";

/// A stream of known bitrate.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    size: (u32, u32),
    frame_rate: u32,
    bitrate: u32,
}

/// 2 Mbit/s.
pub const HEAVY: Traffic = Traffic { size: (1280, 720), frame_rate: 30, bitrate: 2_000_000 };
/// 300 kbit/s, of which 50 are sound.
pub const LIGHT: Traffic = Traffic { size: (320, 240), frame_rate: 15, bitrate: 250_000 };

impl Traffic {
    /// The start request for this stream.
    pub fn request(self, url: &str) -> Value {
        start(url, "org.example.app", "stream-1", self.size, self.frame_rate, self.bitrate)
    }

    /// Bits per second of video.
    pub fn bitrate(self) -> u32 {
        self.bitrate
    }

    /// Waits until media really flows: a test without traffic would prove nothing.
    pub fn wait_flowing(self, recordings: &Recordings) {
        let measured = recordings.video_bitrate(0, Duration::from_secs(4), Duration::from_secs(30));
        let asked = f64::from(self.bitrate);
        assert!(
            (0.6 * asked..1.6 * asked).contains(&measured),
            "the test picture makes {measured:.0} bit/s where {asked:.0} were asked for"
        );
    }
}
