//! Rules of other programs, rewritten from what their sources do.

use std::collections::VecDeque;
use std::time::Duration;

use lenscast::policy::Time;
use lenscast::policy::bitrate::{Decision, Pictures, Rule, UplinkEvent, UplinkSample};

fn all(bitrate: f64) -> Decision {
    Decision { bitrate: bitrate as u32, pictures: Pictures::All }
}

/// No rule: always the requested bitrate.
pub struct Fixed(pub u32);

impl Rule for Fixed {
    fn on(&mut self, _: UplinkEvent, _: Time) -> Decision {
        all(f64::from(self.0))
    }
}

/// belacoder 898d9ce: made for SRT, whose send buffer and round trip are TCP's here. It samples every 20 ms, begins at
/// its minimum, and falls in three degrees by thresholds on smoothed round trips and waiting packets.
pub struct Belacoder {
    most: f64,
    now: f64,
    waiting: f64,
    waiting_mean: f64,
    waiting_jitter: f64,
    trip: f64,
    trip_mean: f64,
    trip_slope: f64,
    trip_least: f64,
    trip_jitter: f64,
    sent: u64,
    rate: f64,
    may_fall: Time,
    may_rise: Time,
}

impl Belacoder {
    /// Its sampling interval.
    pub const INTERVAL: Duration = Duration::from_millis(20);
    const LEAST: f64 = 300e3;
    /// SRT's latency as belacoder's README sets it, ms.
    const LATENCY: f64 = 2000.0;
    /// Bytes in an SRT packet.
    const PACKET: f64 = 1316.0;

    /// At most `wanted` bit/s.
    pub fn new(wanted: u32) -> Self {
        Self {
            most: f64::from(wanted),
            now: Self::LEAST,
            waiting: 0.0,
            waiting_mean: 0.0,
            waiting_jitter: 0.0,
            trip: 300.0,
            trip_mean: 0.0,
            trip_slope: 0.0,
            trip_least: 200.0,
            trip_jitter: 0.0,
            sent: 0,
            rate: 0.0,
            may_fall: Time::ZERO,
            may_rise: Time::ZERO,
        }
    }

    fn look(&mut self, sample: &UplinkSample) {
        let waiting = (sample.backlog() as f64 / Self::PACKET).floor();
        self.waiting_mean = self.waiting_mean * 0.99 + waiting * 0.01;
        self.waiting_jitter = (self.waiting_jitter * 0.99).max(waiting - self.waiting);
        self.waiting = waiting;
        let trip = (sample.round_trip.as_secs_f64() * 1000.0).floor();
        self.trip_mean = if self.trip_mean == 0.0 { trip } else { self.trip_mean * 0.99 + trip * 0.01 };
        let change = trip - self.trip;
        self.trip_slope = self.trip_slope * 0.8 + change * 0.2;
        self.trip = trip;
        self.trip_least *= 1.001;
        if trip < self.trip_least && self.trip_slope < 1.0 {
            self.trip_least = trip;
        }
        self.trip_jitter = (self.trip_jitter * 0.99).max(change);
        let sent = sample.acked + sample.outstanding - sample.unsent;
        let per_second = sent.saturating_sub(self.sent) as f64 * 8.0 / Self::INTERVAL.as_secs_f64() / 1024.0;
        self.sent = sent;
        self.rate = self.rate * 0.97 + per_second * 0.03;
    }

    fn decide(&mut self, now: Time) {
        let (mean, jitter) = (self.waiting_mean, self.waiting_jitter);
        let third = (mean + jitter) * 4.0;
        // Packets that half the latency holds at the present rate (kbit/s, so per ms).
        let room = self.rate / 8.0 * (Self::LATENCY / 2.0) / Self::PACKET;
        let second = f64::max(50.0, mean + f64::max(jitter * 3.0, mean)).min(room);
        let first = f64::max(50.0, mean + jitter * 2.5);
        let long = self.trip_mean + f64::max(self.trip_jitter * 4.0, self.trip_mean * 0.15);
        let short = self.trip_least + f64::max(1.0, self.trip_jitter * 2.0);
        if self.now > Self::LEAST && (self.trip >= Self::LATENCY / 3.0 || self.waiting > third) {
            self.now = Self::LEAST;
            self.may_fall = now + Duration::from_millis(200);
        } else if now > self.may_fall && (self.trip > Self::LATENCY / 5.0 || self.waiting > second) {
            self.now -= 100e3 + self.now / 10.0;
            self.may_fall = now + Duration::from_millis(250);
        } else if now > self.may_fall && (self.trip > long || self.waiting > first) {
            self.now -= 100e3;
            self.may_fall = now + Duration::from_millis(200);
        } else if now > self.may_rise && self.trip < short && self.trip_slope < 0.01 {
            self.now += 30e3 + self.now / 30.0;
            self.may_rise = now + Duration::from_millis(500);
        }
        self.now = self.now.clamp(Self::LEAST.min(self.most), self.most);
    }
}

impl Rule for Belacoder {
    fn on(&mut self, event: UplinkEvent, now: Time) -> Decision {
        match event {
            UplinkEvent::Connected => *self = Self::new(self.most as u32),
            UplinkEvent::Limit(most) => self.most = f64::from(most),
            UplinkEvent::Known(_) => {}
            UplinkEvent::Sampled(sample) => {
                self.look(&sample);
                self.decide(now);
            }
        }
        all((self.now / 100e3).floor() * 100e3)
    }
}

/// OBS's dynamic bitrate (f86e9c1): when 200 ms wait, falls to what was sent over the last one to two seconds; every 4
/// s rises by a tenth of the whole, and goes back if that made it wait.
pub struct Obs {
    most: f64,
    now: f64,
    before: f64,
    rise_at: Option<Time>,
    sent: VecDeque<(Time, u64)>,
}

impl Obs {
    /// OBS acts on each packet; pictures come every 33 ms, sound every 21 ms.
    pub const INTERVAL: Duration = Duration::from_millis(20);
    const AUDIO: f64 = 64e3;
    const PATIENCE: Duration = Duration::from_secs(4);

    /// At most `wanted` bit/s.
    pub fn new(wanted: u32) -> Self {
        let most = f64::from(wanted);
        Self { most, now: most, before: 0.0, rise_at: None, sent: VecDeque::new() }
    }

    fn measured(&self) -> Option<f64> {
        let (first, last) = (self.sent.front()?, self.sent.back()?);
        let span = last.0.saturating_sub(first.0);
        let rate = last.1.saturating_sub(first.1) as f64 * 8.0 / span.as_secs_f64() - Self::AUDIO;
        (span >= Duration::from_secs(1)).then(|| rate.max(50e3))
    }

    fn lower(&mut self, now: Time) {
        let to = match self.measured() {
            Some(measured) if measured < self.now => {
                self.sent.clear();
                ((measured / 100e3).floor() * 100e3).max(50e3)
            }
            _ if self.before > 0.0 => self.before,
            _ => return,
        };
        if (to - self.now).abs() < 1.0 {
            return;
        }
        (self.before, self.now, self.rise_at) = (0.0, to, Some(now + Self::PATIENCE));
    }
}

impl Rule for Obs {
    fn on(&mut self, event: UplinkEvent, now: Time) -> Decision {
        match event {
            UplinkEvent::Connected => *self = Self::new(self.most as u32),
            UplinkEvent::Limit(most) => self.most = f64::from(most),
            UplinkEvent::Known(_) => {}
            UplinkEvent::Sampled(sample) => {
                // Sending a packet is handing it to the kernel.
                let sent = sample.acked + sample.outstanding;
                if self.sent.back().is_none_or(|&(_, before)| before != sent) {
                    self.sent.push_back((now, sent));
                }
                while self.sent.front().is_some_and(|&(at, _)| now.saturating_sub(at) > Duration::from_secs(2)) {
                    self.sent.pop_front();
                }
                if self.rise_at.is_some_and(|at| now >= at) {
                    self.before = self.now;
                    self.now = (self.now + self.most / 10.0).min(self.most);
                    self.rise_at = (self.now < self.most).then_some(now + Self::PATIENCE);
                }
                if sample.queued >= Duration::from_millis(200) {
                    self.lower(now);
                }
            }
        }
        all(self.now)
    }
}
