//! The built daemon in a guest of the camera rig, as it would run on glasses.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::control::Control;
use super::guest::{Guest, Program};
use super::watch::Watch;

const SOCKET: &str = "/run/lenscast/control.sock";
const CONFIG: &str = "/run/lenscast/lenscastd.toml";
/// GStreamer's plugins are looked at again when it starts, on one emulated CPU.
const START: Duration = Duration::from_secs(30);

/// The daemon, with its control socket on the host's side too.
pub struct GuestDaemon {
    program: Program,
    socket: PathBuf,
}

impl GuestDaemon {
    /// Starts it with the guest's camera, no sound, any encoder, and the TOML tables in `more`.
    pub fn start(guest: &Guest, more: &str) -> Self {
        let mut config = String::new();
        for (table, line) in [("camera", "device = \"auto\""), ("audio", "device = \"none\"")] {
            if !more.contains(&format!("[{table}]")) {
                let _ = writeln!(config, "[{table}]\n{line}");
            }
        }
        let _ = writeln!(config, "[control]\nsocket = \"{SOCKET}\"\n{more}");
        guest.shell("mkdir -p /run/lenscast/state");
        guest.write(CONFIG, &config);
        let environment = [
            ("RUST_LOG", "info,lenscast=debug,lenscastd=debug"),
            ("NO_COLOR", "1"),
            ("STATE_DIRECTORY", "/run/lenscast/state"),
        ];
        let program = guest.start(&[env!("CARGO_BIN_EXE_lenscastd"), "--config", CONFIG], &environment);
        let mut this = Self { program, socket: PathBuf::new() };
        this.socket = guest.forward(SOCKET, START);
        this
    }

    /// Its control socket on the host, for `lenscastctl`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A new connection to its control socket.
    pub fn control(&self) -> Control {
        Control::connect(&self.socket)
    }

    /// A new watch.
    pub fn watch(&self) -> Watch {
        Watch::begin(&self.socket)
    }

    /// Its process in the guest.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        self.program.output()
    }

    /// Asks it to end, as systemd does, and expects it to, cleanly and in time.
    pub fn finish(self) {
        self.program.signal(Signal::SIGTERM);
        assert_eq!(self.program.wait(Duration::from_secs(20)), 0, "the daemon's exit status");
        let log = self.log();
        let panicked = log.lines().find(|line| line.contains("panicked at"));
        assert_eq!(panicked, None, "a thread of the daemon panicked");
    }
}

impl Drop for GuestDaemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("---- the daemon's last words\n{}", lines[lines.len().saturating_sub(80)..].join("\n"));
        }
    }
}
