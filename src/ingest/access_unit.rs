//! Puts access units into the form of a [`crate::broadcast::Frame`]: length-prefixed, without parameter sets and
//! delimiters.
//!
//! Some encoders repeat their parameter sets before each key frame, and change them only there. So the sets that are
//! removed are returned, and [`record`] makes a configuration record from them.

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::nal::sps::{ChromaFormat, SeqParameterSet};
use h264_reader::rbsp::{BitReader, decode_nal};

const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;

/// Parameter sets, each a NAL unit with its header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ParameterSets {
    pub sps: Vec<Bytes>,
    pub pps: Vec<Bytes>,
}

/// A picture after `tidy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AccessUnit {
    pub data: Bytes,
    /// Whether it contains an IDR slice.
    pub key: bool,
    /// The parameter sets that were removed.
    pub sets: ParameterSets,
}

/// `None` if the lengths do not fit or nothing is left.
pub(super) fn tidy(data: Bytes) -> Option<AccessUnit> {
    let mut sets = ParameterSets::default();
    let (mut key, mut kept) = (false, Vec::new());
    let (mut at, mut tidy) = (0, true);
    while at < data.len() {
        let prefix: [u8; 4] = data.get(at..at + 4)?.try_into().ok()?;
        let end = at + 4 + usize::try_from(u32::from_be_bytes(prefix)).ok()?;
        let unit = data.get(at + 4..end)?;
        match unit.first().map(|header| header & 31) {
            Some(SPS) => sets.sps.push(data.slice_ref(unit)),
            Some(PPS) => sets.pps.push(data.slice_ref(unit)),
            None | Some(DELIMITER) => {}
            Some(kind) => {
                key |= kind == IDR;
                kept.push(at..end);
                tidy &= kept.len() > 1 || at == 0;
                at = end;
                continue;
            }
        }
        tidy = false;
        at = end;
    }
    if kept.is_empty() {
        return None;
    }
    if tidy {
        return Some(AccessUnit { data, key, sets });
    }
    let mut rest = BytesMut::with_capacity(kept.iter().map(ExactSizeIterator::len).sum());
    for range in kept {
        rest.put_slice(&data[range]);
    }
    Some(AccessUnit { data: rest.freeze(), key, sets })
}

impl ParameterSets {
    /// These sets updated by `newer`; `None` if that changes nothing.
    pub fn changed_by(&self, newer: &Self) -> Option<Self> {
        let known = |old: &[Bytes], new: &[Bytes]| new.iter().all(|set| old.contains(set));
        if known(&self.sps, &newer.sps) && known(&self.pps, &newer.pps) {
            return None;
        }
        let either = |old: &Vec<Bytes>, new: &Vec<Bytes>| if new.is_empty() { old.clone() } else { new.clone() };
        Some(Self { sps: either(&self.sps, &newer.sps), pps: either(&self.pps, &newer.pps) })
    }
}

/// The `AVCDecoderConfigurationRecord` of these sets (ISO/IEC 14496-15, 5.3.3.1), or `None` if they are not usable.
pub(super) fn record(sets: &ParameterSets) -> Option<Bytes> {
    let first = sets.sps.first()?;
    let &[_, profile, compatibility, level, ..] = &first[..] else { return None };
    let mut record = BytesMut::new();
    record.put_slice(&[1, profile, compatibility, level, 0xff]);
    for (marker, units) in [(0xe0, &sets.sps), (0, &sets.pps)] {
        let count = u8::try_from(units.len()).ok().filter(|&count| count < 32)?;
        record.put_u8(marker | count);
        for unit in units {
            record.put_u16(u16::try_from(unit.len()).ok()?);
            record.put_slice(unit);
        }
    }
    if matches!(profile, 100 | 110 | 122 | 144) {
        let rbsp = decode_nal(first).ok()?;
        let chroma = SeqParameterSet::from_bits(BitReader::new(&rbsp[..])).ok()?.chroma_info;
        let format = match chroma.chroma_format {
            ChromaFormat::Monochrome => 0,
            ChromaFormat::YUV420 => 1,
            ChromaFormat::YUV422 => 2,
            ChromaFormat::YUV444 => 3,
            ChromaFormat::Invalid(_) => return None,
        };
        record.put_slice(&[
            0xfc | format,
            0xf8 | chroma.bit_depth_luma_minus8,
            0xf8 | chroma.bit_depth_chroma_minus8,
            0,
        ]);
    }
    Some(record.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broadcast::VideoFormat;

    fn unit(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    #[test]
    fn takes_parameter_sets_and_delimiters_out_and_copies_only_then() {
        let slices = [unit(&[0x06, 1]), unit(&[0x65, 2, 3]), unit(&[0x65, 4])].concat();
        let plain = Bytes::from(slices.clone());
        let tidied = tidy(plain.clone()).unwrap();
        assert!(tidied.key && tidied.sets == ParameterSets::default());
        assert_eq!(tidied.data.as_ptr(), plain.as_ptr(), "no copy");
        let full = [unit(&[9, 0xf0]), unit(&[0x67, 7]), unit(&[0x68, 8]), unit(&[]), slices.clone()].concat();
        let tidied = tidy(full.into()).unwrap();
        assert_eq!(&tidied.data[..], &slices[..]);
        assert_eq!((&tidied.sets.sps[0][..], &tidied.sets.pps[0][..]), (&[0x67, 7][..], &[0x68, 8][..]));
        assert!(!tidy(unit(&[0x41, 2]).into()).unwrap().key);
        for broken in [vec![], unit(&[9, 0xf0]), vec![0, 0, 0, 9, 0x65], vec![0, 0, 1]] {
            assert_eq!(tidy(broken.into()), None);
        }
    }

    #[test]
    fn makes_a_record_of_changed_sets() {
        let bytes = |hex: &str| -> Bytes {
            (0..hex.len()).step_by(2).map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap()).collect()
        };
        let high = ParameterSets {
            sps: vec![bytes("6764001facd9405005bb016a02020280000003008000001e478c18cb")],
            pps: vec![bytes("68ebecb22c")],
        };
        let base = ParameterSets {
            sps: vec![bytes("6742c01ed900a02ff97016a0c0c0d4a0000003002000000791e2c5c9")],
            pps: vec![bytes("68cb8cb2")],
        };
        assert_eq!(high.changed_by(&ParameterSets::default()), None);
        assert_eq!(high.changed_by(&high), None);
        assert_eq!(high.changed_by(&base).as_ref(), Some(&base));
        for (sets, size) in [(high, (1280, 720)), (base, (640, 360))] {
            let format = VideoFormat::parse(record(&sets).unwrap()).unwrap();
            assert_eq!((format.width, format.height), size);
        }
    }

    proptest! {
        #[test]
        fn bears_anything(bytes in prop::collection::vec(0_u8..12, 0..100)) {
            let _ = tidy(bytes.into());
        }
    }
}
