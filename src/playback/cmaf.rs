//! The boxes of CMAF (ISO/IEC 23000-19): one track per file, fragments of one `moof` and one `mdat`.
//!
//! `avc1` with the publisher's `avcC`, `mp4a` with its `AudioSpecificConfig`. Decoding times are 64 bit and count from
//! the stream's beginning in both tracks, so sound and picture need no edit list. Composition offsets are signed
//! (`trun` version 1): the packager moves decoding times so that a segment's first picture is shown at its decoding
//! time.

use bytes::{BufMut, Bytes, BytesMut};
use mp4_atom::esds::{DecoderConfig, DecoderSpecific, EsDescriptor, SLConfig};
use mp4_atom::{
    Atom, Audio, Avc1, Avcc, Codec, Dinf, Dref, DrefEntry, Encode, Esds, FourCC, Ftyp, Hdlr, Mdhd, Mdia, Mfhd, Minf,
    Moof, Moov, Mp4a, Mvex, Mvhd, Prft, ReferenceTime, Smhd, Stbl, Stco, Stsd, Styp, Tfdt, Tfhd, Tkhd, Traf, Trak,
    Trex, Trun, TrunEntry, TrunSamples, Url, Visual, Vmhd,
};

use crate::broadcast::{AudioFormat, VideoFormat};

/// The track id: each file has one track.
const TRACK: u32 = 1;
/// Ticks per second of video. RTMP's milliseconds and the usual frame intervals are whole numbers of ticks.
pub const VIDEO_TIMESCALE: u32 = 90_000;
/// `sample_depends_on` 2: on no other sample (ISO/IEC 14496-12, 8.8.3.1).
const SYNC_SAMPLE: u32 = 0x0200_0000;
/// `sample_depends_on` 1 and `sample_is_non_sync_sample`.
const OTHER_SAMPLE: u32 = 0x0101_0000;

/// The boxes could not be written: a format's record is not one that `avcC` can hold.
#[derive(Debug, thiserror::Error)]
#[error("the format cannot be put into MP4: {0}")]
pub struct BoxError(#[from] mp4_atom::Error);

/// One access unit in a fragment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The access unit in the broadcast's form.
    pub data: Bytes,
    /// In ticks.
    pub duration: u32,
    /// Presentation minus decoding time, in ticks.
    pub composition: i32,
    /// Whether decoding can begin here.
    pub sync: bool,
}

/// The initialization segment of a video track.
pub fn video_init(format: &VideoFormat) -> Result<Bytes, BoxError> {
    let avcc = Avcc::decode_record(&format.record).or_else(|_| Avcc::new(&format.sps, &format.pps))?;
    let (width, height) = (format.width as u16, format.height as u16);
    let visual = Visual { data_reference_index: 1, width, height, ..Visual::default() };
    let codec = Codec::from(Avc1 { visual, avcc, ..Avc1::default() });
    let tkhd = Tkhd { width: width.into(), height: height.into(), ..track_header() };
    let minf = Minf { vmhd: Some(Vmhd::default()), ..media_information(codec) };
    init(VIDEO_TIMESCALE, tkhd, *b"vide", minf)
}

/// The initialization segment of an audio track.
pub fn audio_init(format: &AudioFormat, timescale: u32) -> Result<Bytes, BoxError> {
    const MPEG4_AUDIO: u8 = 0x40;
    const AUDIO_STREAM: u8 = 5;
    const MP4_FILE: SLConfig = SLConfig {};
    let dec_specific = DecoderSpecific { raw: format.record.to_vec(), ..DecoderSpecific::default() };
    let dec_config = DecoderConfig {
        object_type_indication: MPEG4_AUDIO,
        stream_type: AUDIO_STREAM,
        dec_specific: Some(dec_specific),
        ..DecoderConfig::default()
    };
    let es_desc = EsDescriptor { dec_config, sl_config: MP4_FILE, ..EsDescriptor::default() };
    let audio = Audio {
        data_reference_index: 1,
        channel_count: if format.channels == 7 { 8 } else { u16::from(format.channels) },
        sample_size: 16,
        // The field is 16.16 bits. A rate that does not fit becomes 0; the AudioSpecificConfig has it.
        sample_rate: u16::try_from(format.sample_rate).unwrap_or(0).into(),
    };
    let codec = Codec::from(Mp4a { audio, esds: Esds { es_desc }, btrt: None, taic: None });
    let tkhd = Tkhd { volume: 1.into(), ..track_header() };
    let minf = Minf { smhd: Some(Smhd::default()), ..media_information(codec) };
    init(timescale, tkhd, *b"soun", minf)
}

fn track_header() -> Tkhd {
    Tkhd { track_id: TRACK, enabled: true, in_movie: true, ..Tkhd::default() }
}

fn media_information(codec: Codec) -> Minf {
    let dinf = Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } };
    // The samples are in the fragments; the tables are required but empty.
    let stbl = Stbl { stsd: Stsd { codecs: vec![codec] }, stco: Some(Stco::default()), ..Stbl::default() };
    Minf { dinf, stbl, ..Minf::default() }
}

fn init(timescale: u32, tkhd: Tkhd, handler: [u8; 4], minf: Minf) -> Result<Bytes, BoxError> {
    let ftyp = Ftyp {
        major_brand: FourCC::new(b"iso6"),
        minor_version: 0,
        compatible_brands: [b"iso6", b"cmfc", b"mp41"].map(FourCC::new).to_vec(),
    };
    let hdlr = Hdlr { handler: FourCC::new(&handler), name: String::new() };
    let mdhd = Mdhd { timescale, language: "und".into(), ..Mdhd::default() };
    let trak = Trak { tkhd, mdia: Mdia { mdhd, hdlr, minf }, ..Trak::default() };
    let trex = Trex { track_id: TRACK, default_sample_description_index: 1, ..Trex::default() };
    let moov = Moov {
        mvhd: Mvhd { timescale, rate: 1.into(), volume: 1.into(), next_track_id: TRACK + 1, ..Mvhd::default() },
        mvex: Some(Mvex { mehd: None, trex: vec![trex] }),
        trak: vec![trak],
        ..Moov::default()
    };
    let mut bytes = BytesMut::with_capacity(1024);
    ftyp.encode(&mut bytes)?;
    moov.encode(&mut bytes)?;
    Ok(bytes.freeze())
}

/// The beginning of a segment's first fragment: its type, and a clock (for DASH players that measure latency).
///
/// `ntp` is the instant of media time `media_time` (in ticks), as seconds since 1900 in 32.32 bits.
pub fn segment_head(ntp: u64, media_time: u64) -> Result<Bytes, BoxError> {
    let styp = Styp {
        major_brand: FourCC::new(b"msdh"),
        minor_version: 0,
        compatible_brands: [b"msdh", b"cmfs", b"cmff"].map(FourCC::new).to_vec(),
    };
    let prft =
        Prft { reference_track_id: TRACK, ntp_timestamp: ntp, media_time, utc_time_semantics: ReferenceTime::Input };
    let mut bytes = BytesMut::with_capacity(64);
    styp.encode(&mut bytes)?;
    prft.encode(&mut bytes)?;
    Ok(bytes.freeze())
}

/// One `moof` and its `mdat`, after `head`. `decode_time` is that of the first sample, in ticks.
pub fn fragment(head: &[u8], sequence: u32, decode_time: u64, samples: &[Sample]) -> Result<Bytes, BoxError> {
    const BOX_HEADER: usize = 8;
    let size: usize = samples.iter().map(|sample| sample.data.len()).sum();
    let mut moof = Moof { mfhd: Mfhd { sequence_number: sequence }, traf: vec![track_fragment(decode_time, samples)] };
    let mut header = Vec::with_capacity(128 + 16 * samples.len());
    moof.encode(&mut header)?;
    // The header's length does not depend on this value.
    moof.traf[0].trun[0].data_offset = Some((header.len() + BOX_HEADER) as i32);
    let mut bytes = BytesMut::with_capacity(head.len() + header.len() + BOX_HEADER + size);
    bytes.put_slice(head);
    moof.encode(&mut bytes)?;
    bytes.put_u32((BOX_HEADER + size) as u32);
    bytes.put_slice(b"mdat");
    for sample in samples {
        bytes.put_slice(&sample.data);
    }
    Ok(bytes.freeze())
}

fn track_fragment(decode_time: u64, samples: &[Sample]) -> Traf {
    let reordered = samples.iter().any(|sample| sample.composition != 0);
    let entry = |sample: &Sample| TrunEntry {
        duration: Some(sample.duration),
        size: Some(sample.data.len() as u32),
        flags: Some(if sample.sync { SYNC_SAMPLE } else { OTHER_SAMPLE }),
        cts: reordered.then_some(sample.composition.into()),
    };
    let samples = TrunSamples::Explicit(samples.iter().map(entry).collect());
    Traf {
        tfhd: Tfhd { track_id: TRACK, default_base_is_moof: true, ..Tfhd::default() },
        tfdt: Some(Tfdt { base_media_decode_time: decode_time }),
        trun: vec![Trun { data_offset: Some(0), samples }],
        ..Traf::default()
    }
}

/// An AAC frame of silence: every element is all zero, without scale factor bands (ISO/IEC 14496-3, 4.4.2.1).
pub fn silence(channels: u8) -> Bytes {
    const SINGLE: u8 = 0;
    const PAIR: u8 = 1;
    const LOW: u8 = 3;
    const END: u32 = 7;
    let elements: &[u8] = match channels {
        1 => &[SINGLE],
        2 => &[PAIR],
        3 => &[SINGLE, PAIR],
        4 => &[SINGLE, PAIR, SINGLE],
        5 => &[SINGLE, PAIR, PAIR],
        6 => &[SINGLE, PAIR, PAIR, LOW],
        _ => &[SINGLE, PAIR, PAIR, PAIR, LOW],
    };
    let mut bits = Bits::default();
    for (n, &kind) in elements.iter().enumerate() {
        // The instance tag distinguishes elements of the same kind.
        let tag = elements[..n].iter().map(|&earlier| u32::from(earlier == kind)).sum();
        bits.put(3, kind.into());
        bits.put(4, tag);
        if kind == PAIR {
            // A common window, its ics_info of 11 bits, no mid/side; then the gain and three flags of each channel.
            bits.put(1, 1);
            bits.put(11 + 2, 0);
            bits.put(11 + 11, 0);
        } else {
            bits.put(8 + 11 + 3, 0);
        }
    }
    bits.put(3, END);
    bits.bytes.into()
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn put(&mut self, count: usize, value: u32) {
        for n in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> n & 1) as u8) << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }
}

trait DecodeRecord: Sized {
    fn decode_record(record: &[u8]) -> Result<Self, mp4_atom::Error>;
}

impl DecodeRecord for Avcc {
    fn decode_record(mut record: &[u8]) -> Result<Self, mp4_atom::Error> {
        Self::decode_body(&mut record)
    }
}
