//! How far a capture's pictures got, counted and timed where they pass.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::metrics::Counter;

/// Counters and times of a capture's pictures.
#[derive(Debug)]
pub struct Progress {
    pub(super) start: Instant,
    pub(super) captured: Stage,
    pub(super) offered: Stage,
    pub(super) encoded: Stage,
    pub(super) first_encoded: Notify,
    /// N where one picture in N is encoded.
    pub(super) one_in: AtomicU32,
    /// Pictures that never came, by the camera's numbering.
    pub(super) missed: Counter,
    /// Pictures left out so that the rest are better.
    pub(super) left_out: Counter,
    pub(super) encoded_bytes: Counter,
    /// Sum over all pictures of the time from capture to encoded, microseconds.
    pub(super) latency_us: Counter,
}

/// Counts of a capture so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pictures that left the camera.
    pub captured: u64,
    /// Pictures that the camera numbered but did not deliver.
    pub missed: u64,
    /// Pictures left out on purpose, where the uplink carries no more.
    pub left_out: u64,
    /// Pictures offered to the encoder.
    pub offered: u64,
    /// Pictures that left the encoder.
    pub encoded: u64,
    /// Bytes of encoded pictures.
    pub encoded_bytes: u64,
    /// Sum over all pictures of the time from capture to encoded.
    pub latency: Duration,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, more: Self) {
        self.captured += more.captured;
        self.missed += more.missed;
        self.left_out += more.left_out;
        self.offered += more.offered;
        self.encoded += more.encoded;
        self.encoded_bytes += more.encoded_bytes;
        self.latency += more.latency;
    }
}

/// A point where pictures are counted.
#[derive(Debug, Default)]
pub(super) struct Stage {
    count: AtomicU64,
    /// Time of the first picture, milliseconds after the start; 0 before there is one.
    first_ms: AtomicU64,
    /// Time of the last picture, milliseconds after the start.
    last_ms: AtomicU64,
}

impl Stage {
    pub(super) fn count(&self, start: Instant) -> u64 {
        let now = start.elapsed().as_millis() as u64;
        self.last_ms.store(now, Ordering::Relaxed);
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            self.first_ms.store(now.max(1), Ordering::Relaxed);
        }
        number
    }

    /// Age of the first picture, if there was one.
    fn age_of_first(&self, start: Instant) -> Option<Duration> {
        let first = self.first_ms.load(Ordering::Relaxed);
        (first > 0).then(|| start.elapsed().saturating_sub(Duration::from_millis(first)))
    }

    /// Age of the last picture, or time since the start.
    fn age(&self, start: Instant) -> Duration {
        start.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            captured: Stage::default(),
            offered: Stage::default(),
            encoded: Stage::default(),
            first_encoded: Notify::new(),
            one_in: AtomicU32::new(1),
            missed: Counter::default(),
            left_out: Counter::default(),
            encoded_bytes: Counter::default(),
            latency_us: Counter::default(),
        }
    }

    /// Counts so far.
    pub fn counters(&self) -> Counters {
        Counters {
            captured: self.captured(),
            missed: self.missed.get(),
            left_out: self.left_out.get(),
            offered: self.offered(),
            encoded: self.encoded(),
            encoded_bytes: self.encoded_bytes.get(),
            latency: Duration::from_micros(self.latency_us.get()),
        }
    }

    /// Resolves when the first picture has left the encoder.
    pub async fn first_encoded(&self) {
        self.first_encoded.notified().await;
    }

    /// Pictures that left the camera.
    pub fn captured(&self) -> u64 {
        self.captured.count.load(Ordering::Relaxed)
    }

    /// Pictures offered to the encoder.
    pub fn offered(&self) -> u64 {
        self.offered.count.load(Ordering::Relaxed)
    }

    /// Pictures that left the encoder.
    pub fn encoded(&self) -> u64 {
        self.encoded.count.load(Ordering::Relaxed)
    }

    /// N where one of the camera's pictures in N is encoded.
    pub fn one_in(&self) -> u32 {
        self.one_in.load(Ordering::Relaxed)
    }

    /// Time since the camera gave a picture, or since the start.
    pub fn camera_silent(&self) -> Duration {
        self.captured.age(self.start)
    }

    /// Time since a picture was offered to the encoder, or since the start (always so where the camera encodes).
    pub fn offers_silent(&self) -> Duration {
        self.offered.age(self.start)
    }

    /// Time since the encoder gave a picture, or since the camera's first, when it could have begun.
    pub fn encoder_silent(&self) -> Duration {
        self.captured.age_of_first(self.start).map_or(Duration::ZERO, |first| first.min(self.encoded.age(self.start)))
    }
}

#[cfg(test)]
impl Progress {
    /// The state `now` milliseconds after the start, when the stages gave pictures at these times, in milliseconds.
    pub(in crate::media) fn at(now: u64, captured: &[u64], offered: &[u64], encoded: &[u64]) -> Self {
        let start = Instant::now().checked_sub(Duration::from_millis(now)).expect("this machine is up for longer");
        let stage = |times: &[u64]| Stage {
            count: (times.len() as u64).into(),
            first_ms: times.first().copied().unwrap_or_default().into(),
            last_ms: times.last().copied().unwrap_or_default().into(),
        };
        Self { start, captured: stage(captured), offered: stage(offered), encoded: stage(encoded), ..Self::new() }
    }
}
