//! The built daemon, as a user would run it.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::clock::poll_until;
use super::control::Control;
use super::process::Process;
use super::watch::Watch;

/// The daemon with a configuration, a control socket and a state folder of its own.
pub struct Daemon {
    dir: TempDir,
    process: Process,
    config: String,
    log_filter: String,
    environment: Vec<(String, String)>,
    lives: u32,
}

impl Daemon {
    /// Starts it with the test picture and tone, x264, and the TOML tables in `more`.
    pub fn start(more: &str) -> Self {
        Self::start_logging(more, "info,lenscast=trace,lenscastd=trace", &[])
    }

    /// Starts it with another `RUST_LOG` and more environment.
    pub fn start_logging(more: &str, log_filter: &str, environment: &[(&str, &str)]) -> Self {
        let dir = TempDir::with_prefix("lenscastd-").expect("a folder for the daemon");
        let mut config = String::new();
        for (table, lines) in
            [("camera", "device = \"test\""), ("audio", "device = \"test\""), ("encoder", "profile = \"x264\"")]
        {
            if !more.contains(&format!("[{table}]")) {
                config.extend(["[", table, "]\n", lines, "\n"]);
            }
        }
        let socket = dir.path().join("control.sock");
        config.extend(["[control]\nsocket = \"", &socket.to_string_lossy(), "\"\n", more, "\n"]);
        // As systemd does for StateDirectory=.
        fs::create_dir(dir.path().join("state")).expect("a folder for the daemon's state");
        let environment: Vec<(String, String)> =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let process = launch(dir.path(), &config, log_filter, &environment, 1);
        let mut this = Self { dir, process, config, log_filter: log_filter.to_owned(), environment, lives: 1 };
        this.await_socket();
        this
    }

    /// Ends it by `signal` and starts it again with the same configuration, socket and state folder.
    pub fn restart(&mut self, signal: Signal) {
        self.stop_for(signal, Duration::ZERO);
    }

    /// The same, with that much time between the two.
    pub fn stop_for(&mut self, signal: Signal, time: Duration) {
        self.process.signal(signal);
        self.process.wait(Duration::from_secs(9));
        std::thread::sleep(time);
        self.lives += 1;
        self.process = launch(self.dir.path(), &self.config, &self.log_filter, &self.environment, self.lives);
        self.await_socket();
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// A new connection to its control socket.
    pub fn control(&self) -> Control {
        Control::connect(&self.socket())
    }

    /// A new watch.
    pub fn watch(&self) -> Watch {
        Watch::begin(&self.socket())
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What systemd does after it was killed: switches its light off.
    pub fn led_off(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lenscastd"));
        command.arg("--config").arg(self.dir.path().join("lenscastd.toml")).arg("--led-off");
        let status = Process::spawn(command.stdin(Stdio::null())).wait(Duration::from_secs(9));
        assert!(status.success(), "lenscastd --led-off ended with {status}");
    }

    /// All it has logged, over its restarts.
    pub fn log(&self) -> String {
        (1..=self.lives)
            .map(|life| {
                String::from_utf8_lossy(&fs::read(log_path(self.dir.path(), life)).unwrap_or_default()).into_owned()
            })
            .collect()
    }

    /// Asks it to end, as systemd does, and expects it to, cleanly and in time.
    pub fn finish(mut self) {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait(Duration::from_secs(9));
        assert!(status.success(), "the daemon ended with {status}");
        let log = self.log();
        let panicked = log.lines().find(|line| line.contains("panicked at"));
        assert_eq!(panicked, None, "a thread of the daemon panicked");
    }

    fn await_socket(&mut self) {
        let socket = self.socket();
        poll_until("the daemon's control socket", Duration::from_secs(15), || {
            if let Some(status) = self.process.exited() {
                panic!("the daemon ended at once with {status}:\n{}", self.log());
            }
            UnixStream::connect(&socket).ok()
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("---- the daemon's last words\n{}", lines[lines.len().saturating_sub(80)..].join("\n"));
        }
    }
}

fn log_path(dir: &Path, life: u32) -> PathBuf {
    dir.join(format!("stderr-{life}.txt"))
}

fn launch(dir: &Path, config: &str, log_filter: &str, environment: &[(String, String)], life: u32) -> Process {
    let file = dir.join("lenscastd.toml");
    fs::write(&file, config).expect("the configuration can be written");
    let log = File::create(log_path(dir, life)).expect("a log file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenscastd"));
    command
        .arg("--config")
        .arg(&file)
        .env("RUST_LOG", log_filter)
        .env("NO_COLOR", "1")
        .env("STATE_DIRECTORY", dir.join("state"));
    command.envs(environment.iter().cloned());
    Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
}

/// Runs the daemon with a configuration it must not accept, and gives what it says about it.
pub fn refusal(config: &str) -> String {
    let dir = TempDir::with_prefix("lenscastd-").expect("a folder for the daemon");
    let mut process = launch(dir.path(), config, "info", &[], 1);
    let status = process.wait(Duration::from_secs(9));
    assert!(!status.success(), "the daemon accepted this configuration:\n{config}");
    fs::read_to_string(log_path(dir.path(), 1)).expect("its words are UTF-8")
}
