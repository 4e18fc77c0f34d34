//! Every decision, as pure state machines: `(event, now) -> actions`. No clock, no runtime, no media library: a test
//! runs millions of steps a second.
//!
//! A machine with timers has `deadline()`: at that time, at the latest, its owner gives it a `Tick`. After a `Tick` its
//! deadline lies in the future, so that no owner can end in a busy loop. An event that comes late finds what was due
//! already done. A machine never trusts the order of what it is told: what does not fit its state is ignored, or
//! taken for the loss that it must be.

pub mod arbiter;
pub mod battery;
pub mod bitrate;
pub mod camera;
pub mod health;
pub mod heat;
pub mod keep_alive;
#[cfg(feature = "cloud")]
pub mod orchestration;
pub mod resume;
pub mod retry;
pub mod stall;
pub mod stream;

use std::time::Duration;

/// A moment on the monotonic clock, as time since an origin that the caller chose and never changes.
pub type Time = Duration;
