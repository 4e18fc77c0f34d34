//! The server's side of one RTMP connection (Adobe RTMP 1.0, sections 5 to 7), without a socket.
//!
//! Bytes go in and out through [`Session::buffers`]; [`Session::next`] returns what the owner must know or decide. The
//! handshake and the writing are `rml_rtmp`'s. Its session is not used, for the reasons in [`super::chunk`] and
//! [`super::amf0`], and because it acknowledges differences where clients expect the running total.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rml_rtmp::chunk_io::ChunkSerializer;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::messages::{MessagePayload, PeerBandwidthLimitType, RtmpMessage, UserControlEventType};
use rml_rtmp::rml_amf0::Amf0Value;
use rml_rtmp::time::RtmpTimestamp;

use super::amf0::{self, property, text};
use super::chunk::{ChunkError, Dechunker, Message};
use crate::protocol::Secret;

/// The only application that may be published to.
const APPLICATION: &str = "live";
/// How many received bytes are acknowledged at once. Our own daemon takes the acknowledgement for a sign of life.
const ACKNOWLEDGE_EVERY: u64 = 64 * 1024;
/// How many bytes the peer may have unacknowledged; the value of most servers.
const PEER_BANDWIDTH: u32 = 2_500_000;
const OUR_CHUNK_SIZE: u32 = 4096;
/// The longest message, in bytes, before a valid key, and the longest command at any time.
const MAX_COMMAND: usize = 32 * 1024;
/// Bytes to send at which the peer counts as one that does not read.
const MAX_OUTPUT: usize = 64 * 1024;
/// The most characters kept of the software's name.
const MAX_ENCODER: usize = 64;
/// The most message streams; more than any client makes.
const MAX_MESSAGE_STREAMS: u32 = 16;

/// The peer violated the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SessionError {
    #[error("this is not RTMP")]
    Handshake,
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    Amf0(#[from] amf0::Amf0Error),
    #[error("{0}")]
    Sequence(&'static str),
    #[error("the peer does not read its answers")]
    Unread,
}

/// What the owner must know or decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Answer by [`Session::accept`] or [`Session::refuse`].
    Publish { key: Secret, encoder: Option<String> },
    /// A video message of the publication.
    Video { timestamp: u32, data: Bytes },
    /// An audio message of the publication.
    Audio { timestamp: u32, data: Bytes },
    /// The publication is over.
    Finished,
    /// The publication was refused; nothing more is read.
    Refused(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshake,
    /// The handshake is done.
    Open,
    /// `connect` was answered.
    Connected,
    /// The owner has been asked. The answer goes to this message stream.
    Asked(u32),
    Publishing(u32),
    Over,
}

/// The server's side of one connection.
pub(super) struct Session {
    stage: Stage,
    handshake: Handshake,
    chunks: Dechunker,
    serializer: ChunkSerializer,
    output: BytesMut,
    /// The longest message once published, in bytes.
    max_message: usize,
    received: u64,
    acknowledged: u64,
    encoder: Option<String>,
    message_streams: u32,
    /// The rest of an aggregate message.
    aggregate: Option<(Bytes, Option<u32>, u32)>,
}

impl Session {
    /// `max_message`: the most bytes of a media message.
    pub fn new(max_message: usize) -> Self {
        Self {
            stage: Stage::Handshake,
            handshake: Handshake::new(PeerType::Server),
            chunks: Dechunker::new(MAX_COMMAND),
            serializer: ChunkSerializer::new(),
            output: BytesMut::new(),
            max_message,
            received: 0,
            acknowledged: 0,
            encoder: None,
            message_streams: 0,
            aggregate: None,
        }
    }

    /// The buffer for bytes from the peer (report their number with [`Self::received`]), and the bytes to send to it.
    pub fn buffers(&mut self) -> (&mut BytesMut, &mut BytesMut) {
        (self.chunks.input(), &mut self.output)
    }

    /// Whether the handshake is done.
    pub fn has_shaken_hands(&self) -> bool {
        self.stage != Stage::Handshake
    }

    /// Whether nothing more is read. What is left to send is the last message.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Reports that `count` bytes were put into the first of [`Self::buffers`].
    pub fn received(&mut self, count: usize) -> Result<(), SessionError> {
        if self.stage == Stage::Handshake {
            return self.shake_hands();
        }
        self.received += count as u64;
        // A peer that does not read gets no more of them; the next one covers what was left out.
        if self.received - self.acknowledged >= ACKNOWLEDGE_EVERY && self.output.is_empty() {
            self.acknowledged = self.received;
            self.send(0, RtmpMessage::Acknowledgement { sequence_number: self.received as u32 })?;
        }
        Ok(())
    }

    /// The next request in what was received, if there is one.
    pub fn next(&mut self) -> Result<Option<Request>, SessionError> {
        if matches!(self.stage, Stage::Handshake | Stage::Asked(_) | Stage::Over) {
            return Ok(None);
        }
        loop {
            let message = match self.next_of_aggregate() {
                Some(message) => message,
                None => match self.chunks.next()? {
                    Some(message) => message,
                    None => return Ok(None),
                },
            };
            if let Some(request) = self.message(message)? {
                return Ok(Some(request));
            }
        }
    }

    /// Accepts the publication.
    pub fn accept(&mut self) -> Result<(), SessionError> {
        let Stage::Asked(stream) = self.stage else { return Ok(()) };
        self.stage = Stage::Publishing(stream);
        self.chunks.set_limit(self.max_message);
        self.user_control(UserControlEventType::StreamBegin, Some(stream), None)?;
        self.status(stream, "status", "NetStream.Publish.Start", "Publishing")
    }

    /// Refuses the publication; nothing more is read.
    pub fn refuse(&mut self) -> Result<(), SessionError> {
        let Stage::Asked(stream) = self.stage else { return Ok(()) };
        self.stage = Stage::Over;
        // Not `BadName`, which clients take for a key that is temporarily in use.
        self.status(stream, "error", "NetStream.Publish.Denied", "No such stream")
    }

    /// Tells the publisher why its publication ends; nothing more is read.
    pub fn end(&mut self, why: &str) -> Result<(), SessionError> {
        let Stage::Publishing(stream) = self.stage else { return Ok(()) };
        self.stage = Stage::Over;
        self.status(stream, "error", "NetStream.Publish.Failed", why)
    }

    fn shake_hands(&mut self) -> Result<(), SessionError> {
        let input = self.chunks.input().split();
        match self.handshake.process_bytes(&input).map_err(|_| SessionError::Handshake)? {
            HandshakeProcessResult::InProgress { response_bytes } => self.output.put_slice(&response_bytes),
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                self.output.put_slice(&response_bytes);
                self.chunks.input().put_slice(&remaining_bytes);
                self.received = remaining_bytes.len() as u64;
                self.stage = Stage::Open;
            }
        }
        Ok(())
    }

    fn message(&mut self, message: Message) -> Result<Option<Request>, SessionError> {
        let Message { kind, stream, timestamp, mut data } = message;
        let publishing = self.stage == Stage::Publishing(stream);
        match kind {
            1 => {
                let size = data.try_get_u32().map_err(|_| SessionError::Sequence("a chunk size is missing"))?;
                self.chunks.set_chunk_size(size)?;
            }
            2 => {
                if let Ok(chunk_stream) = data.try_get_u32() {
                    self.chunks.abort(chunk_stream);
                }
            }
            4 => self.pong(data)?,
            8 if publishing => return Ok(Some(Request::Audio { timestamp, data })),
            9 if publishing => return Ok(Some(Request::Video { timestamp, data })),
            22 if publishing => self.aggregate = Some((data, None, timestamp)),
            20 => return self.command(stream, &data),
            // Commands in AMF3 are those in AMF0 after a zero byte.
            17 if data.first() == Some(&0) => return self.command(stream, &data[1..]),
            // Acknowledgements, windows, metadata: not needed here.
            _ => {}
        }
        Ok(None)
    }

    /// The next message of an aggregate (7.1.6), which holds FLV tags whose times are relative to the first one's.
    fn next_of_aggregate(&mut self) -> Option<Message> {
        loop {
            let (mut data, first, base) = self.aggregate.take()?;
            let Stage::Publishing(stream) = self.stage else { return None };
            let header: [u8; 11] = data.first_chunk().copied()?;
            let [kind, s2, s1, s0, t2, t1, t0, t3, ..] = header;
            let size = u32::from_be_bytes([0, s2, s1, s0]) as usize;
            let time = u32::from_be_bytes([t3, t2, t1, t0]);
            data.advance(header.len());
            if data.len() < size {
                return None;
            }
            let body = data.split_to(size);
            data.advance(data.len().min(4)); // the size again
            let first = first.unwrap_or(time);
            self.aggregate = Some((data, Some(first), base));
            // Others are skipped: an aggregate within an aggregate would be read for ever.
            if matches!(kind, 8 | 9 | 18) {
                let timestamp = base.wrapping_add(time.wrapping_sub(first));
                return Some(Message { kind, stream, timestamp, data: body });
            }
        }
    }

    fn pong(&mut self, mut data: Bytes) -> Result<(), SessionError> {
        const PING: u16 = 6;
        if let (Ok(PING), Ok(time)) = (data.try_get_u16(), data.try_get_u32()) {
            self.user_control(UserControlEventType::PingResponse, None, Some(RtmpTimestamp::new(time)))?;
        }
        Ok(())
    }

    fn command(&mut self, stream: u32, data: &[u8]) -> Result<Option<Request>, SessionError> {
        if data.len() > MAX_COMMAND {
            return Err(SessionError::Sequence("a command is too long"));
        }
        let values = amf0::read(data)?;
        let name = text(values.first()).ok_or(SessionError::Sequence("a command has no name"))?;
        let transaction = match values.get(1) {
            Some(Amf0Value::Number(number)) => *number,
            _ => 0.0,
        };
        let argument = values.get(3);
        match (name, self.stage) {
            ("connect", Stage::Open) => return self.connect(transaction, values.get(2)),
            ("releaseStream" | "FCPublish", _) => {
                self.result(transaction, Amf0Value::Null, vec![Amf0Value::Undefined])?;
            }
            ("createStream", Stage::Connected) => {
                self.message_streams += 1;
                if self.message_streams > MAX_MESSAGE_STREAMS {
                    return Err(SessionError::Sequence("too many message streams"));
                }
                let id = Amf0Value::Number(self.message_streams.into());
                self.result(transaction, Amf0Value::Null, vec![id])?;
            }
            ("publish", Stage::Connected) => {
                let key = text(argument).ok_or(SessionError::Sequence("publish has no stream name"))?;
                let key = Secret::new(key.split('?').next().unwrap_or_default());
                self.stage = Stage::Asked(stream);
                return Ok(Some(Request::Publish { key, encoder: self.encoder.take() }));
            }
            ("play" | "play2", Stage::Connected) => {
                self.stage = Stage::Over;
                self.status(stream, "error", "NetStream.Play.Failed", "This server only accepts publishers")?;
                return Ok(Some(Request::Refused("the client wants to play, not to publish")));
            }
            ("deleteStream" | "closeStream" | "FCUnpublish", Stage::Publishing(_)) => {
                self.stage = Stage::Over;
                return Ok(Some(Request::Finished));
            }
            // `_checkbw`, `getStreamLength` and others, and answers to questions that are never asked.
            _ => {}
        }
        Ok(None)
    }

    fn connect(&mut self, transaction: f64, object: Option<&Amf0Value>) -> Result<Option<Request>, SessionError> {
        let app = text(property(object, "app")).unwrap_or_default();
        let app = app.split('?').next().unwrap_or_default().trim_matches('/');
        if app != APPLICATION {
            self.stage = Stage::Over;
            let info = information("error", "NetConnection.Connect.Rejected", "No such application");
            self.command_out(0, "_error", transaction, Amf0Value::Null, vec![info])?;
            return Ok(Some(Request::Refused("no such application")));
        }
        self.encoder = text(property(object, "flashVer"))
            .filter(|text| !text.is_empty())
            .map(|text| text.chars().filter(|c| !c.is_control()).take(MAX_ENCODER).collect());
        self.stage = Stage::Connected;
        self.send(0, RtmpMessage::WindowAcknowledgement { size: ACKNOWLEDGE_EVERY as u32 })?;
        let limit_type = PeerBandwidthLimitType::Dynamic;
        self.send(0, RtmpMessage::SetPeerBandwidth { size: PEER_BANDWIDTH, limit_type })?;
        let packet = self.serializer.set_max_chunk_size(OUR_CHUNK_SIZE, RtmpTimestamp::new(0));
        self.output.put_slice(&packet.map_err(|_| SessionError::Unread)?.bytes);
        let version = [
            ("fmsVer".to_owned(), Amf0Value::Utf8String("FMS/3,0,1,123".to_owned())),
            ("capabilities".to_owned(), Amf0Value::Number(31.0)),
        ];
        let mut info = information("status", "NetConnection.Connect.Success", "Connected");
        if let Amf0Value::Object(properties) = &mut info {
            properties.insert("objectEncoding".to_owned(), Amf0Value::Number(0.0));
        }
        self.result(transaction, Amf0Value::Object(version.into()), vec![info])?;
        Ok(None)
    }

    fn result(&mut self, transaction: f64, first: Amf0Value, rest: Vec<Amf0Value>) -> Result<(), SessionError> {
        self.command_out(0, "_result", transaction, first, rest)
    }

    fn status(&mut self, stream: u32, level: &str, code: &str, description: &str) -> Result<(), SessionError> {
        self.command_out(stream, "onStatus", 0.0, Amf0Value::Null, vec![information(level, code, description)])
    }

    fn command_out(
        &mut self,
        stream: u32,
        name: &str,
        transaction_id: f64,
        command_object: Amf0Value,
        additional_arguments: Vec<Amf0Value>,
    ) -> Result<(), SessionError> {
        let command_name = name.to_owned();
        self.send(
            stream,
            RtmpMessage::Amf0Command { command_name, transaction_id, command_object, additional_arguments },
        )
    }

    fn user_control(
        &mut self,
        event_type: UserControlEventType,
        stream_id: Option<u32>,
        timestamp: Option<RtmpTimestamp>,
    ) -> Result<(), SessionError> {
        self.send(0, RtmpMessage::UserControl { event_type, stream_id, buffer_length: None, timestamp })
    }

    fn send(&mut self, stream: u32, message: RtmpMessage) -> Result<(), SessionError> {
        let unsayable = SessionError::Sequence("an answer cannot be written");
        let payload = MessagePayload::from_rtmp_message(message, RtmpTimestamp::new(0), stream);
        let payload = payload.map_err(|_| unsayable.clone())?;
        // "Can be dropped" makes each message begin with a full header; "uncompressed" would repeat it within one.
        let packet = self.serializer.serialize(&payload, false, true).map_err(|_| unsayable)?;
        self.output.put_slice(&packet.bytes);
        if self.output.len() > MAX_OUTPUT { Err(SessionError::Unread) } else { Ok(()) }
    }
}

fn information(level: &str, code: &str, description: &str) -> Amf0Value {
    let properties = [("level", level), ("code", code), ("description", description)];
    Amf0Value::Object(properties.map(|(name, value)| (name.to_owned(), Amf0Value::Utf8String(value.to_owned()))).into())
}

#[cfg(test)]
mod tests {
    use rml_rtmp::chunk_io::ChunkDeserializer;

    use super::*;

    /// A client after its handshake, and the server that it talks to.
    struct Pair {
        session: Session,
        writer: ChunkSerializer,
        reader: ChunkDeserializer,
    }

    impl Pair {
        fn new() -> Self {
            let mut session = Session::new(1 << 20);
            session.buffers().0.put_slice(&[&[3][..], &[0; 1536]].concat());
            session.received(1537).unwrap();
            let answer = session.buffers().1.split();
            assert_eq!(answer.len(), 1 + 2 * 1536);
            session.buffers().0.put_slice(&answer[1..1537]);
            session.received(1536).unwrap();
            assert!(session.has_shaken_hands());
            Self { session, writer: ChunkSerializer::new(), reader: ChunkDeserializer::new() }
        }

        fn send(&mut self, kind: u8, data: Vec<u8>) -> Result<Option<Request>, SessionError> {
            let mut payload = MessagePayload::new();
            (payload.type_id, payload.data, payload.message_stream_id) = (kind, data.into(), 1);
            let bytes = self.writer.serialize(&payload, false, true).unwrap().bytes;
            self.session.buffers().0.put_slice(&bytes);
            self.session.received(bytes.len())?;
            self.session.next()
        }

        fn command(&mut self, name: &str, object: &[(&str, &str)], argument: &str) -> Option<Request> {
            let string = |text: &str| Amf0Value::Utf8String(text.to_owned());
            let object = object.iter().map(|(name, value)| ((*name).to_owned(), string(value))).collect();
            let values = vec![string(name), Amf0Value::Number(2.0), Amf0Value::Object(object), string(argument)];
            self.send(20, rml_rtmp::rml_amf0::serialize(&values).unwrap()).unwrap()
        }

        fn answers(&mut self) -> Vec<RtmpMessage> {
            let mut bytes = self.session.buffers().1.split();
            let mut answers = Vec::new();
            while let Some(payload) = self.reader.get_next_message(&bytes.split()).unwrap() {
                let message = payload.to_rtmp_message().unwrap();
                if let RtmpMessage::SetChunkSize { size } = message {
                    self.reader.set_max_chunk_size(size as usize).unwrap();
                }
                answers.push(message);
            }
            answers
        }

        fn publishing() -> Self {
            let mut pair = Self::new();
            assert_eq!(pair.command("connect", &[("app", "live/"), ("flashVer", "a program")], ""), None);
            assert_eq!(pair.command("releaseStream", &[], "key"), None);
            assert_eq!(pair.command("createStream", &[], ""), None);
            assert!(pair.answers().contains(&RtmpMessage::WindowAcknowledgement { size: 65_536 }));
            let asked = pair.command("publish", &[], "key?user=me");
            let (key, encoder) = (Secret::new("key"), Some("a program".to_owned()));
            assert_eq!(asked, Some(Request::Publish { key, encoder }));
            pair
        }
    }

    fn says(answers: &[RtmpMessage], code: &str) -> bool {
        answers.iter().any(|answer| format!("{answer:?}").contains(code))
    }

    #[test]
    fn a_publisher_is_asked_about_and_heard() {
        let mut pair = Pair::publishing();
        assert_eq!(pair.send(9, vec![1]), Ok(None), "nothing is read before the answer");
        pair.session.accept().unwrap();
        assert!(says(&pair.answers(), "NetStream.Publish.Start"));
        assert_eq!(pair.session.next(), Ok(Some(Request::Video { timestamp: 0, data: Bytes::from_static(&[1]) })));
        let heard = pair.send(8, vec![2]);
        assert_eq!(heard, Ok(Some(Request::Audio { timestamp: 0, data: Bytes::from_static(&[2]) })));
        let tag = |time: u8, byte: u8| [9, 0, 0, 1, 0, 0, time, 0, 0, 0, 0, byte, 0, 0, 0, 12];
        let first = pair.send(22, [tag(10, 3), tag(15, 4)].concat());
        assert_eq!(first, Ok(Some(Request::Video { timestamp: 0, data: Bytes::from_static(&[3]) })));
        let second = pair.session.next();
        assert_eq!(second, Ok(Some(Request::Video { timestamp: 5, data: Bytes::from_static(&[4]) })));
        assert_eq!(pair.command("deleteStream", &[], ""), Some(Request::Finished));
        assert!(pair.session.is_over());
    }

    #[test]
    fn who_is_refused_is_told_and_not_heard() {
        let mut pair = Pair::publishing();
        pair.session.refuse().unwrap();
        assert!(says(&pair.answers(), "NetStream.Publish.Denied"));
        assert_eq!(pair.send(9, vec![1]), Ok(None));
        let mut pair = Pair::new();
        assert!(matches!(pair.command("connect", &[("app", "other")], ""), Some(Request::Refused(_))));
        assert!(says(&pair.answers(), "NetConnection.Connect.Rejected"));
    }

    #[test]
    fn acknowledges_the_running_total() {
        let mut pair = Pair::publishing();
        pair.session.accept().unwrap();
        pair.answers();
        let mut acknowledged = Vec::new();
        for _ in 0..30 {
            assert!(pair.send(9, vec![0; 10_000]).unwrap().is_some());
            acknowledged.extend(pair.answers().into_iter().map(|answer| match answer {
                RtmpMessage::Acknowledgement { sequence_number } => sequence_number,
                other => panic!("{other:?}"),
            }));
        }
        assert_eq!(acknowledged.len(), 4, "each 64 KiB of 300 kB");
        assert!(
            acknowledged.windows(2).all(|pair| (65_536..80_000).contains(&(pair[1] - pair[0]))),
            "{acknowledged:?}"
        );
    }
}
