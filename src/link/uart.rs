//! The serial line to the phone, through the Bluetooth chip: K900 frames (see [`crate::protocol::k900`]).
//!
//! A line has no connection. It is up from the first message, or chunk of one, that arrives, and down when the device
//! vanishes or nothing from the phone arrives for 45 s; the chip's own words do not prove that a phone is there. While
//! it is down, messages to send are dropped, as the device first sends its whole state when the line is up.
//!
//! Uses termios and tokio: a serial-port crate would bring a second, older nix for what takes ten lines here.

mod port;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::standby::{Backoff, down, ordered};
use super::{LinkEvent, Outgoing};
use crate::protocol::k900::{self, LengthOrder, Received, Receiver, Toward};
use port::Port;
pub use port::is_baud;

/// Bytes read at a time; together with [`k900::Receiver`]'s bounds this limits the messages that wait for the device's
/// task.
const READ: usize = 1024;

/// The line and its settings.
#[derive(Clone, Debug)]
pub struct UartConfig {
    /// The device node, for example `/dev/ttyS1`.
    pub device: PathBuf,
    /// Bit/s; a value for which [`is_baud`] is true.
    pub baud: u32,
    /// How lengths are written; both orders are read.
    pub length_order: LengthOrder,
}

/// Limits. Tests shorten them.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// Limit for one message to leave this machine's buffers.
    write: Duration,
    /// Longest silence of the phone on a link that is up.
    silence: Duration,
    /// First delay before reopening the device.
    retry_first: Duration,
    /// Longest delay before reopening the device.
    retry_most: Duration,
    /// How long a device must exist for the delay to start over.
    settled: Duration,
    /// Limit for the last messages at shutdown.
    farewell: Duration,
}

const TIMING: Timing = Timing {
    write: Duration::from_secs(5),
    silence: Duration::from_secs(45),
    retry_first: Duration::from_millis(500),
    retry_most: Duration::from_secs(10),
    settled: Duration::from_secs(30),
    farewell: Duration::from_secs(1),
};

/// Keeps the line open until `shutdown` turns true (or its sender or the receiver of `events` is dropped). Messages in
/// `outgoing` at shutdown are still sent, within a second.
///
/// Both queues may be tightly bounded: sending continues while the device's task does not take events.
pub async fn run(
    config: UartConfig,
    events: mpsc::Sender<LinkEvent>,
    outgoing: mpsc::Receiver<Outgoing>,
    shutdown: watch::Receiver<bool>,
) {
    SerialLink { config, timing: TIMING, events, outgoing, shutdown, sequence: 0 }.run().await;
}

struct SerialLink {
    config: UartConfig,
    timing: Timing,
    events: mpsc::Sender<LinkEvent>,
    outgoing: mpsc::Receiver<Outgoing>,
    shutdown: watch::Receiver<bool>,
    /// Number of messages sent, for the ids of chunked ones.
    sequence: u64,
}

/// How a session ended.
enum Ended {
    Shutdown,
    Lost(String),
}

impl SerialLink {
    async fn run(mut self) {
        let device = self.config.device.display().to_string();
        let mut backoff = Backoff::new(self.timing.retry_first, self.timing.retry_most);
        let mut last_reason = String::new();
        loop {
            let reason = match Port::open(&self.config.device, self.config.baud) {
                Err(error) => error.to_string(),
                Ok(port) => {
                    info!(device, "serial link: open");
                    let since = Instant::now();
                    let Ended::Lost(reason) = self.session(port).await else { return };
                    if since.elapsed() >= self.timing.settled {
                        backoff = Backoff::new(self.timing.retry_first, self.timing.retry_most);
                        last_reason.clear();
                    }
                    reason
                }
            };
            let delay = backoff.next(false, fastrand::f64());
            if reason == last_reason {
                debug!(device, reason, retry_in = ?delay, "serial link: still down");
            } else {
                warn!(device, reason, retry_in = ?delay, "serial link: down");
            }
            last_reason = reason;
            if down(&mut self.outgoing, &mut self.shutdown, sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    /// Uses the device while it exists. Reports the link's end, if it was up.
    async fn session(&mut self, port: Port) -> Ended {
        let (mut up, mut receiver, start) = (false, Receiver::default(), Instant::now());
        // Events for which the device's task has no room yet. Until they are gone nothing more is read, but sending
        // continues.
        let mut untold: VecDeque<LinkEvent> = VecDeque::new();
        let (mut unsent, mut send_by) = (Vec::new(), start);
        let mut silent_at = start;
        let mut bytes = [0; READ];
        let reason = loop {
            tokio::select! {
                () = ordered(&mut self.shutdown) => break None,
                permit = self.events.reserve(), if !untold.is_empty() => {
                    let Ok(permit) = permit else { return Ended::Shutdown };
                    if let Some(event) = untold.pop_front() {
                        permit.send(event);
                    }
                    // What arrived while nothing was read has not been heard yet.
                    silent_at = Instant::now() + self.timing.silence;
                }
                read = port.read(&mut bytes), if untold.is_empty() => match read {
                    Ok(0) => break Some("the device is gone".to_owned()),
                    Ok(count) => {
                        let heard = hear(&mut receiver, &bytes[..count], start.elapsed(), &mut untold);
                        if heard && !up {
                            info!("serial link: up");
                            untold.push_front(LinkEvent::Up);
                        }
                        if heard {
                            up = true;
                            silent_at = Instant::now() + self.timing.silence;
                        }
                    }
                    Err(error) => break Some(error.to_string()),
                },
                written = port.write(&unsent), if !unsent.is_empty() => match written {
                    Ok(count) => drop(unsent.drain(..count)),
                    Err(error) => break Some(error.to_string()),
                },
                () = sleep_until(send_by), if !unsent.is_empty() => {
                    break Some(format!("a message could not be sent within {:?}", self.timing.write));
                }
                Some(outgoing) = self.outgoing.recv(), if unsent.is_empty() => {
                    if up {
                        self.sequence += 1;
                        unsent = packed(&outgoing, self.sequence, self.config.length_order);
                        send_by = Instant::now() + self.timing.write;
                    }
                }
                () = sleep_until(silent_at), if up && untold.is_empty() => {
                    info!(silence = ?self.timing.silence, "serial link: nothing received from the phone");
                    up = false;
                    untold.push_back(LinkEvent::Down);
                }
            }
        };
        let Some(reason) = reason else {
            let farewell = self.timing.farewell;
            if timeout(farewell, self.farewell(&port, unsent, up)).await.is_err() {
                port.forget_unsent();
            }
            return Ended::Shutdown;
        };
        port.forget_unsent();
        // If the task was not told that the link is up, it need not be told of its end.
        if untold.front() != Some(&LinkEvent::Up) {
            untold.extend(up.then_some(LinkEvent::Down));
            for event in untold {
                let telling = self.events.send(event);
                if !matches!(down(&mut self.outgoing, &mut self.shutdown, telling).await, Some(Ok(()))) {
                    return Ended::Shutdown;
                }
            }
        }
        Ended::Lost(reason)
    }

    /// Sends what is left to send.
    async fn farewell(&mut self, port: &Port, mut unsent: Vec<u8>, up: bool) {
        loop {
            while !unsent.is_empty() {
                match port.write(&unsent).await {
                    Ok(count) => drop(unsent.drain(..count)),
                    Err(_) => return,
                }
            }
            let Ok(outgoing) = self.outgoing.try_recv() else { return port.drain().await };
            if up {
                self.sequence += 1;
                unsent = packed(&outgoing, self.sequence, self.config.length_order);
            }
        }
    }
}

/// The bytes of a message; empty if the line cannot carry it. `sequence` counts the messages.
fn packed(outgoing: &Outgoing, sequence: u64, order: LengthOrder) -> Vec<u8> {
    let Outgoing::Text(text) = outgoing else { return Vec::new() };
    // Made like phones' ids: an mId (none), the time and a number.
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
    let frames = k900::pack(text, &format!("-1_{ms}_{sequence}"), Toward::Phone, order);
    if frames.is_none() {
        debug!(bytes = text.len(), "serial link: dropped a message that is too long");
    }
    frames.unwrap_or_default().concat()
}

/// Decodes what was read; returns whether anything came from the phone.
fn hear(receiver: &mut Receiver, bytes: &[u8], now: Duration, events: &mut VecDeque<LinkEvent>) -> bool {
    let mut heard = false;
    for received in bytes.iter().filter_map(|&byte| receiver.push(byte, now)) {
        match received {
            Received::Message { text, .. } => {
                heard = true;
                events.push_back(LinkEvent::Message(text));
            }
            Received::Piece => heard = true,
            Received::Word => debug!("serial link: ignored a word from the chip"),
            Received::Malformed => debug!("serial link: ignored a frame that is not a message"),
            Received::Other(kind) => debug!(kind, "serial link: ignored a frame of an unsupported type"),
        }
    }
    heard
}

#[cfg(test)]
mod tests;
