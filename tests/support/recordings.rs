//! What a server recorded, seen as it grows: which tag was written when.
//!
//! A thread follows the folder by inotify and stamps each tag when nginx has written it, so the time between two frames at
//! the server is known to a millisecond or so without asking the server. One recording is one publication.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tempfile::TempDir;

use super::clock::monotonic;
use super::flv::{Body, Reader, Stamp, Tag};

/// A file with this name ends the following.
const END_MARK: &str = "end";

/// A tag, and when it was in the file.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// On `CLOCK_MONOTONIC`.
    pub at: Duration,
    /// What arrived.
    pub tag: Tag,
}

/// A video frame that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// On `CLOCK_MONOTONIC`.
    pub at: Duration,
    /// Decoding time, milliseconds from the start of the recording.
    pub dts_ms: u32,
    /// It can be decoded without any other.
    pub key: bool,
    /// The test source's stamp.
    pub stamp: Option<Stamp>,
    /// Its size.
    pub bytes: usize,
}

/// One publication as the server recorded it.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// Its tags in order.
    pub arrivals: Vec<Arrival>,
    /// The server has closed the file: the publication is over, or the server is.
    pub closed: bool,
}

impl Recording {
    /// Its video frames.
    pub fn frames(&self) -> Vec<Frame> {
        let frame = |arrival: &Arrival| match arrival.tag.body {
            Body::Frame { key, stamp, bytes, .. } => {
                Some(Frame { at: arrival.at, dts_ms: arrival.tag.dts_ms, key, stamp, bytes })
            }
            _ => None,
        };
        self.arrivals.iter().filter_map(frame).collect()
    }

    /// The decoding times of its audio packets, milliseconds.
    pub fn sound_ms(&self) -> Vec<u32> {
        let sound = |a: &Arrival| matches!(a.tag.body, Body::Sound { .. }).then_some(a.tag.dts_ms);
        self.arrivals.iter().filter_map(sound).collect()
    }

    /// The sequence numbers of its frames. Panics if a frame has none.
    pub fn sequences(&self) -> Vec<u64> {
        self.frames().iter().map(|f| f.stamp.expect("the test source stamps every frame").sequence).collect()
    }
}

#[derive(Default)]
struct Seen {
    recordings: Mutex<Vec<Recording>>,
    changed: Condvar,
}

/// Follows a folder of recordings until dropped. A publication that was refused before its first tag is none.
pub struct Recordings {
    /// Keeps the folder for as long as it is followed, even if the server is dropped first.
    _owner: Arc<TempDir>,
    folder: PathBuf,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Recordings {
    /// Begins to follow `folder`, which lies in `owner` and is empty.
    pub fn follow(owner: Arc<TempDir>, folder: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).expect("inotify is there");
        inotify
            .add_watch(folder, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE)
            .unwrap_or_else(|e| panic!("cannot follow {}: {e}", folder.display()));
        let seen = Arc::new(Seen::default());
        let (shared, path) = (Arc::clone(&seen), folder.to_owned());
        let thread = std::thread::spawn(move || follow(&inotify, &path, &shared));
        Self { _owner: owner, folder: folder.to_owned(), seen, thread: Some(thread) }
    }

    /// Waits until `look` finds what it looks for in the recordings so far. Panics with `what` once `within` is over.
    pub fn wait<T>(&self, what: &str, within: Duration, mut look: impl FnMut(&[Recording]) -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        let mut recordings = self.seen.recordings.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = look(&recordings) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited {within:?} in vain for {what}; recorded so far: {}", outline(&recordings));
            recordings = self.seen.changed.wait_timeout(recordings, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a frame in the recording number `index`, counted from 0, and gives its first.
    pub fn wait_first_frame(&self, index: usize, within: Duration) -> Frame {
        self.wait(&format!("a frame in recording {index}"), within, |all| all.get(index)?.frames().first().copied())
    }

    /// Waits until the server has another name for the next recording. nginx names them by the second and opens one even for
    /// a publisher that it is about to refuse, which would cut off what was recorded under that name.
    pub fn wait_next_name() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        std::thread::sleep(Duration::from_secs(1).saturating_sub(Duration::from_nanos(now.subsec_nanos().into())));
    }

    /// Waits for the recording number `index` to hold `count` frames.
    pub fn wait_frames(&self, index: usize, count: usize, within: Duration) {
        self.wait(&format!("{count} frames in recording {index}"), within, |all| {
            (all.get(index)?.frames().len() >= count).then_some(())
        });
    }

    /// Waits for the end of the publication number `index`.
    pub fn wait_closed(&self, index: usize, within: Duration) {
        self.wait(&format!("the end of recording {index}"), within, |all| all.get(index)?.closed.then_some(()));
    }

    /// The bits of video per second that arrived over the last `over` of the recording number `index`; waits until it is
    /// that long.
    pub fn video_bitrate(&self, index: usize, over: Duration, within: Duration) -> f64 {
        self.wait(&format!("{over:?} of recording {index}"), within, |all| {
            let frames = all.get(index)?.frames();
            let (first, last) = (frames.first()?.at, frames.last()?.at);
            let since = last.checked_sub(over).filter(|since| *since >= first)?;
            let bytes: usize = frames.iter().filter(|f| f.at > since).map(|f| f.bytes).sum();
            Some(bytes as f64 * 8.0 / over.as_secs_f64())
        })
    }

    /// How many publications were recorded so far.
    pub fn count(&self) -> usize {
        self.seen.recordings.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Everything recorded, read to the end of each file.
    pub fn finish(mut self) -> Vec<Recording> {
        self.end();
        std::mem::take(&mut *self.seen.recordings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            let told = File::create(self.folder.join(END_MARK)).is_ok();
            let read = told && thread.join().is_ok();
            assert!(read || std::thread::panicking(), "the recordings in {} could not be read", self.folder.display());
        }
    }
}

impl Drop for Recordings {
    fn drop(&mut self) {
        self.end();
    }
}

struct Open {
    /// Its place among the recordings, once it has a tag.
    index: Option<usize>,
    path: PathBuf,
    file: File,
    reader: Reader,
}

fn follow(inotify: &Inotify, folder: &Path, seen: &Seen) {
    let mut open: HashMap<OsString, Open> = HashMap::new();
    loop {
        let events = inotify.read_events().expect("inotify goes on until the folder is no longer followed");
        let mut ended = false;
        for event in events {
            let Some(name) = event.name else { continue };
            if name == END_MARK {
                ended = true;
                continue;
            }
            let entry = open.entry(name.clone()).or_insert_with_key(|name| {
                let path = folder.join(name);
                let file = File::open(&path).expect("a recording can be read");
                Open { index: None, path, file, reader: Reader::default() }
            });
            let mut recordings = seen.recordings.lock().unwrap_or_else(PoisonError::into_inner);
            take(entry, &mut recordings);
            if event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE) {
                if let Some(index) = entry.index {
                    recordings[index].closed = true;
                }
                // Names tell seconds: the next publication within this one is recorded in its place.
                open.remove(&name);
            }
            drop(recordings);
            seen.changed.notify_all();
        }
        if ended {
            let mut recordings = seen.recordings.lock().unwrap_or_else(PoisonError::into_inner);
            for entry in open.values_mut() {
                take(entry, &mut recordings);
            }
            return;
        }
    }
}

fn take(open: &mut Open, recordings: &mut Vec<Recording>) {
    let mut bytes = Vec::new();
    open.file.read_to_end(&mut bytes).expect("a recording can be read");
    let at = monotonic();
    let tags = open.reader.push(&bytes);
    if tags.is_empty() {
        return;
    }
    let index = *open.index.get_or_insert_with(|| {
        recordings.push(Recording { path: open.path.clone(), arrivals: Vec::new(), closed: false });
        recordings.len() - 1
    });
    recordings[index].arrivals.extend(tags.into_iter().map(|tag| Arrival { at, tag }));
}

fn outline(recordings: &[Recording]) -> String {
    let one = |r: &Recording| format!("{} ({} frames)", r.path.display(), r.frames().len());
    if recordings.is_empty() { "nothing".to_owned() } else { recordings.iter().map(one).collect::<Vec<_>>().join(", ") }
}
