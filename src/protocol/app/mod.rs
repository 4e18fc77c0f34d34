//! What apps and the cloud say to each other, as the npm package `@mentra/sdk` 2.1.29 speaks it
//! (docs/protocol.md#apps).
//!
//! Two generations of names are understood, `rtmp_stream_*` (that package) and `stream_*` (2026). An app is answered
//! in the one it used, since the package reports every unknown `type` as an error. A message's `sessionId` is not used
//! for routing, because the package writes placeholders there; the socket identifies the speaker.

mod answer;
mod request;

pub use answer::{
    CheckedStream, ManagedStatus, ManagedWord, Output, OutputState, ShownUrl, UnmanagedStatus, ViewerUrls, checked,
};
pub use request::{AppRequest, Destination, ManagedRequest, PhotoRequest, Refused, UnmanagedRequest, parse};
