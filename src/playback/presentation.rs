//! What can be watched of one stream now: its tracks and the epochs their segments belong to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::track::Track;
use crate::broadcast::{AudioFormat, VideoFormat};

/// A stretch of media that plays without a seam: one publication in one format. A new one is a discontinuity in HLS and a
/// Period in DASH. Each has at least one segment in either track, so both tracks count discontinuities alike.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Rises by one with each.
    pub number: u64,
    /// The publication it is of.
    pub publication: u64,
    /// Media time of its first picture.
    pub start: Duration,
    /// How its pictures are coded.
    pub video: Arc<VideoFormat>,
    /// How its sound is coded.
    pub audio: Option<Arc<AudioFormat>>,
    /// Number of the epoch whose video initialization segment this one uses too.
    pub video_init: u64,
    /// The same of the sound's.
    pub audio_init: u64,
}

/// An initialization segment.
#[derive(Clone, Debug)]
pub struct Init {
    /// Number of the first epoch that uses it.
    pub number: u64,
    /// `ftyp` and `moov`.
    pub data: Bytes,
}

/// Which of the two tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

impl Kind {
    /// The letter its files begin with.
    pub fn letter(self) -> char {
        match self {
            Self::Video => 'v',
            Self::Audio => 'a',
        }
    }
}

/// What can be watched of one stream.
#[derive(Debug)]
pub struct Presentation {
    /// The pictures.
    pub video: Track,
    /// The sound, once there was any.
    pub audio: Option<Track>,
    /// Those of which something is held, oldest first.
    pub epochs: VecDeque<Epoch>,
    /// Initialization segments of pictures and of sound.
    pub inits: [VecDeque<Init>; 2],
    /// Number and discontinuity sequence number of the first epoch.
    pub discontinuities: (u64, u64),
    /// The wall clock at media time 0.
    pub origin: SystemTime,
    /// Longest duration of a segment, whole seconds; never changes.
    pub target_duration: u64,
    /// How far back one is to be able to watch.
    pub window: Duration,
    /// Nothing more will come.
    pub ended: bool,
}

impl Presentation {
    /// The track of a kind, if there is one.
    pub fn track(&self, kind: Kind) -> Option<&Track> {
        match kind {
            Kind::Video => Some(&self.video),
            Kind::Audio => self.audio.as_ref(),
        }
    }

    /// Those there are.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        [Some(&self.video), self.audio.as_ref()].into_iter().flatten()
    }

    /// How far back one can watch, less than the window where memory does not suffice. A stream that is younger than its
    /// window has all of that: players take it for a limit of their latency.
    pub fn depth(&self) -> Duration {
        self.tracks().filter_map(Track::depth).fold(self.window, Duration::min)
    }

    /// The epoch with this number, if anything of it is held.
    pub fn epoch(&self, number: u64) -> Option<&Epoch> {
        let first = self.epochs.front()?.number;
        self.epochs.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    /// The discontinuity sequence number of an epoch.
    pub fn discontinuity(&self, epoch: u64) -> u64 {
        let (first, sequence) = self.discontinuities;
        sequence + epoch.saturating_sub(first)
    }

    /// The initialization segment that began to be used in epoch `number`.
    pub fn init(&self, kind: Kind, number: u64) -> Option<&Init> {
        self.inits[kind as usize].iter().find(|init| init.number == number)
    }

    /// Whether a player that comes now finds a whole segment of everything.
    pub fn is_playable(&self) -> bool {
        let has_segment = |track: &Track| track.listed().len() > 0;
        has_segment(&self.video) && self.audio.as_ref().is_none_or(has_segment)
    }

    /// The newest publication of which a whole segment of everything can be played; 0 without one.
    pub fn publication(&self) -> u64 {
        let newest = |track: &Track| track.followed().next_back().map_or(0, |segment| segment.epoch);
        let epoch = self.audio.as_ref().map_or(u64::MAX, newest).min(newest(&self.video));
        self.epoch(epoch).filter(|_| self.is_playable()).map_or(0, |epoch| epoch.publication)
    }

    /// Media time up to which there are pictures.
    pub fn live_edge(&self) -> Duration {
        self.video.time(self.video.end())
    }

    /// Forgets epochs of which nothing is left.
    pub fn trim(&mut self) {
        let newest = self.epochs.back().map_or(0, |epoch| epoch.number);
        let oldest = |track: &Track| track.oldest_epoch().unwrap_or(newest);
        let needed = oldest(&self.video).min(self.audio.as_ref().map_or(newest, oldest));
        while self.epochs.front().is_some_and(|epoch| epoch.number < needed) {
            self.epochs.pop_front();
        }
        let Some(first) = self.epochs.front() else { return };
        let uses = [first.video_init, first.audio_init];
        for (inits, used) in self.inits.iter_mut().zip(uses) {
            while inits.front().is_some_and(|init| init.number < used) && inits.len() > 1 {
                inits.pop_front();
            }
        }
    }
}
