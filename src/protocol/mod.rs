//! Serde types of every hop, statuses and causes. No I/O, no clock.
#![warn(missing_docs)]

#[cfg(feature = "cloud")]
pub mod app;
mod cause;
pub mod command;
pub mod control;
mod failure;
#[cfg(feature = "cloud")]
pub mod glasses;
pub mod k900;
pub mod photo;
mod redact;
pub mod report;
mod secret;
mod settings;
mod state;
mod stream_url;
mod url_parts;

pub use cause::Cause;
pub use command::{Command, CommandError, Dialect, Incoming, StartStream};
pub use failure::Failure;
pub use redact::redact_urls;
pub use secret::Secret;
pub use settings::{AudioSettings, SettingsError, VideoSettings};
pub use state::*;
pub use stream_url::StreamUrl;
pub use url_parts::UrlError;
