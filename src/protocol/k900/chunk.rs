//! Long messages in chunks (docs/protocol.md#chunks). Chunks may come in any order, twice, or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::MAX_SERIAL_MESSAGE;

/// A message up to this length goes in one frame, bytes.
pub(super) const UNCHUNKED: usize = 200;
/// Maximum length of a frame that the Bluetooth chip passes on, bytes.
pub(super) const MAX_PACKED: usize = 240;
/// Maximum length of a chunk that is sent, bytes.
const MAX_PIECE: usize = 80;
/// Maximum number of messages reassembled at a time.
const MAX_SESSIONS: usize = 10;
/// Minimum length of any chunk but a message's last, bytes.
const MIN_PIECE: usize = 4;
/// Maximum number of chunks of one message.
const MAX_PIECES: u16 = (MAX_SERIAL_MESSAGE / MIN_PIECE) as u16;
/// Maximum length of an id, bytes; real ones have some 30.
const MAX_ID: usize = 64;
/// Time within which all chunks of a message must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// One chunk of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    #[serde(rename = "t")]
    kind: Kind,
    id: String,
    #[serde(rename = "c")]
    number: u16,
    #[serde(rename = "n")]
    count: u16,
    #[serde(rename = "d")]
    piece: String,
    /// Set on the last chunk, if the sender wants the message acknowledged.
    #[serde(rename = "mId", skip_serializing_if = "Option::is_none")]
    message_id: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    #[serde(rename = "ck")]
    Chunk,
}

impl Chunk {
    fn json(&self) -> String {
        serde_json::to_string(self).expect("text and numbers are always JSON")
    }
}

/// Splits a message into chunks that each fit a frame; `packed` is the length of the frame around a chunk.
pub(super) fn split(message: &str, id: &str, packed: impl Fn(&str) -> usize) -> Vec<String> {
    let mut chunks = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        // The total is not known yet; the largest possible one reserves its digits.
        let chunk = |length: usize| Chunk {
            kind: Kind::Chunk,
            id: id.to_owned(),
            number: chunks.len() as u16,
            count: MAX_PIECES,
            piece: rest[..length].to_owned(),
            message_id: None,
        };
        let mut length = rest.floor_char_boundary(MAX_PIECE);
        while length > MIN_PIECE {
            let excess = packed(&chunk(length).json()).saturating_sub(MAX_PACKED);
            if excess == 0 {
                break;
            }
            // A byte takes at most 4, as it is escaped twice.
            length = rest.floor_char_boundary(length - excess.div_ceil(4));
        }
        let length = length.max(rest.ceil_char_boundary(1));
        chunks.push(chunk(length));
        rest = &rest[length..];
    }
    let count = chunks.len() as u16;
    chunks.into_iter().map(|chunk| Chunk { count, ..chunk }.json()).collect()
}

/// A message of which some chunks have arrived.
#[derive(Debug)]
struct Session {
    id: String,
    since: Duration,
    count: u16,
    /// The chunks that have arrived.
    pieces: BTreeMap<u16, String>,
    message_id: Option<i64>,
}

/// Reassembles messages. Holds at most 10, of at most [`MAX_SERIAL_MESSAGE`] bytes each; a new one displaces the
/// oldest.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// Oldest first.
    sessions: Vec<Session>,
}

impl Reassembly {
    /// Takes a chunk; returns the message that it completes. An `mId` beside the message is put into it.
    pub fn take(&mut self, chunk: Chunk, now: Duration) -> Option<String> {
        self.sessions.retain(|session| now.saturating_sub(session.since) < PATIENCE);
        let Chunk { id, number, count, piece, message_id, .. } = chunk;
        if number >= count || count > MAX_PIECES || id.len() > MAX_ID {
            return None;
        }
        let known = self.sessions.iter().position(|session| session.id == id);
        let index = known.unwrap_or_else(|| {
            if self.sessions.len() == MAX_SESSIONS {
                self.sessions.remove(0);
            }
            self.sessions.push(Session { id, since: now, count, pieces: BTreeMap::new(), message_id: None });
            self.sessions.len() - 1
        });
        let session = &mut self.sessions[index];
        if session.count != count {
            self.sessions.remove(index);
            return None;
        }
        session.pieces.insert(number, piece);
        session.message_id = message_id.or(session.message_id);
        if session.pieces.values().map(String::len).sum::<usize>() > MAX_SERIAL_MESSAGE {
            self.sessions.remove(index);
            return None;
        }
        if session.pieces.len() < usize::from(count) {
            return None;
        }
        let Session { pieces, message_id, .. } = self.sessions.remove(index);
        let message: String = pieces.into_values().collect();
        match message_id {
            None => Some(message),
            Some(message_id) => with_id(message, message_id),
        }
    }
}

/// The message with this `mId`, unless it already has one.
fn with_id(message: String, message_id: i64) -> Option<String> {
    let mut json: Value = serde_json::from_str(&message).ok()?;
    let object = json.as_object_mut()?;
    if object.contains_key("mId") {
        return Some(message);
    }
    object.insert("mId".into(), message_id.into());
    Some(json.to_string())
}
