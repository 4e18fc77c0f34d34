//! Tests across processes: the built daemon against real servers, over real sockets.
//!
//! One program, so that the many tests that mostly wait run side by side; those that time the daemon or encode large
//! pictures take turns ([`support::heavy`]). Limits in seconds are promises of the product, or three times those where
//! the promise is a median.

#[path = "../support/mod.rs"]
mod support;

mod acceptance;
mod bad_input;
mod board;
mod causes;
mod cloud_link;
mod encoder;
mod harness;
mod metrics;
mod network_faults;
mod photo;
mod publish;
mod server_faults;
mod service;
mod sharing;
mod traffic;
mod uart;
mod uplink;
