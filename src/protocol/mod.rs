//! Serde types of every hop, statuses and causes. No I/O, no clock.

mod cause;
mod state;

pub use cause::Cause;
pub use state::*;
