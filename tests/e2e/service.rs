//! The daemon as a service: what systemd is told, the socket it hands over, and a stream that outlives its process.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::control::{Control, small};
use crate::support::{Daemon, Nginx, Process, monotonic};

const SOON: Duration = Duration::from_secs(10);
/// Limit for being live again after the process ended: three times the promised time.
const LIVE_AGAIN: Duration = Duration::from_secs(9);

/// A stand-in for systemd.
struct Manager {
    _folder: tempfile::TempDir,
    path: String,
    socket: UnixDatagram,
}

impl Manager {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { path: path.to_string_lossy().into_owned(), socket, _folder: folder }
    }

    /// The message received within that time, if any.
    fn next(&self, within: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).expect("a time");
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned())
    }

    /// The messages received up to and including one that begins with `word`.
    fn until(&self, word: &str, within: Duration) -> Vec<String> {
        let deadline = Instant::now() + within;
        let mut heard = Vec::new();
        while let Some(next) = self.next(deadline.saturating_duration_since(Instant::now())) {
            let it = next.starts_with(word);
            heard.push(next);
            if it {
                return heard;
            }
        }
        panic!("not heard within {within:?}: {word}; but {heard:?}");
    }
}

#[test]
fn systemd_hears_what_is_true_and_nothing_from_a_daemon_that_hangs() {
    let manager = Manager::start();
    let nginx = Nginx::start();
    let environment = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "3000000")];
    let mut daemon = Daemon::start_logging("", "info", &environment);
    assert_eq!(manager.until("READY=1", SOON), ["STATUS=idle", "READY=1"]);
    daemon.control().granted(&small(&nginx.url("live", "s3cret"), "org.example", "s-1"));
    let heard = manager.until("STATUS=streaming", SOON);
    assert!(heard.last().expect("it").contains("/live/*** for org.example"), "{heard:?}");
    for _ in 0..3 {
        manager.until("WATCHDOG=1", Duration::from_secs(3));
    }

    daemon.process().signal(Signal::SIGSTOP);
    while manager.next(Duration::from_millis(100)).is_some() {}
    assert_eq!(manager.next(Duration::from_secs(4)), None, "a stopped process feeds no watchdog");
    daemon.process().signal(Signal::SIGCONT);
    manager.until("WATCHDOG=1", SOON);

    daemon.process().signal(Signal::SIGTERM);
    let heard = manager.until("STOPPING=1", SOON);
    assert!(!format!("{heard:?}").contains("s3cret"));
    assert!(daemon.process().wait(SOON).success());
}

#[test]
fn systemds_socket_is_served_and_left_where_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.sock");
    let config = folder.path().join("lenscastd.toml");
    let text = format!("[camera]\ndevice = \"test\"\n[control]\nsocket = {path:?}\n");
    std::fs::write(&config, text).expect("the configuration can be written");
    let listener = UnixListener::bind(&path).expect("a socket");
    // systemd's part: the socket as descriptor 3, and the process it is for. The client connects before anybody
    // answers.
    let mut early = Control::connect(&path);
    let mut command = Command::new("bash");
    command.args(["-c", "export LISTEN_PID=$$ LISTEN_FDS=1; exec 3<&0 < /dev/null; exec \"$@\"", "bash"]);
    command.arg(env!("CARGO_BIN_EXE_lenscastd")).arg("--config").arg(&config);
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null());
    let mut daemon = Process::spawn(&mut command);
    assert_eq!(early.status()["owner"], Value::Null);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait(SOON).success());
    assert!(path.exists(), "it was not the daemon's to remove");
}

fn wait_taken_up(daemon: &Daemon) -> Value {
    daemon.watch().wait_snapshot("the stream", SOON, |state| !state["stream"].is_null())
}

#[test]
fn a_stream_goes_on_in_the_next_process_after_a_crash_and_after_an_update() {
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let mut daemon = Daemon::start("");
    daemon.control().granted(&small(&nginx.url("live", "key"), "org.example", "s-1"));
    for (publication, signal) in [(1, Signal::SIGKILL), (2, Signal::SIGHUP)] {
        recordings.wait_first_frame(publication - 1, SOON);
        let ended = monotonic();
        daemon.restart(signal);
        let back = recordings.wait_first_frame(publication, LIVE_AGAIN).at;
        let took = back.saturating_sub(ended);
        assert!(took <= LIVE_AGAIN, "{signal}: {took:?}");
        daemon.watch().wait_snapshot("it to stream", SOON, |state| state["stream"]["state"] == "streaming");
        let state = daemon.control().status();
        let stream = &state["stream"];
        assert_eq!((&stream["stream_id"], &stream["app"]), (&json!("s-1"), &json!("org.example")), "{state}");
    }
    daemon.control().granted(&json!({"cmd": "stop"}));
    daemon.restart(Signal::SIGKILL);
    assert_eq!(daemon.control().status()["stream"], Value::Null, "what was ended is not taken up");
    daemon.finish();
}

#[test]
fn a_stream_with_which_one_process_after_the_other_dies_is_given_up() {
    let nginx = Nginx::start();
    let mut daemon = Daemon::start("");
    daemon.control().granted(&small(&nginx.url("live", "key"), "org.example", "s-1"));
    for _ in 0..3 {
        daemon.restart(Signal::SIGKILL);
        wait_taken_up(&daemon);
    }
    daemon.restart(Signal::SIGKILL);
    let state = daemon.control().status();
    assert_eq!(state["stream"], Value::Null);
    assert_eq!((&state["last_end"]["state"], &state["last_end"]["cause"]), (&json!("error"), &json!("daemon_crashed")));
    daemon.finish();
}
