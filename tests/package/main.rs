//! Tests of the Debian packages that `make deb` makes for amd64 and arm64. The amd64 package is installed, started,
//! upgraded and purged on a root file system with no more than its dependencies. No systemd runs there; that, and the
//! arm64 package, is tested on the emulated board (`tests/board`). Needs root.

#[path = "../support/mod.rs"]
mod support;

mod deb;
mod life;
mod manual;
mod root;
mod streaming;

/// The architecture of the package that is installed here.
const ARCHITECTURE: deb::Architecture = deb::Architecture::Amd64;
