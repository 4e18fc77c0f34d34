//! Pictures: from their source, through an encoder unless they come encoded, into the feed; and photos beside it.
//!
//! Every picture is counted and timed where it leaves the camera and where it leaves the encoder, because neither
//! tells when it stops: GStreamer 1.22 ends `v4l2h264enc` silently after one bad buffer.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSinkCallbacks};
use tokio::sync::{Notify, mpsc, oneshot};

use super::encoder::{self, Encoder};
use super::failure::Failure;
use super::feed::{Feed, Unit};
use super::photo::PhotoBranch;
use super::pipeline::{self, EncodedUnit};
use super::profile::Profile;
use super::sequence;
use super::source::{self, Rotation, VideoSource};
use crate::metrics::Counter;
use crate::policy::bitrate::{Decision, Pictures};
use crate::protocol::VideoSettings;

/// How far the pictures got.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    captured: Stage,
    offered: Stage,
    encoded: Stage,
    first_encoded: Notify,
    /// One of how many pictures is encoded.
    one_in: AtomicU32,
    /// Pictures that never came, by the camera's own numbers.
    missed: Counter,
    /// Pictures left out so that those which are sent are better.
    left_out: Counter,
    encoded_bytes: Counter,
    /// Microseconds from the camera until they had left the encoder, of all pictures.
    latency_us: Counter,
}

/// What went through a capture so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pictures that left the camera.
    pub captured: u64,
    /// Pictures that the camera counted and did not deliver.
    pub missed: u64,
    /// Pictures left out on purpose, where the uplink carries no more.
    pub left_out: u64,
    /// Pictures that were there for the encoder to take.
    pub offered: u64,
    /// Pictures that left the encoder.
    pub encoded: u64,
    /// Their bytes.
    pub encoded_bytes: u64,
    /// The time from the camera until they had left the encoder, of all together.
    pub latency: Duration,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, more: Self) {
        self.captured += more.captured;
        self.missed += more.missed;
        self.left_out += more.left_out;
        self.offered += more.offered;
        self.encoded += more.encoded;
        self.encoded_bytes += more.encoded_bytes;
        self.latency += more.latency;
    }
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
        Self {
            start: Instant::now(),
            captured: Stage::default(),
            offered: Stage::default(),
            encoded: Stage::default(),
            first_encoded: Notify::new(),
            one_in: AtomicU32::new(1),
            missed: Counter::default(),
            left_out: Counter::default(),
            encoded_bytes: Counter::default(),
            latency_us: Counter::default(),
        }
    }

    /// What went through so far.
    pub fn counters(&self) -> Counters {
        Counters {
            captured: self.captured(),
            missed: self.missed.get(),
            left_out: self.left_out.get(),
            offered: self.offered(),
            encoded: self.encoded(),
            encoded_bytes: self.encoded_bytes.get(),
            latency: Duration::from_micros(self.latency_us.get()),
        }
    }

    /// Returns once, when the first picture has left the encoder.
    pub async fn first_encoded(&self) {
        self.first_encoded.notified().await;
    }

    /// Pictures that left the camera.
    pub fn captured(&self) -> u64 {
        self.captured.count.load(Ordering::Relaxed)
    }

    /// Pictures that were there for the encoder to take.
    pub fn offered(&self) -> u64 {
        self.offered.count.load(Ordering::Relaxed)
    }

    /// Pictures that left the encoder.
    pub fn encoded(&self) -> u64 {
        self.encoded.count.load(Ordering::Relaxed)
    }

    /// One of how many of the camera's pictures is encoded.
    pub fn one_in(&self) -> u32 {
        self.one_in.load(Ordering::Relaxed)
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

/// What a video capture is made of.
#[derive(Clone, Debug)]
pub struct VideoPlan {
    /// Where pictures come from.
    pub source: VideoSource,
    /// What they are to be like.
    pub settings: VideoSettings,
    /// How far they are turned.
    pub rotation: Rotation,
    /// Who encodes them; nobody where the camera does.
    pub profile: Option<Profile>,
}

impl VideoPlan {
    /// Who encodes, for the status.
    pub fn encoder(&self) -> &str {
        self.profile.as_ref().map_or("camera", |profile| &profile.name)
    }
}

/// Running video capture.
#[derive(Debug)]
pub struct VideoPipeline {
    /// What it says when it fails.
    pub errors: mpsc::Receiver<gst::Message>,
    /// How far the pictures got.
    pub progress: Arc<Progress>,
    pipeline: gst::Pipeline,
    encoder: Option<Encoder>,
    frame_rate: u32,
    photos: PhotoBranch,
    feed: Arc<Feed>,
}

impl VideoPipeline {
    /// Builds and starts it. Whether pictures come shows in its progress.
    pub async fn start(plan: &VideoPlan, feed: Arc<Feed>) -> Result<Self, Failure> {
        let VideoPlan { source, settings, rotation, profile } = plan;
        let pipeline = gst::Pipeline::new();
        pipeline::on_absolute_time(&pipeline);
        let progress = Arc::new(Progress::new());
        let tee = pipeline::element("tee", None)?;
        let mut chain = source::elements(source, settings, *rotation, profile.as_ref())?;
        let camera = chain[0].static_pad("src").expect("a source has a src pad");
        count_captured(&camera, &progress);
        chain.push(tee.clone());
        pipeline::chain(&pipeline, &chain.iter().collect::<Vec<_>>())?;
        let encoder = encoder_branch(&pipeline, &tee, plan, &feed, &progress)?;
        let photos = PhotoBranch::attach(&pipeline, &tee, encoder.is_none())?;
        let errors = pipeline::errors(&pipeline);
        pipeline::play(&pipeline).await?;
        Ok(Self { errors, progress, pipeline, encoder, frame_rate: settings.frame_rate, photos, feed })
    }

    /// Sends the next picture as JPEG; drops `request` if the pipeline ends before.
    pub fn photo(&self, request: oneshot::Sender<Vec<u8>>) {
        self.photos.take(request);
    }

    /// Changes what the encoder makes while it runs.
    ///
    /// # Errors
    /// In words, when the encoder (or the camera that encodes itself) cannot.
    pub fn encode(&self, what: Decision) -> Result<(), String> {
        let encoder = self.encoder.as_ref().ok_or("the camera encodes itself")?;
        let one_in = what.pictures.one_in(self.frame_rate);
        self.progress.one_in.store(one_in, Ordering::Relaxed);
        // Encoders share a second's bits out among as many pictures as they were promised.
        encoder.set_bitrate(what.bitrate.saturating_mul(one_in))
    }

    /// Ends it; false if it would not end and was left behind.
    pub async fn stop(self) -> bool {
        self.feed.on_key_frame_request(None);
        let encoder = self.encoder.map(Encoder::ends_first);
        pipeline::shut_down_from(encoder, self.pipeline, "video capture").await
    }
}

/// Counts what leaves the camera, and by its numbers (V4L2's `sequence`) what does not.
fn count_captured(pad: &gst::Pad, progress: &Arc<Progress>) {
    let progress = progress.clone();
    let next = AtomicU64::new(u64::MAX);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        progress.captured.count(progress.start);
        // All ones: this source does not number them.
        let number = info.buffer().map(|buffer| buffer.offset()).filter(|&number| number != u64::MAX);
        if let Some(number) = number {
            let expected = next.swap(number + 1, Ordering::Relaxed);
            progress.missed.add(number.saturating_sub(expected));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Lets one of so many pictures through to the encoder, and counts those. At one a second each is to be a key frame.
fn thin_out(pad: &gst::Pad, progress: &Arc<Progress>, feed: &Arc<Feed>, all_key_frames: u32) {
    let (progress, feed) = (progress.clone(), Arc::downgrade(feed));
    let left_out = AtomicU32::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let one_in = progress.one_in();
        if left_out.fetch_add(1, Ordering::Relaxed) + 1 < one_in {
            progress.left_out.increment();
            return pipeline::LEAVE_OUT;
        }
        left_out.store(0, Ordering::Relaxed);
        if one_in > 1
            && one_in >= all_key_frames
            && let Some(feed) = feed.upgrade()
        {
            feed.ask_for_key_frame();
        }
        progress.offered.count(progress.start);
        gst::PadProbeReturn::Ok
    });
}

fn encoder_branch(
    pipeline: &gst::Pipeline,
    tee: &gst::Element,
    plan: &VideoPlan,
    feed: &Arc<Feed>,
    progress: &Arc<Progress>,
) -> Result<Option<Encoder>, Failure> {
    let settings = &plan.settings;
    let parse = pipeline::element("h264parse", None)?;
    let stamp = matches!(plan.source, VideoSource::Test { .. });
    let sink = AppSink::builder()
        .caps(&encoder::avc_caps())
        .sync(false)
        .async_(false)
        .max_buffers(8)
        .callbacks(into_feed(feed.clone(), progress.clone(), (settings.width, settings.height), stamp))
        .build();
    let Some(profile) = &plan.profile else {
        // On the camera's own thread: nothing here takes long, and handing a picture over costs more than passing it on.
        pipeline::chain(pipeline, &[tee, &parse, sink.upcast_ref()])?;
        feed.on_key_frame_request(None); // such cameras give them by themselves, and by nothing else
        return Ok(None);
    };
    // A thread of its own for the encoder; when it is too slow the camera's oldest pictures go, the camera never waits.
    let queue = pipeline::element("queue", None)?;
    let offered = queue.static_pad("sink").expect("a queue has a sink pad");
    thin_out(&offered, progress, feed, Pictures::KeyFrames.one_in(settings.frame_rate));
    queue.set_property("max-size-buffers", 3_u32);
    queue.set_property_from_str("leaky", "downstream");
    let encoder = Encoder::build(profile, settings)?;
    if matches!(plan.source, VideoSource::V4l2 { zero_copy: true, .. }) {
        encoder.element.set_property_from_str("output-io-mode", "dmabuf-import");
    }
    let filter = pipeline::element("capsfilter", None)?;
    filter.set_property("caps", &encoder.caps);
    pipeline::chain(pipeline, &[tee, &queue, &encoder.element, &filter, &parse, sink.upcast_ref()])?;
    let asked = encoder.element.downgrade();
    feed.on_key_frame_request(Some(Arc::new(move || {
        if let Some(encoder) = asked.upgrade() {
            encoder.send_event(force_key_unit());
        }
    })));
    Ok(Some(encoder))
}

/// What `gst_video_event_new_upstream_force_key_unit` makes. For this alone libgstvideo and all it brings along would take 0.3
/// MB of an idle daemon's memory.
fn force_key_unit() -> gst::Event {
    let what = gst::Structure::builder("GstForceKeyUnit").field("all-headers", true).field("count", 0_u32).build();
    gst::event::CustomUpstream::new(what)
}

fn into_feed(feed: Arc<Feed>, progress: Arc<Progress>, size: (u32, u32), stamp: bool) -> AppSinkCallbacks {
    let config: Mutex<Option<Arc<[u8]>>> = Mutex::new(None);
    let opening = feed.open();
    AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let number = progress.encoded.count(progress.start);
            if number == 0 {
                progress.first_encoded.notify_one();
            }
            let mut config = config.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(unit) = EncodedUnit::read(&sample, &mut config) {
                let now = monotonic_us();
                progress.encoded_bytes.add(unit.data.len() as u64);
                progress.latency_us.add(now.saturating_sub(unit.pts.as_micros() as u64));
                let stamped = stamp.then(|| sequence::stamped(&unit.data, number, now));
                let data = stamped.as_deref().unwrap_or(&unit.data);
                feed.video(Unit {
                    opening,
                    pts: unit.pts,
                    dts: unit.dts,
                    key: unit.key,
                    data,
                    config: &unit.config,
                    size,
                });
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

fn monotonic_us() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1000
}
