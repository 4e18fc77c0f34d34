//! The formats that a decoder needs before the first frame, parsed from the records of RTMP.

use bytes::{Buf, Bytes};
use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::rbsp::{BitReader, decode_nal};

/// H.264, from an `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15, 5.3.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoFormat {
    /// The record as received, which is the content of `avcC`.
    pub record: Bytes,
    /// The sequence parameter set, one NAL unit with its header.
    pub sps: Bytes,
    /// The picture parameter set, one NAL unit with its header.
    pub pps: Bytes,
    /// Width of the picture as shown, in pixels.
    pub width: u32,
    /// Height of the picture as shown, in pixels.
    pub height: u32,
    /// How many pictures a decoder may have to hold back; not 0 if B-frames may come.
    pub reorder: u32,
}

/// AAC, from an `AudioSpecificConfig` (ISO/IEC 14496-3, 1.6.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioFormat {
    /// The record as received, which is the content of `esds`.
    pub record: Bytes,
    /// Audio object type: 2 is AAC-LC.
    pub object_type: u8,
    /// In Hz.
    pub sample_rate: u32,
    /// 1 to 7, or 8 for 7.1.
    pub channels: u8,
}

/// Why a decoder cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not an `AVCDecoderConfigurationRecord` with one usable SPS and PPS.
    #[error("the H.264 configuration record cannot be read")]
    Video,
    /// NAL units have no four-byte prefixes.
    #[error("NAL units with a length of {0} bytes are not supported, only 4")]
    NalLength(u8),
    /// Not an `AudioSpecificConfig` of AAC.
    #[error("the AAC configuration record cannot be read")]
    Audio,
}

impl VideoFormat {
    /// Reads the record.
    pub fn parse(record: Bytes) -> Result<Self, FormatError> {
        let sets = parameter_sets(&record).ok_or(FormatError::Video)?;
        let length = (record[4] & 3) + 1;
        if length != 4 {
            return Err(FormatError::NalLength(length));
        }
        let [Some(sps), Some(pps)] = sets.map(|units| units.into_iter().next()) else { return Err(FormatError::Video) };
        let rbsp = decode_nal(&sps).map_err(|_| FormatError::Video)?;
        let set = SeqParameterSet::from_bits(BitReader::new(&rbsp[..])).map_err(|_| FormatError::Video)?;
        let (width, height) = set.pixel_dimensions().map_err(|_| FormatError::Video)?;
        // Without the restriction a decoder must assume the worst, unless the profile has no B-frames (Annex E.2.1).
        let told = set.vui_parameters.as_ref().and_then(|vui| vui.bitstream_restrictions.as_ref());
        let baseline = sps.get(1) == Some(&66);
        let reorder = match told {
            _ if baseline => 0,
            Some(told) => told.max_num_reorder_frames,
            None => set.max_num_ref_frames,
        };
        Ok(Self { record, sps, pps, width, height, reorder })
    }

    /// All sequence parameter sets and all picture parameter sets of the record.
    pub fn parameter_sets(&self) -> [Vec<Bytes>; 2] {
        parameter_sets(&self.record).unwrap_or_default()
    }

    /// The RFC 6381 name, such as `avc1.64001f`.
    pub fn codec(&self) -> String {
        let at = |n| self.sps.get(n).copied().unwrap_or_default();
        format!("avc1.{:02x}{:02x}{:02x}", at(1), at(2), at(3))
    }
}

/// Sequence and picture parameter sets of a record, each a NAL unit with its header; `None` if the record is truncated
/// or invalid.
///
/// `h264_reader` is not used here: its reader of records panics if the last set is empty (0.9.0).
fn parameter_sets(record: &Bytes) -> Option<[Vec<Bytes>; 2]> {
    const VERSION: u8 = 1;
    const COUNTS_AT: usize = 5;
    /// NAL unit type, with the forbidden bit, and the mask of the number of units.
    const LISTS: [(u8, u8); 2] = [(7, 31), (8, 255)];
    if record.len() < COUNTS_AT || record[0] != VERSION {
        return None;
    }
    let mut rest = record.slice(COUNTS_AT..);
    let mut sets = [Vec::new(), Vec::new()];
    for (units, (kind, mask)) in sets.iter_mut().zip(LISTS) {
        for _ in 0..rest.try_get_u8().ok()? & mask {
            let length = usize::from(rest.try_get_u16().ok()?);
            if rest.len() < length {
                return None;
            }
            let unit = rest.split_to(length);
            if unit.first().is_some_and(|header| header & 0x9f == kind) {
                units.push(unit);
            }
        }
    }
    Some(sets)
}

impl AudioFormat {
    /// Reads the record.
    pub fn parse(record: Bytes) -> Result<Self, FormatError> {
        const RATES: [u32; 13] =
            [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
        let [first, second, ..] = record[..] else { return Err(FormatError::Audio) };
        let object_type = first >> 3;
        let rate = RATES.get(usize::from((first & 7) << 1 | second >> 7));
        let channels = second >> 3 & 15;
        match rate {
            // 31 escapes to types that no RTMP client sends; 15 to a rate in full.
            Some(&sample_rate) if (1..31).contains(&object_type) && (1..=8).contains(&channels) => {
                Ok(Self { record, object_type, sample_rate, channels })
            }
            _ => Err(FormatError::Audio),
        }
    }

    /// The RFC 6381 name, such as `mp4a.40.2`.
    pub fn codec(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of x264 for 1280x720 with two B-frames.
    const HIGH: &str = "0164001fffe1001c6764001facd9405005bb016a02020280000003008000001e478c18cb01000568ebecb22c";
    /// The same for 640x360, coded as 640x368, without B-frames.
    const BASELINE: &str = "0142c01effe1001c6742c01ed900a02ff97016a0c0c0d4a0000003002000000791e2c5c901000468cb8cb2";

    fn bytes(hex: &str) -> Bytes {
        (0..hex.len()).step_by(2).map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap()).collect()
    }

    #[test]
    fn reads_size_and_reordering_out_of_h264() {
        let format = VideoFormat::parse(bytes(HIGH)).unwrap();
        assert_eq!((format.width, format.height, format.codec().as_str()), (1280, 720, "avc1.64001f"));
        assert!(format.sps[0] & 31 == 7 && format.pps[0] & 31 == 8);
        assert!(format.reorder > 0);
        let format = VideoFormat::parse(bytes(BASELINE)).unwrap();
        assert_eq!((format.width, format.height, format.codec().as_str()), (640, 360, "avc1.42c01e"));
        assert_eq!(format.reorder, 0);
    }

    #[test]
    fn passes_over_empty_parameter_sets() {
        let set = "001c6764001facd9405005bb016a02020280000003008000001e478c18cb";
        let record = |sets: &str| VideoFormat::parse(bytes(&format!("0164001fff{sets}")));
        let format = record(&format!("e20000{set}02000568ebecb22c0000")).unwrap();
        let [sps, pps] = format.parameter_sets();
        assert_eq!((format.width, sps.len(), pps.len()), (1280, 1, 1));
        assert_eq!(record(&format!("e1{set}010000")), Err(FormatError::Video));
        assert_eq!(record("e10000"), Err(FormatError::Video));
    }

    #[test]
    fn reads_aac() {
        let format = AudioFormat::parse(bytes("1210")).unwrap();
        assert_eq!((format.sample_rate, format.channels, format.codec().as_str()), (44_100, 2, "mp4a.40.2"));
        assert_eq!(AudioFormat::parse(bytes("1188")).unwrap().channels, 1);
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "00", "0164001fff", "0164001ffee1001a67"] {
            assert!(VideoFormat::parse(bytes(text)).is_err(), "{text}");
        }
        for text in ["", "12", "ffff", "1200"] {
            assert_eq!(AudioFormat::parse(bytes(text)), Err(FormatError::Audio), "{text}");
        }
        let mut short = bytes(HIGH).to_vec();
        short[4] = 0xfd;
        assert_eq!(VideoFormat::parse(short.into()), Err(FormatError::NalLength(2)));
    }
}
