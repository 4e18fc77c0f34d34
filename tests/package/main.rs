//! Tests of the Debian packages, as `make deb` makes them for amd64 and arm64: they install, start, stream, upgrade and go on root
//! file systems that hold no more than they depend on. No systemd runs there; that is the emulated board's part.
//!
//! Needs root, and for arm64 a kernel that runs its programs by qemu-user-static.

#[path = "../support/mod.rs"]
mod support;

mod deb;
mod life;
mod manual;
mod root;
mod streaming;
