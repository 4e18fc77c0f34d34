//! Fuzz targets (see [`crate::fuzz`]): streams of any shape, and viewers' requests.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::Query;
use axum::http::Uri;
use bytes::Bytes;

use super::http::{self, Directives, File, Range};
use super::packager::{Packager, Settings};
use super::presentation::{Kind, Presentation};
use super::rules::Rules;
use super::track::Track;
use super::{dash, hls};
use crate::broadcast::{AudioFormat, Frame, Media, VideoFormat};
use crate::fuzz_input::Input;

const HIGH: &[u8] =
    b"\x01\x64\0\x1f\xff\xe1\0\x1c\x67\x64\0\x1f\xac\xd9\x40\x50\x05\xbb\x01\x6a\x02\x02\x02\x80\0\0\x03\0\x80\0\0\
    \x1e\x47\x8c\x18\xcb\x01\0\x05\x68\xeb\xec\xb2\x2c";
const BASELINE: &[u8] =
    b"\x01\x42\xc0\x1e\xff\xe1\0\x1c\x67\x42\xc0\x1e\xd9\0\xa0\x2f\xf9\x70\x16\xa0\xc0\xc0\xd4\xa0\0\0\x03\0\x20\
    \0\0\x07\x91\xe2\xc5\xc9\x01\0\x04\x68\xcb\x8c\xb2";
const FIRST: u64 = 1000;
const BYTES: usize = 1 << 18;
const UNCLOSED: usize = 1 << 16;
const TARGET: Duration = Duration::from_secs(2);

struct Formats {
    video: [Arc<VideoFormat>; 2],
    audio: [Arc<AudioFormat>; 2],
}

fn formats() -> &'static Formats {
    static FORMATS: LazyLock<Formats> = LazyLock::new(|| {
        let video = |record| Arc::new(VideoFormat::parse(Bytes::from_static(record)).expect("a record"));
        let audio = |record| Arc::new(AudioFormat::parse(Bytes::from_static(record)).expect("a record"));
        Formats { video: [video(HIGH), video(BASELINE)], audio: [audio(&[0x12, 0x10]), audio(&[0x11, 0x88])] }
    });
    &FORMATS
}

fn new_packager() -> Packager {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    Packager::new(Settings {
        segment_target: Duration::from_secs(1),
        target_duration: TARGET.as_secs(),
        part_target: Duration::from_millis(200),
        window: Duration::from_secs(12),
        bytes: BYTES,
        unclosed: UNCLOSED,
        first_number: FIRST,
        first_discontinuity: 7,
        clocks: (*BEGUN, SystemTime::UNIX_EPOCH + Duration::from_hours(24)),
    })
}

/// Frames as ingest gives them, in any rhythm. Each is two bytes: its kind, and how much later it is than the one
/// before.
pub fn packager(data: &[u8]) {
    const MOST: usize = 800;
    let mut script = Script::new(data);
    let mut packager = new_packager();
    let mut seen = Seen::default();
    let mut parts = None;
    for _ in 0..MOST {
        match script.next() {
            Some(Step::Frame(frame)) => packager.push(&Arc::new(frame)),
            Some(Step::Skip) => packager.skip(),
            None => break,
        }
        let Some(now) = packager.presentation() else { continue };
        let there = Some((now.video.next_part(), now.audio.as_ref().map(Track::next_part)));
        if there != parts {
            parts = there;
            seen.look(now);
        }
    }
    packager.end();
    if let Some(now) = packager.presentation() {
        seen.look(now);
    }
}

enum Step {
    Frame(Frame),
    Skip,
}

/// Turns a fuzzer's bytes into frames.
struct Script<'a> {
    input: Input<'a>,
    publication: u64,
    now: Duration,
    last: [Option<Duration>; 2],
    begun: Instant,
}

impl<'a> Script<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { input: Input::new(data), publication: 1, now: Duration::ZERO, last: [None; 2], begun: Instant::now() }
    }

    fn next(&mut self) -> Option<Step> {
        if self.input.is_empty() {
            return None;
        }
        let what = self.input.byte();
        let later = u64::from(self.input.byte());
        match what >> 6 {
            0 | 1 => {
                self.now += Duration::from_millis(later);
                let dts = self.place(0, self.now);
                let format = formats().video[usize::from(what & 1)].clone();
                let pts = dts + Duration::from_millis(u64::from(what >> 2 & 7) * 40);
                Some(self.frame(dts, Media::Video { format, pts, key: what & 2 != 0 }))
            }
            2 => {
                // Sound may be ahead of the picture or behind it.
                let offset = Duration::from_millis(25) * u32::from(what >> 1 & 31);
                self.now += Duration::from_millis(later);
                let dts = self.place(1, (self.now + offset).saturating_sub(Duration::from_millis(400)));
                let format = formats().audio[usize::from(what & 1)].clone();
                Some(self.frame(dts, Media::Audio { format }))
            }
            _ if what & 1 == 0 => Some(Step::Skip),
            _ => {
                self.publication += 1;
                self.now += Duration::from_millis(later * 100);
                // A later publication begins after everything of the earlier ones.
                let newest = self.last.into_iter().flatten().max();
                self.last = [newest; 2];
                self.now = self.now.max(newest.unwrap_or_default());
                self.next()
            }
        }
    }

    /// Moves `at` behind the last frame of its track.
    fn place(&mut self, track: usize, at: Duration) -> Duration {
        let at = self.last[track].map_or(at, |last| at.max(last + Duration::from_millis(1)));
        self.last[track] = Some(at);
        at
    }

    fn frame(&self, dts: Duration, media: Media) -> Step {
        let size = if matches!(media, Media::Video { .. }) { 300 } else { 20 };
        let arrived = self.begun + self.now;
        Step::Frame(Frame { publication: self.publication, dts, media, data: Bytes::from(vec![7; size]), arrived })
    }
}

/// What players have seen so far.
struct Seen {
    rules: [Rules; 2],
    /// Number and end of the newest segment.
    newest: [Option<(u64, u64)>; 2],
}

impl Default for Seen {
    fn default() -> Self {
        // Pictures may stand still for a long time.
        let mut rules = [Rules::default(), Rules::default()];
        for rules in &mut rules {
            rules.less = TARGET.as_secs_f64() + 1.0;
        }
        Self { rules, newest: [None; 2] }
    }
}

impl Seen {
    fn look(&mut self, now: &Presentation) {
        if !now.is_playable() {
            return;
        }
        for kind in [Kind::Video, Kind::Audio] {
            let Some(track) = now.track(kind) else { continue };
            self.rules[kind as usize].check(&hls::media(now, kind).expect("a playlist"));
            check_track(track, &mut self.newest[kind as usize]);
            for segment in track.listed() {
                let epoch = now.epoch(segment.epoch).expect("of an epoch that is known");
                let init = if kind == Kind::Video { epoch.video_init } else { epoch.audio_init };
                assert!(now.init(kind, init).is_some(), "what is listed can be decoded");
            }
        }
        assert!(hls::multivariant(now).contains("#EXT-X-STREAM-INF"));
        assert!(dash::manifest(now, "../", SystemTime::UNIX_EPOCH).ends_with("</MPD>\n"));
    }
}

fn check_track(track: &Track, newest: &mut Option<(u64, u64)>) {
    for segment in track.listed() {
        assert!(!segment.parts.is_empty());
        assert!(segment.parts.iter().all(|part| part.duration <= track.part_target));
        assert!(segment.parts.iter().map(|part| part.data.len()).sum::<usize>() == segment.data.len());
        assert!(track.time(segment.duration).as_secs_f64().round() <= TARGET.as_secs_f64());
        if newest.is_none_or(|(number, _)| number < segment.number) {
            if let Some((number, end)) = *newest {
                assert!(segment.number == number + 1 && segment.start >= end, "no number twice, no time twice");
            }
            *newest = Some((segment.number, segment.start + segment.duration));
        }
    }
    let largest = track.listed().map(|segment| segment.data.len()).max().unwrap_or_default();
    assert!(track.bytes() <= BYTES + 4 * largest.max(UNCLOSED), "{} bytes are held", track.bytes());
}

/// A request: the name of a file, its query, and a range of bytes, one per line.
pub fn request(data: &[u8]) {
    static WATCHED: LazyLock<[Packager; 3]> = LazyLock::new(|| {
        let stream = |end: bool, sound: u8| {
            let mut packager = new_packager();
            let frames = (0..300u32).flat_map(|n| [u8::from(n % 30 == 0) << 1, 33, sound | 32, 0]).collect::<Vec<_>>();
            let mut script = Script::new(&frames);
            while let Some(step) = script.next() {
                if let Step::Frame(frame) = step {
                    packager.push(&Arc::new(frame));
                }
            }
            if end {
                packager.end();
            }
            packager
        };
        [stream(false, 0x80), stream(true, 0x80), stream(false, 0xc0)]
    });
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (name, query, range) = (line(), line(), line());
    let file = File::parse(name);
    let directives =
        format!("/?{query}").parse::<Uri>().ok().and_then(|uri| Query::<Directives>::try_from_uri(&uri).ok());
    for packager in &*WATCHED {
        let now = packager.presentation().expect("it has begun");
        if let Some(Query(Directives { number: Some(number), part })) = directives {
            for kind in [Kind::Video, Kind::Audio] {
                if http::too_far(now, kind, number, part).is_none() {
                    let there = http::reached(now, kind, number, part);
                    assert!(there || !now.ended, "nothing more comes that could be waited for");
                }
            }
        }
        if let Some(file) = file {
            check_file(now, file);
        }
    }
    for size in [1, 1000] {
        if let Range::Part(from, to) = http::parse_range(range, size) {
            assert!(from < to && to <= size, "{from} to {to} of {size}");
        }
    }
}

fn check_file(now: &Presentation, file: File) {
    match file {
        File::Multivariant | File::Playlist(_) => {}
        File::Segment(kind, number) => {
            let found = now.track(kind).and_then(|track| track.segment(number));
            assert!(found.is_none_or(|segment| segment.number == number));
        }
        File::SegmentAt(kind, epoch, time) => {
            let found = now.track(kind).and_then(|track| track.segment_at(epoch, time));
            assert!(found.is_none_or(|segment| (segment.epoch, segment.start) == (epoch, time)));
        }
        File::Part(kind, number) => {
            let Some(track) = now.track(kind) else { return };
            assert!(track.part(number).is_none() || number < track.next_part());
        }
        File::Init(kind, number) => {
            assert!(now.init(kind, number).is_none_or(|init| init.number == number));
        }
    }
}
