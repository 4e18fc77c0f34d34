//! The DASH manifest (ISO/IEC 23009-1): the segments of the HLS playlists, as a `SegmentTimeline` with times. With
//! numbers, ffmpeg would take them for indices whenever it reloads the manifest, and start again at its first segment.
//!
//! Presentation time is media time: a Period begins where its epoch does, and `availabilityStartTime` is the wall clock
//! at media time 0. The timeline lists only existing segments, so a player's clock need not be right; `UTCTiming` gives
//! the time all the same, for latency.

use std::time::{Duration, SystemTime};

use super::hls::{Utc, frame_rate, init_name, put};
use super::presentation::{Epoch, Kind, Presentation};
use super::track::{Segment, Track};

/// The manifest. `media` is the relative path to the segments; `now` is the current time.
pub fn manifest(presentation: &Presentation, media: &str, now: SystemTime) -> String {
    let mut text = String::with_capacity(8192);
    text += "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\"";
    text += " profiles=\"urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019\"";
    let target = presentation.target_duration;
    let start = Utc(presentation.origin);
    put(&mut text, format_args!(" availabilityStartTime=\"{start}\" minBufferTime=\"PT1S\""));
    if presentation.ended {
        let end = seconds(presentation.live_edge());
        put(&mut text, format_args!(" type=\"static\" mediaPresentationDuration=\"PT{end}S\""));
    } else {
        let (published, depth) = (Utc(now), seconds(presentation.depth()));
        put(&mut text, format_args!(" type=\"dynamic\" publishTime=\"{published}\" minimumUpdatePeriod=\"PT1S\""));
        put(&mut text, format_args!(" timeShiftBufferDepth=\"PT{depth}S\""));
        put(&mut text, format_args!(" suggestedPresentationDelay=\"PT{}S\"", target + 1));
    }
    put(&mut text, format_args!(" maxSegmentDuration=\"PT{target}.5S\">\n<BaseURL>{media}</BaseURL>\n"));
    for epoch in &presentation.epochs {
        put_period(&mut text, presentation, epoch);
    }
    if !presentation.ended {
        let value = Utc(now);
        put(&mut text, format_args!("<UTCTiming schemeIdUri=\"urn:mpeg:dash:utc:direct:2014\" value=\"{value}\"/>\n"));
    }
    text + "</MPD>\n"
}

fn put_period(text: &mut String, presentation: &Presentation, epoch: &Epoch) {
    let segments = |track: &Track| -> Vec<Segment> {
        track.listed().filter(|segment| segment.epoch == epoch.number).cloned().collect()
    };
    let pictures = segments(&presentation.video);
    let sound = epoch.audio.as_ref().zip(presentation.audio.as_ref());
    let sounds = sound.map(|(_, track)| segments(track));
    // A Period states its tracks from the start, so the newest one must wait until each track has a segment.
    if pictures.is_empty() || sounds.as_ref().is_some_and(Vec::is_empty) {
        return;
    }
    let (id, start) = (epoch.number, seconds(epoch.start));
    put(text, format_args!("<Period id=\"{id}\" start=\"PT{start}S\">\n"));
    let format = &epoch.video;
    text.push_str("<AdaptationSet id=\"1\" contentType=\"video\" mimeType=\"video/mp4\" segmentAlignment=\"true\"");
    put(text, format_args!(" startWithSAP=\"{}\">\n", u8::from(pictures.iter().all(begins_with_key))));
    put_template(text, Kind::Video, &presentation.video, epoch.video_init, epoch, &pictures);
    let (codec, (bandwidth, _)) = (format.codec(), presentation.video.bit_rates());
    put(text, format_args!("<Representation id=\"video\" codecs=\"{codec}\" bandwidth=\"{bandwidth}\""));
    let rate = (frame_rate(&presentation.video) * 1000.0).round() as u64;
    let rate = if rate.is_multiple_of(1000) { (rate / 1000).to_string() } else { format!("{rate}/1000") };
    let (width, height) = (format.width, format.height);
    put(text, format_args!(" width=\"{width}\" height=\"{height}\" frameRate=\"{rate}\"/>\n</AdaptationSet>\n"));
    if let Some(((format, track), sounds)) = sound.zip(sounds) {
        text.push_str("<AdaptationSet id=\"2\" contentType=\"audio\" mimeType=\"audio/mp4\" lang=\"und\"");
        text.push_str(" segmentAlignment=\"true\" startWithSAP=\"1\">\n");
        put_template(text, Kind::Audio, track, epoch.audio_init, epoch, &sounds);
        let (codec, (bandwidth, _)) = (format.codec(), track.bit_rates());
        put(text, format_args!("<Representation id=\"audio\" codecs=\"{codec}\" bandwidth=\"{bandwidth}\""));
        let (rate, channels) = (format.sample_rate, if format.channels == 7 { 8 } else { format.channels });
        put(text, format_args!(" audioSamplingRate=\"{rate}\">\n<AudioChannelConfiguration"));
        text.push_str(" schemeIdUri=\"urn:mpeg:dash:23003:3:audio_channel_configuration:2011\"");
        put(text, format_args!(" value=\"{channels}\"/>\n</Representation>\n</AdaptationSet>\n"));
    }
    text.push_str("</Period>\n");
}

fn begins_with_key(segment: &Segment) -> bool {
    segment.parts.first().is_some_and(|part| part.independent)
}

fn put_template(text: &mut String, kind: Kind, track: &Track, init: u64, epoch: &Epoch, segments: &[Segment]) {
    let (timescale, offset) = (track.timescale, track.ticks(epoch.start));
    let (letter, number) = (kind.letter(), epoch.number);
    put(text, format_args!("<SegmentTemplate timescale=\"{timescale}\" presentationTimeOffset=\"{offset}\""));
    put(text, format_args!(" initialization=\"{}\" media=\"{letter}t{number}-$Time$.m4s\">\n", init_name(kind, init)));
    text.push_str("<SegmentTimeline>\n");
    let mut rest = segments.iter().map(|segment| (segment.start, segment.duration)).peekable();
    while let Some((start, duration)) = rest.next() {
        let mut repeated = 0;
        while rest.next_if(|&(_, next)| next == duration).is_some() {
            repeated += 1;
        }
        put(text, format_args!("<S t=\"{start}\" d=\"{duration}\""));
        if repeated > 0 {
            put(text, format_args!(" r=\"{repeated}\""));
        }
        text.push_str("/>\n");
    }
    text.push_str("</SegmentTimeline>\n</SegmentTemplate>\n");
}

fn seconds(time: Duration) -> String {
    format!("{}.{:06}", time.as_secs(), time.subsec_micros())
}
