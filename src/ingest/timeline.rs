//! Maps a publisher's timestamps to the stream's time.
//!
//! The first frame is placed at its arrival. After that the publisher's own differences count, which are free of the
//! network's jitter, as long as they are plausible. They are not when a clock was set or started again. The track then
//! continues where the other track is, if its frame fits there, otherwise at the frame's arrival again.

use std::time::Duration;

/// How far a frame may be ahead of the newest frame of either track.
const AHEAD: Duration = Duration::from_secs(5);
/// How far a frame may be behind the newest frame of either track.
const BEHIND: Duration = Duration::from_secs(3);
/// A longer step is accepted if it leads this close to the time of arrival: the camera had paused.
const NEAR: Duration = Duration::from_secs(2);
/// The resolution of RTMP's time.
const STEP: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Track {
    Video,
    Audio,
}

/// The state of both tracks of one publisher.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    tracks: [State; 2],
    newest: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The timestamp as received, and without its wrapping at 2^32.
    raw: Option<(u32, i64)>,
    /// Stream time minus timestamp, ms.
    offset: Option<i64>,
    last: Option<Duration>,
}

impl Timeline {
    /// The decoding time of a frame with this timestamp that arrived at `arrived`. It is never earlier than `earliest`.
    pub fn place(&mut self, track: Track, timestamp: u32, arrived: Duration, earliest: Duration) -> Duration {
        let (own, other) = match track {
            Track::Video => (0, 1),
            Track::Audio => (1, 0),
        };
        let other = self.tracks[other];
        let state = &mut self.tracks[own];
        let raw = match state.raw.or(other.raw) {
            Some((before, long)) => long + i64::from(timestamp.wrapping_sub(before).cast_signed()),
            None => i64::from(timestamp),
        };
        state.raw = Some((timestamp, raw));
        let newest = self.newest;
        let place = |offset: i64| u64::try_from(raw.saturating_add(offset)).ok().map(Duration::from_millis);
        let fits = |&offset: &i64| {
            place(offset).is_some_and(|time| {
                newest.is_none_or(|newest| {
                    (time + BEHIND >= newest && time <= newest + AHEAD) || time.abs_diff(arrived) <= NEAR
                })
            })
        };
        let start = newest.map_or(earliest, |newest| newest + STEP).max(arrived);
        let offset =
            state.offset.filter(fits).or(other.offset.filter(fits)).unwrap_or_else(|| start.as_millis() as i64 - raw);
        state.offset = Some(offset);
        let floor = state.last.map_or(earliest, |last| last + STEP);
        let time = place(offset).unwrap_or_default().max(floor);
        state.last = Some(time);
        self.newest = self.newest.max(Some(time));
        time
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Track::{Audio, Video};
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn begins_at_its_arrival_and_keeps_the_publishers_differences() {
        let mut line = Timeline::default();
        assert_eq!(line.place(Video, 900_000, ms(5000), ms(0)), ms(5000));
        assert_eq!(line.place(Audio, 899_990, ms(5001), ms(0)), ms(4990));
        assert_eq!(line.place(Video, 900_033, ms(5900), ms(0)), ms(5033), "late, but in its place");
        assert_eq!(line.place(Video, 900_033, ms(5900), ms(0)), ms(5034), "strictly rising");
        assert_eq!(line.place(Audio, 900_011, ms(5901), ms(0)), ms(5011));
    }

    #[test]
    fn begins_after_what_the_publication_before_it_said() {
        let mut line = Timeline::default();
        assert!(line.place(Video, 0, ms(5000), ms(6001)) >= ms(6001));
        assert!(line.place(Audio, 0, ms(5000), ms(6001)) >= ms(6001));
        assert!(line.place(Video, 40, ms(5040), ms(6001)) >= ms(6041));
    }

    #[test]
    fn bears_the_wrap_at_32_bits() {
        let mut line = Timeline::default();
        assert_eq!(line.place(Video, u32::MAX - 9, ms(100), ms(0)), ms(100));
        assert_eq!(line.place(Audio, u32::MAX - 4, ms(100), ms(0)), ms(105));
        assert_eq!(line.place(Video, 30, ms(140), ms(0)), ms(140));
        assert_eq!(line.place(Audio, 16, ms(141), ms(0)), ms(126));
    }

    #[test]
    fn a_clock_that_jumps_goes_on_at_the_arrival_and_keeps_the_tracks_together() {
        for jump in [3_000_000, 100_u32.wrapping_sub(50_000)] {
            let mut line = Timeline::default();
            line.place(Video, 100_000, ms(1000), ms(0));
            line.place(Audio, 100_000, ms(1000), ms(0));
            assert_eq!(line.place(Video, jump, ms(1040), ms(0)), ms(1040));
            assert_eq!(line.place(Audio, jump.wrapping_add(5), ms(1041), ms(0)), ms(1045));
            assert_eq!(line.place(Video, jump.wrapping_add(40), ms(1090), ms(0)), ms(1080));
        }
    }

    #[test]
    fn a_pause_is_no_jump() {
        let mut line = Timeline::default();
        line.place(Video, 0, ms(1000), ms(0));
        assert_eq!(line.place(Video, 20_000, ms(21_300), ms(0)), ms(21_000));
    }

    #[test]
    fn tracks_on_clocks_of_their_own_are_both_placed() {
        let mut line = Timeline::default();
        for n in 0..100 {
            let at = 1000 + u64::from(n) * 40;
            assert_eq!(line.place(Video, n * 40, ms(at), ms(0)), ms(at));
            let audio = line.place(Audio, 900_000 + n * 40, ms(at), ms(0));
            assert!(audio.abs_diff(ms(at)) <= ms(2), "{audio:?} at {at}");
        }
    }

    proptest! {
        #[test]
        fn rises_strictly_within_a_track_whatever_comes(
            frames in prop::collection::vec((any::<bool>(), any::<u32>(), 0_u64..2000), 1..100), earliest in 0_u64..5000
        ) {
            let mut line = Timeline::default();
            let mut last = [None; 2];
            let mut now = 0;
            for (video, timestamp, step) in frames {
                now += step;
                let track = if video { Video } else { Audio };
                let time = line.place(track, timestamp, ms(now), ms(earliest));
                let last = &mut last[usize::from(video)];
                prop_assert!(last.is_none_or(|last| time > last) && time >= ms(earliest));
                *last = Some(time);
            }
        }
    }
}
