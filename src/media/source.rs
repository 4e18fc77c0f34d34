//! Where pictures come from, and what happens to them before encoding: cropped or letterboxed to the requested shape,
//! scaled, rotated. Never stretched. A camera that gives just what the encoder takes gets no extra elements.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer::{self as gst, prelude::*};
use gstreamer_video::{VideoCapsBuilder, VideoFormat, VideoOrientationMethod};

use super::encoder;
use super::failure::element_name;
use super::pipeline;
use super::profile::Profile;
use crate::camera::{Choice, Crop, FrameRate, Mode, PixelFormat};
use crate::protocol::{Cause, Failure, VideoSettings};

/// Where pictures come from.
#[derive(Clone, Debug, PartialEq)]
pub enum VideoSource {
    /// A moving test picture, a pattern of videotestsrc, each frame stamped with its number and time.
    Test {
        /// For example `ball` or `snow`.
        pattern: String,
    },
    /// A V4L2 camera.
    V4l2 {
        /// The device node.
        node: PathBuf,
        /// Its human-readable name.
        name: String,
        /// The mode it must deliver, and the conversion.
        choice: Choice,
        /// How a picture of another shape is fitted.
        fit: Fit,
        /// Pass its buffers to the encoder without a copy (dmabuf), where both sides can.
        zero_copy: bool,
    },
}

/// Some drivers claim to share buffers (dmabuf) and then cannot; trying again would cost every opening its deadline.
static SHARING_FAILED: AtomicBool = AtomicBool::new(false);

/// How a picture of another shape is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The excess is cropped.
    #[default]
    Crop,
    /// Black bars fill the rest.
    Letterbox,
}

/// How far the picture is rotated clockwise, because sensors of glasses are mounted sideways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "u32")]
pub enum Rotation {
    /// No rotation.
    #[default]
    None,
    /// A quarter turn.
    Quarter,
    /// Upside down.
    Half,
    /// A quarter turn the other way.
    ThreeQuarters,
}

impl TryFrom<u32> for Rotation {
    type Error = &'static str;

    fn try_from(degrees: u32) -> Result<Self, Self::Error> {
        match degrees {
            0 => Ok(Self::None),
            90 => Ok(Self::Quarter),
            180 => Ok(Self::Half),
            270 => Ok(Self::ThreeQuarters),
            _ => Err("rotation is 0, 90, 180 or 270 degrees"),
        }
    }
}

impl Rotation {
    /// Width and height after the rotation (or before it, given those after).
    pub fn turn(self, (width, height): (u32, u32)) -> (u32, u32) {
        match self {
            Self::None | Self::Half => (width, height),
            Self::Quarter | Self::ThreeQuarters => (height, width),
        }
    }

    fn direction(self) -> VideoOrientationMethod {
        match self {
            Self::None => VideoOrientationMethod::Identity,
            Self::Quarter => VideoOrientationMethod::_90r,
            Self::Half => VideoOrientationMethod::_180,
            Self::ThreeQuarters => VideoOrientationMethod::_90l,
        }
    }
}

impl VideoSource {
    /// The device, for the status: its node, or `test`.
    pub fn device(&self) -> String {
        match self {
            Self::Test { .. } => "test".into(),
            Self::V4l2 { node, .. } => node.display().to_string(),
        }
    }

    /// The device node, if it is a camera.
    pub fn node(&self) -> Option<&Path> {
        match self {
            Self::Test { .. } => None,
            Self::V4l2 { node, .. } => Some(node),
        }
    }

    /// A human-readable name.
    pub fn name(&self) -> String {
        match self {
            Self::Test { pattern } => format!("test picture {pattern}"),
            Self::V4l2 { name, .. } => name.clone(),
        }
    }

    /// The mode of its pictures.
    pub fn mode(&self, settings: &VideoSettings) -> String {
        match self {
            Self::Test { .. } => format!("{}x{} at {} fps", settings.width, settings.height, settings.frame_rate),
            Self::V4l2 { choice, .. } => choice.mode.to_string(),
        }
    }

    /// Whether its buffers are to go to the encoder without a copy.
    pub fn is_zero_copy(&self) -> bool {
        matches!(self, Self::V4l2 { zero_copy: true, .. })
    }

    /// Sharing buffers failed: no opening in this process tries it again.
    pub fn copy_from_now_on(&mut self) {
        SHARING_FAILED.store(true, Ordering::Relaxed);
        if let Self::V4l2 { zero_copy, .. } = self {
            *zero_copy = false;
        }
    }

    /// Whether sharing buffers is worth a try.
    pub fn sharing_may_work() -> bool {
        !SHARING_FAILED.load(Ordering::Relaxed)
    }

    /// Whether its pictures come encoded.
    pub fn is_h264(&self) -> bool {
        matches!(self, Self::V4l2 { choice, .. } if choice.mode.format == PixelFormat::H264)
    }
}

/// The elements from the camera to raw pictures for `profile` or, without a profile, to H.264. The first is the
/// camera.
pub fn elements(
    source: &VideoSource,
    settings: &VideoSettings,
    rotation: Rotation,
    profile: Option<&Profile>,
) -> Result<Vec<gst::Element>, Failure> {
    let rate = delivered_rate(source, settings);
    let mut elements = match source {
        VideoSource::Test { pattern } => vec![test_picture(pattern)?],
        VideoSource::V4l2 { node, choice, fit, zero_copy, .. } => {
            let mut elements = vec![camera(node, *zero_copy)?, caps_filter(camera_caps(&choice.mode)?)?];
            if *zero_copy {
                // Even a converter with nothing to do would offer its own memory to the camera.
            } else if profile.is_some() {
                elements.extend(conversion(choice, *fit, settings)?);
            } else {
                // Drivers seldom mark key frames; the parser detects them.
                elements.push(pipeline::element("h264parse", None)?);
            }
            elements
        }
    };
    let Some(profile) = profile else { return Ok(elements) };
    if rotation != Rotation::None {
        // Rotated after scaling down, which is cheaper.
        let (width, height) = rotation.turn((settings.width, settings.height));
        let lying = VideoSettings { width, height, ..*settings };
        elements.push(caps_filter(encoder::raw_caps(&profile.raw_formats, &lying, rate)?)?);
        let flip = pipeline::element("videoflip", None)?;
        flip.set_property("video-direction", rotation.direction());
        elements.push(flip);
    }
    elements.push(caps_filter(encoder::raw_caps(&profile.raw_formats, settings, rate)?)?);
    Ok(elements)
}

/// A camera in one of its modes, with nothing behind it.
pub fn camera_alone(node: &Path, mode: &Mode) -> Result<Vec<gst::Element>, Failure> {
    Ok(vec![camera(node, false)?, caps_filter(camera_caps(mode)?)?])
}

fn test_picture(pattern: &str) -> Result<gst::Element, Failure> {
    let test = pipeline::element("videotestsrc", Some(element_name::CAMERA))?;
    test.set_property("is-live", true);
    pipeline::set_property(&test, "pattern", pattern)?;
    Ok(test)
}

fn camera(node: &Path, zero_copy: bool) -> Result<gst::Element, Failure> {
    let camera = pipeline::element("v4l2src", Some(element_name::CAMERA))?;
    camera.set_property("device", node.to_string_lossy().as_ref());
    // By default v4l2src takes dmabuf wherever the driver exports it, and maps and unmaps each picture that the CPU
    // reads: 338 page faults for one of 1280x720 in NV12. Buffers of mmap stay mapped.
    camera.set_property_from_str("io-mode", if zero_copy { "dmabuf" } else { "mmap" });
    Ok(camera)
}

/// From the camera's pictures to raw ones of the chosen size. Elements with nothing to do pass buffers through.
fn conversion(choice: &Choice, fit: Fit, settings: &VideoSettings) -> Result<Vec<gst::Element>, Failure> {
    let mut elements = Vec::new();
    if choice.mode.format == PixelFormat::Mjpeg {
        elements.push(pipeline::element("jpegdec", None)?);
    }
    let asked = FrameRate::new(settings.frame_rate, 1);
    if choice.mode.frame_rate.is_none() || choice.mode.frame_rate > asked {
        let rate = pipeline::element("videorate", None)?;
        rate.set_property("drop-only", choice.mode.frame_rate.is_some());
        // Times are the monotonic clock's. Otherwise it would count frames since boot, and drop none for as long as
        // that is ago.
        rate.set_property("skip-to-first", true);
        elements.push(rate);
    }
    if fit == Fit::Crop && choice.crop != Crop::default() {
        let crop = pipeline::element("videocrop", None)?;
        let Crop { left, right, top, bottom } = choice.crop;
        for (edge, pixels) in [("left", left), ("right", right), ("top", top), ("bottom", bottom)] {
            crop.set_property(edge, pixels as i32);
        }
        elements.push(crop);
    }
    let scale = pipeline::element("videoconvertscale", None)?;
    scale.set_property("add-borders", fit == Fit::Letterbox);
    elements.push(scale);
    Ok(elements)
}

fn caps_filter(caps: gst::Caps) -> Result<gst::Element, Failure> {
    let filter = pipeline::element("capsfilter", None)?;
    filter.set_property("caps", caps);
    Ok(filter)
}

fn camera_caps(mode: &Mode) -> Result<gst::Caps, Failure> {
    let caps = match mode.format {
        PixelFormat::Mjpeg => VideoCapsBuilder::for_encoding("image/jpeg"),
        PixelFormat::H264 => VideoCapsBuilder::for_encoding("video/x-h264"),
        format => {
            let raw = format.name().map_or(VideoFormat::Unknown, VideoFormat::from_string);
            if raw == VideoFormat::Unknown {
                let detail = format!("the camera's format {format} is not supported");
                return Err(Failure::new(Cause::CameraFailed, detail));
            }
            VideoCapsBuilder::for_encoding("video/x-raw").format(raw)
        }
    };
    let rate = mode.frame_rate.map(fraction);
    Ok(caps.width(mode.width as i32).height(mode.height as i32).framerate_if_some(rate).build())
}

fn fraction(rate: FrameRate) -> gst::Fraction {
    let (numerator, denominator) = rate.fraction();
    gst::Fraction::new(numerator as i32, denominator as i32)
}

/// Repeating pictures would not help a camera that is slower than requested.
fn delivered_rate(source: &VideoSource, settings: &VideoSettings) -> gst::Fraction {
    let asked = gst::Fraction::new(settings.frame_rate as i32, 1);
    match source {
        VideoSource::V4l2 { choice, .. } => choice.mode.frame_rate.map_or(asked, |rate| asked.min(fraction(rate))),
        VideoSource::Test { .. } => asked,
    }
}

#[cfg(test)]
mod tests {
    use gstreamer_video::VideoInfo;

    use super::*;
    use crate::media::profile;

    #[test]
    fn a_quarter_turn_swaps_width_and_height() {
        assert_eq!(Rotation::try_from(90).unwrap().turn((720, 1280)), (1280, 720));
        assert_eq!(Rotation::try_from(180).unwrap().turn((720, 1280)), (720, 1280));
        assert!(Rotation::try_from(45).is_err());
    }

    #[test]
    fn a_turned_picture_has_the_asked_size_when_it_is_encoded() {
        crate::media::init().unwrap();
        let profile = profile::load(&[]).unwrap().into_iter().find(|profile| profile.name == "x264");
        let source = VideoSource::Test { pattern: "ball".into() };
        let settings = VideoSettings { width: 360, height: 640, frame_rate: 30, bitrate: 500_000 };
        let chain = elements(&source, &settings, Rotation::ThreeQuarters, profile.as_ref()).unwrap();
        let size = |filter: &gst::Element| {
            let mut caps = filter.property::<gst::Caps>("caps");
            caps.fixate();
            let picture = VideoInfo::from_caps(&caps).unwrap();
            (picture.width(), picture.height())
        };
        let [_, before, flip, after] = chain.as_slice() else { panic!("{chain:?}") };
        assert_eq!((size(before), size(after)), ((640, 360), (360, 640)));
        assert_eq!(flip.property::<VideoOrientationMethod>("video-direction"), VideoOrientationMethod::_90l);
    }

    #[test]
    fn a_camera_is_asked_for_just_the_mode_that_was_chosen() {
        crate::media::init().unwrap();
        let mode = |format| Mode { format, width: 1280, height: 720, frame_rate: FrameRate::new(30, 1) };
        for (format, raw) in [
            (PixelFormat::Nv12, VideoFormat::Nv12),
            (PixelFormat::Nv21, VideoFormat::Nv21),
            (PixelFormat::I420, VideoFormat::I420),
            (PixelFormat::Yv12, VideoFormat::Yv12),
            (PixelFormat::Yuyv, VideoFormat::Yuy2),
            (PixelFormat::Uyvy, VideoFormat::Uyvy),
            (PixelFormat::Rgb24, VideoFormat::Rgb),
            (PixelFormat::Bgr24, VideoFormat::Bgr),
            (PixelFormat::Mjpeg, VideoFormat::Encoded),
            (PixelFormat::H264, VideoFormat::Encoded),
        ] {
            let picture = VideoInfo::from_caps(&camera_caps(&mode(format)).unwrap()).unwrap();
            assert_eq!((picture.format(), picture.width(), picture.height()), (raw, 1280, 720), "{format}");
            assert_eq!(picture.fps(), gst::Fraction::new(30, 1), "{format}");
        }
        assert!(camera_caps(&mode(PixelFormat::from_fourcc(u32::from_le_bytes(*b"BA81")))).is_err());
        let any_rate = Mode { frame_rate: None, ..mode(PixelFormat::Nv12) };
        let caps = camera_caps(&any_rate).unwrap();
        assert!(!caps.structure(0).unwrap().has_field("framerate"), "{caps}");
    }
}
