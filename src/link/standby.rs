//! A link while it is down: drops what it is given, and waits longer after each failure.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Outgoing;

/// Awaits `wait` while there is no link, and drops what should be sent. `None` at shutdown.
pub(super) async fn down<T>(
    outgoing: &mut mpsc::Receiver<Outgoing>,
    shutdown: &mut watch::Receiver<bool>,
    wait: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(wait);
    loop {
        tokio::select! {
            biased;
            () = ordered(shutdown) => return None,
            value = &mut wait => return Some(value),
            Some(_) = outgoing.recv() => {}
        }
    }
}

/// Resolves when `shutdown` is true or can no longer become true.
pub(super) async fn ordered(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender was dropped, which counts as shutdown.
    let _ = shutdown.wait_for(|&ordered| ordered).await;
}

/// Delay before the next attempt: doubles each time, with jitter downwards so that a fleet does not return at once.
pub(super) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// `jitter`, from 0 to 1: how much of half the delay is removed.
    pub fn next(&mut self, refused: bool, jitter: f64) -> Duration {
        if refused {
            self.next = self.most;
            return self.most;
        }
        let delay = self.next.min(self.most);
        self.next = (delay * 2).min(self.most);
        delay.mul_f64(1.0 - jitter / 2.0)
    }
}
