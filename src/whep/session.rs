//! One viewer: str0m's state, and the packets still to be sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Event, Input, Output, Rtc, RtcError};

use super::answer::{Agreed, Track};
use super::outbox::Outbox;
use super::stream::{Packet, Picture};

/// RTP's clock for video, Hz.
const VIDEO_RATE: u128 = 90_000;

/// Time from the answer to the connection. Browsers give up later, people earlier.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// How long a viewer may be silent. It sends a STUN request every 2.5 s and reports every second, so one whose network
/// comes back sooner goes on.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// Pictures leave at no more than this many packets per [`PACE`]: 46 Mbit/s. Sent all at once, the backlog for a new
/// viewer (a second of video) would overflow the receive buffer of a socket, some 90 packets by default.
const BURST: usize = 20;
const PACE: Duration = Duration::from_millis(4);

/// The most queued packets. With more the stream exceeds the pace, and continues at a key frame.
const MAX_QUEUED_PACKETS: usize = 8000;

/// Interval of pictures that are sent only so that later ones can be decoded.
const PRESSED: Duration = Duration::from_millis(1);

/// A browser keeps asking for a key frame until it has one. For this long after one was sent, its requests are ignored.
const KEY_FRAME_IN_FLIGHT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct Session {
    rtc: Rtc,
    pub ufrag: String,
    /// The number of its stream.
    pub stream: u64,
    video: Lane,
    audio: Option<Lane>,
    queue: VecDeque<Queued>,
    queued_packets: usize,
    pace: Pace,
    connected: bool,
    /// Whether the viewer can decode nothing until the next key frame.
    waits_for_key: bool,
    key_sent: Option<Instant>,
    heard: Instant,
    created: Instant,
    closing: bool,
    /// The addresses that datagrams of this session came from.
    pub addresses: Vec<SocketAddr>,
    /// When [`Session::advance`] must be called next.
    pub due: Instant,
}

/// The result of [`Session::advance`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether media can flow from now on.
    pub connected: bool,
    /// Whether the session is over.
    pub over: bool,
}

#[derive(Debug)]
struct Queued {
    picture: Arc<Picture>,
    /// The RTP time, which differs from the picture's time in a replay.
    time: Duration,
    /// The number of packets already sent.
    sent: usize,
}

/// An RTP stream.
#[derive(Debug)]
struct Lane {
    track: Track,
    /// Sequence number without wrapping.
    next: u64,
    /// Added to its timestamps, which begin at a random value.
    offset: u32,
}

#[derive(Debug)]
struct Pace {
    left: usize,
    since: Instant,
}

impl Session {
    pub fn new(agreed: Agreed, stream: u64, now: Instant) -> Self {
        let Agreed { rtc, ufrag, video, audio } = agreed;
        Self {
            rtc,
            ufrag,
            stream,
            video: Lane::new(video),
            audio: audio.map(Lane::new),
            queue: VecDeque::new(),
            queued_packets: 0,
            pace: Pace { left: BURST, since: now },
            connected: false,
            waits_for_key: true,
            key_sent: None,
            heard: now,
            created: now,
            closing: false,
            addresses: Vec::new(),
            due: now,
        }
    }

    /// Whether media has ever flowed.
    pub fn was_connected(&self) -> bool {
        self.connected
    }

    /// Whether media flows now.
    pub fn is_connected(&self) -> bool {
        self.connected && !self.closing
    }

    /// Takes a datagram that came from `source`; `destination` is the address that the viewer was told.
    pub fn receive(&mut self, source: SocketAddr, destination: SocketAddr, datagram: &[u8], now: Instant) {
        // If str0m cannot read a datagram, it may be garbage from anybody, so the session does not end.
        let Ok(received) = Receive::new(Protocol::Udp, source, destination, datagram) else { return };
        let input = Input::Receive(now, received);
        if self.rtc.accepts(&input) {
            self.heard = now;
            if let Err(error) = self.rtc.handle_input(input) {
                self.failed(&error);
            }
        }
    }

    /// Starts with the pictures since the last key frame, timed just before the newest one.
    pub fn replay(&mut self, pictures: &[Arc<Picture>]) {
        self.queue.clear();
        self.queued_packets = 0;
        let Some(newest) = pictures.last().map(|picture| picture.time) else { return };
        self.waits_for_key = false;
        for (n, picture) in pictures.iter().enumerate() {
            let time = newest.saturating_sub(PRESSED * (pictures.len() - 1 - n) as u32);
            self.enqueue(picture.clone(), time);
        }
    }

    /// Takes a picture to be sent.
    pub fn picture(&mut self, picture: &Arc<Picture>) {
        if !self.is_connected() || (self.waits_for_key && !picture.key) {
            return;
        }
        if self.queued_packets > MAX_QUEUED_PACKETS {
            self.skip_to_key();
            return;
        }
        self.waits_for_key = false;
        self.enqueue(picture.clone(), picture.time);
    }

    /// Sends sound, which never waits behind pictures.
    pub fn sound(&mut self, sound: &Packet) {
        if !self.is_connected() {
            return;
        }
        let Some(lane) = &mut self.audio else { return };
        lane.write(&mut self.rtc, sound.samples, sound.wallclock, sound.payload.clone(), false);
    }

    /// Says goodbye; [`Session::advance`] reports when that has been sent.
    pub fn close(&mut self) {
        self.closing = true;
        self.queue.clear();
        if let Err(error) = self.rtc.close() {
            self.failed(&error);
        }
    }

    /// Advances to `now`, and puts the datagrams to send into `out`.
    pub fn advance(&mut self, now: Instant, out: &mut Outbox) -> Progress {
        let mut progress = Progress::default();
        self.send_pictures(now);
        if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
            self.failed(&error);
        }
        let next = loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => out.put(transmit.destination, transmit.contents.into()),
                Ok(Output::Event(event)) => progress.connected |= self.react(&event, now),
                Ok(Output::Timeout(at)) => break at,
                Err(error) => {
                    self.failed(&error);
                    break now;
                }
            }
        };
        let limit = if self.connected { self.heard + SILENCE_LIMIT } else { self.created + CONNECT_LIMIT };
        progress.over = !self.rtc.is_alive() || now >= limit;
        let paced = (!self.queue.is_empty()).then(|| self.pace.since + PACE);
        self.due = next.min(limit).min(paced.unwrap_or(limit));
        progress
    }

    /// Handles an event. Returns whether the session has just connected.
    fn react(&mut self, event: &Event, now: Instant) -> bool {
        match event {
            Event::Connected => {
                self.connected = true;
                return true;
            }
            // The publisher cannot be asked for one. Pictures until the next key frame would only add to the congestion
            // that made the viewer lose one.
            Event::KeyframeRequest(_) if self.key_sent.is_none_or(|sent| now > sent + KEY_FRAME_IN_FLIGHT) => {
                self.skip_to_key();
            }
            _ => {}
        }
        false
    }

    fn skip_to_key(&mut self) {
        // A key frame in the queue is the next one; without one nothing in the queue is of use.
        let key = self.queue.iter().position(|queued| queued.picture.key && queued.sent == 0);
        self.queue.drain(..key.unwrap_or(self.queue.len()));
        self.queued_packets = self.queue.iter().map(|queued| queued.picture.packets.len() - queued.sent).sum();
        self.waits_for_key = key.is_none();
    }

    fn enqueue(&mut self, picture: Arc<Picture>, time: Duration) {
        self.queued_packets += picture.packets.len();
        self.queue.push_back(Queued { picture, time, sent: 0 });
    }

    fn send_pictures(&mut self, now: Instant) {
        if now >= self.pace.since + PACE {
            self.pace = Pace { left: BURST, since: now };
        }
        while let Some(queued) = self.queue.front_mut() {
            let count = queued.picture.packets.len();
            while queued.sent < count && self.pace.left > 0 {
                if queued.picture.key && queued.sent == 0 {
                    self.key_sent = Some(now);
                }
                let packet = queued.picture.packets[queued.sent].clone();
                queued.sent += 1;
                self.pace.left -= 1;
                self.queued_packets -= 1;
                let last = queued.sent == count;
                // A replayed picture is this much older than its RTP time says.
                let wallclock = queued.picture.wallclock + queued.time.saturating_sub(queued.picture.time);
                let ticks = (queued.time.as_nanos() * VIDEO_RATE / 1_000_000_000) as u64;
                self.video.write(&mut self.rtc, ticks, wallclock, packet, last);
            }
            if queued.sent < count {
                return;
            }
            self.queue.pop_front();
        }
    }

    fn failed(&mut self, error: &RtcError) {
        tracing::debug!(%error, "WebRTC session");
        self.rtc.disconnect();
    }
}

impl Lane {
    fn new(track: Track) -> Self {
        // In the lower half, or the viewer could take the first wrap for one that it missed (RFC 3711, 3.3.1).
        Self { track, next: fastrand::u64(1..0x8000), offset: fastrand::u32(..) }
    }

    fn write(&mut self, rtc: &mut Rtc, ticks: u64, wallclock: Instant, payload: Arc<[u8]>, marker: bool) {
        let mut direct = rtc.direct_api();
        let Some(stream) = direct.stream_tx_by_mid(self.track.mid, None) else { return };
        let time = self.offset.wrapping_add(ticks as u32);
        let packet = RtpWrite::new(self.track.pt, self.next.into(), time, wallclock, payload);
        self.next += 1;
        stream.write_rtp(packet.marker(marker).nackable(true));
    }
}

#[cfg(test)]
mod tests;
