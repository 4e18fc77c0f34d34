//! The contents of a frame: `{"C":"<inner JSON>", …}` (docs/protocol.md#envelopes).

use serde::Serialize;
use serde_json::Value;

use super::chunk::Chunk;

/// The recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// The phone.
    Phone,
    /// The glasses, which must wake for it.
    Glasses,
}

/// The contents of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// A message.
    Message {
        /// A JSON object with a type.
        text: String,
        /// Whether the chip was asked to wake the glasses.
        wake: bool,
    },
    /// A chunk of a message.
    Chunk {
        /// The chunk.
        chunk: Chunk,
        /// Whether the chip was asked to wake the glasses.
        wake: bool,
    },
    /// A word between the phone and the chip, not for us; it may be anything, so it is not kept.
    Word,
}

#[derive(Serialize)]
struct ToPhone<'a> {
    #[serde(rename = "C")]
    inner: &'a str,
    #[serde(rename = "V")]
    version: u8,
    #[serde(rename = "B")]
    body: Body,
}

#[derive(Serialize)]
struct Body {}

#[derive(Serialize)]
struct ToGlasses<'a> {
    #[serde(rename = "C")]
    inner: &'a str,
    #[serde(rename = "W")]
    wake: u8,
}

pub(super) fn seal(inner: &str, toward: Toward) -> String {
    let sealed = match toward {
        Toward::Phone => serde_json::to_string(&ToPhone { inner, version: 1, body: Body {} }),
        Toward::Glasses => serde_json::to_string(&ToGlasses { inner, wake: 1 }),
    };
    sealed.expect("text and numbers are always JSON")
}

/// Opens the text of a frame; `None` if it is not of the protocol. An object with a type may come without an envelope.
pub fn open(text: &str) -> Option<Opened> {
    let outer: Value = serde_json::from_str(text).ok()?;
    let wake = outer.get("W").is_some_and(|wake| *wake == 1 || *wake == true);
    match outer.get("C") {
        None => message(text, &outer, wake),
        Some(Value::String(inner)) => {
            let opened = serde_json::from_str(inner).ok().and_then(|json| message(inner, &json, wake));
            Some(opened.unwrap_or(Opened::Word))
        }
        Some(_) => None,
    }
}

fn message(text: &str, json: &Value, wake: bool) -> Option<Opened> {
    if json.get("type").is_some_and(Value::is_string) {
        return Some(Opened::Message { text: text.to_owned(), wake });
    }
    let chunk = json.get("t").is_some_and(|kind| kind == "ck").then(|| serde_json::from_str(text).ok());
    chunk.flatten().map(|chunk| Opened::Chunk { chunk, wake })
}
