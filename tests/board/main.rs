//! The whole road onto glasses, on the emulated board of `hw-fixtures/board/`: the Debian package, flashed by
//! `scripts/flash.sh`, run by the board's own systemd on Debian's own kernel, with real servers on the host.
//!
//! Two cores are emulated, on a machine that may be busy: frames are asked for at 80 % of their rate, and times are three
//! times what is promised. Each test prints what it measured.

#[path = "../support/mod.rs"]
mod support;

mod flash;
mod power;
mod scene;
mod service;
#[cfg(feature = "cloud")]
mod takeover;
