use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::packager::{Packager, Settings, UNCLOSED};
use super::presentation::{Kind, Presentation};
use super::viewers::{Viewers, expiry};
use super::{dash, hls};
use crate::broadcast::{Broadcast, Frame, Reader};
use crate::metrics::Counter;

/// Upper bound of the first discontinuity sequence number: three weeks in minutes.
const DISCONTINUITIES: u64 = 1 << 15;
/// Memory per second of the window: 8 Mbit/s, and the same again for what has just left it.
const BYTES_A_SECOND: usize = 2 << 20;

/// How a stream is served.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Segments end at the first key frame after this duration; 0.25 s to `target_duration`.
    pub segment_target: Duration,
    /// The longest duration of a segment, in whole seconds, at least 1. Players without low latency stay three of these
    /// behind.
    pub target_duration: u64,
    /// A part is the smallest whole number of frames with this duration; 0.1 to 1 s.
    pub part_target: Duration,
    /// How far back a viewer can go; at least three target durations. Less if half of `bytes` does not suffice.
    pub window: Duration,
    /// The most bytes of segments held for each of the two tracks, including those that have just left the window.
    pub bytes: usize,
    /// How long a stream can be watched after its end.
    pub linger: Duration,
}

impl Default for Options {
    /// Segments of 1 to 2 s, parts of 200 ms, a window of 30 s, 48 MiB, 60 s after the end.
    fn default() -> Self {
        Self {
            segment_target: Duration::from_secs(1),
            target_duration: 2,
            part_target: Duration::from_millis(200),
            window: Duration::from_secs(30),
            bytes: 48 << 20,
            linger: Duration::from_mins(1),
        }
    }
}

impl Options {
    /// The defaults, but with this window and enough memory for it.
    pub fn with_window(window: Duration) -> Self {
        let default = Self::default();
        let seconds = usize::try_from(window.as_secs()).unwrap_or(usize::MAX);
        Self { window, bytes: default.bytes.max(seconds.saturating_mul(BYTES_A_SECOND)), ..default }
    }
}

/// The state of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether the playlists answer and have a closed segment in every track. Stays true until the stream is gone.
    pub playable: bool,
    /// The newest publication with such a segment; 0 before the first.
    pub publication: u64,
    /// Whether nothing more will come.
    pub ended: bool,
    /// The end of the pictures, as media time.
    pub live_edge: Duration,
    /// How many people watch now, over HLS and DASH.
    pub viewers: usize,
}

/// HLS and DASH of any number of streams. A clone is another handle to the same ones.
///
/// Must be used within a tokio runtime.
#[derive(Clone, Debug, Default)]
pub struct Playback(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    streams: Mutex<HashMap<String, Arc<Stream>>>,
    tasks: Mutex<JoinSet<()>>,
    served: Served,
    behind_proxy: bool,
}

/// Counts of what players were given.
#[derive(Debug, Default)]
pub struct Served {
    pub(super) playlists: Counter,
    pub(super) manifests: Counter,
    pub(super) initializations: Counter,
    pub(super) segments: Counter,
    pub(super) parts: Counter,
    pub(super) bytes: Counter,
}

impl Served {
    /// The number of files of each kind.
    pub fn files(&self) -> [(&'static str, u64); 5] {
        [
            ("playlist", self.playlists.get()),
            ("manifest", self.manifests.get()),
            ("initialization", self.initializations.get()),
            ("segment", self.segments.get()),
            ("part", self.parts.get()),
        ]
    }

    /// The number of bytes of those files.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

/// One stream, as requests see it.
#[derive(Debug)]
pub(super) struct Stream {
    live: Mutex<Live>,
    /// Rises with each change that a request may wait for.
    version: watch::Sender<u64>,
    state: watch::Sender<State>,
    viewers: Mutex<Viewers>,
    closing: watch::Sender<Closing>,
    target_duration: u64,
}

#[derive(Debug)]
struct Live {
    packager: Packager,
    texts: [Option<Bytes>; 3],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Closing {
    #[default]
    No,
    End,
    Now,
}

/// A playlist or manifest.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text {
    Multivariant,
    Video,
    Audio,
    Manifest,
}

impl Playback {
    /// A service without streams. `behind_proxy`: all requests come through a proxy, which names their clients (the
    /// last `X-Forwarded-For`). A proxy on this machine is believed in any case.
    pub fn new(behind_proxy: bool) -> Self {
        Self(Arc::new(Shared { behind_proxy, ..Shared::default() }))
    }

    /// Starts to serve `broadcast` as `id`, which must be unguessable and one path segment. An existing stream with
    /// that id is replaced.
    pub fn open(&self, id: &str, broadcast: &Broadcast, options: Options) -> watch::Receiver<State> {
        let now = SystemTime::now();
        let mut streams = lock(&self.0.streams);
        let replaced = streams.remove(id);
        // Segments are cached for long by name, so their numbers must not repeat after a restart of the cloud. No
        // stream has more than one segment a second for long.
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let past = replaced.as_ref().and_then(|stream| stream.read(|now| Some(next_number(now)))).unwrap_or(0);
        let discontinuities = replaced.as_ref().and_then(|stream| stream.read(|now| Some(next_discontinuity(now))));
        let discontinuities = discontinuities.unwrap_or(0);
        if let Some(stream) = replaced {
            stream.closing.send_replace(Closing::Now);
        }
        let settings = Settings {
            segment_target: options.segment_target,
            target_duration: options.target_duration,
            part_target: options.part_target,
            window: options.window,
            bytes: options.bytes,
            unclosed: UNCLOSED,
            first_number: seconds.max(past),
            // Small, since players keep arrays indexed by it, which hls.js goes through again and again. Minutes do not
            // repeat after a restart either, as long as there is less than one reconnect a minute.
            first_discontinuity: (seconds / 60 % DISCONTINUITIES).max(discontinuities),
            clocks: (Instant::now(), now),
        };
        let live = Live { packager: Packager::new(settings), texts: Default::default() };
        let stream = Arc::new(Stream {
            live: Mutex::new(live),
            version: watch::Sender::default(),
            state: watch::Sender::default(),
            viewers: Mutex::default(),
            closing: watch::Sender::default(),
            target_duration: options.target_duration,
        });
        streams.insert(id.to_owned(), stream.clone());
        drop(streams);
        let state = stream.state.subscribe();
        let mut tasks = lock(&self.0.tasks);
        while tasks.try_join_next().is_some() {}
        let (reader, over) = (broadcast.reader(), broadcast.over());
        tasks.spawn(run(self.clone(), id.to_owned(), stream, (reader, over), options.linger));
        state
    }

    /// Ends a stream. Its playlists say so, and it can be watched for [`Options::linger`]. Ignores an unknown id.
    pub fn close(&self, id: &str) {
        if let Some(stream) = self.stream(id) {
            stream
                .closing
                .send_if_modified(|closing| std::mem::replace(closing, Closing::End.max(*closing)) == Closing::No);
        }
    }

    /// The state of a stream, now and whenever it changes; `None` if there is no such stream.
    pub fn state(&self, id: &str) -> Option<watch::Receiver<State>> {
        self.stream(id).map(|stream| stream.state.subscribe())
    }

    /// Counts of what players were given so far.
    pub fn served(&self) -> &Served {
        &self.0.served
    }

    pub(super) fn is_behind_proxy(&self) -> bool {
        self.0.behind_proxy
    }

    /// Ends all streams at once and waits until their tasks have ended.
    pub async fn shutdown(&self) {
        let streams: Vec<_> = lock(&self.0.streams).drain().collect();
        for (_, stream) in &streams {
            stream.closing.send_replace(Closing::Now);
        }
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        while tasks.join_next().await.is_some() {}
    }

    pub(super) fn stream(&self, id: &str) -> Option<Arc<Stream>> {
        lock(&self.0.streams).get(id).cloned()
    }

    fn remove(&self, id: &str, stream: &Arc<Stream>) {
        let mut streams = lock(&self.0.streams);
        if streams.get(id).is_some_and(|present| Arc::ptr_eq(present, stream)) {
            streams.remove(id);
        }
    }
}

fn next_number(presentation: &Presentation) -> u64 {
    let audio = presentation.audio.as_ref().map_or(0, super::track::Track::open_number);
    presentation.video.open_number().max(audio) + 1
}

fn next_discontinuity(presentation: &Presentation) -> u64 {
    presentation.epochs.back().map_or(0, |epoch| presentation.discontinuity(epoch.number) + 1)
}

/// A panic under these locks leaves nothing half changed that matters more than the stream itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that owns a stream.
async fn run(
    playback: Playback,
    id: String,
    stream: Arc<Stream>,
    (mut reader, mut over): (Reader, watch::Receiver<u64>),
    linger: Duration,
) {
    let mut closing = stream.closing.subscribe();
    let mut skipped = 0;
    let mut forgetting = interval(Duration::from_secs(1));
    forgetting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            frame = reader.next() => {
                let Ok(frame) = frame else { break };
                stream.change(|packager| take(packager, &frame, reader.skipped(), &mut skipped));
            }
            Ok(()) = over.changed() => {
                let publication = *over.borrow_and_update();
                stream.change(|packager| {
                    // All its frames are in the broadcast, though some may not have been read.
                    while let Some(frame) = reader.try_next() {
                        take(packager, &frame, reader.skipped(), &mut skipped);
                    }
                    packager.finish(publication);
                });
            }
            _ = closing.changed() => break,
            _ = forgetting.tick() => stream.forget_viewers(),
        }
    }
    stream.change(Packager::end);
    let gone = sleep(linger);
    tokio::pin!(gone);
    while *closing.borrow_and_update() != Closing::Now {
        tokio::select! {
            () = &mut gone => break,
            _ = closing.changed() => {}
            _ = forgetting.tick() => stream.forget_viewers(),
        }
    }
    playback.remove(&id, &stream);
}

/// `skips`: how many frames the reader never saw; `skipped`: how many before this frame.
fn take(packager: &mut Packager, frame: &Arc<Frame>, skips: u64, skipped: &mut u64) {
    if std::mem::replace(skipped, skips) != skips {
        packager.skip();
    }
    packager.push(frame);
}

impl Stream {
    /// Applies a change, and wakes waiting requests if there is something new.
    fn change(&self, change: impl FnOnce(&mut Packager)) {
        let of = |packager: &Packager| {
            packager.presentation().map(|presentation| {
                let parts = presentation.audio.as_ref().map_or(0, super::track::Track::next_part);
                let closed = presentation.video.open().is_none();
                (presentation.video.next_part(), closed, parts, presentation.publication(), presentation.ended)
            })
        };
        let mut live = lock(&self.live);
        let before = of(&live.packager);
        change(&mut live.packager);
        let after = of(&live.packager);
        if before == after {
            return;
        }
        live.texts = Default::default();
        let Some((.., publication, ended)) = after else { return };
        let playable = publication > 0;
        let live_edge = live.packager.presentation().map_or(Duration::ZERO, Presentation::live_edge);
        drop(live);
        self.state.send_modify(|state| *state = State { playable, publication, ended, live_edge, ..*state });
        self.version.send_modify(|version| *version += 1);
    }

    /// Reads the presentation; `None` before there is one.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Presentation) -> Option<T>) -> Option<T> {
        lock(&self.live).packager.presentation().and_then(read)
    }

    /// A playlist, written once for all who ask between two changes. `None` before the stream is playable.
    ///
    /// `id` is the stream's own, for the manifest's path to the segments.
    pub(super) fn text(&self, text: Text, id: &str) -> Option<Bytes> {
        let mut live = lock(&self.live);
        if let Some(Some(bytes)) = live.texts.get(text as usize) {
            return Some(bytes.clone());
        }
        let presentation = live.packager.presentation().filter(|presentation| presentation.is_playable())?;
        let bytes = Bytes::from(match text {
            Text::Multivariant => hls::multivariant(presentation),
            Text::Video => hls::media(presentation, Kind::Video)?,
            Text::Audio => hls::media(presentation, Kind::Audio)?,
            // A manifest contains the time, so each one differs.
            Text::Manifest => {
                let media = format!("../../hls/{id}/");
                return Some(dash::manifest(presentation, &media, SystemTime::now()).into());
            }
        });
        if let Some(slot) = live.texts.get_mut(text as usize) {
            *slot = Some(bytes.clone());
        }
        Some(bytes)
    }

    /// Waits until `read` finds something, for `targets` target durations at most.
    pub(super) async fn wait<T>(&self, targets: f64, read: impl Fn(&Presentation) -> Option<T>) -> Option<T> {
        let mut version = self.version.subscribe();
        let found = async {
            loop {
                version.borrow_and_update();
                if let Some(found) = self.read(&read) {
                    return Some(found);
                }
                if version.changed().await.is_err() {
                    return None;
                }
            }
        };
        let limit = Duration::from_secs(self.target_duration).mul_f64(targets);
        tokio::time::timeout(limit, found).await.ok().flatten()
    }

    /// Notes that this client is watching.
    pub(super) fn saw(&self, client: u64) {
        let mut viewers = lock(&self.viewers);
        if viewers.saw(client, Instant::now()) {
            let count = viewers.count();
            drop(viewers);
            self.state.send_modify(|state| state.viewers = count);
        }
    }

    fn forget_viewers(&self) {
        let Some(since) = Instant::now().checked_sub(expiry(self.target_duration)) else { return };
        let count = lock(&self.viewers).forget_before(since);
        self.state.send_if_modified(|state| std::mem::replace(&mut state.viewers, count) != count);
    }
}
