//! The path of bytes from the sink to the server: the kernel's send queue, TCP's window, the narrowest queue, the
//! link.
//!
//! Bytes flow continuously, without packets; what a full queue refuses counts as lost once per round trip and is
//! resent.

use std::collections::VecDeque;

use crate::traces::{Congestion, STEP_S, Trace};

/// `TCP_NOTSENT_LOWAT` as the publisher sets it, bytes.
const LOWAT: f64 = 16.0 * 1024.0;
const SEGMENT: f64 = 1448.0;

/// The connection and the link under it.
pub struct Path<'a> {
    trace: &'a Trace,
    /// Bytes in the kernel, not sent.
    unsent: f64,
    /// Bytes sent and not acknowledged.
    in_flight: f64,
    /// The part of `in_flight` in the narrowest queue.
    in_queue: f64,
    window: f64,
    threshold: f64,
    deaf_until_s: f64,
    /// Bytes whose acknowledgements are on their way back: one entry per step, a round trip long.
    acks: VecDeque<f64>,
    /// Bytes delivered by the link.
    pub delivered: f64,
    /// Bytes acknowledged.
    pub acked: f64,
    /// The round trip as TCP smooths it, seconds.
    pub round_trip_s: f64,
    /// Acknowledged bytes at the end of each step of the last round trips.
    history: VecDeque<f64>,
    best_rates: VecDeque<(f64, f64)>,
}

impl<'a> Path<'a> {
    pub fn new(trace: &'a Trace) -> Self {
        let steps = (trace.round_trip_s / STEP_S).round().max(1.0) as usize;
        Self {
            trace,
            unsent: 0.0,
            in_flight: 0.0,
            in_queue: 0.0,
            window: 10.0 * SEGMENT,
            threshold: f64::INFINITY,
            deaf_until_s: 0.0,
            acks: std::iter::repeat_n(0.0, steps).collect(),
            delivered: 0.0,
            acked: 0.0,
            round_trip_s: trace.round_trip_s,
            history: VecDeque::new(),
            best_rates: VecDeque::new(),
        }
    }

    /// How many bytes the kernel takes now.
    pub fn room(&self) -> f64 {
        (LOWAT - self.unsent).max(0.0)
    }

    /// Hands bytes to the kernel.
    pub fn write(&mut self, bytes: f64) {
        self.unsent += bytes;
    }

    /// Unsent bytes in the kernel.
    pub fn unsent(&self) -> f64 {
        self.unsent
    }

    /// Unacknowledged bytes in the kernel.
    pub fn outstanding(&self) -> f64 {
        self.unsent + self.in_flight
    }

    /// Lets a step of time pass.
    pub fn step(&mut self, number: usize) {
        let now = number as f64 * STEP_S;
        let capacity = self.trace.capacity[number] / 8.0;
        let limited = self.send(now);
        let served = self.in_queue.min(capacity * STEP_S);
        self.in_queue -= served;
        self.delivered += served;
        self.acks.push_back(served);
        let acked = self.acks.pop_front().unwrap_or(0.0);
        self.in_flight = (self.in_flight - acked).max(0.0);
        self.acked += acked;
        if acked > 0.0 {
            let waits = if capacity > 0.0 { (self.in_queue / capacity).min(10.0) } else { STEP_S };
            self.round_trip_s += 0.3 * (self.trace.round_trip_s + waits - self.round_trip_s);
        }
        self.adapt(now, acked, limited);
    }

    /// Sends what the window allows; returns whether the window was the limit.
    fn send(&mut self, now: f64) -> bool {
        let allowed = (self.window - self.in_flight).max(0.0);
        let sent = self.unsent.min(allowed);
        let limited = sent < self.unsent;
        let room = (self.trace.buffer - self.in_queue).max(0.0);
        let taken = sent.min(room);
        self.unsent -= taken;
        self.in_flight += taken;
        self.in_queue += taken;
        if taken < sent && now >= self.deaf_until_s {
            self.deaf_until_s = now + self.round_trip_s;
            if self.trace.congestion == Congestion::Cubic {
                self.window = (self.window * 0.7).max(2.0 * SEGMENT);
                self.threshold = self.window;
            }
        }
        limited
    }

    fn adapt(&mut self, now: f64, acked: f64, limited: bool) {
        match self.trace.congestion {
            Congestion::Cubic if limited && now >= self.deaf_until_s => {
                // Roughly cubic's growth beyond Reno's.
                let growth = if self.window < self.threshold { 1.0 } else { 2.0 * SEGMENT / self.window };
                self.window += acked * growth;
            }
            Congestion::Cubic => {}
            Congestion::Bbr => {
                self.history.push_back(self.acked);
                let steps = ((self.round_trip_s / STEP_S) as usize).max(10);
                while self.history.len() > steps + 1 {
                    self.history.pop_front();
                }
                let span = self.history.len().saturating_sub(1).max(1) as f64 * STEP_S;
                let rate = (self.acked - self.history.front().copied().unwrap_or(0.0)) / span;
                while self.best_rates.back().is_some_and(|&(_, other)| other <= rate) {
                    self.best_rates.pop_back();
                }
                self.best_rates.push_back((now, rate));
                let memory = 10.0 * self.round_trip_s.max(0.1);
                while self.best_rates.front().is_some_and(|&(then, _)| now - then > memory) {
                    self.best_rates.pop_front();
                }
                let best = self.best_rates.front().map_or(0.0, |&(_, rate)| rate);
                let bandwidth_delay = 2.0 * best * self.trace.round_trip_s;
                self.window =
                    if self.acked < 100.0 * SEGMENT { self.window + acked } else { bandwidth_delay + 4.0 * SEGMENT };
            }
        }
    }
}
