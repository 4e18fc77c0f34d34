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

mod access_unit;
mod amf0;
mod chunk;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handle;
mod publication;
mod server;
mod session;
mod tag;
mod timeline;

pub use handle::{Event, Happening, Ingest, Stop};
pub use server::{Limits, serve};
