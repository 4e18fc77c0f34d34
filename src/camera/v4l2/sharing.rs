//! Whether an encoder takes a camera's buffers (dmabuf), found out with one of them.
//!
//! Drivers claim that they can and then cannot: their memory has another layout, is too small, or is out of reach. Streaming
//! cannot find out: GStreamer 1.22 keeps the refused picture for good, and the camera stays busy. Nothing streams here: a
//! buffer is exported and queued at the encoder, and both devices are closed again.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use v4l::format::FieldOrder;
use v4l::v4l_sys::{
    V4L2_CAP_VIDEO_CAPTURE_MPLANE, V4L2_CAP_VIDEO_M2M_MPLANE, V4L2_CAP_VIDEO_OUTPUT_MPLANE, v4l2_buffer,
    v4l2_exportbuffer, v4l2_plane, v4l2_requestbuffers,
};
use v4l::{FourCC, Memory};

use super::{BufferType, Ioctl, call, capability, open, picture, picture_format, zeroed};

mod raw {
    use v4l::v4l_sys::{v4l2_buffer, v4l2_exportbuffer, v4l2_format, v4l2_requestbuffers};

    nix::ioctl_readwrite!(s_fmt, b'V', 5, v4l2_format);
    nix::ioctl_readwrite!(reqbufs, b'V', 8, v4l2_requestbuffers);
    nix::ioctl_readwrite!(querybuf, b'V', 9, v4l2_buffer);
    nix::ioctl_readwrite!(qbuf, b'V', 15, v4l2_buffer);
    nix::ioctl_readwrite!(expbuf, b'V', 16, v4l2_exportbuffer);
}

/// Tries it with pictures of this format and size in one plane. Sets both devices to them. Blocks for some milliseconds.
///
/// # Errors
/// The kernel's answer to the first failed step; `EBUSY` also when somebody has the camera.
pub fn try_sharing(camera: &Path, encoder: &Path, fourcc: FourCC, size: (u32, u32)) -> nix::Result<()> {
    let (camera, encoder) = (open(camera)?, open(encoder)?);
    let (camera, encoder) = (camera.as_fd(), encoder.as_fd());
    let from = if capability(camera)?.has_any(V4L2_CAP_VIDEO_CAPTURE_MPLANE) {
        BufferType::VideoCaptureMplane
    } else {
        BufferType::VideoCapture
    };
    let to = if capability(encoder)?.has_any(V4L2_CAP_VIDEO_M2M_MPLANE | V4L2_CAP_VIDEO_OUTPUT_MPLANE) {
        BufferType::VideoOutputMplane
    } else {
        BufferType::VideoOutput
    };
    set_format(camera, from, fourcc, size)?;
    set_format(encoder, to, fourcc, size)?;
    request_buffer(camera, from, Memory::Mmap)?;
    request_buffer(encoder, to, Memory::DmaBuf)?;
    let length = with_buffer(camera, raw::querybuf, from, None)?;
    let buffer = export(camera, from)?;
    with_buffer(encoder, raw::qbuf, to, Some((&buffer, length))).map(drop)
}

fn set_format(fd: BorrowedFd<'_>, queue: BufferType, fourcc: FourCC, size: (u32, u32)) -> nix::Result<()> {
    let mut format = picture_format(queue, fourcc, size);
    call(fd, raw::s_fmt, &mut format)?;
    if picture(&format) == (fourcc, size) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn request_buffer(fd: BorrowedFd<'_>, queue: BufferType, memory: Memory) -> nix::Result<()> {
    let mut wanted = v4l2_requestbuffers { count: 1, type_: queue as u32, memory: memory as u32, ..zeroed() };
    call(fd, raw::reqbufs, &mut wanted)
}

fn export(fd: BorrowedFd<'_>, queue: BufferType) -> nix::Result<OwnedFd> {
    let flags = (libc::O_CLOEXEC | libc::O_RDWR).cast_unsigned();
    let mut raw = v4l2_exportbuffer { type_: queue as u32, flags, fd: -1, ..zeroed() };
    call(fd, raw::expbuf, &mut raw)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw.fd) })
}

/// Asks about the first buffer of a queue, in one plane: the device's own, or a foreign one of this length in bytes.
/// Returns its length afterwards.
fn with_buffer(
    fd: BorrowedFd<'_>,
    ioctl: Ioctl<v4l2_buffer>,
    queue: BufferType,
    elsewhere: Option<(&OwnedFd, u32)>,
) -> nix::Result<u32> {
    let (memory, dmabuf, length) = match elsewhere {
        Some((dmabuf, length)) => (Memory::DmaBuf, dmabuf.as_raw_fd(), length),
        None => (Memory::Mmap, 0, 0),
    };
    let mut buffer = v4l2_buffer {
        type_: queue as u32,
        bytesused: length,
        field: FieldOrder::Progressive as u32,
        memory: memory as u32,
        length,
        ..zeroed()
    };
    if !matches!(queue, BufferType::VideoCaptureMplane | BufferType::VideoOutputMplane) {
        buffer.m.fd = dmabuf;
        call(fd, ioctl, &mut buffer)?;
        return Ok(buffer.length);
    }
    // Here the plane says where it lies, and `length` counts planes. The kernel follows the pointer while it is asked,
    // and the plane is touched by nobody else meanwhile.
    let mut only = v4l2_plane { bytesused: length, length, ..zeroed() };
    only.m.fd = dmabuf;
    buffer.m.planes = &raw mut only;
    buffer.length = 1;
    call(fd, ioctl, &mut buffer)?;
    Ok(only.length)
}
