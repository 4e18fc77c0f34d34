//! The whole path onto glasses, on the emulated board of `hw-fixtures/board/`: the Debian package, flashed by
//! `scripts/flash.sh`, run by the board's own systemd on Debian's own kernel, with real servers on the host.
//!
//! Two cores are emulated, on a machine that may be busy: tests expect 80 % of the frame rate, and times are three
//! times the promised ones. Each test prints what it measured.
//!
//! The arm64 package's life is tested like the amd64 one's in `tests/package`, in the board's root file system by
//! qemu-user-static. Streaming is not: the kernel's `TCP_INFO` does not come through there, and without it no
//! connection is trusted. `make test` runs the tests that take less than five minutes, `make test-board` all.

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

/// The architecture of the package that is flashed here.
const ARCHITECTURE: deb::Architecture = deb::Architecture::Arm64;
