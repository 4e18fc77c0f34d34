//! Joins RTMP chunks into messages (Adobe RTMP 1.0, section 5.3), with a bound on everything that a peer can claim.
//!
//! `rml_rtmp`'s deserializer is not used: it keeps one message for all chunk streams, so interleaved ones get mixed up
//! and its lengths underflow (a panic, which ends the program), and it has no bounds. Here payload leaves the input as
//! it comes, so memory grows with what has arrived, not with what was announced.

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};

/// The chunk size at the beginning of every connection (5.4.1).
const INITIAL_CHUNK_SIZE: usize = 128;
/// The longest message; a larger chunk size has no further effect.
const LARGEST_MESSAGE: usize = 0xff_ffff;
/// The most chunk streams of a peer. Clients use a handful.
const MAX_CHUNK_STREAMS: usize = 64;
/// This value in a timestamp's 24 bits means that the timestamp follows in 32 bits.
const EXTENDED: u32 = 0xff_ffff;

/// A violation of the protocol or of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChunkError {
    #[error("a chunk refers to a header that never came")]
    NoHeader,
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    #[error("too many chunk streams")]
    TooManyStreams,
    #[error("a chunk size of {0} is not allowed")]
    ChunkSize(u32),
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Message type id.
    pub kind: u8,
    /// Message stream id.
    pub stream: u32,
    /// Milliseconds, modulo 2^32.
    pub timestamp: u32,
    pub data: Bytes,
}

/// Joins messages. Fill [`Self::input`], then call [`Self::next`] until it returns none.
#[derive(Debug)]
pub(super) struct Dechunker {
    input: BytesMut,
    chunk_size: usize,
    /// Limit in bytes of one message, and of all unfinished ones together.
    limit: usize,
    unfinished: usize,
    streams: HashMap<u32, ChunkStream>,
    /// The chunk stream whose payload comes next, and how many bytes of it.
    payload: Option<(u32, usize)>,
}

#[derive(Debug, Default)]
struct ChunkStream {
    timestamp: u32,
    /// The timestamp field as it was sent: absolute or a difference.
    field: u32,
    extended: bool,
    length: usize,
    kind: u8,
    message_stream: u32,
    /// Whether a message has begun.
    begun: bool,
    message: BytesMut,
}

impl Dechunker {
    pub fn new(limit: usize) -> Self {
        Self {
            input: BytesMut::new(),
            chunk_size: INITIAL_CHUNK_SIZE,
            limit,
            unfinished: 0,
            streams: HashMap::new(),
            payload: None,
        }
    }

    /// The buffer for bytes from the peer.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// The total announced length of all messages that have begun.
    #[cfg(any(test, fuzzing))]
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Limits the length of messages from now on.
    #[cfg(feature = "cloud")]
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Sets the size of the peer's chunks from now on.
    pub fn set_chunk_size(&mut self, size: u32) -> Result<(), ChunkError> {
        // The highest bit must be 0 (5.4.1).
        if size == 0 || size >> 31 == 1 {
            return Err(ChunkError::ChunkSize(size));
        }
        self.chunk_size = (size as usize).min(LARGEST_MESSAGE);
        Ok(())
    }

    /// Drops the message on this chunk stream, which the peer will not finish (5.4.2).
    pub fn abort(&mut self, chunk_stream: u32) {
        if let Some(stream) = self.streams.get_mut(&chunk_stream) {
            self.unfinished -= stream.discard();
        }
    }

    /// The next whole message, if there is one.
    pub fn next(&mut self) -> Result<Option<Message>, ChunkError> {
        loop {
            let (id, left) = match self.payload {
                Some(payload) => payload,
                None => match self.header()? {
                    Some(payload) => payload,
                    None => return Ok(None),
                },
            };
            let stream = self.streams.get_mut(&id).ok_or(ChunkError::NoHeader)?;
            let here = left.min(self.input.len());
            stream.message.extend_from_slice(&self.input[..here]);
            self.input.advance(here);
            if here < left {
                self.payload = Some((id, left - here));
                return Ok(None);
            }
            self.payload = None;
            if stream.message.len() == stream.length {
                let data = std::mem::take(&mut stream.message).freeze();
                self.unfinished -= stream.discard();
                let ChunkStream { kind, message_stream, timestamp, .. } = *stream;
                return Ok(Some(Message { kind, stream: message_stream, timestamp, data }));
            }
        }
    }

    /// Reads a chunk's header once all of it is there. Returns whose payload follows, and how many bytes.
    fn header(&mut self) -> Result<Option<(u32, usize)>, ChunkError> {
        let mut reader = Header(&self.input);
        let Some(header) = reader.read(|id| self.streams.get(&id)) else { return Ok(None) };
        let length = self.input.len() - reader.0.len();
        let Fields { format, id, time, rest, message_stream } = header;
        self.input.advance(length);

        if !self.streams.contains_key(&id) {
            if format != 0 {
                return Err(ChunkError::NoHeader);
            }
            if self.streams.len() == MAX_CHUNK_STREAMS {
                return Err(ChunkError::TooManyStreams);
            }
        }
        let stream = self.streams.entry(id).or_default();
        if format != 3 {
            self.unfinished -= stream.discard(); // nobody who means well begins anew within a message
        }
        if let Some((field, extended)) = time {
            (stream.field, stream.extended) = (field, extended);
        }
        if !stream.begun {
            stream.timestamp = if format == 0 { stream.field } else { stream.timestamp.wrapping_add(stream.field) };
        }
        if let Some((length, kind)) = rest {
            (stream.length, stream.kind) = (length, kind);
        }
        if let Some(message_stream) = message_stream {
            stream.message_stream = message_stream;
        }
        if !stream.begun {
            if self.unfinished + stream.length > self.limit {
                return Err(ChunkError::TooLong(stream.length));
            }
            self.unfinished += stream.length;
            stream.begun = true;
            stream.message = BytesMut::with_capacity(stream.length); // untouched memory costs nothing
        }
        Ok(Some((id, (stream.length - stream.message.len()).min(self.chunk_size))))
    }
}

impl ChunkStream {
    /// Drops the message that has begun; returns its announced length.
    fn discard(&mut self) -> usize {
        self.message = BytesMut::new();
        if std::mem::take(&mut self.begun) { self.length } else { 0 }
    }
}

struct Header<'a>(&'a [u8]);

struct Fields {
    format: u8,
    id: u32,
    /// The timestamp field, and whether it was extended.
    time: Option<(u32, bool)>,
    /// Length and type.
    rest: Option<(usize, u8)>,
    message_stream: Option<u32>,
}

impl Header<'_> {
    /// `None` until all of the header is there.
    fn read<'s>(&mut self, known: impl Fn(u32) -> Option<&'s ChunkStream>) -> Option<Fields> {
        let first = self.take(1)?;
        let format = (first >> 6) as u8;
        let id = match first & 63 {
            0 => self.take(1)? + 64,
            1 => {
                let low = self.take(1)?;
                self.take(1)? * 256 + low + 64
            }
            id => id,
        };
        let mut time = if format < 3 { Some(self.take(3)?) } else { None };
        let rest = if format < 2 { Some((self.take(3)? as usize, self.take(1)? as u8)) } else { None };
        let message_stream = if format == 0 { Some(self.take(4)?.swap_bytes()) } else { None };
        let extended = time == Some(EXTENDED);
        if extended {
            time = Some(self.take(4)?);
        } else if let Some(stream) = known(id).filter(|stream| format == 3 && stream.extended) {
            // The extended timestamp is repeated here (5.3.1.3), though not by all clients.
            let repeated = self.0.get(..4)?;
            if repeated == stream.field.to_be_bytes() {
                self.0 = &self.0[4..];
            }
        }
        Some(Fields { format, id, time: time.map(|time| (time, extended)), rest, message_stream })
    }

    /// The next `count` bytes as a number.
    fn take(&mut self, count: usize) -> Option<u32> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(dechunker: &mut Dechunker, bytes: &[u8]) -> Result<Vec<Message>, ChunkError> {
        let mut messages = Vec::new();
        for byte in bytes {
            dechunker.input().extend_from_slice(&[*byte]);
            while let Some(message) = dechunker.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    fn full(id: u8, timestamp: [u8; 3], length: u8, kind: u8) -> Vec<u8> {
        [&[id][..], &timestamp, &[0, 0, length, kind, 1, 0, 0, 0]].concat()
    }

    #[test]
    fn puts_interleaved_messages_together() {
        let mut bytes = full(4, [0, 0, 10], 200, 9);
        bytes.extend([1; 128]);
        bytes.extend(full(5, [0, 0, 11], 3, 8));
        bytes.extend([2; 3]);
        bytes.push(0xc4);
        bytes.extend([1; 72]);
        bytes.push(0xc5); // the next of the same kind, as much later
        bytes.extend([3; 3]);
        let messages = all(&mut Dechunker::new(1000), &bytes).unwrap();
        let seen: Vec<_> = messages.iter().map(|m| (m.kind, m.stream, m.timestamp, m.data.len())).collect();
        assert_eq!(seen, [(8, 1, 11, 3), (9, 1, 10, 200), (8, 1, 22, 3)]);
        assert!(messages[1].data.iter().all(|&byte| byte == 1));
    }

    #[test]
    fn takes_timestamps_of_32_bits_repeated_or_not() {
        let time = 0x0100_0000_u32.to_be_bytes();
        for repeated in [true, false] {
            let mut bytes = full(4, [0xff; 3], 130, 9);
            bytes.extend(time);
            bytes.extend([7; 128]);
            bytes.push(0xc4);
            if repeated {
                bytes.extend(time);
            }
            bytes.extend([7; 2]);
            bytes.extend([0x44, 0, 0, 5, 0, 0, 4, 9, 7, 7, 7, 7]);
            let messages = all(&mut Dechunker::new(1000), &bytes).unwrap();
            let seen: Vec<_> = messages.iter().map(|m| (m.timestamp, m.data.len())).collect();
            assert_eq!(seen, [(0x0100_0000, 130), (0x0100_0005, 4)], "repeated: {repeated}");
            assert!(messages.iter().all(|m| m.data.iter().all(|&byte| byte == 7)));
        }
    }

    #[test]
    fn refuses_what_is_too_much() {
        let long = [&[4, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0][..], &[0; 64]].concat();
        assert_eq!(all(&mut Dechunker::new(1000), &long), Err(ChunkError::TooLong(0xff_ffff)));
        let unfinished: Vec<u8> = (4..10).flat_map(|id| [full(id, [0; 3], 250, 9), vec![0; 128]].concat()).collect();
        assert_eq!(all(&mut Dechunker::new(1000), &unfinished), Err(ChunkError::TooLong(250)));
        let empty: Vec<u8> = (0..70).flat_map(|n| [&[0, n][..], &full(0, [0; 3], 0, 9)[1..]].concat()).collect();
        assert_eq!(all(&mut Dechunker::new(1000), &empty), Err(ChunkError::TooManyStreams));
        assert_eq!(all(&mut Dechunker::new(1000), &[0xc4]), Err(ChunkError::NoHeader));
        for size in [0, 1 << 31] {
            assert_eq!(Dechunker::new(9).set_chunk_size(size), Err(ChunkError::ChunkSize(size)));
        }
    }

    proptest! {
        #[test]
        fn bears_anything(bytes in prop::collection::vec(any::<u8>(), 0..600), size in 1_u32..1 << 31) {
            let mut dechunker = Dechunker::new(300);
            dechunker.set_chunk_size(size).unwrap();
            dechunker.abort(4);
            let _ = all(&mut dechunker, &bytes);
            prop_assert!(dechunker.unfinished() <= 300);
        }

        #[cfg(feature = "cloud")] // for the other implementation
        #[test]
        fn gives_back_what_another_implementation_wrote(
            messages in prop::collection::vec((0_u32..u32::MAX, prop::collection::vec(any::<u8>(), 1..500), 8_u8..10), 1..20)
        ) {
            use rml_rtmp::{chunk_io::ChunkSerializer, messages::MessagePayload, time::RtmpTimestamp};
            let mut serializer = ChunkSerializer::new();
            let mut dechunker = Dechunker::new(1000);
            for (time, data, kind) in messages {
                let mut payload = MessagePayload::new();
                payload.timestamp = RtmpTimestamp::new(time);
                payload.type_id = kind;
                payload.data = data.clone().into();
                // "Can be dropped" makes it begin each message with a full header.
                let bytes = serializer.serialize(&payload, false, true).unwrap().bytes;
                let read = all(&mut dechunker, &bytes).unwrap();
                prop_assert_eq!(read, vec![Message { kind, stream: 0, timestamp: time, data: data.into() }]);
            }
        }
    }
}
