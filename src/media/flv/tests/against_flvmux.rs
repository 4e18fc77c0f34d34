//! The same pictures and sound through `flvmux` and through this module's tags, as `flvdemux` and ffprobe read them
//! back: what must be equal, and what differs.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSrc};
use serde_json::Value;

use super::super::*;
use crate::media::gate::{Gate, Verdict};
use crate::media::pipeline::EncodedUnit;

/// The capture clock's time of the first picture. Decoding begins earlier, but must not begin before 0.
const BEGIN_NS: u64 = 5_000_000_000;
const PICTURES: usize = 90;
const FRAMES_OF_SOUND: usize = 130;
const LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Track {
    Video,
    Audio,
}

/// One unit from an encoder.
#[derive(Clone)]
struct Encoded {
    track: Track,
    /// Tag events of its parser since the previous unit: mostly measured bitrates.
    tags: Vec<gst::Event>,
    pts: Duration,
    dts: Duration,
    key: bool,
    data: Vec<u8>,
    config: Arc<[u8]>,
    caps: gst::Caps,
}

/// What a reader finds.
#[derive(Clone, Debug, PartialEq)]
struct Packet {
    pts_ms: i64,
    dts_ms: i64,
    key: bool,
    data: Vec<u8>,
}

#[derive(Debug, Default)]
struct Stream {
    config: Vec<u8>,
    packets: Vec<Packet>,
}

fn launch(description: &str) -> gst::Pipeline {
    gst::parse::launch(description).unwrap().downcast().unwrap()
}

fn sink(pipeline: &gst::Pipeline, name: &str) -> AppSink {
    pipeline.by_name(name).and_downcast().unwrap()
}

fn source(pipeline: &gst::Pipeline, name: &str) -> AppSrc {
    pipeline.by_name(name).and_downcast().unwrap()
}

fn samples(sink: &AppSink) -> Vec<gst::Sample> {
    let samples = std::iter::from_fn(|| sink.try_pull_sample(LIMIT)).collect();
    assert!(sink.is_eos(), "{} did not come to its end", sink.name());
    samples
}

fn bytes(sample: &gst::Sample) -> Vec<u8> {
    sample.buffer().unwrap().map_readable().unwrap().to_vec()
}

/// Encodes pictures and sound, in sending order. With B-pictures, so that the two times of a picture differ.
fn encode() -> Vec<Encoded> {
    let pipeline = launch(&format!(
        "videotestsrc num-buffers={PICTURES} timestamp-offset={BEGIN_NS} ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 \
         ! x264enc bframes=2 b-adapt=false key-int-max=30 ! h264parse ! video/x-h264,stream-format=avc,alignment=au \
         ! appsink name=pictures sync=false \
         audiotestsrc num-buffers={FRAMES_OF_SOUND} timestamp-offset={BEGIN_NS} samplesperbuffer=1024 \
         ! audio/x-raw,rate=44100,channels=1 ! voaacenc ! aacparse ! audio/mpeg,stream-format=raw \
         ! appsink name=sound sync=false"
    ));
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut encoded = Vec::new();
    for (track, name) in [(Track::Video, "pictures"), (Track::Audio, "sound")] {
        let sink = sink(&pipeline, name);
        let mut tags = Vec::new();
        while let Some(object) = sink.try_pull_object(LIMIT) {
            match object.downcast::<gst::Event>() {
                Ok(event) if event.type_() == gst::EventType::Tag => tags.push(event),
                Ok(_) => {}
                Err(object) => {
                    let sample = object.downcast::<gst::Sample>().unwrap();
                    let EncodedUnit { pts, dts, key, data, config } = EncodedUnit::read(&sample, &mut None).unwrap();
                    let (data, caps, tags) = (data.to_vec(), sample.caps_owned().unwrap(), std::mem::take(&mut tags));
                    encoded.push(Encoded { track, tags, pts, dts, key, data, config, caps });
                }
            }
        }
        assert!(sink.is_eos(), "{name} did not come to its end");
    }
    pipeline.set_state(gst::State::Null).unwrap();
    encoded.sort_by_key(|unit| unit.dts);
    encoded
}

/// The media as a publisher here sends it, after a file header.
fn by_lenscast(encoded: &[Encoded]) -> Vec<u8> {
    let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    file.extend(metadata(&Metadata {
        width: 320,
        height: 240,
        frame_rate: 30.0,
        video_bitrate: 2_048_000,
        audio: Some((128_000, 44_100)),
    }));
    let mut gate = Gate::new();
    let mut configured = Vec::new();
    for Encoded { track, pts, dts, key, data, config, .. } in encoded {
        let verdict = match track {
            Track::Video => gate.video(*pts, *dts, *key, Duration::ZERO),
            Track::Audio => gate.audio(*pts, Duration::ZERO),
        };
        let Verdict::Pass { dts_ms, composition_ms } = verdict else { continue };
        if !configured.contains(track) {
            configured.push(*track);
            file.extend(match track {
                Track::Video => video_configuration(dts_ms, config),
                Track::Audio => audio_configuration(dts_ms, config),
            });
        }
        file.extend(match track {
            Track::Video => video_frame(dts_ms, composition_ms, *key, data),
            Track::Audio => audio_frame(dts_ms, data),
        });
    }
    file
}

fn by_flvmux(encoded: &[Encoded]) -> Vec<u8> {
    let pipeline = launch(
        "flvmux name=mux streamable=true ! appsink name=out sync=false \
         appsrc name=pictures format=time ! mux.video  appsrc name=sound format=time ! mux.audio",
    );
    let [pictures, sound] = ["pictures", "sound"].map(|name| source(&pipeline, name));
    for (track, source) in [(Track::Video, &pictures), (Track::Audio, &sound)] {
        source.set_caps(encoded.iter().find(|unit| unit.track == track).map(|unit| &unit.caps));
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    for unit in encoded {
        let source = if unit.track == Track::Video { &pictures } else { &sound };
        for tag in &unit.tags {
            source.send_event(tag.clone());
        }
        let mut buffer = gst::Buffer::from_mut_slice(unit.data.clone());
        let time = |time: Duration| gst::ClockTime::from_nseconds(time.as_nanos() as u64);
        let writable = buffer.get_mut().unwrap();
        writable.set_pts(time(unit.pts));
        writable.set_dts(time(unit.dts));
        if !unit.key {
            writable.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        source.push_buffer(buffer).unwrap();
    }
    pictures.end_of_stream().unwrap();
    sound.end_of_stream().unwrap();
    let file = samples(&sink(&pipeline, "out")).iter().flat_map(bytes).collect();
    pipeline.set_state(gst::State::Null).unwrap();
    file
}

/// Pictures and sound according to `flvdemux`.
fn demuxed(file: &[u8]) -> [Stream; 2] {
    let pipeline = launch(
        "appsrc name=file caps=video/x-flv ! flvdemux name=demux \
         demux.video ! queue ! appsink name=pictures sync=false async=false \
         demux.audio ! queue ! appsink name=sound sync=false async=false",
    );
    let source = source(&pipeline, "file");
    pipeline.set_state(gst::State::Playing).unwrap();
    source.push_buffer(gst::Buffer::from_slice(file.to_vec())).unwrap();
    source.end_of_stream().unwrap();
    let streams = ["pictures", "sound"].map(|name| {
        let mut stream = Stream::default();
        for sample in samples(&sink(&pipeline, name)) {
            let config = sample.caps().unwrap().structure(0).unwrap().get::<gst::Buffer>("codec_data").unwrap();
            stream.config = config.map_readable().unwrap().to_vec();
            let buffer = sample.buffer().unwrap();
            stream.packets.push(Packet {
                pts_ms: buffer.pts().unwrap().mseconds() as i64,
                dts_ms: buffer.dts_or_pts().unwrap().mseconds() as i64,
                key: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
                data: bytes(&sample),
            });
        }
        stream
    });
    pipeline.set_state(gst::State::Null).unwrap();
    streams
}

/// Pictures and sound according to ffprobe: times in milliseconds, flags and sizes.
fn probed(file: &[u8]) -> [Vec<([i64; 2], String)>; 2] {
    let mut on_disk = tempfile::NamedTempFile::with_suffix(".flv").unwrap();
    on_disk.write_all(file).unwrap();
    let listed = Command::new("ffprobe")
        .args(["-v", "error", "-show_packets", "-of", "json"])
        .arg(on_disk.path())
        .output()
        .expect("ffprobe is installed");
    assert_eq!(String::from_utf8_lossy(&listed.stderr), "");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let packets = listed["packets"].as_array().unwrap();
    ["video", "audio"].map(|kind| {
        let of_kind = packets.iter().filter(|packet| packet["codec_type"] == kind);
        let read = |packet: &Value| {
            let times = ["pts", "dts"].map(|time| packet[time].as_i64().unwrap());
            (times, format!("{} {}", packet["flags"], packet["size"]))
        };
        of_kind.map(read).collect()
    })
}

/// Asserts equal times up to rounding. Times are whole milliseconds: the gate rounds from its own beginning and never
/// shows a picture later than asked, the element rounds each to the nearest.
fn assert_same_time(ours: i64, theirs: i64, which: &str) {
    assert!((ours - theirs).abs() <= 1, "{which}: {ours} ms here, {theirs} ms by flvmux");
}

/// The tags of one kind in a file.
fn tags(file: &[u8], kind: u8) -> Vec<&[u8]> {
    let (mut rest, mut found) = (&file[13..], Vec::new());
    while let [this, s1, s2, s3, ..] = *rest {
        let (tag, after) = rest.split_at(11 + u32::from_be_bytes([0, s1, s2, s3]) as usize + 4);
        if this == kind {
            found.push(tag);
        }
        rest = after;
    }
    found
}

#[test]
fn a_reader_finds_what_it_finds_behind_flvmux() {
    crate::media::init().unwrap();
    let encoded = encode();
    assert!(encoded.iter().any(|unit| unit.pts > unit.dts + Duration::from_millis(50)), "no B-pictures");
    let (ours, theirs) = (by_lenscast(&encoded), by_flvmux(&encoded));

    for (ours, theirs) in demuxed(&ours).iter().zip(&demuxed(&theirs)) {
        assert_eq!(ours.config, theirs.config);
        assert_eq!(ours.packets.len(), theirs.packets.len());
        for (ours, theirs) in ours.packets.iter().zip(&theirs.packets) {
            assert!(ours.data == theirs.data, "another payload at {} ms", ours.dts_ms);
            assert_eq!(ours.key, theirs.key, "at {} ms", ours.dts_ms);
            assert_same_time(ours.pts_ms, theirs.pts_ms, "presentation by flvdemux");
            assert_same_time(ours.dts_ms, theirs.dts_ms, "decoding by flvdemux");
        }
    }
    let [pictures, sound] = demuxed(&ours);
    assert_eq!((pictures.packets.len(), sound.packets.len()), (PICTURES, FRAMES_OF_SOUND));
    assert_eq!(pictures.packets.iter().filter(|picture| picture.key).count(), 3);
    assert_eq!(pictures.packets[0].dts_ms, 0);

    for (ours, theirs) in probed(&ours).iter().zip(&probed(&theirs)) {
        assert_eq!(ours.len(), theirs.len());
        for ((times, rest), (their_times, their_rest)) in ours.iter().zip(theirs) {
            assert_eq!(rest, their_rest);
            assert_same_time(times[0], their_times[0], "presentation by ffprobe");
            assert_same_time(times[1], their_times[1], "decoding by ffprobe");
        }
    }
}

/// It carries only a bitrate that a parser measured, and a server passes each one on to every viewer.
#[test]
fn metadata_comes_once_where_flvmux_repeats_it() {
    crate::media::init().unwrap();
    let encoded = encode();
    assert_eq!(tags(&by_lenscast(&encoded), SCRIPT).len(), 1);
    let repeated = tags(&by_flvmux(&encoded), SCRIPT).len();
    assert!(repeated > 1, "flvmux no longer repeats it; the module's description does not say so");
}

/// A publication must begin with a decodable picture, at 0, even if sound came first.
#[test]
fn the_first_picture_is_at_0_where_flvmux_begins_with_sound() {
    crate::media::init().unwrap();
    let mut encoded = encode();
    let second_key = encoded.iter().filter(|unit| unit.track == Track::Video && unit.key).nth(1).unwrap().dts;
    encoded.retain(|unit| unit.track == Track::Audio || unit.dts >= second_key);

    let [pictures, sound] = demuxed(&by_lenscast(&encoded));
    assert_eq!(pictures.packets[0].dts_ms, 0);
    assert!(sound.packets[0].dts_ms < 24, "sound begins at {} ms", sound.packets[0].dts_ms);
    let [pictures, sound] = demuxed(&by_flvmux(&encoded));
    assert_eq!(sound.packets[0].dts_ms, 0);
    let late = pictures.packets[0].dts_ms;
    assert!((900..=1000).contains(&late), "flvmux now begins with the picture at {late} ms");
}

/// The gate promises this; readers of a recording tell pictures apart by their times.
#[test]
fn times_rise_where_flvmux_lets_them_stand() {
    crate::media::init().unwrap();
    let mut encoded = encode();
    let mut pictures = encoded.iter_mut().filter(|unit| unit.track == Track::Video);
    let (first, second) = (pictures.next().unwrap(), pictures.next().unwrap());
    second.dts = first.dts + Duration::from_micros(200);

    let [pictures, _] = demuxed(&by_lenscast(&encoded));
    assert_eq!([pictures.packets[0].dts_ms, pictures.packets[1].dts_ms], [0, 1]);
    let [pictures, _] = demuxed(&by_flvmux(&encoded));
    assert_eq!([pictures.packets[0].dts_ms, pictures.packets[1].dts_ms], [0, 0]);
}
