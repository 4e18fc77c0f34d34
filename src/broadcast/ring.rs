use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{AudioFormat, Frame, Media, VideoFormat};

/// How much is held for readers that are behind.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most media.
    pub duration: Duration,
    /// The most bytes of frames' data.
    pub bytes: usize,
}

impl Default for Bounds {
    /// 10 s, 32 MiB: 25 Mbit/s.
    fn default() -> Self {
        Self { duration: Duration::from_secs(10), bytes: 32 << 20 }
    }
}

/// Counts of what has passed so far, and the current formats.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Number of pictures.
    pub pictures: u64,
    /// Number of AAC frames.
    pub sounds: u64,
    /// Bytes of all frames' data.
    pub bytes: u64,
    /// When the newest frame arrived.
    pub last: Option<Instant>,
    /// The current format of the pictures.
    pub video: Option<Arc<VideoFormat>>,
    /// The current format of the sound.
    pub audio: Option<Arc<AudioFormat>>,
    /// The number of the current publication, 0 before the first.
    pub publication: u64,
}

/// The stream has ended; nothing more will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream has ended")]
pub struct Ended;

/// A stream's frames, from one writer to any number of readers. A clone is another handle to the same stream.
#[derive(Clone, Debug)]
pub struct Broadcast(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    ring: Mutex<Ring>,
    /// Sequence number of the next frame. Serves only to wake readers.
    head: watch::Sender<Head>,
    /// The number of the newest publication that is over.
    over: watch::Sender<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    next: u64,
    ended: bool,
}

#[derive(Debug, Default)]
struct Ring {
    frames: VecDeque<Arc<Frame>>,
    /// Sequence number of `frames[0]`.
    first: u64,
    bytes: usize,
    /// Sequence number of the newest key frame, if it is still held.
    key: Option<u64>,
    statistics: Statistics,
}

impl Broadcast {
    /// An empty stream.
    pub fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Shared {
            bounds,
            ring: Mutex::default(),
            head: watch::Sender::default(),
            over: watch::Sender::default(),
        }))
    }

    /// Passes a frame to all readers. Never waits. Ignored after [`Self::end`].
    pub fn push(&self, frame: Frame) {
        let next = {
            let mut ring = self.ring();
            let sequence = ring.first + ring.frames.len() as u64;
            ring.count(&frame);
            if frame.is_key() {
                ring.key = Some(sequence);
            }
            ring.bytes += frame.data.len();
            ring.frames.push_back(Arc::new(frame));
            ring.trim(self.0.bounds);
            sequence + 1
        };
        self.0.head.send_if_modified(|head| {
            head.next = next;
            !head.ended
        });
    }

    /// Says that no frame of this publication will come any more.
    pub fn finish(&self, publication: u64) {
        self.0.over.send_if_modified(|over| std::mem::replace(over, publication.max(*over)) < publication);
    }

    /// The number of the newest publication that is over, 0 before the first. By then all of its frames are here.
    pub fn over(&self) -> watch::Receiver<u64> {
        self.0.over.subscribe()
    }

    /// Says that nothing more will come. Readers get what is left, then [`Ended`].
    pub fn end(&self) {
        self.0.head.send_modify(|head| head.ended = true);
    }

    /// Whether [`Self::end`] was called.
    pub fn has_ended(&self) -> bool {
        self.0.head.borrow().ended
    }

    /// Counts of what has passed so far, and the current formats.
    pub fn statistics(&self) -> Statistics {
        self.ring().statistics.clone()
    }

    /// A reader that begins at the newest key frame, or at the next frame if there is none.
    pub fn reader(&self) -> Reader {
        let head = self.0.head.subscribe();
        let ring = self.ring();
        let next = ring.key.unwrap_or(ring.first + ring.frames.len() as u64);
        drop(ring);
        Reader { shared: self.0.clone(), head, next, skipped: 0 }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        lock(&self.0)
    }
}

/// No panic under this lock can leave the ring half changed, so it can be used after one.
fn lock(shared: &Shared) -> MutexGuard<'_, Ring> {
    shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ring {
    fn count(&mut self, frame: &Frame) {
        let statistics = &mut self.statistics;
        statistics.bytes += frame.data.len() as u64;
        statistics.last = Some(frame.arrived);
        statistics.publication = frame.publication;
        match &frame.media {
            Media::Video { format, .. } => {
                statistics.pictures += 1;
                statistics.video = Some(format.clone());
            }
            Media::Audio { format } => {
                statistics.sounds += 1;
                statistics.audio = Some(format.clone());
            }
        }
    }

    /// Drops the oldest frames while the bounds are exceeded, but never the newest one.
    fn trim(&mut self, bounds: Bounds) {
        let newest = self.frames.back().map_or(Duration::ZERO, |frame| frame.dts);
        while self.frames.len() > 1 {
            let old = newest.saturating_sub(self.frames[0].dts) > bounds.duration;
            if !old && self.bytes <= bounds.bytes {
                break;
            }
            if let Some(frame) = self.frames.pop_front() {
                self.bytes -= frame.data.len();
                self.first += 1;
            }
        }
        self.key = self.key.filter(|&key| key >= self.first);
    }
}

/// Reads a [`Broadcast`] at its own pace.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    head: watch::Receiver<Head>,
    next: u64,
    skipped: u64,
}

impl Reader {
    /// The next frame; waits for one. Cancel-safe.
    pub async fn next(&mut self) -> Result<Arc<Frame>, Ended> {
        loop {
            // Before looking: otherwise a frame that comes in between would wake nobody.
            let ended = self.head.borrow_and_update().ended;
            if let Some(frame) = self.try_next() {
                return Ok(frame);
            }
            // The sender is in `shared`, so it cannot be gone.
            if ended || self.head.changed().await.is_err() {
                return Err(Ended);
            }
        }
    }

    /// The next frame, if it is already here.
    pub fn try_next(&mut self) -> Option<Arc<Frame>> {
        let ring = lock(&self.shared);
        let end = ring.first + ring.frames.len() as u64;
        if self.next < ring.first {
            let to = ring.key.unwrap_or(end);
            self.skipped += to - self.next;
            self.next = to;
        }
        let frame = ring.frames.get(usize::try_from(self.next - ring.first).ok()?)?.clone();
        self.next += 1;
        Some(frame)
    }

    /// How many frames it never saw because it was too slow.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn audio(ms: u64) -> Frame {
        let record = Bytes::from_static(&[0x12, 0x10]);
        let format = Arc::new(AudioFormat::parse(record).unwrap());
        let data = Bytes::from_static(&[0; 100]);
        Frame {
            publication: 1,
            dts: Duration::from_millis(ms),
            media: Media::Audio { format },
            data,
            arrived: Instant::now(),
        }
    }

    fn video(ms: u64, key: bool) -> Frame {
        let empty = Bytes::new();
        let format =
            VideoFormat { record: empty.clone(), sps: empty.clone(), pps: empty, width: 2, height: 2, reorder: 0 };
        let dts = Duration::from_millis(ms);
        Frame { media: Media::Video { format: Arc::new(format), pts: dts, key }, dts, ..audio(ms) }
    }

    fn all(reader: &mut Reader) -> Vec<u64> {
        std::iter::from_fn(|| reader.try_next()).map(|frame| frame.dts.as_millis() as u64).collect()
    }

    #[test]
    fn a_reader_begins_at_the_newest_key_frame() {
        let stream = Broadcast::new(Bounds::default());
        assert!(all(&mut stream.reader()).is_empty());
        for (ms, key) in [(0, true), (33, false), (66, true), (100, false)] {
            stream.push(video(ms, key));
        }
        assert_eq!(all(&mut stream.reader()), [66, 100]);
    }

    #[test]
    fn a_slow_reader_skips_to_a_key_frame_and_holds_nobody_back() {
        let stream = Broadcast::new(Bounds { duration: Duration::from_millis(100), bytes: 1 << 20 });
        let (mut slow, mut fast) = (stream.reader(), stream.reader());
        for n in 0..100 {
            stream.push(video(n * 20, n % 4 == 0));
            assert_eq!(all(&mut fast), [n * 20]);
        }
        assert_eq!(all(&mut slow), [96 * 20, 97 * 20, 98 * 20, 99 * 20]);
        assert_eq!((slow.skipped(), fast.skipped()), (96, 0));
    }

    #[test]
    fn holds_no_more_bytes_than_allowed() {
        let stream = Broadcast::new(Bounds { duration: Duration::from_mins(1), bytes: 1000 });
        let mut reader = stream.reader();
        (0..50).for_each(|n| stream.push(video(n, false)));
        assert!(all(&mut reader).is_empty(), "no key frame to go on at");
        stream.push(video(50, true));
        assert_eq!(all(&mut reader), [50]);
        assert_eq!(stream.statistics().pictures, 51);
    }

    #[tokio::test]
    async fn what_is_left_comes_before_the_end() {
        let stream = Broadcast::new(Bounds::default());
        let mut reader = stream.reader();
        let waiting = tokio::spawn(async move {
            let first = reader.next().await.unwrap().dts;
            (first, reader.next().await.err(), reader.next().await.err())
        });
        tokio::task::yield_now().await;
        stream.push(audio(7));
        stream.end();
        assert_eq!(waiting.await.unwrap(), (Duration::from_millis(7), Some(Ended), Some(Ended)));
        assert!(stream.has_ended());
    }
}
