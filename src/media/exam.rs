//! Examines one part of a board at a time, for `lenscastctl doctor --full`: a camera mode, an encoder with real pictures, a
//! microphone. It uses the elements of a capture. The daemon must have lent the camera, or not need it.
//!
//! Each examination blocks as long as it measures. A driver may never return, so the caller keeps a deadline.

mod encoder;
mod sound;

use std::path::Path;
use std::time::{Duration, Instant};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::AppSink;

use super::{failure, memory, pipeline, source};
use crate::camera::Mode;
use crate::protocol::{Cause, Failure};

pub use encoder::{Encoded, encoder};
pub use sound::{Heard, RATE as SOUND_RATE, sound};

/// Limit of the wait for a picture: the first one may take a USB camera two seconds.
const PICTURE_LIMIT: Duration = Duration::from_secs(5);

/// What a camera delivered in one of its modes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pictures {
    /// Pictures that were delivered.
    pub count: u32,
    /// From opening the device to the first picture.
    pub first_after: Duration,
    /// Pictures a second, from the first to the last.
    pub rate: f64,
    /// Pictures that the driver counted but did not deliver.
    pub missed: u64,
}

/// Opens the camera in this mode and takes pictures for `time`, at least two.
///
/// # Errors
/// Those of a capture: who holds the camera, or what the driver says.
pub fn camera(node: &Path, mode: &Mode, time: Duration) -> Result<Pictures, Failure> {
    let sink = AppSink::builder().sync(false).max_buffers(4).build();
    let mut elements = source::camera_alone(node, mode)?;
    elements.push(sink.clone().upcast());
    let running = Running::start(&elements, None)?;
    let (mut first, mut last, mut count, mut missed, mut next) = (None, Instant::now(), 0, 0, None);
    while count < 2 || first.is_some_and(|first: Instant| first.elapsed() < time) {
        let sample = running.sample(&sink, PICTURE_LIMIT, Cause::CameraStalled)?;
        last = Instant::now();
        first.get_or_insert(last);
        count += 1;
        // All ones: this driver does not number its pictures.
        let number = sample.buffer().map(gst::BufferRef::offset).filter(|number| *number != u64::MAX);
        if let (Some(number), Some(expected)) = (number, next) {
            missed += number.saturating_sub(expected);
        }
        next = number.map(|number| number + 1);
    }
    let first = first.unwrap_or(last);
    let rate = f64::from(count - 1) / (last - first).as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(Pictures { count, first_after: first - running.begun, rate, missed })
}

/// A pipeline that plays, and ends when this is dropped.
struct Running {
    pipeline: gst::Pipeline,
    /// The element that must end first; see [`super::encoder::Encoder::ends_first`].
    ends_first: Option<gst::Element>,
    begun: Instant,
}

impl Running {
    fn start(elements: &[gst::Element], ends_first: Option<gst::Element>) -> Result<Self, Failure> {
        let pipeline = gst::Pipeline::new();
        pipeline::chain(&pipeline, &elements.iter().collect::<Vec<_>>())?;
        let this = Self { pipeline, ends_first, begun: Instant::now() };
        let _ = this.pipeline.set_state(gst::State::Playing); // why it fails is on the bus
        Ok(this)
    }

    /// The next sample, or why there is none within `limit`: `silent` if nothing is said.
    fn sample(&self, sink: &AppSink, limit: Duration, silent: Cause) -> Result<gst::Sample, Failure> {
        let limit = gst::ClockTime::from_mseconds(limit.as_millis() as u64);
        if let Some(sample) = sink.try_pull_sample(limit) {
            return Ok(sample);
        }
        let said = self.pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        Err(match said.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => failure::of_capture(error),
            _ => Failure::new(silent, format!("nothing came for {} s", limit.seconds())),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(first) = &self.ends_first {
            let _ = first.set_state(gst::State::Null);
        }
        let _ = self.pipeline.set_state(gst::State::Null);
        memory::give_back();
    }
}
