//! The bodies of RTMP's audio and video messages, which have FLV's format (Adobe Flash Video File Format 10.1, E.4.2
//! and E.4.3).

use bytes::{Buf, Bytes};

/// What a video message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Video {
    /// An `AVCDecoderConfigurationRecord`.
    Configuration(Bytes),
    /// An access unit with length prefixes; `composition_ms` is presentation minus decoding time.
    Picture { composition_ms: i32, data: Bytes },
    /// Nothing to carry on.
    Nothing,
    /// Another codec, by name.
    Other(String),
}

/// What an audio message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Audio {
    /// An `AudioSpecificConfig`.
    Configuration(Bytes),
    /// An AAC frame.
    Sound(Bytes),
    /// Nothing to carry on.
    Nothing,
    /// Another codec, by name.
    Other(String),
}

const CONFIGURATION: u8 = 0;
const MEDIA: u8 = 1;

pub(super) fn video(mut data: Bytes) -> Video {
    /// Set by "enhanced RTMP" (Veovera, 2023): a `FourCC` follows.
    const ENHANCED: u8 = 0x80;
    const INFORMATION: u8 = 5;
    const AVC: u8 = 7;
    let Some(&first) = data.first() else { return Video::Nothing };
    if first & ENHANCED != 0 {
        return match data.get(1..5) {
            Some(name) => Video::Other(String::from_utf8_lossy(name).into_owned()),
            None => Video::Nothing,
        };
    }
    if first >> 4 == INFORMATION {
        return Video::Nothing;
    }
    if first & 15 != AVC {
        return Video::Other(match first & 15 {
            2 => "Sorenson H.263".into(),
            3 | 6 => "Screen video".into(),
            4 | 5 => "VP6".into(),
            12 => "HEVC".into(),
            codec => format!("number {codec}"),
        });
    }
    let Some(&[_, kind, a, b, c]) = data.first_chunk() else { return Video::Nothing };
    data.advance(5);
    match kind {
        CONFIGURATION => Video::Configuration(data),
        MEDIA => Video::Picture { composition_ms: i32::from_be_bytes([a, b, c, 0]) >> 8, data },
        _ => Video::Nothing,
    }
}

pub(super) fn audio(mut data: Bytes) -> Audio {
    const AAC: u8 = 10;
    let Some(&first) = data.first() else { return Audio::Nothing };
    if first >> 4 != AAC {
        return Audio::Other(match first >> 4 {
            0 | 3 => "PCM".into(),
            1 => "ADPCM".into(),
            2 | 14 => "MP3".into(),
            4..=6 => "Nellymoser".into(),
            7 | 8 => "G.711".into(),
            11 => "Speex".into(),
            codec => format!("number {codec}"),
        });
    }
    let Some(&kind) = data.get(1) else { return Audio::Nothing };
    data.advance(2);
    match kind {
        _ if data.is_empty() => Audio::Nothing,
        CONFIGURATION => Audio::Configuration(data),
        MEDIA => Audio::Sound(data),
        _ => Audio::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }

    #[test]
    fn tells_configuration_media_and_other_codecs_apart() {
        assert_eq!(video(bytes(&[0x17, 0, 0, 0, 0, 1, 2])), Video::Configuration(bytes(&[1, 2])));
        let picture = |composition_ms| Video::Picture { composition_ms, data: bytes(&[9]) };
        assert_eq!(video(bytes(&[0x27, 1, 0, 0, 80, 9])), picture(80));
        assert_eq!(video(bytes(&[0x27, 1, 0xff, 0xff, 0xfe, 9])), picture(-2));
        assert_eq!(video(bytes(&[0x90, b'h', b'v', b'c', b'1'])), Video::Other("hvc1".into()));
        assert_eq!(video(bytes(&[0x1c, 0, 0, 0, 0])), Video::Other("HEVC".into()));
        for nothing in [&[][..], &[0x17], &[0x17, 1, 0, 0], &[0x57, 0], &[0x17, 2, 0, 0, 0], &[0x90]] {
            assert_eq!(video(bytes(nothing)), Video::Nothing, "{nothing:?}");
        }
        assert_eq!(audio(bytes(&[0xaf, 0, 0x12, 0x10])), Audio::Configuration(bytes(&[0x12, 0x10])));
        assert_eq!(audio(bytes(&[0xaf, 1, 5])), Audio::Sound(bytes(&[5])));
        assert_eq!(audio(bytes(&[0x2f, 1, 5])), Audio::Other("MP3".into()));
        for nothing in [&[][..], &[0xaf], &[0xaf, 1], &[0xaf, 0]] {
            assert_eq!(audio(bytes(nothing)), Audio::Nothing, "{nothing:?}");
        }
    }
}
