//! What every pipeline here needs: elements by name, messages as a channel, and a shutdown that cannot hang the
//! daemon.

use std::sync::Arc;
use std::time::Duration;

use gstreamer::{self as gst, prelude::*};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::protocol::{Cause, Failure};

/// Setting a pipeline to NULL takes 1 to 60 ms; some drivers never return from it.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(2);

/// A probe's way to leave a buffer out. `Drop` would do, but GStreamer 1.22 complains each time that the bindings have
/// already freed the buffer (`gst_mini_object_unref: assertion 'mini_object != NULL' failed`).
pub const LEAVE_OUT: gst::PadProbeReturn = gst::PadProbeReturn::Handled;

/// Makes an element by its factory's name.
pub fn element(factory: &str, name: Option<&str>) -> Result<gst::Element, Failure> {
    let mut builder = gst::ElementFactory::make(factory);
    if let Some(name) = name {
        builder = builder.name(name);
    }
    builder.build().map_err(|_| {
        Failure::new(
            Cause::Internal,
            format!("GStreamer's element {factory} is missing; is its plugin package installed?"),
        )
    })
}

/// Sets a property from text, as GStreamer itself would read it, or says what is wrong.
pub fn set_property(element: &gst::Element, name: &str, value: &str) -> Result<(), Failure> {
    let unusable = || Failure::new(Cause::Internal, format!("{}: cannot set {name}={value}", element.name()));
    let spec = element.find_property(name).ok_or_else(unusable)?;
    let value = gst::glib::Value::deserialize_with_pspec(value, &spec).map_err(|_| unusable())?;
    element.set_property_from_value(name, &value);
    Ok(())
}

/// Adds the elements to the pipeline and links them in this order.
pub fn chain(pipeline: &gst::Pipeline, elements: &[&gst::Element]) -> Result<(), Failure> {
    let failed = |error: gst::glib::BoolError| Failure::new(Cause::Internal, error.to_string());
    for element in elements {
        if element.parent().is_none() {
            pipeline.add(*element).map_err(failed)?;
        }
    }
    gst::Element::link_many(elements).map_err(failed)
}

/// The errors of a pipeline's bus. Other messages are dropped where they are posted, so nothing piles up.
pub fn errors(pipeline: &gst::Pipeline) -> mpsc::Receiver<gst::Message> {
    let (sender, receiver) = mpsc::channel(8);
    let bus = pipeline.bus().expect("a pipeline has a bus");
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            // The first error is the cause; the rest are its consequences and may be lost when the channel is full.
            gst::MessageView::Error(_) | gst::MessageView::Eos(_) => drop(sender.try_send(message.clone())),
            gst::MessageView::Warning(warning) => {
                tracing::debug!(source = ?message.src().map(GstObjectExt::name), warning = %warning.error(), "GStreamer");
            }
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
    receiver
}

/// Makes timestamps the monotonic clock's time.
pub fn on_absolute_time(pipeline: &gst::Pipeline) {
    pipeline.use_clock(Some(&gst::SystemClock::obtain()));
    pipeline.set_start_time(gst::ClockTime::NONE);
    pipeline.set_base_time(gst::ClockTime::ZERO);
}

/// Starts a pipeline on a separate thread, since opening a device may block, perhaps for ever. The caller sets the
/// deadline; a caller that stops waiting must shut the pipeline down.
pub async fn play(pipeline: &gst::Pipeline) -> Result<(), Failure> {
    let pipeline = pipeline.clone();
    let started = tokio::task::spawn_blocking(move || pipeline.set_state(gst::State::Playing)).await;
    match started {
        // The bus says why it failed.
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(Cause::Internal, error.to_string())),
    }
}

/// Ends a pipeline. One that does not end in time is left to its thread and never used again; a leak, but the daemon
/// lives (reports of such drivers: gst-rpicamsrc, tiscamera, livekit/egress 407).
pub async fn shut_down(pipeline: gst::Pipeline, what: &'static str) {
    let _ = shut_down_from(None, pipeline, what).await;
}

/// Ends a pipeline, `first` before its other elements. The error is the thread that hangs; it ends when the driver
/// returns.
pub async fn shut_down_from(
    first: Option<gst::Element>,
    pipeline: gst::Pipeline,
    what: &'static str,
) -> Result<(), JoinHandle<()>> {
    let bus = pipeline.bus();
    let mut ended = tokio::task::spawn_blocking(move || {
        if let Some(first) = first {
            let _ = first.set_state(gst::State::Null);
        }
        let _ = pipeline.set_state(gst::State::Null);
    });
    let in_time = tokio::time::timeout(TEARDOWN_LIMIT, &mut ended).await.is_ok();
    if !in_time {
        tracing::error!(what, limit = ?TEARDOWN_LIMIT, "pipeline does not end; left behind");
    }
    if let Some(bus) = bus {
        bus.unset_sync_handler();
    }
    if in_time { Ok(()) } else { Err(ended) }
}

/// An encoded buffer, mapped, with its decoder configuration.
pub struct EncodedUnit {
    /// Presentation time on the capture clock.
    pub pts: Duration,
    /// Decoding time on the capture clock.
    pub dts: Duration,
    /// Decoding can begin here.
    pub key: bool,
    /// The encoded bytes.
    pub data: gst::MappedBuffer<gst::buffer::Readable>,
    /// `codec_data` of the caps.
    pub config: Arc<[u8]>,
}

impl EncodedUnit {
    /// Reads a sample. `known` caches the configuration, so that an unchanged one is not copied again. `None` for
    /// samples without a time or a configuration.
    pub fn read(sample: &gst::Sample, known: &mut Option<Arc<[u8]>>) -> Option<Self> {
        let codec_data = sample.caps()?.structure(0)?.get::<gst::Buffer>("codec_data").ok()?;
        let codec_data = codec_data.map_readable().ok()?;
        let config = match known {
            Some(config) if **config == *codec_data.as_slice() => config.clone(),
            _ => known.insert(Arc::from(codec_data.as_slice())).clone(),
        };
        let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
        let buffer = sample.buffer_owned()?;
        let running = |time: Option<gst::ClockTime>| segment.to_running_time_full(time).and_then(gst::Signed::positive);
        let pts = Duration::from_nanos(running(buffer.pts())?.nseconds());
        let dts = running(buffer.dts()).map_or(pts, |dts| Duration::from_nanos(dts.nseconds()));
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let data = buffer.into_mapped_buffer_readable().ok()?;
        Some(Self { pts, dts, key, data, config })
    }
}
