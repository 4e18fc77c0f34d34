//! The daemon's own path for media that is already encoded, in a separate process.
//!
//! No camera of these machines delivers H.264, and the daemon has no file source. So a file replaces the camera here:
//! demultiplexed at its own pace into the daemon's feed, and from there through its gate, its FLV writer and its
//! publisher to the server. The only part missing is the task that owns the daemon's state, which does next to nothing
//! while a stream runs (see what the daemon costs when idle).

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::{AppSink, AppSinkCallbacks};
use lenscast::media;
use lenscast::media::feed::{Feed, Unit};
use lenscast::media::flv::Metadata;
use lenscast::media::publisher::{Publisher, PublisherEvent, Target};
use lenscast::protocol::StreamUrl;
use tokio::sync::mpsc;

use crate::publishers::HD;
use crate::support::Process;

/// The argument that makes this program call [`run`].
pub const ARGUMENT: &str = "--pass-through";

/// Starts this program with that argument.
pub fn spawn(file: &Path, url: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("Linux knows this program's file"));
    command.arg(ARGUMENT).arg(file).arg(url);
    Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

/// Publishes `file` to `url` until the publication fails, or this process is killed.
pub fn run(file: &str, url: &str) {
    media::init().expect("GStreamer is usable");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let feed = Arc::new(Feed::default());
        let metadata = Metadata {
            width: HD.size.0,
            height: HD.size.1,
            frame_rate: f64::from(HD.frame_rate),
            video_bitrate: HD.bitrate,
            audio: None,
        };
        let (events, mut heard) = mpsc::channel(8);
        let url = StreamUrl::parse(url).expect("an RTMP URL");
        let _publisher = Publisher::open(1, Target { url, metadata }, Arc::clone(&feed), events);
        let capture = capture(file, feed);
        capture.set_state(gst::State::Playing).expect("the file can be played");
        while let Some((_, event)) = heard.recv().await {
            if let PublisherEvent::Lost(failure) = event {
                panic!("the publication was lost: {failure}");
            }
        }
    });
}

fn capture(file: &str, feed: Arc<Feed>) -> gst::Pipeline {
    let description = format!(
        "filesrc location={file} ! qtdemux ! h264parse \
         ! video/x-h264,stream-format=avc,alignment=au ! appsink name=out sync=true"
    );
    let bin = gst::parse::launch(&description).expect("the plugins are installed");
    let pipeline = bin.downcast::<gst::Pipeline>().expect("several elements make a pipeline");
    let sink = pipeline.by_name("out").and_downcast::<AppSink>().expect("named above");
    let config: Mutex<Option<Arc<[u8]>>> = Mutex::default();
    let take = move |sink: &AppSink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let buffer = sample.buffer().expect("a sample of H.264 has a buffer");
        let mut config = config.lock().unwrap_or_else(PoisonError::into_inner);
        let config = config.get_or_insert_with(|| {
            let caps = sample.caps().and_then(|caps| caps.structure(0)).expect("parsed H.264 has caps");
            let data: gst::Buffer = caps.get("codec_data").expect("AVC has its configuration in the caps");
            Arc::from(data.map_readable().expect("memory can be read").as_slice())
        });
        let pts = Duration::from_nanos(buffer.pts().expect("an MP4 file has times").nseconds());
        let dts = buffer.dts().map_or(pts, |dts| Duration::from_nanos(dts.nseconds()));
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let data = buffer.map_readable().expect("memory can be read");
        feed.video(Unit { opening: 1, pts, dts, key, data: &data, config, size: HD.size });
        Ok(gst::FlowSuccess::Ok)
    };
    sink.set_callbacks(AppSinkCallbacks::builder().new_sample(take).build());
    pipeline
}
