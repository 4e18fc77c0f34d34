//! Every decision, as pure state machines: `(event, now) -> actions`. No clock, no runtime, no media library: a test
//! runs millions of steps a second.

use std::time::Duration;

/// A moment on the monotonic clock, as time since an origin that the caller chose and never changes.
pub type Time = Duration;
