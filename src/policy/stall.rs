//! Whether a publisher's connection still carries media to a process that reads it, judged on its TCP socket.
//!
//! Acked bytes alone reveal a cut network, but not a frozen server: its kernel goes on acking into the receive buffer
//! (measured 3.8 to over 10 s). The peer's advertised window reveals it: a window that rises, or is at its maximum,
//! proves that the process reads; a window that shrinks with every acked byte proves that it does not.
//!
//! Kernels never take back window they granted, and at each ACK they round it up to their scaling unit. So in front of
//! a frozen process on a link of small segments the window falls by only a third of what is acked (recorded in
//! `stall/`: unit 1 KiB, 300 kbit/s). How much of it must be eaten therefore depends on the unit, which shows in the
//! values.

use std::{collections::VecDeque, time::Duration};

use super::Time;
use crate::protocol::Cause;

/// How often a sample is due.
pub const INTERVAL: Duration = Duration::from_millis(100);
const NO_ACK: Duration = Duration::from_millis(2500);
const NO_READ: Duration = Duration::from_secs(2);
/// A window this far below its maximum still counts as at its maximum, because of data not yet read. Bytes.
const MARGIN: u32 = 8 * 1024;
const MAXIMUM_OF: Duration = Duration::from_secs(10);
/// Without an ACK for this long the window says nothing new. Also: a sampler that paused this long saw nothing.
const LULL: Duration = Duration::from_secs(1);
/// Maximum length of each history, whatever the sample rate.
const HISTORY: usize = 256;

/// A sample of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSample {
    /// Bytes that the peer acked since the connection began (`tcpi_bytes_acked`).
    pub acked: u64,
    /// Bytes in the kernel that are not acked, sent or not (`SIOCOUTQ`).
    pub outstanding: u64,
    /// The peer's advertised receive window, bytes (`tcpi_snd_wnd`).
    pub window: u32,
}

/// Watches one connection.
#[derive(Debug)]
pub struct StallDetector {
    window_is_end_to_end: bool,
    last: Option<(Time, TcpSample)>,
    /// Last ACK of new bytes.
    acked_at: Time,
    /// Last ACK of new bytes, or the last time that none were owed.
    nothing_owed_at: Time,
    /// Last proof that the process reads, or that there is nothing to read.
    reading_at: Time,
    /// Falling windows with the time of each: the first is the maximum of [`MAXIMUM_OF`].
    maxima: VecDeque<(Time, u32)>,
    /// Bytes acked so far that made the window smaller.
    eaten: u64,
    /// Acked and eaten bytes over the last [`NO_READ`].
    recent: VecDeque<(Time, u64, u64)>,
    /// All windows or-ed: the lowest bit set is the peer's scaling unit.
    window_bits: u32,
}

impl StallDetector {
    /// `window_is_end_to_end`: false behind a TCP or TLS proxy, whose window says nothing about the RTMP server; then
    /// only missing ACKs count.
    pub fn new(now: Time, window_is_end_to_end: bool) -> Self {
        Self {
            window_is_end_to_end,
            last: None,
            acked_at: now,
            nothing_owed_at: now,
            reading_at: now,
            maxima: VecDeque::new(),
            eaten: 0,
            recent: VecDeque::new(),
            window_bits: 0,
        }
    }

    /// Takes a sample and returns the verdict, repeated while it holds. `NetworkStalled`: bytes are owed and none was
    /// acked for 2.5 s. `ServerFrozen`: for 2 s the process did not read what arrived.
    pub fn sample(&mut self, now: Time, sample: TcpSample) -> Option<Cause> {
        let previous = self.last.replace((now, sample));
        match previous {
            Some((then, before)) if now.saturating_sub(then) < LULL && sample.acked >= before.acked => {
                self.observe(now, before, sample);
                self.verdict(now, sample)
            }
            // No samples up to now: all clocks start here.
            _ => {
                self.recent.clear();
                self.acked_at = now;
                self.nothing_owed_at = now;
                self.reading_at = now;
                self.remember(now, sample);
                None
            }
        }
    }

    fn observe(&mut self, now: Time, before: TcpSample, sample: TcpSample) {
        let acked = sample.acked - before.acked;
        if acked > 0 {
            self.acked_at = now;
            self.nothing_owed_at = now;
        }
        self.eaten += acked.min(u64::from(before.window.saturating_sub(sample.window)));
        if sample.outstanding == 0 {
            self.nothing_owed_at = now;
        }
        self.remember(now, sample);
        let full = sample.window > 0 && sample.window.saturating_add(MARGIN) >= self.maximum();
        let idle = sample.outstanding == 0 && now.saturating_sub(self.acked_at) >= LULL;
        // More was acked than the window allowed: it opened and was filled again between the samples.
        let reopened = acked > u64::from(before.window.saturating_add(MARGIN));
        if sample.window > before.window || full || idle || reopened {
            self.reading_at = now;
        }
    }

    fn remember(&mut self, now: Time, sample: TcpSample) {
        self.window_bits |= sample.window;
        while self.maxima.back().is_some_and(|&(_, window)| window <= sample.window) {
            self.maxima.pop_back();
        }
        while self.maxima.len() >= HISTORY
            || self.maxima.front().is_some_and(|&(at, _)| now.saturating_sub(at) > MAXIMUM_OF)
        {
            self.maxima.pop_front();
        }
        self.maxima.push_back((now, sample.window));
        // Keeps one sample that is at least as old as the period.
        while self.recent.len() >= HISTORY || self.recent.get(1).is_some_and(|r| now.saturating_sub(r.0) >= NO_READ) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, sample.acked, self.eaten));
    }

    fn maximum(&self) -> u32 {
        self.maxima.front().map_or(0, |&(_, window)| window)
    }

    fn verdict(&self, now: Time, sample: TcpSample) -> Option<Cause> {
        let owed = sample.outstanding > 0;
        // Far below its maximum: hardly anything fits any more.
        let shut = self.window_is_end_to_end && sample.window <= self.maximum() / 8;
        if self.window_is_end_to_end && now.saturating_sub(self.reading_at) >= NO_READ {
            let (acked, eaten) = self
                .recent
                .front()
                .map_or((0, 0), |&(_, acked, eaten)| (sample.acked.saturating_sub(acked), self.eaten - eaten));
            // A cut network stops the ACKs first, while the window is still as it was.
            let acks_go_on = now.saturating_sub(self.acked_at) < LULL;
            let unread = acks_go_on && acked > 0 && eaten * self.least_eaten() >= acked;
            // The window is used up. What still gets through is probes.
            let filled = owed && shut && (!acks_go_on || acked < u64::from(MARGIN));
            if unread || filled {
                return Some(Cause::ServerFrozen);
            }
        }
        if owed && now.saturating_sub(self.nothing_owed_at) >= NO_ACK {
            return Some(if shut { Cause::ServerFrozen } else { Cause::NetworkStalled });
        }
        None
    }

    /// If the process does not read, the window falls by at least one n-th of what is acked.
    fn least_eaten(&self) -> u64 {
        // With fine units rounding gives away little: one half tells a frozen process from a slow reader.
        if self.window_bits.trailing_zeros() <= 8 { 2 } else { 4 }
    }
}

/// Whether an RTMP server behind a proxy reads, judged on its own acknowledgements (RTMP 1.0, 5.4.3).
///
/// A proxy has its own window and ACKs; it takes up to megabytes that the frozen server behind it no longer reads. But
/// a server that acknowledges does so at regular byte counts. If the next hop has taken twice that count without an
/// acknowledgement, the server does not read. A server that never acknowledges, or at irregular counts, is not judged.
#[derive(Debug, Default)]
pub struct UnreadDetector {
    acknowledged: u64,
    /// Time of the last acknowledgement, and bytes taken by then.
    last: (Time, u64),
    /// Least and most bytes taken between two acknowledgements.
    steps: Option<(u64, u64)>,
    count: u32,
}

/// Number of acknowledgements that show a server's habit.
const HABIT: u32 = 2;

impl UnreadDetector {
    /// `taken`: bytes that the next hop acked (TCP). `acknowledged`: the server's running total (RTMP).
    pub fn sample(&mut self, now: Time, taken: u64, acknowledged: u64) -> Option<Cause> {
        let since = taken.saturating_sub(self.last.1);
        if acknowledged > self.acknowledged {
            let (shortest, longest) = self.steps.unwrap_or((since, since));
            self.steps = Some((shortest.min(since), longest.max(since)));
            self.acknowledged = acknowledged;
            self.last = (now, taken);
            self.count += 1;
            return None;
        }
        let (shortest, longest) = self.steps?;
        let has_habit = self.count >= HABIT && longest <= 2 * shortest;
        let silent = now.saturating_sub(self.last.0) >= NO_READ;
        (has_habit && silent && since > 2 * longest).then_some(Cause::ServerFrozen)
    }
}

#[cfg(test)]
mod tests;
