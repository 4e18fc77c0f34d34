//! `##`, a type, a length of 16 bits, the payload, `$$`.
//!
//! Which byte of the length comes first differs by direction and age. A payload has at most 512 bytes, so the high
//! byte is 0, 1 or 2, and a message has at least 3 bytes: so never do both orders fit, and no guess is needed.
//!
//! JSON has no control characters except white space, and each frame has one in its length. So a truncated frame that
//! swallowed the beginning of the next is known for noise before the next is over: every whole frame is found.

/// Maximum length of a payload, bytes.
pub const MAX_PAYLOAD: usize = 512;
/// Length of a frame apart from its payload, bytes.
pub const OVERHEAD: usize = HEADER + END.len();
/// Minimum length of a payload that can be a message, bytes.
const MIN_PAYLOAD: usize = 3;
const HEADER: usize = 5;
const START: [u8; 2] = *b"##";
const END: [u8; 2] = *b"$$";
/// The type of a text frame.
const TEXT: u8 = 0x30;
/// The types of files, and of binary messages, which are used only after a handshake that we do not answer.
const OTHERS: [u8; 6] = [0x31, 0x32, 0x33, 0x34, 0x35, 0x40];

/// Which byte of the length comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthOrder {
    /// High byte first: what glasses send to phones.
    #[default]
    Big,
    /// Low byte first: what phones send to glasses.
    Little,
}

/// A frame found on the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The payload of a text frame.
    Text(String),
    /// The beginning of a frame of another type; the rest of it is skipped.
    Other(u8),
}

/// The bytes of a text frame; `None` if `payload` is too short or too long.
pub fn encode(payload: &str, order: LengthOrder) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len()).ok().filter(|&length| plausible(length))?;
    let length = match order {
        LengthOrder::Big => length.to_be_bytes(),
        LengthOrder::Little => length.to_le_bytes(),
    };
    Some([&START[..], &[TEXT], &length, payload.as_bytes(), &END].concat())
}

fn plausible(length: u16) -> bool {
    (MIN_PAYLOAD..=MAX_PAYLOAD).contains(&usize::from(length))
}

fn length(bytes: [u8; 2]) -> Option<usize> {
    [u16::from_be_bytes(bytes), u16::from_le_bytes(bytes)].into_iter().find(|&l| plausible(l)).map(usize::from)
}

/// Finds the frames in a line's bytes. Holds at most one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What may be the beginning of a frame.
    buffer: Vec<u8>,
    /// How much of the payload was found to be text, bytes.
    checked: usize,
}

/// What the buffer holds.
enum Look {
    Unfinished,
    Noise,
    Other(u8),
    Whole,
}

impl Decoder {
    /// Takes a byte; returns the frame that ends with it.
    pub fn push(&mut self, byte: u8) -> Option<Frame> {
        self.buffer.push(byte);
        while !self.buffer.is_empty() {
            match self.look() {
                Look::Unfinished => return None,
                Look::Noise => self.skip(1),
                Look::Other(kind) if self.buffer.len() == START.len() + 1 => {
                    self.skip(self.buffer.len());
                    return Some(Frame::Other(kind));
                }
                // This frame turned out to be noise; a good frame may have begun inside it.
                Look::Other(_) => self.skip(START.len() + 1),
                Look::Whole => match std::str::from_utf8(&self.buffer[HEADER..self.buffer.len() - END.len()]) {
                    Ok(text) => {
                        let text = text.to_owned();
                        self.skip(self.buffer.len());
                        return Some(Frame::Text(text));
                    }
                    Err(_) => self.skip(1),
                },
            }
        }
        None
    }

    fn look(&mut self) -> Look {
        let bytes = &self.buffer;
        if bytes.iter().zip(START).any(|(&byte, start)| byte != start) {
            return Look::Noise;
        }
        match bytes.get(START.len()) {
            None => return Look::Unfinished,
            Some(&TEXT) => {}
            Some(kind) if OTHERS.contains(kind) => return Look::Other(*kind),
            Some(_) => return Look::Noise,
        }
        let Some(&[first, second]) = bytes.get(START.len() + 1..HEADER) else { return Look::Unfinished };
        let Some(length) = length([first, second]) else { return Look::Noise };
        let end = HEADER + length;
        let payload = &bytes[HEADER..end.min(bytes.len())];
        if payload[self.checked..].iter().any(|&byte| byte < b' ' && !byte.is_ascii_whitespace()) {
            return Look::Noise;
        }
        self.checked = payload.len();
        let after = bytes.get(end..).unwrap_or_default();
        if after.iter().zip(END).any(|(&byte, end)| byte != end) {
            return Look::Noise;
        }
        if after.len() == END.len() { Look::Whole } else { Look::Unfinished }
    }

    fn skip(&mut self, count: usize) {
        self.buffer.drain(..count);
        self.checked = 0;
    }
}
