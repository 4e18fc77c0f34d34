//! Tests across processes: the built daemon against real servers, over real sockets.
//!
//! One program, so that the many tests that mostly wait do it side by side.

#[path = "../support/mod.rs"]
mod support;

mod harness;
