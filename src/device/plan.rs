//! Chooses what is opened, by the request and the hardware there is: the camera and its mode, the encoder, the microphone.

use std::sync::Arc;

use super::config::Config;
use crate::board::Light;
use crate::camera::{self, Device, FrameRate, PixelFormat, Selector, Wanted};
use crate::media::audio::AudioSource;
use crate::media::capture::Plan;
use crate::media::encoder::Encoders;
use crate::media::source::{Rotation, VideoSource};
use crate::media::video::VideoPlan;
use crate::policy::camera::CaptureSettings;
use crate::protocol::{Cause, Failure, Owner, OwnerKind, VideoSettings};

/// The pattern that `device = "test"` shows: colour bars to judge the picture by, and a corner of noise, so that the
/// encoder needs the bitrate that it is given, as with a camera's picture.
const TEST_PATTERN: &str = "smpte";

/// Looks at the hardware as it is now. Blocks for milliseconds, or for the trials of encoders that were not tried yet.
pub fn make(config: &Config, encoders: &Arc<Encoders>, wanted: &CaptureSettings) -> Result<Plan, Failure> {
    let (source, settings) = video_source(config, wanted.video)?;
    let profile = if source.is_h264() { None } else { Some(encoders.choose(&config.encoder.profile, &settings)?) };
    let is_test = matches!(source, VideoSource::Test { .. });
    let audio = AudioSource::select(&config.audio.device, is_test).map(|source| (source, wanted.audio));
    let mut video = VideoPlan { source, settings, rotation: config.camera.rotation, profile };
    let skip_copies = config.camera.zero_copy && VideoSource::sharing_may_work() && can_skip_copies(encoders, &video);
    if let VideoSource::V4l2 { zero_copy, .. } = &mut video.source {
        *zero_copy = skip_copies;
    }
    Ok(Plan { video, audio })
}

/// Switches the privacy light on before the camera is opened. Fails only where the camera requires the light.
pub fn light_up(config: &Config, light: Option<&Light>) -> Result<(), Failure> {
    match light.map(Light::settle) {
        Some(Err(error)) if config.privacy_led.require => Err(Failure::new(Cause::PrivacyLedFailed, error.to_string())),
        _ => Ok(()), // without it the watch warns
    }
}

/// Whether a V4L2 encoder can take the camera's buffers: nothing else has to be done to the pictures.
fn can_skip_copies(encoders: &Encoders, plan: &VideoPlan) -> bool {
    let (VideoSource::V4l2 { node, choice, .. }, Some(profile)) = (&plan.source, &plan.profile) else { return false };
    let taken = choice.mode.format.name().is_some_and(|name| profile.raw_formats.iter().any(|format| format == name));
    let asked = FrameRate::new(plan.settings.frame_rate, 1);
    let at_rate = choice.mode.frame_rate.is_some() && choice.mode.frame_rate <= asked;
    profile.takes_dmabuf
        && taken
        && at_rate
        && choice.is_untouched()
        && plan.rotation == Rotation::None
        && encoders.takes_buffers_of(node, choice, profile, &plan.settings)
}

/// The test pattern, if it is configured.
pub fn test_pattern(device: &str) -> Option<&str> {
    if device == "test" { Some(TEST_PATTERN) } else { device.strip_prefix("test:") }
}

fn video_source(config: &Config, wanted: VideoSettings) -> Result<(VideoSource, VideoSettings), Failure> {
    if let Some(pattern) = test_pattern(&config.camera.device) {
        return Ok((VideoSource::Test { pattern: pattern.to_owned() }, wanted));
    }
    let device = find(config)?;
    if device.no_signal {
        return Err(Failure::new(Cause::CameraNoSignal, format!("{} receives nothing", device.node.display())));
    }
    let frame_rate = FrameRate::new(wanted.frame_rate, 1)
        .ok_or_else(|| Failure::new(Cause::InvalidRequest, "a frame rate of 0 was asked for"))?;
    // The camera is asked for the picture before rotation.
    let rotation = config.camera.rotation;
    let (width, height) = rotation.turn((wanted.width, wanted.height));
    let size = Wanted { width, height, frame_rate };
    // Encoded pictures cannot be rotated.
    let turned = rotation != Rotation::None;
    let choice =
        camera::choose(device.modes.iter().filter(|range| !(turned && range.format == PixelFormat::H264)), size)
            .filter(|choice| choice.mode.format != PixelFormat::H264 || choice.is_passthrough())
            .or_else(|| camera::choose(device.modes.iter().filter(|range| range.format != PixelFormat::H264), size))
            .ok_or_else(|| {
                Failure::new(
                    Cause::CameraFailed,
                    format!("{} offers no format that can be used", device.node.display()),
                )
            })?;
    if choice.too_small || choice.too_slow {
        tracing::info!(asked = ?size, gives = %choice.mode, "the camera gives less than was asked");
    }
    let (width, height) = rotation.turn((choice.width, choice.height));
    let frame_rate = given_rate(wanted.frame_rate, choice.mode.frame_rate);
    let settings = VideoSettings { width, height, frame_rate, ..wanted };
    let fit = config.camera.fit;
    Ok((VideoSource::V4l2 { node: device.node, name: device.card, choice, fit, zero_copy: false }, settings))
}

/// Pictures per second to encode, by which an encoder counts its key frames. Rounded up, so that no picture of the
/// camera is dropped.
fn given_rate(asked: u32, mode: Option<FrameRate>) -> u32 {
    let gives = mode.map(FrameRate::fraction).map(|(pictures, seconds)| pictures.div_ceil(seconds));
    gives.map_or(asked, |gives| gives.min(asked))
}

pub fn find(config: &Config) -> Result<Device, Failure> {
    let selector: Selector = config.camera.device.parse().map_err(|error: camera::InvalidSelector| {
        Failure::new(Cause::InvalidRequest, format!("camera.device: {error}"))
    })?;
    camera::find(&selector).map_err(|error| Failure::new(error.cause(), error.to_string()))
}

/// The device node for another process, or `test`.
pub fn device_for_lease(config: &Config) -> Result<String, Failure> {
    if test_pattern(&config.camera.device).is_some() {
        return Ok("test".into());
    }
    let device = find(config)?;
    if let Some(owner) = foreign_holder(&device.node) {
        let failure = Failure::new(Cause::CameraBusy, format!("{} is held by {owner}", device.node.display()));
        return Err(Failure { owner: Some(owner), ..failure });
    }
    Ok(device.node.display().to_string())
}

/// Who opened the device behind the daemon's back.
pub fn foreign_holder(node: &std::path::Path) -> Option<Owner> {
    let holder = camera::holders(node).into_iter().next()?;
    Some(Owner { kind: OwnerKind::Foreign, name: holder.program, pid: Some(holder.pid), for_s: None })
}

/// Who opened the configured camera behind the daemon's back, if it is there.
pub fn foreign_owner(config: &Config) -> Option<Owner> {
    if test_pattern(&config.camera.device).is_some() {
        return None;
    }
    foreign_holder(&find(config).ok()?.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_is_promised_no_more_pictures_than_the_camera_gives() {
        for (asked, mode, given) in [(30, (10, 1), 10), (30, (15, 2), 8), (30, (30_000, 1001), 30), (15, (30, 1), 15)] {
            assert_eq!(given_rate(asked, FrameRate::new(mode.0, mode.1)), given, "{asked} asked of {mode:?}");
        }
        assert_eq!(given_rate(30, None), 30, "the driver does not say");
    }
}
