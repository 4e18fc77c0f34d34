//! A fall and return: the link's capacity in each phase, and when the phases were.

use std::time::Duration;

/// The link's capacity at first and at last, kbit/s.
pub const HIGH: u32 = 2000;
/// The link's capacity in between, kbit/s.
pub const LOW: u32 = 600;
/// Time after a change from which the use of the link is measured.
pub const SETTLED: Duration = Duration::from_secs(6);

/// When the phases began, on the monotonic clock.
pub struct Times {
    /// The first picture was there.
    pub begun: Duration,
    /// The rate fell.
    pub fell: Duration,
    /// The rate rose again.
    pub rose: Duration,
    /// The run was over.
    pub end: Duration,
}
