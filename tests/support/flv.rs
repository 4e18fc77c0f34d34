//! Reads FLV as nginx-rtmp records it: enough to tell which frames arrived, when they are shown and whether one is missing.

/// The test source's name for its SEI payload (`user_data_unregistered`).
const STAMP_UUID: &[u8; 16] = b"lenscast-seq-no!";
const NAL_IDR: u8 = 5;
const NAL_SEI: u8 = 6;
const NAL_SPS: u8 = 7;

/// What the test source writes before each of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Counts from 0 for each capture pipeline.
    pub sequence: u64,
    /// `CLOCK_MONOTONIC`, microseconds, when the encoder gave the frame out.
    pub encoded_us: u64,
}

/// One tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Decoding time in milliseconds.
    pub dts_ms: u32,
    /// What it holds.
    pub body: Body,
}

/// What a tag holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// An H.264 picture.
    Frame {
        /// The container calls it a key frame, and it holds an IDR slice.
        key: bool,
        /// Presentation time minus decoding time, milliseconds.
        cts_ms: i32,
        /// The test source's stamp.
        stamp: Option<Stamp>,
        /// Its size in the file.
        bytes: usize,
    },
    /// H.264's parameter sets.
    VideoHeader,
    /// AAC.
    Sound {
        /// Its size in the file.
        bytes: usize,
    },
    /// AAC's configuration.
    AudioHeader,
    /// `onMetaData` and the like.
    Script,
    /// A codec or type that the daemon must not send.
    Other,
}

/// Takes a recording in pieces, as it grows. A last tag that is cut off stays unread.
#[derive(Default)]
pub struct Reader {
    pending: Vec<u8>,
    past_header: bool,
    nal_length_size: usize,
}

impl Reader {
    /// The tags that `bytes` completes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Tag> {
        const HEADER_AND_BACK_POINTER: usize = 13;
        self.pending.extend_from_slice(bytes);
        let mut tags = Vec::new();
        let mut at = 0;
        if !self.past_header && self.pending.len() >= HEADER_AND_BACK_POINTER {
            assert_eq!(&self.pending[..3], b"FLV", "not a recording");
            at = HEADER_AND_BACK_POINTER;
            self.past_header = true;
        }
        while self.past_header && self.pending.len() >= at + 11 {
            let head = &self.pending[at..at + 11];
            let size = usize::try_from(be(&head[1..4])).expect("24 bits");
            let dts_ms = u32::try_from(be(&[head[7], head[4], head[5], head[6]])).expect("32 bits");
            let end = at + 11 + size;
            if self.pending.len() < end + 4 {
                break;
            }
            let kind = head[0] & 0x1f;
            let payload = self.pending[at + 11..end].to_vec();
            let body = match kind {
                8 => sound(&payload),
                9 => self.picture(&payload),
                18 => Body::Script,
                _ => Body::Other,
            };
            tags.push(Tag { dts_ms, body });
            at = end + 4;
        }
        self.pending.drain(..at);
        tags
    }

    fn picture(&mut self, payload: &[u8]) -> Body {
        const AVC: u8 = 7;
        if payload.len() < 5 || payload[0] & 0x0f != AVC {
            return Body::Other;
        }
        match payload[1] {
            0 => {
                // ISO 14496-15, 5.2.4.1: the fifth byte's low two bits.
                self.nal_length_size = payload.get(9).map_or(4, |b| usize::from(b & 3) + 1);
                Body::VideoHeader
            }
            1 => {
                let cts = be(&payload[2..5]);
                let cts_ms = i32::try_from(cts).expect("24 bits") - if cts >> 23 == 1 { 1 << 24 } else { 0 };
                let nals = nal_units(&payload[5..], self.nal_length_size.max(1));
                let idr = nals.iter().any(|nal| nal[0] & 0x1f == NAL_IDR);
                Body::Frame {
                    key: payload[0] >> 4 == 1 && idr,
                    cts_ms,
                    stamp: nals.iter().filter(|nal| nal[0] & 0x1f == NAL_SEI).find_map(|nal| stamp(nal)),
                    bytes: payload.len(),
                }
            }
            _ => Body::Other,
        }
    }
}

/// All tags of a recording in memory.
pub fn read(bytes: &[u8]) -> Vec<Tag> {
    Reader::default().push(bytes)
}

fn sound(payload: &[u8]) -> Body {
    const AAC: u8 = 10;
    match payload {
        [head, 0, ..] if head >> 4 == AAC => Body::AudioHeader,
        [head, 1, ..] if head >> 4 == AAC => Body::Sound { bytes: payload.len() },
        _ => Body::Other,
    }
}

fn nal_units(mut bytes: &[u8], length_size: usize) -> Vec<&[u8]> {
    let mut nals = Vec::new();
    while bytes.len() > length_size {
        let length = usize::try_from(be(&bytes[..length_size])).expect("32 bits at most");
        let end = (length_size + length).min(bytes.len());
        if end > length_size {
            nals.push(&bytes[length_size..end]);
        }
        bytes = &bytes[end..];
    }
    nals
}

/// The stamp in a SEI NAL unit, if one of its messages is ours (H.264, 7.3.2.3.1 and D.1.7).
fn stamp(nal: &[u8]) -> Option<Stamp> {
    const USER_DATA_UNREGISTERED: usize = 5;
    let rbsp = without_emulation_prevention(&nal[1..]);
    let mut rest = rbsp.as_slice();
    loop {
        let (kind, after) = sei_number(rest)?;
        let (size, after) = sei_number(after)?;
        let payload = after.get(..size)?;
        if kind == USER_DATA_UNREGISTERED && payload.starts_with(STAMP_UUID) {
            let digits = std::str::from_utf8(payload.get(16..48)?).ok()?;
            return Some(Stamp {
                sequence: u64::from_str_radix(&digits[..16], 16).ok()?,
                encoded_us: u64::from_str_radix(&digits[16..], 16).ok()?,
            });
        }
        rest = &after[size..];
    }
}

fn sei_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let full = bytes.iter().take_while(|b| **b == 0xff).count();
    Some((full * 255 + usize::from(*bytes.get(full)?), &bytes[full + 1..]))
}

fn without_emulation_prevention(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut zeros = 0;
    for &byte in bytes {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(kind: u8, dts_ms: u32, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let dts = dts_ms.to_be_bytes();
        let mut bytes = vec![kind, size[1], size[2], size[3], dts[1], dts[2], dts[3], dts[0], 0, 0, 0];
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(&(11 + u32::try_from(payload.len()).unwrap()).to_be_bytes());
        bytes
    }

    fn nal(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    #[test]
    fn a_recording_in_single_bytes_gives_its_frames_and_leaves_a_cut_tail() {
        let foreign = [&[NAL_SEI, 5, 17][..], b"some other uuid!", &[9]].concat();
        let ours = [&[NAL_SEI, 5, 48][..], STAMP_UUID, b"000000000000002a00000000000f4240", &[0x80]].concat();
        let frame =
            [&[0x17, 1, 0xff, 0xff, 0xfe][..], &nal(&[NAL_SPS, 1]), &nal(&foreign), &nal(&ours), &nal(&[NAL_IDR, 7])]
                .concat();
        let mut file = [b"FLV\x01\x05\0\0\0\x09".as_slice(), &[0; 4]].concat();
        file.extend(tag(9, 0, &[0x17, 0, 0, 0, 0, 1, 66, 0, 30, 0xff, 0xe1]));
        file.extend(tag(9, 0x0102_0304, &frame));
        file.extend(tag(8, 12, &[0xaf, 1, 1, 2]));
        file.extend(&tag(9, 40, &frame)[..20]);
        let mut reader = Reader::default();
        let tags: Vec<Tag> = file.iter().flat_map(|byte| reader.push(&[*byte])).collect();
        let stamp = Some(Stamp { sequence: 42, encoded_us: 1_000_000 });
        assert_eq!(
            tags,
            [
                Tag { dts_ms: 0, body: Body::VideoHeader },
                Tag { dts_ms: 0x0102_0304, body: Body::Frame { key: true, cts_ms: -2, stamp, bytes: frame.len() } },
                Tag { dts_ms: 12, body: Body::Sound { bytes: 4 } },
            ]
        );
    }
}
