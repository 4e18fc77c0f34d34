//! The video devices of this machine: what each is and what it offers.
//!
//! A node is *behind a media controller*, and so not a plain camera, when (1) it says so by `V4L2_CAP_IO_MC`, which is the
//! rule of the kernel's documentation (userspace-api/media/v4l/open.rst) and exists since Linux 5.8; or (2) it is a
//! capture node with no input at all, which a node that is driven by itself must have: older receivers such as
//! `xilinx-vipp` and `exynos-fimc-lite` show up so; or (3) its driver is one of the few that are media-controller only but
//! neither set the flag in Linux 6.1 nor lack an input (`UNFLAGGED`). Being a CSI receiver is no reason: Raspberry Pi's
//! own `unicam` and ST's `dcmi` are driven through their node alone.

use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use v4l::FourCC;
use v4l::buffer::Type as BufferType;
use v4l::format::Description as FormatDescription;
use v4l::format::description::Flags as FormatFlags;
use v4l::v4l_sys::{
    V4L2_CAP_IO_MC, V4L2_CAP_META_CAPTURE, V4L2_CAP_META_OUTPUT, V4L2_CAP_VIDEO_CAPTURE, V4L2_CAP_VIDEO_CAPTURE_MPLANE,
    V4L2_CAP_VIDEO_M2M, V4L2_CAP_VIDEO_M2M_MPLANE, V4L2_CAP_VIDEO_OUTPUT, V4L2_CAP_VIDEO_OUTPUT_MPLANE,
};

use super::error::named;
use super::format::PixelFormat;
use super::holders::Holder;
use super::mode::{ModeRange, Rates, Sizes};
use super::v4l2::{self, Capability, Input};

/// By the names that the drivers report: omap3isp, omap4iss, Intel's IPU3 receiver, Allwinner's.
const UNFLAGGED: [&str; 5] = ["ispvideo", "issvideo", "ipu3-cio2", "sun6i-csi", "sun4i_csi"];
/// Sizes, besides the largest, at which a grid's frame rates are asked for: cameras are faster at small sizes.
const SAMPLES: [(u32, u32); 3] = [(640, 480), (1280, 720), (1920, 1080)];

/// A `/dev/video*` node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The node. Its number changes with every replug.
    pub node: PathBuf,
    /// What a replug does not change: bus path, which of the device's nodes, card, serial number. `usb-0000:00:14.0-2/0 Cam [0001]`;
    /// the node's path where it could not be opened.
    pub identity: String,
    /// The name of the product.
    pub card: String,
    /// The kernel driver.
    pub driver: String,
    /// Where it is plugged in.
    pub bus: String,
    /// Its serial number, if it is a USB device that has one.
    pub serial: Option<String>,
    /// Which of its device's nodes it is, from 0.
    pub index: u32,
    /// What it is.
    pub kind: Kind,
    /// What it offers; empty except for cameras, loopbacks and nodes behind a media controller.
    pub modes: Vec<ModeRange>,
    /// The device reports no signal or no power at its input.
    pub no_signal: bool,
}

/// What a video device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A plain V4L2 camera, or something that behaves like one.
    Camera,
    /// `v4l2loopback`: delivers what another program writes into it.
    Loopback,
    /// Compresses pictures from memory.
    Encoder {
        /// What it makes.
        codecs: Vec<PixelFormat>,
    },
    /// Decompresses into memory.
    Decoder {
        /// What it takes.
        codecs: Vec<PixelFormat>,
    },
    /// Scales or converts pictures in memory.
    Converter,
    /// A camera's last stage: its pipeline must be set up by other means first.
    MediaController,
    /// Carries metadata of a camera or an ISP.
    Metadata,
    /// Shows pictures.
    Output,
    /// Could not be opened.
    Closed(Errno),
    /// None of these.
    Other(String),
}

/// Every video device that is there now, by the number of its node.
pub fn list() -> Vec<Device> {
    list_in(Path::new("/dev"), Path::new("/sys"))
}

/// [`list`], with the places of device nodes and of sysfs.
pub fn list_in(dev: &Path, sys: &Path) -> Vec<Device> {
    let mut numbers: Vec<u32> = fs::read_dir(dev)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("video")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
        .into_iter()
        .map(|number| probe(&dev.join(format!("video{number}")), sys))
        // Unplugged during the look.
        .filter(|device| !matches!(device.kind, Kind::Closed(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO)))
        .collect()
}

/// Opens a node and asks it. A node that cannot be opened is described from sysfs, which anybody may read.
pub(super) fn probe(node: &Path, sys: &Path) -> Device {
    let place = Place::of(node, sys);
    let answers = v4l2::open(node).and_then(|file| Ok((v4l2::capability(file.as_fd())?, file)));
    let (capability, kind, modes, no_signal) = match answers {
        Err(Errno::ENOTTY) => (Capability::default(), Kind::Other("not a V4L2 device".to_owned()), Vec::new(), false),
        Err(errno) => (Capability::default(), Kind::Closed(errno), Vec::new(), false),
        Ok((capability, file)) => {
            let (kind, modes, no_signal) = examine(file.as_fd(), &capability);
            (capability, kind, modes, no_signal)
        }
    };
    let card = tidy(if capability.card.is_empty() { place.name } else { capability.card });
    Device {
        node: node.to_owned(),
        identity: if capability.bus.is_empty() {
            node.display().to_string()
        } else {
            identity(&capability.bus, place.index, &card, place.serial.as_deref())
        },
        card,
        driver: capability.driver,
        bus: capability.bus,
        serial: place.serial,
        index: place.index,
        kind,
        modes,
        no_signal,
    }
}

/// Many webcams name themselves twice and are cut off at 31 bytes: `Integrated Camera: Integrated C`.
fn tidy(card: String) -> String {
    match card.split_once(": ") {
        Some((name, again)) if name.starts_with(again) => name.to_owned(),
        _ => card,
    }
}

fn identity(bus: &str, index: u32, card: &str, serial: Option<&str>) -> String {
    let serial = serial.map(|serial| format!(" [{serial}]")).unwrap_or_default();
    format!("{bus}/{index} {card}{serial}")
}

/// What sysfs knows of a node.
struct Place {
    name: String,
    index: u32,
    serial: Option<String>,
}

impl Place {
    fn of(node: &Path, sys: &Path) -> Self {
        let class = sys.join("class/video4linux").join(node.file_name().unwrap_or_default());
        Self {
            name: read(&class.join("name")).unwrap_or_default(),
            index: read(&class.join("index")).and_then(|text| text.parse().ok()).unwrap_or_default(),
            serial: serial(&class.join("device")),
        }
    }
}

/// The serial number of the USB device that an interface belongs to, which is the folder above the interface's. Other
/// folders further up (hubs, host controllers) have serial numbers too, but not this camera's.
fn serial(interface: &Path) -> Option<String> {
    let interface = interface.canonicalize().ok()?;
    let device = interface.parent().filter(|_| interface.join("bInterfaceNumber").exists())?;
    read(&device.join("serial"))
}

fn read(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn examine(fd: BorrowedFd<'_>, capability: &Capability) -> (Kind, Vec<ModeRange>, bool) {
    let (capture, output) = if capability.has_any(V4L2_CAP_VIDEO_CAPTURE_MPLANE | V4L2_CAP_VIDEO_M2M_MPLANE) {
        (BufferType::VideoCaptureMplane, BufferType::VideoOutputMplane)
    } else {
        (BufferType::VideoCapture, BufferType::VideoOutput)
    };
    let formats = v4l2::formats(fd, capture);
    let input = v4l2::input(fd);
    let kind = classify(capability, &formats, &v4l2::formats(fd, output), input);
    let modes = match kind {
        Kind::Camera | Kind::Loopback | Kind::MediaController => modes(fd, capture, &formats),
        _ => Vec::new(),
    };
    (kind, modes, input == Input::NoSignal)
}

fn classify(
    capability: &Capability,
    capture: &[FormatDescription],
    output: &[FormatDescription],
    input: Input,
) -> Kind {
    let captures = capability.has_any(V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_VIDEO_CAPTURE_MPLANE);
    let outputs = capability.has_any(V4L2_CAP_VIDEO_OUTPUT | V4L2_CAP_VIDEO_OUTPUT_MPLANE);
    if capability.driver == "v4l2 loopback" {
        Kind::Loopback
    } else if capability.has_any(V4L2_CAP_VIDEO_M2M | V4L2_CAP_VIDEO_M2M_MPLANE) || (captures && outputs) {
        // Codecs older than the M2M flag have both queues' flags instead.
        memory_to_memory(capture, output)
    } else if outputs {
        Kind::Output
    } else if captures {
        if capability.has_any(V4L2_CAP_IO_MC)
            || input == Input::Missing
            || UNFLAGGED.contains(&capability.driver.as_str())
        {
            Kind::MediaController
        } else if capture.is_empty() {
            Kind::Other("a capture device without any picture format".to_owned())
        } else {
            Kind::Camera
        }
    } else if capability.has_any(V4L2_CAP_META_CAPTURE | V4L2_CAP_META_OUTPUT) {
        Kind::Metadata
    } else {
        Kind::Other("neither camera, codec nor output".to_owned())
    }
}

fn memory_to_memory(capture: &[FormatDescription], output: &[FormatDescription]) -> Kind {
    let codecs = |formats: &[FormatDescription]| {
        let mut codecs: Vec<PixelFormat> = Vec::new();
        for format in formats.iter().filter(|format| format.flags.contains(FormatFlags::COMPRESSED)) {
            let codec = PixelFormat::from_fourcc(format.fourcc);
            if !codecs.contains(&codec) {
                codecs.push(codec);
            }
        }
        codecs
    };
    match (codecs(capture), codecs(output)) {
        (codecs, from) if !codecs.is_empty() && from.is_empty() => Kind::Encoder { codecs },
        (to, codecs) if !codecs.is_empty() && to.is_empty() => Kind::Decoder { codecs },
        _ => Kind::Converter,
    }
}

fn modes(fd: BorrowedFd<'_>, queue: BufferType, formats: &[FormatDescription]) -> Vec<ModeRange> {
    let mut modes = Vec::new();
    for FormatDescription { fourcc, .. } in formats {
        for sizes in sizes(fd, queue, *fourcc) {
            for (sizes, rates) in with_rates(sizes, |width, height| rates(fd, *fourcc, width, height)) {
                let range = ModeRange { format: PixelFormat::from_fourcc(*fourcc), sizes, rates };
                if !modes.contains(&range) {
                    modes.push(range);
                }
            }
        }
    }
    modes
}

fn sizes(fd: BorrowedFd<'_>, queue: BufferType, fourcc: FourCC) -> Vec<Sizes> {
    let sizes = v4l2::frame_sizes(fd, fourcc);
    if !sizes.is_empty() {
        return sizes.into_iter().map(Sizes::from).collect();
    }
    // Grabbers and receivers that cannot enumerate still answer for a given size.
    let largest = v4l2::try_size(fd, queue, fourcc, 0x7fff, 0x7fff);
    let current = v4l2::current_size(fd, queue).and_then(|(w, h)| v4l2::try_size(fd, queue, fourcc, w, h));
    let mut known: Vec<Sizes> = [largest, current].into_iter().flatten().map(|(w, h)| Sizes::One(w, h)).collect();
    known.dedup();
    known
}

/// Splits a grid where smaller sizes have other frame rates than the largest.
fn with_rates(sizes: Sizes, rates: impl Fn(u32, u32) -> Rates) -> Vec<(Sizes, Rates)> {
    let (width, height) = sizes.largest();
    let at_largest = rates(width, height);
    let mut all = Vec::new();
    if let Sizes::Grid { min, max, step } = sizes {
        let snap = |size: u32, min: u32, step: u32| size - (size - min) % step;
        for (width, height) in SAMPLES {
            if (min.0..max.0).contains(&width) && (min.1..max.1).contains(&height) {
                let upper = (snap(width, min.0, step.0), snap(height, min.1, step.1));
                let faster = rates(upper.0, upper.1);
                if faster != at_largest {
                    all.push((Sizes::Grid { min, max: upper, step }, faster));
                }
            }
        }
    }
    all.push((sizes, at_largest));
    all
}

fn rates(fd: BorrowedFd<'_>, fourcc: FourCC, width: u32, height: u32) -> Rates {
    Rates::from_intervals(&v4l2::frame_intervals(fd, fourcc, width, height))
}

impl Device {
    /// One sentence for a person, without a final period.
    pub fn describe(&self, holders: &[Holder]) -> String {
        let mut text = self.node.display().to_string();
        let names: Vec<&str> =
            [self.card.as_str(), self.driver.as_str()].into_iter().filter(|name| !name.is_empty()).collect();
        if !names.is_empty() {
            let _ = write!(text, " ({})", names.join(", "));
        }
        text.push_str(": ");
        text.push_str(&self.nature());
        if self.no_signal {
            text.push_str("; no signal at its input");
        }
        if !holders.is_empty() {
            let _ = write!(text, "; held by {}", named(holders));
        }
        text
    }

    /// What it is and offers, in a few words.
    pub fn nature(&self) -> String {
        let codecs = |codecs: &[PixelFormat]| codecs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match &self.kind {
            Kind::Camera if self.modes.iter().any(|range| range.format.is_usable()) => {
                format!("camera, {}", self.offer())
            }
            Kind::Camera => format!("camera without a usable format, {}", self.offer()),
            Kind::Loopback => format!("loopback, {}", self.offer()),
            Kind::Encoder { codecs: made } => format!("encoder for {}", codecs(made)),
            Kind::Decoder { codecs: taken } => format!("decoder for {}", codecs(taken)),
            Kind::Converter => "scaler or converter".to_owned(),
            Kind::MediaController => {
                "not a plain V4L2 camera: it sits behind a media controller and needs its pipeline \
                                      set up first"
                    .to_owned()
            }
            Kind::Metadata => "metadata of a camera, no pictures".to_owned(),
            Kind::Output => "video output".to_owned(),
            Kind::Closed(errno) => format!("cannot be opened: {}", errno.desc()),
            Kind::Other(what) => what.clone(),
        }
    }

    /// The largest size of each format and its fastest rate. Unusable formats are listed only where there are no others.
    fn offer(&self) -> String {
        let any_usable = self.modes.iter().any(|range| range.format.is_usable());
        let mut best: Vec<&ModeRange> = Vec::new();
        for range in self.modes.iter().filter(|range| range.format.is_usable() == any_usable) {
            let area = |range: &ModeRange| {
                let (width, height) = range.sizes.largest();
                (u64::from(width) * u64::from(height), range.rates.fastest())
            };
            match best.iter_mut().find(|known| known.format == range.format) {
                Some(known) if area(known) < area(range) => *known = range,
                Some(_) => {}
                None => best.push(range),
            }
        }
        if best.is_empty() {
            return "no modes".to_owned();
        }
        let words = best.iter().map(|range| {
            let (width, height) = range.sizes.largest();
            let rate = range.rates.fastest().map(|rate| format!(" at {rate}")).unwrap_or_default();
            format!("{width}x{height}{rate} {}", range.format)
        });
        format!("up to {}", words.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod boards;
#[cfg(test)]
mod tests;
