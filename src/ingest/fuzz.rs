//! Fuzz targets (see [`crate::fuzz`]): the input of a publisher, layer by layer.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rml_rtmp::rml_amf0::{self, Amf0Value};

use super::amf0;
use super::chunk::{ChunkError, Dechunker, Message};
use super::handle::Ingest;
use super::publication::Publication;
use super::session::{Request, Session, SessionError};
use crate::broadcast::{Bounds, Broadcast, Frame, Media};
use crate::fuzz_input::Input;
use crate::protocol::Secret;

/// The longest message here, in bytes.
const LIMIT: usize = 64 * 1024;

/// AMF0: values that were read, written by another implementation, and read again are the same.
pub fn amf0(data: &[u8]) {
    let Ok(values) = amf0::read(data) else { return };
    assert!(values.iter().map(count).sum::<usize>() <= 1024);
    // A NaN is not equal to itself, so `values` with one are not compared.
    if let Ok(bytes) = rml_amf0::serialize(&values)
        && values == values.clone()
    {
        assert_eq!(amf0::read(&bytes).as_ref(), Ok(&values));
    }
}

fn count(value: &Amf0Value) -> usize {
    1 + match value {
        Amf0Value::Object(properties) => properties.values().map(count).sum(),
        Amf0Value::StrictArray(values) => values.iter().map(count).sum(),
        _ => 0,
    }
}

/// Chunks: the same messages result however the network cuts the bytes. The first byte is the length of the cuts.
pub fn chunk(data: &[u8]) {
    let mut input = Input::new(data);
    let cut = usize::from(input.byte()) + 1;
    let bytes = input.rest();
    let at_once = messages(bytes, bytes.len().max(1));
    assert_eq!(messages(bytes, cut), at_once);
    assert!(at_once.0.len() <= bytes.len(), "a message is a byte at least");
}

fn messages(bytes: &[u8], cut: usize) -> (Vec<Message>, Option<ChunkError>) {
    let mut dechunker = Dechunker::new(LIMIT);
    let mut messages: Vec<Message> = Vec::new();
    for piece in bytes.chunks(cut) {
        dechunker.input().extend_from_slice(piece);
        loop {
            let message = match dechunker.next() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            };
            assert!(message.data.len() <= LIMIT);
            // As in a session.
            let number = message.data.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            match (message.kind, number) {
                (1, Some(size)) => {
                    if let Err(error) = dechunker.set_chunk_size(size) {
                        return (messages, Some(error));
                    }
                }
                (2, Some(chunk_stream)) => dechunker.abort(chunk_stream),
                _ => {}
            }
            messages.push(message);
        }
        assert!(dechunker.unfinished() <= LIMIT);
    }
    (messages, None)
}

/// A connection. The first byte selects its course. Bit 0: the input has the handshake; bit 1: publishing is refused;
/// bit 2: the peer does not read. The second byte is the length of the cuts, which must not change the requests.
pub fn session(data: &[u8]) {
    let mut input = Input::new(data);
    let modes = bits(input.byte());
    let cut = usize::from(input.byte()) * 8 + 1;
    let bytes = input.rest();
    let (heard, ended) = converse(modes, bytes, cut);
    let (at_once, ended_at_once) = converse(modes, bytes, bytes.len().max(1));
    // How much a peer leaves unread depends on the cuts.
    if ![&ended, &ended_at_once].contains(&&Some(SessionError::Unread)) {
        assert_eq!(ended, ended_at_once);
        assert_eq!(heard, at_once);
    }
}

/// All requests, and the error that ended the session, if any.
fn converse([raw, refuse, deaf]: [bool; 3], bytes: &[u8], cut: usize) -> (Vec<Request>, Option<SessionError>) {
    let mut session = Session::new(LIMIT);
    if !raw {
        shake_hands(&mut session);
    }
    let mut requests = Vec::new();
    for piece in bytes.chunks(cut) {
        session.buffers().0.extend_from_slice(piece);
        if let Err(error) = drive(&mut session, piece.len(), refuse, &mut requests) {
            return (requests, Some(error));
        }
        let output = session.buffers().1;
        assert!(output.len() <= 64 * 1024, "answers pile up");
        if !deaf {
            output.clear();
        }
        if session.is_over() {
            assert_eq!(session.next(), Ok(None));
            break;
        }
    }
    (requests, None)
}

fn bits(byte: u8) -> [bool; 3] {
    [byte & 1 != 0, byte & 2 != 0, byte & 4 != 0]
}

fn shake_hands(session: &mut Session) {
    const PACKET: usize = 1536;
    let mut say = |bytes: &[u8]| {
        session.buffers().0.extend_from_slice(bytes);
        session.received(bytes.len()).expect("a right handshake");
        session.buffers().1.split()
    };
    let answer = say(&[&[3][..], &[0; PACKET]].concat());
    say(&answer[1..=PACKET]);
    assert!(session.has_shaken_hands());
}

fn drive(
    session: &mut Session,
    received: usize,
    refuse: bool,
    requests: &mut Vec<Request>,
) -> Result<(), SessionError> {
    session.received(received)?;
    while let Some(request) = session.next()? {
        let asked = requests.iter().any(|request| matches!(request, Request::Publish { .. }));
        requests.push(request.clone());
        match request {
            Request::Publish { key, encoder } => {
                assert!(!asked, "publishes once");
                assert!(!key.expose().contains('?'));
                assert!(encoder.is_none_or(|name| !name.is_empty() && name.chars().count() <= 64));
                if refuse { session.refuse()? } else { session.accept()? }
            }
            Request::Video { data, .. } | Request::Audio { data, .. } => {
                assert!(asked && !refuse, "nothing is heard of who may not speak");
                assert!(data.len() <= LIMIT);
            }
            Request::Finished => assert!(session.is_over() && asked && !refuse),
            Request::Refused(_) => assert!(session.is_over() && !asked),
        }
    }
    Ok(())
}

/// A publication's messages, after a valid configuration if the first byte is odd. Each message is one byte (odd:
/// sound), three of time, two of length, and the body.
pub fn publication(data: &[u8]) {
    const HIGH: &[u8] =
        b"\x17\0\0\0\0\x01\x64\0\x1f\xff\xe1\0\x1c\x67\x64\0\x1f\xac\xd9\x40\x50\x05\xbb\x01\x6a\x02\x02\x02\x80\
        \0\0\x03\0\x80\0\0\x1e\x47\x8c\x18\xcb\x01\0\x05\x68\xeb\xec\xb2\x2c";
    let mut input = Input::new(data);
    let (ingest, _events) = Ingest::new();
    let broadcast = Broadcast::new(Bounds::default());
    let mut reader = broadcast.reader();
    ingest.open(&Secret::new("key"), "stream", broadcast);
    let mut publication = Publication::new(ingest.claim("key").expect("a stream of this key"));
    if input.byte() & 1 == 1 {
        publication.video(0, Bytes::from_static(HIGH)).expect("a right configuration");
        publication.audio(0, Bytes::from_static(&[0xaf, 0, 0x12, 0x10]));
    }
    let mut order = Order::default();
    while !input.is_empty() {
        let sound = input.byte() & 1 == 1;
        let (time, length) = (input.number(3), input.number(2) as usize);
        let body = Bytes::copy_from_slice(input.take(length));
        if sound {
            publication.audio(time, body);
        } else if publication.video(time, body).is_err() {
            return;
        }
        while let Some(frame) = reader.try_next() {
            order.check(&frame);
        }
    }
}

/// The guarantees that readers of a broadcast rely on.
#[derive(Default)]
struct Order {
    last: [Option<Duration>; 2],
    began: bool,
}

impl Order {
    fn check(&mut self, frame: &Arc<Frame>) {
        let last = self.last[usize::from(frame.is_video())].replace(frame.dts);
        assert!(last.is_none_or(|last| frame.dts > last), "{:?} after {last:?}", frame.dts);
        let Media::Video { format, pts, key } = &frame.media else { return };
        assert!(*key || self.began, "begins with a key frame");
        self.began = true;
        assert!((frame.dts..=frame.dts + Duration::from_secs(3)).contains(pts));
        assert!(format.sps.first().is_some_and(|header| header & 31 == 7));
        let mut data = frame.data.clone();
        let mut idr = false;
        while data.has_remaining() {
            let length = data.get_u32() as usize;
            let kind = data.split_to(length)[0] & 31;
            assert!(![7, 8, 9].contains(&kind), "parameter sets are taken out");
            idr |= kind == 5;
        }
        assert_eq!(*key, idr);
    }
}
