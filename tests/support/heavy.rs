//! A turn for tests that need the machine to themselves: those that time the daemon, or encode large pictures.

use std::fs::File;

use nix::fcntl::{Flock, FlockArg};

/// A turn, until dropped.
pub struct Turn {
    _lock: Flock<File>,
}

/// Waits for a turn. Counts across threads and processes, since two test programs may run side by side.
pub fn turn() -> Turn {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/heavy-test.lock");
    let file = File::create(path).expect("cargo's folder for test files is writable");
    let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap_or_else(|(_, e)| panic!("cannot lock {path}: {e}"));
    Turn { _lock: lock }
}
