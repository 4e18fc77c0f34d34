//! What a stream's encoder is to make: what was asked for, or as much of it as the uplink carries.

use crate::device::config;
use crate::policy::Time;
use crate::policy::bitrate::{Decision, Event, Follow, Pictures, Rule, Sample, Settings};
use crate::protocol::VideoSettings;

/// The rate of one stream, over all its publications.
#[derive(Debug)]
pub enum Rate {
    /// As asked.
    Fixed(u32),
    /// As the uplink allows.
    Adaptive(Box<Follow>),
}

impl Rate {
    /// For a stream that asks for `video`.
    pub fn new(config: &config::Stream, video: &VideoSettings) -> Self {
        if !config.adaptive {
            return Self::Fixed(video.bitrate);
        }
        Self::Adaptive(Box::new(Follow::new(&Settings {
            limit: video.bitrate,
            floor: config.floor_kbps.saturating_mul(1000),
            frame_rate: video.frame_rate,
        })))
    }

    /// What the encoder is to make now.
    pub fn decision(&self) -> Decision {
        match self {
            Self::Fixed(bitrate) => Decision { bitrate: *bitrate, pictures: Pictures::All },
            Self::Adaptive(follow) => follow.decision(),
        }
    }

    /// A publication begins.
    pub fn connected(&mut self, now: Time) {
        self.hear(Event::Connected, now);
    }

    /// How the publication does. Says what the encoder is to make, if that is another thing than before.
    pub fn sampled(&mut self, sample: Sample, now: Time) -> Option<Decision> {
        let before = self.decision();
        let after = self.hear(Event::Sampled(sample), now);
        (after != before).then_some(after)
    }

    /// What the network carried the last time, bit/s of video.
    pub fn known(&mut self, bitrate: u32, now: Time) -> Decision {
        self.hear(Event::Known(bitrate), now)
    }

    /// Bit/s of video that the network carried of late, if that was ever less than asked for.
    pub fn carries(&self) -> Option<u32> {
        match self {
            Self::Fixed(_) => None,
            Self::Adaptive(follow) => follow.carries(),
        }
    }

    /// Another bitrate is asked for.
    pub fn limit(&mut self, bitrate: u32, now: Time) -> Decision {
        if let Self::Fixed(fixed) = self {
            *fixed = bitrate;
        }
        self.hear(Event::Limit(bitrate), now)
    }

    fn hear(&mut self, event: Event, now: Time) -> Decision {
        match self {
            Self::Fixed(_) => self.decision(),
            Self::Adaptive(follow) => follow.on(event, now),
        }
    }
}
