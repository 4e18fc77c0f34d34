//! What `flvmux` would cost instead of the daemon's own FLV tags: how late pictures leave it, and what it adds.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gstreamer::{self as gst, prelude::*};
use lenscast::media::{self, flv};

use crate::figures::{Figure, Row, Section, Unit};
use crate::{Extent, milliseconds, progress};

/// How much later than the camera a microphone may start.
const LATE: Duration = Duration::from_millis(500);
/// How far sound may lag behind its picture: a frame's 1024 samples and voaacenc's delay, at 44.1 kHz.
const BEHIND: Duration = Duration::from_millis(60);
/// Period over which metadata is counted.
const WINDOW: Duration = Duration::from_secs(10);

const SCRIPT: u8 = 18;
const VIDEO: u8 = 9;
const FRAME: u8 = 1;

/// Times at which pictures and metadata came and went.
#[derive(Default)]
struct Times {
    came: Vec<Instant>,
    /// Times with the tag that the daemon makes of the same picture.
    written_here: Vec<Duration>,
    went: Vec<Instant>,
    metadata: usize,
}

impl Times {
    fn held(&self) -> impl Iterator<Item = f64> {
        self.came.iter().zip(&self.went).map(|(came, went)| milliseconds(*went - *came))
    }
}

/// Runs a camera and a microphone, whose sound is `behind` and begins `late`, through `flvmux` for `window` after
/// that.
fn run(behind: Duration, late: Duration, window: Duration) -> Times {
    let description = "flvmux name=mux streamable=true ! fakesink sync=false async=false \
         videotestsrc is-live=true pattern=smpte ! video/x-raw,format=I420,width=640,height=360,framerate=30/1 \
         ! queue max-size-buffers=3 leaky=downstream \
         ! x264enc tune=zerolatency speed-preset=ultrafast bframes=0 bitrate=1000 key-int-max=30 ! h264parse name=pictures ! mux.video \
         audiotestsrc is-live=true samplesperbuffer=1024 ! audio/x-raw,rate=44100,channels=1 ! valve name=microphone \
         ! queue ! voaacenc bitrate=64000 ! aacparse ! mux.audio";
    let bin = gst::parse::launch(description).expect("the plugins are installed");
    let pipeline = bin.downcast::<gst::Pipeline>().expect("several elements make a pipeline");
    let by_name = |name| pipeline.by_name(name).expect("named above");
    let microphone = by_name("microphone");
    let times = Arc::new(Mutex::new(Times::default()));
    let out_of = |name| by_name(name).static_pad("src").expect("all elements but sinks have one");
    observe(&out_of("pictures"), &times, |times, picture| {
        let begun = Instant::now();
        std::hint::black_box(flv::video_frame(0, 0, true, picture));
        times.written_here.push(begun.elapsed());
        times.came.push(Instant::now());
    });
    observe(&out_of("mux"), &times, |times, tag| match *tag {
        [SCRIPT, ..] => times.metadata += 1,
        [VIDEO, _, _, _, _, _, _, _, _, _, _, _, FRAME, ..] => times.went.push(Instant::now()),
        _ => {}
    });
    out_of("microphone").set_offset(-(behind.as_nanos() as i64));
    microphone.set_property("drop", !late.is_zero());
    pipeline.set_state(gst::State::Playing).expect("test sources can be played");
    sleep(late);
    microphone.set_property("drop", false);
    sleep(window);
    pipeline.set_state(gst::State::Null).expect("test sources can be ended");
    std::mem::take(&mut times.lock().unwrap_or_else(PoisonError::into_inner))
}

fn observe(pad: &gst::Pad, times: &Arc<Mutex<Times>>, note: impl Fn(&mut Times, &[u8]) + Send + Sync + 'static) {
    let times = times.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let bytes = info.buffer().and_then(|buffer| buffer.map_readable().ok()).expect("memory can be read");
        note(&mut times.lock().unwrap_or_else(PoisonError::into_inner), &bytes);
        gst::PadProbeReturn::Ok
    });
}

/// Measures it.
pub fn section(extent: &Extent) -> Section {
    media::init().expect("GStreamer is usable");
    let window = WINDOW.min(extent.window);
    let runs = |behind, late, window| -> Vec<Times> { (0..extent.runs).map(|_| run(behind, late, window)).collect() };
    let in_step = runs(Duration::ZERO, Duration::ZERO, window);
    let behind = runs(BEHIND, Duration::ZERO, window);
    let late = runs(Duration::ZERO, LATE, Duration::from_secs(1));
    let first: Vec<f64> = late.iter().filter_map(|times| times.held().next()).collect();
    let held = |runs: &[Times]| -> Vec<f64> { runs.iter().flat_map(Times::held).collect() };
    let written: Vec<f64> = in_step.iter().flat_map(|times| &times.written_here).copied().map(milliseconds).collect();
    let metadata: Vec<f64> = in_step.iter().map(|times| times.metadata as f64).collect();
    progress(&format!("flvmux: first picture held for {first:.0?} ms; metadata {metadata:?}"));
    let each = |which: &str, values: Vec<f64>| {
        let row = Row::new(format!("each picture: {which}"), Unit::Milliseconds, values);
        [row.clone(), row.figure(Figure::P95)]
    };
    let begun = format!("first picture: held by flvmux, sound begins {} ms later", LATE.as_millis());
    let mut rows = vec![Row::new(begun, Unit::Milliseconds, first)];
    rows.extend(each("held by flvmux, sound in step", held(&in_step)));
    rows.extend(each(&format!("held by flvmux, sound {} ms behind", BEHIND.as_millis()), held(&behind)));
    rows.extend(each("its tag written by lenscastd's code", written));
    let often = format!("onMetaData tags by flvmux in {} s; by lenscastd 1", window.as_secs());
    rows.push(Row::new(often, Unit::Count, metadata));
    Section {
        title: "What flvmux would cost",
        method: format!(
            "640x360 at 30 fps by x264 and a tone by voaacenc, live, through flvmux streamable=true in this process, {} s a \
             run: from a picture's arrival at the element until its tag leaves it. Where sound is further behind than its \
             source says, the element does not wait for it once it has begun. lenscastd's code writes the tag of the same \
             picture, and waits for nothing.",
            window.as_secs()
        ),
        rows,
    }
}
