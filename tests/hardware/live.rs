//! A stream from a guest's camera to a server on the host.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::control::start;
use crate::support::recordings::{Recording, Recordings};
use crate::support::watch::{Event, Watch};
use crate::support::{Guest, GuestDaemon, Nginx};

/// Limit for going live: one emulated CPU on a busy machine, and a trial of each encoder before the first frame.
pub const LIVE: Duration = Duration::from_secs(40);
/// Limit for coming back: three times the promised 2 s.
pub const BACK: Duration = Duration::from_secs(6);
/// Limit for noticing: three times the promised 3 s.
pub const NOTICED: Duration = Duration::from_secs(9);
/// The size for tests of faults: small, since many run on one CPU.
pub const SIZE: (u32, u32) = (320, 240);

/// A complete setup around a guest whose hardware the test chooses.
pub struct Live {
    pub nginx: Nginx,
    pub recordings: Recordings,
    pub daemon: GuestDaemon,
    pub watch: Watch,
    /// The server's, to which it publishes.
    application: &'static str,
}

impl Live {
    /// Starts server and daemon, with the TOML tables in `more`; nothing streams yet.
    pub fn prepare(guest: &Guest, more: &str) -> Self {
        let nginx = Nginx::start_at(guest.host());
        let recordings = nginx.recordings();
        let daemon = GuestDaemon::start(guest, more);
        let watch = daemon.watch();
        Self { nginx, recordings, daemon, watch, application: "live" }
    }

    /// Starts a stream and waits until it is live.
    pub fn begin(guest: &Guest, more: &str, size: (u32, u32), bitrate: u32) -> Self {
        Self::prepare(guest, more).go_live(size, bitrate)
    }

    /// The same with a server that keeps a silent connection for 10 s instead of 3.
    pub fn begin_patient(guest: &Guest, size: (u32, u32), bitrate: u32) -> Self {
        Self { application: "patient", ..Self::prepare(guest, "") }.go_live(size, bitrate)
    }

    fn go_live(self, size: (u32, u32), bitrate: u32) -> Self {
        let mut live = self;
        live.daemon.control().granted(&live.request(size, bitrate));
        live.watch.wait_state("streaming", LIVE);
        live.recordings.wait_frames(0, 30, LIVE);
        live
    }

    /// The request for a stream at 30 frames a second.
    pub fn request(&self, size: (u32, u32), bitrate: u32) -> Value {
        start(&self.nginx.url(self.application, "key"), "org.example", "s-1", size, 30, bitrate)
    }

    /// Waits for the report of an outage, and returns it.
    pub fn wait_outage(&mut self, cause: &str, within: Duration) -> Event {
        let outage =
            self.watch.wait(&format!("an outage by {cause}"), within, |event| event.report() == Some("reconnecting"));
        assert_eq!(outage.cause(), cause);
        outage
    }

    /// The camera's part of the daemon's state.
    pub fn camera(&self) -> Value {
        self.daemon.control().status()["camera"].clone()
    }

    /// Waits for `count` more frames than the latest recording has now.
    pub fn wait_more_frames(&self, count: usize) {
        let index = self.recordings.count() - 1;
        let now = self.recordings.wait("the last recording", LIVE, |all| all.get(index).map(|r| r.frames().len()));
        self.recordings.wait_frames(index, now + count, LIVE);
    }

    /// Ends stream and daemon, and checks what holds for every recording: a key frame first, times that never step
    /// back, no complaint from a decoder.
    pub fn finish(self) -> Ended {
        self.daemon.control().granted(&json!({"cmd": "stop"}));
        self.daemon.finish();
        let all = self.recordings.finish();
        for recording in all.iter().filter(|recording| !recording.frames().is_empty()) {
            let frames = recording.frames();
            assert!(frames[0].key, "{} begins with a key frame", recording.path.display());
            assert!(frames.is_sorted_by(|a, b| a.dts_ms < b.dts_ms), "decoding times rise strictly");
        }
        Ended { recordings: all, _nginx: self.nginx }
    }
}

/// What remains of a stream that has ended.
pub struct Ended {
    pub recordings: Vec<Recording>,
    /// Keeps their files.
    _nginx: Nginx,
}
