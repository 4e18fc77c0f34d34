//! HLS playlists (draft-pantos-hls-rfc8216bis).
//!
//! One playlist per track, for players with and without low latency. There is no EXT-X-INDEPENDENT-SEGMENTS: with rare
//! key frames a segment may begin without one. Parts are marked individually.
//!
//! A closed segment is still listed by its parts alone until the next part exists. Otherwise one update of the playlist
//! could both close a segment and bring another part of it, while hls.js (1.6, 1.7) is loading an earlier part. hls.js
//! would then take the segment for fully loaded and stand still for many seconds, for lack of a part it never requests.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use super::presentation::{Kind, Presentation};
use super::track::{Segment, Track};

/// Parts are listed within this many target durations of the end (6.2.2).
const PARTS_LISTED: u64 = 3;

/// Name of a segment, relative to the playlist.
pub fn segment_name(kind: Kind, number: u64) -> String {
    format!("{}{number}.m4s", kind.letter())
}

/// Name of a part.
pub fn part_name(kind: Kind, number: u64) -> String {
    format!("{}p{number}.m4s", kind.letter())
}

/// Name of an initialization segment.
pub fn init_name(kind: Kind, number: u64) -> String {
    format!("{}i{number}.mp4", kind.letter())
}

/// Name of a media playlist.
pub fn playlist_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Video => "video.m3u8",
        Kind::Audio => "audio.m3u8",
    }
}

/// The playlist that names the others.
pub fn multivariant(presentation: &Presentation) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:6\n");
    let Some(epoch) = presentation.epochs.back() else { return text };
    let (mut peak, mut average) = presentation.video.bit_rates();
    let mut codecs = epoch.video.codec();
    let mut group = "";
    if let (Some(track), Some(format)) = (&presentation.audio, &epoch.audio) {
        let (audio_peak, audio_average) = track.bit_rates();
        peak += audio_peak;
        average += audio_average;
        codecs = format!("{codecs},{}", format.codec());
        group = ",AUDIO=\"audio\"";
        let channels = if format.channels == 7 { 8 } else { format.channels };
        let uri = playlist_name(Kind::Audio);
        text += "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"Sound\",DEFAULT=YES,AUTOSELECT=YES";
        put(&mut text, format_args!(",CHANNELS=\"{channels}\",URI=\"{uri}\"\n"));
    }
    let (width, height, rate) = (epoch.video.width, epoch.video.height, frame_rate(&presentation.video));
    put(&mut text, format_args!("#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS=\"{codecs}\""));
    put(&mut text, format_args!(",RESOLUTION={width}x{height},FRAME-RATE={rate:.3}{group}\n"));
    text += playlist_name(Kind::Video);
    text + "\n"
}

/// Pictures per second, rounded where nearly whole, since RTMP rounds times to milliseconds.
pub fn frame_rate(track: &Track) -> f64 {
    let rate = track.sample_rate();
    if (rate - rate.round()).abs() < rate / 100.0 { rate.round() } else { rate }
}

/// A track's playlist.
pub fn media(presentation: &Presentation, kind: Kind) -> Option<String> {
    let track = presentation.track(kind)?;
    let mut text = String::with_capacity(8192);
    let target = presentation.target_duration;
    let part = seconds(track, track.part_target);
    put(&mut text, format_args!("#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:{target}\n"));
    put(&mut text, format_args!("#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES"));
    put(&mut text, format_args!(",PART-HOLD-BACK={:.5},HOLD-BACK={}.0\n", 3.0 * part, 3 * target));
    put(&mut text, format_args!("#EXT-X-PART-INF:PART-TARGET={part:.5}\n"));
    let open = track.open().filter(|_| !presentation.ended);
    let first = track.listed().next().or(open);
    let number = first.map_or(track.open_number(), |segment| segment.number);
    put(&mut text, format_args!("#EXT-X-MEDIA-SEQUENCE:{number}\n"));
    let discontinuity = first.map(|segment| segment.epoch).or(presentation.epochs.back().map(|epoch| epoch.number));
    put(
        &mut text,
        format_args!("#EXT-X-DISCONTINUITY-SEQUENCE:{}\n", presentation.discontinuity(discontinuity.unwrap_or(0))),
    );

    let closed_up_to = finished(presentation, track);
    let with_parts = parts_from(track, PARTS_LISTED * target);
    let mut epoch = None;
    for segment in track.listed().chain(open) {
        if epoch != Some(segment.epoch) {
            if epoch.is_some() {
                text += "#EXT-X-DISCONTINUITY\n";
            }
            let described = presentation.epoch(segment.epoch)?;
            let init = if kind == Kind::Video { described.video_init } else { described.audio_init };
            put(&mut text, format_args!("#EXT-X-MAP:URI=\"{}\"\n", init_name(kind, init)));
            epoch = Some(segment.epoch);
        }
        let time = presentation.origin + track.time(segment.start);
        put(&mut text, format_args!("#EXT-X-PROGRAM-DATE-TIME:{}\n", Utc(time)));
        if segment.number >= with_parts && !presentation.ended {
            put_parts(&mut text, kind, track, segment);
        }
        if segment.number < closed_up_to {
            let duration = seconds(track, segment.duration);
            put(&mut text, format_args!("#EXTINF:{duration:.5},\n{}\n", segment_name(kind, segment.number)));
        }
    }
    if presentation.ended {
        text += "#EXT-X-ENDLIST\n";
        return Some(text);
    }
    let hint = part_name(kind, track.next_part());
    put(&mut text, format_args!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{hint}\"\n"));
    let other = if kind == Kind::Video { Kind::Audio } else { Kind::Video };
    if let Some((number, part)) = presentation.track(other).and_then(newest) {
        let uri = playlist_name(other);
        put(&mut text, format_args!("#EXT-X-RENDITION-REPORT:URI=\"{uri}\",LAST-MSN={number},LAST-PART={part}\n"));
    }
    Some(text)
}

/// The number of the first segment that the playlist does not show as closed.
pub fn finished(presentation: &Presentation, track: &Track) -> u64 {
    let segments = if presentation.ended { track.listed().next_back() } else { track.followed().next_back() };
    segments.map_or(0, |segment| segment.number + 1)
}

/// The newest part: its segment's media sequence number, and its index within the segment.
pub fn newest(track: &Track) -> Option<(u64, u64)> {
    let segment = track.open().or_else(|| track.listed().next_back())?;
    Some((segment.number, segment.parts.len() as u64 - 1))
}

/// The number of the first segment whose parts are listed.
fn parts_from(track: &Track, last_seconds: u64) -> u64 {
    let mut left = last_seconds * u64::from(track.timescale);
    left = left.saturating_sub(track.open().map_or(0, |open| open.duration));
    let mut from = track.open_number();
    for segment in track.listed().rev() {
        if left == 0 {
            break;
        }
        from = segment.number;
        left = left.saturating_sub(segment.duration);
    }
    from
}

fn put_parts(text: &mut String, kind: Kind, track: &Track, segment: &Segment) {
    for (part, number) in segment.parts.iter().zip(segment.first_part..) {
        let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
        let (duration, uri) = (seconds(track, part.duration), part_name(kind, number));
        put(text, format_args!("#EXT-X-PART:DURATION={duration:.5},URI=\"{uri}\"{independent}\n"));
    }
}

fn seconds(track: &Track, ticks: u64) -> f64 {
    ticks as f64 / f64::from(track.timescale)
}

/// Appends formatted text, which cannot fail for a `String`.
pub fn put(text: &mut String, what: fmt::Arguments) {
    let _ = text.write_fmt(what);
}

/// An instant in ISO 8601, in milliseconds.
pub struct Utc(pub SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // humantime truncates, so the time is rounded first.
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let rounded = SystemTime::UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64);
        write!(f, "{}", humantime::format_rfc3339_millis(rounded))
    }
}
