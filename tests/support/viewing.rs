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

/// A stretch of a publication, or several.
#[derive(Clone, Debug)]
pub struct Viewing(Vec<Stretch>);

#[derive(Clone, Debug)]
struct Stretch {
    from: Duration,
    until: Duration,
    tags: Vec<Tag>,
}

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
        let tags: Vec<Tag> = recording.arrivals.iter().filter_map(tag).collect();
        let [from, until] = [tags.first(), tags.last()].map(|tag| tag.map_or(Duration::ZERO, |tag| tag.at));
        Self(vec![Stretch { from, until, tags }])
    }

    fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.0.iter().flat_map(|stretch| &stretch.tags)
    }

    /// The part that arrived in this time.
    pub fn between(&self, from: Duration, until: Duration) -> Self {
        let tags = self.tags().copied().filter(|tag| (from..until).contains(&tag.at)).collect();
        Self(vec![Stretch { from, until, tags }])
    }

    /// This and a later part.
    pub fn and(mut self, later: Self) -> Self {
        self.0.extend(later.0);
        self
    }

    /// 95th percentile of what pictures waited.
    pub fn wait_p95(&self) -> Duration {
        let mut waits: Vec<Duration> = self.tags().filter_map(|tag| tag.waited).collect();
        waits.sort_unstable();
        waits.get(waits.len() * 95 / 100).copied().unwrap_or(Duration::MAX)
    }

    /// The longest time without a new picture.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap_since().1
    }

    /// When the longest time without a new picture began, and how long it was. What lies before a stretch or after it does
    /// not count.
    pub fn longest_gap_since(&self) -> (Duration, Duration) {
        let gaps = self.0.iter().flat_map(|stretch| {
            let pictures = stretch.tags.iter().filter(|tag| tag.waited.is_some()).map(|tag| tag.at);
            let ends = pictures.clone().chain([stretch.until]);
            [stretch.from].into_iter().chain(pictures).zip(ends).map(|(from, until)| (from, until.saturating_sub(from)))
        });
        gaps.max_by_key(|&(_, gap)| gap).unwrap_or_default()
    }

    /// kbit/s of pictures and sound.
    pub fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.tags().next(), self.tags().last()) else { return 0.0 };
        kilobits(self) / last.at.saturating_sub(first.at).as_secs_f64().max(0.1)
    }

    /// When, after `from`, as much as `rate` kbit/s first arrived over a second.
    pub fn reached(&self, rate: f64, from: Duration) -> Option<Duration> {
        let second = Duration::from_secs(1);
        let end = self.tags().last()?.at;
        (0..36_000)
            .map(|tenths| from + second + Duration::from_millis(100) * tenths)
            .take_while(|until| *until <= end)
            .find(|until| kilobits(&self.between(until.saturating_sub(second), *until)) >= rate)
            .map(|until| until.saturating_sub(from))
    }
}

fn kilobits(of: &Viewing) -> f64 {
    of.tags().map(|tag| tag.bytes).sum::<usize>() as f64 * 8.0 / 1000.0
}

impl fmt::Display for Viewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wait, gap) = (self.wait_p95().as_millis(), self.longest_gap().as_millis());
        write!(f, "{:.0} kbit/s, waits p95 {wait} ms, longest gap {gap} ms", self.rate())
    }
}
