//! The TCP socket under rtmp2sink: found when it connects, tuned, and watched for signs of life.
//!
//! rtmp2sink exposes neither its socket nor the progress of its connecting, and its statistics are of little use for
//! liveness (`out-bytes-acked` stays 0 with servers that do not acknowledge). But every `GSocketClient` of a process
//! announces its progress by the signal `event`, and an emission hook sees them all: CONNECTED carries the connection
//! before the RTMP handshake. An attempt is recognised first by host and port, then by its `GSocketClient`; a second
//! attempt at the same server begins only when the first has been recognised, which takes milliseconds. The file
//! descriptor is duplicated; we never read, write or close the original.

#![expect(unsafe_code, reason = "GObject tells of a connection by a C function; the kernel by socket options")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gio::prelude::*;
use gstreamer::glib;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::{Notify, mpsc};

/// How far a connection attempt got.
#[derive(Debug)]
pub enum Progress {
    /// Resolving the server's address.
    Resolving,
    /// Waiting for TCP to connect.
    Connecting,
    /// TCP is connected; the RTMP (or first the TLS) handshake follows.
    Connected(Connection),
    /// TLS is being negotiated.
    TlsHandshaking,
    /// TLS is up.
    TlsHandshaked,
}

struct Watched {
    host: String,
    port: u16,
    /// The address of the recognised `GSocketClient`, known from its first event until its last.
    client: Option<usize>,
    recognised: Arc<Notify>,
    progress: mpsc::UnboundedSender<Progress>,
}

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());

/// Reports the next connection attempt to `host:port`, until it is over or the receiver is dropped. Waits while
/// another attempt at the same server is about to begin. The channel needs no bound: an attempt has a handful of steps
/// per address.
pub async fn watch(host: &str, port: u16) -> mpsc::UnboundedReceiver<Progress> {
    static HOOK: OnceLock<()> = OnceLock::new();
    HOOK.get_or_init(install_hook);
    loop {
        let (before, recognised) = {
            let mut watched = lock();
            watched.retain(|watched| !watched.progress.is_closed());
            let same = |watched: &&Watched| watched.client.is_none() && watched.host == host && watched.port == port;
            let Some(before) = watched.iter().find(same) else {
                let (progress, receiver) = mpsc::unbounded_channel();
                let recognised = Arc::default();
                watched.push(Watched { host: host.to_owned(), port, client: None, recognised, progress });
                return receiver;
            };
            (before.progress.clone(), before.recognised.clone())
        };
        tokio::select! {
            () = recognised.notified() => {}
            () = before.closed() => {}
        }
        // Wakes whoever else waits.
        recognised.notify_one();
    }
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Watched>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install_hook() {
    use glib::gobject_ffi;
    use glib::translate::IntoGlib;
    // SAFETY: registers a hook for a signal of a class that the reference keeps alive for ever; the hook needs no
    // data.
    unsafe {
        let class = gio::SocketClient::static_type().into_glib();
        gobject_ffi::g_type_class_ref(class);
        let signal = gobject_ffi::g_signal_lookup(c"event".as_ptr(), class);
        gobject_ffi::g_signal_add_emission_hook(signal, 0, Some(on_event), std::ptr::null_mut(), None);
    }
}

/// `GSignalEmissionHook` for `GSocketClient::event (client, event, connectable, connection)`; runs on the thread that
/// connects.
unsafe extern "C" fn on_event(
    _hint: *mut glib::gobject_ffi::GSignalInvocationHint,
    count: std::ffi::c_uint,
    values: *const glib::gobject_ffi::GValue,
    _data: glib::ffi::gpointer,
) -> glib::ffi::gboolean {
    // SAFETY: GObject passes `count` initialised values that live through the call; `glib::Value` is a transparent
    // wrapper of GValue.
    let values = unsafe { std::slice::from_raw_parts(values.cast::<glib::Value>(), count as usize) };
    if let [client, event, connectable, connection] = values {
        announce(client, event, connectable, connection);
    }
    glib::ffi::GTRUE // stay installed
}

fn announce(client: &glib::Value, event: &glib::Value, connectable: &glib::Value, connection: &glib::Value) {
    let (Ok(client), Ok(event)) = (client.get::<gio::SocketClient>(), event.get::<gio::SocketClientEvent>()) else {
        return;
    };
    let Ok(address) = connectable.get::<gio::NetworkAddress>() else { return };
    let client = client.as_ptr() as usize;
    let mut all = lock();
    let known = all.iter().position(|watched| watched.client == Some(client));
    if event == gio::SocketClientEvent::Complete {
        if let Some(index) = known {
            all.swap_remove(index); // the address may be another client's from now on
        }
        return;
    }
    let expected = |watched: &Watched| {
        watched.client.is_none() && address.hostname() == watched.host && address.port() == watched.port
    };
    let Some(index) = known.or_else(|| all.iter().position(expected)) else { return };
    let watched = &mut all[index];
    if watched.client.replace(client).is_none() {
        watched.recognised.notify_one();
    }
    let progress = match event {
        gio::SocketClientEvent::Resolving => Progress::Resolving,
        gio::SocketClientEvent::Connecting => Progress::Connecting,
        gio::SocketClientEvent::Connected => {
            let Ok(Some(connection)) = connection.get::<Option<gio::SocketConnection>>() else { return };
            match AsFd::as_fd(&connection.socket()).try_clone_to_owned() {
                Ok(fd) => Progress::Connected(Connection::tuned(fd)),
                Err(error) => {
                    tracing::warn!(%error, "cannot watch the connection");
                    return;
                }
            }
        }
        gio::SocketClientEvent::TlsHandshaking => Progress::TlsHandshaking,
        gio::SocketClientEvent::TlsHandshaked => Progress::TlsHandshaked,
        _ => return,
    };
    let _ = watched.progress.send(progress); // the attempt may be over already
}

/// A duplicate of the connected socket.
#[derive(Debug)]
pub struct Connection(OwnedFd);

/// The kernel's data on the connection: `struct tcp_info` of `linux/tcp.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Bytes that the peer's kernel acknowledged (`tcpi_bytes_acked`).
    pub acked: u64,
    /// Bytes in the send queue that are not acknowledged, sent or not (`SIOCOUTQ`).
    pub outstanding: u64,
    /// The peer's advertised window, bytes (`tcpi_snd_wnd`; Linux 5.4). A window that rises, or is at its maximum,
    /// proves that the peer's *process* reads.
    pub window: u32,
    /// Unsent bytes in the send queue (`tcpi_notsent_bytes`; Linux 4.6).
    pub unsent: u32,
    /// Bytes that arrived, in order or not: those acknowledged, plus the share of in-flight segments that the peer has
    /// reported (`tcpi_sacked` of `tcpi_unacked`).
    pub arrived: u64,
    /// Smoothed round-trip time, microseconds (`tcpi_rtt`).
    pub rtt_us: u32,
}

/// Bytes that may wait unsent in the kernel before rtmp2sink is held back. They cannot be dropped, so they are delay,
/// and the bitrate's controller does not see them; 16 KiB is 0.2 s at 0.6 Mbit/s.
const NOTSENT_LOWAT: libc::c_int = 16 * 1024;

/// Time after which the kernel gives up the connection, milliseconds: the last resort behind the stall detector, which
/// needs 3 s.
const USER_TIMEOUT_MS: u32 = 8000;

/// Offsets in `struct tcp_info`; the structure only ever grows at its end.
mod offset {
    pub const UNACKED: usize = 24;
    pub const SACKED: usize = 28;
    pub const RTT: usize = 68;
    pub const BYTES_ACKED: usize = 120;
    pub const NOTSENT: usize = 144;
    pub const SND_WND: usize = 228;
    pub const END: usize = 232;
}

impl Connection {
    fn tuned(fd: OwnedFd) -> Self {
        let connection = Self(fd);
        let nagle_off = setsockopt(&connection.0, sockopt::TcpNoDelay, &true);
        let user_timeout = setsockopt(&connection.0, sockopt::TcpUserTimeout, &USER_TIMEOUT_MS);
        if let Err(error) = nagle_off.and(user_timeout).map_err(std::io::Error::from) {
            tracing::debug!(%error, "socket options");
        }
        connection.set_tcp_option(libc::TCP_NOTSENT_LOWAT, NOTSENT_LOWAT);
        connection.quick_ack();
        connection
    }

    /// Makes the kernel acknowledge at once for a while. The kernel falls back by itself, so repeat this until the
    /// server has accepted the publication: its Nagle algorithm waits for our acknowledgements three times on the way
    /// (132 ms from connect to media without, 2 ms with).
    pub fn quick_ack(&self) {
        self.set_tcp_option(libc::TCP_QUICKACK, 1);
    }

    fn set_tcp_option(&self, option: libc::c_int, value: libc::c_int) {
        // SAFETY: a valid descriptor and a pointer to an int of the given size.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::IPPROTO_TCP,
                option,
                (&raw const value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        if result != 0 {
            tracing::debug!(option, error = %std::io::Error::last_os_error(), "socket option");
        }
    }

    /// Limits the memory that the kernel holds for sent and unsent data to `bytes` (`SO_SNDBUF`; the kernel doubles
    /// the value it is given).
    pub fn bound_send_buffer(&self, bytes: u32) {
        if let Err(error) = setsockopt(&self.0, sockopt::SndBuf, &(bytes as usize / 2)) {
            tracing::debug!(%error, "SO_SNDBUF");
        }
    }

    /// Reads the connection's state; `None` where the kernel is too old to report it (before 5.4).
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        let mut info = [0_u8; 256];
        let mut length = info.len() as libc::socklen_t;
        let mut outstanding: libc::c_int = 0;
        // SAFETY: the kernel writes at most `length` bytes into `info`, and one int into `outstanding`.
        let answered = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            ) == 0
                && libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ, &raw mut outstanding) == 0
        };
        if !answered || (length as usize) < offset::END {
            return None;
        }
        let u32_at = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
        let acked =
            u64::from_ne_bytes(info[offset::BYTES_ACKED..offset::BYTES_ACKED + 8].try_into().expect("eight bytes"));
        let (outstanding, unsent) = (u64::try_from(outstanding).unwrap_or(0), u32_at(offset::NOTSENT));
        let under_way = outstanding.saturating_sub(unsent.into());
        let (unacked, sacked) = (u64::from(u32_at(offset::UNACKED)), u64::from(u32_at(offset::SACKED)));
        Some(TcpInfo {
            acked,
            outstanding,
            window: u32_at(offset::SND_WND),
            unsent,
            arrived: acked + under_way * sacked.min(unacked) / unacked.max(1),
            rtt_us: u32_at(offset::RTT),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn sees_what_the_peer_acknowledged_and_its_window() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let connection = Connection::tuned(client.as_fd().try_clone_to_owned().unwrap());
        let before = connection.tcp_info().unwrap();
        client.write_all(&[7; 10_000]).unwrap();
        server.read_exact(&mut [0; 10_000]).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(3);
        while connection.tcp_info().unwrap().outstanding > 0 {
            assert!(std::time::Instant::now() < deadline, "never acknowledged");
            std::thread::yield_now();
        }
        let after = connection.tcp_info().unwrap();
        assert_eq!(after.acked - before.acked, 10_000);
        assert!(after.window > 0);
    }

    #[test]
    fn the_send_buffer_is_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = Connection::tuned(client.as_fd().try_clone_to_owned().unwrap());
        connection.bound_send_buffer(24_000);
        assert_eq!(getsockopt(&connection.0, sockopt::SndBuf).unwrap(), 24_000);
    }

    #[tokio::test]
    async fn hears_each_connection_of_the_process_to_a_server() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _never_begun = watch("127.0.0.1", 1).await;
        let mut connections = Vec::new();
        let mut waiting: Option<tokio::task::JoinHandle<_>> = None;
        for _ in 0..2 {
            let mut progress = match waiting.take() {
                Some(waiting) => waiting.await.unwrap(),
                None => watch("127.0.0.1", port).await,
            };
            let next = tokio::spawn(watch("127.0.0.1", port));
            tokio::task::yield_now().await;
            assert!(!next.is_finished(), "two attempts would be mixed up");
            waiting = Some(next);
            let client = gio::SocketClient::new();
            connections.push(client.connect_to_host("127.0.0.1", port, gio::Cancellable::NONE).unwrap());
            let mut connected = 0;
            while let Ok(step) = progress.try_recv() {
                connected += u32::from(matches!(step, Progress::Connected(_)));
            }
            assert_eq!(connected, 1);
        }
    }
}
