//! `camera acquire`: a program runs while the camera is reserved for it.
//!
//! The lease belongs to the connection, so it ends with this process however that ends. The program then gets SIGTERM,
//! so that it does not hold a camera that was given to others. Signals are read from a descriptor because only that
//! shows where they come from: a Ctrl-C in the terminal has already reached the program, and many programs take a
//! second one as "quit now".

#![expect(
    unsafe_code,
    reason = "what runs between fork and exec; tokio wants to be promised that a descriptor stays open"
)]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use lenscast::link::control_client::Client;
use lenscast::protocol::control::{Lease, Request};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::aside;
use crate::failure::Failure;

/// The exit status that shells and `env` use.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Returns the program's exit status.
pub async fn run(socket: &Path, program: Option<String>, command: &[OsString]) -> Result<u8, Failure> {
    let Some((executable, arguments)) = command.split_first() else {
        return Err(Failure::Usage("no program to run".into()));
    };
    let program = program.or_else(|| Some(name_of(executable)));
    let mut client = Client::connect(socket).await?;
    let lease: Lease = client.call(&Request::CameraAcquire { program }).await?;

    // From here on signals end the program, not us. Blocked before it starts, so that its end cannot be missed.
    let (signals, before) = signals().map_err(|error| Failure::Other(format!("signals cannot be handled: {error}")))?;
    let mut child = Command::new(executable);
    child.args(arguments).env("LENSCAST_CAMERA", &lease.device);
    let prepare = move || {
        set_pdeathsig(Signal::SIGTERM)?;
        // Otherwise the program would inherit our blocked signals and never receive one.
        Ok(before.thread_set_mask()?)
    };
    // SAFETY: between fork and exec only prctl and sigprocmask are called, both async-signal-safe; nothing allocates.
    unsafe { child.pre_exec(prepare) };
    match child.spawn() {
        Ok(child) => attend(child, &signals, &mut client).await.map_err(|error| Failure::Other(error.to_string())),
        Err(error) => {
            aside(&format!("{}: {error}", executable.to_string_lossy()));
            Ok(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN })
        }
    }
}

fn name_of(executable: &OsStr) -> String {
    Path::new(executable).file_name().unwrap_or(executable).to_string_lossy().into_owned()
}

/// The signals to read, and the mask from before they were blocked.
fn signals() -> io::Result<(AsyncFd<SignalFd>, SigSet)> {
    let mask: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect();
    let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    // SAFETY: the descriptor is open and the `SignalFd`'s own; `AsyncFd` keeps that, and it never changes it.
    let signals = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
    Ok((signals, before))
}

async fn attend(mut child: Child, signals: &AsyncFd<SignalFd>, client: &mut Client) -> io::Result<u8> {
    let mut reserved = true;
    loop {
        let signal = tokio::select! {
            signal = next_signal(signals) => signal?,
            () = client.closed(), if reserved => {
                reserved = false;
                aside("the daemon is gone; the camera is no longer reserved");
                continue;
            }
        };
        let number = signal.ssi_signo.cast_signed();
        if number == Signal::SIGCHLD as i32 {
            if let Some(status) = child.try_wait()? {
                return Ok(exit_status(status));
            }
        } else if forwarded(&signal)
            && let Ok(signal) = Signal::try_from(number)
        {
            // Fails only for a program that has just ended; then SIGCHLD is on its way.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        }
    }
}

async fn next_signal(signals: &AsyncFd<SignalFd>) -> io::Result<siginfo> {
    loop {
        let mut guard = signals.readable().await?;
        match guard.get_inner().read_signal()? {
            Some(signal) => return Ok(signal),
            None => guard.clear_ready(),
        }
    }
}

/// Whether to forward a signal: not if the terminal sent it, since the program is in our process group and got it too.
fn forwarded(signal: &siginfo) -> bool {
    signal.ssi_code != libc::SI_KERNEL
}

fn exit_status(status: ExitStatus) -> u8 {
    let number = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_programs_or_tells_the_signal() {
        assert_eq!(exit_status(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_status(ExitStatus::from_raw(libc::SIGTERM)), 143);
    }

    #[test]
    fn others_see_the_programs_own_name() {
        assert_eq!(name_of(OsStr::new("/usr/bin/ffmpeg")), "ffmpeg");
        assert_eq!(name_of(OsStr::new("ffmpeg")), "ffmpeg");
    }
}
