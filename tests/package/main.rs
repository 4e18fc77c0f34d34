//! Tests of the Debian packages, as `make deb` makes them for amd64 and arm64; that for amd64 is installed, started, upgraded and
//! purged on a root file system that holds no more than it depends on. No systemd runs there; that, and what is for arm64, is the
//! emulated board's part (`tests/board`). Needs root.

#[path = "../support/mod.rs"]
mod support;

mod deb;
mod life;
mod manual;
mod root;
mod streaming;

/// Of the package that is installed here.
const ARCHITECTURE: deb::Architecture = deb::Architecture::Amd64;
