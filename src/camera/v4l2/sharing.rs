//! Whether an encoder takes a camera's buffers (dmabuf), found out with one of them.
//!
//! Drivers say that they can and then cannot: their memory lies otherwise, is too small, or out of reach. To find out by
//! streaming is no way: GStreamer 1.22 keeps the refused picture for good, and the camera stays busy. Nothing streams
//! here; a buffer is exported, queued at the encoder, and both devices are closed again.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use super::{Queue, call, cap, capability, open, raw_format};

/// `V4L2_MEMORY_MMAP`, `V4L2_MEMORY_DMABUF`
const MMAP: u32 = 1;
const DMABUF: u32 = 4;
/// `V4L2_FIELD_NONE`
const PROGRESSIVE: u32 = 1;

#[repr(C)]
#[derive(Default)]
struct RawRequestBuffers {
    count: u32,
    queue: u32,
    memory: u32,
    capabilities: u32,
    flags: u8,
    reserved: [u8; 3],
}

#[repr(C)]
#[derive(Default)]
struct RawExportBuffer {
    queue: u32,
    index: u32,
    plane: u32,
    flags: u32,
    fd: i32,
    reserved: [u32; 11],
}

#[repr(C)]
#[derive(Clone, Copy)]
union Memory {
    fd: i32,
    planes: *mut RawPlane,
    all: libc::c_ulong,
}

#[repr(C)]
struct RawPlane {
    used: u32,
    length: u32,
    memory: Memory,
    offset: u32,
    reserved: [u32; 11],
}

#[repr(C)]
struct RawBuffer {
    index: u32,
    queue: u32,
    used: u32,
    flags: u32,
    field: u32,
    timestamp: libc::timeval,
    timecode: [u32; 4],
    sequence: u32,
    memory: u32,
    place: Memory,
    length: u32,
    reserved: u32,
    request: i32,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<RawRequestBuffers>() == 20);
    assert!(size_of::<RawExportBuffer>() == 64);
    assert!(size_of::<RawPlane>() == 64);
    assert!(size_of::<RawBuffer>() == 88);
};

mod raw {
    use super::super::RawFormat;
    use super::{RawBuffer, RawExportBuffer, RawRequestBuffers};

    nix::ioctl_readwrite!(s_fmt, b'V', 5, RawFormat);
    nix::ioctl_readwrite!(reqbufs, b'V', 8, RawRequestBuffers);
    nix::ioctl_readwrite!(querybuf, b'V', 9, RawBuffer);
    nix::ioctl_readwrite!(qbuf, b'V', 15, RawBuffer);
    nix::ioctl_readwrite!(expbuf, b'V', 16, RawExportBuffer);
}

/// Tries it with pictures of this format and size in one plane. Sets both devices to them. Blocks for some milliseconds.
///
/// # Errors
/// What the kernel said of the first thing that does not go; `EBUSY` also when somebody has the camera.
pub fn try_sharing(camera: &Path, encoder: &Path, fourcc: u32, size: (u32, u32)) -> nix::Result<()> {
    let (camera, encoder) = (open(camera)?, open(encoder)?);
    let (camera, encoder) = (camera.as_fd(), encoder.as_fd());
    let from =
        if capability(camera)?.has_any(cap::VIDEO_CAPTURE_MPLANE) { Queue::CaptureMultiplanar } else { Queue::Capture };
    let to = if capability(encoder)?.has_any(cap::VIDEO_M2M_MPLANE | cap::VIDEO_OUTPUT_MPLANE) {
        Queue::OutputMultiplanar
    } else {
        Queue::Output
    };
    set_format(camera, from, fourcc, size)?;
    set_format(encoder, to, fourcc, size)?;
    request_buffer(camera, from, MMAP)?;
    request_buffer(encoder, to, DMABUF)?;
    let length = buffer_length(camera, from)?;
    let buffer = export(camera, from)?;
    queue(encoder, to, &buffer, length)
}

fn set_format(fd: BorrowedFd<'_>, queue: Queue, fourcc: u32, (width, height): (u32, u32)) -> nix::Result<()> {
    let mut format = raw_format(queue);
    (format.pixelformat, format.width, format.height) = (fourcc, width, height);
    call(fd, raw::s_fmt, &mut format)?;
    let same = (format.pixelformat, format.width, format.height) == (fourcc, width, height);
    if same { Ok(()) } else { Err(Errno::EINVAL) }
}

fn request_buffer(fd: BorrowedFd<'_>, queue: Queue, memory: u32) -> nix::Result<()> {
    call(fd, raw::reqbufs, &mut RawRequestBuffers { count: 1, queue: queue as u32, memory, ..Default::default() })
}

fn buffer_length(fd: BorrowedFd<'_>, queue: Queue) -> nix::Result<u32> {
    with_buffer(queue, MMAP, Memory { all: 0 }, 0, |buffer| call(fd, raw::querybuf, buffer))
}

fn export(fd: BorrowedFd<'_>, queue: Queue) -> nix::Result<OwnedFd> {
    let flags = (libc::O_CLOEXEC | libc::O_RDWR).cast_unsigned();
    let mut raw = RawExportBuffer { queue: queue as u32, flags, fd: -1, ..Default::default() };
    call(fd, raw::expbuf, &mut raw)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw.fd) })
}

fn queue(fd: BorrowedFd<'_>, queue: Queue, dmabuf: &OwnedFd, length: u32) -> nix::Result<()> {
    let place = Memory { fd: dmabuf.as_raw_fd() };
    with_buffer(queue, DMABUF, place, length, |buffer| call(fd, raw::qbuf, buffer)).map(drop)
}

/// Has `ask` called with the first buffer of a queue, in one plane, and gives its length as it is then.
fn with_buffer(
    queue: Queue,
    memory: u32,
    place: Memory,
    length: u32,
    ask: impl FnOnce(&mut RawBuffer) -> nix::Result<()>,
) -> nix::Result<u32> {
    let mut buffer = RawBuffer {
        index: 0,
        queue: queue as u32,
        used: length,
        flags: 0,
        field: PROGRESSIVE,
        timestamp: libc::timeval { tv_sec: 0, tv_usec: 0 },
        timecode: [0; 4],
        sequence: 0,
        memory,
        place,
        length,
        reserved: 0,
        request: 0,
    };
    if !matches!(queue, Queue::CaptureMultiplanar | Queue::OutputMultiplanar) {
        ask(&mut buffer)?;
        return Ok(buffer.length);
    }
    // Here the plane says where it lies, and `length` counts planes. The kernel follows the pointer while it is asked,
    // and the plane is touched by nobody else meanwhile.
    let mut only = RawPlane { used: length, length, memory: buffer.place, offset: 0, reserved: [0; 11] };
    buffer.place = Memory { planes: &raw mut only };
    buffer.length = 1;
    ask(&mut buffer)?;
    Ok(only.length)
}
