//! Short tones for the wearer, who does not see a screen: a stream begins or ends, or the battery forbids it.

use std::time::Duration;

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::AppSrc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::pipeline;
use crate::protocol::{Cause, Failure};

/// Samples per second; one channel.
const RATE: u32 = 48_000;
/// A third of full scale: it sounds beside an ear.
const LOUDNESS: f64 = 0.3;
/// Each note fades in and out over this time, to avoid a click.
const RAMP_S: f64 = 0.008;
/// Limit for one chime, including opening a slow device.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last chime.
const LAST: Duration = Duration::from_secs(1);
/// Chimes that may wait; any beyond are dropped, since more would only be noise.
const WAITING: usize = 4;

/// A chime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chime {
    /// A stream is live: two rising notes.
    Begun,
    /// The stream is over: two falling notes.
    Ended,
    /// The battery ends a stream or refuses it: three low notes.
    BatteryLow,
}

impl Chime {
    /// The notes: Hz (0 is a rest) and seconds.
    fn notes(self) -> &'static [(f64, f64)] {
        match self {
            Self::Begun => &[(660.0, 0.12), (880.0, 0.18)],
            Self::Ended => &[(880.0, 0.12), (660.0, 0.18)],
            Self::BatteryLow => &[(330.0, 0.15), (0.0, 0.08), (330.0, 0.15), (0.0, 0.08), (330.0, 0.3)],
        }
    }

    /// The samples as S16LE.
    fn samples(self) -> Vec<u8> {
        let note = |&(frequency, seconds): &(f64, f64)| {
            (0..(seconds * f64::from(RATE)) as u32).flat_map(move |number| {
                let at = f64::from(number) / f64::from(RATE);
                let ramp = (at.min(seconds - at) / RAMP_S).min(1.0);
                let value = LOUDNESS * ramp * (std::f64::consts::TAU * frequency * at).sin();
                ((value * f64::from(i16::MAX)) as i16).to_le_bytes()
            })
        };
        self.notes().iter().flat_map(note).collect()
    }
}

/// Plays one chime after another.
#[derive(Debug)]
pub struct Speaker {
    queue: mpsc::Sender<Chime>,
    task: JoinHandle<()>,
}

impl Speaker {
    /// Plays on this ALSA device, which is opened for each chime and then closed.
    pub fn start(device: String) -> Self {
        let (queue, mut chimes) = mpsc::channel(WAITING);
        let task = tokio::spawn(async move {
            while let Some(chime) = chimes.recv().await {
                if let Err(failure) = play(&device, chime).await {
                    tracing::warn!(?chime, device, reason = failure.detail, "cannot play");
                }
            }
        });
        Self { queue, task }
    }

    /// Plays the chime after those that wait.
    pub fn play(&self, chime: Chime) {
        let _ = self.queue.try_send(chime); // nobody misses a fifth
    }

    /// Plays what still waits, within the time of one chime.
    pub async fn end(self) {
        drop(self.queue);
        let _ = tokio::time::timeout(LAST, self.task).await; // a device that hangs is left to its thread
    }
}

async fn play(device: &str, chime: Chime) -> Result<(), Failure> {
    let caps = gst::Caps::builder("audio/x-raw")
        .field("format", "S16LE")
        .field("layout", "interleaved")
        .field("rate", RATE as i32)
        .field("channels", 1_i32)
        .build();
    let source = AppSrc::builder().caps(&caps).format(gst::Format::Time).build();
    let sink = pipeline::element("alsasink", None)?;
    sink.set_property("device", device);
    let elements = gst::Pipeline::new();
    let (convert, resample) = (pipeline::element("audioconvert", None)?, pipeline::element("audioresample", None)?);
    pipeline::chain(&elements, &[source.upcast_ref(), &convert, &resample, &sink])?;
    let samples = chime.samples();
    let length = gst::ClockTime::SECOND * (samples.len() / 2) as u64 / u64::from(RATE);
    let mut buffer = gst::Buffer::from_slice(samples);
    let times = buffer.get_mut().expect("nobody else has it yet");
    times.set_pts(gst::ClockTime::ZERO);
    times.set_duration(length);
    let mut news = pipeline::errors(&elements);
    // Both fail only if the pipeline has already failed, which its bus reports.
    let _ = source.push_buffer(buffer);
    let _ = source.end_of_stream();
    let over = async {
        pipeline::play(&elements).await.map_err(|failure| failure.detail)?;
        let message = news.recv().await;
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => Err(error.error().to_string()),
            _ => Ok(()),
        }
    };
    // A driver may hang while it opens the device.
    let outcome =
        tokio::time::timeout(LIMIT, over).await.unwrap_or_else(|_| Err(format!("did not finish within {LIMIT:?}")));
    pipeline::shut_down(elements, "chime").await;
    outcome.map_err(|why| Failure::new(Cause::AudioFailed, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chimes_are_short_and_begin_and_end_in_silence() {
        for chime in [Chime::Begun, Chime::Ended, Chime::BatteryLow] {
            let samples: Vec<i16> =
                chime.samples().chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
            assert!((RATE as usize / 5..RATE as usize).contains(&samples.len()), "{chime:?}");
            assert!(samples[0].abs() < 200 && samples[samples.len() - 1].abs() < 2000, "{chime:?}");
            let loudest = samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
            assert!((8_000..11_000).contains(&loudest), "{chime:?}: {loudest}");
        }
    }
}
