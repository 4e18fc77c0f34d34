//! Time from the command to the first picture at the server.

use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::figures::{Row, Section, Unit};
use crate::publishers::{APP, AS_FOR_PHOTOS, HD, Peer, Picture, warm_daemon};
use crate::support::recordings::Recordings;
use crate::support::{Control, Daemon, Nginx, Watch, monotonic};
use crate::{Extent, milliseconds, progress};

const SOON: Duration = Duration::from_secs(15);

struct Scene {
    // Dropped before the server: the recordings are in its folder.
    recordings: Recordings,
    nginx: Nginx,
    daemon: Daemon,
    watch: Watch,
    control: Control,
    streams: usize,
}

impl Scene {
    fn new() -> Self {
        let nginx = Nginx::start();
        let (recordings, daemon) = (nginx.recordings(), warm_daemon());
        let (watch, control) = (daemon.watch(), daemon.control());
        Self { recordings, nginx, daemon, watch, control, streams: 0 }
    }

    /// Starts a stream, waits for its first picture and returns how long that took.
    fn begin(&mut self, picture: Picture) -> Duration {
        let id = format!("stream-{}", self.streams);
        let request = picture.request(&self.nginx.url("live", &id), &id);
        let asked = monotonic();
        self.control.granted(&request);
        let first = self.recordings.wait_first_frame(self.streams, SOON);
        self.streams += 1;
        first.at.saturating_sub(asked)
    }

    fn end(&mut self) {
        self.control.granted(&json!({"cmd": "stop"}));
        self.watch.wait_snapshot("the camera to be closed", SOON, |state| state["camera"]["state"] == "closed");
    }
}

fn spawned(peer: Peer) -> Duration {
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let asked = monotonic();
    let _peer = peer.encode(&nginx.url("live", "key"));
    recordings.wait_first_frame(0, SOON).at.saturating_sub(asked)
}

/// Measures it.
pub fn section(extent: &Extent) -> Section {
    let mut taken = [const { Vec::new() }; 5];
    for run in 0..extent.runs {
        let mut scene = Scene::new();
        taken[0].push(scene.begin(HD));
        scene.end();
        taken[1].push(scene.begin(HD));
        scene.end();
        scene.control.photo(APP).expect("a photo of a camera that nobody uses");
        // Starts at a random moment between two pictures.
        sleep(Duration::from_millis(fastrand::u64(300..600)));
        taken[2].push(scene.begin(AS_FOR_PHOTOS));
        scene.daemon.finish();
        taken[3].push(spawned(Peer::GstLaunch));
        taken[4].push(spawned(Peer::Ffmpeg));
        let last: Vec<String> = taken.iter().map(|t| format!("{:.0}", milliseconds(t[run]))).collect();
        progress(&format!("first picture, run {}: {} ms", run + 1, last.join(", ")));
    }
    let row = |what: &str, of: usize| {
        Row::new(format!("first picture: {what}"), Unit::Milliseconds, taken[of].iter().copied().map(milliseconds))
    };
    Section {
        title: "From the command to the first picture at the server",
        method: "From the start request on the control socket (for the others: from the start of the process) to the \
                 first H.264 picture in nginx's recording, sound included. The daemon is a new one in each run; its \
                 first stream tries the encoder. All have the test picture for a camera, which unlike a real one is \
                 awake at once. 1280x720 at 30 fps; where the camera is open already, that is after a photo, so \
                 960x540 at 15 fps, as photos open it: a picture every 67 ms."
            .to_owned(),
        rows: vec![
            row("lenscastd, camera closed, first stream of its life", 0).budget(160.0),
            row("lenscastd, camera closed, second stream", 1).budget(160.0),
            row("lenscastd, camera open", 2).budget(60.0),
            row("gst-launch-1.0", 3),
            row("ffmpeg", 4),
        ],
    }
}
