//! The segments and parts of one track that viewers can request.
//!
//! A part is a fragment; a segment is the concatenation of its parts. When a segment is closed its parts become slices
//! of it, so everything is held once. Segments are listed while they are within the window and within half of the
//! memory. They are served for as long again after that (RFC 8216bis, 6.2.2: a client may just have read the playlist
//! that they have left).
//!
//! Part numbers continue across segments, so the part that a playlist announces always comes, whichever segment a key
//! frame puts it into.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// A partial segment.
#[derive(Clone, Debug)]
pub struct Part {
    /// Duration in the playlist, in ticks; at most the part target.
    pub duration: u64,
    /// Whether it begins with a key frame.
    pub independent: bool,
    /// One fragment.
    pub data: Bytes,
}

/// A media segment, closed or growing.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Media sequence number.
    pub number: u64,
    /// Number of its [`super::presentation::Epoch`].
    pub epoch: u64,
    /// Decoding time of its first sample, in ticks.
    pub start: u64,
    /// Duration of all samples, in ticks.
    pub duration: u64,
    /// The number of samples.
    pub samples: u64,
    /// Number of its first part.
    pub first_part: u64,
    /// In order. Each is a slice of `data` once the segment is closed.
    pub parts: Vec<Part>,
    /// The whole segment; empty while it grows.
    pub data: Bytes,
}

/// How much of a track is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The most media in the playlist.
    pub listed: Duration,
    /// The most bytes held; half of them are for segments that have left the playlist.
    pub bytes: usize,
}

#[derive(Debug)]
pub struct Track {
    /// Ticks per second.
    pub timescale: u32,
    /// The advertised longest duration of a part, in ticks.
    pub part_target: u64,
    closed: VecDeque<Segment>,
    /// Index of the first segment in the playlist.
    listed: usize,
    open: Option<Segment>,
    /// Whether nothing has come since the newest segment was closed with its last part.
    unfollowed: bool,
    bytes: usize,
    first_number: u64,
    next_number: u64,
    next_part: u64,
    keep: Keep,
}

/// The playlist keeps at least this many segments, even if memory is short: with fewer a player could not begin.
const FEWEST: usize = 3;

impl Track {
    /// A track without segments. The first one will have the number `number`, and its first part the number `part`.
    pub fn new(timescale: u32, part_target: u64, number: u64, part: u64, keep: Keep) -> Self {
        Self {
            timescale,
            part_target,
            closed: VecDeque::new(),
            listed: 0,
            open: None,
            unfollowed: false,
            bytes: 0,
            first_number: number,
            next_number: number,
            next_part: part,
            keep,
        }
    }

    /// Adds a part of `samples` samples, which begin at `start` and last `duration` ticks, to the growing segment.
    /// Begins a segment if none is growing.
    pub fn push(&mut self, epoch: u64, start: u64, duration: u64, samples: u64, part: Part) {
        let (number, first_part) = (self.next_number, self.next_part);
        let segment = self.open.get_or_insert_with(|| Segment {
            number,
            epoch,
            start,
            duration: 0,
            samples: 0,
            first_part,
            parts: Vec::new(),
            data: Bytes::new(),
        });
        segment.duration += duration;
        segment.samples += samples;
        self.bytes += part.data.len();
        segment.parts.push(part);
        self.unfollowed = false;
        self.next_part += 1;
        self.next_number = segment.number + 1;
    }

    /// Closes the growing segment, if there is one.
    pub fn close(&mut self) {
        let Some(mut segment) = self.open.take() else { return };
        let mut whole = BytesMut::with_capacity(segment.parts.iter().map(|part| part.data.len()).sum());
        segment.parts.iter().for_each(|part| whole.extend_from_slice(&part.data));
        let whole = whole.freeze();
        let mut at = 0;
        for part in &mut segment.parts {
            let end = at + part.data.len();
            part.data = whole.slice(at..end);
            at = end;
        }
        segment.data = whole;
        // No player can be loading a part of the first one.
        self.unfollowed = !self.closed.is_empty();
        self.closed.push_back(segment);
        self.trim();
    }

    fn trim(&mut self) {
        let window = self.ticks(self.keep.listed);
        let (mut first, mut duration, mut bytes) = (self.closed.len(), 0, 0);
        while first > 0 && duration < window {
            let segment = &self.closed[first - 1];
            duration += segment.duration;
            bytes += segment.data.len();
            if bytes > self.keep.bytes / 2 && self.closed.len() - first >= FEWEST {
                break;
            }
            first -= 1;
        }
        // A segment that has left the playlist does not come back.
        self.listed = self.listed.max(first);
        let mut unlisted: u64 = self.closed.range(..self.listed).map(|segment| segment.duration).sum();
        let longest = 2 * self.longest() + window;
        while self.closed.len() > FEWEST && (self.bytes > self.keep.bytes || unlisted > longest) {
            let Some(oldest) = self.closed.pop_front() else { break };
            self.bytes -= oldest.data.len();
            self.listed = self.listed.saturating_sub(1);
            unlisted = unlisted.saturating_sub(oldest.duration);
        }
    }

    fn longest(&self) -> u64 {
        self.closed.iter().map(|segment| segment.duration).max().unwrap_or(0)
    }

    /// A time in this track's ticks.
    pub fn ticks(&self, time: Duration) -> u64 {
        (time.as_nanos() * u128::from(self.timescale) / 1_000_000_000) as u64
    }

    /// A number of ticks as a time.
    pub fn time(&self, ticks: u64) -> Duration {
        Duration::from_nanos((u128::from(ticks) * 1_000_000_000 / u128::from(self.timescale)) as u64)
    }

    /// The closed segments of the playlist.
    pub fn listed(&self) -> impl DoubleEndedIterator<Item = &Segment> + ExactSizeIterator + Clone {
        self.closed.range(self.listed..)
    }

    /// The closed segments after which something has come, and the first one.
    pub fn followed(&self) -> impl DoubleEndedIterator<Item = &Segment> + ExactSizeIterator + Clone {
        let last = self.closed.len() - usize::from(self.unfollowed);
        self.closed.range(self.listed.min(last)..last)
    }

    /// The growing segment.
    pub fn open(&self) -> Option<&Segment> {
        self.open.as_ref()
    }

    /// The bytes of the growing segment.
    pub fn open_bytes(&self) -> usize {
        self.open.iter().flat_map(|open| &open.parts).map(|part| part.data.len()).sum()
    }

    /// How far back from its end the playlist reaches; `None` until a segment has left it.
    pub fn depth(&self) -> Option<Duration> {
        let first = self.listed().next().filter(|first| first.number > self.first_number)?;
        Some(self.time(self.end() - first.start))
    }

    /// The closed segment with this number.
    pub fn segment(&self, number: u64) -> Option<&Segment> {
        let first = self.closed.front()?.number;
        self.closed.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    /// The closed segment of this epoch that begins at `time`, in ticks.
    pub fn segment_at(&self, epoch: u64, time: u64) -> Option<&Segment> {
        let at = self.closed.partition_point(|segment| segment.start < time);
        self.closed.get(at).filter(|segment| segment.epoch == epoch && segment.start == time)
    }

    /// The part with this number.
    pub fn part(&self, number: u64) -> Option<&Part> {
        let segment = match self.open() {
            Some(open) if number >= open.first_part => open,
            _ => {
                let after = self.closed.partition_point(|segment| segment.first_part <= number);
                self.closed.get(after.checked_sub(1)?)?
            }
        };
        segment.parts.get(usize::try_from(number - segment.first_part).ok()?)
    }

    /// The number of the segment that is growing, or of the next one.
    pub fn open_number(&self) -> u64 {
        self.open.as_ref().map_or(self.next_number, |open| open.number)
    }

    /// The number of the next part.
    pub fn next_part(&self) -> u64 {
        self.next_part
    }

    /// The end of the newest part, in ticks.
    pub fn end(&self) -> u64 {
        self.open.iter().chain(self.closed.back()).next().map_or(0, |newest| newest.start + newest.duration)
    }

    /// The oldest epoch of which a segment is held.
    pub fn oldest_epoch(&self) -> Option<u64> {
        self.closed.front().or(self.open.as_ref()).map(|segment| segment.epoch)
    }

    /// The bytes of all segments held.
    #[cfg(any(test, fuzzing))]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bit/s of the listed segment with the highest rate, and of all listed segments together; 0 if there are none.
    pub fn bit_rates(&self) -> (u64, u64) {
        let rate = |bytes: u64, ticks: u64| bytes * 8 * u64::from(self.timescale) / ticks.max(1);
        let size = |segment: &Segment| segment.data.len() as u64;
        let peak = self.listed().map(|segment| rate(size(segment), segment.duration)).max().unwrap_or(0);
        let average = rate(self.listed().map(size).sum(), self.listed().map(|segment| segment.duration).sum());
        (peak, average)
    }

    /// Samples per second over the listed segments; 0 if there are none.
    pub fn sample_rate(&self) -> f64 {
        let samples: u64 = self.listed().map(|segment| segment.samples).sum();
        let ticks: u64 = self.listed().map(|segment| segment.duration).sum();
        samples as f64 * f64::from(self.timescale) / ticks.max(1) as f64
    }
}
