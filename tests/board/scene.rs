//! The tests' starting point: a flashed board, and servers around it.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Board, CloudStandIn, Control, Nginx, Recordings, board, monotonic};

pub const SERVICE: &str = "lenscastd.service";
/// Limit for the service to come up: a slow board scans all GStreamer plugins before its first start.
pub const UP: Duration = Duration::from_mins(2);
/// Limit from a start command to frames at the server: encoder trials on emulated cores, once per boot.
pub const LIVE: Duration = Duration::from_mins(1);
/// Limit for being live again: three times the 10 s promised on this board.
pub const BACK: Duration = Duration::from_secs(30);
/// `WatchdogSec=` of the unit.
pub const WATCHDOG: Duration = Duration::from_secs(10);
/// The stream's frame rate: low, since the cores are emulated.
pub const FRAME_RATE: u32 = 15;
pub const WEBCAM: &str = "--mode yuyv:320x240@15,30";

/// The disk of a board with lenscast flashed, shared by all tests of a run; for copying only.
fn flashed() -> &'static PathBuf {
    static DISK: OnceLock<PathBuf> = OnceLock::new();
    DISK.get_or_init(|| {
        let disk = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("flashed-board.qcow2");
        let _ = std::fs::remove_file(&disk);
        let mut board = Board::boot(&disk);
        let (status, said) = board.flash("root", &board::package());
        println!("{said}");
        assert_eq!(status, 0, "{said}");
        assert_eq!(board.property(SERVICE, "ActiveState"), "active");
        board.power_off();
        disk
    })
}

/// A copy of that disk.
pub fn disk() -> (TempDir, PathBuf) {
    let folder = TempDir::with_prefix("board-disk-").expect("a folder for a disk");
    let disk = folder.path().join("disk.qcow2");
    std::fs::copy(flashed(), &disk).expect("as much space again");
    (folder, disk)
}

/// Gives the daemon this configuration, and restarts it. There is no sound unless the configuration says so.
pub fn configure(board: &Board, toml: &str) {
    let silence = if toml.contains("[audio]") { "" } else { "[audio]\ndevice = \"none\"\n" };
    let config = format!("{silence}{toml}");
    board.shell("mkdir -p /etc/lenscast/lenscastd.d");
    board.write("/etc/lenscast/lenscastd.d/board.toml", &config);
    board.shell("systemctl restart lenscastd");
}

/// Cuts the board's power and boots it again with the same hardware; returns when its service is up.
pub fn back_on(board: &mut Board) {
    board.cut();
    board.boot_again();
    board.hardware("encoder");
    board.webcam("0001", WEBCAM);
    // The node exists before udev has given it to its group.
    board.shell("udevadm settle");
    board.wait_service(SERVICE, "active", UP);
}

/// The phone that controls the board, and the server that it streams to.
pub struct Servers {
    pub phone: CloudStandIn,
    pub nginx: Nginx,
    pub recordings: Recordings,
}

impl Servers {
    pub fn start(board: &Board) -> Self {
        let nginx = Nginx::start_at(board.host());
        let recordings = nginx.recordings();
        Self { phone: CloudStandIn::start_at(board.host()), nginx, recordings }
    }

    /// Makes the phone request a stream to this key of an nginx application.
    pub fn ask(&self, stream: &str, application: &str, key: &str) {
        self.phone.send(&json!({
            "type": "start_stream", "appId": "org.example.app", "streamId": stream,
            "streamUrl": self.nginx.url(application, key), "audio": {}, "stream": {}, "flash": true, "sound": true,
            "video": {"width": 320, "height": 240, "bitrate": 300_000, "frameRate": FRAME_RATE},
        }));
    }

    /// Makes the phone send a keep-alive.
    pub fn keep_alive(&self, stream: &str) {
        self.phone.send(&json!({"type": "keep_stream_alive", "streamId": stream, "ackId": "a1"}));
    }

    /// Waits for a status of a stream.
    pub fn wait_status(&mut self, stream: &str, status: &str, within: Duration) -> Value {
        self.phone.wait_message(&format!("{stream} to be {status}"), within, |message| {
            message["streamId"] == stream && message["status"] == status && message.get("m").is_none()
        })
    }

    /// Waits for the report of an outage with this cause, and returns that status.
    pub fn wait_outage(&mut self, stream: &str, cause: &str, within: Duration) -> Value {
        self.phone.wait_message(&format!("an outage of {stream} by {cause}"), within, |message| {
            message["streamId"] == stream && message["status"] == "reconnecting" && message["cause"] == cause
        })
    }

    /// Waits for frames in a new publication; `before` is the number of earlier ones.
    pub fn wait_publication(&self, before: usize, within: Duration) {
        self.recordings.wait_frames(before, 5, within);
    }

    /// Share of the expected frames that arrive in the latest publication over a while.
    pub fn share_of_frames(&self) -> f64 {
        const SPAN: Duration = Duration::from_secs(10);
        let index = self.recordings.count() - 1;
        let begun = monotonic();
        let arrived = self.recordings.wait("ten seconds of frames", 3 * SPAN, |all| {
            let frames = all[index].frames();
            let last = frames.last()?.at;
            (last >= begun + SPAN).then(|| frames.iter().filter(|f| f.at >= begun && f.at < begun + SPAN).count())
        });
        arrived as f64 / (f64::from(FRAME_RATE) * SPAN.as_secs_f64())
    }

    /// Waits for more frames in the latest publication.
    pub fn wait_more_frames(&self, within: Duration) {
        let index = self.recordings.count() - 1;
        let now = self.recordings.wait("the last recording", within, |all| all.get(index).map(|r| r.frames().len()));
        self.recordings.wait_frames(index, now + 30, within);
    }
}

/// The daemon's control socket, reachable from the host.
pub fn control(board: &Board) -> Control {
    Control::connect(&board.forward("/run/lenscast/control.sock", UP))
}

/// The brightness of the light.
pub fn brightness(board: &Board) -> u32 {
    board.read("/sys/class/leds/privacy/brightness").trim().parse().expect("a brightness")
}
