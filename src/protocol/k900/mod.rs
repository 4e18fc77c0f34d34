//! K900: how glasses and phone speak over the serial line to the Bluetooth chip
//! (docs/protocol.md#the-serial-line-k900).
//!
//! ```text
//! bytes ─► frame ─► envelope ─┬─► message          Receiver
//!                             └─► chunks ─► message
//! message ─► chunks, if it is long ─► envelope ─► frame ─► bytes          pack()
//! ```
//!
//! A frame has no checksum. What can be promised of a line with noise: every whole frame is found, whatever came before it,
//! with its last byte; what was cut short, has a byte too many, or holds what JSON cannot is thrown away; and a chunked message
//! is whole or is not given at all. A letter that became another letter within a JSON string is not noticed, nor is a gap from
//! within one frame to the same place of another, here or by any other receiver of the protocol.

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

/// The longest message that is sent or put together, bytes. The longest of the protocol, a start with everything set, is
/// under 2 KiB.
pub const MAX_SERIAL_MESSAGE: usize = 8 * 1024;

/// The frames of one message, in the order to send them; `None` for one longer than [`MAX_SERIAL_MESSAGE`]. `id` names it
/// among the chunked messages of half a minute.
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
        /// The object. An `mId` that came beside it is in it.
        text: String,
        /// Whether the chip was to wake the glasses for it.
        wake: bool,
    },
    /// A piece of a message that is not whole yet.
    Piece,
    /// A frame between phone and chip, none of ours.
    Word,
    /// A frame that holds nothing of the protocol.
    Malformed,
    /// The beginning of a frame of a type that is not spoken here.
    Other(u8),
}

/// Makes messages of a line's bytes. What it holds is bounded: a frame, and 10 messages in pieces.
#[derive(Debug, Default)]
pub struct Receiver {
    decoder: Decoder,
    reassembly: Reassembly,
}

impl Receiver {
    /// Takes a byte; what ends with it. `now` on any clock that never goes back.
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
                // A chunk of chunks is none of the protocol.
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
