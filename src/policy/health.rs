//! Whether the daemon is healthy enough to be left alone: decides when to feed systemd's watchdog.
//!
//! Losses are not ill health: cameras stall, servers vanish, encoders hang, and each has its deadline and its
//! recovery. Only a driver that does not return is beyond recovery inside the process: a camera whose opening never
//! finishes, or a pipeline that would not end and whose device nothing else can open from then on. Only the end of the
//! process frees those, so only they let the watchdog starve. An idle daemon is healthy.

use std::time::Duration;

use super::Time;

/// Limit for an opening to succeed or fail: encoder trials on a slow board, a camera that takes long to wake up.
const OPENING_LIMIT: Duration = Duration::from_secs(30);
/// Limit for the camera to work again after a pipeline was left behind, by another encoder or because the driver
/// returned.
const LEFT_BEHIND_LIMIT: Duration = Duration::from_secs(15);

/// What happens to captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthEvent {
    /// The capture with this generation is being opened.
    Opening(u64),
    /// The capture with this generation works, or gave up: the opening is over.
    Settled(u64),
    /// Encoded pictures arrive.
    Running,
    /// A pipeline would not end and was left to itself.
    LeftBehind,
    /// Nobody wants the camera any more, and it is closed. Not sent while a left-behind pipeline keeps it.
    Unwanted,
}

/// Watches over captures.
#[derive(Debug, Default)]
pub struct Health {
    /// The capture that is being opened, and its deadline.
    opening: Option<(u64, Time)>,
    /// A pipeline was left behind, and no picture has come since.
    left_behind: bool,
    /// Deadline for the next picture.
    picture_until: Option<Time>,
}

impl Health {
    /// Takes an event.
    pub fn on(&mut self, event: HealthEvent, now: Time) {
        match event {
            HealthEvent::Opening(generation) => {
                self.opening = Some((generation, now + OPENING_LIMIT));
                if self.left_behind {
                    self.picture_until.get_or_insert(now + LEFT_BEHIND_LIMIT);
                }
            }
            HealthEvent::Settled(generation) => {
                self.opening = self.opening.filter(|&(opening, _)| opening != generation);
            }
            HealthEvent::Running => (self.left_behind, self.picture_until) = (false, None),
            HealthEvent::LeftBehind => {
                self.left_behind = true;
                self.picture_until.get_or_insert(now + LEFT_BEHIND_LIMIT);
            }
            HealthEvent::Unwanted => self.picture_until = None,
        }
    }

    /// Names what exceeded its limit, if anything did.
    pub fn overrun(&self, now: Time) -> Option<&'static str> {
        if self.opening.is_some_and(|(_, until)| now >= until) {
            Some("opening the camera does not finish")
        } else if self.picture_until.is_some_and(|until| now >= until) {
            Some("a pipeline that would not end still holds the camera")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn health(events: &[(u64, HealthEvent)]) -> Health {
        let mut health = Health::default();
        for &(at, event) in events {
            health.on(event, s(at));
        }
        health
    }

    #[test]
    fn an_idle_daemon_is_well_for_ever() {
        assert_eq!(Health::default().overrun(s(1_000_000)), None);
    }

    #[test]
    fn an_opening_that_never_comes_to_anything_is_an_overrun() {
        let opening = [(10, HealthEvent::Opening(1))];
        assert_eq!(health(&opening).overrun(s(39)), None);
        assert!(health(&opening).overrun(s(40)).is_some());
        assert!(health(&[opening[0], (20, HealthEvent::Settled(0))]).overrun(s(40)).is_some(), "another one's word");
        assert_eq!(health(&[opening[0], (20, HealthEvent::Settled(1))]).overrun(s(1000)), None);
    }

    #[test]
    fn a_camera_that_is_lost_again_and_again_is_no_ill_health() {
        let mut health = Health::default();
        for round in 0..1000 {
            health.on(HealthEvent::Opening(round), s(round * 4));
            health.on(HealthEvent::Settled(round), s(round * 4 + 3));
            assert_eq!(health.overrun(s(round * 4 + 3)), None);
        }
    }

    #[test]
    fn a_pipeline_left_behind_counts_until_the_camera_works_all_the_same() {
        let left = (10, HealthEvent::LeftBehind);
        assert_eq!(health(&[left]).overrun(s(24)), None);
        assert!(health(&[left]).overrun(s(25)).is_some());
        let retries =
            [left, (11, HealthEvent::Opening(2)), (12, HealthEvent::Settled(2)), (20, HealthEvent::Opening(3))];
        assert!(health(&retries).overrun(s(25)).is_some(), "attempts are no recovery");
        assert_eq!(health(&[left, (15, HealthEvent::Running)]).overrun(s(1000)), None);
        assert_eq!(health(&[left, (15, HealthEvent::Unwanted)]).overrun(s(1000)), None, "nobody misses it");
        let wanted_again =
            [left, (15, HealthEvent::Unwanted), (100, HealthEvent::Opening(2)), (101, HealthEvent::Settled(2))];
        assert_eq!(health(&wanted_again).overrun(s(114)), None);
        assert!(health(&wanted_again).overrun(s(115)).is_some());
    }
}
