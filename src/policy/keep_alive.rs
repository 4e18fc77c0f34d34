//! The clock that ends a stream when its cloud no longer sends keep-alives.
//!
//! It starts at each publish success and stands still while the stream is not streaming: 2026 clouds send keep-alives
//! only while it streams (docs/protocol.md#keep-alives), and a reconnect of more than a minute must not kill the
//! stream.
//!
//! It also stands still while the link is down, since nothing can arrive then and the link-loss policy decides, unless
//! keep-alives had already stopped for more than half of the timeout. In that case the link failed one way long before
//! it was found down, and catching that is this clock's job.

use std::time::Duration;

use super::Time;

/// How long a stream lives without keep-alive unless configured otherwise; the same as glasses with `MentraOS`.
pub const TIMEOUT: Duration = Duration::from_mins(1);

/// The keep-alive clock of one stream.
#[derive(Clone, Debug)]
pub struct KeepAlive {
    timeout: Duration,
    clock: Clock,
    link_down: bool,
}

#[derive(Clone, Copy, Debug)]
enum Clock {
    Off,
    Running { until: Time },
    Held { left: Duration },
}

impl KeepAlive {
    /// A stopped clock that, once started, expires after `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, clock: Clock::Off, link_down: false }
    }

    /// The stream is published and streaming: the clock starts anew.
    pub fn start(&mut self, now: Time) {
        self.clock = if self.link_down {
            Clock::Held { left: self.timeout }
        } else {
            Clock::Running { until: now.saturating_add(self.timeout) }
        };
    }

    /// The stream is no longer streaming: the clock stands still until [`Self::start`].
    pub fn stop(&mut self) {
        self.clock = Clock::Off;
    }

    /// A keep-alive for this stream arrived.
    pub fn heard(&mut self, now: Time) {
        if !matches!(self.clock, Clock::Off) {
            self.start(now);
        }
    }

    /// The link that brings keep-alives was lost.
    pub fn link_down(&mut self, now: Time) {
        self.link_down = true;
        if let Clock::Running { until } = self.clock {
            let left = until.saturating_sub(now);
            if left >= self.timeout / 2 {
                self.clock = Clock::Held { left };
            }
        }
    }

    /// The link is back: the clock goes on from where it stood.
    pub fn link_up(&mut self, now: Time) {
        self.link_down = false;
        if let Clock::Held { left } = self.clock {
            self.clock = Clock::Running { until: now.saturating_add(left) };
        }
    }

    /// When the stream ends unless a keep-alive arrives; `None` while the clock stands still.
    pub fn deadline(&self) -> Option<Time> {
        match self.clock {
            Clock::Running { until } => Some(until),
            Clock::Off | Clock::Held { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn runs_only_while_streaming_and_starts_anew_each_time() {
        let mut clock = KeepAlive::new(TIMEOUT);
        clock.heard(s(1));
        assert_eq!(clock.deadline(), None, "connecting");
        clock.start(s(10));
        assert_eq!(clock.deadline(), Some(s(70)));
        clock.heard(s(25));
        assert_eq!(clock.deadline(), Some(s(85)));
        clock.stop();
        assert_eq!(clock.deadline(), None, "reconnecting");
        clock.start(s(200));
        assert_eq!(clock.deadline(), Some(s(260)));
    }

    #[test]
    fn stands_still_while_the_link_is_down() {
        let mut clock = KeepAlive::new(TIMEOUT);
        clock.start(s(0));
        clock.link_down(s(15));
        assert_eq!(clock.deadline(), None);
        clock.link_up(s(105));
        assert_eq!(clock.deadline(), Some(s(150)), "45 s were left");
    }

    #[test]
    fn reconnecting_links_without_keep_alives_do_not_keep_a_stream_alive() {
        let mut clock = KeepAlive::new(TIMEOUT);
        clock.start(s(0));
        let mut now = s(0);
        for _ in 0..4 {
            now += s(10);
            clock.link_down(now);
            now += s(10);
            clock.link_up(now);
        }
        assert!(clock.deadline().is_some_and(|at| at <= s(120)), "{:?}", clock.deadline());
    }

    #[test]
    fn a_link_that_was_silent_long_before_it_was_found_down_does_not_stop_the_clock() {
        let mut clock = KeepAlive::new(TIMEOUT);
        clock.start(s(0));
        clock.link_down(s(45));
        assert_eq!(clock.deadline(), Some(s(60)));
    }

    #[test]
    fn a_stream_published_while_the_link_is_down_gets_its_full_time_when_the_link_returns() {
        let mut clock = KeepAlive::new(TIMEOUT);
        clock.link_down(s(0));
        clock.start(s(5));
        assert_eq!(clock.deadline(), None);
        clock.link_up(s(30));
        assert_eq!(clock.deadline(), Some(s(90)));
    }
}
