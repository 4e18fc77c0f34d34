//! What those who watch have of a publication: how late pictures are, how long they stand still, how much arrives.

use std::fmt;
use std::time::Duration;

use super::flv::Body;
use super::recordings::Recording;

/// A tag that arrived.
#[derive(Clone, Copy, Debug)]
struct Tag {
    at: Duration,
    bytes: usize,
    /// How long a picture waited on its way; none for sound.
    waited: Option<Duration>,
}

/// A stretch of a publication.
#[derive(Clone, Debug)]
pub struct Viewing(Vec<Tag>);

impl Viewing {
    /// Of a whole recording. What waited least counts as not having waited; so it works for every publisher whose
    /// timestamps are those of its camera.
    pub fn of(recording: &Recording) -> Self {
        let lag = |at: Duration, dts_ms: u32| at.as_secs_f64() - f64::from(dts_ms) / 1000.0;
        let least = recording.frames().iter().map(|frame| lag(frame.at, frame.dts_ms)).fold(f64::INFINITY, f64::min);
        let tag = |arrival: &super::recordings::Arrival| match arrival.tag.body {
            Body::Frame { bytes, .. } => {
                let waited = Duration::from_secs_f64((lag(arrival.at, arrival.tag.dts_ms) - least).max(0.0));
                Some(Tag { at: arrival.at, bytes, waited: Some(waited) })
            }
            Body::Sound { bytes } => Some(Tag { at: arrival.at, bytes, waited: None }),
            _ => None,
        };
        Self(recording.arrivals.iter().filter_map(tag).collect())
    }

    /// The part that arrived in this time.
    pub fn between(&self, from: Duration, until: Duration) -> Self {
        Self(self.0.iter().copied().filter(|tag| (from..until).contains(&tag.at)).collect())
    }

    /// This and a later part.
    pub fn and(mut self, later: Self) -> Self {
        self.0.extend(later.0);
        self
    }

    /// 95th percentile of what pictures waited.
    pub fn wait_p95(&self) -> Duration {
        let mut waits: Vec<Duration> = self.0.iter().filter_map(|tag| tag.waited).collect();
        waits.sort_unstable();
        waits.get(waits.len() * 95 / 100).copied().unwrap_or(Duration::MAX)
    }

    /// The longest time without a new picture.
    pub fn longest_gap(&self) -> Duration {
        let pictures: Vec<Duration> = self.0.iter().filter(|tag| tag.waited.is_some()).map(|tag| tag.at).collect();
        pictures.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(Duration::MAX)
    }

    /// When the longest time without a new picture began.
    pub fn longest_gap_since(&self) -> Option<Duration> {
        let pictures: Vec<Duration> = self.0.iter().filter(|tag| tag.waited.is_some()).map(|tag| tag.at).collect();
        pictures.windows(2).max_by_key(|pair| pair[1].saturating_sub(pair[0])).map(|pair| pair[0])
    }

    /// kbit/s of pictures and sound.
    pub fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return 0.0 };
        kilobits(&self.0) / last.at.saturating_sub(first.at).as_secs_f64().max(0.1)
    }

    /// When, after `from`, as much as `rate` kbit/s first arrived over a second.
    pub fn reached(&self, rate: f64, from: Duration) -> Option<Duration> {
        let second = Duration::from_secs(1);
        let end = self.0.last()?.at;
        (0..36_000)
            .map(|tenths| from + second + Duration::from_millis(100) * tenths)
            .take_while(|until| *until <= end)
            .find(|until| kilobits(&self.between(until.saturating_sub(second), *until).0) >= rate)
            .map(|until| until.saturating_sub(from))
    }
}

fn kilobits(tags: &[Tag]) -> f64 {
    tags.iter().map(|tag| tag.bytes).sum::<usize>() as f64 * 8.0 / 1000.0
}

impl fmt::Display for Viewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wait, gap) = (self.wait_p95().as_millis(), self.longest_gap().as_millis());
        write!(f, "{:.0} kbit/s, waits p95 {wait} ms, longest gap {gap} ms", self.rate())
    }
}
