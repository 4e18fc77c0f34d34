//! What apps and the cloud say to each other, as the npm package `@mentra/sdk` 2.1.29 speaks it
//! (docs/protocol.md#apps).
//!
//! Two name generations are understood, `rtmp_stream_*` (that package) and `stream_*` (2026); an app is answered in the one
//! it used, since the package reports every unknown `type` as an error. Nothing is routed by a message's `sessionId`: the
//! package writes placeholders there. Who speaks is known from the socket.

mod answer;
mod request;

pub use answer::{
    CheckedStream, ManagedStatus, ManagedWord, Output, OutputState, ShownUrl, UnmanagedStatus, ViewerUrls, checked,
};
pub use request::{AppRequest, Destination, ManagedRequest, PhotoRequest, Refused, UnmanagedRequest, parse};
