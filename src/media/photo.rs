//! Photos from the running picture: a branch beside the encoder that stays closed until a photo is requested, then
//! lets one picture through. The encoder is not affected.

use std::sync::{Arc, Mutex, PoisonError};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSinkCallbacks};
use tokio::sync::oneshot;

use super::pipeline;
use crate::protocol::{Cause, Failure};

type Requests = Arc<Mutex<Vec<oneshot::Sender<Result<Vec<u8>, Failure>>>>>;

/// Decoders for cameras that deliver H.264, the lightest first.
const DECODERS: [&str; 2] = ["openh264dec", "avdec_h264"];

/// The photo branch.
#[derive(Debug)]
pub struct PhotoBranch {
    valve: gst::Element,
    requests: Requests,
}

impl PhotoBranch {
    /// Attaches the branch to `tee`, which carries raw pictures, or H.264 if `encoded`.
    ///
    /// # Errors
    /// When an element is not installed; then nothing is attached to `tee`, and all else works without it.
    pub fn attach(pipeline: &gst::Pipeline, tee: &gst::Element, encoded: bool) -> Result<Self, Failure> {
        let requests = Requests::default();
        let valve = pipeline::element("valve", None)?;
        valve.set_property("drop", true);
        let queue = pipeline::element("queue", None)?;
        let mut chain = vec![tee.clone(), valve.clone(), queue.clone()];
        if encoded {
            chain.extend(decoder(&DECODERS)?);
            from_key_frame(&valve);
        } else {
            queue.set_property("max-size-buffers", 1_u32);
            queue.set_property_from_str("leaky", "downstream");
        }
        let jpeg = pipeline::element("jpegenc", None)?;
        jpeg.set_property("quality", 90_i32);
        let sink = AppSink::builder()
            .sync(false)
            .async_(false)
            .max_buffers(1)
            .drop(true)
            .callbacks(callbacks(&requests, &valve))
            .build();
        chain.extend([pipeline::element("videoconvert", None)?, jpeg, sink.upcast()]);
        pipeline::chain(pipeline, &chain.iter().collect::<Vec<_>>())?;
        Ok(Self { valve, requests })
    }

    /// Sends the next picture as JPEG; drops `request` if the pipeline ends before.
    pub fn take(&self, request: oneshot::Sender<Result<Vec<u8>, Failure>>) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        self.valve.set_property("drop", false);
    }
}

fn decoder(names: &[&str]) -> Result<[gst::Element; 2], Failure> {
    let name = names.iter().find(|name| gst::ElementFactory::find(name).is_some()).ok_or_else(|| {
        let missing = names.join(" or ");
        Failure::new(Cause::CameraFailed, format!("decoding the camera's H.264 needs GStreamer's {missing}"))
    })?;
    Ok([pipeline::element("h264parse", None)?, pipeline::element(name, None)?])
}

/// Lets only a key frame through: a decoder that begins inside a group of pictures yields grey.
fn from_key_frame(valve: &gst::Element) {
    let gate = valve.downgrade();
    let waiting = std::sync::atomic::AtomicBool::new(true);
    let pad = valve.static_pad("sink").expect("a valve has a sink pad");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        use std::sync::atomic::Ordering::Relaxed;
        let closed = gate.upgrade().is_none_or(|valve| valve.property("drop"));
        let delta = info.buffer().is_some_and(|buffer| buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        let waits = closed || (waiting.load(Relaxed) && delta);
        waiting.store(waits, Relaxed);
        if waits { pipeline::LEAVE_OUT } else { gst::PadProbeReturn::Ok }
    });
}

fn callbacks(requests: &Requests, valve: &gst::Element) -> AppSinkCallbacks {
    let (requests, valve) = (requests.clone(), valve.downgrade());
    AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let mut waiting = requests.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(valve) = valve.upgrade() {
                valve.set_property("drop", true);
            }
            if let Some(picture) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) {
                for request in waiting.drain(..) {
                    let _ = request.send(Ok(picture.to_vec())); // who asked may have given up
                }
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_photo_of_encoded_pictures_lacks_is_named() {
        crate::media::init().unwrap();
        let failure = decoder(&["no-such-decoder", "nor-this"]).unwrap_err();
        assert_eq!(failure.cause, Cause::CameraFailed);
        assert!(failure.detail.contains("no-such-decoder or nor-this"), "{failure}");
        assert!(decoder(&["no-such-decoder", DECODERS[0], DECODERS[1]]).is_ok());
    }
}
