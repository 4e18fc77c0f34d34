//! Pixel formats, by content and not by memory layout: to everybody downstream, a format with planes in separate buffers
//! (`NM12`) is the same as the one with planes in one buffer (`NV12`).

use std::fmt;

use v4l::FourCC;

/// What pixels look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// 4:2:0, a plane of Y, a plane of UV pairs. What most hardware encoders take.
    Nv12,
    /// 4:2:0, a plane of Y, a plane of VU pairs.
    Nv21,
    /// 4:2:0, planes Y, U, V (`YU12`).
    I420,
    /// 4:2:0, planes Y, V, U.
    Yv12,
    /// 4:2:2 packed, Y U Y V.
    Yuyv,
    /// 4:2:2 packed, U Y V Y.
    Uyvy,
    /// 24 bits a pixel: R, G, B.
    Rgb24,
    /// 24 bits a pixel: B, G, R.
    Bgr24,
    /// One JPEG image a frame (`MJPG` and `JPEG`).
    Mjpeg,
    /// H.264 in Annex B format.
    H264,
    /// Any other format, by its four-character code. No picture can be made of it here.
    Other(FourCC),
}

/// The codes of each format; the first is the one shown.
const CODES: &[(PixelFormat, &[&[u8; 4]])] = &[
    (PixelFormat::Nv12, &[b"NV12", b"NM12"]),
    (PixelFormat::Nv21, &[b"NV21", b"NM21"]),
    (PixelFormat::I420, &[b"YU12", b"YM12"]),
    (PixelFormat::Yv12, &[b"YV12", b"YM21"]),
    (PixelFormat::Yuyv, &[b"YUYV"]),
    (PixelFormat::Uyvy, &[b"UYVY"]),
    (PixelFormat::Rgb24, &[b"RGB3"]),
    (PixelFormat::Bgr24, &[b"BGR3"]),
    (PixelFormat::Mjpeg, &[b"MJPG", b"JPEG"]),
    (PixelFormat::H264, &[b"H264"]),
];

impl PixelFormat {
    /// The format of a V4L2 four-character code.
    pub fn from_fourcc(fourcc: impl Into<FourCC>) -> Self {
        let fourcc = fourcc.into();
        CODES.iter().find(|(_, codes)| codes.contains(&&fourcc.repr)).map_or(Self::Other(fourcc), |(format, _)| *format)
    }

    /// Its four-character code where its planes lie in one buffer.
    pub fn fourcc(self) -> Option<FourCC> {
        CODES.iter().find(|(format, _)| *format == self).map(|(_, codes)| FourCC::new(codes[0]))
    }

    /// The name that media software uses: `YUY2`, `NV12`, `I420`; `JPEG` and `H264` for the compressed ones. `None` for
    /// [`Self::Other`].
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Nv12 => "NV12",
            Self::Nv21 => "NV21",
            Self::I420 => "I420",
            Self::Yv12 => "YV12",
            Self::Yuyv => "YUY2",
            Self::Uyvy => "UYVY",
            Self::Rgb24 => "RGB",
            Self::Bgr24 => "BGR",
            Self::Mjpeg => "JPEG",
            Self::H264 => "H264",
            Self::Other(_) => return None,
        })
    }

    /// Whether a picture can be made of it here. Not of raw sensor data (Bayer), and not of the grey of infrared cameras: this
    /// keeps a laptop's face-recognition camera out of the way.
    pub fn is_usable(self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

/// The four-character code, with what cannot be printed as `.`.
impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match self {
            Self::Other(fourcc) => fourcc.repr,
            known => CODES.iter().find(|(format, _)| format == known).map_or(*b"....", |(_, codes)| *codes[0]),
        };
        // Bit 31 marks a big-endian variant (v4l2_fourcc_be).
        let printable =
            code.map(|byte| byte & 0x7f).map(|byte| if byte.is_ascii_graphic() { byte as char } else { '.' });
        f.pad(printable.iter().collect::<String>().trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_and_its_text_belong_together() {
        for (format, codes) in CODES {
            for code in *codes {
                assert_eq!(PixelFormat::from_fourcc(FourCC::new(code)), *format);
            }
            assert_eq!(format.to_string().as_bytes(), codes[0]);
            assert!(format.name().is_some() && format.is_usable());
        }
    }

    #[test]
    fn unknown_codes_are_kept_and_shown() {
        let bayer = PixelFormat::from_fourcc(FourCC::new(b"RG10"));
        assert_eq!((bayer.to_string().as_str(), bayer.is_usable()), ("RG10", false));
        assert_eq!(PixelFormat::from_fourcc(FourCC::new(b"Y16 ")).to_string(), "Y16");
        assert_eq!(PixelFormat::from_fourcc(0).to_string(), "");
    }
}
