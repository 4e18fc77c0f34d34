//! Sound: from ALSA or a test tone, to AAC, into the feed. It has its own pipeline, so that a microphone that fails or
//! is unplugged never affects the picture.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSinkCallbacks};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::failure::element_name;
use super::feed::{Feed, Unit};
use super::pipeline;
use crate::protocol::{AudioSettings, Cause, Failure};

/// Where sound comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudioSource {
    /// A tone of 440 Hz.
    Test,
    /// An ALSA capture device, for example `default` or `hw:1,0`.
    Alsa(String),
}

impl AudioSource {
    /// The source for the configured `test`, `none`, `auto` or ALSA device name. `auto` is the test tone beside the
    /// test picture, otherwise the default ALSA device if any device records.
    pub fn select(wanted: &str, beside_test_picture: bool) -> Option<Self> {
        match wanted {
            "none" => None,
            "test" => Some(Self::Test),
            "auto" if beside_test_picture => Some(Self::Test),
            "auto" => records_sound(Path::new("/dev/snd")).then(|| Self::Alsa("default".into())),
            device => Some(Self::Alsa(device.to_owned())),
        }
    }

    /// Name for the status.
    pub fn name(&self) -> &str {
        match self {
            Self::Test => "test tone",
            Self::Alsa(device) => device,
        }
    }
}

/// Whether any ALSA device records: those are named like `pcmC0D1c` there. `/proc/asound` lists them too, but a
/// service with `ProcSubset=pid` cannot see it.
fn records_sound(devices: &Path) -> bool {
    let is_capture = |name: &str| name.starts_with("pcmC") && name.ends_with('c');
    std::fs::read_dir(devices)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_capture)))
}

/// A GStreamer element that encodes AAC-LC.
#[derive(Debug)]
struct Encoder {
    name: &'static str,
    /// Sample format of its input.
    format: &'static str,
    /// Samples by which decoded sound lags behind the input, at every rate and bitrate. No element subtracts this from
    /// its timestamps, so sound would be late by it: 36 ms at 44.1 kHz with voaacenc.
    delay: u32,
}

impl Encoder {
    /// The first encoder that is installed.
    fn select() -> Option<&'static Self> {
        ENCODERS.iter().find(|encoder| gst::ElementFactory::find(encoder.name).is_some())
    }

    /// [`Self::delay`] as time.
    fn delay_at(&self, rate: u32) -> Duration {
        Duration::from_secs(self.delay.into()) / rate
    }
}

/// Lightest first: `avenc_aac` loads all of libavcodec. Delays are measured at 22.05 to 48 kHz and 32 to 128 kbit/s
/// (one of them in the test below), except for fdkaacenc, which Debian does not have: 2048 is documented for
/// libfdk-aac's AAC-LC.
const ENCODERS: [Encoder; 3] = [
    Encoder { name: "voaacenc", format: "S16LE", delay: 1600 },
    Encoder { name: "fdkaacenc", format: "S16LE", delay: 2048 },
    Encoder { name: "avenc_aac", format: "F32LE", delay: 1024 },
];

/// Sound capture.
#[derive(Debug)]
pub struct AudioPipeline {
    /// Error messages of the pipeline.
    pub errors: mpsc::Receiver<gst::Message>,
    pipeline: gst::Pipeline,
}

impl AudioPipeline {
    /// Builds the capture. It must be stopped, whether or not it was started.
    pub fn new(source: &AudioSource, settings: &AudioSettings, feed: Arc<Feed>) -> Result<Self, Failure> {
        let pipeline = build(source, settings, feed)?;
        Ok(Self { errors: pipeline::errors(&pipeline), pipeline })
    }

    /// Starts the capture. A driver may hang here: the caller sets the deadline.
    pub async fn start(&self) -> Result<(), Failure> {
        pipeline::play(&self.pipeline).await
    }

    /// Ends the capture; see `pipeline::shut_down_from`.
    pub async fn stop(self) -> Result<(), JoinHandle<()>> {
        pipeline::shut_down_from(None, self.pipeline, "audio capture").await
    }

    /// A capture that hangs in opening its device until the other end of `held` is dropped.
    #[cfg(test)]
    pub fn hanging(held: Arc<Mutex<std::sync::mpsc::Receiver<()>>>) -> Self {
        let pipeline = gst::Pipeline::new();
        // Called by the thread that changes the state, while it holds the pipeline's lock.
        pipeline.bus().unwrap().set_sync_handler(move |_, _| {
            let _ = held.lock().unwrap().recv();
            gst::BusSyncReply::Drop
        });
        Self { errors: mpsc::channel(1).1, pipeline }
    }
}

fn build(source: &AudioSource, settings: &AudioSettings, feed: Arc<Feed>) -> Result<gst::Pipeline, Failure> {
    let source = microphone(source)?;
    let chosen = Encoder::select()
        .ok_or_else(|| Failure::new(Cause::AudioFailed, "no AAC encoder; install gstreamer1.0-plugins-bad"))?;
    let queue = pipeline::element("queue", None)?;
    let convert = pipeline::element("audioconvert", None)?;
    let resample = pipeline::element("audioresample", None)?;
    let raw = pipeline::element("capsfilter", None)?;
    raw.set_property(
        "caps",
        gst::Caps::builder("audio/x-raw")
            .field("format", chosen.format)
            .field("rate", settings.sample_rate as i32)
            .field("channels", 1)
            .build(),
    );
    let encoder = pipeline::element(chosen.name, None)?;
    encoder.set_property_from_str("bitrate", &settings.bitrate.to_string());
    let parse = pipeline::element("aacparse", None)?;
    let sink = AppSink::builder()
        .caps(&gst::Caps::builder("audio/mpeg").field("mpegversion", 4).field("stream-format", "raw").build())
        .sync(false)
        .async_(false)
        .max_buffers(32)
        .drop(true)
        .callbacks(into_feed(feed, chosen.delay_at(settings.sample_rate)))
        .build();
    let pipeline = gst::Pipeline::new();
    pipeline::on_absolute_time(&pipeline);
    pipeline::chain(&pipeline, &[&source, &queue, &convert, &resample, &raw, &encoder, &parse, sink.upcast_ref()])?;
    Ok(pipeline)
}

/// The element that records, live.
pub(super) fn microphone(source: &AudioSource) -> Result<gst::Element, Failure> {
    Ok(match source {
        AudioSource::Test => {
            let tone = pipeline::element("audiotestsrc", Some(element_name::MICROPHONE))?;
            tone.set_property("is-live", true);
            tone.set_property("samplesperbuffer", 1024_i32);
            tone
        }
        AudioSource::Alsa(device) => {
            let microphone = pipeline::element("alsasrc", Some(element_name::MICROPHONE))?;
            microphone.set_property("device", device);
            // The card's own clock drifts against the camera's; resampling to the pipeline's keeps them in step.
            microphone.set_property("provide-clock", false);
            microphone.set_property_from_str("slave-method", "resample");
            microphone.set_property("buffer-time", 200_000_i64);
            microphone.set_property("latency-time", 20_000_i64);
            microphone
        }
    })
}

fn into_feed(feed: Arc<Feed>, delay: Duration) -> AppSinkCallbacks {
    let config: Mutex<Option<Arc<[u8]>>> = Mutex::new(None);
    AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let mut config = config.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(unit) = pipeline::EncodedUnit::read(&sample, &mut config) {
                let pts = unit.pts.saturating_sub(delay);
                feed.audio(Unit {
                    opening: 0,
                    pts,
                    dts: pts,
                    key: true,
                    data: &unit.data,
                    config: &unit.config,
                    size: (0, 0),
                });
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_only_plays_is_no_microphone() {
        let devices = tempfile::tempdir().unwrap();
        assert!(!records_sound(&devices.path().join("no sound at all")));
        for name in ["timer", "seq", "controlC0", "pcmC0D3p"] {
            std::fs::write(devices.path().join(name), "").unwrap();
        }
        assert!(!records_sound(devices.path()));
        std::fs::write(devices.path().join("pcmC1D0c"), "").unwrap();
        assert!(records_sound(devices.path()));
    }

    #[test]
    fn the_test_picture_has_a_test_tone() {
        assert_eq!(AudioSource::select("auto", true), Some(AudioSource::Test));
        assert_eq!(AudioSource::select("none", true), None);
        assert_eq!(AudioSource::select("hw:1,0", false), Some(AudioSource::Alsa("hw:1,0".into())));
    }

    /// The sample at which the click of [`CLICK`] appears after encoding and decoding.
    fn decoded_click(encoder: &Encoder, rate: u32) -> usize {
        let line = format!(
            "appsrc name=in ! audio/x-raw,format=S16LE,layout=interleaved,rate={rate},channels=1 ! audioconvert ! \
             {} ! aacparse ! avdec_aac ! audioconvert ! audio/x-raw,format=S16LE ! appsink name=out sync=false",
            encoder.name
        );
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let source = pipeline.by_name("in").unwrap().downcast::<gstreamer_app::AppSrc>().unwrap();
        let sink = pipeline.by_name("out").unwrap().downcast::<AppSink>().unwrap();
        source.set_format(gst::Format::Time);
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut samples = vec![0_u8; 2 * 20_000];
        samples[2 * CLICK..2 * CLICK + 2].copy_from_slice(&i16::MAX.to_le_bytes());
        let mut buffer = gst::Buffer::from_mut_slice(samples);
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::ZERO);
        source.push_buffer(buffer).unwrap();
        source.end_of_stream().unwrap();
        let mut decoded = Vec::new();
        while let Ok(sample) = sink.pull_sample() {
            let map = sample.buffer().unwrap().map_readable().unwrap();
            decoded.extend(map.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
        }
        pipeline.set_state(gst::State::Null).unwrap();
        let (place, _) = decoded.iter().enumerate().max_by_key(|(_, level)| **level).unwrap();
        place
    }

    const CLICK: usize = 9_137;

    #[test]
    fn encoders_delay_sound_by_what_is_taken_off() {
        crate::media::init().unwrap();
        let installed = ENCODERS.iter().filter(|encoder| gst::ElementFactory::find(encoder.name).is_some());
        let mut measured = 0;
        for encoder in installed {
            for rate in [22_050, 44_100, 48_000] {
                assert_eq!(decoded_click(encoder, rate), CLICK + encoder.delay as usize, "{encoder:?} at {rate} Hz");
            }
            measured += 1;
        }
        assert!(measured > 0, "no AAC encoder");
        assert_eq!(ENCODERS[0].delay_at(44_100).as_millis(), 36);
    }
}
