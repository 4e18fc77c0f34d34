//! Viewers: WebRTC without a browser, HLS by its playlist, and some that do not read what they requested.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::viewer::Viewer;

/// Time without a picture after which a viewer's page joins again.
const FROZEN: Duration = Duration::from_millis(2500);

/// A WebRTC viewer, until dropped. It joins again when nothing arrives, as the watch page does.
pub struct WhepViewer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    leave: AtomicBool,
    pictures: AtomicU64,
    joins: AtomicU64,
}

impl WhepViewer {
    /// Joins at a WHEP URL.
    pub fn join(url: &str) -> Self {
        let (base, id) = url.split_once("/whep/").expect("a WHEP URL");
        let (base, id) = (base.to_owned(), id.to_owned());
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(watch(&base, &id, &seen));
        });
        Self { shared, thread: Some(thread) }
    }

    /// The number of pictures so far.
    pub fn pictures(&self) -> u64 {
        self.shared.pictures.load(Ordering::Relaxed)
    }

    /// The number of joins so far.
    pub fn joins(&self) -> u64 {
        self.shared.joins.load(Ordering::Relaxed)
    }
}

impl Drop for WhepViewer {
    fn drop(&mut self) {
        self.shared.leave.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            assert!(joined.is_ok() || std::thread::panicking(), "a viewer panicked");
        }
    }
}

async fn watch(base: &str, id: &str, shared: &Shared) {
    let gone = || shared.leave.load(Ordering::Relaxed);
    while !gone() {
        let joined = tokio::time::timeout(Duration::from_secs(3), Viewer::try_join(base, id)).await;
        let Ok(Ok(mut viewer)) = joined else {
            tokio::time::sleep(Duration::from_millis(500)).await;
            continue;
        };
        shared.joins.fetch_add(1, Ordering::Relaxed);
        let before = shared.pictures.load(Ordering::Relaxed);
        let begun = Instant::now();
        let enough = |watched: &crate::viewer::Watched| {
            shared.pictures.store(before + watched.pictures.len() as u64, Ordering::Relaxed);
            let last = watched.pictures.last().map_or(begun, |picture| picture.at);
            gone() || last.elapsed() > FROZEN
        };
        viewer.watch(Duration::from_hours(24), enough).await;
        let _ = tokio::time::timeout(Duration::from_secs(2), viewer.try_leave()).await; // a cloud that is away
    }
}

/// `GET`s a URL of the cloud. Returns status and body, or nothing if it does not answer in time.
pub fn get(url: &str, within: Duration) -> Option<(u16, Vec<u8>)> {
    let (address, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(within)).ok()?;
    stream.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).ok()?;
    let (mut answer, mut buffer, deadline) = (Vec::new(), [0; 16 * 1024], Instant::now() + within);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => break,
            Err(_) => return None,
        }
        if Instant::now() > deadline {
            return None;
        }
    }
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let status = String::from_utf8_lossy(&answer[..body]).split_whitespace().nth(1)?.parse().ok()?;
    Some((status, answer[body..].to_vec()))
}

/// The video playlist beside a multivariant playlist.
pub fn media_playlist(hls: &str) -> String {
    format!("{}/video.m3u8", hls.rsplit_once('/').map_or(hls, |(base, _)| base))
}

/// The newest segment that a media playlist lists, as a URL.
pub fn newest_segment(hls: &str, playlist: &str) -> Option<String> {
    let name = playlist.lines().rfind(|line| !line.starts_with('#') && !line.is_empty())?;
    Some(format!("{}/{name}", hls.rsplit_once('/')?.0))
}

/// The position of a media playlist: the part that it announces next. `None` if it has ended.
pub fn position(playlist: &str) -> Option<String> {
    playlist.lines().find(|line| line.starts_with("#EXT-X-PRELOAD-HINT")).map(str::to_owned)
}

/// Viewers that request `path` again and again but read nothing.
pub fn deaf(address: (&str, u16), path: &str, count: usize) -> Vec<TcpStream> {
    let ask = |_| {
        let mut stream = TcpStream::connect(address).ok()?;
        // Pipelined, so that the answers exceed the kernel's buffers.
        let request = format!("GET {path} HTTP/1.1\r\nHost: viewer\r\n\r\n").repeat(50);
        stream.set_write_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        Some(stream)
    };
    (0..count).filter_map(ask).collect()
}
