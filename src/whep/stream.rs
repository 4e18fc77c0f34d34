//! A watched stream: one task cuts its frames into packets for all viewers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::registry::Stream;
use super::{Sound, rtp};
use crate::broadcast::{Frame, Media};

const SAMPLE_RATE: u128 = 48_000;

/// Samples of a packet of 20 ms.
const PACKET: u64 = 960;

/// The most packets of sound that wait for a task that is behind: one second.
const SOUNDS: usize = 50;

/// How far sound may be off its time without visible loss of lip sync: 40 ms, in samples.
const TOLERANCE: u64 = 2 * PACKET;

/// A piece of the stream, ready for all viewers.
#[derive(Clone, Debug)]
pub enum Unit {
    Picture(Arc<Picture>),
    /// 20 ms of sound.
    Sound(Packet),
    /// Nothing more will come that can be shown.
    End,
}

/// A packet of sound, ready for encryption.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Time since the stream's beginning, in samples at 48 kHz.
    pub samples: u64,
    /// The same time on the server's clock.
    pub wallclock: Instant,
    /// The Opus packet.
    pub payload: Arc<[u8]>,
}

/// One picture, ready for encryption.
#[derive(Debug)]
pub struct Picture {
    /// Time since the stream's beginning.
    pub time: Duration,
    /// The same time on the server's clock.
    pub wallclock: Instant,
    /// Whether decoding can begin here.
    pub key: bool,
    /// The RTP payloads; the last one gets the marker.
    pub packets: Vec<Arc<[u8]>>,
}

/// Sends the stream from its newest key frame on, until it ends, is closed, or nobody listens.
pub async fn run(stream: Arc<Stream>, units: mpsc::Sender<(u64, Unit)>) {
    let mut open = stream.open.clone();
    let mut reader = stream.broadcast.reader();
    let (sounds, mut opus) = mpsc::channel(SOUNDS);
    // Owned here, so that it ends with this task in any case.
    let mut transcoding = stream.opus.as_ref().map(|source| source.run(sounds));
    let mut cutter = Cutter::default();
    loop {
        let unit = tokio::select! {
            biased;
            _ = open.changed() => Some(Unit::End),
            Some(sound) = opus.recv() => cutter.sound(sound),
            frame = reader.next() => match frame {
                Ok(frame) => cutter.frame(&frame, reader.skipped()),
                Err(_) => Some(Unit::End),
            },
            // Last, since a transcoder ends with the stream too.
            () = run_on(&mut transcoding) => {
                tracing::warn!("viewers go on without sound: the transcoder has given up");
                transcoding = None;
                None
            }
        };
        let Some(unit) = unit else { continue };
        let ends = matches!(unit, Unit::End);
        // If the sessions' task is behind, this waits, and then the reader skips frames: nothing piles up.
        if units.send((stream.number, unit)).await.is_err() || ends {
            return;
        }
    }
}

async fn run_on(transcoding: &mut Option<BoxFuture<'static, ()>>) {
    match transcoding {
        Some(transcoding) => transcoding.await,
        None => std::future::pending().await,
    }
}

/// Turns frames into units.
#[derive(Debug, Default)]
struct Cutter {
    /// The wall clock at stream time 0, derived from the frame with the least delay so far.
    epoch: Option<Instant>,
    publication: u64,
    skipped: u64,
    /// Where the last packet of sound began, in samples.
    samples: Option<u64>,
    /// Whether a key frame has come since pictures were last missing.
    decodable: bool,
}

impl Cutter {
    fn frame(&mut self, frame: &Frame, skipped: u64) -> Option<Unit> {
        let Media::Video { format, pts, key } = &frame.media else { return None };
        if *pts > frame.dts {
            tracing::warn!("WebRTC viewers disconnected: the stream has B-frames now");
            return Some(Unit::End);
        }
        if let Some(origin) = frame.arrived.checked_sub(*pts) {
            self.epoch = Some(self.epoch.map_or(origin, |epoch| epoch.min(origin)));
        }
        let whole = self.publication == frame.publication && self.skipped == skipped;
        (self.publication, self.skipped) = (frame.publication, skipped);
        self.decodable = *key || (self.decodable && whole);
        if !self.decodable {
            return None;
        }
        let packets = rtp::packetize(format, *key, &frame.data);
        let wallclock = self.epoch.map_or(frame.arrived, |epoch| epoch + *pts);
        Some(Unit::Picture(Arc::new(Picture { time: *pts, wallclock, key: *key, packets })))
    }

    /// Sound gets its wall clock from the pictures' clock, for lip sync.
    fn sound(&mut self, sound: Sound) -> Option<Unit> {
        let wallclock = self.epoch? + sound.time;
        let told = (sound.time.as_nanos() * SAMPLE_RATE / 1_000_000_000) as u64;
        let samples = self.samples.map_or(Some(told), |last| on_grid(last, told))?;
        self.samples = Some(samples);
        Some(Unit::Sound(Packet { samples, wallclock, payload: sound.packet }))
    }
}

/// The time of the packet after the one at `last`, from the time `told`, which is inexact: RTMP's times are in
/// milliseconds, and a browser drops a packet that begins a sample before the other ends, as too late. `None` if the
/// packet is surplus because a microphone's clock is fast.
fn on_grid(last: u64, told: u64) -> Option<u64> {
    let next = last + PACKET;
    if told.abs_diff(next) <= TOLERANCE {
        return Some(next);
    }
    Some(next + told.checked_sub(next)?.div_ceil(PACKET) * PACKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_is_without_seams_while_times_are_roughly_right() {
        let mut at = 1000;
        for n in 1..500 {
            // Rounded to milliseconds, up or down.
            let told = 1000 + n * 960 - 1920 + n * 7919 % 1900;
            assert_eq!(on_grid(at, told), Some(at + 960));
            at += 960;
        }
        // A second is missing: a jump by whole packets.
        let next = on_grid(at, at + 48_500).unwrap();
        assert!((next - at).is_multiple_of(960) && next.abs_diff(at + 48_500) < 960);
        // Time never goes back.
        assert_eq!(on_grid(at, at - 1920), None);
    }
}
