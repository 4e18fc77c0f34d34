//! How much a stream has to give up so that the glasses do not get too hot.
//!
//! The kernel throttles a board from a zone's passive trip point on, without asking what the processor does: pictures then
//! come late and the encoder falls behind. So a stream gives way before that, in [`STEPS`] evenly spread over the last
//! [`SPAN`] degrees: bits first, which cost the radio and a little of the encoder, then pictures, which cost all the rest.
//! Every zone has its own limits; what counts is the zone nearest to them.
//!
//! Nothing here oscillates. One bad reading changes nothing (the median of three decides). A reading takes at most one step
//! up; a step back needs [`HYSTERESIS`] degrees less, for a whole dwell; and when a step back did not last, the next one
//! takes twice as long to be tried. A stream that ends at the limit is not started again before throttling is well below.

use std::collections::VecDeque;
use std::time::Duration;

use super::Time;
use super::bitrate::Pictures;

/// Degrees Celsius below the throttling point where the first step is taken.
pub const SPAN: f64 = 10.0;
/// A step is taken back so many degrees below where it was taken.
pub const HYSTERESIS: f64 = 3.0;
/// Where a zone without a passive trip point is taken to throttle, degrees Celsius. `MentraOS` begins to reduce at 86 and
/// has its hard limit at 90; the first step here comes at 75, the last at 83.
pub const THROTTLE: f64 = 85.0;
/// Where a stream ends, if neither a hot nor a critical trip point says so, degrees Celsius.
pub const END: f64 = 95.0;
/// So many degrees before the kernel switches the board off, the stream ends.
pub const BEFORE_SHUTDOWN: f64 = 3.0;
/// Without a shutdown point the stream ends at least so many degrees above the throttling point.
const ABOVE_THROTTLE: f64 = 8.0;
/// Readings that decide together.
const READINGS: usize = 3;
/// Readings further apart than this have nothing to do with each other: nothing ran in between.
const STALE: Duration = Duration::from_secs(8);
/// A step back that did not last so many dwells was one too early.
const RELAPSE: u32 = 45;
/// The longest wait for a step back, in dwells.
const MOST_PATIENCE: u32 = 64;

/// What a stream may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Of the bitrate that was asked for, per cent.
    pub percent: u32,
    /// Which pictures.
    pub pictures: Pictures,
}

impl Allowance {
    /// Everything.
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

/// What the kernel does at a trip point, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TripKind {
    /// It throttles.
    Passive,
    /// It tells the firmware that it is nearly too late.
    Hot,
    /// It switches the board off.
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

/// What a zone bears.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The kernel throttles from here on, degrees Celsius.
    pub throttle: f64,
    /// The stream ends here, degrees Celsius.
    pub end: f64,
}

impl Limits {
    /// From a zone's own trip points. The governor `power_allocator` only begins to watch at the first passive trip point
    /// and holds the temperature at the last (kernel documentation, `power_allocator`); others throttle at the first.
    pub fn of(trips: &[Trip], power_allocator: bool) -> Self {
        // Drivers mark trip points that are not in use with impossible temperatures.
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

    /// With what the configuration says instead.
    #[must_use]
    pub fn or(self, throttle: Option<f64>, end: Option<f64>) -> Self {
        let end = end.unwrap_or(self.end);
        Self { throttle: throttle.unwrap_or(self.throttle).min(end - 1.0), end }
    }
}

/// How a board does at one moment, by the zone nearest to its limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Degrees above where the kernel throttles; mostly negative.
    pub over: f64,
    /// Degrees that are left to the end.
    pub left: f64,
}

impl Sample {
    /// Of one zone.
    pub fn of(celsius: f64, limits: Limits) -> Self {
        Self { over: celsius - limits.throttle, left: limits.end - celsius }
    }

    /// Of both.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        Self { over: self.over.max(other.over), left: self.left.min(other.left) }
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Heat {
    dwell: Duration,
    recent: VecDeque<(Time, Sample)>,
    step: usize,
    cool_since: Option<Time>,
    /// When a step was last taken back.
    eased_at: Option<Time>,
    /// In dwells.
    patience: u32,
    too_hot: bool,
}

impl Heat {
    /// Cool. `dwell`: how long it must be cooler before a step is taken back.
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

    /// Hears how the board does.
    pub fn on(&mut self, sample: Sample, now: Time) {
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
            // What was is over: begin where it is now.
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

    /// How many steps are taken, 0 to the number of [`STEPS`].
    pub fn step(&self) -> usize {
        self.step
    }

    /// What a stream may still do.
    pub fn allowance(&self) -> Allowance {
        self.step.checked_sub(1).map_or(Allowance::ALL, |taken| STEPS[taken])
    }

    /// No stream may run.
    pub fn too_hot(&self) -> bool {
        self.too_hot
    }
}

/// How many steps belong to a temperature.
fn step_at(over: f64) -> usize {
    let width = SPAN / STEPS.len() as f64;
    (((over + SPAN) / width).floor() + 1.0).clamp(0.0, STEPS.len() as f64) as usize
}

/// The middle one; of two the lower, so that one bad reading decides nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests;
