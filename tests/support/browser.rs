//! Chromium with one page, driven by `tests/browser/play.mjs`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::{Process, run};

/// Playback in a browser, until it is told to stop or two minutes are over.
pub struct Browser {
    name: String,
    process: Process,
    stdin: ChildStdin,
    lines: Receiver<Value>,
    said: Vec<Value>,
}

impl Browser {
    /// Plays `url` by `mode` (`watch`, `whep`, `hls`, `dash`). Its screenshot is `screenshots/{name}.png` in cargo's folder
    /// for test files.
    pub fn play(name: &str, mode: &str, url: &str) -> Self {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");
        if !Path::new(dir).join("node_modules/playwright-core/package.json").exists() {
            run("npm", &["ci", "--ignore-scripts", "--prefix", dir]);
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&folder).expect("cargo's folder for test files is writable");
        let picture = folder.join(format!("{name}.png"));
        let mut command = Command::new("node");
        command.args(["play.mjs", "--mode", mode, "--url", url, "--seconds", "120", "--viewport", "800x450"]);
        command.arg("--screenshot").arg(picture).current_dir(dir);
        let mut process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()));
        let (stdin, stdout) = process.take_pipes();
        let (sender, lines) = channel();
        // Ends with the process's standard output.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else { continue };
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        Self { name: name.to_owned(), process, stdin, lines, said: Vec::new() }
    }

    /// Waits for it to say such a thing from now on.
    pub fn wait(&mut self, what: &str, within: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(said) => {
                    self.said.push(said.clone());
                    if is_it(&said) {
                        return said;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: {what} did not come within {within:?}; it said {:#?}", self.name, self.recent())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{}: it ended before {what}; it said {:#?}", self.name, self.recent())
                }
            }
        }
    }

    /// Waits for the page to show `state`.
    pub fn state(&mut self, state: &str, within: Duration) {
        self.wait(&format!("the page to show {state}"), within, |said| said["state"] == state);
    }

    /// Waits for `pictures` more to be decoded, and time to go on with them. Gives how things are then.
    pub fn pictures(&mut self, pictures: f64, within: Duration) -> Value {
        let deadline = Instant::now() + within;
        let now = |said: &Value| said["now"].is_object();
        // What it said before now is of the past.
        self.said.extend(self.lines.try_iter());
        let from = self.wait("a sample", within, now)["now"].clone();
        let number = |value: &Value, key: &str| value[key].as_f64().unwrap_or(0.0);
        let left = deadline.saturating_duration_since(Instant::now());
        let then = self.wait(&format!("{pictures} more pictures"), left, |said| {
            now(said)
                && number(&said["now"], "decoded") >= number(&from, "decoded") + pictures
                && number(&said["now"], "time") > number(&from, "time")
        });
        then["now"].clone()
    }

    /// Takes its screenshot now rather than at the end.
    pub fn shoot(&mut self) {
        writeln!(self.stdin, "shoot").expect("the browser's driver reads its standard input");
    }

    /// Ends playback, and gives what was seen in all.
    pub fn finish(mut self) -> Value {
        writeln!(self.stdin, "stop").expect("the browser's driver reads its standard input");
        let seen = self.wait("what it saw", Duration::from_secs(30), |said| said["mode"].is_string());
        self.process.wait(Duration::from_secs(15));
        // Shown if the test fails.
        self.said.iter().for_each(|said| println!("{}: {said}", self.name));
        seen
    }

    fn recent(&self) -> &[Value] {
        &self.said[self.said.len().saturating_sub(12)..]
    }
}
