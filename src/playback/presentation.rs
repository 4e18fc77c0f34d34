//! What can be watched of a stream at present: its tracks, and the epochs of their segments.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::track::Track;
use crate::broadcast::{AudioFormat, VideoFormat};

/// A stretch of media that plays without a seam: one publication in one format. Each is a discontinuity in HLS and a
/// Period in DASH. Each has at least one segment in either track, so both tracks have the same discontinuity numbers.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Rises by one with each epoch.
    pub number: u64,
    /// The publication that it belongs to.
    pub publication: u64,
    /// Media time of its first picture.
    pub start: Duration,
    /// The format of its pictures.
    pub video: Arc<VideoFormat>,
    /// The format of its sound.
    pub audio: Option<Arc<AudioFormat>>,
    /// Number of the epoch whose video initialization segment this one uses too.
    pub video_init: u64,
    /// The same for sound.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Video,
    Audio,
}

impl Kind {
    /// The letter that its files begin with.
    pub fn letter(self) -> char {
        match self {
            Self::Video => 'v',
            Self::Audio => 'a',
        }
    }
}

/// What can be watched of a stream.
#[derive(Debug)]
pub struct Presentation {
    pub video: Track,
    /// The sound track, once there has been sound.
    pub audio: Option<Track>,
    /// The epochs of which something is held, oldest first.
    pub epochs: VecDeque<Epoch>,
    /// Initialization segments of pictures and of sound.
    pub inits: [VecDeque<Init>; 2],
    /// Number and discontinuity sequence number of the first epoch.
    pub discontinuities: (u64, u64),
    /// The wall clock at media time 0.
    pub origin: SystemTime,
    /// The longest duration of a segment, in whole seconds; never changes.
    pub target_duration: u64,
    /// How far back a viewer should be able to go.
    pub window: Duration,
    /// Whether nothing more will come.
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

    /// The existing tracks.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        [Some(&self.video), self.audio.as_ref()].into_iter().flatten()
    }

    /// How far back a viewer can go: less than the window if memory does not suffice. A stream that is younger than its
    /// window has the full window here, because players derive a limit of their latency from it.
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

    /// The initialization segment first used in epoch `number`.
    pub fn init(&self, kind: Kind, number: u64) -> Option<&Init> {
        self.inits[kind as usize].iter().find(|init| init.number == number)
    }

    /// Whether a new player finds a complete segment in every track.
    pub fn is_playable(&self) -> bool {
        let has_segment = |track: &Track| track.listed().len() > 0;
        has_segment(&self.video) && self.audio.as_ref().is_none_or(has_segment)
    }

    /// The newest publication with a complete, playable segment in every track; 0 without one.
    pub fn publication(&self) -> u64 {
        let newest = |track: &Track| track.followed().next_back().map_or(0, |segment| segment.epoch);
        let epoch = self.audio.as_ref().map_or(u64::MAX, newest).min(newest(&self.video));
        self.epoch(epoch).filter(|_| self.is_playable()).map_or(0, |epoch| epoch.publication)
    }

    /// The end of the pictures, as media time.
    pub fn live_edge(&self) -> Duration {
        self.video.time(self.video.end())
    }

    /// Drops epochs of which nothing is held.
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
