//! The gate between the capture and one publication: decides what passes, what is dropped, and with which times.
//!
//! A publication begins with a key frame at time 0. The queue is bounded in *time*: when it overflows, pictures are
//! dropped until the next key frame, which is requested once the queue has drained. A picture that its successors need
//! is never dropped alone. Sound is small and its loss is worse, so it has twice the room. Times are FLV's: whole
//! milliseconds, strictly rising per track whatever the encoder says.

use std::time::Duration;

/// Duration of video that may wait before pictures are dropped.
pub const QUEUE_LIMIT: Duration = Duration::from_secs(1);
/// Dropping ends when the queue has drained to this.
const QUEUE_RESUME: Duration = Duration::from_millis(300);

/// The decision on a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame goes out, with these times since the publication began.
    Pass {
        /// Decoding time, milliseconds.
        dts_ms: u32,
        /// Presentation minus decoding time, milliseconds.
        composition_ms: i32,
    },
    /// The frame is dropped.
    Drop,
    /// The frame is dropped, and a key frame is needed before the next can pass.
    AskForKeyFrame,
}

/// The state of one publication's gate.
#[derive(Debug, Default)]
pub struct Gate {
    /// The decoding time, on the capture clock, that became 0.
    base: Option<Duration>,
    waits_for_key: bool,
    asked: bool,
    last_video_ms: Option<u32>,
    last_audio_ms: Option<u32>,
    passed: u64,
    dropped: u64,
}

impl Gate {
    /// A gate that opens on the first key frame.
    pub fn new() -> Self {
        Self { waits_for_key: true, ..Self::default() }
    }

    /// Decides on an encoded picture. `queued`: how much media waits to be sent.
    pub fn video(&mut self, pts: Duration, dts: Duration, key: bool, queued: Duration) -> Verdict {
        if self.base.is_some() && !self.waits_for_key && queued > QUEUE_LIMIT {
            self.waits_for_key = true;
            self.asked = false;
        }
        if self.waits_for_key {
            let drained = self.base.is_none() || queued <= QUEUE_RESUME;
            if !(key && drained) {
                if self.base.is_some() {
                    self.dropped += 1;
                }
                if drained && !self.asked {
                    self.asked = true;
                    return Verdict::AskForKeyFrame;
                }
                return Verdict::Drop;
            }
            self.waits_for_key = false;
            self.asked = false;
        }
        let base = *self.base.get_or_insert(dts);
        let dts_ms = rising(&mut self.last_video_ms, dts.saturating_sub(base));
        let pts_ms = pts.saturating_sub(base).as_millis() as i64;
        self.passed += 1;
        Verdict::Pass { dts_ms, composition_ms: (pts_ms - i64::from(dts_ms)).clamp(0, 10_000) as i32 }
    }

    /// Decides on a frame of sound. None passes before the first picture, whose time it would precede.
    pub fn audio(&mut self, pts: Duration, queued: Duration) -> Verdict {
        let Some(base) = self.base.filter(|&base| pts >= base && queued <= 2 * QUEUE_LIMIT) else {
            return Verdict::Drop;
        };
        Verdict::Pass { dts_ms: rising(&mut self.last_audio_ms, pts.saturating_sub(base)), composition_ms: 0 }
    }

    /// Number of pictures that passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Number of pictures dropped since the first one passed.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The latest time that passed on either track, milliseconds.
    pub fn newest_ms(&self) -> u32 {
        self.last_video_ms.max(self.last_audio_ms).unwrap_or(0)
    }
}

fn rising(last: &mut Option<u32>, time: Duration) -> u32 {
    let rounded = ((time.as_micros() + 500) / 1000) as u32;
    let next = last.map_or(rounded, |last| rounded.max(last + 1));
    *last = Some(next);
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: Duration = Duration::from_nanos(33_333_333);
    const NOTHING: Duration = Duration::ZERO;

    fn at(index: u32) -> Duration {
        Duration::from_secs(7_000) + FRAME * index
    }

    #[test]
    fn begins_with_a_key_frame_at_zero() {
        let mut gate = Gate::new();
        assert_eq!(gate.audio(at(0), NOTHING), Verdict::Drop);
        assert_eq!(gate.video(at(0), at(0), false, NOTHING), Verdict::AskForKeyFrame);
        assert_eq!(gate.video(at(1), at(1), false, NOTHING), Verdict::Drop);
        assert_eq!(gate.video(at(2), at(2), true, NOTHING), Verdict::Pass { dts_ms: 0, composition_ms: 0 });
        assert_eq!(gate.video(at(3), at(3), false, NOTHING), Verdict::Pass { dts_ms: 33, composition_ms: 0 });
        assert_eq!(gate.audio(at(1), NOTHING), Verdict::Drop, "sound from before the first picture");
        assert_eq!(gate.audio(at(2), NOTHING), Verdict::Pass { dts_ms: 0, composition_ms: 0 });
        assert_eq!((gate.passed(), gate.dropped()), (2, 0));
    }

    #[test]
    fn an_overflow_drops_to_a_key_frame_that_is_asked_for_after_draining() {
        let mut gate = Gate::new();
        gate.video(at(0), at(0), true, NOTHING);
        let full = QUEUE_LIMIT + FRAME;
        assert_eq!(gate.video(at(1), at(1), false, full), Verdict::Drop);
        assert_eq!(gate.video(at(2), at(2), true, full), Verdict::Drop, "no room even for a key frame");
        assert!(matches!(gate.audio(at(2), full), Verdict::Pass { .. }), "sound has more room");
        assert_eq!(gate.video(at(3), at(3), false, QUEUE_RESUME), Verdict::AskForKeyFrame);
        assert_eq!(gate.video(at(4), at(4), false, NOTHING), Verdict::Drop, "asked once");
        assert!(matches!(gate.video(at(5), at(5), true, NOTHING), Verdict::Pass { dts_ms: 167, .. }));
        assert_eq!(gate.dropped(), 4);
    }

    proptest! {
        #[test]
        fn times_rise_strictly_and_no_picture_passes_without_its_key_frame(
            frames in prop::collection::vec((0_u64..80_000, any::<bool>(), 0_u64..2_000), 1..300)
        ) {
            let mut gate = Gate::new();
            let (mut clock, mut last, mut chain) = (Duration::from_secs(1), None, false);
            for (step, key, queued) in frames {
                clock += Duration::from_micros(step);
                match gate.video(clock, clock, key, Duration::from_millis(queued)) {
                    Verdict::Pass { dts_ms, .. } => {
                        prop_assert!(chain || key);
                        prop_assert!(last.is_none_or(|last| dts_ms > last));
                        prop_assert!(last.is_some() || dts_ms == 0);
                        last = Some(dts_ms);
                        chain = true;
                    }
                    _ => chain = false,
                }
            }
        }
    }
}
