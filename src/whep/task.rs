//! The task that owns the socket and all sessions. It never waits for a viewer. It waits for the network card if that
//! takes no more datagrams, which concerns all viewers, and only briefly.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::answer::Agreed;
use super::outbox::Outbox;
use super::registry::Stream;
use super::session::Session;
use super::stream::{self, Picture, Unit};

/// The most units in the queue from all streams' tasks.
const UNITS: usize = 64;

/// How many datagrams are received before sessions get their turn.
const RECEIVE_BATCH: usize = 64;

/// Limits of the pictures kept for new viewers of a stream. Beyond either, new viewers wait for the next key frame.
const REPLAY_BYTES: usize = 8 << 20;
const REPLAY_TIME: Duration = Duration::from_secs(10);

/// The most addresses of one session. A viewer on the move has a few; a forger would like many.
const ADDRESSES: usize = 8;

/// Time limit for all goodbyes at the end.
const GOODBYES_LIMIT: Duration = Duration::from_millis(500);

/// Larger than any UDP datagram over Ethernet; a longer one is truncated, and then ignored.
const DATAGRAM: usize = 2048;

/// The buffer size requested of the kernel, which may grant less.
const SOCKET_BUFFER: usize = 4 << 20;

/// A request of HTTP to the task.
#[derive(Debug)]
pub enum Command {
    /// A session was agreed on.
    Join(Box<Join>),
    /// A viewer leaves. The reply says whether the session existed.
    Leave { stream: u64, name: String, reply: oneshot::Sender<bool> },
    /// Asks for a session's user name fragment; the reply is `None` if there is no such session.
    Find { stream: u64, name: String, reply: oneshot::Sender<Option<String>> },
}

/// A session that wants to begin.
#[derive(Debug)]
pub struct Join {
    pub agreed: Agreed,
    pub stream: Arc<Stream>,
    /// Its part of the URL.
    pub name: String,
    /// The reply says whether there is room.
    pub reply: oneshot::Sender<bool>,
}

/// The inputs of the task.
#[derive(Debug)]
pub struct Inputs {
    pub socket: UdpSocket,
    /// The socket's addresses as viewers know them.
    pub addresses: Vec<SocketAddr>,
    pub inbox: mpsc::Receiver<Command>,
    /// True when the task must end.
    pub stopped: watch::Receiver<bool>,
}

/// Lets bursts to many viewers wait in the kernel.
pub fn enlarge_buffers(socket: &UdpSocket) {
    for set in [
        setsockopt(&socket.as_fd(), sockopt::SndBuf, &SOCKET_BUFFER),
        setsockopt(&socket.as_fd(), sockopt::RcvBuf, &SOCKET_BUFFER),
    ] {
        if let Err(error) = set {
            tracing::debug!(%error, "WebRTC socket buffers could not be enlarged");
        }
    }
}

/// Runs until told to stop, or until no handle is left.
pub async fn run(inputs: Inputs, limit: usize) {
    let Inputs { socket, addresses, mut inbox, mut stopped } = inputs;
    let (sender, mut units) = mpsc::channel(UNITS);
    let mut task =
        Task { sessions: Sessions::default(), streams: HashMap::new(), tasks: JoinSet::new(), sender, limit };
    let mut out = Outbox::default();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let due = task.sessions.due();
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped.changed() => break,
            command = inbox.recv() => match command {
                Some(command) => task.obey(command, &mut out),
                None => break,
            },
            Some((stream, unit)) = units.recv() => task.deliver(stream, &unit, &mut out),
            _ = socket.readable() => task.receive(&socket, &addresses, &mut buffer, &mut out),
            () = timer => task.wake(&mut out),
            Some(_) = task.tasks.join_next() => {}
        }
        out.flush(&socket).await;
    }
    task.part(&mut out);
    let _ = tokio::time::timeout(GOODBYES_LIMIT, out.flush(&socket)).await; // who missed it times out
    task.tasks.shutdown().await;
}

struct Task {
    sessions: Sessions,
    /// The watched streams, by number.
    streams: HashMap<u64, Watched>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<(u64, Unit)>,
    limit: usize,
}

/// A stream that somebody watches.
struct Watched {
    stream: Arc<Stream>,
    task: AbortHandle,
    sessions: BTreeSet<u64>,
    /// Everything since the last key frame.
    replay: Vec<Arc<Picture>>,
    replay_bytes: usize,
}

impl Task {
    fn obey(&mut self, command: Command, out: &mut Outbox) {
        match command {
            Command::Join(join) => self.join(*join),
            Command::Leave { stream, name, reply } => {
                let number = self.sessions.find(stream, &name);
                let _ = reply.send(number.is_some()); // who asked may be gone
                if let Some(number) = number {
                    self.end(number, out);
                }
            }
            Command::Find { stream, name, reply } => {
                let found = self.sessions.find(stream, &name).and_then(|number| self.sessions.by_number.get(&number));
                let _ = reply.send(found.map(|session| session.ufrag.clone())); // who asked may be gone
            }
        }
    }

    fn join(&mut self, join: Join) {
        let Join { agreed, stream, name, reply } = join;
        let room = self.sessions.by_number.len() < self.limit;
        // The HTTP request has been given up, so no viewer would ever come.
        if reply.send(room).is_err() || !room {
            return;
        }
        let sender = self.sender.clone();
        let tasks = &mut self.tasks;
        let watched = self.streams.entry(stream.number).or_insert_with(|| Watched {
            task: tasks.spawn(stream::run(stream.clone(), sender)),
            stream: stream.clone(),
            sessions: BTreeSet::new(),
            replay: Vec::new(),
            replay_bytes: 0,
        });
        let number = self.sessions.add(Session::new(agreed, stream.number, Instant::now()), name);
        watched.sessions.insert(number);
    }

    fn deliver(&mut self, stream: u64, unit: &Unit, out: &mut Outbox) {
        let Some(watched) = self.streams.get_mut(&stream) else { return };
        if let Unit::Picture(picture) = unit {
            watched.keep(picture);
        }
        let numbers: Vec<u64> = watched.sessions.iter().copied().collect();
        for number in numbers {
            let Some(session) = self.sessions.by_number.get_mut(&number) else { continue };
            match unit {
                Unit::Picture(picture) => session.picture(picture),
                Unit::Sound(sound) => session.sound(sound),
                Unit::End => {
                    self.end(number, out);
                    continue;
                }
            }
            if session.is_connected() {
                self.advance(number, out);
            }
        }
    }

    fn receive(&mut self, socket: &UdpSocket, known_as: &[SocketAddr], buffer: &mut [u8], out: &mut Outbox) {
        for _ in 0..RECEIVE_BATCH {
            let (length, source) = match socket.try_recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A viewer's machine reports that nobody listens there any more. The next datagram may be another
                // viewer's.
                Err(_) => continue,
            };
            let Some(number) = self.sessions.addressee(source, &buffer[..length]) else { continue };
            let of_family = known_as.iter().find(|address| address.is_ipv4() == source.is_ipv4());
            let Some(&destination) = of_family else { continue };
            if let Some(session) = self.sessions.by_number.get_mut(&number) {
                session.receive(source, destination, &buffer[..length], Instant::now());
                self.advance(number, out);
            }
        }
    }

    fn wake(&mut self, out: &mut Outbox) {
        let now = Instant::now();
        while let Some(number) = self.sessions.pop_due(now) {
            self.advance(number, out);
        }
    }

    fn advance(&mut self, number: u64, out: &mut Outbox) {
        let Some(session) = self.sessions.by_number.get_mut(&number) else { return };
        let now = Instant::now();
        let mut progress = session.advance(now, out);
        if progress.connected
            && let Some(watched) = self.streams.get(&session.stream)
        {
            watched.stream.viewers.fetch_add(1, Ordering::Relaxed);
            session.replay(&watched.replay);
            progress.over |= session.advance(now, out).over;
        }
        if progress.over {
            self.remove(number);
        } else {
            self.sessions.schedule(number);
        }
    }

    /// Says goodbye to a viewer, with one datagram. A viewer that misses it notices the silence.
    fn end(&mut self, number: u64, out: &mut Outbox) {
        if let Some(session) = self.sessions.by_number.get_mut(&number) {
            session.close();
            session.advance(Instant::now(), out);
        }
        self.remove(number);
    }

    fn part(&mut self, out: &mut Outbox) {
        let numbers: Vec<u64> = self.sessions.by_number.keys().copied().collect();
        for number in numbers {
            self.end(number, out);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(session) = self.sessions.remove(number) else { return };
        let Some(watched) = self.streams.get_mut(&session.stream) else { return };
        if session.was_connected() {
            watched.stream.viewers.fetch_sub(1, Ordering::Relaxed);
        }
        watched.sessions.remove(&number);
        if watched.sessions.is_empty() {
            watched.task.abort();
            self.streams.remove(&session.stream);
        }
    }
}

impl Watched {
    fn keep(&mut self, picture: &Arc<Picture>) {
        if picture.key {
            self.replay.clear();
            self.replay_bytes = 0;
        } else if self.replay.is_empty() {
            return;
        }
        self.replay_bytes += picture.packets.iter().map(|packet| packet.len()).sum::<usize>();
        self.replay.push(picture.clone());
        let length = picture.time.saturating_sub(self.replay[0].time);
        if self.replay_bytes > REPLAY_BYTES || length > REPLAY_TIME {
            self.replay.clear();
        }
    }
}

/// All sessions, indexed in every way they are looked up.
#[derive(Default)]
struct Sessions {
    by_number: HashMap<u64, Session>,
    by_name: HashMap<String, u64>,
    by_ufrag: HashMap<String, u64>,
    by_address: HashMap<SocketAddr, u64>,
    names: HashMap<u64, String>,
    /// When each session needs its turn.
    schedule: BTreeSet<(Instant, u64)>,
    scheduled: HashMap<u64, Instant>,
    added: u64,
}

impl Sessions {
    fn add(&mut self, session: Session, name: String) -> u64 {
        self.added += 1;
        let number = self.added;
        self.by_ufrag.insert(session.ufrag.clone(), number);
        self.by_name.insert(name.clone(), number);
        self.names.insert(number, name);
        self.by_number.insert(number, session);
        self.schedule(number);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Session> {
        let session = self.by_number.remove(&number)?;
        self.by_ufrag.remove(&session.ufrag);
        if let Some(name) = self.names.remove(&number) {
            self.by_name.remove(&name);
        }
        for address in &session.addresses {
            if self.by_address.get(address) == Some(&number) {
                self.by_address.remove(address);
            }
        }
        if let Some(due) = self.scheduled.remove(&number) {
            self.schedule.remove(&(due, number));
        }
        Some(session)
    }

    fn find(&self, stream: u64, name: &str) -> Option<u64> {
        let number = *self.by_name.get(name)?;
        (self.by_number.get(&number)?.stream == stream).then_some(number)
    }

    /// The session that a datagram is for. A STUN request is matched by its user name, and its source address is then
    /// remembered.
    fn addressee(&mut self, source: SocketAddr, datagram: &[u8]) -> Option<u64> {
        let Some(ufrag) = super::stun::local_ufrag(datagram) else { return self.by_address.get(&source).copied() };
        let number = *self.by_ufrag.get(ufrag)?;
        let session = self.by_number.get_mut(&number)?;
        if !session.addresses.contains(&source) && session.addresses.len() < ADDRESSES {
            session.addresses.push(source);
            self.by_address.insert(source, number);
        }
        Some(number)
    }

    fn schedule(&mut self, number: u64) {
        let Some(session) = self.by_number.get(&number) else { return };
        if let Some(before) = self.scheduled.insert(number, session.due) {
            self.schedule.remove(&(before, number));
        }
        self.schedule.insert((session.due, number));
    }

    fn due(&self) -> Option<Instant> {
        self.schedule.first().map(|(due, _)| *due)
    }

    fn pop_due(&mut self, now: Instant) -> Option<u64> {
        let &(due, number) = self.schedule.first().filter(|(due, _)| *due <= now)?;
        self.schedule.remove(&(due, number));
        self.scheduled.remove(&number);
        Some(number)
    }
}
