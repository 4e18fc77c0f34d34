//! Everything the daemon tells a watcher, with the time it was told.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::clock::monotonic;
use super::schema;

/// One line from the daemon.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it was read, on `CLOCK_MONOTONIC`.
    pub at: Duration,
    /// What it says.
    pub json: Value,
}

impl Event {
    /// A change in the stream's life: the state it is in now.
    pub fn report(&self) -> Option<&str> {
        (self.json["event"] == "report").then(|| self.json["state"].as_str())?
    }

    /// The daemon's whole state, if the line holds one.
    pub fn state(&self) -> Option<&Value> {
        (self.json["event"] != "report").then(|| self.json.get("state"))?
    }

    /// The cause that a report names.
    pub fn cause(&self) -> &str {
        self.json["cause"].as_str().unwrap_or("none")
    }

    /// The metrics of the living stream, if the line holds any.
    pub fn metrics(&self) -> Option<&Value> {
        self.state()?["stream"].get("metrics")
    }
}

/// A `watch` on the control socket. What was waited for once is not found again: each wait begins after the last match.
pub struct Watch {
    lines: Receiver<Event>,
    past: Vec<Event>,
}

impl Watch {
    /// Begins to watch; returns when the daemon has given its state.
    pub fn begin(socket: &Path) -> Self {
        let mut stream =
            UnixStream::connect(socket).unwrap_or_else(|e| panic!("cannot connect {}: {e}", socket.display()));
        stream.write_all(b"{\"cmd\":\"watch\"}\n").expect("the daemon takes a request");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let line = match line {
                    Ok(line) => line,
                    Err(e) if e.kind() == ErrorKind::ConnectionReset => return,
                    Err(e) => panic!("the watch broke: {e}"),
                };
                let json: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
                if sender.send(Event { at: monotonic(), json }).is_err() {
                    return;
                }
            }
        });
        let mut this = Self { lines, past: Vec::new() };
        this.wait("the first state", Duration::from_secs(10), |event| event.json["ok"] == true);
        this
    }

    /// Waits for an event. Panics with `what` once `within` is over.
    pub fn wait(&mut self, what: &str, within: Duration, mut is_it: impl FnMut(&Event) -> bool) -> Event {
        let deadline = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    schema::check(if event.json.get("ok").is_some() { "reply_to_watch" } else { "Event" }, &event.json);
                    self.past.push(event.clone());
                    if is_it(&event) {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("waited {within:?} in vain for {what}; {}", self.recent()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the daemon closed the watch before {what}; {}", self.recent())
                }
            }
        }
    }

    /// Waits for the stream to be in `state`, and gives that report.
    pub fn wait_state(&mut self, state: &str, within: Duration) -> Event {
        self.wait(&format!("the stream to be {state}"), within, |event| event.report() == Some(state))
    }

    /// Waits for the daemon's state to say what `is_it` looks for, and gives it.
    pub fn wait_snapshot(&mut self, what: &str, within: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
        let event = self.wait(what, within, |event| event.state().is_some_and(&is_it));
        event.state().cloned().expect("it was there a moment ago")
    }

    /// Everything that comes until `within` is over, for what must *not* be told meanwhile.
    pub fn listen(&mut self, within: Duration) -> Vec<Event> {
        let deadline = Instant::now() + within;
        let mut heard = Vec::new();
        while let Ok(event) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.past.push(event.clone());
            heard.push(event);
        }
        heard
    }

    /// All reports so far, those that no wait matched included.
    pub fn reports(&mut self) -> Vec<Event> {
        self.past.extend(self.lines.try_iter());
        self.past.iter().filter(|event| event.report().is_some()).cloned().collect()
    }

    fn recent(&self) -> String {
        let last: Vec<String> =
            self.past.iter().rev().take(12).rev().map(|e| format!("{:?} {}", e.at, e.json)).collect();
        format!("last heard (now {:?}):\n{}", monotonic(), last.join("\n"))
    }
}
