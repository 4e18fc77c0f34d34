//! Collects and sends datagrams. Consecutive ones of equal size to one viewer, as most of a picture's are, go to the
//! kernel in one call (UDP segmentation offload, Linux 4.18): the call is most of the cost of a datagram.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// How long a network card may refuse a datagram before it is dropped.
const CARD_LIMIT: Duration = Duration::from_millis(20);

/// The most datagrams per call. The kernel's limit is `UDP_MAX_SEGMENTS`; this also keeps a call below 64 KiB, as is
/// required.
const SEGMENTS: usize = 48;

/// The queue of datagrams to send.
#[derive(Debug, Default)]
pub struct Outbox {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Whether this kernel or network card cannot segment.
    one_by_one: bool,
}

impl Outbox {
    /// Queues a datagram for [`Outbox::flush`].
    pub fn put(&mut self, destination: SocketAddr, datagram: Vec<u8>) {
        self.datagrams.push((destination, datagram));
    }

    /// The queued datagrams.
    #[cfg(test)]
    pub fn take(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.datagrams)
    }

    /// Sends everything. A datagram that the network card does not take in time is lost, as datagrams may be.
    pub async fn flush(&mut self, socket: &UdpSocket) {
        let mut sent = 0;
        while sent < self.datagrams.len() {
            let count = if self.one_by_one { 1 } else { batch(&self.datagrams[sent..]) };
            let datagrams = &self.datagrams[sent..sent + count];
            let outcome = socket.try_io(Interest::WRITABLE, || send(socket, datagrams));
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if tokio::time::timeout(CARD_LIMIT, socket.writable()).await.is_err() {
                        sent += count;
                    }
                }
                Err(error) if count > 1 && cannot_segment(&error) => {
                    tracing::info!(%error, "no UDP segmentation offload here; sending datagrams one by one");
                    self.one_by_one = true;
                }
                // An error concerns one viewer's address, for example unreachable. If it lasts, that session ends by
                // silence.
                Ok(()) | Err(_) => sent += count,
            }
        }
        self.datagrams.clear();
    }
}

/// How many of the first datagrams can go in one call: to one address, all of one size except a smaller last one.
fn batch(datagrams: &[(SocketAddr, Vec<u8>)]) -> usize {
    let (destination, first) = &datagrams[0];
    let to_same = datagrams.iter().take(SEGMENTS).take_while(|(to, _)| to == destination);
    let mut count = 0;
    for (_, datagram) in to_same {
        if datagram.len() > first.len() {
            break;
        }
        count += 1;
        if datagram.len() < first.len() {
            break;
        }
    }
    count
}

fn send(socket: &UdpSocket, datagrams: &[(SocketAddr, Vec<u8>)]) -> io::Result<()> {
    let (destination, first) = &datagrams[0];
    let address = SockaddrStorage::from(*destination);
    let size = first.len() as u16;
    let segments = [ControlMessage::UdpGsoSegments(&size)];
    let control = if datagrams.len() > 1 { &segments[..] } else { &[] };
    let parts: Vec<IoSlice> = datagrams.iter().map(|(_, datagram)| IoSlice::new(datagram)).collect();
    sendmsg(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_DONTWAIT, Some(&address))?;
    Ok(())
}

fn cannot_segment(error: &io::Error) -> bool {
    [Errno::EIO, Errno::EINVAL, Errno::ENOPROTOOPT, Errno::EOPNOTSUPP, Errno::EMSGSIZE]
        .iter()
        .any(|&errno| error.raw_os_error() == Some(errno as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_arrive_as_they_were_put_in() {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for one_by_one in [false, true] {
            let mut outbox = Outbox { one_by_one, ..Outbox::default() };
            let sizes = [40, 1100, 1100, 1100, 700, 1100, 50, 60, 60, 1];
            for (n, &size) in sizes.iter().enumerate() {
                outbox.put(to.local_addr().unwrap(), vec![n as u8; size]);
            }
            outbox.put(other.local_addr().unwrap(), vec![99; 7]);
            outbox.flush(&from).await;
            assert_eq!(outbox.one_by_one, one_by_one, "this kernel segments");
            let mut buffer = [0; 2048];
            for (n, &size) in sizes.iter().enumerate() {
                let length = tokio::time::timeout(Duration::from_secs(5), to.recv(&mut buffer)).await.unwrap().unwrap();
                assert_eq!((length, buffer[0], buffer[length - 1]), (size, n as u8, n as u8));
            }
            let length = tokio::time::timeout(Duration::from_secs(5), other.recv(&mut buffer)).await.unwrap().unwrap();
            assert_eq!((length, buffer[0]), (7, 99));
        }
    }
}
