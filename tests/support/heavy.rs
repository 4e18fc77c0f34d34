//! Turns for tests that load the machine or time the daemon closely: two at a time, as CI has two cores.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::fcntl::{Flock, FlockArg};

const TURNS: usize = 2;

/// A turn, until dropped.
pub struct Turn {
    _locks: Vec<Flock<File>>,
}

/// Waits for a turn. Counts across threads and processes, since two test programs may run side by side.
pub fn turn() -> Turn {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    Turn { _locks: vec![lock(NEXT.fetch_add(1, Ordering::Relaxed) % TURNS)] }
}

/// Waits for all turns: what needs both cores to itself. Nobody who holds one may wait for another.
pub fn alone() -> Turn {
    Turn { _locks: (0..TURNS).map(lock).collect() }
}

fn lock(turn: usize) -> Flock<File> {
    let path = format!("{}/heavy-test-{turn}.lock", env!("CARGO_TARGET_TMPDIR"));
    let file = File::create(&path).expect("cargo's folder for test files is writable");
    Flock::lock(file, FlockArg::LockExclusive).unwrap_or_else(|(_, e)| panic!("cannot lock {path}: {e}"))
}
