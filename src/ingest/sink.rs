//! The smallest RTMP server: on the loopback interface, for one publisher at a time, whose pictures and sound it counts and
//! drops. `lenscastctl doctor --full` sees with it what leaves the daemon, without a foreign server in between. It needs
//! nothing of the cloud.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::chunk::{Dechunker, Message};

/// C1, S1, C2 and S2 (Adobe RTMP 1.0, 5.2).
const HANDSHAKE: usize = 1536;
/// A publisher that is silent this long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// The most bytes of a message: more than a key frame of the largest picture.
const LARGEST_MESSAGE: usize = 8 * 1024 * 1024;
/// Bytes between acknowledgements, as lenscast-cloud sends them.
const ACKNOWLEDGE_EVERY: u64 = 64 * 1024;
const OUR_CHUNK_SIZE: u32 = 4096;
const MESSAGE_STREAM: u32 = 1;
/// The message types of sound and of pictures.
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const COMMAND: u8 = 20;

/// What arrived so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arrived {
    /// Publications that were accepted.
    pub publications: u32,
    /// Pictures.
    pub pictures: u64,
    /// Key frames among them.
    pub key_frames: u64,
    /// Bytes of pictures.
    pub picture_bytes: u64,
    /// Packets of sound.
    pub sounds: u64,
    /// Bytes of sound.
    pub sound_bytes: u64,
    /// The longest time between two pictures of one publication, as they arrived.
    pub longest_gap: Duration,
}

/// The server. Ends when it is dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    arrived: Arc<Mutex<Arrived>>,
    serving: JoinHandle<()>,
}

impl Sink {
    /// Listens on a port that is free.
    pub async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let arrived = Arc::default();
        let serving = tokio::spawn(serve(listener, Arc::clone(&arrived)));
        Ok(Self { address, arrived, serving })
    }

    /// Where to publish.
    pub fn url(&self) -> String {
        format!("rtmp://{}/live/acceptance", self.address)
    }

    /// What arrived so far.
    pub fn arrived(&self) -> Arrived {
        *self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, arrived: Arc<Mutex<Arrived>>) {
    // Ends with this task.
    let mut publisher = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        // The previous publisher is most often the same daemon, whose connection is over.
        publisher.shutdown().await;
        let arrived = arrived.clone();
        publisher.spawn(async move {
            // A publisher that breaks RTMP is closed; the counts show what is missing.
            let _ = Connection::new(socket, arrived).run().await;
        });
    }
}

struct Connection {
    socket: TcpStream,
    arrived: Arc<Mutex<Arrived>>,
    chunks: Dechunker,
    received: u64,
    acknowledged: u64,
    last_picture: Option<Instant>,
    over: bool,
}

impl Connection {
    fn new(socket: TcpStream, arrived: Arc<Mutex<Arrived>>) -> Self {
        let chunks = Dechunker::new(LARGEST_MESSAGE);
        Self { socket, arrived, chunks, received: 0, acknowledged: 0, last_picture: None, over: false }
    }

    async fn run(mut self) -> io::Result<()> {
        timeout(SILENCE, self.shake_hands()).await??;
        while !self.over {
            let count = timeout(SILENCE, self.socket.read_buf(self.chunks.input())).await??;
            if count == 0 {
                break;
            }
            self.received += count as u64;
            while let Some(message) = self.chunks.next().map_err(io::Error::other)? {
                timeout(SILENCE, self.message(message)).await??;
            }
            if self.received - self.acknowledged >= ACKNOWLEDGE_EVERY {
                self.acknowledged = self.received;
                timeout(SILENCE, self.send(0, 3, &(self.received as u32).to_be_bytes())).await??;
            }
        }
        Ok(())
    }

    /// Version 3, ours without content, and theirs back (5.2).
    async fn shake_hands(&mut self) -> io::Result<()> {
        let mut theirs = vec![0; 1 + HANDSHAKE];
        self.socket.read_exact(&mut theirs).await?;
        self.socket.write_all(&[&[3][..], &[0; HANDSHAKE], &theirs[1..]].concat()).await?;
        self.socket.read_exact(&mut theirs[1..]).await?;
        Ok(())
    }

    async fn message(&mut self, message: Message) -> io::Result<()> {
        let Message { kind, mut data, .. } = message;
        match kind {
            1 => {
                let size = data.try_get_u32().map_err(io::Error::other)?;
                self.chunks.set_chunk_size(size).map_err(io::Error::other)?;
            }
            2 => {
                if let Ok(chunk_stream) = data.try_get_u32() {
                    self.chunks.abort(chunk_stream);
                }
            }
            AUDIO => {
                let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
                arrived.sounds += 1;
                arrived.sound_bytes += data.len() as u64;
            }
            VIDEO => self.picture(&data),
            COMMAND => self.command(&data).await?,
            _ => {}
        }
        Ok(())
    }

    fn picture(&mut self, data: &Bytes) {
        // Kind of picture and codec, then what it holds: 1 is a picture, 0 the decoder's configuration (FLV 10.1, E.4.3).
        let [first, 1, ..] = **data else { return };
        let now = Instant::now();
        let gap = self.last_picture.replace(now).map(|last| now - last);
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.pictures += 1;
        arrived.key_frames += u64::from(first >> 4 == 1);
        arrived.picture_bytes += data.len() as u64;
        arrived.longest_gap = arrived.longest_gap.max(gap.unwrap_or_default());
    }

    async fn command(&mut self, data: &[u8]) -> io::Result<()> {
        let Some((name, transaction)) = name_and_transaction(data) else { return Ok(()) };
        let mut result = Amf::default().text("_result").number(transaction);
        match name {
            "connect" => {
                self.send(0, 5, &(ACKNOWLEDGE_EVERY as u32).to_be_bytes()).await?;
                self.send(0, 1, &OUR_CHUNK_SIZE.to_be_bytes()).await?;
                let version = [("fmsVer", "FMS/3,0,1,123")];
                result = result.object(&version).object(&status("NetConnection.Connect.Success"));
            }
            "releaseStream" | "FCPublish" => result = result.null().null(),
            "createStream" => result = result.null().number(MESSAGE_STREAM.into()),
            "publish" => {
                self.arrived.lock().unwrap_or_else(PoisonError::into_inner).publications += 1;
                let begin = [&[0, 0][..], &MESSAGE_STREAM.to_be_bytes()].concat();
                self.send(0, 4, &begin).await?;
                let told = Amf::default().text("onStatus").number(0.0).null();
                return self.send(MESSAGE_STREAM, COMMAND, &told.object(&status("NetStream.Publish.Start")).0).await;
            }
            "deleteStream" | "closeStream" | "FCUnpublish" => {
                self.over = name != "FCUnpublish";
                return Ok(());
            }
            _ => return Ok(()),
        }
        self.send(0, COMMAND, &result.0).await
    }

    /// A message in one chunk: none of ours is longer than [`OUR_CHUNK_SIZE`], nor than 128 bytes before that is told.
    async fn send(&mut self, stream: u32, kind: u8, data: &[u8]) -> io::Result<()> {
        let [_, length @ ..] = (data.len() as u32).to_be_bytes();
        let header = [&[3, 0, 0, 0][..], &length, &[kind], &stream.to_le_bytes()].concat();
        timeout(SILENCE, self.socket.write_all(&[&header, data].concat())).await?
    }
}

fn status(code: &str) -> [(&'static str, &str); 2] {
    [("level", "status"), ("code", code)]
}

/// How every command begins: a text and a number in AMF0.
fn name_and_transaction(data: &[u8]) -> Option<(&str, f64)> {
    let (&[2, high, low], rest) = data.split_first_chunk()? else { return None };
    let (name, rest) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
    let (&[0, ref number @ ..], _) = rest.split_first_chunk::<9>()? else { return None };
    Some((std::str::from_utf8(name).ok()?, f64::from_be_bytes(*number)))
}

/// Values in AMF0, one behind the other.
#[derive(Default)]
struct Amf(Vec<u8>);

impl Amf {
    fn text(mut self, text: &str) -> Self {
        self.0.push(2);
        self.bare(text);
        self
    }

    fn number(mut self, number: f64) -> Self {
        self.0.push(0);
        self.0.extend(number.to_be_bytes());
        self
    }

    fn null(mut self) -> Self {
        self.0.push(5);
        self
    }

    fn object(mut self, properties: &[(&str, &str)]) -> Self {
        self.0.push(3);
        for (name, value) in properties {
            self.bare(name);
            self = self.text(value);
        }
        self.0.extend([0, 0, 9]);
        self
    }

    /// A name: a text without its marker. All of ours are short.
    fn bare(&mut self, text: &str) {
        self.0.extend((text.len() as u16).to_be_bytes());
        self.0.extend(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GStreamer's own client, which the daemon publishes by.
    #[tokio::test]
    async fn what_the_daemons_client_publishes_is_counted() {
        crate::media::init().unwrap();
        let sink = Sink::open().await.unwrap();
        assert_eq!(sink.arrived(), Arrived::default());
        let line = format!(
            "videotestsrc num-buffers=40 ! video/x-raw,width=320,height=240,framerate=20/1 ! x264enc key-int-max=20 \
             tune=zerolatency ! flvmux name=mux streamable=true ! rtmp2sink async-connect=false location={} \
             audiotestsrc num-buffers=40 ! audioconvert ! voaacenc ! aacparse ! mux.",
            sink.url()
        );
        let publish = tokio::task::spawn_blocking(move || {
            let output = std::process::Command::new("gst-launch-1.0").arg("-q").args(line.split(' ')).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        });
        timeout(Duration::from_secs(30), publish).await.unwrap().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while sink.arrived().pictures < 40 && Instant::now() < until {
            tokio::task::yield_now().await;
        }
        let arrived = sink.arrived();
        assert_eq!((arrived.publications, arrived.pictures, arrived.key_frames), (1, 40, 2), "{arrived:?}");
        assert!(arrived.sounds > 10 && arrived.picture_bytes > 1000, "{arrived:?}");
    }

    #[test]
    fn a_command_that_is_none_is_passed_over() {
        for wrong in [&b""[..], &[2, 0], &[2, 0, 9, b'a'], &[2, 0, 1, b'a', 0, 1], &[3, 0, 0, 9]] {
            assert_eq!(name_and_transaction(wrong), None);
        }
        let command = Amf::default().text("publish").number(5.0);
        assert_eq!(name_and_transaction(&command.0), Some(("publish", 5.0)));
    }
}
