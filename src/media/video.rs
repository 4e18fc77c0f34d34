//! Pictures: from their source, through an encoder unless they come encoded, into the feed; and photos alongside.
//!
//! Every picture is counted and timed where it leaves the camera and where it leaves the encoder, because neither
//! reports that it stopped: GStreamer 1.22 ends `v4l2h264enc` silently after one bad buffer.

mod progress;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSinkCallbacks};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::encoder::{self, Encoder};
use super::failure::element_name;
use super::feed::{Feed, Unit};
use super::photo::PhotoBranch;
use super::pipeline::{self, EncodedUnit};
use super::profile::Profile;
use super::sequence;
use super::source::{self, Rotation, VideoSource};
use crate::camera;
use crate::policy::bitrate::{Decision, Pictures};
use crate::protocol::{Failure, VideoSettings};

pub use progress::{Counters, Progress};

/// Interval between checks whether the camera of a capture that would not end is free.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Longest gap between encoded pictures where pictures are left out, however slow the camera is: in the dark it gives
/// fewer than its mode says.
const LONGEST_GAP: Duration = Duration::from_secs(1);

/// Configuration of a video capture.
#[derive(Clone, Debug)]
pub struct VideoPlan {
    /// Where pictures come from.
    pub source: VideoSource,
    /// Settings of the pictures.
    pub settings: VideoSettings,
    /// How far the pictures are rotated.
    pub rotation: Rotation,
    /// The encoder; `None` where the camera encodes.
    pub profile: Option<Profile>,
}

impl VideoPlan {
    /// The encoder's name, for the status.
    pub fn encoder(&self) -> &str {
        self.profile.as_ref().map_or("camera", |profile| &profile.name)
    }
}

/// Running video capture.
#[derive(Debug)]
pub struct VideoPipeline {
    /// Error messages of the pipeline.
    pub errors: mpsc::Receiver<gst::Message>,
    /// How far the pictures got.
    pub progress: Arc<Progress>,
    pipeline: gst::Pipeline,
    encoder: Option<Encoder>,
    frame_rate: u32,
    /// The branch, or why there is none.
    photos: Result<PhotoBranch, Failure>,
    feed: Arc<Feed>,
}

impl VideoPipeline {
    /// Builds and starts the capture. Its progress shows whether pictures come.
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
        let photos = PhotoBranch::attach(&pipeline, &tee, encoder.is_none());
        if let Err(failure) = &photos {
            tracing::warn!(%failure, "no photos");
        }
        let errors = pipeline::errors(&pipeline);
        pipeline::play(&pipeline).await?;
        Ok(Self { errors, progress, pipeline, encoder, frame_rate: settings.frame_rate, photos, feed })
    }

    /// Sends the next picture as JPEG, or why there can be none; drops `request` if the pipeline ends first.
    pub fn photo(&self, request: oneshot::Sender<Result<Vec<u8>, Failure>>) {
        match &self.photos {
            Ok(photos) => photos.take(request),
            Err(failure) => drop(request.send(Err(failure.clone()))), // who asked may have given up
        }
    }

    /// Changes what the encoder makes while it runs.
    ///
    /// # Errors
    /// The reason in words, when the encoder (or the camera that encodes itself) cannot.
    pub fn encode(&self, what: Decision) -> Result<(), String> {
        let encoder = self.encoder.as_ref().ok_or("the camera encodes itself")?;
        let one_in = what.pictures.one_in(self.frame_rate);
        self.progress.one_in.store(one_in, Ordering::Relaxed);
        // Encoders divide a second's bits by the number of pictures they were promised.
        encoder.set_bitrate(what.bitrate.saturating_mul(one_in))
    }

    /// Ends the capture from `source`. If it would not end, the error is what was left behind.
    pub async fn stop(self, source: &VideoSource) -> Result<(), LeftBehind> {
        self.feed.on_key_frame_request(None);
        let camera = self.pipeline.by_name(element_name::CAMERA);
        let encoder = self.encoder.map(Encoder::ends_first);
        let ended = pipeline::shut_down_from(encoder, self.pipeline, "video capture").await;
        ended.map_err(|hanging| LeftBehind { camera, node: source.node().map(Path::to_owned), hanging })
    }
}

/// A video capture that would not end.
#[derive(Debug)]
pub struct LeftBehind {
    camera: Option<gst::Element>,
    /// The camera's node, if it has one.
    node: Option<PathBuf>,
    hanging: JoinHandle<()>,
}

impl LeftBehind {
    /// Returns when the camera is free: soon if only the encoder hangs, otherwise when the driver returns, perhaps
    /// never.
    pub async fn camera_free(self) {
        let Self { camera, node, hanging } = self;
        let released = async {
            // A hanging element may keep the pipeline's own shutdown from reaching the camera.
            let release = move || camera.map(|camera| camera.set_state(gst::State::Null));
            let _ = tokio::task::spawn_blocking(release).await;
            // Pictures still held by the encoder keep the device open, and streaming.
            while let Some(node) = node.clone() {
                let open = tokio::task::spawn_blocking(move || camera::is_open_here(&node)).await;
                if !open.unwrap_or(false) {
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! {
            () = released => {}
            _ = hanging => {}
        }
    }
}

/// Counts the pictures that leave the camera and, by V4L2's `sequence`, those that are missing.
fn count_captured(pad: &gst::Pad, progress: &Arc<Progress>) {
    let progress = progress.clone();
    let next = AtomicU64::new(u64::MAX);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        progress.captured.count(progress.start);
        // All ones: this source does not number its pictures.
        let number = info.buffer().map(|buffer| buffer.offset()).filter(|&number| number != u64::MAX);
        if let Some(number) = number {
            let expected = next.swap(number + 1, Ordering::Relaxed);
            progress.missed.add(number.saturating_sub(expected));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Lets one picture in `one_in` through to the encoder, or one a second if that is more, and counts those. At one a
/// second each must be a key frame.
fn thin_out(pad: &gst::Pad, progress: &Arc<Progress>, feed: &Arc<Feed>, all_key_frames: u32) {
    let (progress, feed) = (progress.clone(), Arc::downgrade(feed));
    let left_out = AtomicU32::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let one_in = progress.one_in();
        let early = progress.offers_silent() < LONGEST_GAP;
        if left_out.fetch_add(1, Ordering::Relaxed) + 1 < one_in && early {
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
        // On the camera's own thread: nothing here takes long, and a queue would cost more than it saves.
        pipeline::chain(pipeline, &[tee, &parse, sink.upcast_ref()])?;
        feed.on_key_frame_request(None); // such cameras give them by themselves, and by nothing else
        return Ok(None);
    };
    // The encoder has its own thread; when it is too slow, the oldest pictures are dropped and the camera never waits.
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
    feed.on_key_frame_request(Some(Arc::new(encoder.key_frame_request())));
    Ok(Some(encoder))
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

#[cfg(test)]
mod tests {
    use gstreamer_video::UpstreamForceKeyUnitEvent;

    use super::*;
    use crate::media::profile;
    use crate::protocol::Cause;

    fn by_x264() -> VideoPlan {
        VideoPlan {
            source: VideoSource::Test { pattern: "ball".into() },
            settings: VideoSettings { width: 320, height: 240, frame_rate: 30, bitrate: 500_000 },
            rotation: Rotation::None,
            profile: profile::load(&[]).unwrap().into_iter().find(|profile| profile.name == "x264"),
        }
    }

    #[tokio::test]
    async fn an_encoder_that_hangs_in_ending_does_not_keep_the_camera() {
        crate::media::init().unwrap();
        let plan = by_x264();
        let video = VideoPipeline::start(&plan, Arc::default()).await.unwrap();
        let camera = video.pipeline.by_name(element_name::CAMERA).unwrap();
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let (reached, mut encodes) = mpsc::channel(1);
        let into_encoder = video.encoder.as_ref().unwrap().element.static_pad("sink").unwrap();
        into_encoder.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let _ = reached.try_send(());
            let _ = held.lock().unwrap().recv();
            gst::PadProbeReturn::Ok
        });
        encodes.recv().await.unwrap();

        let outcome = video.stop(&plan.source).await;
        let hung = outcome.is_err();
        let free = async {
            if let Err(left_behind) = outcome {
                left_behind.camera_free().await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(2), free).await.is_ok();
        let state = camera.current_state();
        drop(let_go); // the threads that hang must end before the test can
        assert!(hung, "this encoder ends");
        assert!(in_time, "the camera is not free");
        assert_eq!(state, gst::State::Null);
    }

    #[test]
    fn of_a_camera_slower_than_it_says_one_picture_a_second_is_still_encoded() {
        crate::media::init().unwrap();
        let progress = Arc::new(Progress::at(2_000, &[], &[500], &[]));
        progress.one_in.store(30, Ordering::Relaxed);
        let taken = |_: &gst::Pad, _: Option<&gst::Object>, _: gst::Buffer| Ok(gst::FlowSuccess::Ok);
        let encoder = gst::Pad::builder(gst::PadDirection::Sink).chain_function(taken).build();
        thin_out(&encoder, &progress, &Arc::default(), 30);
        let camera = gst::Pad::new(gst::PadDirection::Src);
        camera.link(&encoder).unwrap();
        encoder.set_active(true).unwrap();
        camera.set_active(true).unwrap();
        camera.push_event(gst::event::StreamStart::new("camera"));
        camera.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        for _ in 0..3 {
            camera.push(gst::Buffer::new()).unwrap();
        }
        assert_eq!((progress.offered(), progress.counters().left_out), (2, 2), "the one before is 1.5 s old");
    }

    #[tokio::test]
    async fn who_asks_for_a_key_frame_asks_the_encoder() {
        crate::media::init().unwrap();
        let plan = by_x264();
        let feed = Arc::new(Feed::default());
        let video = VideoPipeline::start(&plan, feed.clone()).await.unwrap();
        let (asked, mut events) = mpsc::unbounded_channel();
        let encoder = video.encoder.as_ref().unwrap().element.static_pad("src").unwrap();
        encoder.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            let event = info.event().and_then(|event| UpstreamForceKeyUnitEvent::parse(event).ok());
            let _ = event.map(|event| asked.send(event));
            gst::PadProbeReturn::Ok
        });
        feed.ask_for_key_frame();
        let event = events.try_recv();
        video.stop(&plan.source).await.unwrap();
        let all_headers = UpstreamForceKeyUnitEvent { running_time: None, all_headers: true, count: 0 };
        assert_eq!(event, Ok(all_headers));
    }

    #[test]
    fn where_no_photo_can_be_taken_the_reason_is_told_at_once() {
        crate::media::init().unwrap();
        let pipeline = gst::Pipeline::new();
        let failure = Failure::new(Cause::CameraFailed, "no decoder");
        let video = VideoPipeline {
            errors: pipeline::errors(&pipeline),
            progress: Arc::new(Progress::new()),
            pipeline,
            encoder: None,
            frame_rate: 30,
            photos: Err(failure.clone()),
            feed: Arc::default(),
        };
        let (request, mut answer) = oneshot::channel();
        video.photo(request);
        assert_eq!(answer.try_recv(), Ok(Err(failure)));
    }
}
