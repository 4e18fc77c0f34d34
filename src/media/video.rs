//! Pictures: camera or test picture, to H.264, into the feed; and a photo from the running picture.
//!
//! Every picture is counted and timed where it leaves the camera and where it leaves the encoder, because neither
//! tells when it stops: GStreamer 1.22 ends `v4l2h264enc` silently after one bad buffer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSinkCallbacks};
use gstreamer_video::UpstreamForceKeyUnitEvent;
use tokio::sync::{Notify, mpsc, oneshot};

use super::encoder;
use super::failure::{Failure, element_name};
use super::feed::{Feed, Unit};
use super::pipeline::{self, EncodedUnit};
use super::profile::Profile;
use super::sequence;
use crate::camera::{Choice, Crop, FrameRate, Mode, PixelFormat};
use crate::protocol::{Cause, VideoSettings};

/// Where pictures come from.
#[derive(Clone, Debug, PartialEq)]
pub enum VideoSource {
    /// A moving test picture, a pattern of videotestsrc, each frame stamped with its number and time.
    Test {
        /// For example `ball` or `snow`.
        pattern: String,
    },
    /// A V4L2 camera.
    V4l2 {
        /// The device node.
        node: PathBuf,
        /// Its name for a person.
        name: String,
        /// The mode it is to deliver, and what is to be made of it.
        choice: Choice,
    },
}

impl VideoSource {
    /// The device, for the status: its node, or `test`.
    pub fn device(&self) -> String {
        match self {
            Self::Test { .. } => "test".into(),
            Self::V4l2 { node, .. } => node.display().to_string(),
        }
    }

    /// Its name for a person.
    pub fn name(&self) -> String {
        match self {
            Self::Test { pattern } => format!("test picture {pattern}"),
            Self::V4l2 { name, .. } => name.clone(),
        }
    }

    /// The picture it gives.
    pub fn mode(&self, settings: &VideoSettings) -> String {
        match self {
            Self::Test { .. } => format!("{}x{} at {} fps", settings.width, settings.height, settings.frame_rate),
            Self::V4l2 { choice, .. } => choice.mode.to_string(),
        }
    }
}

/// How far the pictures got.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    captured: Stage,
    encoded: Stage,
    first_encoded: Notify,
}

#[derive(Debug, Default)]
struct Stage {
    count: AtomicU64,
    /// Milliseconds after the start.
    last_ms: AtomicU64,
}

impl Stage {
    fn count(&self, start: Instant) -> u64 {
        self.last_ms.store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    fn age(&self, start: Instant) -> Duration {
        start.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

impl Progress {
    fn new() -> Self {
        let (captured, encoded) = (Stage::default(), Stage::default());
        Self { start: Instant::now(), captured, encoded, first_encoded: Notify::new() }
    }

    /// Returns once, when the first picture has left the encoder.
    pub async fn first_encoded(&self) {
        self.first_encoded.notified().await;
    }

    /// Pictures that left the camera.
    pub fn captured(&self) -> u64 {
        self.captured.count.load(Ordering::Relaxed)
    }

    /// Pictures that left the encoder.
    pub fn encoded(&self) -> u64 {
        self.encoded.count.load(Ordering::Relaxed)
    }

    /// Time since the camera gave a picture, or since the start.
    pub fn camera_silent(&self) -> Duration {
        self.captured.age(self.start)
    }

    /// Time since the encoder gave a picture, or since the start.
    pub fn encoder_silent(&self) -> Duration {
        self.encoded.age(self.start)
    }
}

type PhotoRequests = Arc<Mutex<Vec<oneshot::Sender<Vec<u8>>>>>;

/// Running video capture.
#[derive(Debug)]
pub struct VideoPipeline {
    /// What it says when it fails.
    pub errors: mpsc::Receiver<gst::Message>,
    /// How far the pictures got.
    pub progress: Arc<Progress>,
    pipeline: gst::Pipeline,
    photo_valve: gst::Element,
    photo_requests: PhotoRequests,
    feed: Arc<Feed>,
}

impl VideoPipeline {
    /// Builds and starts it. Whether pictures come shows in its progress.
    pub async fn start(
        source: &VideoSource,
        settings: &VideoSettings,
        profile: &Profile,
        feed: Arc<Feed>,
    ) -> Result<Self, Failure> {
        let pipeline = gst::Pipeline::new();
        pipeline::on_absolute_time(&pipeline);
        let progress = Arc::new(Progress::new());
        let tee = pipeline::element("tee", None)?;
        let mut chain = source_elements(source, settings)?;
        count_pictures(&chain[0], &progress);
        chain.push(raw_filter(source, profile, settings)?);
        chain.push(tee.clone());
        pipeline::chain(&pipeline, &chain.iter().collect::<Vec<_>>())?;
        let stamp = matches!(source, VideoSource::Test { .. });
        encoder_branch(&pipeline, &tee, profile, settings, &feed, &progress, stamp)?;
        let photo_requests = PhotoRequests::default();
        let photo_valve = photo_branch(&pipeline, &tee, &photo_requests)?;
        let errors = pipeline::errors(&pipeline);
        pipeline::play(&pipeline).await?;
        Ok(Self { errors, progress, pipeline, photo_valve, photo_requests, feed })
    }

    /// Sends the next picture as JPEG; drops `request` if the pipeline ends before.
    pub fn photo(&self, request: oneshot::Sender<Vec<u8>>) {
        self.photo_requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        self.photo_valve.set_property("drop", false);
    }

    /// Ends it.
    pub async fn stop(self) {
        self.feed.on_key_frame_request(None);
        pipeline::shut_down(self.pipeline, "video capture").await;
    }
}

fn source_elements(source: &VideoSource, settings: &VideoSettings) -> Result<Vec<gst::Element>, Failure> {
    let (node, choice) = match source {
        VideoSource::Test { pattern } => {
            let test = pipeline::element("videotestsrc", Some(element_name::CAMERA))?;
            test.set_property("is-live", true);
            pipeline::set_property(&test, "pattern", pattern)?;
            return Ok(vec![test]);
        }
        VideoSource::V4l2 { node, choice, .. } => (node, choice),
    };
    let camera = pipeline::element("v4l2src", Some(element_name::CAMERA))?;
    camera.set_property("device", node.to_string_lossy().as_ref());
    let filter = pipeline::element("capsfilter", None)?;
    filter.set_property("caps", camera_caps(&choice.mode)?);
    let mut elements = vec![camera, filter];
    if choice.mode.format == PixelFormat::Mjpeg {
        elements.push(pipeline::element("jpegdec", None)?);
    }
    let asked = FrameRate::new(settings.frame_rate, 1);
    if choice.mode.frame_rate.is_none() || choice.mode.frame_rate > asked {
        let rate = pipeline::element("videorate", None)?;
        rate.set_property("drop-only", choice.mode.frame_rate.is_some());
        elements.push(rate);
    }
    if choice.crop != Crop::default() {
        let crop = pipeline::element("videocrop", None)?;
        let Crop { left, right, top, bottom } = choice.crop;
        for (edge, pixels) in [("left", left), ("right", right), ("top", top), ("bottom", bottom)] {
            crop.set_property(edge, pixels as i32);
        }
        elements.push(crop);
    }
    elements.push(pipeline::element("videoconvertscale", None)?);
    Ok(elements)
}

fn camera_caps(mode: &Mode) -> Result<gst::Caps, Failure> {
    let mut caps = if mode.format == PixelFormat::Mjpeg {
        gst::Caps::builder("image/jpeg")
    } else {
        let format = mode.format.name().ok_or_else(|| {
            Failure::new(Cause::CameraFailed, format!("the camera's format {} is not supported", mode.format))
        })?;
        gst::Caps::builder("video/x-raw").field("format", format)
    };
    if let Some(rate) = mode.frame_rate {
        caps = caps.field("framerate", fraction(rate));
    }
    Ok(caps.field("width", mode.width as i32).field("height", mode.height as i32).build())
}

fn fraction(rate: FrameRate) -> gst::Fraction {
    let (numerator, denominator) = rate.fraction();
    gst::Fraction::new(numerator as i32, denominator as i32)
}

/// A camera slower than asked is not helped by repeating its pictures.
fn delivered_rate(source: &VideoSource, settings: &VideoSettings) -> gst::Fraction {
    let asked = gst::Fraction::new(settings.frame_rate as i32, 1);
    match source {
        VideoSource::V4l2 { choice, .. } => choice.mode.frame_rate.map_or(asked, |rate| asked.min(fraction(rate))),
        VideoSource::Test { .. } => asked,
    }
}

fn raw_filter(source: &VideoSource, profile: &Profile, settings: &VideoSettings) -> Result<gst::Element, Failure> {
    let filter = pipeline::element("capsfilter", None)?;
    filter.set_property("caps", encoder::raw_caps(&profile.raw_formats, settings, delivered_rate(source, settings)));
    Ok(filter)
}

fn count_pictures(source: &gst::Element, progress: &Arc<Progress>) {
    let progress = progress.clone();
    let pad = source.static_pad("src").expect("a source has a src pad");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        progress.captured.count(progress.start);
        gst::PadProbeReturn::Ok
    });
}

fn encoder_branch(
    pipeline: &gst::Pipeline,
    tee: &gst::Element,
    profile: &Profile,
    settings: &VideoSettings,
    feed: &Arc<Feed>,
    progress: &Arc<Progress>,
    stamp: bool,
) -> Result<(), Failure> {
    // A thread of its own for the encoder; when it is too slow the camera's oldest pictures go, the camera never waits.
    let queue = pipeline::element("queue", None)?;
    queue.set_property("max-size-buffers", 3_u32);
    queue.set_property_from_str("leaky", "downstream");
    let (encoder, h264) = encoder::build(profile, settings)?;
    let filter = pipeline::element("capsfilter", None)?;
    filter.set_property("caps", h264);
    let parse = pipeline::element("h264parse", None)?;
    let sink = AppSink::builder()
        .caps(&encoder::avc_caps())
        .sync(false)
        .async_(false)
        .max_buffers(8)
        .callbacks(into_feed(feed.clone(), progress.clone(), (settings.width, settings.height), stamp))
        .build();
    pipeline::chain(pipeline, &[tee, &queue, &encoder, &filter, &parse, sink.upcast_ref()])?;
    let encoder = encoder.downgrade();
    feed.on_key_frame_request(Some(Arc::new(move || {
        if let Some(encoder) = encoder.upgrade() {
            encoder.send_event(UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
    })));
    Ok(())
}

fn into_feed(feed: Arc<Feed>, progress: Arc<Progress>, size: (u32, u32), stamp: bool) -> AppSinkCallbacks {
    let config: Mutex<Option<Arc<[u8]>>> = Mutex::new(None);
    AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let number = progress.encoded.count(progress.start);
            if number == 0 {
                progress.first_encoded.notify_one();
            }
            let mut config = config.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(unit) = EncodedUnit::read(&sample, &mut config) {
                let stamped = stamp.then(|| sequence::stamped(&unit.data, number, monotonic_us()));
                let data = stamped.as_deref().unwrap_or(&unit.data);
                feed.video(Unit { pts: unit.pts, dts: unit.dts, key: unit.key, data, config: &unit.config, size });
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

fn monotonic_us() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1000
}

/// Closed until a photo is asked for; one picture then passes, beside the encoder, which notices nothing.
fn photo_branch(
    pipeline: &gst::Pipeline,
    tee: &gst::Element,
    requests: &PhotoRequests,
) -> Result<gst::Element, Failure> {
    let valve = pipeline::element("valve", None)?;
    valve.set_property("drop", true);
    let queue = pipeline::element("queue", None)?;
    queue.set_property("max-size-buffers", 1_u32);
    queue.set_property_from_str("leaky", "downstream");
    let convert = pipeline::element("videoconvert", None)?;
    let jpeg = pipeline::element("jpegenc", None)?;
    jpeg.set_property("quality", 90_i32);
    let (requests, gate) = (requests.clone(), valve.downgrade());
    let sink = AppSink::builder()
        .sync(false)
        .async_(false)
        .max_buffers(1)
        .drop(true)
        .callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    let mut waiting = requests.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(gate) = gate.upgrade() {
                        gate.set_property("drop", true);
                    }
                    if let Some(picture) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) {
                        for request in waiting.drain(..) {
                            let _ = request.send(picture.to_vec()); // who asked may have given up
                        }
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        )
        .build();
    pipeline::chain(pipeline, &[tee, &valve, &queue, &convert, &jpeg, sink.upcast_ref()])?;
    Ok(valve)
}
