//! Age of the oldest byte in a socket: given to the kernel and not yet acknowledged by the peer's kernel.

use std::collections::VecDeque;
use std::time::Duration;

/// Looks kept; at ten a second, far more than a connection survives without an acknowledgement.
const LOOKS: usize = 256;

/// Determines the age from repeated looks at the socket, so only to within the time between two looks.
#[derive(Debug, Default)]
pub struct Transit {
    /// Time and total bytes given to the kernel, for each look that found new bytes that are not all acknowledged.
    given: VecDeque<(Duration, u64)>,
}

impl Transit {
    /// The age of the oldest byte, zero if none is on its way; `now` on any clock that does not go back.
    pub fn look(&mut self, now: Duration, acked: u64, outstanding: u64) -> Duration {
        while self.given.front().is_some_and(|(_, given)| *given <= acked) {
            self.given.pop_front();
        }
        let total = acked + outstanding;
        if outstanding > 0 && self.given.back().is_none_or(|(_, given)| *given < total) {
            if self.given.len() == LOOKS {
                self.given.pop_back(); // the oldest is what is asked for
            }
            self.given.push_back((now, total));
        }
        self.given.front().map_or(Duration::ZERO, |(since, _)| now.saturating_sub(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_ages_until_it_is_acknowledged_and_the_next_one_is_younger() {
        let mut transit = Transit::default();
        let mut look = |tenths: u64, acked, outstanding| {
            transit.look(Duration::from_millis(tenths * 100), acked, outstanding).as_millis()
        };
        assert_eq!(look(0, 0, 0), 0);
        assert_eq!(look(1, 0, 100), 0);
        assert_eq!(look(2, 0, 300), 100);
        assert_eq!(look(3, 50, 250), 200, "the first hundred are not all acknowledged");
        assert_eq!(look(4, 100, 200), 200, "the rest came at 2");
        assert_eq!(look(5, 300, 0), 0);
        assert_eq!(look(6, 300, 0), 0);
        for tenths in 0..1000 {
            look(7 + tenths, 300, 10 + tenths);
        }
        assert_eq!(look(1007, 300, 2000), 100_000, "however long it takes");
    }
}
