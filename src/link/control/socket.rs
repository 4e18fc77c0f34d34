//! The listening socket's file, and what the kernel knows about a client.

#![expect(unsafe_code, reason = "tokio wants to be promised that a descriptor stays open, and systemd gives numbers")]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::unistd::{Group, chown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use super::Peer;

/// The listening control socket. Removes its file when dropped, unless systemd owns it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of our file: another daemon's file in its place, or systemd's, must not be removed.
    file: Option<(u64, u64)>,
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.socket.accept().await?.0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| Some((now.st_dev(), now.st_ino())) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`, for the owner and for `group` only (mode 0660). Call it within the runtime.
///
/// If systemd already listens there for this process (socket activation), that socket is used as it is.
///
/// Otherwise a socket that nobody serves is replaced. Fails with [`io::ErrorKind::AddrInUse`] if another daemon serves
/// it, or if something other than a socket is there. A group that does not exist, or that this process may not give
/// files to, is logged and ignored: then only the owner may use the socket.
pub fn bind(path: &Path, group: Option<&str>) -> io::Result<Listener> {
    if let Some(inherited) = inherited(path)? {
        return Ok(inherited);
    }
    let describe = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    bind_exclusively(path, group).map_err(describe)
}

/// The socket on which systemd listens at `path` for this process (`sd_listen_fds(3)`). Call it once per path.
fn inherited(path: &Path) -> io::Result<Option<Listener>> {
    for number in sd_notify::listen_fds()? {
        // SAFETY: systemd opened it for this process, which has not touched it yet; a socket not asked for is given
        // back.
        let socket = unsafe { std::os::unix::net::UnixListener::from_raw_fd(number) };
        if socket.local_addr().is_ok_and(|address| address.as_pathname() == Some(path)) {
            socket.set_nonblocking(true)?;
            return Ok(Some(Listener { socket: UnixListener::from_std(socket)?, path: path.into(), file: None }));
        }
        let _ = socket.into_raw_fd();
    }
    Ok(None)
}

fn bind_exclusively(path: &Path, group: Option<&str>) -> io::Result<Listener> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Two daemons that start at once would each take the other's new socket for a stale one.
    let _lock = Flock::lock(fs::File::open(directory)?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| io::Error::new(io::Error::from(errno).kind(), "another daemon is just starting"))?;

    let address = UnixAddr::new(path)?;
    remove_stale(path, &address)?;
    let fd = stream_socket()?;
    socket::bind(fd.as_raw_fd(), &address)?;
    // Nobody can connect before listen(), so the permissions are set before the first client.
    if let Some(group) = group {
        give_to_group(path, group);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    let metadata = fs::symlink_metadata(path)?;
    socket::listen(&fd, Backlog::new(64)?)?;
    let socket = UnixListener::from_std(std::os::unix::net::UnixListener::from(fd))?;
    Ok(Listener { socket, path: path.into(), file: Some((metadata.st_dev(), metadata.st_ino())) })
}

fn stream_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn remove_stale(path: &Path, address: &UnixAddr) -> io::Result<()> {
    let in_use = |why| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => return in_use("exists and is no socket"),
        Ok(_) => {}
    }
    let probe = stream_socket()?;
    match socket::connect(probe.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path),
        // EAGAIN: somebody listens, but accepts slowly.
        Ok(()) | Err(Errno::EAGAIN) => in_use("another daemon serves it"),
        Err(errno) => Err(errno.into()),
    }
}

fn give_to_group(path: &Path, group: &str) {
    let given = match Group::from_name(group) {
        Ok(Some(found)) => chown(path, None, Some(found.gid)).map_err(|errno| errno.to_string()),
        Ok(None) => Err("no such group".into()),
        Err(errno) => Err(errno.to_string()),
    };
    if let Err(reason) = given {
        warn!(group, reason, "control socket: not given to the group; only its owner can connect");
    }
}

/// The process at the other end.
pub(crate) fn peer(stream: &UnixStream) -> Peer {
    let (pid, uid) = match stream.peer_cred() {
        Ok(credentials) => {
            (credentials.pid().and_then(|pid| pid.try_into().ok()).filter(|&pid: &u32| pid > 0), credentials.uid())
        }
        // The overflow id that the kernel itself uses for a user it cannot name.
        Err(_) => (None, 65534),
    };
    let program = pid
        .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
        .map_or_else(String::new, |comm| comm.trim_end().to_owned());
    Peer { pid, uid, program }
}

/// Detects when a client is gone for good, without reading from it.
pub(crate) struct Hangup(AsyncFd<OwnedFd>);

/// Watches `stream` through a separate descriptor, registered only for what the kernel always reports.
pub(crate) fn hangup(stream: &UnixStream) -> io::Result<Hangup> {
    let fd = stream.as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is ours and open; `AsyncFd` keeps the `OwnedFd`, which stays the same until dropped.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::PRIORITY) }?;
    Ok(Hangup(fd))
}

impl Hangup {
    /// Resolves when both directions are closed: the other end was closed, by its process or with it.
    pub(crate) async fn wait(&self) {
        while let Ok(mut guard) = self.0.ready(Interest::PRIORITY).await {
            if guard.ready().is_read_closed() {
                return;
            }
            guard.clear_ready();
        }
    }
}
