//! What a stream's encoder makes: what was asked for, or the part of it that uplink and heat allow.

use crate::device::config;
use crate::policy::Time;
use crate::policy::bitrate::{Decision, Follow, FollowSettings, Pictures, Rule, UplinkEvent, UplinkSample};
use crate::policy::heat::Allowance;
use crate::protocol::VideoSettings;

/// The rate of one stream, over all its publications.
#[derive(Debug)]
pub struct Rate {
    /// Bit/s of video.
    asked: u32,
    /// The least bit/s of video that heat leaves.
    floor: u32,
    heat: Allowance,
    uplink: Uplink,
}

#[derive(Debug)]
enum Uplink {
    /// As much as is allowed.
    Taken(u32),
    /// As much as the uplink carries.
    Followed(Box<Follow>),
}

impl Rate {
    /// For a stream that asks for `video`, on a board in this state.
    pub fn new(config: &config::Stream, video: &VideoSettings, heat: Allowance, now: Time) -> Self {
        let floor = config.floor_kbps.saturating_mul(1000);
        let settings = FollowSettings { limit: video.bitrate, floor, frame_rate: video.frame_rate };
        let uplink = if config.adaptive {
            Uplink::Followed(Box::new(Follow::new(&settings)))
        } else {
            Uplink::Taken(video.bitrate)
        };
        let mut rate = Self { asked: video.bitrate, floor, heat: Allowance::ALL, uplink };
        rate.heat(heat, now);
        rate
    }

    /// What the encoder makes now: the lesser of both.
    pub fn decision(&self) -> Decision {
        let by_uplink = match &self.uplink {
            Uplink::Taken(bitrate) => Decision { bitrate: *bitrate, pictures: Pictures::All },
            Uplink::Followed(follow) => follow.decision(),
        };
        Decision { pictures: by_uplink.pictures.max(self.heat.pictures), ..by_uplink }
    }

    /// A publication begins.
    pub fn connected(&mut self, now: Time) {
        self.hear(UplinkEvent::Connected, now);
    }

    /// How the publication does. Returns the new decision if it changed.
    pub fn sampled(&mut self, sample: UplinkSample, now: Time) -> Option<Decision> {
        let before = self.decision();
        let after = self.hear(UplinkEvent::Sampled(sample), now);
        tracing::trace!(?sample, decision = ?after, send_buffer = self.send_buffer(), at = ?now, "the connection, sampled");
        (after != before).then_some(after)
    }

    /// The most bytes that the kernel may hold for the publication; none while the kernel decides.
    pub fn send_buffer(&self) -> Option<u32> {
        match &self.uplink {
            Uplink::Taken(_) => None,
            Uplink::Followed(follow) => follow.send_buffer(),
        }
    }

    /// What the network carried in the last stream, bit/s of video.
    pub fn known(&mut self, bitrate: u32, now: Time) -> Decision {
        self.hear(UplinkEvent::Known(bitrate), now)
    }

    /// Whether the uplink was asked to carry everything requested, so that its limit is known.
    pub fn tried_uplink(&self) -> bool {
        matches!(self.uplink, Uplink::Followed(_)) && self.heat == Allowance::ALL
    }

    /// Bit/s of video that the network carried lately, if that was ever less than requested.
    pub fn carries(&self) -> Option<u32> {
        match &self.uplink {
            Uplink::Taken(_) => None,
            Uplink::Followed(follow) => follow.carries(),
        }
    }

    /// Another bitrate is asked for.
    pub fn limit(&mut self, bitrate: u32, now: Time) -> Decision {
        self.asked = bitrate;
        self.apply_limit(now)
    }

    /// What heat allows. Returns the new decision if it changed.
    pub fn heat(&mut self, allowance: Allowance, now: Time) -> Option<Decision> {
        let before = self.decision();
        if std::mem::replace(&mut self.heat, allowance) == allowance {
            return None;
        }
        let after = self.apply_limit(now);
        (after != before).then_some(after)
    }

    /// To the uplink's rule, heat is a limit like any other: the rule never tries more.
    fn apply_limit(&mut self, now: Time) -> Decision {
        let share = (u64::from(self.asked) * u64::from(self.heat.percent) / 100) as u32;
        let limit = share.max(self.floor).min(self.asked);
        if let Uplink::Taken(bitrate) = &mut self.uplink {
            *bitrate = limit;
        }
        self.hear(UplinkEvent::Limit(limit), now)
    }

    fn hear(&mut self, event: UplinkEvent, now: Time) -> Decision {
        if let Uplink::Followed(follow) = &mut self.uplink {
            follow.on(event, now);
        }
        self.decision()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: VideoSettings = VideoSettings { width: 1280, height: 720, bitrate: 2_000_000, frame_rate: 30 };

    #[test]
    fn the_encoder_makes_the_less_of_what_heat_and_uplink_allow() {
        for adaptive in [false, true] {
            let config = config::Stream { adaptive, ..config::Stream::default() };
            let now = Time::from_secs(1);
            let half = Allowance { percent: 60, pictures: Pictures::Half };
            let mut rate = Rate::new(&config, &VIDEO, Allowance::ALL, now);
            assert_eq!(rate.heat(Allowance::ALL, now), None);
            let decision = |bitrate, pictures| Decision { bitrate, pictures };
            assert_eq!(rate.heat(half, now), Some(decision(1_200_000, Pictures::Half)));
            assert!(!rate.tried_uplink(), "with less than was asked for");
            assert_eq!(rate.limit(1_000_000, now), decision(600_000, Pictures::Half));
            assert_eq!(rate.limit(200_000, now), decision(150_000, Pictures::Half), "never below the floor");
            assert_eq!(rate.limit(100_000, now), decision(100_000, Pictures::Half), "unless so little was asked for");
            rate.limit(2_000_000, now);
            if adaptive {
                assert_eq!(rate.known(700_000, now), decision(700_000, Pictures::Half));
                assert_eq!(rate.heat(Allowance::ALL, now), Some(decision(700_000, Pictures::All)));
                assert_eq!((rate.tried_uplink(), rate.carries()), (true, Some(700_000)));
            } else {
                assert_eq!(rate.heat(Allowance::ALL, now), Some(decision(2_000_000, Pictures::All)));
            }
        }
    }
}
