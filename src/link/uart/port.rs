//! A serial device: opened raw, read and written without blocking.

#![expect(unsafe_code, reason = "tokio wants to be promised that a descriptor stays open")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::sys::termios::{self, BaudRate, ControlFlags, FlushArg, SetArg};
use tokio::io::unix::AsyncFd;

/// The speeds used by serial chips that Linux has constants for.
const SPEEDS: [(u32, BaudRate); 14] = [
    (9_600, BaudRate::B9600),
    (19_200, BaudRate::B19200),
    (38_400, BaudRate::B38400),
    (57_600, BaudRate::B57600),
    (115_200, BaudRate::B115200),
    (230_400, BaudRate::B230400),
    (460_800, BaudRate::B460800),
    (500_000, BaudRate::B500000),
    (576_000, BaudRate::B576000),
    (921_600, BaudRate::B921600),
    (1_000_000, BaudRate::B1000000),
    (1_152_000, BaudRate::B1152000),
    (1_500_000, BaudRate::B1500000),
    (3_000_000, BaudRate::B3000000),
];

/// Whether Linux supports this speed, bit/s.
pub fn is_baud(baud: u32) -> bool {
    speed(baud).is_some()
}

fn speed(baud: u32) -> Option<BaudRate> {
    SPEEDS.iter().find(|(number, _)| *number == baud).map(|(_, speed)| *speed)
}

nix::ioctl_read_bad!(unsent, nix::libc::TIOCOUTQ, nix::libc::c_int);

pub(super) struct Port(AsyncFd<File>);

impl Port {
    /// Opens the device: 8 data bits, no parity, one stop bit, no flow control, no translation of bytes.
    pub fn open(device: &Path, baud: u32) -> io::Result<Self> {
        let speed = speed(baud).ok_or_else(|| io::Error::other(format!("there is no speed of {baud} bit/s")))?;
        // O_NONBLOCK: otherwise opening a line without a carrier would wait for one.
        let file = OpenOptions::new().read(true).write(true).custom_flags(O_NOCTTY | O_NONBLOCK).open(device)?;
        let mut settings = termios::tcgetattr(&file)?;
        termios::cfmakeraw(&mut settings);
        settings.control_flags.remove(ControlFlags::CSTOPB | ControlFlags::CRTSCTS);
        settings.control_flags.insert(ControlFlags::CLOCAL | ControlFlags::CREAD);
        termios::cfsetspeed(&mut settings, speed)?;
        termios::tcsetattr(&file, SetArg::TCSANOW, &settings)?;
        Self::of(file)
    }

    /// Takes a file opened as non-blocking, or makes it so.
    pub fn of(file: File) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: the descriptor is open, belongs to the `File` that moves in here, and is neither replaced nor closed
        // while the `AsyncFd` owns it: nothing here takes it out or hands out mutable access.
        Ok(Self(unsafe { AsyncFd::register(file) }?))
    }

    /// Reads what has arrived; 0 once the device is gone. Cancel safe.
    pub async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(read) = ready.try_io(|fd| fd.get_ref().read(bytes)) {
                return read;
            }
        }
    }

    /// Writes as many bytes as there is room for. Cancel safe.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(written) = ready.try_io(|fd| fd.get_ref().write(bytes)) {
                return written;
            }
        }
    }

    /// Waits until the kernel has sent all its data: data still waiting when the device is closed may be lost.
    pub async fn drain(&self) {
        let mut waiting = 0;
        loop {
            // SAFETY: the descriptor is open; the kernel writes one int, to a place that lives as long as the call.
            let asked = unsafe { unsent(self.0.get_ref().as_raw_fd(), &raw mut waiting) };
            if asked.is_err() || waiting == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // the kernel has no event for it
        }
    }

    /// Drops the data that the kernel has not sent yet; closing the device would wait for it, up to half a minute.
    pub fn forget_unsent(&self) {
        let _ = termios::tcflush(self.0.get_ref(), FlushArg::TCOFLUSH); // a device that is gone has nothing
    }
}
