//! The few V4L2 ioctls that finding a camera, reading its modes and steering an encoder need, over plain file
//! descriptors.
//!
//! Structures and constants come from [`v4l::v4l_sys`], generated from the target's `linux/videodev2.h`; results use the
//! types of [`v4l`]. The ioctls are nix's, on our own descriptors, because `v4l::Device` lacks what is needed: it opens
//! without `O_CLOEXEC`, takes no open descriptor, follows an enumeration without a bound, and knows single-planar queues
//! only. Its `Capabilities` take `device_caps` from old drivers that do not fill it, drop `V4L2_CAP_IO_MC`, and panic over
//! a name that is cut off within a character, as a long webcam name can be. It has no call for an input's status,
//! `VIDIOC_TRY_FMT` and `VIDIOC_EXPBUF`.
//!
//! What each ioctl does: <https://docs.kernel.org/userspace-api/media/v4l/user-func.html>. Frames never pass through
//! this file. All calls block, some until a USB request times out (5 s): not for an async task's own thread.

#![expect(unsafe_code, reason = "ioctl")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{self, c_int};
use v4l::FourCC;
use v4l::buffer::Type as BufferType;
use v4l::format::Description as FormatDescription;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::v4l_sys::{
    V4L2_CAP_DEVICE_CAPS, V4L2_CID_MPEG_VIDEO_BITRATE, V4L2_IN_CAP_DV_TIMINGS, V4L2_IN_CAP_STD, V4L2_IN_ST_NO_H_LOCK,
    V4L2_IN_ST_NO_POWER, V4L2_IN_ST_NO_SIGNAL, V4L2_IN_ST_NO_SYNC, v4l2_capability, v4l2_control, v4l2_fmtdesc,
    v4l2_format, v4l2_frmivalenum, v4l2_frmsizeenum, v4l2_input, v4l2_pix_format,
};

mod sharing;

pub use sharing::try_sharing;

/// An encoder's target bitrate, in bit/s.
pub const CID_VIDEO_BITRATE: u32 = V4L2_CID_MPEG_VIDEO_BITRATE;

/// Nothing usable comes in.
const INPUT_DEAD: u32 = V4L2_IN_ST_NO_POWER | V4L2_IN_ST_NO_SIGNAL | V4L2_IN_ST_NO_H_LOCK | V4L2_IN_ST_NO_SYNC;
/// Digital or analog video comes in from outside.
const INPUT_RECEIVES: u32 = V4L2_IN_CAP_DV_TIMINGS | V4L2_IN_CAP_STD;

// The bound of an enumeration, against a driver that never ends one. Webcams have tens of entries.
const MAX_ENTRIES: u32 = 256;

mod raw {
    use nix::libc::c_int;
    use v4l::v4l_sys::{
        v4l2_capability, v4l2_control, v4l2_fmtdesc, v4l2_format, v4l2_frmivalenum, v4l2_frmsizeenum, v4l2_input,
    };

    nix::ioctl_read!(querycap, b'V', 0, v4l2_capability);
    nix::ioctl_readwrite!(enum_fmt, b'V', 2, v4l2_fmtdesc);
    nix::ioctl_readwrite!(g_fmt, b'V', 4, v4l2_format);
    nix::ioctl_readwrite!(enuminput, b'V', 26, v4l2_input);
    nix::ioctl_readwrite!(s_ctrl, b'V', 28, v4l2_control);
    nix::ioctl_read!(g_input, b'V', 38, c_int);
    nix::ioctl_readwrite!(try_fmt, b'V', 64, v4l2_format);
    nix::ioctl_readwrite!(enum_framesizes, b'V', 74, v4l2_frmsizeenum);
    nix::ioctl_readwrite!(enum_frameintervals, b'V', 75, v4l2_frmivalenum);
}

type Ioctl<T> = unsafe fn(c_int, *mut T) -> nix::Result<c_int>;

fn call<T>(fd: BorrowedFd<'_>, ioctl: Ioctl<T>, argument: &mut T) -> nix::Result<()> {
    loop {
        // SAFETY: `fd` is open for the call, and every `ioctl` passed here was generated in `raw` for exactly this `T`:
        // its number carries T's size, so the kernel reads and writes that many bytes and no more. Only `sharing` has
        // a structure with a pointer in use, to what outlives the call; all bit patterns are valid for their fields.
        match unsafe { ioctl(fd.as_raw_fd(), argument) } {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

/// A structure of the kernel to fill in. Most have fields that must be 0, and each release adds some.
fn zeroed<T: Copy>() -> T {
    // SAFETY: asked for structures of `v4l_sys` only. They consist of integers and raw pointers, of arrays and unions
    // of them, and for all of these zeros are a value.
    unsafe { std::mem::zeroed() }
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

/// What a device says about itself (`VIDIOC_QUERYCAP`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// The kernel driver, such as `uvcvideo`.
    pub driver: String,
    /// The name of the product.
    pub card: String,
    /// Where it is plugged in, such as `usb-0000:00:14.0-2`.
    pub bus: String,
    /// What this node can do: bits `V4L2_CAP_*`.
    pub device_caps: u32,
}

impl Capability {
    /// The node has at least one of these bits.
    pub fn has_any(&self, bits: u32) -> bool {
        self.device_caps & bits != 0
    }
}

/// Asks a device about itself. `ENOTTY` when it is no V4L2 device.
pub fn capability(fd: BorrowedFd<'_>) -> nix::Result<Capability> {
    let mut raw: v4l2_capability = zeroed();
    call(fd, raw::querycap, &mut raw)?;
    // Old drivers only report what the whole device can do.
    let filled = raw.capabilities & V4L2_CAP_DEVICE_CAPS != 0;
    Ok(Capability {
        driver: text(&raw.driver),
        card: text(&raw.card),
        bus: text(&raw.bus_info),
        device_caps: if filled { raw.device_caps } else { raw.capabilities },
    })
}

/// The formats that a queue offers, best first as the driver sees it, without their descriptions. Empty when it offers
/// none or has no such queue.
pub fn formats(fd: BorrowedFd<'_>, queue: BufferType) -> Vec<FormatDescription> {
    enumerate(|index| {
        let mut raw = v4l2_fmtdesc { index, type_: queue as u32, ..zeroed() };
        call(fd, raw::enum_fmt, &mut raw)?;
        // Unless it is UTF-8, the conversion panics.
        raw.description = [0; 32];
        Ok(raw.into())
    })
}

/// The sizes in a format. Empty when the driver cannot enumerate them: then use [`try_size`] and [`current_size`].
pub fn frame_sizes(fd: BorrowedFd<'_>, fourcc: FourCC) -> Vec<FrameSizeEnum> {
    enumerate(|index| {
        let mut raw = v4l2_frmsizeenum { index, pixel_format: fourcc.into(), ..zeroed() };
        call(fd, raw::enum_framesizes, &mut raw)?;
        raw.try_into().map_err(|_| Errno::EINVAL)
    })
}

/// The frame intervals at a format and size. Empty when the driver does not enumerate them.
pub fn frame_intervals(fd: BorrowedFd<'_>, fourcc: FourCC, width: u32, height: u32) -> Vec<FrameIntervalEnum> {
    enumerate(|index| {
        let mut raw = v4l2_frmivalenum { index, pixel_format: fourcc.into(), width, height, ..zeroed() };
        call(fd, raw::enum_frameintervals, &mut raw)?;
        raw.try_into().map_err(|_| Errno::EINVAL)
    })
}

fn enumerate<T>(mut entry: impl FnMut(u32) -> nix::Result<T>) -> Vec<T> {
    (0..MAX_ENTRIES).map_while(|index| entry(index).ok()).collect()
}

/// The size that the driver would use for `width` x `height`. Changes nothing.
pub fn try_size(
    fd: BorrowedFd<'_>,
    queue: BufferType,
    fourcc: FourCC,
    width: u32,
    height: u32,
) -> nix::Result<(u32, u32)> {
    let mut format = picture_format(queue, fourcc, (width, height));
    call(fd, raw::try_fmt, &mut format)?;
    let (given, size) = picture(&format);
    if given == fourcc { Ok(size) } else { Err(Errno::EINVAL) }
}

/// The size that the device is set to now.
pub fn current_size(fd: BorrowedFd<'_>, queue: BufferType) -> nix::Result<(u32, u32)> {
    let mut format = picture_format(queue, FourCC::default(), (0, 0));
    call(fd, raw::g_fmt, &mut format)?;
    Ok(picture(&format).1)
}

fn picture_format(queue: BufferType, fourcc: FourCC, (width, height): (u32, u32)) -> v4l2_format {
    let mut format = v4l2_format { type_: queue as u32, ..zeroed() };
    format.fmt.pix = v4l2_pix_format { width, height, pixelformat: fourcc.into(), ..zeroed() };
    format
}

/// What a format's pictures are.
fn picture(format: &v4l2_format) -> (FourCC, (u32, u32)) {
    // SAFETY: all of the union is filled, and `v4l2_pix_format_mplane` begins with the same three words, so these are
    // integers whichever of the two it holds.
    let pix = unsafe { format.fmt.pix };
    (pix.pixelformat.into(), (pix.width, pix.height))
}

/// The state of the input that a capture device is switched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The device has no inputs at all.
    Missing,
    /// An input that cannot lose its signal: a sensor's.
    Sensor,
    /// An input that receives a signal.
    Ready,
    /// An input without power or signal, or not locked to it, such as an HDMI socket with nothing plugged in.
    NoSignal,
}

/// Looks at the current input (`VIDIOC_G_INPUT`, `VIDIOC_ENUMINPUT`).
pub fn input(fd: BorrowedFd<'_>) -> Input {
    let mut index: c_int = 0;
    if call(fd, raw::g_input, &mut index).is_err() {
        return Input::Missing;
    }
    let mut raw = v4l2_input { index: index.cast_unsigned(), ..zeroed() };
    match call(fd, raw::enuminput, &mut raw) {
        Err(_) => Input::Missing,
        Ok(()) if raw.status & INPUT_DEAD != 0 => Input::NoSignal,
        Ok(()) if raw.capabilities & INPUT_RECEIVES != 0 => Input::Ready,
        Ok(()) => Input::Sensor,
    }
}

/// Sets a control of a camera or codec, also while it streams. The kernel clamps the value to the control's range.
///
/// `VIDIOC_S_CTRL` is enough: the kernel hands it on to drivers that know extended controls only (`v4l_s_ctrl` in
/// drivers/media/v4l2-core/v4l2-ioctl.c).
pub fn set_control(fd: BorrowedFd<'_>, id: u32, value: i32) -> nix::Result<()> {
    call(fd, raw::s_ctrl, &mut v4l2_control { id, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_no_v4l2_device_says_so() {
        let null = open(Path::new("/dev/null")).unwrap();
        assert_eq!(capability(null.as_fd()), Err(Errno::ENOTTY));
        assert!(formats(null.as_fd(), BufferType::VideoCapture).is_empty());
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
        assert_eq!(text("Büro".as_bytes().split_at(2).0), "B\u{fffd}", "cut off within a character");
    }

    #[test]
    fn an_enumeration_without_end_is_cut() {
        assert_eq!(enumerate(Ok).len(), MAX_ENTRIES as usize);
        assert_eq!(enumerate(|index| if index < 3 { Ok(index) } else { Err(Errno::EINVAL) }), [0, 1, 2]);
    }
}
