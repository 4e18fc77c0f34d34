//! A camera that sees a clock: the time of day is drawn into each picture as black and white squares. The pictures are
//! encoded as by the daemon, and published by the daemon's own gate, FLV writer and publisher.
//!
//! In the top left corner are squares of 32 pixels: white, black, 16 bits of the milliseconds of the day's clock (most
//! significant first), and 8 bits that are the XOR of those two bytes, to detect squares read wrongly.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc};
use lenscast::media;
use lenscast::media::feed::{Feed, Unit};
use lenscast::media::flv::Metadata;
use lenscast::media::publisher::{Publisher, PublisherEvent, Target};
use lenscast::protocol::StreamUrl;
use tokio::sync::mpsc;

use crate::support::Process;

const SIZE: (usize, usize) = (1280, 720);
const SQUARE: usize = 32;
const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);
const BITRATE: u32 = 2_000_000;

/// The argument that makes this program call [`run`].
pub const ARGUMENT: &str = "--film";

/// Publishes to `url` in a process of its own, until it is dropped.
pub fn spawn(url: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("Linux knows this program's file"));
    Process::spawn(command.args([ARGUMENT, url]).stdin(Stdio::null()).stdout(Stdio::null()))
}

/// Publishes to `url` until this process is killed.
pub fn run(url: &str) {
    media::init().expect("GStreamer is usable");
    let feed = Arc::new(Feed::default());
    let metadata = Metadata {
        width: SIZE.0 as u32,
        height: SIZE.1 as u32,
        frame_rate: 30.0,
        video_bitrate: BITRATE,
        audio: Some((64_000, 48_000)),
    };
    let target = Target { url: StreamUrl::parse(url).expect("an RTMP URL"), metadata };
    let (pipeline, source) = capture(&feed);
    pipeline.set_state(gst::State::Playing).expect("the capture runs");
    std::thread::spawn(move || film(&source));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (events, mut heard) = mpsc::channel(8);
        let _publisher = Publisher::open(1, target, feed, events);
        while let Some((_, event)) = heard.recv().await {
            if let PublisherEvent::Lost(failure) = event {
                panic!("the publication was lost: {failure}");
            }
        }
    });
}

/// Delivers a picture every 33 ms.
fn film(source: &AppSrc) {
    let (width, height) = SIZE;
    let mut picture = vec![128; width * height * 3 / 2];
    let begun = Instant::now();
    for n in 0_u32.. {
        let due = begun + FRAME * n;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // Moving stripes, so that the encoder has something to do.
        for (y, row) in picture[..width * height].chunks_mut(width).enumerate().skip(SQUARE * 2) {
            for (x, pixel) in row.iter_mut().enumerate() {
                *pixel = 64 + (((x + y + 3 * n as usize) >> 3) & 63) as u8;
            }
        }
        draw_time(&mut picture);
        let mut buffer = gst::Buffer::from_slice(picture.clone());
        buffer.get_mut().expect("nobody else has it yet").set_duration(gst::ClockTime::from_nseconds(33_333_333));
        if source.push_buffer(buffer).is_err() {
            return;
        }
    }
}

fn draw_time(picture: &mut [u8]) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    let time = (now.as_millis() & 0xffff) as u32;
    let bits = 0b10 << 24 | time << 8 | (time >> 8 ^ time & 0xff);
    for n in 0..26 {
        let level = if bits >> (25 - n) & 1 == 1 { 235 } else { 16 };
        for y in 0..SQUARE {
            let from = y * SIZE.0 + n * SQUARE;
            picture[from..from + SQUARE].fill(level);
        }
    }
}

fn capture(feed: &Arc<Feed>) -> (gst::Pipeline, AppSrc) {
    let (width, height) = SIZE;
    let description = format!(
        "appsrc name=camera is-live=true do-timestamp=true format=time max-buffers=2 leaky-type=downstream \
           caps=video/x-raw,format=I420,width={width},height={height},framerate=30/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast bframes=0 aud=false vbv-buf-capacity=150 key-int-max=30 \
           bitrate={} ! video/x-h264,profile=constrained-baseline \
         ! h264parse ! video/x-h264,stream-format=avc,alignment=au ! appsink name=video sync=false \
         audiotestsrc is-live=true volume=0.1 samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=1 \
         ! avenc_aac bitrate=64000 ! aacparse ! audio/mpeg,stream-format=raw ! appsink name=audio sync=false",
        BITRATE / 1000
    );
    let bin = gst::parse::launch(&description).expect("the plugins are installed");
    let pipeline = bin.downcast::<gst::Pipeline>().expect("several elements make a pipeline");
    for name in ["video", "audio"] {
        let sink = pipeline.by_name(name).and_downcast::<AppSink>().expect("named above");
        let feed = Arc::clone(feed);
        let config: Mutex<Option<Arc<[u8]>>> = Mutex::default();
        let take = move |sink: &AppSink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let mut config = config.lock().unwrap_or_else(PoisonError::into_inner);
            let config = config.get_or_insert_with(|| {
                let caps = sample.caps().and_then(|caps| caps.structure(0)).expect("encoded media has caps");
                let data: gst::Buffer = caps.get("codec_data").expect("with the decoder's configuration");
                Arc::from(data.map_readable().expect("memory can be read").as_slice())
            });
            let buffer = sample.buffer().expect("a sample has a buffer");
            let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::ClockTime>());
            let running = |at: gst::ClockTime| segment.and_then(|segment| segment.to_running_time(at)).unwrap_or(at);
            let pts = Duration::from_nanos(running(buffer.pts().expect("it has a time")).nseconds());
            let key = name == "audio" || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            let data = buffer.map_readable().expect("memory can be read");
            let size = (SIZE.0 as u32, SIZE.1 as u32);
            let unit = Unit { opening: u64::from(name == "video"), pts, dts: pts, key, data: &data, config, size };
            if name == "video" {
                feed.video(unit);
            } else {
                feed.audio(unit);
            }
            Ok(gst::FlowSuccess::Ok)
        };
        sink.set_callbacks(AppSinkCallbacks::builder().new_sample(take).build());
    }
    let source = pipeline.by_name("camera").and_downcast::<AppSrc>().expect("named above");
    (pipeline, source)
}
