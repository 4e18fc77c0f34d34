//! What the samples of the last seconds show: how long bytes waited, how fast they went.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Time, UplinkSample};

/// How far back queries reach. Longer waits count as this long.
const LENGTH: Duration = Duration::from_secs(8);
/// Maximum number of samples kept, whatever their rate.
const CAPACITY: usize = 512;

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Time,
    arrived: u64,
    /// Bytes produced so far: acknowledged or on their way.
    produced: u64,
    encoded: u64,
    /// Bytes the encoder would have made so far had it made exactly what it was told.
    told: u64,
}

/// The samples of one connection.
#[derive(Debug, Default)]
pub struct History(VecDeque<Entry>);

impl History {
    /// Forgets the previous connection.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a sample; since the previous one the encoder was told to make `told` bit/s.
    pub fn push(&mut self, now: Time, sample: &UplinkSample, told: u32) {
        let produced = sample.acked + sample.backlog();
        // The counters were read one after the other; `produced` must never decrease.
        let produced = self.0.back().map_or(produced, |last| last.produced.max(produced));
        let arrived = sample.arrived.clamp(sample.acked, produced);
        let arrived = self.0.back().map_or(arrived, |last| last.arrived.max(arrived));
        let told = self
            .0
            .back()
            .map_or(0, |last| last.told + (f64::from(told) / 8.0 * now.saturating_sub(last.at).as_secs_f64()) as u64);
        while self.0.len() >= CAPACITY || self.0.get(1).is_some_and(|next| now.saturating_sub(next.at) >= LENGTH) {
            self.0.pop_front();
        }
        self.0.push_back(Entry { at: now, arrived, produced, encoded: sample.encoded, told });
    }

    /// How long the latest arrived byte took from the encoder to the server, acknowledgement included. Keeps rising
    /// while nothing arrives, but not while only a lost segment is missing. `None` with nothing on its way.
    pub fn wait(&self) -> Option<Duration> {
        let last = self.0.back().filter(|last| last.produced > last.arrived)?;
        let after = self.0.partition_point(|entry| entry.produced <= last.arrived);
        let next = self.0.get(after)?;
        let born = match after.checked_sub(1).map(|before| self.0[before]) {
            // Bytes are assumed to have come evenly between two samples.
            Some(before) => {
                let share = (last.arrived - before.produced) as f64 / (next.produced - before.produced).max(1) as f64;
                before.at + next.at.saturating_sub(before.at).mul_f64(share.clamp(0.0, 1.0))
            }
            None => next.at,
        };
        Some(last.at.saturating_sub(born))
    }

    /// Bytes that were produced and have not arrived.
    pub fn under_way(&self) -> u64 {
        self.0.back().map_or(0, |last| last.produced - last.arrived)
    }

    /// Whether anything arrived between the last two samples.
    pub fn moved(&self) -> bool {
        self.0.len().checked_sub(2).is_some_and(|before| self.0[before].arrived < self.0[before + 1].arrived)
    }

    /// Bit/s that arrived over the last `span`; `None` before that much time has passed.
    pub fn arrived(&self, span: Duration) -> Option<f64> {
        self.rate(span, |entry| entry.arrived)
    }

    /// The highest bit/s that arrived over any `span` within the last `within`.
    pub fn most_arrived(&self, span: Duration, within: Duration) -> Option<f64> {
        let since = self.0.back()?.at.saturating_sub(within);
        let late = self.0.partition_point(|entry| entry.at < since)..self.0.len();
        late.filter_map(|last| self.rate_until(last, span, |entry| entry.arrived)).max_by(f64::total_cmp)
    }

    /// Bit/s of video that the encoder was told to make over the last `span`.
    pub fn told(&self, span: Duration) -> Option<f64> {
        self.rate(span, |entry| entry.told)
    }

    /// Bit/s of video that left the encoder over the last `span`.
    pub fn encoded(&self, span: Duration) -> Option<f64> {
        self.rate(span, |entry| entry.encoded)
    }

    /// Bit/s that were produced over the last `span`: video that passed the gate, sound and headers.
    pub fn produced(&self, span: Duration) -> Option<f64> {
        self.rate(span, |entry| entry.produced)
    }

    fn rate(&self, span: Duration, of: fn(&Entry) -> u64) -> Option<f64> {
        self.rate_until(self.0.len().checked_sub(1)?, span, of)
    }

    fn rate_until(&self, last: usize, span: Duration, of: fn(&Entry) -> u64) -> Option<f64> {
        let last = &self.0[last];
        let since = last.at.checked_sub(span)?;
        let first = self.0.partition_point(|entry| entry.at <= since).checked_sub(1).map(|index| self.0[index])?;
        let elapsed = last.at.checked_sub(first.at).filter(|elapsed| !elapsed.is_zero())?;
        Some(of(last).saturating_sub(of(&first)) as f64 * 8.0 / elapsed.as_secs_f64())
    }
}
