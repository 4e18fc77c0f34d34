//! The daemon's own rule: follows the uplink's capacity, measured by how long bytes take to arrive.
//!
//! Its only signal is the time that the latest arrived byte took from the encoder to the server and back. That time
//! includes every queue on the way (ours, the kernel's, the network's), whatever congestion control fills them. It is
//! not affected by a scene that needs few bits, nor by a lost segment that is resent while later ones arrive. Its
//! surplus over its recent minimum is the *excess*: a queue.
//!
//! - **Fall**: a queue that persists, is long at once, or is going to be long takes the rate below what arrives
//!   meanwhile, so that the queue drains; the longer the queue is going to be, the lower.
//! - **Return**: while a queue drains the link is busy, so the arrival rate is its capacity. When the queue is gone the
//!   rate goes there at once.
//! - **Probe**: without a queue, and with a scene that fills the rate, the rate rises in steps: small ones near the
//!   rate that was last too high, growing ones with each success well beyond it.
//!
//! - **Send buffer**: what the kernel has taken cannot be called back, and a full queue in the network loses segments,
//!   which then wait behind it. So the kernel gets only what keeps the link busy; the rest waits where it can be
//!   dropped.
//!
//! Below [`FollowSettings::floor`] (or below what the encoder has shown to need) pictures are left out instead of made
//! coarser.

use std::collections::VecDeque;
use std::time::Duration;

use super::history::History;
use super::{Decision, Pictures, Rule, Time, UplinkEvent, UplinkSample};

/// An excess that stays at or above this for `STANDING_FOR` is a standing queue.
const STANDING: Duration = Duration::from_millis(90);
const STANDING_FOR: Duration = Duration::from_millis(400);
/// An excess from which a queue is too long at once.
const LONG: Duration = Duration::from_millis(350);
/// A foreseen excess from which a queue is too long, seconds. Dips shorter than the time needed to foresee this are
/// over before the encoder obeys.
const FORESEEN: f64 = 0.7;
/// An excess up to this counts as no queue.
const NONE: Duration = Duration::from_millis(45);
/// Period over which the least wait counts as that of the empty link. Roaming changes it.
const BASE_OF: Duration = Duration::from_secs(15);
/// An excess that takes longer than this to drain is not a queue.
const LONGEST_DRAIN: Duration = Duration::from_secs(30);
/// Period over which the delivery rate is measured.
const DELIVERY: Duration = Duration::from_millis(300);
/// While a queue drained, the link was busy for at least this long.
const BUSY: Duration = Duration::from_secs(1);
/// TCP holds back when less than this share of what an empty link holds at the usual rate is in flight.
const HELD_BACK: f64 = 0.5;
const USUALLY: Duration = Duration::from_secs(2);
/// The kernel may hold what is produced in two round trips of the empty link (the second for what waits for a lost
/// segment) plus this time.
const SLACK: Duration = Duration::from_millis(100);
/// Kernel memory overhead per message, bytes.
const OVERHEAD: f64 = 2e3;
/// Sound messages per second.
const SOUNDS: u32 = 50;
/// The send buffer's size is set in steps of this many bytes.
const BUFFER_STEP: f64 = 4e3;
/// Upper limit of the send buffer, bytes: what the kernel would take by itself (the third value of
/// `net.ipv4.tcp_wmem`).
const MOST_BUFFER: f64 = 4e6;
/// Growth of the send buffer per sample while nothing arrives, bytes; at most to `MOST_MORE` times its size.
const MORE_BUFFER: u32 = 16_000;
const MOST_MORE: u32 = 3;
/// Least time between two falls; the encoder needs a moment to obey.
const BETWEEN_FALLS: Duration = Duration::from_millis(300);
/// Least time between two rises.
const BETWEEN_RISES: Duration = Duration::from_millis(600);
/// Least time between two rises near the rate that was last too high.
const BETWEEN_NEAR_RISES: Duration = Duration::from_millis(1500);
/// A queue should be gone within this time, seconds.
const DRAIN_WITHIN: f64 = 1.0;
/// Share of the link's observed capacity that is used.
const USED: f64 = 0.92;
/// Upward steps as a share of the rate: the first step, the factor from one to the next, the largest step.
const STEP: (f64, f64, f64) = (0.05, 2.0, 0.3);
/// From this share of the rate that was last too high, a rate is near it.
const NEAR: f64 = 0.8;
/// From this share of that rate, a rate is beyond it.
const PASSED: f64 = 1.02;
/// A rate counts as tried when the encoder produces at least this share of it.
const FILLED: f64 = 0.7;
/// The rate may be at most this multiple of the tried one.
const UNTRIED: f64 = 1.5;
/// Lowest rate, bit/s: a coarse key frame a second.
const LEAST: f64 = 24e3;
/// Period over which the encoder's output rate is measured.
const OBEDIENCE: Duration = Duration::from_millis(1500);
/// The encoder disobeys when it produces more than this multiple of what it was told.
const DISOBEYED: f64 = 1.5;
/// Before climbing back to a rung, the rate must be this multiple of what the rung needs.
const CLIMB: f64 = 1.3;

/// A rate that needs fewer pictures must persist this long before they are left out: most dips are over by then.
const RUNG_AFTER: Duration = Duration::from_secs(1);
/// After connecting, TCP gets this long to find its pace.
const SETTLING: Duration = Duration::from_secs(1);

/// Weight of each sample in the usual rate: an average over some ten seconds.
const USUAL: f64 = 0.01;

/// Limits for a [`Follow`].
#[derive(Clone, Copy, Debug)]
pub struct FollowSettings {
    /// Highest bitrate, bit/s of video.
    pub limit: u32,
    /// Below this, pictures are left out, bit/s of video.
    pub floor: u32,
    /// Pictures per second.
    pub frame_rate: u32,
}

/// The rule's state.
#[derive(Debug)]
pub struct Follow {
    limit: f64,
    floor: f64,
    frame_rate: u32,
    /// Before quantisation, bit/s.
    rate: f64,
    /// The rate averaged over some ten seconds.
    usual: f64,
    history: History,
    least_wait: Least,
    least_round_trip: Least,
    /// Time since which the excess has never been below [`STANDING`].
    standing_since: Option<Time>,
    /// Until then, arrivals say little about the link.
    held_until: Time,
    /// Time since which a queue drains.
    draining_since: Option<Time>,
    /// Size in bytes.
    send_buffer: Option<u32>,
    may_fall: Time,
    may_rise: Time,
    step: f64,
    /// The rate that was last too high.
    ceiling: Option<f64>,
    /// The highest rate that the encoder produced without a queue.
    tried: f64,
    told_at: Time,
    /// What the encoder needs for all pictures at its coarsest, as far as observed, bit/s.
    needs: f64,
    /// Time since which the rate calls for fewer pictures.
    fewer_since: Option<Time>,
    decision: Decision,
}

/// The least value of the last [`BASE_OF`]: keeps only values below all later ones, with their times.
#[derive(Debug, Default)]
struct Least(VecDeque<(Time, Duration)>);

impl Least {
    /// Takes a value and forgets those older than [`BASE_OF`] before `until`.
    fn take(&mut self, value: Duration, now: Time, until: Time) {
        while self.0.back().is_some_and(|&(_, other)| other >= value) {
            self.0.pop_back();
        }
        while self.0.front().is_some_and(|&(at, _)| until.saturating_sub(at) > BASE_OF) {
            self.0.pop_front();
        }
        self.0.push_back((now, value));
    }

    fn value(&self) -> Option<Duration> {
        self.0.front().map(|&(_, least)| least)
    }
}

impl Follow {
    /// Starts at the requested bitrate.
    pub fn new(settings: &FollowSettings) -> Self {
        let limit = f64::from(settings.limit).max(LEAST);
        let mut this = Self {
            limit,
            floor: f64::from(settings.floor),
            frame_rate: settings.frame_rate,
            rate: limit,
            usual: limit,
            history: History::default(),
            least_wait: Least::default(),
            least_round_trip: Least::default(),
            standing_since: None,
            held_until: Time::ZERO,
            draining_since: None,
            send_buffer: None,
            may_fall: Time::ZERO,
            may_rise: Time::ZERO,
            step: STEP.0,
            ceiling: None,
            tried: limit,
            told_at: Time::ZERO,
            needs: 0.0,
            fewer_since: None,
            decision: Decision { bitrate: settings.limit, pictures: Pictures::All },
        };
        this.decision = this.quantised(Time::ZERO);
        this
    }

    /// Bit/s of video that the network carried recently, if that was ever less than requested.
    pub fn carries(&self) -> Option<u32> {
        self.ceiling.map(|_| self.usual as u32)
    }

    /// How many bytes of its memory the kernel may use for this connection, sent or unsent; `None` until the link is
    /// known.
    pub fn send_buffer(&self) -> Option<u32> {
        self.send_buffer
    }

    /// Grows while nothing arrives: if everything in flight was lost, TCP learns of it only from later segments or
    /// from its slow timer.
    fn bound_send_buffer(&mut self, now: Time) {
        let Some(round_trip) = self.least_round_trip.value() else { return };
        let made = self.rate + self.beside_video();
        // A link that is not kept busy would not drain, and would seem to carry less and less.
        let busy = self.draining_since.map_or(made, |since| made.max(self.carried_since(since + DELIVERY, now)));
        let second = busy / 8.0 + f64::from(self.frame_rate + SOUNDS) * OVERHEAD;
        let bytes = second * (2 * round_trip + SLACK).as_secs_f64();
        let bytes = ((bytes.min(MOST_BUFFER) / BUFFER_STEP).ceil() * BUFFER_STEP) as u32;
        let stands = !self.history.moved() && self.history.under_way() > 0;
        let before = self.send_buffer.filter(|_| stands).unwrap_or_default();
        self.send_buffer = Some((before + MORE_BUFFER * u32::from(stands)).clamp(bytes, MOST_MORE * bytes));
    }

    /// The latest decision.
    pub fn decision(&self) -> Decision {
        self.decision
    }

    fn sampled(&mut self, sample: &UplinkSample, now: Time) {
        self.history.push(now, sample, self.decision.bitrate);
        self.usual += (self.rate - self.usual) * USUAL;
        let excess = self.excess(sample, now);
        if excess >= STANDING {
            self.standing_since.get_or_insert(now);
        } else {
            self.standing_since = None;
        }
        let soars = excess >= LONG || excess >= STANDING && self.history.moved() && self.foreseen(now) >= FORESEEN;
        let stands = self.standing_since.is_some_and(|since| now.saturating_sub(since) >= STANDING_FOR);
        self.watch_encoder(now);
        if self.held_back(sample) {
            self.held_until = now + sample.round_trip + DELIVERY;
        }
        if self.draining_since.is_some() {
            self.drain(excess, now);
        } else if (stands || soars) && now >= self.may_fall {
            let ceiling = self.carried(now).map(|carried| self.told_for(self.without_sound(carried)));
            let ceiling = ceiling.map_or(self.rate, |ceiling| ceiling.min(self.rate));
            (self.ceiling, self.tried) = (Some(ceiling), ceiling);
            self.draining_since = Some(now);
            self.fall(excess, now);
        } else if excess <= NONE {
            self.probe(now);
        }
        self.bound_send_buffer(now);
    }

    /// How much longer bytes waited than on an empty link.
    fn excess(&mut self, sample: &UplinkSample, now: Time) -> Duration {
        self.least_round_trip.take(sample.round_trip, now, now);
        let Some(wait) = self.history.wait().filter(|_| sample.acked > 0) else { return Duration::ZERO };
        // A byte that has not arrived has not waited its full time.
        if self.history.moved() {
            // A long-lasting queue must not pass for the link's own delay.
            let drains_since = self.draining_since.unwrap_or(now);
            self.least_wait.take(wait, now, drains_since.max(now.saturating_sub(LONGEST_DRAIN)));
        }
        wait.saturating_sub(self.delay())
    }

    /// The empty link's delay: the least wait. Never below the round trip, since sampling hides exactly when a byte
    /// was made.
    fn delay(&self) -> Duration {
        self.least_wait.value().max(self.least_round_trip.value()).unwrap_or_default()
    }

    /// Whether TCP itself sends much less than the link carries, as bbr briefly does every ten seconds to measure the
    /// empty link's delay (its state `PROBE_RTT`). Arrivals then, and a round trip later, say nothing about the link.
    fn held_back(&self, sample: &UplinkSample) -> bool {
        let Some(arrived) = self.history.arrived(USUALLY).filter(|_| sample.unsent > 0) else { return false };
        let in_flight = (sample.acked + sample.outstanding).saturating_sub(sample.unsent + sample.arrived) as f64 * 8.0;
        in_flight < HELD_BACK * arrived * self.delay().as_secs_f64()
    }

    /// The link's capacity in bit/s, if it is busy.
    fn carried(&self, now: Time) -> Option<f64> {
        let arrived = self.history.arrived(DELIVERY)?;
        let usually = self.history.arrived(USUALLY).filter(|_| now < self.held_until);
        Some(usually.map_or(arrived, |usually| usually.max(arrived)))
    }

    /// The highest capacity in bit/s since `since`, or the current one if `since` lies in the future.
    fn carried_since(&self, since: Time, now: Time) -> f64 {
        let within = now.checked_sub(since);
        let most = within.and_then(|within| self.history.most_arrived(DELIVERY, within));
        most.or_else(|| self.carried(now)).unwrap_or_default()
    }

    /// The bitrate to request so that the encoder makes `rate`: an encoder with a small buffer makes somewhat less
    /// than told.
    fn told_for(&self, rate: f64) -> f64 {
        let makes = match (self.history.encoded(USUALLY), self.history.told(USUALLY)) {
            (Some(encoded), Some(told)) if encoded >= FILLED * told => (encoded / told).min(1.0),
            _ => 1.0,
        };
        rate / makes
    }

    /// The part of a rate that is left for video.
    fn without_sound(&self, rate: f64) -> f64 {
        (rate - self.beside_video()).max(0.0)
    }

    /// Bit/s of sound and headers, measured over a period long enough to tell.
    fn beside_video(&self) -> f64 {
        match (self.history.produced(USUALLY), self.history.encoded(USUALLY)) {
            (Some(produced), Some(encoded)) => (produced - encoded).clamp(0.0, 400e3),
            _ => 0.0,
        }
    }

    fn fall(&mut self, excess: Duration, now: Time) {
        if now < self.may_fall {
            return;
        }
        let Some(carried) = self.carried(now) else { return };
        let wait = excess.as_secs_f64().max(self.foreseen(now));
        let share = (1.0 - wait / DRAIN_WITHIN).clamp(0.4, 0.9);
        let rate = (self.without_sound(carried) * share).max(LEAST);
        if rate < self.rate {
            self.rate = rate;
            self.may_fall = now + BETWEEN_FALLS;
        }
        self.step = STEP.0;
    }

    /// How much longer than on an empty link the newest byte will wait, seconds: bytes in flight divided by the
    /// arrival rate. The wait of the latest arrived byte is out of date by at least a round trip.
    fn foreseen(&self, now: Time) -> f64 {
        let under_way = self.history.under_way() as f64 * 8.0;
        (under_way / self.carried(now).unwrap_or_default().max(LEAST) - self.delay().as_secs_f64()).max(0.0)
    }

    fn drain(&mut self, excess: Duration, now: Time) {
        if excess <= NONE {
            self.draining_since = None;
            self.standing_since = None;
            let carried = self.history.most_arrived(DELIVERY, BUSY).map_or(0.0, |arrived| self.without_sound(arrived));
            let known = self.told_for(USED * carried);
            if known > self.rate {
                self.rate = known.min(self.limit);
            }
            self.tried = self.tried.max(self.rate);
            self.may_rise = now + BETWEEN_NEAR_RISES;
        } else if excess >= STANDING {
            self.fall(excess, now);
        }
    }

    fn probe(&mut self, now: Time) {
        let made = self.history.encoded(BETWEEN_RISES).unwrap_or(0.0);
        self.tried = self.tried.max(made);
        if now < self.may_rise || self.rate >= self.limit {
            return;
        }
        if made < FILLED * self.rate {
            // Little is sent because little moves: that says nothing about the link, so the rate is left alone.
            if self.rate >= UNTRIED * self.tried {
                return;
            }
        }
        let near = self.ceiling.is_some_and(|ceiling| (NEAR * ceiling..PASSED * ceiling).contains(&self.rate));
        self.step = if near { STEP.0 } else { (self.step * STEP.1).min(STEP.2) };
        self.rate = (self.rate * (1.0 + self.step)).min(self.limit);
        self.may_rise = now + if near { BETWEEN_NEAR_RISES } else { BETWEEN_RISES };
    }

    /// Compares the encoder's output with what it was told. An encoder that cannot make pictures small enough gets
    /// fewer.
    fn watch_encoder(&mut self, now: Time) {
        if now.saturating_sub(self.told_at) < OBEDIENCE {
            return;
        }
        let Some(made) = self.history.encoded(OBEDIENCE) else { return };
        if made > DISOBEYED * f64::from(self.decision.bitrate) {
            let pictures = f64::from(self.decision.pictures.one_in(self.frame_rate));
            self.needs = self.needs.max(made * pictures);
        } else {
            self.needs *= 0.999;
        }
    }

    fn pictures(&mut self, now: Time) -> Pictures {
        let needs = self.floor.max(self.needs).min(self.limit);
        let rung = |rate: f64| match rate / needs {
            1.0.. => Pictures::All,
            0.5.. => Pictures::Half,
            0.25.. => Pictures::Quarter,
            _ => Pictures::KeyFrames,
        };
        let before = self.decision.pictures;
        let (wanted, cautious) = (rung(self.rate), rung(self.rate / CLIMB));
        if wanted <= before {
            self.fewer_since = None;
            return cautious.min(before);
        }
        let since = *self.fewer_since.get_or_insert(now);
        if now.saturating_sub(since) >= RUNG_AFTER { wanted } else { before }
    }

    /// The decision for the encoder, in steps, so that it does not change with every sample.
    fn quantised(&mut self, now: Time) -> Decision {
        let step = if self.rate >= 500e3 { 50e3 } else { 10e3 };
        let bitrate = if self.rate >= self.limit { self.limit } else { ((self.rate / step).floor() * step).max(LEAST) };
        Decision { bitrate: bitrate as u32, pictures: self.pictures(now) }
    }
}

impl Rule for Follow {
    fn on(&mut self, event: UplinkEvent, now: Time) -> Decision {
        match event {
            UplinkEvent::Connected => {
                self.history.clear();
                self.least_wait = Least::default();
                self.least_round_trip = Least::default();
                self.standing_since = None;
                self.draining_since = None;
                self.send_buffer = None;
                self.fewer_since = None;
                // What a dying connection carried says nothing about the next one.
                if self.rate < self.usual {
                    self.rate = self.usual.min(self.limit);
                    (self.ceiling, self.tried) = (Some(self.rate), self.rate);
                }
                self.may_rise = now + BETWEEN_RISES;
                self.may_fall = now + SETTLING;
            }
            UplinkEvent::Limit(limit) => {
                let limit = f64::from(limit).max(LEAST);
                // At the limit there was nothing to learn about the link; a new limit is tried at once.
                if self.rate >= self.limit {
                    self.rate = limit;
                }
                self.limit = limit;
                self.rate = self.rate.min(limit);
            }
            UplinkEvent::Known(rate) => {
                self.rate = f64::from(rate).clamp(LEAST, self.limit);
                (self.usual, self.tried) = (self.rate, self.rate);
                // To be approached from below, as after a fall of our own.
                self.ceiling = (self.rate < self.limit).then_some(self.rate);
            }
            UplinkEvent::Sampled(sample) => self.sampled(&sample, now),
        }
        let decision = self.quantised(now);
        if decision != self.decision {
            self.told_at = now;
        }
        self.decision = decision;
        decision
    }
}
