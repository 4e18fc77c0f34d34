//! lenscast makes smart glasses go live.
//!
//! Imports run only downwards in this list:
//!
//! | module | what |
//! |---|---|
//! | `cloud` | the application `lenscast-cloud` (feature `cloud`): gateway of apps and glasses, and everything a viewer gets |
//! | `device` | the application `lenscastd`: wires what follows together; its one task owns all state |
//! | [`board`] | heat, battery, network and privacy light, as the kernel tells them |
//! | `media` | GStreamer: capture, encode, publish; the only module that names it |
//! | `link` | sockets to the phone, the cloud and `lenscastctl` |
//! | `ingest`, `playback`, `whep` | RTMP in; HLS, DASH and WebRTC out (feature `cloud`, but for a sink to measure with) |
//! | `broadcast` | one stream's frames between those (feature `cloud`) |
//! | [`camera`] | V4L2 devices, the modes they offer, who holds them |
//! | [`policy`] | every decision, as pure state machines: `(event, now) -> actions` |
//! | [`configuration`], [`logging`], [`metrics`] | how both applications read their files, write their logs, show their numbers |
//! | [`protocol`] | serde types of every hop, statuses, causes; no I/O |
//! | `client_address` | whose an address is (feature `cloud`) |
//! | [`toml_file`] | reads what people write |
//!
//! `fuzz` (only in tests and fuzzers) stands above all of them, and what is fuzzed of a module is in its own `fuzz`,
//! which takes what all of these need from `fuzz_input` at the bottom.

pub mod board;
#[cfg(feature = "cloud")]
pub mod broadcast;
pub mod camera;
#[cfg(feature = "cloud")]
mod client_address;
#[cfg(feature = "cloud")]
pub mod cloud;
pub mod configuration;
pub mod device;
#[cfg(all(feature = "cloud", any(test, fuzzing)))]
pub mod fuzz;
#[cfg(all(feature = "cloud", any(test, fuzzing)))]
mod fuzz_input;
pub mod ingest;
pub mod link;
pub mod logging;
pub mod media;
pub mod metrics;
#[cfg(feature = "cloud")]
pub mod playback;
pub mod policy;
pub mod protocol;
pub mod toml_file;
#[cfg(feature = "cloud")]
pub mod whep;
