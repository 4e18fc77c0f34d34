//! The daemon's own rule: follows what the uplink carries, by how long bytes wait on their way.
//!
//! The one signal is the time from the encoder to the server and back of the byte that arrived last. It holds every queue on
//! the way, ours, the kernel's and the network's, whatever congestion control fills which; it says nothing about a scene
//! that gives little to send, nor about a segment that is sent again while the rest arrives. Above its least value of late
//! it is *excess*: a queue.
//!
//! - **Fall**: a queue that stands, or is long at once, or will be, takes the rate below what arrives meanwhile, the more the
//!   longer the queue is going to be, so that it drains.
//! - **Return**: while the queue drains the link is busy, so what arrives is what it carries. When the queue is gone the rate
//!   goes there at once.
//! - **Probe**: with no queue and a scene that fills the rate, up in steps, small near the rate that was too much last,
//!   larger with each that went well beyond it.
//!
//! - **Send buffer**: what the kernel has taken cannot be called back, and a network's full queue loses segments, which then
//!   wait behind it. So the kernel gets no more than keeps the link busy; the rest waits where it can be dropped.
//!
//! Below [`Settings::floor`] (or below what the encoder was seen to need) pictures are left out instead of made coarser.

use std::collections::VecDeque;
use std::time::Duration;

use super::history::History;
use super::{Decision, Event, Pictures, Rule, Sample, Time};

/// A queue that was never shorter than this, for so long, stands.
const STANDING: Duration = Duration::from_millis(90);
const STANDING_FOR: Duration = Duration::from_millis(400);
/// A queue that is too long however short its life.
const LONG: Duration = Duration::from_millis(350);
/// A queue that will be so long is too long, seconds. Shorter dips than the time that it takes to foresee this are over
/// sooner than the encoder obeys.
const FORESEEN: f64 = 0.7;
/// A queue up to this is none.
const NONE: Duration = Duration::from_millis(45);
/// Over this time the least wait counts as that of the empty link. Roaming changes it.
const BASE_OF: Duration = Duration::from_secs(15);
/// A queue that takes longer to drain is no queue.
const LONGEST_DRAIN: Duration = Duration::from_secs(30);
/// The rate of delivery is taken over this time.
const DELIVERY: Duration = Duration::from_millis(300);
/// While a queue drained, the link was busy for so long at least.
const BUSY: Duration = Duration::from_secs(1);
/// TCP holds back when less than this share is under way of what an empty link holds at the rate of this time.
const HELD_BACK: f64 = 0.5;
const USUALLY: Duration = Duration::from_secs(2);
/// The kernel holds what is made in two of the empty link's round trips, the second for what waits for a lost segment, and in
/// this time.
const SLACK: Duration = Duration::from_millis(100);
/// Of its memory each message takes so many bytes beside its own,
const OVERHEAD: f64 = 2e3;
/// and so many sound messages a second come beside the pictures.
const SOUNDS: u32 = 50;
/// It is told in steps of so many bytes.
const BUFFER_STEP: f64 = 4e3;
/// No more, bytes: what the kernel would take by itself (the third value of `net.ipv4.tcp_wmem`).
const MOST_BUFFER: f64 = 4e6;
/// While nothing arrives so many bytes more at each sample, up to so many times as much in all.
const MORE_BUFFER: u32 = 16_000;
const MOST_MORE: u32 = 3;
/// Between two falls; the encoder needs a moment to obey.
const BETWEEN_FALLS: Duration = Duration::from_millis(300);
/// Between two rises.
const BETWEEN_RISES: Duration = Duration::from_millis(600);
/// The same near the rate that was too much last.
const BETWEEN_NEAR_RISES: Duration = Duration::from_millis(1500);
/// A queue is to be gone within this time.
const DRAIN_WITHIN: f64 = 1.0;
/// Of what the link was seen to carry, so much is used.
const USED: f64 = 0.92;
/// Steps upward, as a share of the rate: first, factor from one to the next, most.
const STEP: (f64, f64, f64) = (0.05, 2.0, 0.3);
/// The rate that was too much is near from this share of it,
const NEAR: f64 = 0.8;
/// and was passed by this share.
const PASSED: f64 = 1.02;
/// A rate counts as tried when the encoder makes this share of it.
const FILLED: f64 = 0.7;
/// Untried, the rate may be at most this many times what was tried.
const UNTRIED: f64 = 1.5;
/// No less, bit/s: a coarse key frame a second.
const LEAST: f64 = 24e3;
/// The encoder's rate is taken over this time.
const OBEDIENCE: Duration = Duration::from_millis(1500);
/// It does not obey when it makes so many times what it was told.
const DISOBEYED: f64 = 1.5;
/// So much more than what a rung needs must be there before it is climbed back to.
const CLIMB: f64 = 1.3;

/// A rate that needs fewer pictures must last so long before they are left out: most dips are over by then.
const RUNG_AFTER: Duration = Duration::from_secs(1);
/// TCP finds its pace first.
const SETTLING: Duration = Duration::from_secs(1);

/// Each sample counts so much in what is usual: some ten seconds.
const USUAL: f64 = 0.01;

/// What a [`Follow`] is to keep to.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The most, bit/s of video.
    pub limit: u32,
    /// Below this pictures are left out, bit/s of video.
    pub floor: u32,
    /// Pictures a second.
    pub frame_rate: u32,
}

/// See the module's description.
#[derive(Debug)]
pub struct Follow {
    limit: f64,
    floor: f64,
    frame_rate: u32,
    /// Before quantisation, bit/s.
    rate: f64,
    /// The rate over some ten seconds.
    usual: f64,
    history: History,
    least_wait: Least,
    least_round_trip: Least,
    /// Since when the excess was never below [`STANDING`].
    standing_since: Option<Time>,
    /// Until when what arrives says little of the link.
    held_until: Time,
    /// Since when a queue drains.
    draining_since: Option<Time>,
    /// Bytes.
    send_buffer: Option<u32>,
    may_fall: Time,
    may_rise: Time,
    step: f64,
    /// The rate that was too much last.
    ceiling: Option<f64>,
    /// The most that the encoder made without a queue.
    tried: f64,
    told_at: Time,
    /// What the encoder makes of every picture at its coarsest, as far as it was seen, bit/s.
    needs: f64,
    /// Since when fewer pictures are called for.
    fewer_since: Option<Time>,
    decision: Decision,
}

/// The least value of the last [`BASE_OF`]: only those that none after them is below, with their times.
#[derive(Debug, Default)]
struct Least(VecDeque<(Time, Duration)>);

impl Least {
    /// Takes one more value and forgets those from longer than [`BASE_OF`] before `until`.
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
    /// Begins with what is asked for.
    pub fn new(settings: &Settings) -> Self {
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

    /// Bit/s of video that the network carried of late, if that was ever less than wanted.
    pub fn carries(&self) -> Option<u32> {
        self.ceiling.map(|_| self.usual as u32)
    }

    /// How much the kernel may hold for this connection, sent or not, bytes of its memory; none before anything is known of
    /// it.
    pub fn send_buffer(&self) -> Option<u32> {
        self.send_buffer
    }

    /// More while nothing arrives: if all that is under way was lost, TCP learns of it by what is sent after it, or by its
    /// timer, which is slow.
    fn bound_send_buffer(&mut self, now: Time) {
        let Some(round_trip) = self.least_round_trip.value() else { return };
        let made = self.rate + self.beside_video();
        // A link that is kept less than busy would not drain, and seem to carry less and less.
        let busy = self.draining_since.map_or(made, |since| made.max(self.carried_since(since + DELIVERY, now)));
        let second = busy / 8.0 + f64::from(self.frame_rate + SOUNDS) * OVERHEAD;
        let bytes = second * (2 * round_trip + SLACK).as_secs_f64();
        let bytes = ((bytes.min(MOST_BUFFER) / BUFFER_STEP).ceil() * BUFFER_STEP) as u32;
        let stands = !self.history.moved() && self.history.under_way() > 0;
        let before = self.send_buffer.filter(|_| stands).unwrap_or_default();
        self.send_buffer = Some((before + MORE_BUFFER * u32::from(stands)).clamp(bytes, MOST_MORE * bytes));
    }

    /// What it decided last.
    pub fn decision(&self) -> Decision {
        self.decision
    }

    fn sampled(&mut self, sample: &Sample, now: Time) {
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

    /// How much longer than on an empty link bytes waited.
    fn excess(&mut self, sample: &Sample, now: Time) -> Duration {
        self.least_round_trip.take(sample.round_trip, now, now);
        let Some(wait) = self.history.wait().filter(|_| sample.acked > 0) else { return Duration::ZERO };
        // What did not arrive yet has not waited its time.
        if self.history.moved() {
            // A queue must not pass for the link's own delay by lasting long.
            let drains_since = self.draining_since.unwrap_or(now);
            self.least_wait.take(wait, now, drains_since.max(now.saturating_sub(LONGEST_DRAIN)));
        }
        wait.saturating_sub(self.delay())
    }

    /// The empty link's own: what the least waited. Never below the round trip, as the time between two samples hides when
    /// exactly a byte was made.
    fn delay(&self) -> Duration {
        self.least_wait.value().max(self.least_round_trip.value()).unwrap_or_default()
    }

    /// Whether TCP itself sends much less than goes through, as bbr does for a moment every ten seconds to measure the
    /// empty link's delay (its state `PROBE_RTT`): what arrives then, and a round trip later, says nothing of the link.
    fn held_back(&self, sample: &Sample) -> bool {
        let Some(arrived) = self.history.arrived(USUALLY).filter(|_| sample.unsent > 0) else { return false };
        let in_flight = (sample.acked + sample.outstanding).saturating_sub(sample.unsent + sample.arrived) as f64 * 8.0;
        in_flight < HELD_BACK * arrived * self.delay().as_secs_f64()
    }

    /// Bit/s that the link carries, if it is busy.
    fn carried(&self, now: Time) -> Option<f64> {
        let arrived = self.history.arrived(DELIVERY)?;
        let usually = self.history.arrived(USUALLY).filter(|_| now < self.held_until);
        Some(usually.map_or(arrived, |usually| usually.max(arrived)))
    }

    /// The most bit/s that the link carried since then; what it carries now, if that is still to come.
    fn carried_since(&self, since: Time, now: Time) -> f64 {
        let within = now.checked_sub(since);
        let most = within.and_then(|within| self.history.most_arrived(DELIVERY, within));
        most.or_else(|| self.carried(now)).unwrap_or_default()
    }

    /// What the encoder is to be told so that it makes `rate`: one that keeps to a small buffer makes somewhat less than told.
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

    /// Bit/s of sound and headers, from what was produced when there was time to tell.
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

    /// How much longer than on an empty link the byte made last will wait, seconds: what is under way by what arrives. The
    /// wait of the byte that arrived last is a round trip old and more.
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
            // Little is sent because little moves: nothing is learned from it, nothing taken away.
            if self.rate >= UNTRIED * self.tried {
                return;
            }
        }
        let near = self.ceiling.is_some_and(|ceiling| (NEAR * ceiling..PASSED * ceiling).contains(&self.rate));
        self.step = if near { STEP.0 } else { (self.step * STEP.1).min(STEP.2) };
        self.rate = (self.rate * (1.0 + self.step)).min(self.limit);
        self.may_rise = now + if near { BETWEEN_NEAR_RISES } else { BETWEEN_RISES };
    }

    /// Sees what the encoder makes of what it was told. One that cannot make pictures small enough gets fewer of them.
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

    /// As it is told to the encoder: in steps, so that it is not told at every turn.
    fn quantised(&mut self, now: Time) -> Decision {
        let step = if self.rate >= 500e3 { 50e3 } else { 10e3 };
        let bitrate = if self.rate >= self.limit { self.limit } else { ((self.rate / step).floor() * step).max(LEAST) };
        Decision { bitrate: bitrate as u32, pictures: self.pictures(now) }
    }
}

impl Rule for Follow {
    fn on(&mut self, event: Event, now: Time) -> Decision {
        match event {
            Event::Connected => {
                self.history.clear();
                self.least_wait = Least::default();
                self.least_round_trip = Least::default();
                self.standing_since = None;
                self.draining_since = None;
                self.send_buffer = None;
                self.fewer_since = None;
                // What a connection carried while it died says nothing about the next one.
                if self.rate < self.usual {
                    self.rate = self.usual.min(self.limit);
                    (self.ceiling, self.tried) = (Some(self.rate), self.rate);
                }
                self.may_rise = now + BETWEEN_RISES;
                self.may_fall = now + SETTLING;
            }
            Event::Limit(limit) => {
                let limit = f64::from(limit).max(LEAST);
                // At the limit there was nothing to learn of the link; a new limit is tried at once.
                if self.rate >= self.limit {
                    self.rate = limit;
                }
                self.limit = limit;
                self.rate = self.rate.min(limit);
            }
            Event::Known(rate) => {
                self.rate = f64::from(rate).clamp(LEAST, self.limit);
                (self.usual, self.tried) = (self.rate, self.rate);
                // To be felt for from below, as after a fall of our own.
                self.ceiling = (self.rate < self.limit).then_some(self.rate);
            }
            Event::Sampled(sample) => self.sampled(&sample, now),
        }
        let decision = self.quantised(now);
        if decision != self.decision {
            self.told_at = now;
        }
        self.decision = decision;
        decision
    }
}
