//! A fall and return: what the link carries in each phase, and when they were.

use std::time::Duration;

/// kbit/s: what the link carries at first and at last, and between.
pub const HIGH: u32 = 2000;
/// See [`HIGH`].
pub const LOW: u32 = 600;
/// How long after a change the link counts as used or not.
pub const SETTLED: Duration = Duration::from_secs(6);

/// When what happened, on the monotonic clock.
pub struct Times {
    /// The first picture was there.
    pub begun: Duration,
    /// The rate fell.
    pub fell: Duration,
    /// It rose again.
    pub rose: Duration,
    /// That was all.
    pub end: Duration,
}
