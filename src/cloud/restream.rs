//! Sends a stream on to other RTMP servers, with the device's own publisher.
//!
//! One task reads the [`Broadcast`] into a [`Feed`]. Each destination is a task that attempts to publish from it, again
//! and again. No destination can hold another back: the feed never waits for one (each publisher's gate drops what its
//! server does not take), and statuses are a value that is replaced, not a queue.
//!
//! Unlike the device, a destination does not give up on an outage: the stream goes on, and the server may come back. A
//! destination ends only on what cannot heal: a rejected key, a certificate that is not trusted, a key in use for too
//! long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::broadcast::{AudioFormat, Broadcast, Frame, Media, Reader, VideoFormat};
use crate::media::feed::{Feed, Unit};
use crate::media::flv::Metadata;
use crate::media::publisher::{Publisher, PublisherEvent, Target};
use crate::policy::retry::{self, Backoff, Class};
use crate::protocol::app::{Destination, Output, OutputState, ShownUrl};
use crate::protocol::{Cause, Failure, StreamUrl};

/// The frame rate in the metadata until one has been measured.
const USUAL_FRAME_RATE: f64 = 30.0;
/// How much of the stream is enough to measure it.
const MEASURED: Duration = Duration::from_secs(1);

/// All destinations of a stream, in the order given.
pub type Outputs = Vec<Output>;

/// A stream that is being sent on. End it with [`Self::stop`]; it also ends with its [`Broadcast`].
#[derive(Debug)]
pub struct Restream {
    stop: watch::Sender<bool>,
    owner: JoinHandle<()>,
}

impl Restream {
    /// Starts. `outputs` receives all statuses at once and after every change; if it lags, only the latest. GStreamer
    /// must be initialised ([`crate::media::init`]).
    pub fn start(broadcast: &Broadcast, destinations: Vec<Destination>, outputs: mpsc::Sender<Outputs>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let owner = tokio::spawn(run(broadcast.reader(), destinations, outputs, stopped));
        Self { stop, owner }
    }

    /// Ends all publications politely and waits for that, a few seconds at most. `outputs` then shows them all as
    /// stopped, except those that ended with an error.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let _ = self.owner.await;
    }
}

async fn run(
    reader: Reader,
    destinations: Vec<Destination>,
    outputs: mpsc::Sender<Outputs>,
    mut stopped: watch::Receiver<bool>,
) {
    let initial = destinations.iter().map(|Destination { url, name }| Output {
        url: ShownUrl { url: url.clone(), own: false },
        name: name.clone(),
        status: OutputState::Connecting,
        error: None,
    });
    let (statuses, shown) = watch::channel(initial.collect::<Outputs>());
    let teller = tokio::spawn(tell(shown, outputs));
    let statuses = Arc::new(statuses);
    let feed = Arc::new(Feed::default());
    let (picture, seen) = watch::channel(None);
    let (end, ended) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for (index, Destination { url, .. }) in destinations.into_iter().enumerate() {
        let (feed, seen, statuses) = (feed.clone(), seen.clone(), statuses.clone());
        tasks.spawn(Runner { index, url, feed, seen, statuses, ended: ended.clone() }.run());
    }
    tokio::select! {
        () = pump(reader, &feed, &picture) => {}
        _ = stopped.wait_for(|&stopped| stopped) => {}
    }
    end.send_replace(true);
    while tasks.join_next().await.is_some() {}
    drop(statuses);
    let _ = teller.await;
}

/// Passes on the latest statuses until nobody is left to change them.
async fn tell(mut shown: watch::Receiver<Outputs>, outputs: mpsc::Sender<Outputs>) {
    loop {
        let now = shown.borrow_and_update().clone();
        if outputs.send(now).await.is_err() || shown.changed().await.is_err() {
            return;
        }
    }
}

/// What the metadata is made of, measured while frames pass.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    since: Duration,
    last: Duration,
    pictures: u64,
    video_bytes: u64,
    audio_bytes: u64,
}

/// What is being published.
type Seen = Option<(Arc<VideoFormat>, Option<Arc<AudioFormat>>, Arc<Mutex<Measured>>)>;

/// Carries frames from the broadcast to the feed until it ends.
async fn pump(mut reader: Reader, feed: &Feed, seen: &watch::Sender<Seen>) {
    let mut video: Option<(Arc<VideoFormat>, Arc<[u8]>)> = None;
    let mut audio: Option<(Arc<AudioFormat>, Arc<[u8]>)> = None;
    let measured = Arc::new(Mutex::new(Measured::default()));
    let (mut skipped, mut waits_for_key) = (0, true);
    while let Ok(frame) = reader.next().await {
        if reader.skipped() != skipped {
            (skipped, waits_for_key) = (reader.skipped(), true);
        }
        measure(&mut measured.lock().unwrap_or_else(PoisonError::into_inner), &frame);
        let unit = Unit {
            opening: frame.publication,
            pts: frame.dts,
            dts: frame.dts,
            key: true,
            data: &frame.data,
            config: &Arc::from([]),
            size: (0, 0),
        };
        match &frame.media {
            Media::Video { format, pts, key } => {
                waits_for_key &= !key;
                if waits_for_key {
                    continue;
                }
                show(seen, format, audio.as_ref().map(|(format, _)| format), &measured);
                let config = config(&mut video, format, &format.record);
                feed.video(Unit { pts: *pts, key: *key, config, size: (format.width, format.height), ..unit });
            }
            Media::Audio { format } => feed.audio(Unit { config: config(&mut audio, format, &format.record), ..unit }),
        }
    }
}

/// Updates what is being published, if it has changed.
fn show(
    seen: &watch::Sender<Seen>,
    video: &Arc<VideoFormat>,
    audio: Option<&Arc<AudioFormat>>,
    measured: &Arc<Mutex<Measured>>,
) {
    seen.send_if_modified(|seen| {
        let same = seen.as_ref().is_some_and(|(known, sound, _)| {
            Arc::ptr_eq(known, video) && sound.as_ref().map(Arc::as_ptr) == audio.map(Arc::as_ptr)
        });
        if !same {
            *seen = Some((video.clone(), audio.cloned(), measured.clone()));
        }
        !same
    });
}

/// A format's record in the feed's form, made once per format.
fn config<'a, T>(known: &'a mut Option<(Arc<T>, Arc<[u8]>)>, format: &Arc<T>, record: &[u8]) -> &'a Arc<[u8]> {
    if known.as_ref().is_some_and(|(known, _)| !Arc::ptr_eq(known, format)) {
        *known = None;
    }
    &known.get_or_insert_with(|| (format.clone(), Arc::from(record))).1
}

fn measure(measured: &mut Measured, frame: &Frame) {
    if measured.pictures == 0 {
        measured.since = frame.dts;
    }
    measured.last = measured.last.max(frame.dts);
    match frame.media {
        Media::Video { .. } => {
            measured.pictures += 1;
            measured.video_bytes += frame.data.len() as u64;
        }
        Media::Audio { .. } => measured.audio_bytes += frame.data.len() as u64,
    }
}

fn metadata(video: &VideoFormat, audio: Option<&AudioFormat>, measured: Measured) -> Metadata {
    let over = measured.last.saturating_sub(measured.since);
    let rate = |count: u64, usual: f64| if over < MEASURED { usual } else { count as f64 / over.as_secs_f64() };
    Metadata {
        width: video.width,
        height: video.height,
        frame_rate: rate(measured.pictures, USUAL_FRAME_RATE).round(),
        video_bitrate: rate(measured.video_bytes * 8, 0.0) as u32,
        audio: audio.map(|audio| (rate(measured.audio_bytes * 8, 0.0) as u32, audio.sample_rate)),
    }
}

/// One destination.
struct Runner {
    index: usize,
    url: StreamUrl,
    feed: Arc<Feed>,
    seen: watch::Receiver<Seen>,
    statuses: Arc<watch::Sender<Outputs>>,
    ended: watch::Receiver<bool>,
}

impl Runner {
    async fn run(mut self) {
        let mut ended = self.ended.clone();
        let mut verdicts = Verdicts::new();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Some(target) = self.target().await else { break };
            let Some(failure) = self.attempt(attempt, target, &mut verdicts).await else { break };
            tracing::warn!(url = %self.url, cause = %failure.cause, %failure, attempt, "restream interrupted");
            self.show(OutputState::Error, Some(failure.cause.explain()));
            let Some(delay) = verdicts.lost(failure.cause) else {
                // The destination keeps its last status until the stream is over.
                let _ = ended.wait_for(|&ended| ended).await;
                return;
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = ended.wait_for(|&ended| ended) => break,
            }
        }
        self.show(OutputState::Stopped, None);
    }

    /// Waits for the first picture, before which there is nothing to publish. `None` if the stream ends first.
    async fn target(&mut self) -> Option<Target> {
        tokio::select! {
            seen = self.seen.wait_for(Option::is_some) => {
                let seen = seen.ok()?;
                let (video, audio, measured) = seen.as_ref()?;
                let measured = *measured.lock().unwrap_or_else(PoisonError::into_inner);
                Some(Target { url: self.url.clone(), metadata: metadata(video, audio.as_deref(), measured) })
            }
            _ = self.ended.wait_for(|&ended| ended) => None,
        }
    }

    /// Runs one publication until it ends. `None` if it ended because the stream is over.
    async fn attempt(&self, attempt: u32, target: Target, verdicts: &mut Verdicts) -> Option<Failure> {
        let (sender, mut events) = mpsc::channel(4);
        let mut publisher = Publisher::open(attempt, target, self.feed.clone(), sender);
        let (mut failure, mut asked) = (None, false);
        let mut ended = self.ended.clone();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some((_, PublisherEvent::Accepted | PublisherEvent::Sampled(_))) => {}
                    Some((_, PublisherEvent::Flowing)) => {
                        verdicts.streaming();
                        self.show(OutputState::Active, None);
                    }
                    Some((_, PublisherEvent::Lost(why))) => failure = Some(why),
                    Some((_, PublisherEvent::Closed)) | None => break,
                },
                _ = ended.wait_for(|&ended| ended), if !asked => {
                    asked = true;
                    publisher.close();
                }
            }
        }
        publisher.join().await;
        if asked {
            return None;
        }
        Some(failure.unwrap_or_else(|| Failure::new(Cause::Internal, "the publisher ended without a reason")))
    }

    fn show(&self, status: OutputState, error: Option<&str>) {
        let error = error.map(str::to_owned);
        self.statuses.send_if_modified(|outputs| {
            let output = &mut outputs[self.index];
            let changed = output.status != status || output.error != error;
            (output.status, output.error) = (status, error);
            changed
        });
    }
}

/// Decides when to try again, from the failures so far.
struct Verdicts {
    start: Instant,
    backoff: Backoff,
    /// When the key was first found in use. Cleared by a publication, as is `rejected`, the first rejection.
    taken_since: Option<Duration>,
    rejected: Option<Duration>,
}

impl Verdicts {
    fn new() -> Self {
        Self { start: Instant::now(), backoff: Backoff::new(fastrand::u64(..)), taken_since: None, rejected: None }
    }

    fn streaming(&mut self) {
        self.backoff.streaming(self.start.elapsed());
        (self.taken_since, self.rejected) = (None, None);
    }

    /// The delay before the next attempt, if there is to be one.
    fn lost(&mut self, cause: Cause) -> Option<Duration> {
        let now = self.start.elapsed();
        match retry::class(cause) {
            Class::Retry | Class::Camera => Some(self.backoff.lost(now)),
            Class::StreamExists => {
                let since = *self.taken_since.get_or_insert(now);
                (now.saturating_sub(since) < retry::STREAM_EXISTS_BUDGET).then_some(retry::STREAM_EXISTS_DELAY)
            }
            Class::Rejected => {
                let first = *self.rejected.get_or_insert(now);
                (now == first || now.saturating_sub(first) < retry::REJECTED_DELAY).then_some(retry::REJECTED_DELAY)
            }
            Class::Fatal => None,
        }
    }
}
