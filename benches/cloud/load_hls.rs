//! Many HLS viewers in one thread: they fetch what players fetch, when players do, and discard it.
//!
//! A viewer without low latency reads both media playlists once per target duration, then the new segments. A viewer
//! with low latency follows each track by blocking reloads on a connection of its own, and fetches every part. It
//! counts as late when a player at PART-HOLD-BACK behind the live edge would already have had to show the part.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::http_client::{is_segment, split};

/// How often viewers without low latency read the playlists: once per target duration.
const RELOAD: Duration = Duration::from_secs(2);
/// A segment's duration.
const SEGMENT: Duration = Duration::from_secs(1);

/// The results of all viewers.
#[derive(Default)]
pub struct Tally {
    pub bytes: u64,
    pub items: u64,
    pub late: u64,
    pub failures: u64,
    /// Viewers who never received anything.
    pub left_out: u64,
    /// In ms: how long a segment took, or how long after its end a part had arrived.
    pub delays: Vec<f32>,
}

impl Tally {
    pub fn json(mut self) -> Value {
        self.delays.sort_by(f32::total_cmp);
        let percentile = |part: f64| {
            let rank = (self.delays.len() as f64 * part).ceil() as usize;
            self.delays.get(rank.max(1) - 1).copied().unwrap_or(f32::NAN)
        };
        let (p50, p95, max) = (percentile(0.5), percentile(0.95), percentile(1.0));
        let Self { bytes, items, late, failures, left_out, .. } = self;
        json!({"bytes": bytes, "items": items, "late": late, "failures": failures, "left_out": left_out,
               "p50": p50, "p95": p95, "max": max})
    }
}

struct Shared {
    url: String,
    tally: RefCell<Tally>,
    /// Whether the load is on; nothing is counted before.
    counts: RefCell<bool>,
    ready: RefCell<usize>,
    book: RefCell<HashMap<(bool, u64, usize), Rc<News>>>,
}

/// The result of a blocking reload: parts, and what to ask for next.
struct News {
    parts: Vec<Part>,
    next: (u64, usize),
    hold_back: Duration,
}

#[derive(Clone)]
struct Part {
    at: (u64, usize),
    name: String,
    start: SystemTime,
    duration: Duration,
}

struct Connection {
    stream: TcpStream,
    host: String,
    folder: String,
    agent: String,
}

struct Fetched {
    size: usize,
    body: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 << 10]);
}

impl Connection {
    async fn open(url: &str, number: usize) -> io::Result<Self> {
        let (host, path) = split(url);
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (folder, _) = path.rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
        // The server distinguishes viewers of one address by this.
        let agent = format!("load/{number}");
        Ok(Self { stream, host: host.to_owned(), folder: folder.to_owned(), agent })
    }

    async fn get(&mut self, name: &str, keep: bool) -> io::Result<Fetched> {
        let Self { stream, host, folder, agent } = self;
        let request = format!("GET {folder}/{name} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {agent}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        let mut body = Vec::new();
        let mut left = None;
        let mut size = 0;
        while left != Some(0) {
            stream.readable().await?;
            SCRATCH.with_borrow_mut(|scratch| {
                let count = match stream.try_read(scratch) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                };
                let mut data = &scratch[..count];
                if left.is_none() {
                    let before = head.len();
                    head.extend_from_slice(data);
                    let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
                    data = &data[end + 4 - before..];
                    let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
                    if !text.starts_with("http/1.1 200") {
                        return Err(io::Error::other(text));
                    }
                    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                    let length: usize = length.and_then(|text| text.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
                    (size, left) = (length, Some(length));
                }
                if keep {
                    body.extend_from_slice(data);
                }
                left = left.and_then(|left| left.checked_sub(data.len()));
                Ok(())
            })?;
        }
        Ok(Fetched { size, body })
    }
}

/// Runs `count` viewers of `kind`. `ready` is called when all have begun.
pub fn run(kind: &str, url: &str, count: usize, time: Duration, ready: impl FnOnce()) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let shared = Rc::new(Shared {
        url: url.to_owned(),
        tally: RefCell::default(),
        counts: RefCell::new(false),
        ready: RefCell::new(0),
        book: RefCell::default(),
    });
    LocalSet::new().block_on(&runtime, async {
        let low = kind == "ll";
        let wanted = if low { 2 * count } else { count };
        for number in 0..count {
            if low {
                for video in [true, false] {
                    tokio::task::spawn_local(follow(Rc::clone(&shared), number, video));
                }
            } else {
                tokio::task::spawn_local(plain(Rc::clone(&shared), number, kind == "files"));
            }
            if number % 20 == 19 {
                sleep(Duration::from_millis(10)).await;
            }
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while *shared.ready.borrow() < wanted && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        // The load begins once all viewers have begun.
        sleep(Duration::from_secs(1)).await;
        ready();
        *shared.counts.borrow_mut() = true;
        sleep(time).await;
    });
    shared.tally.take()
}

impl Shared {
    fn count(&self, size: usize, delay: Duration, late: bool) {
        if *self.counts.borrow() {
            let mut tally = self.tally.borrow_mut();
            tally.bytes += size as u64;
            tally.items += 1;
            tally.late += u64::from(late);
            tally.delays.push(delay.as_secs_f32() * 1000.0);
        }
    }

    fn failed(&self, error: &io::Error) {
        let mut tally = self.tally.borrow_mut();
        tally.failures += 1;
        if tally.failures < 5 {
            eprintln!("a viewer failed: {error}");
        }
    }
}

async fn plain(shared: Rc<Shared>, number: usize, files: bool) {
    // Viewers come at any time.
    sleep(RELOAD.mul_f64(fastrand::f64())).await;
    if let Err(error) = plain_viewer(&shared, number, files).await {
        shared.failed(&error);
    }
}

async fn plain_viewer(shared: &Shared, number: usize, files: bool) -> io::Result<()> {
    let mut connection = Connection::open(&shared.url, number).await?;
    *shared.ready.borrow_mut() += 1;
    let mut last: [Option<String>; 2] = [None, None];
    let mut due = tokio::time::Instant::now();
    loop {
        let mut wanted = Vec::new();
        for (name, last) in ["video.m3u8", "audio.m3u8"].into_iter().zip(&mut last) {
            let playlist = connection.get(name, true).await?;
            let text = String::from_utf8_lossy(&playlist.body);
            let listed: Vec<&str> = text.lines().filter(|line| is_segment(line)).collect();
            let newer = last.as_ref().and_then(|last| listed.iter().position(|name| name == last)).map(|at| at + 1);
            let from = newer.unwrap_or(listed.len().saturating_sub(2));
            let mut new: Vec<String> = listed[from..].iter().map(|&name| name.to_owned()).collect();
            if files {
                // A playlist that does not change is played in a loop.
                new = (0..2).map(|n| listed[(from + n) % listed.len()].to_owned()).collect();
            }
            *last = new.last().cloned().or(last.take());
            wanted.extend(new);
        }
        for name in wanted {
            let asked = Instant::now();
            let size = connection.get(&name, false).await?.size;
            shared.count(size, asked.elapsed(), asked.elapsed() > SEGMENT);
        }
        due += RELOAD;
        tokio::time::sleep_until(due).await;
    }
}

async fn follow(shared: Rc<Shared>, number: usize, video: bool) {
    if let Err(error) = follower(&shared, number, video).await {
        shared.failed(&error);
    }
}

async fn follower(shared: &Shared, number: usize, video: bool) -> io::Result<()> {
    let playlist = if video { "video.m3u8" } else { "audio.m3u8" };
    let mut connection = Connection::open(&shared.url, number).await?;
    let first = connection.get(playlist, true).await?;
    let mut next = parse(&String::from_utf8_lossy(&first.body), (u64::MAX, 0)).next;
    *shared.ready.borrow_mut() += 1;
    loop {
        let key = (video, next.0, next.1);
        let known = shared.book.borrow().get(&key).cloned();
        let name = format!("{playlist}?_HLS_msn={}&_HLS_part={}", next.0, next.1);
        let answer = connection.get(&name, known.is_none()).await?;
        // Parsed once for all viewers that ask for the same.
        let news = known.unwrap_or_else(|| {
            let news = Rc::new(parse(&String::from_utf8_lossy(&answer.body), next));
            if !news.parts.is_empty() {
                shared.book.borrow_mut().insert(key, Rc::clone(&news));
            }
            news
        });
        for part in &news.parts {
            let size = connection.get(&part.name, false).await?.size;
            let since = SystemTime::now().duration_since(part.start).unwrap_or_default();
            shared.count(size, since.saturating_sub(part.duration), since > news.hold_back);
        }
        next = news.next;
    }
}

/// The parts of a media playlist, beginning at `from`.
fn parse(text: &str, from: (u64, usize)) -> News {
    let mut at = (0, 0);
    let mut start = SystemTime::UNIX_EPOCH;
    let mut parts = Vec::new();
    let mut hold_back = Duration::ZERO;
    let seconds = |text: &str| Duration::from_secs_f64(text.parse().unwrap_or(0.0));
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
            at = (number.parse().unwrap_or(0), 0);
        } else if let Some((_, rest)) = line.split_once("PART-HOLD-BACK=") {
            hold_back = seconds(rest.split(',').next().unwrap_or(rest));
        } else if let Some(time) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
            start = humantime::parse_rfc3339(time).unwrap_or(start);
        } else if let Some(rest) = line.strip_prefix("#EXT-X-PART:DURATION=") {
            let duration = seconds(rest.split(',').next().unwrap_or(rest));
            let name = rest.split("URI=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            if at >= from {
                parts.push(Part { at, name: name.to_owned(), start, duration });
            }
            start += duration;
            at.1 += 1;
        } else if !line.is_empty() && !line.starts_with('#') {
            at = (at.0 + 1, 0);
        }
    }
    debug_assert!(parts.is_sorted_by_key(|part| part.at), "parts are listed in order");
    News { parts, next: at, hold_back }
}
