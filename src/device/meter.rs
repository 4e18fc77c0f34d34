//! Turns counters into measurements: sums over a stream's publications, rates over the last interval.

use std::time::Duration;

use crate::media::publisher::Counters;
use crate::protocol::{Metrics, VideoSettings};

/// Measures one stream.
#[derive(Debug)]
pub struct Meter {
    size: VideoSettings,
    /// Sums of the publications that are over.
    past: Counters,
    last: Option<(Duration, u64, u64)>,
    flowing_since: Option<Duration>,
}

impl Meter {
    /// A meter for a stream with these settings.
    pub fn new(size: VideoSettings) -> Self {
        Self { size, past: Counters::default(), last: None, flowing_since: None }
    }

    /// Adds a publication that is over.
    pub fn publication_over(&mut self, counters: Counters) {
        self.past.passed += counters.passed;
        self.past.dropped += counters.dropped;
        self.past.bytes += counters.bytes;
    }

    /// Media reached the server.
    pub fn flowing(&mut self, now: Duration) {
        self.flowing_since.get_or_insert(now);
    }

    /// The measurements at `now`, given the counters of the running publication.
    pub fn measure(&mut self, now: Duration, running: Option<Counters>) -> Metrics {
        let running = running.unwrap_or_default();
        let frames = self.past.passed + running.passed;
        let bytes = self.past.bytes + running.bytes;
        let (bitrate, fps) = match self.last.replace((now, frames, bytes)) {
            Some((then, last_frames, last_bytes)) if now > then => {
                let seconds = now.saturating_sub(then).as_secs_f64();
                // A publisher that is slow to close is added only then, when its successor already runs.
                let (bytes, frames) = (bytes.saturating_sub(last_bytes), frames.saturating_sub(last_frames));
                (bytes as f64 * 8.0 / seconds, frames as f64 / seconds)
            }
            _ => (0.0, 0.0),
        };
        Metrics {
            bitrate: bitrate as u64,
            fps: (fps * 10.0).round() / 10.0,
            width: self.size.width,
            height: self.size.height,
            sent_frames: frames,
            dropped_frames: self.past.dropped + running.dropped,
            duration_s: self.flowing_since.map_or(0, |since| now.saturating_sub(since).as_secs()),
            queue_ms: running.queued.as_millis() as u64,
            rtt_ms: running.round_trip.as_secs_f64() * 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_interval_and_sums_of_the_whole_stream() {
        let mut meter = Meter::new(VideoSettings::default());
        let at = |seconds| Duration::from_secs(seconds);
        let counters = |passed, bytes| Some(Counters { passed, bytes, ..Counters::default() });
        meter.measure(at(1), counters(10, 1_000));
        meter.flowing(at(1));
        let metrics = meter.measure(at(2), counters(40, 126_000));
        assert_eq!((metrics.fps, metrics.bitrate, metrics.duration_s), (30.0, 1_000_000, 1));
        meter.publication_over(Counters { passed: 40, bytes: 126_000, dropped: 3, ..Counters::default() });
        let metrics = meter.measure(at(3), counters(15, 1_000));
        assert_eq!((metrics.sent_frames, metrics.dropped_frames, metrics.fps), (55, 3, 15.0));
        let metrics = meter.measure(at(4), counters(1, 100));
        assert_eq!((metrics.bitrate, metrics.fps), (0, 0.0), "the one before has not closed yet");
    }
}
