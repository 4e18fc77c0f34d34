//! What each cause asks of a stream, and when the next attempt is made.
//!
//! Delays grow from a quarter of a second, since most losses (a server restarted, Wi-Fi roaming) are over at once, to
//! 5 s, the most a person waiting for the picture should lose on top of an outage. Jitter only shortens a delay: a
//! promise such as "first retry within 250 ms" holds, and glasses that lost the same server do not return as one herd.

use std::{collections::VecDeque, time::Duration};

use super::Time;
use crate::protocol::Cause;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(5);
const FACTOR: f64 = 1.5;
/// Jitter removes at most this share of a delay.
const JITTER: f64 = 0.2;
/// Streaming for this long shows that the trouble is over.
const HEALED: Duration = Duration::from_secs(5);
/// More losses than this within [`FLAPPING_WINDOW`] keep the delay at its longest.
const FLAPPING_LOSSES: usize = 10;
const FLAPPING_WINDOW: Duration = Duration::from_mins(1);

/// Delay between attempts while the server still holds an earlier publisher of the key.
pub const STREAM_EXISTS_DELAY: Duration = Duration::from_secs(2);
/// How long a key may stay taken. Servers drop a dead publisher within a minute or two; whoever still holds the key
/// then is alive, and that is no outage.
pub const STREAM_EXISTS_BUDGET: Duration = Duration::from_mins(3);
/// A rejected key is tried once more after this time: servers that ask a backend also reject while it restarts.
pub const REJECTED_DELAY: Duration = Duration::from_secs(1);

/// What a cause asks of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again with growing delays.
    Retry,
    /// Has its own budget: every [`STREAM_EXISTS_DELAY`] for [`STREAM_EXISTS_BUDGET`].
    StreamExists,
    /// Fatal when seen twice at least [`REJECTED_DELAY`] apart without media in between.
    Rejected,
    /// Concerns the capture pipeline, which [`super::camera`] reopens.
    Camera,
    /// Trying again cannot help, or the end was decided.
    Fatal,
}

/// What `cause` asks of the stream.
pub fn class(cause: Cause) -> Class {
    match cause {
        Cause::DnsFailed
        | Cause::ConnectRefused
        | Cause::ConnectTimeout
        | Cause::NetworkUnreachable
        | Cause::TlsFailed
        | Cause::HandshakeTimeout
        | Cause::ConnectionLost
        | Cause::NetworkStalled
        | Cause::ServerFrozen
        // The stream is resumed where the previous process left it.
        | Cause::DaemonRestarted
        // A fault that was not understood: the next attempt starts afresh and may well work.
        | Cause::Internal => Class::Retry,
        Cause::StreamExists => Class::StreamExists,
        Cause::PublishRejected => Class::Rejected,
        Cause::NoCamera
        | Cause::CameraLost
        | Cause::CameraStalled
        | Cause::CameraNoSignal
        | Cause::CameraBusy
        | Cause::CameraForbidden
        | Cause::CameraFailed
        | Cause::EncoderFailed
        | Cause::EncoderStalled
        | Cause::PrivacyLedFailed
        | Cause::AudioFailed => Class::Camera,
        Cause::TlsCertificateRejected
        // Glasses do not cool or charge within a retry; a new request can be made later.
        | Cause::Overheated
        | Cause::BatteryLow
        | Cause::Requested
        | Cause::Replaced
        | Cause::Preempted
        | Cause::KeepAliveTimeout
        | Cause::LinkLost
        | Cause::DurationOver
        | Cause::HolderGone
        | Cause::Shutdown
        | Cause::DaemonCrashed
        | Cause::InvalidRequest
        | Cause::InvalidUrl
        | Cause::UnknownStream
        | Cause::NotOwner => Class::Fatal,
    }
}

/// The delay before each attempt.
#[derive(Debug)]
pub struct Backoff {
    jitter: fastrand::Rng,
    /// Losses since streaming last held for [`HEALED`].
    losses: u32,
    /// Times of the latest losses, at most one more than [`FLAPPING_LOSSES`].
    recent: VecDeque<Time>,
    streaming_since: Option<Time>,
}

impl Backoff {
    /// `seed` decides the jitter; use a different one for each stream.
    pub fn new(seed: u64) -> Self {
        let recent = VecDeque::with_capacity(FLAPPING_LOSSES + 1);
        Self { jitter: fastrand::Rng::with_seed(seed), losses: 0, recent, streaming_since: None }
    }

    /// Media goes through from `now` on.
    pub fn streaming(&mut self, now: Time) {
        self.streaming_since.get_or_insert(now);
    }

    /// Media stopped, or an attempt failed, at `now`. Returns the delay before the next attempt.
    pub fn lost(&mut self, now: Time) -> Duration {
        if self.streaming_since.take().is_some_and(|since| now.saturating_sub(since) >= HEALED) {
            self.losses = 0;
        }
        if self.recent.len() > FLAPPING_LOSSES {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        let delay = nominal(self.losses).mul_f64(1.0 - JITTER * self.jitter.f64());
        self.losses = self.losses.saturating_add(1);
        let in_window = self.recent.iter().filter(|&&loss| now.saturating_sub(loss) < FLAPPING_WINDOW).count();
        if in_window > FLAPPING_LOSSES { LONGEST } else { delay }
    }
}

/// The delay after `losses` earlier ones, without jitter.
fn nominal(losses: u32) -> Duration {
    let grown = FIRST.as_secs_f64() * FACTOR.powi(losses.min(64).cast_signed());
    Duration::from_secs_f64(grown.min(LONGEST.as_secs_f64()))
}

/// How many retries are likely before the stream gives up on a cause of this class, if attempts fail at once; `None`
/// when it never gives up. `give_up_after`: time without media after which the stream ends.
pub fn estimated_attempts(class: Class, give_up_after: Option<Duration>) -> Option<u32> {
    match class {
        Class::Fatal => Some(0),
        Class::Rejected => Some(1),
        Class::StreamExists => Some((STREAM_EXISTS_BUDGET.as_secs() / STREAM_EXISTS_DELAY.as_secs()) as u32),
        Class::Retry | Class::Camera => give_up_after.map(|mut left| {
            let mut attempts = 0;
            loop {
                let delay = nominal(attempts);
                if delay == LONGEST {
                    let rest = left.as_secs() / LONGEST.as_secs();
                    return attempts.saturating_add(u32::try_from(rest).unwrap_or(u32::MAX)).max(1);
                }
                match left.checked_sub(delay) {
                    Some(rest) => left = rest,
                    None => return attempts.max(1),
                }
                attempts += 1;
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn first_retry_comes_within_200_to_250_ms_and_none_later_than_5_s() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            let mut now = ms(0);
            let mut last_nominal = ms(250);
            for n in 0..30 {
                let delay = backoff.lost(now);
                if n == 0 {
                    assert!((ms(200)..=ms(250)).contains(&delay), "{delay:?}");
                }
                assert!(delay <= last_nominal && delay >= last_nominal.mul_f64(0.79), "{n}: {delay:?}");
                last_nominal = last_nominal.mul_f64(1.5).min(ms(5000));
                now += delay + ms(1000);
            }
        }
    }

    #[test]
    fn five_seconds_of_streaming_clear_it_and_less_does_not() {
        let mut backoff = Backoff::new(1);
        for n in 0..6 {
            backoff.lost(ms(n * 10_000));
        }
        backoff.streaming(ms(61_000));
        assert!(backoff.lost(ms(65_900)) > ms(1000), "4.9 s of streaming do not clear it");
        backoff.streaming(ms(70_000));
        assert!(backoff.lost(ms(75_000)) <= ms(250), "5 s of streaming clear it");
    }

    #[test]
    fn more_than_ten_losses_in_a_minute_keep_the_delay_at_5_s() {
        let mut backoff = Backoff::new(1);
        let mut now = ms(0);
        for _ in 0..10 {
            backoff.streaming(now);
            now += ms(5000);
            assert!(backoff.lost(now) <= ms(250));
        }
        backoff.streaming(now);
        now += ms(5000);
        assert_eq!(backoff.lost(now), ms(5000));
        // A minute later the flapping is forgotten.
        now += ms(61_000);
        backoff.streaming(now);
        assert!(backoff.lost(now + ms(5000)) <= ms(250));
    }

    #[test]
    fn estimate_is_near_what_really_happens() {
        for give_up in [1, 5, 30, 120, 600] {
            let estimate = estimated_attempts(Class::Retry, Some(Duration::from_secs(give_up))).unwrap();
            let mut backoff = Backoff::new(give_up);
            let mut now = ms(0);
            let mut made = 0u32;
            loop {
                now += backoff.lost(now);
                if now > Duration::from_secs(give_up) {
                    break;
                }
                made += 1;
            }
            let spread = estimate / 3 + 1;
            assert!(made.abs_diff(estimate) <= spread, "{give_up} s: estimated {estimate}, made {made}");
        }
        assert_eq!(estimated_attempts(Class::Retry, None), None);
        assert_eq!(estimated_attempts(Class::StreamExists, None), Some(90));
    }

    #[test]
    fn what_heals_is_retried_and_what_cannot_ends() {
        assert_eq!(class(Cause::ConnectRefused), Class::Retry);
        assert_eq!(class(Cause::ServerFrozen), Class::Retry);
        assert_eq!(class(Cause::StreamExists), Class::StreamExists);
        assert_eq!(class(Cause::PublishRejected), Class::Rejected);
        assert_eq!(class(Cause::CameraLost), Class::Camera);
        assert_eq!(class(Cause::InvalidUrl), Class::Fatal);
        assert_eq!(class(Cause::DurationOver), Class::Fatal);
    }
}
