//! Examines an encoder with a camera's pictures: its rate, two bitrates, a key frame on request.

use std::time::Duration;

use gstreamer::prelude::*;
use gstreamer_app::AppSink;

use super::{PICTURE_LIMIT, Running};
use crate::media::encoder::{Encoder, avc_caps};
use crate::media::pipeline::{self, EncodedUnit};
use crate::media::profile::Profile;
use crate::media::source::{self, Rotation, VideoSource};
use crate::protocol::{Cause, Failure, VideoSettings};

/// The time for an encoder's rate control to follow a new target.
const SETTLE: Duration = Duration::from_secs(1);

/// What an encoder made.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Its element.
    pub element: String,
    /// Each target and the result, bit/s. An encoder whose target cannot change while it runs has only the first.
    pub bitrates: Vec<(u32, u64)>,
    /// Why there is no second target.
    pub fixed: Option<String>,
    /// Pictures per second that it delivered.
    pub rate: f64,
    /// Pictures up to the requested key frame, which is the last of them; `None` if none came before the regular one.
    pub key_frame_after: Option<u32>,
}

/// Encodes the pictures of `source` with two targets in bit/s, for `each` time.
///
/// # Errors
/// Those of a capture.
pub fn encoder(
    profile: &Profile,
    source: &VideoSource,
    settings: &VideoSettings,
    targets: [u32; 2],
    each: Duration,
) -> Result<Encoded, Failure> {
    let [first, second] = targets;
    let settings = VideoSettings { bitrate: first, ..*settings };
    let encoder = Encoder::build(profile, &settings)?;
    let mut elements = source::elements(source, &settings, Rotation::None, Some(profile))?;
    // As in a capture: the camera never waits for an encoder that is too slow, which shows in the rate.
    let queue = pipeline::element("queue", None)?;
    queue.set_property("max-size-buffers", 3_u32);
    queue.set_property_from_str("leaky", "downstream");
    let filter = pipeline::element("capsfilter", None)?;
    filter.set_property("caps", &encoder.caps);
    let sink = AppSink::builder().caps(&avc_caps()).sync(false).max_buffers(8).build();
    let tee = pipeline::element("tee", None)?; // hands no pools on, see `trial::keep_pool`
    let parse = pipeline::element("h264parse", None)?;
    elements.extend([tee, queue, encoder.element.clone(), filter, parse, sink.clone().upcast()]);
    let running = Running::start(&elements, Some(encoder.element.clone()))?;
    let mut units = Units { running: &running, sink: &sink, began: None };

    units.pass(SETTLE)?;
    let before = units.measure(each)?;
    let key_frame_after = units.key_frame(&encoder.key_frame_request(), settings.frame_rate)?;
    let mut bitrates = vec![(first, before.bitrate)];
    let fixed = encoder.set_bitrate(second).err();
    if fixed.is_none() {
        units.pass(SETTLE)?;
        bitrates.push((second, units.measure(each)?.bitrate));
    }
    let element = encoder.element.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
    Ok(Encoded { element, bitrates, fixed, rate: before.rate, key_frame_after })
}

struct Measured {
    bitrate: u64,
    rate: f64,
}

/// Encoded pictures as they come.
struct Units<'a> {
    running: &'a Running,
    sink: &'a AppSink,
    /// The time of the first, by the camera's clock.
    began: Option<Duration>,
}

impl Units<'_> {
    /// The next picture: its time, its bytes, and whether it is a key frame.
    fn next(&mut self) -> Result<(Duration, usize, bool), Failure> {
        let sample = self.running.sample(self.sink, PICTURE_LIMIT, Cause::EncoderStalled)?;
        let unit = EncodedUnit::read(&sample, &mut None)
            .ok_or_else(|| Failure::new(Cause::EncoderFailed, "it gives pictures without time or configuration"))?;
        let began = *self.began.get_or_insert(unit.pts);
        Ok((unit.pts.saturating_sub(began), unit.data.len(), unit.key))
    }

    fn pass(&mut self, time: Duration) -> Result<(), Failure> {
        let (from, ..) = self.next()?;
        while self.next()?.0 < from + time {}
        Ok(())
    }

    /// Over whole seconds of pictures, since key frames are large and a second apart.
    fn measure(&mut self, time: Duration) -> Result<Measured, Failure> {
        let (from, mut bytes, _) = self.next()?;
        let mut pictures = 1_u32;
        loop {
            let (at, length, _) = self.next()?;
            if at >= from + time {
                let seconds = at.saturating_sub(from).as_secs_f64();
                return Ok(Measured {
                    bitrate: (bytes as f64 * 8.0 / seconds) as u64,
                    rate: f64::from(pictures) / seconds,
                });
            }
            bytes += length;
            pictures += 1;
        }
    }

    /// Asks for a key frame soon after one came by itself, so that the next of those is most of a second away.
    fn key_frame(&mut self, request: &dyn Fn(), frame_rate: u32) -> Result<Option<u32>, Failure> {
        let patience = (frame_rate / 2).max(2);
        for _ in 0..3 * frame_rate {
            if self.next()?.2 {
                break;
            }
        }
        for _ in 0..frame_rate / 5 {
            self.next()?;
        }
        request();
        for number in 1..=patience {
            if self.next()?.2 {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::profile;

    #[test]
    fn x264_keeps_its_bitrates_and_gives_a_key_frame_when_asked() {
        crate::media::init().unwrap();
        let profile = profile::load(&[]).unwrap().into_iter().find(|profile| profile.name == "x264").unwrap();
        let source = VideoSource::Test { pattern: "smpte".into() };
        let settings = VideoSettings { width: 320, height: 240, frame_rate: 30, bitrate: 0 };
        let made = encoder(&profile, &source, &settings, [300_000, 600_000], Duration::from_secs(2)).unwrap();
        assert_eq!(made.element, "x264enc");
        let [(300_000, low), (600_000, high)] = *made.bitrates else { panic!("{made:?}") };
        assert!((200_000..400_000).contains(&low) && (450_000..750_000).contains(&high), "{made:?}");
        assert!(made.key_frame_after.is_some_and(|after| after <= 5), "{made:?}");
        assert!((27.0..33.0).contains(&made.rate), "{made:?}");
    }
}
