//! One picture of a stream as JPEG: a key frame through `appsrc ─ h264parse ─ decoder ─ convert ─ scale ─ jpegenc ─
//! appsink`. The pipeline lives for that picture only, since one is requested every few seconds at most.

use std::sync::Arc;
use std::time::Duration;

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc};
use tokio::sync::oneshot;

use super::pipeline;
use crate::protocol::{Cause, Failure};

/// Limit for one picture. A 1080p key frame takes some 40 ms on a slow core.
const LIMIT: Duration = Duration::from_secs(3);

/// Decoders, the most capable first: a publisher may use any profile.
const DECODERS: [&str; 2] = ["avdec_h264", "openh264dec"];

/// A picture that can be decoded by itself.
#[derive(Clone, Debug)]
pub struct KeyFrame<'a> {
    /// The `AVCDecoderConfigurationRecord`.
    pub record: &'a [u8],
    /// The access unit with four-byte length prefixes.
    pub data: &'a [u8],
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
}

/// Makes a JPEG of `quality` (1 to 100), at most `max_width` pixels wide and of the same shape.
///
/// # Errors
/// When the picture cannot be decoded within 3 s.
pub async fn still(frame: KeyFrame<'_>, max_width: u32, quality: u8) -> Result<Vec<u8>, Failure> {
    super::init().map_err(|reason| Failure::new(Cause::Internal, reason))?;
    let (taken, picture) = oneshot::channel();
    let (pipeline, source) = build(&frame, max_width, quality, taken)?;
    let mut errors = pipeline::errors(&pipeline);
    let buffer = gst::Buffer::from_slice(frame.data.to_vec());
    let work = async {
        pipeline::play(&pipeline).await?;
        // Data pushed before the pipeline plays would be flushed; a decoder gives its last picture only at the end.
        let pushed = source.push_buffer(buffer).and_then(|_| source.end_of_stream());
        pushed.map_err(|error| Failure::new(Cause::Internal, format!("still: {error}")))?;
        tokio::select! {
            biased;
            Ok(picture) = picture => Ok(picture),
            message = errors.recv() => {
                let detail = message.map(|message| format!("{message:?}")).unwrap_or_default();
                Err(Failure::new(Cause::Internal, format!("the key frame cannot be decoded: {detail}")))
            }
        }
    };
    let outcome = tokio::time::timeout(LIMIT, work).await;
    pipeline::shut_down(pipeline.clone(), "still").await;
    outcome.unwrap_or_else(|_| Err(Failure::new(Cause::Internal, "no picture within 3 s")))
}

fn build(
    frame: &KeyFrame<'_>,
    max_width: u32,
    quality: u8,
    taken: oneshot::Sender<Vec<u8>>,
) -> Result<(gst::Pipeline, AppSrc), Failure> {
    let caps = gst::Caps::builder("video/x-h264")
        .field("stream-format", "avc")
        .field("alignment", "au")
        .field("codec_data", gst::Buffer::from_slice(Arc::<[u8]>::from(frame.record)))
        .build();
    let source = AppSrc::builder().caps(&caps).format(gst::Format::Time).build();
    let jpeg = pipeline::element("jpegenc", None)?;
    jpeg.set_property("quality", i32::from(quality.clamp(1, 100)));
    let sink = AppSink::builder().sync(false).async_(false).max_buffers(1).callbacks(callbacks(taken)).build();
    let decoder = DECODERS.into_iter().find(|name| gst::ElementFactory::find(name).is_some()).unwrap_or(DECODERS[0]);
    let mut chain =
        vec![source.clone().upcast(), pipeline::element("h264parse", None)?, pipeline::element(decoder, None)?];
    if frame.width > max_width {
        let height = (u64::from(frame.height) * u64::from(max_width) / u64::from(frame.width.max(1))).max(2) & !1;
        let size = gst::Caps::builder("video/x-raw")
            .field("width", (max_width & !1) as i32)
            .field("height", height as i32)
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .build();
        let filter = pipeline::element("capsfilter", None)?;
        filter.set_property("caps", size);
        chain.extend([pipeline::element("videoscale", None)?, filter]);
    }
    chain.extend([pipeline::element("videoconvert", None)?, jpeg, sink.upcast()]);
    let pipeline = gst::Pipeline::new();
    pipeline::chain(&pipeline, &chain.iter().collect::<Vec<_>>())?;
    Ok((pipeline, source))
}

fn callbacks(taken: oneshot::Sender<Vec<u8>>) -> AppSinkCallbacks {
    let mut taken = Some(taken);
    AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let picture = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
            if let (Some(taken), Some(picture)) = (taken.take(), picture) {
                let _ = taken.send(picture.to_vec()); // who asked may have given up
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key frame of a test picture, and its configuration record.
    fn key_frame(width: u32, height: u32) -> (Vec<u8>, Vec<u8>) {
        super::super::init().unwrap();
        let description = format!(
            "videotestsrc num-buffers=1 ! video/x-raw,width={width},height={height} ! x264enc ! h264parse \
             ! video/x-h264,stream-format=avc,alignment=au ! appsink name=sink sync=false"
        );
        let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("sink").unwrap().downcast::<AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let sample = sink.pull_sample().unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        let record = sample.caps().unwrap().structure(0).unwrap().get::<gst::Buffer>("codec_data").unwrap();
        let record = record.map_readable().unwrap().to_vec();
        (record, sample.buffer().unwrap().map_readable().unwrap().to_vec())
    }

    /// Width and height from the frame header (SOF0).
    fn size(jpeg: &[u8]) -> (u16, u16) {
        assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]), "no whole JPEG");
        let header = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let number = |at: usize| u16::from_be_bytes([jpeg[header + at], jpeg[header + at + 1]]);
        (number(7), number(5))
    }

    #[tokio::test]
    async fn a_key_frame_becomes_a_jpeg_of_the_size_asked_for() {
        let (record, data) = key_frame(1280, 720);
        let frame = KeyFrame { record: &record, data: &data, width: 1280, height: 720 };
        let small = still(frame.clone(), 640, 75).await.unwrap();
        assert_eq!(size(&small), (640, 360));
        let full = still(frame, 1920, 90).await.unwrap();
        assert_eq!(size(&full), (1280, 720));
        assert!(full.len() > small.len());
    }

    #[tokio::test]
    async fn garbage_is_an_error_and_no_wait() {
        let (record, _) = key_frame(320, 240);
        let frame = KeyFrame { record: &record, data: &[0, 0, 0, 4, 0x65, 1, 2, 3], width: 320, height: 240 };
        let begun = std::time::Instant::now();
        assert!(still(frame, 640, 75).await.is_err());
        assert!(begun.elapsed() < LIMIT * 2, "took {:?}", begun.elapsed());
    }
}
