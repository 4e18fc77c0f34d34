//! K900: the protocol between glasses and phone on the serial line to the Bluetooth chip
//! (docs/protocol.md#the-serial-line-k900).
//!
//! ```text
//! bytes ─► frame ─► envelope ─┬─► message          Receiver
//!                             └─► chunks ─► message
//! message ─► chunks, if it is long ─► envelope ─► frame ─► bytes          pack()
//! ```
//!
//! A frame has no checksum. On a line with noise this module promises: every whole frame is found with its last byte,
//! whatever came before it; a frame that was cut short, has a byte too many, or contains what JSON cannot is thrown
//! away; and a chunked message is delivered whole or not at all. A letter that became another letter within a JSON
//! string goes unnoticed, as does a gap from within one frame to the same place in another, here and in any other
//! receiver of the protocol.

mod chunk;
mod envelope;
mod frame;
#[cfg(all(feature = "cloud", any(test, fuzzing)))]
pub mod fuzz;

use std::time::Duration;

pub use envelope::Toward;
pub use frame::LengthOrder;

use chunk::Reassembly;
use envelope::Opened;
use frame::{Decoder, Frame};

/// Maximum length of a message that is sent or reassembled, bytes. The protocol's longest message, a start with
/// everything set, is under 2 KiB.
pub const MAX_SERIAL_MESSAGE: usize = 8 * 1024;

/// The frames of one message, in sending order; `None` if it is longer than [`MAX_SERIAL_MESSAGE`]. `id` must be
/// unique among the chunked messages of half a minute.
pub fn pack(message: &str, id: &str, toward: Toward, order: LengthOrder) -> Option<Vec<Vec<u8>>> {
    if message.len() > MAX_SERIAL_MESSAGE {
        return None;
    }
    let packed = |inner: &str| frame::encode(&envelope::seal(inner, toward), order);
    if message.len() <= chunk::UNCHUNKED
        && let Some(frame) = packed(message).filter(|frame| frame.len() <= chunk::MAX_PACKED)
    {
        return Some(vec![frame]);
    }
    chunk::split(message, id, |chunk| envelope::seal(chunk, toward).len() + frame::OVERHEAD)
        .iter()
        .map(|chunk| packed(chunk))
        .collect()
}

/// What came over the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message: a JSON object with a `type`.
    Message {
        /// The object. An `mId` that came beside it has been put into it.
        text: String,
        /// Whether the chip was asked to wake the glasses.
        wake: bool,
    },
    /// A chunk of a message that is not complete yet.
    Piece,
    /// A frame between phone and chip, not for us.
    Word,
    /// A frame with contents that are not of the protocol.
    Malformed,
    /// The beginning of a frame of a type that is not supported here.
    Other(u8),
}

/// Decodes a line's bytes into messages. What it holds is bounded: one frame, and 10 chunked messages.
#[derive(Debug, Default)]
pub struct Receiver {
    decoder: Decoder,
    reassembly: Reassembly,
}

impl Receiver {
    /// Takes a byte; returns what ends with it. `now` on any clock that never goes back.
    pub fn push(&mut self, byte: u8, now: Duration) -> Option<Received> {
        let text = match self.decoder.push(byte)? {
            Frame::Text(text) => text,
            Frame::Other(kind) => return Some(Received::Other(kind)),
        };
        Some(match envelope::open(&text) {
            None => Received::Malformed,
            Some(Opened::Word) => Received::Word,
            Some(Opened::Message { text, wake }) => Received::Message { text, wake },
            Some(Opened::Chunk { chunk, wake }) => match self.reassembly.take(chunk, now) {
                None => Received::Piece,
                // The protocol has no chunks within chunks.
                Some(text) => match envelope::open(&text) {
                    Some(Opened::Message { text, .. }) => Received::Message { text, wake },
                    _ => Received::Malformed,
                },
            },
        })
    }
}

#[cfg(test)]
mod tests;
