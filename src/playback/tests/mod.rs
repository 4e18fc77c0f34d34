mod service;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use mp4_atom::{Atom, Moof};
use proptest::prelude::*;

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

/// One connection of a publisher.
#[derive(Clone, Debug)]
struct Publication {
    /// Before it, ms.
    gap: u64,
    frames: u64,
    fps: u64,
    gop: u64,
    jitter: u64,
    reordered: bool,
    sound: Sound,
    /// Another picture size.
    other: bool,
    /// No pictures come for this long after the first second, ms.
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
    /// But for what is between these, ms.
    Lost(u64, u64),
}

impl Default for Publication {
    /// An encoder in a hurry: key frames at 0, 0.5 and 1 s, then each second.
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
            // I B P B P: each B is shown at once, each P after it.
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

/// All segments that there ever were, in order.
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

/// Decoding time, duration and the frames of each fragment.
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

#[test]
fn a_stream_with_an_early_key_frame_is_playable_after_half_a_second() {
    let mut packager = Packager::new(settings());
    let frames = Publication::default().frames(1, 0);
    let playable = frames.into_iter().find(|frame| {
        packager.push(&Arc::new(frame.clone()));
        packager.presentation().is_some_and(Presentation::is_playable)
    });
    let at = playable.unwrap().dts;
    assert!(at <= Duration::from_millis(530), "{at:?}");
}

#[test]
fn parts_are_whole_frames_and_the_live_edge_is_near() {
    let (packager, recorded) = play(&[Publication { frames: 900, ..Publication::default() }]);
    // 2 segments of half a second, then one a second, each of five parts.
    assert_eq!((recorded.video.segments, recorded.audio.segments), (31, 31));
    let now = packager.presentation().unwrap();
    assert!(now.video.listed().all(|segment| segment.parts.len() == 5));
    assert!(now.video.listed().all(|segment| segment.parts[0].independent && segment.parts[0].samples_are(200)));
    let text = hls::multivariant(now);
    assert!(text.contains("RESOLUTION=1280x720,FRAME-RATE=30.000,AUDIO=\"audio\""), "{text}");
    assert!(text.contains("CODECS=\"avc1.64001f,mp4a.40.2\""), "{text}");
}

trait Lasts {
    fn samples_are(&self, ms: u64) -> bool;
}

impl Lasts for super::track::Part {
    fn samples_are(&self, ms: u64) -> bool {
        self.duration.abs_diff(ms * 90) <= 180
    }
}

#[test]
fn a_stream_without_sound_has_no_audio_group() {
    let (packager, recorded) = play(&[Publication { sound: Sound::None, ..Publication::default() }]);
    let text = hls::multivariant(packager.presentation().unwrap());
    assert!(!text.contains("AUDIO") && !text.contains("mp4a"), "{text}");
    assert!(recorded.video.segments >= 10 && recorded.audio.segments == 0);
}

#[test]
fn sound_that_comes_later_begins_a_period_and_that_ends_is_silence() {
    let late = Publication { sound: Sound::Late(3000), ..Publication::default() };
    let (packager, recorded) = play(std::slice::from_ref(&late));
    assert!(hls::multivariant(packager.presentation().unwrap()).contains("AUDIO=\"audio\""));
    assert!(recorded.audio.segments >= 5, "{}", recorded.audio.segments);
    let early = Publication { sound: Sound::Early(3000), ..Publication::default() };
    let (_, recorded) = play(&[early, late]);
    assert_eq!(recorded.audio.segments, recorded.video.segments);
    for (video, audio) in recorded.segments[0].iter().zip(&recorded.segments[1]) {
        let (video, audio) = (fragments(&video.1)[0].0 as f64 / 90_000.0, fragments(&audio.1)[0].0 as f64 / 44_100.0);
        assert!((video - audio).abs() < 0.15, "{video} and {audio}");
    }
}

#[test]
fn sound_that_is_lost_for_a_moment_is_silence_in_its_place() {
    for (from, to) in [(2000, 2100), (2000, 2400), (2000, 4000), (0, 150)] {
        let (_, recorded) = play(&[Publication { sound: Sound::Lost(from, to), ..Publication::default() }]);
        let segments = || recorded.segments[1].iter().flat_map(|(_, data)| fragments(data));
        assert!(segments().zip(segments().skip(1)).all(|(part, next)| part.0 + part.1 == next.0), "no hole");
        let frames: Vec<usize> = recorded.segments[1].iter().flat_map(|(_, data)| sizes(data)).collect();
        let sent = frames.iter().map(|&size| size == 50);
        let at = |ms: u64| ms * 441 / 10 / 1024;
        let silent: Vec<u64> = (0..).zip(sent).filter(|(n, sent)| !sent && *n < at(9900)).map(|(n, _)| n).collect();
        let (first, last) = (silent[0], silent[silent.len() - 1]);
        assert!(first.abs_diff(at(from)) <= 2 && last.abs_diff(at(to)) <= 2, "{from} to {to}: {first} to {last}");
        assert_eq!(silent.len() as u64, last - first + 1, "{from} to {to}");
    }
}

/// Sizes of all samples.
fn sizes(mut data: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let size = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
        if &data[4..8] == b"moof" {
            let moof = Moof::decode_body(&mut &data[8..size]).unwrap();
            found.extend(moof.traf[0].trun[0].samples.iter().map(|sample| sample.size.unwrap() as usize));
        }
        data = &data[size..];
    }
    found
}

#[test]
fn a_picture_that_stands_still_is_no_hole() {
    for still in [100, 250, 500, 700, 950] {
        for gop in [0, 250] {
            let (_, recorded) = play(&[Publication { gop, still, ..Publication::default() }]);
            let parts: Vec<_> = recorded.segments[0].iter().flat_map(|(_, data)| fragments(data)).collect();
            let whole = parts.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0);
            assert!(whole, "{still} ms at a GOP of {gop}: {parts:?}");
            assert!(parts.iter().any(|part| part.1 >= still * 90), "it lasts as long as it did: {parts:?}");
        }
    }
}

#[test]
fn what_is_left_of_a_lost_publication_is_there_before_the_next() {
    let mut packager = Packager::new(settings());
    let mut rules = [Rules::default(), Rules::default()];
    let mut check = |now: &Presentation| {
        for (rules, kind) in rules.iter_mut().zip([Kind::Video, Kind::Audio]) {
            rules.check(&hls::media(now, kind).unwrap());
        }
    };
    let lost = Publication { frames: 73, ..Publication::default() };
    lost.frames(1, 0).into_iter().for_each(|frame| packager.push(&Arc::new(frame)));
    check(packager.presentation().unwrap());
    packager.finish(1);
    packager.finish(1);
    let now = packager.presentation().unwrap();
    check(now);
    for track in [&now.video, now.audio.as_ref().unwrap()] {
        let whole: u64 = track.listed().map(|segment| segment.duration).sum();
        assert!(track.time(whole) > Duration::from_millis(2400), "DASH plays it to its end");
        let closed = track.followed().map(|segment| segment.duration).sum();
        assert!(track.time(closed) < Duration::from_millis(2100), "HLS has the rest in parts");
    }
    check_manifest(now);
    Publication::default().frames(2, 9000).into_iter().take(60).for_each(|frame| packager.push(&Arc::new(frame)));
    let now = packager.presentation().unwrap();
    check(now);
    assert_eq!(now.epochs.len(), 2);
}

#[test]
fn rare_key_frames_break_no_promise() {
    let (_, recorded) = play(&[Publication { frames: 900, gop: 250, ..Publication::default() }]);
    assert!(recorded.video.segments >= 12);
}

#[test]
fn numbers_never_come_again_and_what_left_the_playlist_stays_for_a_while() {
    let (packager, recorded) = play(&[Publication { frames: 3000, ..Publication::default() }]);
    let track = &packager.presentation().unwrap().video;
    let first = track.listed().next().unwrap().number;
    assert!(track.segment(first - 10).is_some(), "listed a moment ago");
    assert!(track.segment(FIRST).is_none(), "not for ever");
    assert_eq!(recorded.segments[0].first().unwrap().0, FIRST);
    let open = track.segment(first).unwrap();
    assert_eq!(track.part(open.first_part).unwrap().data, open.parts[0].data);
}

#[test]
fn memory_is_bounded_by_bytes() {
    let mut packager = Packager::new(Settings { bytes: 200_000, ..settings() });
    for frame in (Publication { frames: 3000, ..Publication::default() }).frames(1, 0) {
        packager.push(&Arc::new(frame));
    }
    let track = &packager.presentation().unwrap().video;
    assert!(track.bytes() < 250_000, "{}", track.bytes());
    assert!(track.listed().len() >= 3);
}

#[test]
fn what_memory_does_not_suffice_for_is_not_announced_and_what_left_the_playlist_stays_all_the_same() {
    let mut packager = Packager::new(Settings { bytes: 320_000, ..settings() });
    for frame in (Publication { frames: 3000, ..Publication::default() }).frames(1, 0) {
        packager.push(&Arc::new(frame));
    }
    let now = packager.presentation().unwrap();
    let track = &now.video;
    let (first, listed) = (track.listed().next().unwrap(), track.listed().len() as u64);
    assert!(track.segment(first.number + 1 - listed).is_some(), "{listed} are listed, fewer stay after that");
    let text = dash::manifest(now, "", SystemTime::now());
    let depth = text.split_once(" timeShiftBufferDepth=\"PT").unwrap().1.split_once('S').unwrap().0;
    let (depth, held): (f64, _) = (depth.parse().unwrap(), track.time(track.end() - first.start).as_secs_f64());
    assert!(depth > 3.0 && depth <= held, "{depth} of {held}");
}

#[test]
fn the_window_is_announced_from_the_beginning() {
    for frames in [60, 900] {
        let mut packager = Packager::new(settings());
        for frame in (Publication { frames, ..Publication::default() }).frames(1, 0) {
            packager.push(&Arc::new(frame));
        }
        let text = dash::manifest(packager.presentation().unwrap(), "", SystemTime::now());
        assert!(text.contains(" timeShiftBufferDepth=\"PT12.000000S\""), "{text}");
    }
}

#[test]
fn memory_before_a_segment_is_closed_is_bounded_by_bytes_whatever_timestamps_say() {
    for begun in [0, 60] {
        let mut packager = Packager::new(Settings { bytes: 200_000, unclosed: 100_000, ..settings() });
        let (video, audio) = (video_format(HIGH), audio_format());
        let before = (Publication { frames: begun, ..Publication::default() }).frames(1, 0);
        let flood = (2000..3500).flat_map(|ms: u64| {
            let picture = Media::Video { format: video.clone(), pts: Duration::from_millis(ms), key: true };
            let sound = ms.is_multiple_of(10).then(|| Media::Audio { format: audio.clone() });
            sound.into_iter().chain([picture]).map(move |media| frame(1, ms, media, vec![0; 5000]))
        });
        let mut sent: Vec<Arc<Frame>> = Vec::new();
        for frame in before.into_iter().chain(flood) {
            let frame = Arc::new(frame);
            packager.push(&frame);
            sent.push(frame);
            let kept = sent.iter().filter(|frame| Arc::strong_count(frame) > 1 || !frame.data.is_unique());
            let kept: usize = kept.map(|frame| frame.data.len()).sum();
            let closed: usize = packager.presentation().map_or(0, |now| now.tracks().map(Track::bytes).sum());
            assert!(kept + closed < 1_000_000, "{kept} and {closed} bytes of {} frames", sent.len());
        }
        for frame in Publication::default().frames(2, 60_000) {
            packager.push(&Arc::new(frame));
        }
        assert_eq!(packager.presentation().unwrap().publication(), 2, "who publishes then is seen");
    }
}

#[test]
fn ten_megabits_a_second_with_rare_key_frames_are_not_too_much() {
    let mut packager = Packager::new(settings());
    for frame in (Publication { gop: 250, ..Publication::default() }).frames(1, 0) {
        let data = if frame.is_video() { Bytes::from(vec![0; 10_000_000 / 8 / 30]) } else { frame.data.clone() };
        packager.push(&Arc::new(Frame { data, ..frame }));
    }
    assert_eq!(packager.presentation().unwrap().epochs.len(), 1);
}

fn publication() -> impl Strategy<Value = Publication> {
    let sound = prop_oneof![
        4 => Just(Sound::All),
        1 => Just(Sound::None),
        1 => (0..5000u64).prop_map(Sound::Late),
        1 => (0..5000u64).prop_map(Sound::Early),
        1 => (0..5000u64, 0..5000u64).prop_map(|(from, to)| Sound::Lost(from, from + to)),
    ];
    let fps = prop::sample::select(vec![10u64, 15, 24, 25, 30, 50, 60]);
    let gop = prop_oneof![Just(0u64), 8..300u64];
    // With the frame that ends it and the jitter still under a second, after which an epoch ends and waits for a key frame.
    let still = prop_oneof![2 => Just(0u64), 1 => 0..890u64];
    (0..4000u64, 1..400u64, fps, gop, 0..8u64, any::<bool>(), sound, any::<bool>(), still).prop_map(
        |(gap, frames, fps, gop, jitter, reordered, sound, other, still)| Publication {
            gap,
            frames,
            fps,
            gop,
            jitter,
            reordered,
            sound,
            other,
            still,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn playlists_keep_the_rules_whatever_the_publishers_do(
        mut publications in prop::collection::vec(publication(), 1..5),
    ) {
        // The part target is of the first publication's pictures; another rate is a test of its own.
        let fps = publications[0].fps;
        for publication in &mut publications {
            publication.fps = fps;
        }
        let (_, recorded) = play(&publications);
        let mut samples = 0;
        for (kind, segments) in recorded.segments.iter().enumerate() {
            let mut end = 0;
            for (start, duration, count) in segments.iter().flat_map(|(_, data)| fragments(data)) {
                prop_assert!(start >= end, "{start} overlaps {end}");
                end = start + duration;
                samples += if kind == 0 { count } else { 0 };
            }
        }
        let sent = publications.iter().flat_map(|publication| publication.frames(1, 0)).filter(Frame::is_video).count();
        prop_assert_eq!(samples, sent as u64);
    }

    #[test]
    fn a_publisher_with_another_frame_rate_breaks_no_upper_limit(first in publication(), second in publication()) {
        let mut packager = Packager::new(settings());
        for frame in first.frames(1, 0).into_iter().chain(second.frames(2, 60_000)) {
            packager.push(&Arc::new(frame));
        }
        packager.end();
        let track = &packager.presentation().unwrap().video;
        for segment in track.listed() {
            prop_assert!(segment.parts.iter().all(|part| part.duration <= track.part_target));
            prop_assert!((track.time(segment.duration).as_secs_f64()).round() <= 2.0);
        }
    }
}
