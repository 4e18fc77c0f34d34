//! An app with the unmodified `@mentra/sdk`, in Node.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::{Process, run};

/// `tests/sdk/app.mjs` as a child: an app server with its webhook on a free port.
pub struct SdkApp {
    package: String,
    port: u16,
    process: Process,
    stdin: ChildStdin,
    lines: Receiver<Value>,
    /// Everything it said so far that was not waited for.
    heard: Vec<Value>,
    calls: u64,
}

/// A port of the loopback address that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

impl SdkApp {
    /// Starts it, until its webhook answers.
    pub fn start(package: &str, api_key: &str) -> Self {
        let port = free_port();
        Self::start_at(package, api_key, port)
    }

    /// Starts it with its webhook on `port`: the same app again.
    pub fn start_at(package: &str, api_key: &str, port: u16) -> Self {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk");
        if !std::path::Path::new(dir).join("node_modules/@mentra/sdk/package.json").exists() {
            run("npm", &["ci", "--ignore-scripts", "--prefix", dir]);
        }
        let mut command = Command::new("node");
        command.args(["app.mjs", package, api_key, &port.to_string()]).current_dir(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).env("NODE_ENV", "production");
        let mut process = Process::spawn(&mut command);
        let (stdin, stdout) = process.take_pipes();
        let (said, lines) = channel();
        // Ends with the process's standard output.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Some(json) = line.strip_prefix("@@ ") else { continue };
                let Ok(value) = serde_json::from_str(json) else { continue };
                if said.send(value).is_err() {
                    break;
                }
            }
        });
        let mut app = Self { package: package.to_owned(), port, process, stdin, lines, heard: Vec::new(), calls: 0 };
        app.wait("the app's server", Duration::from_secs(30), |said| said.get("ready").is_some());
        app
    }

    /// Its package.
    pub fn package(&self) -> &str {
        &self.package
    }

    /// Its webhook.
    pub fn webhook(&self) -> String {
        format!("http://127.0.0.1:{}/webhook", self.port)
    }

    /// The port of its webhook.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Calls `session.camera.NAME(…)`; gives the call's id.
    pub fn begin(&mut self, call: &str, arguments: &Value) -> u64 {
        self.calls += 1;
        let line = json!({"id": self.calls, "call": call, "arguments": arguments});
        writeln!(self.stdin, "{line}").expect("the app reads its standard input");
        self.calls
    }

    /// What a call came to: what its promise resolved with, or why it was rejected.
    pub fn outcome(&mut self, id: u64, within: Duration) -> Result<Value, String> {
        let said = self.wait("the call's outcome", within, |said| said["id"] == id);
        match said.get("error") {
            Some(error) => Err(error.as_str().unwrap_or_default().to_owned()),
            None => Ok(said["result"].clone()),
        }
    }

    /// Calls and waits, 10 s at most.
    pub fn call(&mut self, call: &str, arguments: &Value) -> Result<Value, String> {
        let id = self.begin(call, arguments);
        self.outcome(id, Duration::from_secs(10))
    }

    /// The next thing it says, or said and was not asked for, that is such; panics when `within` is over, and at once when
    /// the app has a fault nobody caught.
    pub fn wait(&mut self, what: &str, within: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        loop {
            if let Some(at) = self.heard.iter().position(&is_it) {
                return self.heard.remove(at);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(said) => {
                    assert!(said.get("fault").is_none(), "{} has a fault: {said}", self.package);
                    self.heard.push(said);
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: {what} did not come within {within:?}; it said {:#?}", self.package, self.heard)
                }
                Err(RecvTimeoutError::Disconnected) => panic!("{} ended; it said {:#?}", self.package, self.heard),
            }
        }
    }

    /// The next managed status of that word.
    pub fn managed(&mut self, word: &str, within: Duration) -> Value {
        let said = self.wait(&format!("managed {word}"), within, |said| said["managed"]["status"] == word);
        said["managed"].clone()
    }

    /// The next unmanaged status of that word.
    pub fn unmanaged(&mut self, word: &str, within: Duration) -> Value {
        let said = self.wait(&format!("unmanaged {word}"), within, |said| said["unmanaged"]["status"] == word);
        said["unmanaged"].clone()
    }

    /// Everything it said that was not waited for.
    pub fn heard(&mut self) -> &mut Vec<Value> {
        while let Ok(said) = self.lines.try_recv() {
            self.heard.push(said);
        }
        &mut self.heard
    }

    /// Expects that nothing went wrong in it that nobody asked about, and ends it.
    pub fn finish(mut self) {
        let faults: Vec<Value> = self
            .heard()
            .iter()
            .filter(|said| said.get("fault").is_some() || said.get("sdkError").is_some())
            .cloned()
            .collect();
        assert!(faults.is_empty(), "{}: {faults:#?}", self.package);
    }
}
