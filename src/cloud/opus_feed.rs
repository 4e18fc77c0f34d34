//! A broadcast's sound as Opus, for WebRTC. Each stream has one transcoder, which runs while somebody watches.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::broadcast::{AudioFormat, Broadcast, Frame, Media, Reader};
use crate::media::opus::{AacFormat, JUMP, OpusPacket, OpusTranscoder};
use crate::whep::{OpusSource, Sound};

/// Pause after a transcoder failed.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct OpusFeed(Broadcast);

impl OpusFeed {
    /// A feed of this stream's sound.
    pub fn new(broadcast: &Broadcast) -> Arc<Self> {
        Arc::new(Self(broadcast.clone()))
    }
}

impl OpusSource for OpusFeed {
    fn run(&self, sounds: mpsc::Sender<Sound>) -> BoxFuture<'static, ()> {
        Box::pin(run(self.0.reader(), sounds))
    }
}

/// The running transcoder and the format it was made for.
struct Running {
    transcoder: OpusTranscoder,
    packets: mpsc::Receiver<OpusPacket>,
    format: Arc<AudioFormat>,
    publication: u64,
    last: Duration,
}

async fn run(mut reader: Reader, sounds: mpsc::Sender<Sound>) {
    let mut running: Option<Running> = None;
    let mut not_before = None;
    loop {
        tokio::select! {
            biased;
            () = sounds.closed() => return,
            packet = next(&mut running) => {
                if packet.is_none() {
                    not_before = Some(tokio::time::Instant::now() + RETRY);
                    running = None;
                }
                // A viewer that is a second behind does not miss the sound that is lost here.
                let sound = packet.map(|OpusPacket { time, data }| Sound { time, packet: data });
                drop(sound.map(|sound| sounds.try_send(sound)));
            }
            frame = reader.next() => match frame {
                Ok(frame) if not_before.is_none_or(|time| tokio::time::Instant::now() >= time) => {
                    if let Err(error) = push(&mut running, &frame) {
                        tracing::warn!(%error, "no sound for WebRTC viewers");
                        not_before = Some(tokio::time::Instant::now() + RETRY);
                        running = None;
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            },
        }
    }
}

async fn next(running: &mut Option<Running>) -> Option<OpusPacket> {
    match running {
        Some(running) => running.packets.recv().await,
        None => std::future::pending().await,
    }
}

fn push(running: &mut Option<Running>, frame: &Frame) -> Result<(), crate::protocol::Failure> {
    let Media::Audio { format } = &frame.media else { return Ok(()) };
    let goes_on = running.as_ref().is_some_and(|running| {
        running.publication == frame.publication
            && running.format == *format
            && frame.dts.saturating_sub(running.last) <= JUMP
    });
    if !goes_on {
        let aac = AacFormat {
            record: Arc::from(&format.record[..]),
            sample_rate: format.sample_rate,
            channels: format.channels,
        };
        let (transcoder, packets) = OpusTranscoder::start(&aac)?;
        let (format, publication) = (format.clone(), frame.publication);
        *running = Some(Running { transcoder, packets, format, publication, last: frame.dts });
    }
    if let Some(running) = running {
        running.last = frame.dts;
        running.transcoder.push(frame.dts, &frame.data)?;
    }
    Ok(())
}
