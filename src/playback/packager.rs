//! Makes a [`Presentation`] from a stream's frames. Pure: time comes with the frames.
//!
//! An epoch begins with a key frame, and only once it is known whether there is sound: when the first sound has come,
//! or 300 ms of pictures without any. Frames that come meanwhile are kept and go first, so nothing is lost: a segment
//! takes longer. An epoch ends with its publication, when the format changes, when pictures stop for over a second (a
//! decoder would have to start again anyway), when too many bytes come for the media time, or when sound appears for
//! the first time. A stream that has had sound keeps a sound track, with silence where there is none.
//!
//! The part target is measured on the first pictures: the smallest whole number of them that lasts 200 ms, plus 8 % for
//! the jitter of cameras. It never changes within a stream, and neither does the target duration, which comes from the
//! settings alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::cmaf::{self, BoxError, Sample, VIDEO_TIMESCALE};
use super::cutter::{Pictures, Rules, Sounds};
use super::presentation::{Epoch, Init, Kind, Presentation};
use super::track::{Keep, Track};
use crate::broadcast::{AudioFormat, Frame, Media, VideoFormat};

/// How much media to wait for sound before the epoch begins without.
const SOUND_PATIENCE: Duration = Duration::from_millis(300);
/// The most media that is measured for the duration of pictures and parts.
const MEASURE_AT_MOST: Duration = Duration::from_millis(1200);
/// Pictures that pause for this long begin a new epoch.
const STANDSTILL: Duration = Duration::from_secs(1);
/// The most parts per second, for part numbers that do not repeat after a restart.
const PARTS_PER_NUMBER: u64 = 16;
const ASSUMED_INTERVAL: u64 = VIDEO_TIMESCALE as u64 / 30;
/// The most bytes of a stream outside of closed segments: 50 Mbit/s for a segment of 2.5 s, or 10 Mbit/s for one of 13
/// s.
pub const UNCLOSED: usize = 16 << 20;

/// How a stream is packaged.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Segments end at the first key frame after this duration.
    pub segment_target: Duration,
    /// The longest duration of a segment, in whole seconds.
    pub target_duration: u64,
    /// A part is the smallest whole number of frames with this duration.
    pub part_target: Duration,
    /// How far back a viewer can go.
    pub window: Duration,
    /// The most bytes of segments held, for each track.
    pub bytes: usize,
    /// The most bytes of both tracks outside of closed segments; with more the epoch ends.
    pub unclosed: usize,
    /// Number of the first segment.
    pub first_number: u64,
    /// Number of the first discontinuity.
    pub first_discontinuity: u64,
    /// The same instant on both clocks.
    pub clocks: (Instant, SystemTime),
}

/// Makes a [`Presentation`] from a stream's frames.
#[derive(Debug)]
pub struct Packager {
    settings: Settings,
    waiting: Waiting,
    running: Option<Running>,
    presentation: Option<Presentation>,
    /// Usual time between pictures and usual duration of their parts, in ticks.
    pace: (u64, u64),
}

/// Frames of an epoch that has not begun, from a key frame on.
#[derive(Debug, Default)]
struct Waiting {
    publication: u64,
    sound: Option<Arc<AudioFormat>>,
    frames: Vec<Arc<Frame>>,
}

#[derive(Debug)]
struct Running {
    publication: u64,
    video: Arc<VideoFormat>,
    audio: Option<Arc<AudioFormat>>,
    /// How many ticks are added to the decoding times: as many as the first picture is shown after its decoding.
    delay: u64,
    newest: Duration,
    /// Whether the sound format differs from the one that the epoch began with.
    sound_changed: bool,
    pictures: Pictures,
    sounds: Option<Sounds>,
}

fn ticks(time: Duration) -> u64 {
    (time.as_nanos() * u128::from(VIDEO_TIMESCALE) / 1_000_000_000) as u64
}

impl Packager {
    /// A packager of a stream that has no frames yet.
    pub fn new(settings: Settings) -> Self {
        let pace = (ASSUMED_INTERVAL, 6 * ASSUMED_INTERVAL);
        Self { settings, waiting: Waiting::default(), running: None, presentation: None, pace }
    }

    /// What can be watched; `None` before the first epoch.
    pub fn presentation(&self) -> Option<&Presentation> {
        self.presentation.as_ref()
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: &Arc<Frame>) {
        if self.running.as_ref().is_some_and(|running| running.ends_before(frame, self.settings.target_duration)) {
            self.end_epoch();
        }
        // Publishers choose their timestamps, so a limit of media time does not limit memory.
        if self.unclosed() + frame.data.len() > self.settings.unclosed {
            tracing::warn!(publication = frame.publication, "too many bytes for the media time; packaging restarts");
            self.skip();
        }
        if self.running.is_some() {
            self.append(frame);
        } else {
            self.wait(frame);
        }
    }

    /// Says that frames are missing between the last one and the next one.
    pub fn skip(&mut self) {
        self.end_epoch();
        self.waiting = Waiting::default();
    }

    /// Says that this publication is over, so that all of it can be played now. DASH needs that: its players neither
    /// play a short rest nor skip it, if it comes only with the next publication.
    pub fn finish(&mut self, publication: u64) {
        if self.running.is_none() && self.waiting.publication == publication {
            self.begin_epoch();
        }
        if self.running.as_ref().is_some_and(|running| running.publication == publication) {
            self.end_epoch();
        }
    }

    /// Says that nothing more will come.
    pub fn end(&mut self) {
        if self.running.is_none() {
            self.begin_epoch();
        }
        self.end_epoch();
        if let Some(presentation) = &mut self.presentation {
            presentation.ended = true;
        }
    }

    /// The bytes outside of closed segments.
    fn unclosed(&self) -> usize {
        let waiting: usize = self.waiting.frames.iter().map(|frame| frame.data.len()).sum();
        let pending = self.running.as_ref().map_or(0, Running::bytes);
        let tracks = self.presentation.iter().flat_map(Presentation::tracks);
        waiting + pending + tracks.map(Track::open_bytes).sum::<usize>()
    }

    fn wait(&mut self, frame: &Arc<Frame>) {
        if frame.publication != self.waiting.publication {
            if !self.waiting.frames.is_empty() {
                self.begin_epoch();
                return self.push(frame);
            }
            self.waiting = Waiting { publication: frame.publication, ..Waiting::default() };
        }
        if let Media::Audio { format } = &frame.media {
            self.waiting.sound = Some(format.clone());
        }
        if !self.waiting.frames.is_empty() || frame.is_key() {
            self.waiting.frames.push(frame.clone());
        }
        if self.is_ready() {
            self.begin_epoch();
        }
    }

    fn is_ready(&self) -> bool {
        let frames = &self.waiting.frames;
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return false };
        let media = last.dts.saturating_sub(first.dts);
        let heard = self.waiting.sound.is_some() || media >= SOUND_PATIENCE;
        let pictures = frames.iter().filter(|frame| frame.is_video()).count();
        let measured = self.presentation.is_some()
            || pictures > 2 && media >= self.settings.part_target
            || media >= MEASURE_AT_MOST;
        heard && measured
    }

    fn begin_epoch(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let Some(first) = waiting.frames.first().cloned() else { return };
        match self.try_begin(&waiting, &first) {
            Ok(running) => self.running = Some(running),
            Err(error) => return tracing::warn!(%error, "a publication cannot be packaged"),
        }
        for frame in &waiting.frames {
            self.push(frame);
        }
    }

    fn try_begin(&mut self, waiting: &Waiting, first: &Frame) -> Result<Running, BoxError> {
        let Media::Video { format: video, pts, .. } = &first.media else {
            unreachable!("frames are kept from a key frame on")
        };
        let settings = self.settings;
        if let Some(interval) = usual_interval(&waiting.frames) {
            let per_part = ticks(settings.part_target).saturating_sub(200).div_ceil(interval).max(1);
            self.pace = (interval, per_part * interval);
        }
        let keep = Keep { listed: settings.window, bytes: settings.bytes };
        let (interval, part) = self.pace;
        let presentation = self.presentation.get_or_insert_with(|| {
            // In whole milliseconds, as the playlist has it.
            let part_target = (part * 108 / 100).next_multiple_of(u64::from(VIDEO_TIMESCALE) / 1000);
            let (instant, wall) = settings.clocks;
            Presentation {
                video: new_track(VIDEO_TIMESCALE, part_target, settings.first_number, keep),
                audio: None,
                epochs: VecDeque::new(),
                inits: Default::default(),
                discontinuities: (settings.first_number, settings.first_discontinuity),
                origin: wall + first.arrived.saturating_duration_since(instant) - first.dts,
                target_duration: settings.target_duration,
                window: settings.window,
                ended: false,
            }
        });
        let start = ticks(*pts).max(presentation.video.end()).max(ticks(first.dts));
        let before = presentation.epochs.back();
        let number = before.map_or(settings.first_number, |epoch| epoch.number + 1);
        let audio = waiting.sound.clone().or_else(|| before.and_then(|epoch| epoch.audio.clone()));
        // An epoch with the same content uses the earlier initialization segment.
        let video_init = if let Some(epoch) = before.filter(|epoch| epoch.video == *video) {
            epoch.video_init
        } else {
            let data = cmaf::video_init(video)?;
            presentation.inits[Kind::Video as usize].push_back(Init { number, data });
            number
        };
        if let (Some(format), None) = (&audio, &presentation.audio) {
            let rate = format.sample_rate;
            let samples = (settings.part_target.as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
            let target = samples.next_multiple_of(1024);
            presentation.audio = Some(new_track(rate, target, presentation.video.open_number(), keep));
        }
        let audio_init = match (&audio, &presentation.audio, before.filter(|epoch| epoch.audio == audio)) {
            (.., Some(epoch)) => epoch.audio_init,
            (Some(format), Some(track), None) => {
                let data = cmaf::audio_init(format, track.timescale)?;
                presentation.inits[Kind::Audio as usize].push_back(Init { number, data });
                number
            }
            _ => number,
        };
        let rules = Rules {
            epoch: number,
            segment_target: settings.segment_target,
            target_duration: Duration::from_secs(settings.target_duration),
            origin: presentation.origin,
        };
        let time = presentation.video.time(start);
        let sounds = audio
            .as_ref()
            .zip(presentation.audio.as_ref())
            .map(|(format, track)| Sounds::new(rules, track, track.ticks(time), format, waiting.sound.is_none()));
        let (video_format, audio_format, publication) = (video.clone(), audio.clone(), first.publication);
        let epoch = Epoch {
            number,
            publication,
            start: time,
            video: video_format,
            audio: audio_format,
            video_init,
            audio_init,
        };
        presentation.epochs.push_back(epoch);
        Ok(Running {
            publication: first.publication,
            video: video.clone(),
            audio,
            delay: start - ticks(first.dts),
            newest: first.dts,
            sound_changed: false,
            pictures: Pictures::new(rules, start, interval, part),
            sounds,
        })
    }

    fn append(&mut self, frame: &Frame) {
        let (Some(running), Some(presentation)) = (&mut self.running, &mut self.presentation) else { return };
        match &frame.media {
            Media::Video { pts, key, .. } => {
                running.newest = frame.dts;
                let at = ticks(frame.dts) + running.delay;
                let composition = (ticks(*pts) as i64 - at as i64) as i32;
                let sample = Sample { data: frame.data.clone(), duration: 0, composition, sync: *key };
                let end = running.pictures.push(&mut presentation.video, at, sample);
                let end = end.map(|end| presentation.video.time(end));
                if let (Some(sounds), Some(track)) = (&mut running.sounds, &mut presentation.audio) {
                    if let Some(end) = end {
                        let end = track.ticks(end);
                        sounds.end_segment(track, end);
                    }
                    let picture = track.ticks(frame.dts);
                    sounds.follow(track, picture);
                }
                if end.is_some() {
                    presentation.trim();
                }
            }
            Media::Audio { format } if running.audio.as_ref() == Some(format) => {
                if let (Some(sounds), Some(track)) = (&mut running.sounds, &mut presentation.audio) {
                    let (at, picture) = (track.ticks(frame.dts), track.ticks(running.newest));
                    sounds.push(track, at, &frame.data, picture);
                }
            }
            Media::Audio { .. } => running.sound_changed = true,
        }
    }

    fn end_epoch(&mut self) {
        let (Some(mut running), Some(presentation)) = (self.running.take(), &mut self.presentation) else { return };
        let end = running.pictures.finish(&mut presentation.video);
        if let (Some(sounds), Some(track)) = (&mut running.sounds, &mut presentation.audio) {
            let end = track.ticks(presentation.video.time(end));
            sounds.finish(track, end);
        }
        presentation.trim();
    }
}

impl Running {
    fn ends_before(&self, frame: &Frame, target_duration: u64) -> bool {
        if frame.publication != self.publication {
            return true;
        }
        let Media::Video { format, key, .. } = &frame.media else { return false };
        let usual = Duration::from_secs(1) * self.pictures.interval() / VIDEO_TIMESCALE;
        // A picture lasts no longer than a segment may.
        let standstill = STANDSTILL.max(4 * usual).min(Duration::from_secs(target_duration));
        let gap = frame.dts.saturating_sub(self.newest) > standstill;
        let back = frame.dts < self.newest;
        let changed = *key && (*format != self.video || self.sound_changed);
        gap || back || changed
    }

    /// The bytes of samples that are in no part yet.
    fn bytes(&self) -> usize {
        self.pictures.bytes() + self.sounds.as_ref().map_or(0, Sounds::bytes)
    }
}

fn new_track(timescale: u32, part_target: u64, number: u64, keep: Keep) -> Track {
    Track::new(timescale, part_target, number, number * PARTS_PER_NUMBER, keep)
}

/// The mean of the intervals near the median, so that neither a burst at the beginning nor a lost picture counts. In
/// ticks.
fn usual_interval(frames: &[Arc<Frame>]) -> Option<u64> {
    let times: Vec<u64> = frames.iter().filter(|frame| frame.is_video()).map(|frame| ticks(frame.dts)).collect();
    let mut intervals: Vec<u64> = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    intervals.sort_unstable();
    let median = *intervals.get(intervals.len() / 2)?;
    let usual = intervals.iter().filter(|&&interval| interval.abs_diff(median) <= median / 4);
    let mean = usual.clone().sum::<u64>() / (usual.count() as u64).max(1);
    (mean > 0).then_some(mean)
}
