//! Examines a microphone: its level, its rate, and whether samples are missing.

use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app::AppSink;

use super::Running;
use crate::media::audio::{self, AudioSource};
use crate::media::pipeline;
use crate::protocol::{Cause, Failure};

/// Requested samples per second: the default of a stream.
pub const RATE: u32 = 44_100;
/// Limit of the wait for sound.
const SAMPLE_LIMIT: Duration = Duration::from_secs(5);

/// What a microphone delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heard {
    /// Samples per second by this machine's clock. [`RATE`] were requested.
    pub rate: f64,
    /// Mean level in dBFS; -96 is silence in 16 bits.
    pub mean_db: f64,
    /// Peak level in dBFS.
    pub peak_db: f64,
    /// How often sound was missing.
    pub gaps: u32,
}

/// Records for `time`.
///
/// # Errors
/// Those of a capture.
pub fn sound(source: &AudioSource, time: Duration) -> Result<Heard, Failure> {
    let convert = pipeline::element("audioconvert", None)?;
    let resample = pipeline::element("audioresample", None)?;
    let caps = gst::Caps::builder("audio/x-raw")
        .field("format", "S16LE")
        .field("rate", RATE as i32)
        .field("channels", 1)
        .field("layout", "interleaved");
    let sink = AppSink::builder().caps(&caps.build()).sync(false).max_buffers(64).build();
    let elements = [audio::microphone(source)?, convert, resample, sink.clone().into()];
    let running = Running::start(&elements, None)?;
    // The first buffer was recorded before it arrived, so only later ones count.
    running.sample(&sink, SAMPLE_LIMIT, Cause::AudioFailed)?;
    let begun = Instant::now();
    let (mut loudness, mut last) = (Loudness::default(), begun);
    let mut gaps = 0;
    while begun.elapsed() < time {
        let sample = running.sample(&sink, SAMPLE_LIMIT, Cause::AudioFailed)?;
        last = Instant::now();
        let Some(buffer) = sample.buffer() else { continue };
        gaps += u32::from(buffer.flags().contains(gst::BufferFlags::DISCONT));
        if let Ok(bytes) = buffer.map_readable() {
            loudness.add(&bytes);
        }
    }
    let rate = loudness.samples as f64 / (last - begun).as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(Heard { rate, mean_db: loudness.mean_db(), peak_db: decibel(f64::from(loudness.peak)), gaps })
}

#[derive(Default)]
struct Loudness {
    samples: u64,
    squares: f64,
    peak: u16,
}

impl Loudness {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(2) {
            let sample = i16::from_le_bytes([pair[0], pair[1]]);
            self.samples += 1;
            self.squares += f64::from(sample).powi(2);
            self.peak = self.peak.max(sample.unsigned_abs());
        }
    }

    fn mean_db(&self) -> f64 {
        decibel((self.squares / self.samples.max(1) as f64).sqrt())
    }
}

/// Of the largest sample; not below what one bit says.
fn decibel(amplitude: f64) -> f64 {
    20.0 * (amplitude.max(0.5) / f64::from(i16::MAX)).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_as_loud_as_it_is_and_has_no_gaps() {
        crate::media::init().unwrap();
        let heard = sound(&AudioSource::Test, Duration::from_secs(2)).unwrap();
        // audiotestsrc's volume is 0.8; a sine's mean is 3 dB below its peak.
        assert!((-2.2..-1.7).contains(&heard.peak_db) && (-5.2..-4.7).contains(&heard.mean_db), "{heard:?}");
        assert!((0.9..1.1).contains(&(heard.rate / f64::from(RATE))), "{heard:?}");
        assert_eq!(heard.gaps, 0);
    }

    #[test]
    fn silence_is_the_bottom() {
        let mut silence = Loudness::default();
        silence.add(&[0; 200]);
        assert!(silence.mean_db() < -95.0 && silence.peak == 0);
    }
}
