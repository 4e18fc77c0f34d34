//! Serde types of every hop, statuses and causes. No I/O, no clock.

mod cause;
mod redact;
mod secret;
mod state;
mod stream_url;

pub use cause::Cause;
pub use redact::redact_urls;
pub use secret::Secret;
pub use state::*;
pub use stream_url::{StreamUrl, UrlError};
