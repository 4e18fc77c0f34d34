//! A stand-in for the phone: the far end of the glasses' serial line, a pseudo-terminal, here or in a guest.
//!
//! It speaks as phones do (K900 frames, lengths with the low byte first, long messages in pieces) and keeps every message
//! with the time it came.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use lenscast::protocol::k900::{self, LengthOrder, Received, Toward};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::Value;

use super::clock::{monotonic, poll_until};
use super::guest::{Guest, Program};

/// One emulated CPU.
const IN_GUEST: Duration = Duration::from_secs(20);

/// Makes a line in a guest, leads it to the host, and says when it is there.
const LINE_IN_GUEST: &str = r"
import os, pty, socket, sys, threading, tty
line, end = pty.openpty()
tty.setraw(end)
host = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def lead(take, give):
    while data := take(1024):
        give(data)
threading.Thread(target=lead, args=(lambda most: os.read(line, most), host.sendall), daemon=True).start()
os.symlink(os.ttyname(end), sys.argv[3])
lead(host.recv, lambda data: os.write(line, data))
";
const DEVICE_IN_GUEST: &str = "/run/phone-line";

/// What keeps the daemon's end of the line.
enum End {
    Here(OwnedFd),
    InGuest(Program),
}

/// The stand-in.
pub struct PhoneStandIn {
    line: File,
    /// Kept, so that the line stays while the daemon is away.
    _end: End,
    device: PathBuf,
    received: Receiver<Value>,
    past: Vec<Value>,
    sent: u32,
}

impl PhoneStandIn {
    /// Makes a line and listens to it. Its thread ends with the line.
    pub fn start() -> Self {
        let line = openpty(None, None).expect("a pseudo-terminal");
        let mut settings = tcgetattr(&line.slave).expect("a terminal's settings");
        cfmakeraw(&mut settings);
        tcsetattr(&line.slave, SetArg::TCSANOW, &settings).expect("a raw line");
        let device = std::fs::read_link(format!("/proc/self/fd/{}", line.slave.as_raw_fd())).expect("its name");
        Self::on(File::from(line.master), End::Here(line.slave), device)
    }

    /// The same for a daemon in a guest.
    pub fn start_in(guest: &Guest) -> Self {
        let listener = TcpListener::bind((guest.host(), 0)).expect("a free port");
        let (host, port) = (guest.host().to_string(), listener.local_addr().expect("it is bound").port().to_string());
        let line = guest.start(&["python3", "-c", LINE_IN_GUEST, &host, &port, DEVICE_IN_GUEST], &[]);
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let socket = poll_until("the guest's line", IN_GUEST, || listener.accept().ok()).0;
        socket.set_nonblocking(false).expect("a socket can block");
        poll_until("its device", IN_GUEST, || {
            (!guest.shell(&format!("ls {DEVICE_IN_GUEST} || true")).is_empty()).then_some(())
        });
        Self::on(File::from(OwnedFd::from(socket)), End::InGuest(line), DEVICE_IN_GUEST.into())
    }

    fn on(writer: File, end: End, device: PathBuf) -> Self {
        let mut reader = writer.try_clone().expect("another descriptor");
        let (heard, received) = channel();
        std::thread::spawn(move || {
            let (mut frames, mut bytes, start) = (k900::Receiver::default(), [0; 1024], Instant::now());
            while let Ok(count) = reader.read(&mut bytes) {
                for &byte in &bytes[..count] {
                    match frames.push(byte, start.elapsed()) {
                        Some(Received::Message { text, .. }) => {
                            let json = serde_json::from_str(&text).expect("messages are JSON");
                            if heard.send(json).is_err() {
                                return;
                            }
                        }
                        Some(Received::Piece) | None => {}
                        Some(other) => panic!("no phone understands {other:?}"),
                    }
                }
            }
        });
        Self { line: writer, _end: end, device, received, past: Vec::new(), sent: 0 }
    }

    /// The TOML table that points the daemon here.
    pub fn config(&self) -> String {
        format!("[link.uart]\ndevice = \"{}\"\n", self.device.display())
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Value) {
        self.sent += 1;
        let id = format!("-1_1700000000000_{}", self.sent);
        let frames = k900::pack(&message.to_string(), &id, Toward::Glasses, LengthOrder::Little);
        self.send_bytes(&frames.expect("it is not too long").concat());
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.line.write_all(bytes).expect("the line takes bytes");
    }

    /// Waits for a message. What was waited for once is not found again.
    pub fn wait(&mut self, what: &str, within: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        loop {
            match self.received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => {
                    self.past.push(message.clone());
                    if is_it(&message) {
                        return message;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let last = &self.past[self.past.len().saturating_sub(12)..];
                    panic!("waited {within:?} in vain for {what} (now {:?}); last received: {last:#?}", monotonic())
                }
                Err(RecvTimeoutError::Disconnected) => panic!("the line ended before {what}"),
            }
        }
    }

    /// All messages so far, those that no wait matched included.
    pub fn messages(&mut self) -> &[Value] {
        self.past.extend(self.received.try_iter());
        &self.past
    }
}
