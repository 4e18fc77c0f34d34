//! Turns RTMP and RTMPS publishers into broadcasts.
//!
//! ```text
//! server: socket ─ session (chunk, amf0) ─ publication (tag, access_unit, timeline) ─ handle ─ Broadcast
//! ```
//!
//! The address is `rtmp://host:port/live/KEY`, where each key belongs to one stream. [`Ingest`] defines the streams and
//! reports what happens to their publishers; [`serve`] accepts connections. A second publisher with the right key takes
//! over at once: usually the first is the same device, on a connection that died unnoticed.
//!
//! Everything that a peer can claim, hold or delay is bounded ([`Limits`]), before it reaches code that trusts it.
//!
//! [`sink`] is the smallest server, to measure with. It alone is built without the feature `cloud`.

#[cfg(feature = "cloud")]
mod access_unit;
#[cfg(feature = "cloud")]
mod amf0;
mod chunk;
#[cfg(all(feature = "cloud", any(test, fuzzing)))]
pub mod fuzz;
#[cfg(feature = "cloud")]
mod handle;
#[cfg(feature = "cloud")]
mod publication;
#[cfg(feature = "cloud")]
mod server;
#[cfg(feature = "cloud")]
mod session;
pub mod sink;
#[cfg(feature = "cloud")]
mod tag;
#[cfg(feature = "cloud")]
mod timeline;

#[cfg(feature = "cloud")]
pub use handle::{Event, Happening, Ingest, Stop};
#[cfg(feature = "cloud")]
pub use server::{Limits, serve};
