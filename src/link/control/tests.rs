use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tokio::task::JoinHandle;

use super::*;
use crate::link::control_client::{Client, ClientError, Watching};
use crate::protocol::control::{Checkup, DoctorLine};
use crate::protocol::control::{Done, Event, Holder, Lease, Level, Start, Started};
use crate::protocol::{CameraState, StreamState};

/// Far longer than anything here takes: a hang becomes a failure.
const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_hours(1);

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(SOON, wait).await.expect("it hangs")
}

struct Daemon {
    path: PathBuf,
    events: mpsc::Receiver<ControlEvent>,
    state: state_watch::Sender<DaemonState>,
    reports: broadcast::Sender<ReportLine>,
    shutdown: state_watch::Sender<bool>,
    served: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        Self::start_with(Limits { counters: NEVER, ..LIMITS })
    }

    fn start_with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = bind(&path, None).unwrap();
        let (to_device, events) = mpsc::channel(4);
        let (state, state_seen) = state_watch::channel(DaemonState { version: "7".into(), ..DaemonState::default() });
        let (reports, _) = broadcast::channel(8);
        let (shutdown, ordered) = state_watch::channel(false);
        let served = serve_within(limits, listener, to_device, state_seen, reports.clone(), ordered);
        let served = tokio::spawn(served);
        Self { path, events, state, reports, shutdown, served, _directory: directory }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.path).await.unwrap()
    }

    async fn raw(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(&self.path).await.unwrap())
    }

    async fn watcher(&self) -> Watching {
        soon(self.client().await.watch()).await.unwrap().1
    }

    async fn request(&mut self) -> (u64, Peer, Request, oneshot::Sender<Reply>) {
        match soon(self.events.recv()).await.unwrap() {
            ControlEvent::Request { connection, peer, request, reply } => (connection, peer, request, reply),
            ControlEvent::Closed { .. } => panic!("closed, but a request was expected"),
        }
    }

    async fn closed(&mut self) -> u64 {
        match soon(self.events.recv()).await.unwrap() {
            ControlEvent::Closed { connection } => connection,
            ControlEvent::Request { request, .. } => panic!("{request:?}, but an end was expected"),
        }
    }
}

async fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    soon(stream.read_line(&mut line)).await.unwrap();
    line
}

fn report(attempt: u32) -> ReportLine {
    ReportLine {
        stream_id: "s1".into(),
        state: StreamState::Reconnecting,
        failure: Some(Cause::NetworkStalled.into()),
        attempt,
        retry_in_ms: None,
    }
}

fn acquire() -> Request {
    Request::CameraAcquire { program: None }
}

#[tokio::test]
async fn status_is_answered_even_when_the_device_is_busy() {
    let daemon = Daemon::start();
    daemon.state.send_modify(|state| state.camera.state = CameraState::Running);
    let answer: Status = daemon.client().await.call(&Request::Status).await.unwrap();
    assert_eq!((answer.state.version.as_str(), answer.state.camera.state), ("7", CameraState::Running));
}

#[tokio::test]
async fn the_device_learns_who_asks_what_and_its_answer_arrives() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client().await;
    let start = Start {
        url: "rtmp://h/live/k".into(),
        app: None,
        stream_id: Some("s1".into()),
        kind: None,
        video: None,
        audio: None,
        duration_s: None,
    };
    let start = Request::Start(start);
    let (answered, ()) = tokio::join!(client.call::<Started>(&start), async {
        let (_, peer, request, reply) = daemon.request().await;
        assert_eq!(peer.pid, Some(std::process::id()));
        assert_eq!(peer.uid, nix::unistd::getuid().as_raw());
        assert!(!peer.program.is_empty());
        assert_eq!(request, start);
        reply.send(Ok(Answer::Started(Started { stream_id: "s1".into() }))).unwrap();
    });
    assert_eq!(answered.unwrap().stream_id, "s1");

    let (refused, ()) = tokio::join!(client.call::<Done>(&Request::Stop { stream_id: None }), async {
        daemon.request().await.3.send(Err(Cause::UnknownStream.into())).unwrap();
    });
    let Err(ClientError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.cause, Cause::UnknownStream);

    let lines = vec![DoctorLine { level: Level::Fail, subject: "camera".into(), text: "none".into() }];
    let (checkup, ()) = tokio::join!(client.call::<Checkup>(&Request::Doctor), async {
        daemon.request().await.3.send(Ok(Answer::Checkup(Checkup { lines: lines.clone() }))).unwrap();
    });
    assert_eq!(checkup.unwrap().lines, lines);

    let (holder, ()) = tokio::join!(client.call::<Holder>(&Request::CameraWho), async {
        daemon.request().await.3.send(Ok(Answer::Holder(Holder { owner: None }))).unwrap();
    });
    assert_eq!(holder.unwrap().owner, None);
}

#[tokio::test]
async fn a_photo_arrives_byte_for_byte_and_the_connection_goes_on() {
    let mut daemon = Daemon::start();
    let mut client = daemon.client().await;
    // Contains newlines, and is larger than any socket buffer.
    let jpeg: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (taken, ()) = tokio::join!(client.photo(None), async {
        daemon.request().await.3.send(Ok(Answer::Photo(jpeg.clone()))).unwrap();
    });
    assert!(taken.unwrap() == jpeg);
    assert!(client.call::<Status>(&Request::Status).await.is_ok());
}

#[tokio::test]
async fn a_malformed_request_is_refused_and_the_next_one_served() {
    let daemon = Daemon::start();
    let mut stream = daemon.raw().await;
    stream.write_all(b"hello\n{\"cmd\":\"status\",\"fast\":1}\n\xff\n\n{\"cmd\":\"status\"}\n").await.unwrap();
    assert!(line(&mut stream).await.starts_with(r#"{"ok":false,"error":{"cause":"invalid_request","#));
    assert!(line(&mut stream).await.contains("fast"));
    assert!(line(&mut stream).await.contains("invalid_request"));
    assert!(line(&mut stream).await.starts_with(r#"{"ok":true,"state":"#));
}

#[tokio::test]
async fn a_line_without_end_is_refused() {
    let daemon = Daemon::start();
    let mut stream = daemon.raw().await;
    let endless = vec![b' '; MAX_REQUEST_LINE + 1];
    stream.write_all(&endless).await.unwrap();
    assert!(line(&mut stream).await.contains("invalid_request"));
    assert_eq!(line(&mut stream).await, "");
}

#[tokio::test]
async fn a_client_that_only_stopped_writing_still_gets_its_answer() {
    let mut daemon = Daemon::start();
    let mut stream = daemon.raw().await;
    stream.write_all(b"{\"cmd\":\"stop\"}").await.unwrap();
    stream.shutdown().await.unwrap();
    let (connection, _, _, reply) = daemon.request().await;
    reply.send(Ok(Answer::Done)).unwrap();
    assert_eq!(line(&mut stream).await, "{\"ok\":true}\n");
    assert_eq!(daemon.closed().await, connection);
}

#[tokio::test]
async fn a_lease_ends_with_its_process_however_it_dies() {
    let mut daemon = Daemon::start();
    // A process whose standard input is the connection.
    let stream = std::os::unix::net::UnixStream::connect(&daemon.path).unwrap();
    std::io::Write::write_all(&mut &stream, b"{\"cmd\":\"camera_acquire\"}\n").unwrap();
    let stdin = Stdio::from(OwnedFd::from(stream));
    let mut process = Command::new("sleep").arg("1000").stdin(stdin).spawn().unwrap();
    let (connection, _, request, reply) = daemon.request().await;
    assert_eq!(request, acquire());
    reply.send(Ok(Answer::Lease(Lease { lease: 1, device: "/dev/video0".into() }))).unwrap();
    assert!(daemon.events.try_recv().is_err(), "the lease holds while the process lives");
    process.kill().unwrap();
    assert_eq!(daemon.closed().await, connection);
    process.wait().unwrap();
}

#[tokio::test]
async fn a_client_that_dies_while_it_waits_is_noticed_and_its_grant_comes_back() {
    let mut daemon = Daemon::start();
    let mut stream = daemon.raw().await;
    stream.write_all(b"{\"cmd\":\"camera_acquire\"}\n").await.unwrap();
    let (connection, _, _, reply) = daemon.request().await;
    drop(stream);
    assert_eq!(daemon.closed().await, connection);
    assert!(reply.send(Ok(Answer::Lease(Lease { lease: 1, device: "/dev/video0".into() }))).is_err());
}

#[tokio::test]
async fn connections_have_numbers_of_their_own() {
    let mut daemon = Daemon::start();
    let mut seen = Vec::new();
    for _ in 0..3 {
        drop(daemon.raw().await);
        seen.push(daemon.closed().await);
    }
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_device_that_does_not_answer_is_an_internal_error() {
    let mut daemon = Daemon::start_with(Limits { reply: Duration::from_millis(30), ..LIMITS });
    let refused = daemon.client().await.call::<Lease>(&acquire()).await;
    let Err(ClientError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.cause, Cause::Internal);
    let (_, _, _, reply) = daemon.request().await;
    assert!(reply.send(Ok(Answer::Done)).is_err(), "the device must learn that its answer came too late");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let mut daemon = Daemon::start_with(Limits { connections: 2, ..LIMITS });
    let mut first = daemon.client().await;
    let mut second = daemon.client().await;
    for client in [&mut first, &mut second] {
        client.call::<Status>(&Request::Status).await.unwrap();
    }
    let refused = daemon.client().await.call::<Status>(&Request::Status).await;
    let Err(ClientError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert!(refusal.message.contains("2 connections"));
    drop(first);
    daemon.closed().await;
    soon(async { while daemon.client().await.call::<Status>(&Request::Status).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped() {
    let mut daemon = Daemon::start_with(Limits { write: Duration::from_millis(50), ..LIMITS });
    let mut stream = daemon.raw().await;
    stream.write_all(b"{\"cmd\":\"photo\"}\n").await.unwrap();
    let (connection, _, _, reply) = daemon.request().await;
    reply.send(Ok(Answer::Photo(vec![0; 8_000_000]))).unwrap();
    assert_eq!(daemon.closed().await, connection);
}

#[tokio::test]
async fn a_watcher_gets_every_report_in_order() {
    let daemon = Daemon::start();
    let mut watcher = daemon.watcher().await;
    for attempt in 1..=50 {
        daemon.reports.send(report(attempt)).unwrap();
        assert_eq!(soon(watcher.next()).await.unwrap(), Event::Report(report(attempt)));
    }
}

#[tokio::test]
async fn a_watcher_that_lags_is_told_and_gets_the_state_anew() {
    let daemon = Daemon::start();
    let mut watcher = daemon.watcher().await;
    daemon.state.send_modify(|state| state.uptime_s = 99);
    // More than the channel holds, before the connection's task can run.
    for attempt in 0..100 {
        daemon.reports.send(report(attempt)).unwrap();
    }
    assert_eq!(soon(watcher.next()).await.unwrap(), Event::Lagged);
    let Event::State { state } = soon(watcher.next()).await.unwrap() else { panic!("no state") };
    assert_eq!(state.uptime_s, 99);
    daemon.reports.send(report(7)).unwrap();
    assert_eq!(soon(watcher.next()).await.unwrap(), Event::Report(report(7)));
}

#[tokio::test]
async fn counters_wait_but_news_does_not() {
    let daemon = Daemon::start();
    let mut watcher = daemon.watcher().await;
    daemon.state.send_modify(|state| state.uptime_s = 1);
    tokio::task::yield_now().await;
    daemon.reports.send(report(1)).unwrap();
    assert_eq!(soon(watcher.next()).await.unwrap(), Event::Report(report(1)));
    daemon.state.send_modify(|state| state.camera.state = CameraState::Opening);
    let Event::State { state } = soon(watcher.next()).await.unwrap() else { panic!("no state") };
    assert_eq!(state.camera.state, CameraState::Opening);
}

#[tokio::test]
async fn counters_come_after_their_interval() {
    let daemon = Daemon::start_with(Limits { counters: Duration::from_millis(20), ..LIMITS });
    let mut watcher = daemon.watcher().await;
    for uptime_s in 1..4 {
        daemon.state.send_modify(|state| state.uptime_s = uptime_s);
        let Event::State { state } = soon(watcher.next()).await.unwrap() else { panic!("no state") };
        assert_eq!(state.uptime_s, uptime_s);
    }
}

#[tokio::test]
async fn a_watcher_that_leaves_is_noticed() {
    let mut daemon = Daemon::start();
    drop(daemon.watcher().await);
    daemon.closed().await;
}

#[tokio::test]
async fn at_shutdown_everybody_gets_the_last_word() {
    let mut daemon = Daemon::start();
    let mut watcher = daemon.watcher().await;
    let mut idle = daemon.raw().await;
    let mut waiting = daemon.raw().await;
    waiting.write_all(b"{\"cmd\":\"camera_acquire\"}\n").await.unwrap();
    let _request = daemon.request().await;

    daemon.reports.send(report(3)).unwrap();
    daemon.state.send_modify(|state| state.uptime_s = 5);
    daemon.shutdown.send(true).unwrap();
    assert_eq!(soon(watcher.next()).await.unwrap(), Event::Report(report(3)));
    let Event::State { state } = soon(watcher.next()).await.unwrap() else { panic!("no state") };
    assert_eq!(state.uptime_s, 5);
    assert!(matches!(soon(watcher.next()).await, Err(ClientError::Closed)));
    assert!(line(&mut waiting).await.contains(r#""cause":"shutdown""#));
    assert_eq!(line(&mut idle).await, "");
    soon(daemon.served).await.unwrap();
    assert!(!daemon.path.exists());
}

#[tokio::test]
async fn shutdown_waits_for_nobody_who_does_not_read() {
    let mut daemon = Daemon::start_with(Limits { farewell: Duration::from_millis(50), write: NEVER, ..LIMITS });
    let mut stream = daemon.raw().await;
    stream.write_all(b"{\"cmd\":\"photo\"}\n").await.unwrap();
    daemon.request().await.3.send(Ok(Answer::Photo(vec![0; 8_000_000]))).unwrap();
    daemon.shutdown.send(true).unwrap();
    soon(daemon.served).await.unwrap();
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_goes_with_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = bind(&path, Some("no-such-group-here")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_socket_goes_to_the_group() {
    let groups = nix::unistd::getgroups().unwrap();
    let others = groups.into_iter().find(|&gid| gid != nix::unistd::getegid());
    // Root may give files to any group.
    let gid = others.or_else(|| nix::unistd::geteuid().is_root().then(|| nix::unistd::Gid::from_raw(1)));
    let Some(group) = gid.and_then(|gid| nix::unistd::Group::from_gid(gid).unwrap()) else {
        eprintln!("skipped: this user is in one group only");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _listener = bind(&path, Some(&group.name)).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&fs::metadata(&path).unwrap()), group.gid.as_raw());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_but_a_living_daemon_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a daemon that was killed leaves its socket behind");
    let _living = bind(&path, None).unwrap();
    let error = bind(&path, None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(path.to_str().unwrap()));
    assert!(UnixStream::connect(&path).await.is_ok());
}

#[tokio::test]
async fn what_is_no_socket_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    fs::write(&path, "precious").unwrap();
    assert_eq!(bind(&path, None).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn the_socket_of_a_successor_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let old = bind(&path, None).unwrap();
    fs::remove_file(&path).unwrap();
    let _new = bind(&path, None).unwrap();
    drop(old);
    assert!(UnixStream::connect(&path).await.is_ok());
}
