//! A trial: encodes noise as fast as the encoder can.

use std::path::PathBuf;
use std::time::Duration;

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::AppSink;

use super::{Encoder, avc_caps, raw_caps};
use crate::media::profile::Profile;
use crate::media::{memory, pipeline};
use crate::protocol::{Cause, Failure, VideoSettings};

/// Pictures encoded in a trial: more than any encoder's delay, few enough for a quick start.
const TRIAL_PICTURES: i32 = 15;
/// Limit for each picture.
const PICTURE_LIMIT: Duration = Duration::from_secs(3);

/// The result of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The element that was used.
    pub element: String,
    /// `profile_idc` and `level_idc` of the stream, as in the `avcC` record.
    pub profile_and_level: (u8, u8),
    /// Bit/s that the noise took, and bit/s requested.
    pub bitrate: (u32, u32),
    /// Pictures per second at full speed, including the start.
    pub speed: u32,
    /// The encoder's device node, if it has one.
    pub device: Option<PathBuf>,
}

/// Encodes noise with this profile.
pub(super) fn try_out(profile: &Profile, settings: &VideoSettings) -> Result<Trial, Failure> {
    // The size matters to hardware only, and a large one would be costly in software.
    let (width, height) = if profile.hardware { (settings.width, settings.height) } else { (320, 240) };
    let settings = VideoSettings { width, height, bitrate: settings.bitrate.min(1_000_000), ..*settings };
    let encoder = Encoder::build(profile, &settings)?;
    let source = pipeline::element("videotestsrc", None)?;
    source.set_property("num-buffers", TRIAL_PICTURES);
    source.set_property_from_str("pattern", "snow");
    let raw = pipeline::element("capsfilter", None)?;
    let rate = gst::Fraction::new(settings.frame_rate as i32, 1);
    raw.set_property("caps", raw_caps(&profile.raw_formats, &settings, rate)?);
    let filter = pipeline::element("capsfilter", None)?;
    filter.set_property("caps", &encoder.caps);
    let parse = pipeline::element("h264parse", None)?;
    let sink = AppSink::builder().caps(&avc_caps()).sync(false).build();
    keep_pool(&encoder.element);
    let elements = gst::Pipeline::new();
    pipeline::chain(&elements, &[&source, &raw, &encoder.element, &filter, &parse, sink.upcast_ref()])?;
    let name = encoder.element.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
    let mut outcome = run_trial(&elements, &sink, &name, &settings);
    let element = encoder.ends_first();
    let _ = element.set_state(gst::State::Null);
    let _ = elements.set_state(gst::State::Null);
    if let Ok(trial) = &mut outcome {
        trial.device = device(&element);
    }
    memory::give_back();
    outcome
}

fn run_trial(elements: &gst::Pipeline, sink: &AppSink, name: &str, settings: &VideoSettings) -> Result<Trial, Failure> {
    let failed = |why: &str| Failure::new(Cause::EncoderFailed, format!("{name} {why}"));
    let _ = elements.set_state(gst::State::Playing); // why it fails is on the bus
    let limit = gst::ClockTime::from_mseconds(PICTURE_LIMIT.as_millis() as u64);
    let start = std::time::Instant::now();
    let (mut pictures, mut bytes, mut profile_and_level) = (0_u32, 0_usize, None);
    while let Some(sample) = sink.try_pull_sample(limit) {
        let Some(unit) = pipeline::EncodedUnit::read(&sample, &mut None) else {
            return Err(failed("gives pictures without time or configuration"));
        };
        if pictures == 0 && !unit.key {
            return Err(failed("does not begin with a key frame"));
        }
        pictures += 1;
        bytes += unit.data.len();
        if let [_, profile, _, level, ..] = *unit.config {
            profile_and_level = Some((profile, level));
        }
    }
    if pictures < TRIAL_PICTURES as u32 {
        let said = elements.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        return Err(match said.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => failed(&format!("fails: {}", error.error())),
            _ => failed(&format!("gave {pictures} of {TRIAL_PICTURES} pictures")),
        });
    }
    let measured = bytes as u64 * 8 * u64::from(settings.frame_rate) / u64::from(pictures);
    Ok(Trial {
        element: name.to_owned(),
        profile_and_level: profile_and_level.ok_or_else(|| failed("gives no SPS"))?,
        bitrate: (measured as u32, settings.bitrate),
        speed: (f64::from(pictures) / start.elapsed().as_secs_f64()) as u32,
        device: None,
    })
}

/// Leaves the encoder its own pool. A source right before it would take the pool and activate it, and so make the
/// encoder leak (see [`Encoder::ends_first`]); in a capture there is a tee between, which passes no pools on.
fn keep_pool(encoder: &gst::Element) {
    let pad = encoder.static_pad("sink").expect("an encoder has a sink pad");
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| match info.query().map(gst::QueryRef::view) {
        Some(gst::QueryView::Allocation(_)) => gst::PadProbeReturn::Drop,
        _ => gst::PadProbeReturn::Ok,
    });
}

fn device(encoder: &gst::Element) -> Option<PathBuf> {
    encoder.find_property("device").filter(|spec| spec.value_type() == String::static_type())?;
    encoder.property::<Option<String>>("device").map(PathBuf::from)
}
