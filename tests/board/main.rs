//! The whole road onto glasses, on the emulated board of `hw-fixtures/board/`: the Debian package, flashed by
//! `scripts/flash.sh`, run by the board's own systemd on Debian's own kernel, with real servers on the host.
//!
//! Two cores are emulated, on a machine that may be busy: frames are asked for at 80 % of their rate, and times are three
//! times what is promised. Each test prints what it measured.
//!
//! The arm64 package's life, as the amd64 one's in `tests/package`, is led in the board's root file system by qemu-user-static.
//! Streaming is not: there the kernel's `TCP_INFO` does not come through, without which no connection is trusted. `make test` has
//! those that take less than five minutes, `make test-board` all.

#[path = "../support/mod.rs"]
mod support;

#[path = "../package/deb.rs"]
mod deb;
mod flash;
#[path = "../package/life.rs"]
mod life;
mod power;
#[path = "../package/root.rs"]
mod root;
mod scene;
mod service;
mod streaming;
#[cfg(feature = "cloud")]
mod takeover;

/// Of the package that is flashed here.
const ARCHITECTURE: deb::Architecture = deb::Architecture::Arm64;
