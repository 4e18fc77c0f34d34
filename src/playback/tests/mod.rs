mod playlists;
mod service;
mod sound;
mod window;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use mp4_atom::{Atom, Moof};

use super::packager::{Packager, Settings, UNCLOSED};
use super::presentation::{Kind, Presentation};
use super::rules::Rules;
use super::track::Track;
use super::{dash, hls};
use crate::broadcast::{AudioFormat, Frame, Media, VideoFormat};

const HIGH: &str = "0164001fffe1001c6764001facd9405005bb016a02020280000003008000001e478c18cb01000568ebecb22c";
const BASELINE: &str = "0142c01effe1001c6742c01ed900a02ff97016a0c0c0d4a0000003002000000791e2c5c901000468cb8cb2";
const FIRST: u64 = 1000;

fn bytes(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap()).collect()
}

fn video_format(hex: &str) -> Arc<VideoFormat> {
    Arc::new(VideoFormat::parse(bytes(hex)).unwrap())
}

fn audio_format() -> Arc<AudioFormat> {
    Arc::new(AudioFormat::parse(bytes("1210")).unwrap())
}

fn settings() -> Settings {
    Settings {
        segment_target: Duration::from_secs(1),
        target_duration: 2,
        part_target: Duration::from_millis(200),
        window: Duration::from_secs(12),
        bytes: 1 << 24,
        unclosed: UNCLOSED,
        first_number: FIRST,
        first_discontinuity: 7,
        clocks: (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_hours(24)),
    }
}

/// One publication.
#[derive(Clone, Debug)]
struct Publication {
    /// Pause before it, in ms.
    gap: u64,
    frames: u64,
    fps: u64,
    gop: u64,
    jitter: u64,
    reordered: bool,
    sound: Sound,
    /// Whether it has another picture size.
    other: bool,
    /// No pictures come for this many ms after the first second.
    still: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sound {
    None,
    All,
    /// From this many ms on.
    Late(u64),
    /// Up to this many ms.
    Early(u64),
    /// Except between these, in ms.
    Lost(u64, u64),
}

impl Default for Publication {
    /// Key frames at 0, 0.5 and 1 s, then every second.
    fn default() -> Self {
        Self {
            gap: 0,
            frames: 300,
            fps: 30,
            gop: 0,
            jitter: 0,
            reordered: false,
            sound: Sound::All,
            other: false,
            still: 0,
        }
    }
}

impl Publication {
    fn key(&self, n: u64) -> bool {
        if self.gop == 0 { n.is_multiple_of(self.fps) || n == self.fps / 2 } else { n.is_multiple_of(self.gop) }
    }

    /// Its frames in order of decoding time, beginning at `start` ms.
    fn frames(&self, number: u64, start: u64) -> Vec<Frame> {
        let video = video_format(if self.other { BASELINE } else { HIGH });
        let mut frames = Vec::new();
        for n in 0..self.frames {
            let jitter = if self.jitter == 0 { 0 } else { n * 7919 % self.jitter };
            let at = n * 1000 / self.fps;
            if (1001..1000 + self.still).contains(&at) && !self.key(n) {
                continue;
            }
            let dts = start + at + jitter;
            let step = 1000 / self.fps;
            // I B P B P: each B is shown when decoded, each P after the B that follows it.
            let shown =
                if self.reordered { dts + if self.key(n) || n % 2 == 0 { step } else { 2 * step } } else { dts };
            let media = Media::Video { format: video.clone(), pts: Duration::from_millis(shown), key: self.key(n) };
            frames.push(frame(number, dts, media, vec![n as u8; 500 + (n % 7 * 100) as usize]));
        }
        let length = self.frames * 1000 / self.fps;
        let (from, to) = match self.sound {
            Sound::None => (0, 0),
            Sound::All | Sound::Lost(..) => (0, length),
            Sound::Late(from) => (from, length),
            Sound::Early(to) => (0, to.min(length)),
        };
        let format = audio_format();
        for n in 0.. {
            let ms = n * 1024 * 1000 / 44_100;
            if ms >= to {
                break;
            }
            let lost = matches!(self.sound, Sound::Lost(from, to) if (from..to).contains(&ms));
            if ms >= from && !lost {
                frames.push(frame(number, start + ms, Media::Audio { format: format.clone() }, vec![7; 50]));
            }
        }
        frames.sort_by_key(|frame| frame.dts);
        frames
    }
}

fn frame(publication: u64, dts: u64, media: Media, data: Vec<u8>) -> Frame {
    Frame { publication, dts: Duration::from_millis(dts), media, data: data.into(), arrived: Instant::now() }
}

/// All segments so far, in order.
#[derive(Default)]
struct Recorded {
    video: Rules,
    audio: Rules,
    segments: [Vec<(u64, Bytes)>; 2],
}

impl Recorded {
    fn look(&mut self, now: &Presentation) {
        if !now.is_playable() {
            return;
        }
        self.video.check(&hls::media(now, Kind::Video).unwrap());
        if let Some(text) = hls::media(now, Kind::Audio) {
            self.audio.check(&text);
        }
        for kind in [Kind::Video, Kind::Audio] {
            let Some(track) = now.track(kind) else { continue };
            let seen = &mut self.segments[kind as usize];
            for segment in track
                .listed()
                .filter(|segment| seen.last().is_none_or(|last| last.0 < segment.number))
                .cloned()
                .collect::<Vec<_>>()
            {
                assert!(seen.last().is_none_or(|last| last.0 + 1 == segment.number), "no segment left out");
                seen.push((segment.number, segment.data.clone()));
            }
        }
        check_manifest(now);
    }
}

fn play(publications: &[Publication]) -> (Packager, Recorded) {
    let mut packager = Packager::new(settings());
    let mut recorded = Recorded::default();
    if publications.iter().any(|publication| publication.still > 0) {
        recorded.video.less = 1.0;
    }
    let mut start = 0;
    for (n, publication) in publications.iter().enumerate() {
        start += publication.gap;
        let frames = publication.frames(n as u64 + 1, start);
        start += publication.frames * 1000 / publication.fps + 40;
        for frame in frames {
            let parts = |packager: &Packager| {
                packager
                    .presentation()
                    .map(|now| (now.video.next_part(), now.audio.as_ref().map(super::track::Track::next_part)))
            };
            let before = parts(&packager);
            packager.push(&Arc::new(frame));
            if before != parts(&packager) {
                recorded.look(packager.presentation().unwrap());
            }
        }
    }
    packager.end();
    if let Some(now) = packager.presentation() {
        recorded.look(now);
    }
    (packager, recorded)
}

/// Decoding time, duration and number of frames of each fragment.
fn fragments(mut data: &[u8]) -> Vec<(u64, u64, u64)> {
    let mut found: Vec<(u64, u64, u64)> = Vec::new();
    let mut expected = 0;
    while !data.is_empty() {
        let size = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
        match &data[4..8] {
            b"moof" => {
                let moof = Moof::decode_body(&mut &data[8..size]).unwrap();
                let traf = &moof.traf[0];
                let samples: Vec<_> = traf.trun[0].samples.iter().collect();
                assert_eq!(traf.trun[0].data_offset, Some(size as i32 + 8));
                expected = samples.iter().map(|sample| sample.size.unwrap() as usize).sum();
                let duration = samples.iter().map(|sample| u64::from(sample.duration.unwrap())).sum();
                found.push((traf.tfdt.clone().unwrap().base_media_decode_time, duration, samples.len() as u64));
            }
            b"mdat" => assert_eq!(size, expected + 8),
            other => assert!([*b"styp", *b"prft"].contains(other.try_into().unwrap())),
        }
        data = &data[size..];
    }
    found
}

fn check_manifest(now: &Presentation) {
    let text = dash::manifest(now, "../../hls/x/", SystemTime::now());
    let count = |what: &str| text.matches(what).count();
    assert_eq!(count("<Period "), count("</Period>"));
    let epochs = |kind| -> BTreeSet<u64> {
        now.track(kind).into_iter().flat_map(super::track::Track::listed).map(|segment| segment.epoch).collect()
    };
    let (video, audio) = (epochs(Kind::Video), epochs(Kind::Audio));
    let whole = |epoch: &&u64| audio.contains(epoch) || now.epoch(**epoch).unwrap().audio.is_none();
    assert_eq!(count("<Period "), video.iter().filter(whole).count(), "{text}");
    assert_eq!(count("<SegmentTimeline>\n</SegmentTimeline>"), 0, "{text}");
    assert_eq!(text.contains("type=\"static\""), now.ended);
    for timeline in text.split("<SegmentTimeline>\n").skip(1) {
        let mut end = None;
        for entry in timeline.lines().take_while(|line| line.starts_with("<S ")) {
            let values: Vec<u64> = entry.split('"').skip(1).step_by(2).map(|value| value.parse().unwrap()).collect();
            assert!(end.is_none_or(|end| end == values[0]), "a hole: {text}");
            end = Some(values[0] + values[1] * (1 + values.get(2).unwrap_or(&0)));
        }
    }
}
