//! The few V4L2 ioctls that finding a camera, reading its modes and steering an encoder need, over plain file
//! descriptors.
//!
//! Layouts and numbers are those of the kernel's `include/uapi/linux/videodev2.h` and
//! <https://docs.kernel.org/userspace-api/media/v4l/user-func.html>; a build fails when a layout differs in size. Unions
//! whose members are all 32-bit words are arrays of words here. Frames never pass through this file. All calls block, some until a USB request times out (5 s): not for an async task's own thread.

#![expect(unsafe_code, reason = "ioctl")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{self, c_int};

use super::mode::Sizes;

mod sharing;

pub use sharing::try_sharing;

/// `V4L2_CID_MPEG_VIDEO_BITRATE`: an encoder's target bitrate, in bit/s.
pub const CID_VIDEO_BITRATE: u32 = 0x0099_09cf;

/// Bits of [`Capability::device_caps`] (`V4L2_CAP_*`).
pub mod cap {
    /// Delivers pictures.
    pub const VIDEO_CAPTURE: u32 = 0x0000_0001;
    /// Takes pictures.
    pub const VIDEO_OUTPUT: u32 = 0x0000_0002;
    /// Delivers pictures by the multi-planar API.
    pub const VIDEO_CAPTURE_MPLANE: u32 = 0x0000_1000;
    /// Takes pictures by the multi-planar API.
    pub const VIDEO_OUTPUT_MPLANE: u32 = 0x0000_2000;
    /// Memory to memory by the multi-planar API.
    pub const VIDEO_M2M_MPLANE: u32 = 0x0000_4000;
    /// Memory to memory: codecs, scalers.
    pub const VIDEO_M2M: u32 = 0x0000_8000;
    /// Delivers metadata, such as a USB camera's frame headers.
    pub const META_CAPTURE: u32 = 0x0080_0000;
    /// Takes metadata, such as an ISP's parameters.
    pub const META_OUTPUT: u32 = 0x0800_0000;
    /// The way from sensor to node is set up by the media controller, not through this node.
    pub const IO_MC: u32 = 0x2000_0000;
    /// `device_caps` is filled; without it only the whole device's capabilities are known.
    pub const DEVICE_CAPS: u32 = 0x8000_0000;
}

/// Which queue of a node is meant (`enum v4l2_buf_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Queue {
    /// Pictures from the device.
    Capture = 1,
    /// Pictures to the device.
    Output = 2,
    /// Pictures from the device, each plane in a buffer of its own.
    CaptureMultiplanar = 9,
    /// Pictures to the device, each plane in a buffer of its own.
    OutputMultiplanar = 10,
}

/// `V4L2_FMT_FLAG_COMPRESSED`
const FORMAT_COMPRESSED: u32 = 1;
/// `V4L2_FRMSIZE_TYPE_DISCRETE`, `V4L2_FRMIVAL_TYPE_DISCRETE`
const DISCRETE: u32 = 1;
/// `V4L2_IN_ST_NO_POWER | V4L2_IN_ST_NO_SIGNAL | V4L2_IN_ST_NO_H_LOCK | V4L2_IN_ST_NO_SYNC`
const INPUT_DEAD: u32 = 0x0001_0103;
/// `V4L2_IN_CAP_DV_TIMINGS | V4L2_IN_CAP_STD`: digital or analog video comes in from outside.
const INPUT_RECEIVES: u32 = 0x6;

// A driver that never ends an enumeration must not hang us. Webcams have tens of entries.
const MAX_ENTRIES: u32 = 256;

#[repr(C)]
#[derive(Default)]
struct RawCapability {
    driver: [u8; 16],
    card: [u8; 32],
    bus_info: [u8; 32],
    version: u32,
    capabilities: u32,
    device_caps: u32,
    reserved: [u32; 3],
}

#[repr(C)]
#[derive(Default)]
struct RawFormatDescription {
    index: u32,
    queue: u32,
    flags: u32,
    description: [u8; 32],
    pixelformat: u32,
    mbus_code: u32,
    reserved: [u32; 3],
}

/// `size` is width and height, or minimum, maximum and step of the width, then of the height.
#[repr(C)]
#[derive(Default)]
struct RawFrameSize {
    index: u32,
    pixelformat: u32,
    kind: u32,
    size: [u32; 6],
    reserved: [u32; 2],
}

/// `interval` is one fraction of a second, or the fractions minimum, maximum and step.
#[repr(C)]
#[derive(Default)]
struct RawFrameInterval {
    index: u32,
    pixelformat: u32,
    width: u32,
    height: u32,
    kind: u32,
    interval: [u32; 6],
    reserved: [u32; 2],
}

/// `v4l2_pix_format` and `v4l2_pix_format_mplane` both begin with width, height and pixel format. The kernel's union also
/// holds a pointer, hence the alignment.
#[repr(C)]
struct RawFormat {
    queue: u32,
    align: [usize; 0],
    width: u32,
    height: u32,
    pixelformat: u32,
    rest: [u8; 188],
}

#[repr(C)]
#[derive(Default)]
struct RawInput {
    index: u32,
    name: [u8; 32],
    kind: u32,
    audioset: u32,
    tuner: u32,
    std: u64,
    status: u32,
    capabilities: u32,
    reserved: [u32; 3],
}

#[repr(C)]
#[derive(Default)]
struct RawControl {
    id: u32,
    value: i32,
}

const _: () = {
    assert!(size_of::<RawCapability>() == 104);
    assert!(size_of::<RawFormatDescription>() == 64);
    assert!(size_of::<RawFrameSize>() == 44);
    assert!(size_of::<RawFrameInterval>() == 52);
    assert!(size_of::<RawFormat>() == 200 + size_of::<usize>());
    // 32-bit x86 alone aligns u64 to 4 bytes.
    assert!(size_of::<RawInput>() == 72 + align_of::<u64>());
    assert!(size_of::<RawControl>() == 8);
};

mod raw {
    use super::{RawCapability, RawControl, RawFormat, RawFormatDescription, RawFrameInterval, RawFrameSize, RawInput};
    use nix::libc::c_int;

    nix::ioctl_read!(querycap, b'V', 0, RawCapability);
    nix::ioctl_readwrite!(enum_fmt, b'V', 2, RawFormatDescription);
    nix::ioctl_readwrite!(g_fmt, b'V', 4, RawFormat);
    nix::ioctl_readwrite!(enuminput, b'V', 26, RawInput);
    nix::ioctl_readwrite!(s_ctrl, b'V', 28, RawControl);
    nix::ioctl_read!(g_input, b'V', 38, c_int);
    nix::ioctl_readwrite!(try_fmt, b'V', 64, RawFormat);
    nix::ioctl_readwrite!(enum_framesizes, b'V', 74, RawFrameSize);
    nix::ioctl_readwrite!(enum_frameintervals, b'V', 75, RawFrameInterval);
}

type Ioctl<T> = unsafe fn(c_int, *mut T) -> nix::Result<c_int>;

fn call<T>(fd: BorrowedFd<'_>, ioctl: Ioctl<T>, argument: &mut T) -> nix::Result<()> {
    loop {
        // SAFETY: `fd` is open for the call, and every `ioctl` passed here was generated in `raw` for exactly this `T`:
        // its number carries T's size, so the kernel reads and writes that many bytes and no more. Only
        // `sharing` has structures with a pointer, to what outlives the call; all bit patterns are valid for their fields.
        match unsafe { ioctl(fd.as_raw_fd(), argument) } {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).trim().to_owned()
}

/// Opens a video node for reading and writing, without waiting for it. A V4L2 node can be opened by many at once; who
/// streams is decided later, when buffers are asked for.
pub fn open(node: &Path) -> nix::Result<OwnedFd> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(node)
        .map(OwnedFd::from)
        .map_err(errno)
}

fn errno(error: io::Error) -> Errno {
    Errno::try_from(error).unwrap_or(Errno::EIO)
}

/// Who a device says it is (`VIDIOC_QUERYCAP`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// The kernel driver, such as `uvcvideo`.
    pub driver: String,
    /// The name of the product.
    pub card: String,
    /// Where it is plugged in, such as `usb-0000:00:14.0-2`.
    pub bus: String,
    /// What this node can do: bits of [`cap`].
    pub device_caps: u32,
}

impl Capability {
    /// The node has at least one of these bits of [`cap`].
    pub fn has_any(&self, bits: u32) -> bool {
        self.device_caps & bits != 0
    }
}

/// Asks a device who it is. `ENOTTY` when it is no V4L2 device.
pub fn capability(fd: BorrowedFd<'_>) -> nix::Result<Capability> {
    let mut raw = RawCapability::default();
    call(fd, raw::querycap, &mut raw)?;
    let filled = raw.capabilities & cap::DEVICE_CAPS != 0;
    Ok(Capability {
        driver: text(&raw.driver),
        card: text(&raw.card),
        bus: text(&raw.bus_info),
        device_caps: if filled { raw.device_caps } else { raw.capabilities },
    })
}

/// A pixel format that a queue offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatDescription {
    /// The four-character code.
    pub fourcc: u32,
    /// It is a compressed format.
    pub compressed: bool,
}

/// The formats that a queue offers, best first as the driver sees it. Empty when it offers none or has no such queue.
pub fn formats(fd: BorrowedFd<'_>, queue: Queue) -> Vec<FormatDescription> {
    enumerate(|index| {
        let mut raw = RawFormatDescription { index, queue: queue as u32, ..Default::default() };
        call(fd, raw::enum_fmt, &mut raw)?;
        Ok(FormatDescription { fourcc: raw.pixelformat, compressed: raw.flags & FORMAT_COMPRESSED != 0 })
    })
}

/// The sizes in a format. Empty when the driver cannot enumerate them: then [`try_size`] and [`current_size`] tell some.
pub fn frame_sizes(fd: BorrowedFd<'_>, fourcc: u32) -> Vec<Sizes> {
    enumerate(|index| {
        let mut raw = RawFrameSize { index, pixelformat: fourcc, ..Default::default() };
        call(fd, raw::enum_framesizes, &mut raw)?;
        let size = raw.size;
        Ok(if raw.kind == DISCRETE {
            Sizes::One(size[0], size[1])
        } else {
            Sizes::Grid { min: (size[0], size[3]), max: (size[1], size[4]), step: (size[2].max(1), size[5].max(1)) }
        })
    })
}

/// Times from one frame to the next, as (numerator, denominator) in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameInterval {
    /// This interval.
    Discrete(u32, u32),
    /// Everything from the shortest to the longest.
    Range {
        /// The shortest.
        min: (u32, u32),
        /// The longest.
        max: (u32, u32),
    },
}

/// The frame intervals at a format and size. Empty when the driver does not tell.
pub fn frame_intervals(fd: BorrowedFd<'_>, fourcc: u32, width: u32, height: u32) -> Vec<FrameInterval> {
    enumerate(|index| {
        let mut raw = RawFrameInterval { index, pixelformat: fourcc, width, height, ..Default::default() };
        call(fd, raw::enum_frameintervals, &mut raw)?;
        let [a, b, c, d, ..] = raw.interval;
        Ok(if raw.kind == DISCRETE {
            FrameInterval::Discrete(a, b)
        } else {
            FrameInterval::Range { min: (a, b), max: (c, d) }
        })
    })
}

fn enumerate<T>(mut entry: impl FnMut(u32) -> nix::Result<T>) -> Vec<T> {
    (0..MAX_ENTRIES).map_while(|index| entry(index).ok()).collect()
}

/// The size that the driver would really use where `width` x `height` is asked for; nothing is changed.
pub fn try_size(fd: BorrowedFd<'_>, queue: Queue, fourcc: u32, width: u32, height: u32) -> nix::Result<(u32, u32)> {
    let mut raw = raw_format(queue);
    (raw.pixelformat, raw.width, raw.height) = (fourcc, width, height);
    call(fd, raw::try_fmt, &mut raw)?;
    if raw.pixelformat == fourcc { Ok((raw.width, raw.height)) } else { Err(Errno::EINVAL) }
}

/// The size that the device is set to now.
pub fn current_size(fd: BorrowedFd<'_>, queue: Queue) -> nix::Result<(u32, u32)> {
    let mut raw = raw_format(queue);
    call(fd, raw::g_fmt, &mut raw)?;
    Ok((raw.width, raw.height))
}

fn raw_format(queue: Queue) -> RawFormat {
    RawFormat { queue: queue as u32, align: [], width: 0, height: 0, pixelformat: 0, rest: [0; 188] }
}

/// The state of the input that a capture device is switched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The device has no inputs at all.
    Missing,
    /// An input with nothing behind it that could fall silent: a sensor's.
    Sensor,
    /// An input that receives a signal.
    Ready,
    /// An input without power or signal, or not locked to it, such as an HDMI socket with nothing plugged in.
    NoSignal,
}

/// Looks at the current input (`VIDIOC_G_INPUT`, `VIDIOC_ENUMINPUT`).
pub fn input(fd: BorrowedFd<'_>) -> Input {
    let mut index: c_int = 0;
    let mut raw = RawInput::default();
    if call(fd, raw::g_input, &mut index).is_err() {
        return Input::Missing;
    }
    raw.index = index.cast_unsigned();
    match call(fd, raw::enuminput, &mut raw) {
        Err(_) => Input::Missing,
        Ok(()) if raw.status & INPUT_DEAD != 0 => Input::NoSignal,
        Ok(()) if raw.capabilities & INPUT_RECEIVES != 0 => Input::Ready,
        Ok(()) => Input::Sensor,
    }
}

/// Sets a control, a codec's too, also while it streams; the kernel clamps the value to the control's range.
///
/// `VIDIOC_S_CTRL` is enough: the kernel hands it on to drivers that know extended controls only (`v4l_s_ctrl` in
/// drivers/media/v4l2-core/v4l2-ioctl.c).
pub fn set_control(fd: BorrowedFd<'_>, id: u32, value: i32) -> nix::Result<()> {
    call(fd, raw::s_ctrl, &mut RawControl { id, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_no_v4l2_device_says_so() {
        let null = open(Path::new("/dev/null")).unwrap();
        assert_eq!(capability(null.as_fd()), Err(Errno::ENOTTY));
        assert!(formats(null.as_fd(), Queue::Capture).is_empty());
        assert_eq!(input(null.as_fd()), Input::Missing);
        assert_eq!(set_control(null.as_fd(), CID_VIDEO_BITRATE, 1), Err(Errno::ENOTTY));
    }

    #[test]
    fn a_missing_node_is_told_from_a_forbidden_one() {
        assert_eq!(open(Path::new("/dev/there is no such node")).unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn text_ends_at_the_first_nul_or_the_field() {
        assert_eq!(text(b"UVC Camera \0junk"), "UVC Camera");
        assert_eq!(text(b"full"), "full");
    }

    #[test]
    fn an_enumeration_without_end_is_cut() {
        assert_eq!(enumerate(Ok).len(), MAX_ENTRIES as usize);
        assert_eq!(enumerate(|index| if index < 3 { Ok(index) } else { Err(Errno::EINVAL) }), [0, 1, 2]);
    }
}
