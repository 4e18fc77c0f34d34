//! A camera and its publisher: a moving picture and a tone, encoded in real time into a broadcast.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSinkCallbacks};
use lenscast::broadcast::{AudioFormat, Broadcast, Frame, Media, VideoFormat};

/// Publishes until dropped.
pub struct LiveSource {
    pipeline: gst::Pipeline,
}

impl LiveSource {
    /// Starts at 640x360, 30/s, 1 Mbit/s, with a key frame every second; AAC-LC, 48 kHz, stereo. `began` is the instant
    /// of stream time 0.
    pub fn publish(broadcast: &Broadcast, publication: u64, began: Instant) -> Self {
        Self::with_encoder(broadcast, publication, began, "tune=zerolatency bframes=0 key-int-max=30")
    }

    /// The same with B-frames.
    pub fn publish_b_frames(broadcast: &Broadcast, publication: u64, began: Instant) -> Self {
        Self::with_encoder(broadcast, publication, began, "bframes=2 b-adapt=false key-int-max=30 rc-lookahead=5")
    }

    fn with_encoder(broadcast: &Broadcast, publication: u64, began: Instant, encoder: &str) -> Self {
        gst::init().unwrap();
        let description = format!(
            "videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360,framerate=30/1 \
             ! x264enc speed-preset=ultrafast bitrate=1000 {encoder} ! video/x-h264,profile=main \
             ! h264parse ! video/x-h264,stream-format=avc,alignment=au ! appsink name=video sync=false \
             audiotestsrc is-live=true samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=2 \
             ! avenc_aac bitrate=96000 ! aacparse ! audio/mpeg,stream-format=raw ! appsink name=audio sync=false"
        );
        let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
        let offset = began.elapsed();
        for name in ["video", "audio"] {
            let sink = pipeline.by_name(name).unwrap().downcast::<AppSink>().unwrap();
            let broadcast = broadcast.clone();
            let mut convert = Converter { publication, offset, first: None, last: None, video: None, audio: None };
            let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                broadcast.push(convert.frame(&sample));
                Ok(gst::FlowSuccess::Ok)
            });
            sink.set_callbacks(callbacks.build());
        }
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline }
    }
}

impl Drop for LiveSource {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

struct Converter {
    publication: u64,
    offset: Duration,
    first: Option<Duration>,
    last: Option<Duration>,
    video: Option<Arc<VideoFormat>>,
    audio: Option<Arc<AudioFormat>>,
}

impl Converter {
    fn frame(&mut self, sample: &gst::Sample) -> Frame {
        let buffer = sample.buffer().unwrap();
        let structure = sample.caps().unwrap().structure(0).unwrap();
        let record = structure.get::<gst::Buffer>("codec_data").unwrap();
        let record = Bytes::copy_from_slice(&record.map_readable().unwrap());
        let time = |at: gst::ClockTime| Duration::from_nanos(at.nseconds());
        let pts = time(buffer.pts().unwrap());
        let dts = buffer.dts().map_or(pts, time);
        let first = *self.first.get_or_insert(dts);
        let at = |moment: Duration| self.offset + moment.saturating_sub(first);
        // Rounded as by RTMP, and strictly rising.
        let round = |moment: Duration| Duration::from_millis(moment.as_millis() as u64);
        let dts_stream = round(at(dts)).max(self.last.map_or(Duration::ZERO, |last| last + Duration::from_millis(1)));
        self.last = Some(dts_stream);
        let media = if structure.name() == "video/x-h264" {
            let format = self.video.get_or_insert_with(|| Arc::new(VideoFormat::parse(record).unwrap())).clone();
            let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            Media::Video { format, pts: dts_stream + round(pts.saturating_sub(dts)), key }
        } else {
            let format = self.audio.get_or_insert_with(|| Arc::new(AudioFormat::parse(record).unwrap())).clone();
            Media::Audio { format }
        };
        let data = Bytes::copy_from_slice(&buffer.map_readable().unwrap());
        Frame { publication: self.publication, dts: dts_stream, media, data, arrived: Instant::now() }
    }
}
