//! Groups the samples of one epoch of one track into parts and segments.
//!
//! Pictures: a picture is held back until the next one shows how long it lasts. A segment that is long enough ends
//! before the next key frame. It also ends before any picture that would make it longer than the target duration: an
//! encoder with a GOP of 10 s gets segments that do not begin with a key frame, rather than a playlist that breaks its
//! promise. A picture may stand still for longer than a part may last. The media then has its full duration, but the
//! playlist entry of its part says less: a gap would stop players, hls.js for many seconds.
//!
//! Sound: placed by counting samples; RTMP's milliseconds only say when to count anew. Missing sound is filled with
//! silence, surplus sound is dropped, and segments end where those of the picture do.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::cmaf::{self, Sample};
use super::track::{Part, Track};
use crate::broadcast::AudioFormat;

/// How far sound may be from the position by count: more than the rounding and jitter of senders, less than anyone
/// notices.
const TOLERANCE: Duration = Duration::from_millis(40);
/// How far sound may be behind the picture before silence begins. From then on silence follows the picture at a
/// distance of `BEHIND`.
const PATIENCE: Duration = Duration::from_millis(500);
const BEHIND: Duration = Duration::from_millis(100);
/// Sound further ahead of the picture than this is dropped.
const AHEAD: Duration = Duration::from_secs(10);
/// For this long after an epoch's beginning segments may be as short as `SHORTEST`, so that playback can begin soon.
const YOUNG: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(250);
/// EXTINF is rounded to whole seconds before it is compared, so it may exceed the target duration by this much.
const ROUNDS_DOWN: Duration = Duration::from_millis(450);
const FRAME: u64 = 1024;

/// The rules common to both tracks of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Number of the epoch.
    pub epoch: u64,
    /// The shortest duration of a segment.
    pub segment_target: Duration,
    /// The longest duration of a segment, rounded to whole seconds.
    pub target_duration: Duration,
    /// The wall clock at media time 0.
    pub origin: SystemTime,
}

/// The samples of the next part.
#[derive(Debug)]
struct Pending {
    rules: Rules,
    start: u64,
    duration: u64,
    samples: Vec<Sample>,
}

impl Pending {
    fn add(&mut self, track: &mut Track, at: u64, sample: Sample) {
        let duration = u64::from(sample.duration);
        if self.duration + duration > track.part_target && self.is_long_enough(track) {
            self.flush(track);
        }
        if self.samples.is_empty() {
            self.start = at;
        }
        self.duration += duration;
        self.samples.push(sample);
        if self.duration > track.part_target {
            self.flush(track);
        }
    }

    /// A part must have 85 % of the advertised duration, unless it is the last of its segment.
    fn is_long_enough(&self, track: &Track) -> bool {
        self.duration * 100 >= track.part_target * 86
    }

    fn flush(&mut self, track: &mut Track) {
        let samples = std::mem::take(&mut self.samples);
        let duration = std::mem::take(&mut self.duration);
        let Some(first) = samples.first() else { return };
        let independent = first.sync;
        let head = match track.open() {
            Some(_) => Ok(Bytes::new()),
            None => cmaf::segment_head(ntp(self.rules.origin + track.time(self.start)), self.start),
        };
        let sequence = track.next_part() as u32;
        match head.and_then(|head| cmaf::fragment(&head, sequence, self.start, &samples)) {
            Ok(data) => {
                let part = Part { duration: duration.min(track.part_target), independent, data };
                track.push(self.rules.epoch, self.start, duration, samples.len() as u64, part);
            }
            Err(error) => tracing::error!(%error, "a part is lost"),
        }
    }

    fn close(&mut self, track: &mut Track) {
        self.flush(track);
        track.close();
    }

    fn bytes(&self) -> usize {
        self.samples.iter().map(|sample| sample.data.len()).sum()
    }
}

/// NTP time: seconds since 1900 in 32.32 bits.
fn ntp(time: SystemTime) -> u64 {
    const FROM_1900_TO_1970: u64 = 2_208_988_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    ((since.as_secs() + FROM_1900_TO_1970) << 32) | ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000)
}

/// Cuts the picture track.
#[derive(Debug)]
pub struct Pictures {
    pending: Pending,
    held: Option<(u64, Sample)>,
    epoch_start: u64,
    segment_start: u64,
    /// Usual time between two pictures, in ticks.
    interval: u64,
    /// Usual duration of a part, in ticks.
    part: u64,
}

impl Pictures {
    /// For an epoch whose first picture is decoded at `start`. `interval` is the usual time between two pictures,
    /// `part` the usual duration of a part; all in ticks.
    pub fn new(rules: Rules, start: u64, interval: u64, part: u64) -> Self {
        let pending = Pending { rules, start, duration: 0, samples: Vec::new() };
        Self { pending, held: None, epoch_start: start, segment_start: start, interval, part }
    }

    /// Takes a picture decoded at `at`. If a segment ends before it, returns where.
    pub fn push(&mut self, track: &mut Track, at: u64, sample: Sample) -> Option<u64> {
        let key = sample.sync;
        let (before, held) = self.held.replace((at, sample))?;
        let interval = at - before;
        let rules = self.pending.rules;
        let longest = track.ticks(rules.target_duration + ROUNDS_DOWN);
        if at - self.segment_start > longest {
            self.pending.close(track);
            self.segment_start = before;
            self.add(track, before, held, interval);
            return Some(before);
        }
        self.add(track, before, held, interval);
        let length = at - self.segment_start;
        let young = self.segment_start - self.epoch_start < track.ticks(YOUNG);
        let least = track.ticks(if young { SHORTEST } else { rules.segment_target });
        // A tenth less is enough: key frames follow the clock of a camera.
        let enough = key && length >= least - least / 10;
        let full = length + interval.max(self.interval) > longest;
        (enough || full).then(|| {
            self.pending.close(track);
            self.segment_start = at;
            at
        })
    }

    fn add(&mut self, track: &mut Track, at: u64, mut sample: Sample, interval: u64) {
        sample.duration = interval as u32;
        self.pending.add(track, at, sample);
        // The next picture would make the part's duration less usual.
        if self.pending.duration + self.interval / 2 > self.part && self.pending.is_long_enough(track) {
            self.pending.flush(track);
        }
    }

    /// Usual time between two pictures, in ticks.
    pub fn interval(&self) -> u32 {
        self.interval as u32
    }

    /// The bytes that are in no part yet.
    pub fn bytes(&self) -> usize {
        self.pending.bytes() + self.held.as_ref().map_or(0, |(_, held)| held.data.len())
    }

    /// Ends the track. Returns where the last picture ends.
    pub fn finish(&mut self, track: &mut Track) -> u64 {
        if let Some((at, held)) = self.held.take() {
            self.add(track, at, held, self.interval);
        }
        self.pending.close(track);
        track.end()
    }
}

/// Cuts the sound track.
#[derive(Debug)]
pub struct Sounds {
    pending: Pending,
    rate: u64,
    timescale: u64,
    silence: Bytes,
    start: u64,
    frames: u64,
    segment_start: u64,
    /// Ends of picture segments that the sound has not reached yet.
    ends: VecDeque<u64>,
    missing: bool,
}

impl Sounds {
    /// For an epoch that begins at `start` ticks of `track`. `missing`: no sound is expected at first.
    pub fn new(rules: Rules, track: &Track, start: u64, format: &AudioFormat, missing: bool) -> Self {
        let start = start.max(track.end());
        Self {
            pending: Pending { rules, start, duration: 0, samples: Vec::new() },
            rate: format.sample_rate.into(),
            timescale: track.timescale.into(),
            silence: cmaf::silence(format.channels),
            start,
            frames: 0,
            segment_start: start,
            ends: VecDeque::new(),
            missing,
        }
    }

    fn at(&self, frames: u64) -> u64 {
        self.start + frames * FRAME * self.timescale / self.rate
    }

    /// Takes an AAC frame of media time `at`, while the newest picture is at `picture`; both in ticks.
    pub fn push(&mut self, track: &mut Track, at: u64, data: &Bytes, picture: u64) {
        let tolerance = track.ticks(TOLERANCE);
        if at > picture + track.ticks(AHEAD) || at + tolerance < self.at(self.frames) {
            return;
        }
        while self.at(self.frames) + tolerance < at {
            self.put(track, self.silence.clone());
        }
        self.missing = false;
        self.put(track, data.clone());
    }

    /// A picture is decoded at `picture`: fills in silence if sound is missing by then.
    pub fn follow(&mut self, track: &mut Track, picture: u64) {
        let patience = if self.missing { BEHIND } else { PATIENCE };
        if self.at(self.frames) + track.ticks(patience) < picture {
            self.missing = true;
            self.fill(track, picture - track.ticks(BEHIND));
        }
    }

    fn fill(&mut self, track: &mut Track, to: u64) {
        while self.at(self.frames + 1) <= to {
            self.put(track, self.silence.clone());
        }
    }

    /// A segment of the picture ends at `at`.
    pub fn end_segment(&mut self, track: &mut Track, at: u64) {
        self.ends.push_back(at);
        self.cut(track);
    }

    fn cut(&mut self, track: &mut Track) {
        let middle = u64::midpoint(self.at(self.frames), self.at(self.frames + 1));
        while self.ends.front().is_some_and(|&end| end <= middle) {
            self.ends.pop_front();
            self.close(track);
        }
    }

    fn close(&mut self, track: &mut Track) {
        self.pending.close(track);
        self.segment_start = self.at(self.frames);
    }

    fn put(&mut self, track: &mut Track, data: Bytes) {
        let (at, next) = (self.at(self.frames), self.at(self.frames + 1));
        let longest = self.pending.rules.target_duration + ROUNDS_DOWN;
        if next - self.segment_start > track.ticks(longest) {
            self.close(track);
        }
        let duration = next - at;
        self.pending.add(track, at, Sample { data, duration: duration as u32, composition: 0, sync: true });
        if self.pending.duration + duration > track.part_target {
            self.pending.flush(track);
        }
        self.frames += 1;
        self.cut(track);
    }

    /// The bytes that are in no part yet.
    pub fn bytes(&self) -> usize {
        self.pending.bytes()
    }

    /// Ends the sound where the picture ends, at `picture`, but with at least one frame.
    pub fn finish(&mut self, track: &mut Track, picture: u64) {
        if self.frames == 0 {
            self.put(track, self.silence.clone());
        }
        self.fill(track, picture);
        self.close(track);
    }
}
