//! What the samples of the last seconds say: how long bytes waited, how fast they went.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Sample, Time};

/// How far back anything is asked. Waits beyond it count as this long.
const LENGTH: Duration = Duration::from_secs(8);
/// Bound of the samples kept, whatever rate they come at.
const CAPACITY: usize = 512;

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Time,
    acked: u64,
    arrived: u64,
    /// Acknowledged or on its way: all that was produced so far.
    produced: u64,
    encoded: u64,
}

/// The samples of one connection.
#[derive(Debug, Default)]
pub struct History(VecDeque<Entry>);

impl History {
    /// Forgets a connection that is over.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes one more sample.
    pub fn push(&mut self, now: Time, sample: &Sample) {
        let produced = sample.acked + sample.backlog();
        // The two were read one after the other; what was produced never becomes less.
        let produced = self.0.back().map_or(produced, |last| last.produced.max(produced));
        while self.0.len() >= CAPACITY || self.0.get(1).is_some_and(|next| now.saturating_sub(next.at) >= LENGTH) {
            self.0.pop_front();
        }
        self.0.push_back(Entry {
            at: now,
            acked: sample.acked,
            arrived: sample.arrived,
            produced,
            encoded: sample.encoded,
        });
    }

    /// How long the byte that was acknowledged last took from the encoder to the server and its acknowledgement back.
    /// Goes on rising while nothing is acknowledged. None with nothing on its way, or nothing arrived yet.
    pub fn wait(&self) -> Option<Duration> {
        let last = self.0.back().filter(|last| last.produced > last.acked)?;
        let after = self.0.partition_point(|entry| entry.produced <= last.acked);
        let next = self.0.get(after)?;
        let born = match after.checked_sub(1).map(|before| self.0[before]) {
            // Between two samples bytes are taken to have come evenly.
            Some(before) => {
                let share = (last.acked - before.produced) as f64 / (next.produced - before.produced).max(1) as f64;
                before.at + next.at.saturating_sub(before.at).mul_f64(share.clamp(0.0, 1.0))
            }
            None => next.at,
        };
        Some(last.at.saturating_sub(born))
    }

    /// Bit/s that were delivered over the last `span`; none before that long. When a lost segment is repaired, all that
    /// arrived behind it is acknowledged at once, though it came one by one.
    pub fn delivered(&self, span: Duration) -> Option<f64> {
        let arrived = self.rate(span, |entry| entry.arrived)?;
        self.rate(span, |entry| entry.acked).map(|acked| acked.min(arrived))
    }

    /// Bit/s that arrived over the last `span`, in order or not: what the link carries while a lost segment is repaired.
    pub fn arrived(&self, span: Duration) -> Option<f64> {
        self.rate(span, |entry| entry.arrived)
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
        let last = self.0.back()?;
        let since = last.at.checked_sub(span)?;
        let first = self.0.partition_point(|entry| entry.at <= since).checked_sub(1).map(|index| self.0[index])?;
        let elapsed = last.at.checked_sub(first.at).filter(|elapsed| !elapsed.is_zero())?;
        Some(of(last).saturating_sub(of(&first)) as f64 * 8.0 / elapsed.as_secs_f64())
    }
}
