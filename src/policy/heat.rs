//! How much a stream has to give up so that the glasses do not get too hot.
//!
//! From a zone's passive trip point on, the kernel throttles the board without regard to what the processor does:
//! pictures then come late and the encoder falls behind. So a stream gives way earlier, in [`STEPS`] evenly spread
//! over the last [`SPAN`] degrees: first bits, which relieve the radio and a little of the encoder, then pictures,
//! which relieve all the rest. Every zone has its own limits; the zone nearest to its limits counts.
//!
//! Nothing here oscillates. One bad reading changes nothing (the median of three decides). A reading takes at most one
//! step up; a step back needs [`HYSTERESIS`] degrees less for a whole dwell. When a step back did not last, the wait
//! for the next one doubles. A stream that ends at the limit is not started again before the temperature is well below
//! throttling.

use std::collections::VecDeque;
use std::time::Duration;

use super::Time;
use super::bitrate::Pictures;

/// Degrees Celsius below the throttling point at which the first step is taken.
pub const SPAN: f64 = 10.0;
/// A step is taken back this many degrees below where it was taken.
pub const HYSTERESIS: f64 = 3.0;
/// Assumed throttling point of a zone without a passive trip point, degrees Celsius. `MentraOS` begins to reduce at 86
/// and has its hard limit at 90; the first step here comes at 75, the last at 83.
pub const THROTTLE: f64 = 85.0;
/// Where a stream ends if there is neither a hot nor a critical trip point, degrees Celsius.
pub const END: f64 = 95.0;
/// The stream ends this many degrees before the kernel switches the board off.
pub const BEFORE_SHUTDOWN: f64 = 3.0;
/// Without a shutdown point the stream ends at least this many degrees above the throttling point.
const ABOVE_THROTTLE: f64 = 8.0;
/// Number of readings whose median decides.
const READINGS: usize = 3;
/// Readings further apart than this are unrelated: nothing ran in between.
const STALE: Duration = Duration::from_secs(8);
/// A step back that lasts fewer dwells than this was too early.
const RELAPSE: u32 = 45;
/// The longest wait for a step back, in dwells.
const MOST_PATIENCE: u32 = 64;

/// What a stream is still allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Per cent of the requested bitrate.
    pub percent: u32,
    /// Which pictures.
    pub pictures: Pictures,
}

impl Allowance {
    /// No reduction.
    pub const ALL: Self = Self { percent: 100, pictures: Pictures::All };
}

/// What each step leaves, from the first to the last.
pub const STEPS: [Allowance; 5] = [
    Allowance { percent: 80, pictures: Pictures::All },
    Allowance { percent: 60, pictures: Pictures::All },
    Allowance { percent: 45, pictures: Pictures::Half },
    Allowance { percent: 30, pictures: Pictures::Half },
    Allowance { percent: 20, pictures: Pictures::Quarter },
];

/// What the kernel does at a trip point, where it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TripKind {
    /// The kernel throttles.
    Passive,
    /// The kernel warns the firmware that it is nearly too late.
    Hot,
    /// The kernel switches the board off.
    Critical,
}

/// A zone's trip point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trip {
    /// What happens there.
    pub kind: TripKind,
    /// Degrees Celsius.
    pub celsius: f64,
}

/// A zone's limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Degrees Celsius from which the kernel throttles.
    pub throttle: f64,
    /// Degrees Celsius at which the stream ends.
    pub end: f64,
}

impl Limits {
    /// From a zone's own trip points. The governor `power_allocator` begins to watch at the first passive trip point and
    /// holds the temperature at the last (kernel documentation, `power_allocator`); others throttle at the first.
    pub fn of(trips: &[Trip], power_allocator: bool) -> Self {
        // Drivers mark unused trip points with impossible temperatures.
        let of = |kind| trips.iter().filter(move |t| t.kind == kind && (30.0..=150.0).contains(&t.celsius));
        let lowest = |kind| of(kind).map(|trip| trip.celsius).reduce(f64::min);
        let passive = if power_allocator {
            of(TripKind::Passive).map(|trip| trip.celsius).reduce(f64::max)
        } else {
            lowest(TripKind::Passive)
        };
        let shutdown = [lowest(TripKind::Hot), lowest(TripKind::Critical)].into_iter().flatten().reduce(f64::min);
        let throttle = passive.unwrap_or(THROTTLE);
        let end = shutdown.map_or(END.max(throttle + ABOVE_THROTTLE), |shutdown| shutdown - BEFORE_SHUTDOWN);
        Self { throttle: throttle.min(end - 1.0), end }
    }

    /// Replaces what the configuration sets.
    #[must_use]
    pub fn or(self, throttle: Option<f64>, end: Option<f64>) -> Self {
        let end = end.unwrap_or(self.end);
        Self { throttle: throttle.unwrap_or(self.throttle).min(end - 1.0), end }
    }
}

/// The board's heat at one moment, by the zone nearest to its limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeatSample {
    /// Degrees above the throttling point; usually negative.
    pub over: f64,
    /// Degrees left until the stream ends.
    pub left: f64,
}

impl HeatSample {
    /// The sample of one zone.
    pub fn of(celsius: f64, limits: Limits) -> Self {
        Self { over: celsius - limits.throttle, left: limits.end - celsius }
    }

    /// The worse of both.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        Self { over: self.over.max(other.over), left: self.left.min(other.left) }
    }
}

/// Decides how many steps are taken.
#[derive(Debug)]
pub struct Heat {
    dwell: Duration,
    recent: VecDeque<(Time, HeatSample)>,
    step: usize,
    cool_since: Option<Time>,
    /// When a step was last taken back.
    eased_at: Option<Time>,
    /// In dwells.
    patience: u32,
    too_hot: bool,
}

impl Heat {
    /// Starts cool. `dwell`: how long it must be cooler before a step is taken back.
    pub fn new(dwell: Duration) -> Self {
        Self {
            dwell,
            recent: VecDeque::with_capacity(READINGS + 1),
            step: 0,
            cool_since: None,
            eased_at: None,
            patience: 1,
            too_hot: false,
        }
    }

    /// Takes a sample.
    pub fn on(&mut self, sample: HeatSample, now: Time) {
        let goes_on = self.recent.back().is_some_and(|&(at, _)| now.saturating_sub(at) <= STALE);
        if !goes_on {
            self.recent.clear();
        }
        self.recent.push_back((now, sample));
        if self.recent.len() > READINGS {
            self.recent.pop_front();
        }
        let over = median(self.recent.iter().map(|(_, sample)| sample.over));
        let left = median(self.recent.iter().map(|(_, sample)| sample.left));
        self.too_hot = if self.too_hot { over > -HYSTERESIS || left <= HYSTERESIS } else { left <= 0.0 };
        if goes_on {
            self.follow(over, now);
        } else {
            // What came before is over: begin at the current temperature.
            (self.step, self.cool_since, self.eased_at, self.patience) = (step_at(over), None, None, 1);
        }
    }

    fn follow(&mut self, over: f64, now: Time) {
        if step_at(over) > self.step {
            self.step += 1;
            self.cool_since = None;
            if self.eased_at.take().is_some_and(|at| now.saturating_sub(at) < self.dwell * RELAPSE) {
                self.patience = (self.patience * 2).min(MOST_PATIENCE);
            }
        } else if step_at(over + HYSTERESIS) < self.step {
            let since = *self.cool_since.get_or_insert(now);
            if now.saturating_sub(since) >= self.dwell * self.patience {
                self.step -= 1;
                self.cool_since = Some(now);
                if self.eased_at.replace(now).is_some_and(|at| now.saturating_sub(at) >= self.dwell * RELAPSE) {
                    self.patience = 1;
                }
            }
        } else {
            self.cool_since = None;
        }
    }

    /// How many steps are taken, from 0 to the number of [`STEPS`].
    pub fn step(&self) -> usize {
        self.step
    }

    /// What a stream is still allowed.
    pub fn allowance(&self) -> Allowance {
        self.step.checked_sub(1).map_or(Allowance::ALL, |taken| STEPS[taken])
    }

    /// Whether no stream may run.
    pub fn too_hot(&self) -> bool {
        self.too_hot
    }
}

/// How many steps a temperature calls for.
fn step_at(over: f64) -> usize {
    let width = SPAN / STEPS.len() as f64;
    (((over + SPAN) / width).floor() + 1.0).clamp(0.0, STEPS.len() as f64) as usize
}

/// The middle value; of two, the lower, so that one bad reading decides nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests;
