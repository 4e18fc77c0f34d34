//! Turns one publication's messages into frames.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::access_unit::{self, ParameterSets};
use super::handle::Claim;
use super::tag::{self, Audio, Video};
use super::timeline::{Timeline, Track};
use crate::broadcast::{AudioFormat, Media, VideoFormat};

/// The longest delay from decoding to presentation: 16 pictures, the most that H.264 lets a decoder hold back, at 5/s.
const MAX_COMPOSITION_MS: i32 = 3_000;

/// What is published cannot be carried on, for this reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsupported(pub String);

/// A publication in progress.
#[derive(Debug)]
pub(super) struct Publication {
    pub claim: Claim,
    earliest: Duration,
    timeline: Timeline,
    video: Option<(Arc<VideoFormat>, ParameterSets)>,
    audio: Option<Arc<AudioFormat>>,
    /// Whether no key frame has come yet, so that nothing can be decoded.
    waits_for_key: bool,
    warned_of_sound: bool,
    /// When the last frame came, or when the publication began.
    last: Instant,
}

impl Publication {
    pub fn new(claim: Claim) -> Self {
        Self {
            earliest: claim.earliest(),
            claim,
            timeline: Timeline::default(),
            video: None,
            audio: None,
            waits_for_key: true,
            warned_of_sound: false,
            last: Instant::now(),
        }
    }

    /// When the last frame came, or when the publication began.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// Takes a video message.
    pub fn video(&mut self, timestamp: u32, data: Bytes) -> Result<(), Unsupported> {
        match tag::video(data) {
            Video::Configuration(record) => self.configure_video(record),
            Video::Picture { composition_ms, data } => {
                self.picture(timestamp, composition_ms, data);
                Ok(())
            }
            Video::Nothing => Ok(()),
            Video::Other(codec) => Err(Unsupported(format!("video codec {codec} is not supported, only H.264"))),
        }
    }

    /// Takes an audio message. Sound that cannot be carried on is dropped.
    pub fn audio(&mut self, timestamp: u32, data: Bytes) {
        match tag::audio(data) {
            Audio::Configuration(record) => {
                if self.audio.as_ref().is_some_and(|format| format.record == record) {
                    return;
                }
                self.audio = match AudioFormat::parse(record) {
                    Ok(format) => Some(Arc::new(format)),
                    Err(error) => {
                        self.warn_of_sound(&error.to_string());
                        None
                    }
                };
            }
            Audio::Sound(data) => {
                let Some(format) = self.audio.clone() else { return };
                let arrived = Instant::now();
                let dts = self.place(Track::Audio, timestamp, arrived);
                self.push(dts, Media::Audio { format }, data, arrived);
            }
            Audio::Nothing => {}
            Audio::Other(codec) => self.warn_of_sound(&format!("audio codec {codec} is not supported, only AAC")),
        }
    }

    fn warn_of_sound(&mut self, why: &str) {
        if !std::mem::replace(&mut self.warned_of_sound, true) {
            tracing::warn!(stream_id = self.claim.stream_id(), why, "published without sound");
        }
    }

    fn configure_video(&mut self, record: Bytes) -> Result<(), Unsupported> {
        if record.is_empty() || self.video.as_ref().is_some_and(|(format, _)| format.record == record) {
            return Ok(());
        }
        let format = VideoFormat::parse(record).map_err(|error| Unsupported(error.to_string()))?;
        self.waits_for_key = true;
        self.video = Some((Arc::new(format.clone()), sets_of(&format)));
        Ok(())
    }

    fn picture(&mut self, timestamp: u32, composition_ms: i32, data: Bytes) {
        let Some(unit) = access_unit::tidy(data) else { return };
        let sets = self.video.as_ref().map(|(_, sets)| sets.clone()).unwrap_or_default();
        if let Some(sets) = sets.changed_by(&unit.sets)
            && let Some(format) = access_unit::record(&sets).and_then(|record| VideoFormat::parse(record).ok())
        {
            self.video = Some((Arc::new(format), sets));
        }
        let arrived = Instant::now();
        if self.waits_for_key && !unit.key {
            return;
        }
        self.waits_for_key = false;
        let Some((format, _)) = &self.video else { return };
        let format = format.clone();
        let dts = self.place(Track::Video, timestamp, arrived);
        let composition = Duration::from_millis(composition_ms.clamp(0, MAX_COMPOSITION_MS).unsigned_abs().into());
        self.push(dts, Media::Video { format, pts: dts + composition, key: unit.key }, unit.data, arrived);
    }

    fn place(&mut self, track: Track, timestamp: u32, arrived: Instant) -> Duration {
        self.timeline.place(track, timestamp, self.claim.time(arrived), self.earliest)
    }

    fn push(&mut self, dts: Duration, media: Media, data: Bytes, arrived: Instant) {
        self.last = arrived;
        // If another publisher has taken over, the connection learns it from the claim.
        let _ = self.claim.push(dts, media, data, arrived);
    }
}

fn sets_of(format: &VideoFormat) -> ParameterSets {
    let [sps, pps] = format.parameter_sets();
    ParameterSets { sps, pps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{Bounds, Broadcast, Reader};
    use crate::ingest::Ingest;
    use crate::protocol::Secret;

    /// 1280x720 and 640x360, as x264 writes them.
    const HIGH: [&str; 2] = ["6764001facd9405005bb016a02020280000003008000001e478c18cb", "68ebecb22c"];
    const BASELINE: [&str; 2] = ["6742c01ed900a02ff97016a0c0c0d4a0000003002000000791e2c5c9", "68cb8cb2"];

    fn unit(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap()).collect()
    }

    fn configuration([sps, pps]: [&str; 2]) -> Vec<u8> {
        let sets = ParameterSets { sps: vec![unit(sps).into()], pps: vec![unit(pps).into()] };
        [&[0x17, 0, 0, 0, 0][..], &access_unit::record(&sets).unwrap()].concat()
    }

    fn picture(units: &[&str]) -> Vec<u8> {
        let prefixed = units.iter().flat_map(|hex| [&(hex.len() as u32 / 2).to_be_bytes()[..], &unit(hex)].concat());
        [0x27, 1, 0, 0, 0].into_iter().chain(prefixed).collect()
    }

    fn begun() -> (Publication, Reader) {
        let (ingest, _events) = Ingest::new();
        let broadcast = Broadcast::new(Bounds::default());
        let reader = broadcast.reader();
        ingest.open(&Secret::new("key"), "stream", broadcast);
        (Publication::new(ingest.claim("key").unwrap()), reader)
    }

    fn seen(reader: &mut Reader) -> Vec<(u32, bool, usize)> {
        let frames = std::iter::from_fn(|| reader.try_next());
        let seen = frames.map(|frame| match &frame.media {
            Media::Video { format, key, .. } => (format.width, *key, frame.data.len()),
            Media::Audio { format } => (format.sample_rate, true, frame.data.len()),
        });
        seen.collect()
    }

    #[test]
    fn begins_with_a_key_frame_and_follows_a_change_of_the_picture() {
        let (mut publication, mut reader) = begun();
        let mut clock = 0;
        let mut send = |data: Vec<u8>| {
            clock += 40;
            publication.video(clock, data.into()).unwrap();
            seen(&mut reader)
        };
        assert_eq!(send(picture(&["65aa"])), [], "not without a configuration");
        assert_eq!(send(configuration(HIGH)), []);
        assert_eq!(send(picture(&["41aa"])), [], "not before a key frame");
        assert_eq!(send(picture(&["09f0", HIGH[0], HIGH[1], "65aa"])), [(1280, true, 6)]);
        assert_eq!(send(picture(&["41aa", "41bb"])), [(1280, false, 12)]);
        assert_eq!(send(configuration(HIGH)), []);
        assert_eq!(send(picture(&["41aa"])), [(1280, false, 6)], "a configuration said again changes nothing");
        assert_eq!(send(picture(&[BASELINE[0], BASELINE[1], "65aa"])), [(640, true, 6)], "changed in band");
        assert_eq!(send(picture(&["41aa"])), [(640, false, 6)]);
        assert_eq!(send(configuration(HIGH)), []);
        assert_eq!(send(picture(&["41aa"])), [], "of the picture before the change");
        assert_eq!(send(picture(&["65aa"])), [(1280, true, 6)]);
    }

    #[test]
    fn refuses_other_video_and_leaves_other_sound_out() {
        let (mut publication, mut reader) = begun();
        let mut short = configuration(HIGH);
        short[5 + 4] = 0xfd;
        let Err(Unsupported(why)) = publication.video(0, short.into()) else { panic!("taken") };
        assert_eq!(why, "NAL units with a length of 2 bytes are not supported, only 4");
        assert!(publication.video(0, vec![0x90, b'h', b'v', b'c', b'1'].into()).is_err());
        publication.audio(0, vec![0x2f, 1, 2].into());
        publication.audio(0, vec![0xaf, 1, 2].into());
        assert_eq!(seen(&mut reader), []);
        publication.audio(0, vec![0xaf, 0, 0x12, 0x10].into());
        publication.audio(0, vec![0xaf, 1, 2].into());
        assert_eq!(seen(&mut reader), [(44_100, true, 1)]);
    }
}
