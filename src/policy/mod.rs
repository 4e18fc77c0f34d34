//! Every decision, as pure state machines: `(event, now) -> actions`. No clock, no runtime, no media library: a test
//! runs millions of steps a second.
//!
//! A machine with timers has `deadline()`: its owner sends it a `Tick` at that time at the latest. After a `Tick` the
//! deadline lies in the future, so no owner can end in a busy loop. When an event comes late, whatever was due before
//! it is done first. A machine never trusts the order of its events: one that does not fit its state is ignored, or
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
