//! The identity of the board, and its video devices in the form of `hw-fixtures/boards/`.

use std::fs;
use std::os::fd::AsFd;

use lenscast::camera::v4l2::{self, Input};
use lenscast::camera::{self, Device, FrameRate, Kind, ModeRange, PixelFormat, Rates, Sizes, Wanted, choose};
use serde::{Deserialize, Serialize};
use v4l::buffer::Type;
use v4l::v4l_sys::{
    V4L2_CAP_VIDEO_M2M, V4L2_CAP_VIDEO_M2M_MPLANE, V4L2_CAP_VIDEO_OUTPUT, V4L2_CAP_VIDEO_OUTPUT_MPLANE,
};

/// The board and its software. Contains no serial number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// The model by the device tree, or by the firmware of a PC.
    pub model: Option<String>,
    /// The device tree's `compatible` strings, the most specific first.
    pub compatible: Vec<String>,
    /// The kernel's release.
    pub kernel: String,
    /// The architecture that programs are built for.
    pub architecture: String,
    /// The distribution.
    pub system: Option<String>,
    /// `GStreamer 1.22.0`.
    pub gstreamer: String,
    /// The version of lenscastctl.
    pub lenscastctl: String,
    /// The version of the daemon.
    pub lenscastd: String,
}

impl Board {
    /// This one, with a daemon of that version.
    pub fn look(lenscastd: &str) -> Self {
        let line =
            |path: &str| fs::read_to_string(path).ok().map(|text| text.trim_matches(['\0', '\n', ' ']).to_owned());
        let firmware = || {
            let names = ["sys_vendor", "product_name"].map(|name| line(&format!("/sys/class/dmi/id/{name}")));
            let names: Vec<_> = names.into_iter().flatten().collect();
            (!names.is_empty()).then(|| names.join(" "))
        };
        let compatible = line("/proc/device-tree/compatible").unwrap_or_default();
        let os = line("/etc/os-release").unwrap_or_default();
        let named = |line: &str| Some(line.strip_prefix("PRETTY_NAME=")?.trim_matches('"').to_owned());
        Self {
            model: line("/proc/device-tree/model").or_else(firmware),
            compatible: compatible.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
            architecture: std::env::consts::ARCH.into(),
            system: os.lines().find_map(named),
            gstreamer: lenscast::media::version(),
            lenscastctl: env!("CARGO_PKG_VERSION").into(),
            lenscastd: lenscastd.into(),
        }
    }
}

/// A `/dev/video` node. The fields are those of `[[device]]` in `hw-fixtures/boards/*.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub driver: String,
    pub card: String,
    pub bus: String,
    pub device_caps: u32,
    /// It has an input.
    pub input: bool,
    pub formats: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_formats: Vec<String>,
    /// The kind that lenscast recognised.
    pub kind: String,
    #[serde(rename = "mode", default, skip_serializing_if = "Vec::is_empty")]
    pub modes: Vec<Offer>,
    #[serde(rename = "picture", default, skip_serializing_if = "Vec::is_empty")]
    pub pictures: Vec<Picture>,
}

/// A mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rates: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slowest: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fastest: Option<f64>,
}

/// The picture for one request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    asked: String,
    gets: String,
}

/// All nodes of this machine. Blocks on the kernel.
pub fn nodes() -> Vec<Node> {
    camera::list().iter().filter_map(node).collect()
}

fn node(device: &Device) -> Option<Node> {
    let file = v4l2::open(&device.node).ok()?;
    let fd = file.as_fd();
    let capability = v4l2::capability(fd).ok()?;
    let formats = |one, other| {
        let found = v4l2::formats(fd, one);
        let found = if found.is_empty() { v4l2::formats(fd, other) } else { found };
        found.iter().map(|format| text(format.fourcc.repr)).collect::<Vec<_>>()
    };
    let writes = V4L2_CAP_VIDEO_OUTPUT | V4L2_CAP_VIDEO_OUTPUT_MPLANE | V4L2_CAP_VIDEO_M2M | V4L2_CAP_VIDEO_M2M_MPLANE;
    let output_formats =
        if capability.has_any(writes) { formats(Type::VideoOutput, Type::VideoOutputMplane) } else { Vec::new() };
    Some(Node {
        formats: formats(Type::VideoCapture, Type::VideoCaptureMplane),
        output_formats,
        input: v4l2::input(fd) != Input::Missing,
        driver: capability.driver,
        card: capability.card,
        bus: capability.bus,
        device_caps: capability.device_caps,
        kind: match &device.kind {
            Kind::Camera => "camera".into(),
            Kind::MediaController => "media controller".into(),
            Kind::Metadata => "metadata".into(),
            Kind::Encoder { codecs } if codecs.contains(&PixelFormat::H264) => "encoder".into(),
            other => format!("{other:?}"),
        },
        modes: device.modes.iter().map(offer).collect(),
        pictures: if device.kind == Kind::Camera { pictures(&device.modes) } else { Vec::new() },
    })
}

fn text(fourcc: [u8; 4]) -> String {
    fourcc.map(|byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' }).iter().collect()
}

fn offer(range: &ModeRange) -> Offer {
    let fps = |rate: FrameRate| (rate.as_f64() * 1000.0).round() / 1000.0;
    let mut offer = Offer { format: range.format.to_string(), ..Offer::default() };
    match range.sizes {
        Sizes::One(width, height) => offer.size = Some((width, height)),
        Sizes::Grid { min, max, step } => (offer.min, offer.max, offer.step) = (Some(min), Some(max), Some(step)),
    }
    match &range.rates {
        Rates::List(rates) => offer.rates = Some(rates.iter().copied().map(fps).collect()),
        Rates::Range(slowest, fastest) => (offer.slowest, offer.fastest) = (Some(fps(*slowest)), Some(fps(*fastest))),
        Rates::Unknown => {}
    }
    offer
}

/// The pictures for the usual requests.
fn pictures(modes: &[ModeRange]) -> Vec<Picture> {
    let one = |(width, height, fps)| {
        let choice = choose(modes, Wanted { width, height, frame_rate: FrameRate::new(fps, 1)? });
        let asked = format!("{width}x{height} at {fps}");
        Some(Picture { asked, gets: choice.map_or_else(|| "nothing".into(), |choice| choice.mode.to_string()) })
    };
    [(1920, 1080, 30), (1280, 720, 30), (640, 480, 15)].into_iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_says_what_it_is() {
        let board = Board::look("9.8.7");
        assert!(!board.kernel.is_empty() && board.gstreamer.starts_with("GStreamer 1."), "{board:?}");
        assert_eq!((board.lenscastd.as_str(), board.lenscastctl.as_str()), ("9.8.7", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_mode_reads_as_in_the_boards_files() {
        let rates = Rates::List([(30, 1), (15, 2)].into_iter().filter_map(|(n, d)| FrameRate::new(n, d)).collect());
        let range = ModeRange { format: PixelFormat::Yuyv, sizes: Sizes::One(640, 480), rates };
        assert_eq!(
            serde_json::to_value(offer(&range)).unwrap(),
            serde_json::json!({"format": "YUYV", "size": [640, 480], "rates": [30.0, 7.5]})
        );
        let asked = pictures(&[range]);
        assert_eq!(asked[2], Picture { asked: "640x480 at 15".into(), gets: "640x480 at 30 fps YUYV".into() });
    }
}
