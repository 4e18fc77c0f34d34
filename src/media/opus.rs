//! AAC to Opus for WebRTC: `appsrc ─ decoder ─ convert ─ resample ─ opusenc ─ appsink`, 20 ms packets of 48 kHz.
//!
//! Times are the caller's: they pass through the pipeline as timestamps. After a jump of more than [`JUMP`] (the
//! publisher came back) use a new [`OpusTranscoder`]; otherwise decoder and encoder would fill the gap with sound.

use std::sync::Arc;
use std::time::Duration;

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc};
use tokio::sync::mpsc;

use super::pipeline;
use crate::protocol::{Cause, Failure};

/// The longest gap that still counts as continuous sound.
pub const JUMP: Duration = Duration::from_millis(500);

/// AAC decoders in order of preference: `avdec_aac` knows the most profiles; the others are more often installed.
const DECODERS: [&str; 3] = ["avdec_aac", "fdkaacdec", "faad"];

/// AAC frames that may wait for the decoder: half a second.
const INPUT_FRAMES: u64 = 24;

/// Opus packets that may wait for the receiver: one second. When full, new ones are dropped.
const OUTPUT_PACKETS: usize = 50;

/// The AAC input's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AacFormat {
    /// The `AudioSpecificConfig`.
    pub record: Arc<[u8]>,
    /// Hz.
    pub sample_rate: u32,
    /// 1 to 8.
    pub channels: u8,
}

/// 20 ms of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpusPacket {
    /// On the same time scale as the input.
    pub time: Duration,
    /// The packet (RFC 6716), stereo or mono like the AAC.
    pub data: Arc<[u8]>,
}

/// A running transcoder. Dropping it ends it.
#[derive(Debug)]
pub struct OpusTranscoder {
    pipeline: gst::Pipeline,
    source: AppSrc,
}

impl OpusTranscoder {
    /// Starts a transcoder. Packets come out of the receiver, which ends when the transcoder is dropped or fails.
    pub fn start(format: &AacFormat) -> Result<(Self, mpsc::Receiver<OpusPacket>), Failure> {
        super::init().map_err(|reason| Failure::new(Cause::Internal, reason))?;
        let caps = gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 4)
            .field("stream-format", "raw")
            .field("framed", true)
            .field("rate", format.sample_rate as i32)
            .field("channels", i32::from(format.channels))
            .field("codec_data", gst::Buffer::from_slice(format.record.clone()))
            .build();
        let source = AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .max_buffers(INPUT_FRAMES)
            .leaky_type(gstreamer_app::AppLeakyType::Downstream)
            .build();
        let encoder = pipeline::element("opusenc", None)?;
        encoder.set_property("bitrate", 96_000_i32);
        // The mode for speech adds delay; this mode's is 2.5 ms.
        encoder.set_property_from_str("audio-type", "restricted-lowdelay");
        let (sender, packets) = mpsc::channel(OUTPUT_PACKETS);
        let sink = AppSink::builder().sync(false).async_(false).callbacks(callbacks(sender)).build();
        let channels = i32::from(format.channels.min(2));
        let stereo = gst::Caps::builder("audio/x-raw").field("rate", 48_000).field("channels", channels).build();
        let filter = pipeline::element("capsfilter", None)?;
        filter.set_property("caps", stereo);
        let pipeline = gst::Pipeline::new();
        let decoder = DECODERS.into_iter().find(|name| gst::ElementFactory::find(name).is_some());
        let chain = [
            source.clone().upcast(),
            pipeline::element(decoder.unwrap_or(DECODERS[0]), None)?,
            pipeline::element("audioconvert", None)?,
            pipeline::element("audioresample", None)?,
            filter,
            encoder,
            sink.upcast(),
        ];
        pipeline::chain(&pipeline, &chain.iter().collect::<Vec<_>>())?;
        // Nobody reads the bus; a transcoder that failed refuses the next frame.
        drop(pipeline::errors(&pipeline));
        pipeline
            .set_state(gst::State::Playing)
            .map_err(|error| Failure::new(Cause::AudioFailed, format!("AAC to Opus does not start: {error}")))?;
        Ok((Self { pipeline, source }, packets))
    }

    /// Puts in a raw AAC frame. Never waits.
    ///
    /// # Errors
    /// When the pipeline has failed.
    pub fn push(&self, time: Duration, frame: &[u8]) -> Result<(), Failure> {
        let mut buffer = gst::Buffer::from_slice(frame.to_vec());
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_nseconds(time.as_nanos() as u64));
        }
        let pushed = self.source.push_buffer(buffer);
        pushed.map(drop).map_err(|error| Failure::new(Cause::AudioFailed, format!("AAC to Opus: {error}")))
    }
}

impl Drop for OpusTranscoder {
    /// Elements that only compute stop at once.
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

fn callbacks(packets: mpsc::Sender<OpusPacket>) -> AppSinkCallbacks {
    AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let packet = sample.buffer().and_then(|buffer| {
                let time = Duration::from_nanos(buffer.pts()?.nseconds());
                Some(OpusPacket { time, data: buffer.map_readable().ok()?.as_slice().into() })
            });
            let Some(packet) = packet else { return Ok(gst::FlowSuccess::Ok) };
            match packets.try_send(packet) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(gst::FlowSuccess::Ok),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(gst::FlowError::Eos),
            }
        })
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tone as raw AAC, with its configuration.
    fn tone(rate: u32, channels: u8, frames: usize) -> (AacFormat, Vec<Vec<u8>>) {
        super::super::init().unwrap();
        let description = format!(
            "audiotestsrc num-buffers={frames} samplesperbuffer=1024 ! audio/x-raw,rate={rate},channels={channels} \
             ! avenc_aac ! aacparse ! audio/mpeg,stream-format=raw ! appsink name=sink sync=false"
        );
        let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("sink").unwrap().downcast::<AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let (mut record, mut data) = (Vec::new(), Vec::new());
        while let Ok(sample) = sink.pull_sample() {
            let config = sample.caps().unwrap().structure(0).unwrap().get::<gst::Buffer>("codec_data").unwrap();
            record = config.map_readable().unwrap().to_vec();
            data.push(sample.buffer().unwrap().map_readable().unwrap().to_vec());
        }
        pipeline.set_state(gst::State::Null).unwrap();
        (AacFormat { record: record.into(), sample_rate: rate, channels }, data)
    }

    #[tokio::test]
    async fn every_20_ms_of_aac_come_out_as_opus_at_their_time() {
        for (rate, channels) in [(48_000, 2), (44_100, 1)] {
            let (format, frames) = tone(rate, channels, 50);
            let (transcoder, mut packets) = OpusTranscoder::start(&format).unwrap();
            let begin = Duration::from_mins(10);
            let at = |n: usize| begin + Duration::from_secs(1024) * n as u32 / rate;
            let mut out = Vec::new();
            for (n, frame) in frames.iter().enumerate() {
                transcoder.push(at(n), frame).unwrap();
                // Only as fast as the pipeline, or frames would be dropped, as they should be in real time.
                while let Ok(Some(packet)) = tokio::time::timeout(Duration::from_millis(10), packets.recv()).await {
                    out.push(packet);
                }
            }
            let expected = at(frames.len()).saturating_sub(begin).as_millis() as usize / 20;
            assert!(out.len() + 4 >= expected && out.len() <= expected + 1, "{} of {expected}", out.len());
            let off = out[0].time.as_millis().abs_diff(begin.as_millis());
            assert!(off <= 25, "the first is {off} ms off");
            // Only the first packet is shorter, by the encoder's look-ahead.
            for pair in out[1..].windows(2) {
                let step = pair[1].time.saturating_sub(pair[0].time).as_millis();
                assert!((19..=21).contains(&step), "{step} ms between packets");
            }
            // A tone is not silence.
            assert!(out[10..].iter().all(|packet| packet.data.len() > 20));
        }
    }

    #[tokio::test]
    async fn broken_frames_do_not_end_it() {
        let (format, frames) = tone(48_000, 2, 30);
        let (transcoder, mut packets) = OpusTranscoder::start(&format).unwrap();
        let mut heard = 0;
        for (n, frame) in frames.iter().enumerate() {
            let broken = [0xa5; 50];
            transcoder.push(Duration::from_micros(21_333) * n as u32, if n < 10 { &broken } else { frame }).unwrap();
            while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(10), packets.recv()).await {
                heard += 1;
            }
        }
        assert!(heard >= 15, "{heard} packets of 20 good frames");
    }
}
