//! FLV tags, the form in which rtmp2sink takes messages (Adobe Flash Video File Format Specification 10.1, Annex E).
//!
//! Written here because of what `flvmux` of GStreamer 1.22 does to a live stream: it holds the first picture back
//! until sound has come, repeats `onMetaData` with each bitrate that a parser measures, begins with whatever track
//! comes first, and lets two tags have the same time. In all else a reader finds the same as with `flvmux`:
//! `tests/against_flvmux.rs` compares them. `benches/budgets/flv.rs` measures the element's cost.

const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const SCRIPT: u8 = 18;

const AVC: u8 = 7;
const KEY_FRAME: u8 = 1 << 4;
const INTER_FRAME: u8 = 2 << 4;
/// AAC, 44 kHz, 16 bit, stereo: the format demands this for AAC whatever the sound really is (E.4.2.1).
const AAC: u8 = 0xaf;

const CONFIGURATION: u8 = 0;
const MEDIA: u8 = 1;

/// The stream's properties in `onMetaData`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
    /// Frames per second.
    pub frame_rate: f64,
    /// Bit/s.
    pub video_bitrate: u32,
    /// Bit/s and sample rate in Hz, if there is sound.
    pub audio: Option<(u32, u32)>,
}

/// A video frame; `composition_ms` is presentation minus decoding time.
pub fn video_frame(dts_ms: u32, composition_ms: i32, key: bool, frame: &[u8]) -> Vec<u8> {
    let kind = if key { KEY_FRAME } else { INTER_FRAME } | AVC;
    let [_, a, b, c] = composition_ms.to_be_bytes();
    tag(VIDEO, dts_ms, &[kind, MEDIA, a, b, c], frame)
}

/// The decoder's configuration (`AVCDecoderConfigurationRecord`, ISO/IEC 14496-15); must precede the first frame.
pub fn video_configuration(dts_ms: u32, record: &[u8]) -> Vec<u8> {
    tag(VIDEO, dts_ms, &[KEY_FRAME | AVC, CONFIGURATION, 0, 0, 0], record)
}

/// An AAC frame without ADTS header.
pub fn audio_frame(dts_ms: u32, frame: &[u8]) -> Vec<u8> {
    tag(AUDIO, dts_ms, &[AAC, MEDIA], frame)
}

/// The `AudioSpecificConfig` (ISO/IEC 14496-3); must precede the first audio frame.
pub fn audio_configuration(dts_ms: u32, config: &[u8]) -> Vec<u8> {
    tag(AUDIO, dts_ms, &[AAC, CONFIGURATION], config)
}

/// The script tag `onMetaData`, with its properties as an AMF0 ECMA array.
pub fn metadata(data: &Metadata) -> Vec<u8> {
    let mut numbers = vec![
        ("duration", 0.0),
        ("width", f64::from(data.width)),
        ("height", f64::from(data.height)),
        ("framerate", data.frame_rate),
        ("videocodecid", f64::from(AVC)),
        ("videodatarate", f64::from(data.video_bitrate) / 1000.0),
    ];
    if let Some((bitrate, sample_rate)) = data.audio {
        numbers.extend([
            ("audiocodecid", 10.0),
            ("audiodatarate", f64::from(bitrate) / 1000.0),
            ("audiosamplerate", f64::from(sample_rate)),
            ("audiosamplesize", 16.0),
        ]);
    }
    let encoder = concat!("lenscast ", env!("CARGO_PKG_VERSION"));
    let mut body = vec![0x02];
    amf_name(&mut body, "onMetaData");
    body.push(0x08);
    body.extend((numbers.len() as u32 + 1).to_be_bytes());
    for (name, value) in numbers {
        amf_name(&mut body, name);
        body.push(0x00);
        body.extend(value.to_be_bytes());
    }
    amf_name(&mut body, "encoder");
    body.push(0x02);
    amf_name(&mut body, encoder);
    body.extend([0, 0, 0x09]);
    tag(SCRIPT, 0, &[], &body)
}

fn amf_name(to: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names in metadata are short");
    to.extend(length.to_be_bytes());
    to.extend(text.as_bytes());
}

fn tag(kind: u8, dts_ms: u32, prefix: &[u8], body: &[u8]) -> Vec<u8> {
    const HEADER: usize = 11;
    let size = (prefix.len() + body.len()) as u32;
    let [_, s1, s2, s3] = size.to_be_bytes();
    let [t0, t1, t2, t3] = dts_ms.to_be_bytes();
    let mut tag = Vec::with_capacity(HEADER + size as usize + 4);
    tag.extend([kind, s1, s2, s3, t1, t2, t3, t0, 0, 0, 0]);
    tag.extend(prefix);
    tag.extend(body);
    tag.extend((HEADER as u32 + size).to_be_bytes());
    tag
}

#[cfg(test)]
mod tests {
    mod against_flvmux;

    use super::*;

    #[test]
    fn a_frame_is_laid_out_as_annex_e_says() {
        let tag = video_frame(0x0102_0304, -2, true, &[0xaa, 0xbb]);
        assert_eq!(tag[..11], [9, 0, 0, 7, 2, 3, 4, 1, 0, 0, 0]);
        assert_eq!(tag[11..18], [0x17, 1, 0xff, 0xff, 0xfe, 0xaa, 0xbb]);
        assert_eq!(tag[18..], [0, 0, 0, 18]);
        assert_eq!(audio_frame(5, &[1])[..14], [8, 0, 0, 3, 0, 0, 5, 0, 0, 0, 0, 0xaf, 1, 1]);
        assert_eq!(video_frame(0, 0, false, &[])[11], 0x27);
    }

    #[test]
    fn metadata_names_what_a_server_shows() {
        let data = Metadata {
            width: 1280,
            height: 720,
            frame_rate: 30.0,
            video_bitrate: 2_000_000,
            audio: Some((64_000, 44_100)),
        };
        let tag = metadata(&data);
        let has = |text: &str| tag.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("onMetaData") && has("width") && has("audiosamplerate") && has("lenscast"));
        assert!(tag.windows(8).any(|window| window == 1280.0_f64.to_be_bytes()));
    }
}
