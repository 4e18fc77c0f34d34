//! One clock for everything that is compared: `CLOCK_MONOTONIC`, which the daemon's test source stamps its frames with.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Now, on `CLOCK_MONOTONIC`.
pub fn monotonic() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC is always there"))
}

/// Asks until there is an answer, for what announces itself by no event. Panics with `what` once `within` is over.
pub fn poll_until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
