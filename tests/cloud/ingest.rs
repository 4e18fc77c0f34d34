//! Publishers of every kind, correct and malicious.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lenscast::broadcast::{Bounds, Broadcast, Frame, Media};
use lenscast::ingest::{Event, Happening, Ingest, Limits, Stop, serve};
use lenscast::protocol::Secret;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::material::{self, Material};
use crate::support::control::small;
use crate::support::{Certificate, Daemon, Process, poll_until};

const SOON: Duration = Duration::from_secs(10);
pub const KEY: &str = "a-good-key";
pub const STREAM: &str = "stream-1";

/// The server on a thread of its own, with one stream.
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    pub ingest: Ingest,
    pub broadcast: Broadcast,
    frames: Arc<Mutex<Vec<Arc<Frame>>>>,
    events: Arc<Mutex<Vec<Event>>>,
    shutdown: Option<watch::Sender<bool>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(Limits::default(), None)
    }

    fn with(limits: Limits, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let address = listener.local_addr().expect("a bound socket has an address");
        let scheme = if tls.is_some() { "rtmps" } else { "rtmp" };
        let (ingest, mut receiver) = Ingest::new();
        let broadcast = Broadcast::new(Bounds::default());
        ingest.open(&Secret::new(KEY), STREAM, broadcast.clone());
        let (shutdown, ended) = watch::channel(false);
        let (frames, events) = (Arc::<Mutex<Vec<Arc<Frame>>>>::default(), Arc::<Mutex<Vec<Event>>>::default());
        let (handle, frames_seen, events_seen) = (ingest.clone(), Arc::clone(&frames), Arc::clone(&events));
        let mut reader = broadcast.reader();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::spawn(async move {
                    while let Ok(frame) = reader.next().await {
                        frames_seen.lock().unwrap().push(frame);
                    }
                });
                tokio::spawn(async move {
                    while let Some(event) = receiver.recv().await {
                        events_seen.lock().unwrap().push(event);
                    }
                });
                serve(listener, tls, handle, limits, ended).await;
            });
        });
        Self { address, scheme, ingest, broadcast, frames, events, shutdown: Some(shutdown), thread: Some(thread) }
    }

    pub fn url(&self, key: &str) -> String {
        format!("{}://{}/live/{key}", self.scheme, self.address)
    }

    fn wait(&self, what: &str, within: Duration, is_it: impl Fn(&Event) -> bool) -> Event {
        poll_until(what, within, || self.events.lock().unwrap().iter().find(|event| is_it(event)).cloned())
    }

    fn wait_publishing(&self, publication: u64) {
        self.wait("a publication", SOON, |event| {
            event.publication == publication && matches!(event.what, Happening::Publishing { .. })
        });
    }

    pub fn wait_stopped(&self, publication: u64) -> Stop {
        let event = self.wait("the end of a publication", SOON, |event| {
            event.publication == publication && matches!(event.what, Happening::Stopped(_))
        });
        match event.what {
            Happening::Stopped(stop) => stop,
            Happening::Publishing { .. } => unreachable!(),
        }
    }

    fn pictures(&self) -> u64 {
        self.broadcast.statistics().pictures
    }

    fn wait_pictures(&self, count: u64) {
        poll_until(&format!("{count} pictures"), SOON, || (self.pictures() >= count).then_some(()));
    }

    /// Ends the server and returns all frames.
    pub fn finish(mut self) -> Vec<Arc<Frame>> {
        self.shutdown.take();
        self.thread.take().expect("it runs").join().expect("no panic");
        std::mem::take(&mut *self.frames.lock().unwrap())
    }
}

fn quiet(mut command: Command) -> Process {
    Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

pub fn ffmpeg(input: &[&str], material: &Material, url: &str) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error"]).args(input).arg("-i").arg(&material.file);
    command.args(["-c", "copy", "-f", "flv", url]);
    quiet(command)
}

fn gst(material: &Material, sink: &[&str]) -> Process {
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "filesrc"]).arg(format!("location={}", material.file.display()));
    command.args("! qtdemux name=d d.video_0 ! queue ! h264parse ! flvmux name=m streamable=true !".split(' '));
    command.args(sink).args("d.audio_0 ! queue ! aacparse ! m.".split(' '));
    quiet(command)
}

fn tracks(frames: &[Arc<Frame>]) -> [Vec<&Frame>; 2] {
    let track = |video| frames.iter().map(Arc::as_ref).filter(|frame| frame.is_video() == video).collect();
    [track(true), track(false)]
}

/// Asserts that all of `material` arrived, except `left_out` sound frames, in order, at the right times and in the form
/// that a reader expects.
fn assert_whole(frames: &[Arc<Frame>], material: &Material, left_out: u64) {
    let [pictures, sounds] = tracks(frames);
    assert_eq!((pictures.len() as u64, sounds.len() as u64), (material.pictures, material.sounds - left_out));
    assert!(pictures[0].is_key());
    for track in [&pictures, &sounds] {
        assert!(track.is_sorted_by(|a, b| a.dts < b.dts), "decoding times rise strictly");
        let length = track[track.len() - 1].dts.saturating_sub(track[0].dts).as_secs_f64();
        let expected = material.pictures as f64 / 30.0;
        assert!((expected - length).abs() < 0.15, "{length} s of {expected} s");
    }
    assert!(pictures[0].dts.abs_diff(sounds[0].dts) < Duration::from_millis(150), "picture and sound are together");
    let mut shown: Vec<Duration> = Vec::new();
    for frame in &pictures {
        let Media::Video { format, pts, key } = &frame.media else { unreachable!() };
        assert_eq!((format.width, format.height, *key), (320, 180, has_idr(&frame.data)));
        assert!(!nal_kinds(&frame.data).iter().any(|kind| matches!(kind, 7..=9)));
        shown.push(*pts);
    }
    assert!(!shown.is_sorted(), "B-frames are shown in another order than decoded");
    shown.sort();
    let steps = shown.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
    assert!(steps.clone().all(|step| step > Duration::from_millis(20) && step < Duration::from_millis(50)), "evenly");
}

fn nal_kinds(mut data: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let (unit, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        kinds.push(unit[0] & 31);
        data = rest;
    }
    kinds
}

fn has_idr(data: &[u8]) -> bool {
    nal_kinds(data).contains(&5)
}

/// Sound frames that GStreamer drops: `qtdemux` leaves out the encoder's lead-in, which lies before the picture's
/// beginning.
const LEAD_IN: u64 = 1;

fn published_whole(server: Server, left_out: u64, mut publisher: Process) -> ExitStatus {
    let status = publisher.wait(Duration::from_secs(20));
    assert_eq!(server.wait_stopped(1), Stop::Finished);
    assert_whole(&server.finish(), material::short(), left_out);
    status
}

#[test]
fn ffmpeg_publishes_whole() {
    let server = Server::start();
    let publisher = ffmpeg(&["-re"], material::short(), &server.url(KEY));
    server.wait_publishing(1);
    let event = server.events.lock().unwrap()[0].clone();
    assert_eq!(event.stream_id, STREAM);
    assert!(matches!(event.what, Happening::Publishing { peer, encoder: Some(_) } if peer.ip().is_loopback()));
    assert!(published_whole(server, 0, publisher).success());
}

#[test]
fn gstreamers_rtmp2sink_publishes_whole() {
    let server = Server::start();
    let publisher = gst(material::short(), &["rtmp2sink", &format!("location={}", server.url(KEY))]);
    assert!(published_whole(server, LEAD_IN, publisher).success());
}

#[test]
fn librtmp_publishes_whole() {
    let server = Server::start();
    let publisher = gst(material::short(), &["rtmpsink", &format!("location={} live=1", server.url(KEY))]);
    assert!(published_whole(server, LEAD_IN, publisher).success());
}

#[test]
fn ffmpeg_publishes_whole_over_tls() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = Certificate::self_signed();
    let chain = vec![CertificateDer::from_pem_file(certificate.chain()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(certificate.key()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    let server = Server::with(Limits::default(), Some(Arc::new(config).into()));
    let publisher = ffmpeg(&["-re"], material::short(), &server.url(KEY));
    assert!(published_whole(server, 0, publisher).success());
}

#[test]
fn our_daemon_publishes_and_ends_politely() {
    let server = Server::start();
    let daemon = Daemon::start("");
    daemon.control().granted(&small(&server.url(KEY), "org.example.app", "stream"));
    server.wait_pictures(60);
    daemon.control().granted(&serde_json::json!({"cmd": "stop"}));
    assert_eq!(server.wait_stopped(1), Stop::Finished);
    daemon.finish();
    let frames = server.finish();
    let [pictures, sounds] = tracks(&frames);
    assert!(pictures[0].is_key() && !sounds.is_empty());
    for track in [pictures, sounds] {
        assert!(track.is_sorted_by(|a, b| a.dts < b.dts));
        let span = track[track.len() - 1].dts.saturating_sub(track[0].dts);
        let wall = track[track.len() - 1].arrived - track[0].arrived;
        assert!(span.abs_diff(wall) < Duration::from_millis(700), "media time {span:?}, wall clock {wall:?}");
    }
}

#[test]
fn a_second_publisher_with_the_key_takes_over_at_once() {
    let server = Server::start();
    let mut first = ffmpeg(&["-re", "-stream_loop", "-1"], material::short(), &server.url(KEY));
    server.wait_pictures(20);
    let second = ffmpeg(&["-re", "-stream_loop", "-1"], material::short(), &server.url(KEY));
    server.wait_publishing(2);
    assert_eq!(server.wait_stopped(1), Stop::TakenOver);
    first.wait(SOON);
    let then = server.pictures();
    server.wait_pictures(then + 20);
    drop(second);
    assert_eq!(server.wait_stopped(2), Stop::Lost);
    let frames = server.finish();
    assert!(frames.is_sorted_by_key(|frame| frame.publication));
    assert_eq!(frames[frames.len() - 1].publication, 2);
    for track in tracks(&frames) {
        assert!(track.is_sorted_by(|a, b| a.dts < b.dts), "also from one publication to the next");
    }
    let begins = frames.iter().position(|frame| frame.publication == 2).unwrap();
    let [pictures, _] = tracks(&frames[begins..]);
    assert!(pictures[0].is_key());
    let wall = frames[begins].arrived - frames[0].arrived;
    assert!(
        frames[begins].dts.saturating_sub(frames[0].dts).abs_diff(wall) < Duration::from_millis(500),
        "in step with the clock"
    );
}

#[test]
fn a_wrong_key_is_refused_and_a_closed_stream_ends_its_publisher() {
    let server = Server::start();
    for (key, sink) in [("wrong", "rtmp2sink"), ("a-good-ke", "rtmpsink")] {
        let mut publisher = gst(material::short(), &[sink, &format!("location={}", server.url(key))]);
        assert!(!publisher.wait(SOON).success(), "{sink} was not refused");
    }
    let mut publisher = ffmpeg(&["-re"], material::short(), &server.url("wrong"));
    assert!(!publisher.wait(SOON).success());
    let other = server.url(KEY).replace("/live/", "/other/");
    assert!(!ffmpeg(&["-re"], material::short(), &other).wait(SOON).success());
    assert_eq!(server.pictures(), 0);
    assert!(server.events.lock().unwrap().is_empty());

    let mut publisher = ffmpeg(&["-re", "-stream_loop", "-1"], material::short(), &server.url(KEY));
    server.wait_pictures(10);
    server.ingest.close(STREAM);
    assert_eq!(server.wait_stopped(1), Stop::Closed);
    publisher.wait(SOON);
    assert!(server.broadcast.has_ended());
    assert!(!ffmpeg(&["-re"], material::short(), &server.url(KEY)).wait(SOON).success(), "the key is of no use now");
}

#[test]
fn a_publisher_that_falls_silent_or_sends_another_codec_is_ended() {
    let server = Server::with(Limits { idle: Duration::from_secs(1), ..Limits::default() }, None);
    let publisher = ffmpeg(&["-re", "-stream_loop", "-1"], material::short(), &server.url(KEY));
    server.wait_pictures(10);
    let frozen = Instant::now();
    publisher.signal(Signal::SIGSTOP);
    assert_eq!(server.wait_stopped(1), Stop::Silent);
    assert!(frozen.elapsed() < Duration::from_secs(3));
    drop(publisher);

    let mut command = Command::new("ffmpeg");
    command.args("-v error -re -f lavfi -i testsrc2=size=320x180:rate=30 -c:v flv1 -f flv".split(' '));
    command.arg(server.url(KEY));
    let mut publisher = quiet(command);
    let Stop::Unsupported(why) = server.wait_stopped(2) else { panic!("not for its codec") };
    assert_eq!(why, "video codec Sorenson H.263 is not supported, only H.264");
    assert!(!publisher.wait(SOON).success());

    // Sound that cannot be carried on is dropped, and only that.
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-i"]).arg(&material::short().file);
    command.args("-c:v copy -c:a libmp3lame -ar 44100 -f flv".split(' ')).arg(server.url(KEY));
    let mut publisher = quiet(command);
    assert!(publisher.wait(SOON).success());
    assert_eq!(server.wait_stopped(3), Stop::Finished);
    let frames = server.finish();
    let [pictures, sounds] = tracks(&frames);
    let third = |track: &[&Frame]| track.iter().filter(|frame| frame.publication == 3).count() as u64;
    assert_eq!((third(&pictures), third(&sounds)), (material::short().pictures, 0));
}

/// The environment variable that makes this program a server, so that its memory is its own.
const CHILD: &str = "LENSCAST_TEST_INGEST_CHILD";

#[test]
#[ignore = "a part of the next one"]
fn a_server_in_a_process_of_its_own() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let server = Server::start();
    println!("\n{}", server.address);
    let _ = std::io::stdin().read(&mut [0]); // the parent hangs up
    server.wait_stopped(1);
    let events = server.events.lock().unwrap().clone();
    let frames = server.finish();
    let [pictures, sounds] = tracks(&frames);
    println!("\nresult {} {} {}", pictures.len(), sounds.len(), events.len());
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has memory");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn a_thousand_half_open_and_a_thousand_garbage_connections_cost_the_live_stream_nothing() {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--ignored", "--nocapture", "--exact", "ingest::a_server_in_a_process_of_its_own"]).env(CHILD, "1");
    let mut child = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
    let (stdin, stdout) = child.take_pipes();
    let mut lines = BufReader::new(stdout).lines().map(|line| line.expect("UTF-8"));
    let address: SocketAddr = lines.by_ref().find_map(|line| line.parse().ok()).expect("its address");
    let material = material::long();
    let mut publisher = ffmpeg(&["-re"], material, &format!("rtmp://{address}/live/{KEY}"));
    std::thread::sleep(Duration::from_secs(2)); // its ring fills
    let before = resident_kib(child.pid());
    let mut most = before;
    let mut held = Vec::new();
    for n in 0..1000_usize {
        let half_open = TcpStream::connect(address).expect("the server accepts");
        held.push(half_open);
        let mut garbage = TcpStream::connect(address).expect("the server accepts");
        let words: Vec<u8> = match n % 4 {
            0 => (0..4096_usize).map(|i| (i * 31 + n) as u8).collect(),
            1 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            // A handshake, then a chunk size of 2 GiB and messages of 16 MiB.
            _ => oversized(n),
        };
        let _ = garbage.write_all(&words); // it may have hung up in between
        held.push(garbage);
        if n % 50 == 0 {
            most = most.max(resident_kib(child.pid()));
        }
    }
    most = most.max(resident_kib(child.pid()));
    drop(held);
    assert!(publisher.wait(Duration::from_secs(30)).success());
    let after = resident_kib(child.pid());
    println!("resident: {before} KiB, {most} KiB at most, {after} KiB afterwards");
    assert!(most - before <= 32 * 1024, "{before} KiB grew to {most} KiB");
    assert!(after.saturating_sub(before) <= 8 * 1024, "{before} KiB before, {after} KiB afterwards");
    drop(stdin);
    let result = lines.find_map(|line| line.strip_prefix("result ").map(str::to_owned)).expect("its result");
    assert_eq!(result, format!("{} {} 2", material.pictures, material.sounds), "pictures, sounds, events");
}

fn oversized(n: usize) -> Vec<u8> {
    let mut words = vec![3];
    words.extend([0; 2 * 1536]);
    words.extend([2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
    if n.is_multiple_of(2) {
        words.extend([3, 0, 0, 0, 0xff, 0xff, 0xff, 20, 0, 0, 0, 0]);
        words.extend(vec![3; 60_000]);
    } else {
        // Objects nested in objects.
        words.extend([3, 0, 0, 0, 0, 0x7d, 0, 20, 0, 0, 0, 0]);
        words.extend([3, 0, 1, b'a'].repeat(8000));
    }
    words
}
