//! One attempt to publish: connect, publish, carry media, and notice when it no longer arrives.
//!
//! `appsrc ! rtmp2sink`, thrown away after the attempt. That the server accepted the publication shows by an event
//! that we send behind the metadata: it reaches rtmp2sink's pad only after the metadata was taken, which waits for the
//! server. Then the gate opens with a fresh key frame. `Flowing` is said only when the server's kernel has
//! acknowledged media and nothing speaks against its process reading; it is said again after each pause or reopening of
//! the camera.
//!
//! rtmp2sink, not the older rtmpsink: that one is librtmp, which blocks in its own sockets without a deadline, shows
//! no socket to watch and writes its own words to stderr, key included.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gstreamer::{self as gst, prelude::*};
use gstreamer_app::AppSrc;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::failure::{self, Phase};
use super::feed::{Consumer, Feed, Unit};
use super::flv::{self, Metadata};
use super::gate::{Gate, Verdict};
use super::log;
use super::pipeline;
use super::socket::{self, Connection, Progress, TcpInfo};
use super::transit::Transit;
use crate::policy::bitrate;
use crate::policy::stall::{Sample, StallDetector, UnreadDetector};
use crate::protocol::{Cause, Failure, StreamUrl};

/// For the server's address.
const RESOLVE_LIMIT: Duration = Duration::from_secs(3);
/// For TCP to connect: one SYN and, a second later, another. A third would come so late, at 3 s before Linux 6.5, that a new
/// attempt is sooner when a network comes back.
const TCP_LIMIT: Duration = Duration::from_secs(2);
/// From there until the server has accepted the publication.
const ACCEPT_LIMIT: Duration = Duration::from_secs(3);
/// How often the socket is asked for signs of life.
const SAMPLING: Duration = Duration::from_millis(100);
/// See [`Connection::quick_ack`].
const QUICK_ACK_EVERY: Duration = Duration::from_millis(2);
/// How long a polite end may take: the last frames out, `deleteStream`, everything acknowledged.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// Nothing on its way for so long means that all has arrived.
const FAREWELL_QUIET: Duration = Duration::from_millis(20);
/// No picture for so long means that the camera paused; `Flowing` must then be earned again.
const CAMERA_PAUSE: Duration = Duration::from_millis(700);
/// Key frames come every second; when one is so late it is asked for.
const KEY_FRAME_OVERDUE: Duration = Duration::from_millis(1050);
/// Behind the metadata; its arrival at the sink means that the metadata was taken.
const ACCEPTED_EVENT: &str = "lenscast-publish-accepted";

/// What is published, and where to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The RTMP server, application and key.
    pub url: StreamUrl,
    /// What the metadata says before the camera has spoken.
    pub metadata: Metadata,
}

/// What happens to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server accepted the publication.
    Accepted,
    /// Media arrives at the server, for the first time or again after the camera paused.
    Flowing,
    /// How the connection does, every [`bitrate::INTERVAL`].
    Sampled(bitrate::Sample),
    /// It failed; `Closed` follows.
    Lost(Failure),
    /// Nothing is left of it. The last event.
    Closed,
}

/// What went out so far, and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Pictures handed to the sink.
    pub passed: u64,
    /// Pictures dropped by the gate since the first one passed.
    pub dropped: u64,
    /// Bytes of media handed to the sink.
    pub bytes: u64,
    /// Media waiting to be sent.
    pub queued: Duration,
    /// Smoothed round-trip time.
    pub round_trip: Duration,
    /// Bytes that the server's machine has acknowledged, RTMP's and TLS's own included.
    pub acked: u64,
    /// Bytes given to the kernel that it has not acknowledged, sent or not.
    pub outstanding: u64,
    /// The part of these that was not sent yet.
    pub unsent: u64,
    /// How long the oldest of these has been there.
    pub oldest: Duration,
}

/// A running attempt. Dropping it without [`Publisher::close`] leaves the task to end by itself when it next looks.
#[derive(Debug)]
pub struct Publisher {
    intake: Arc<Intake>,
    close: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Begins an attempt. Its events come tagged with `attempt`.
    pub fn open(attempt: u32, target: Target, feed: Arc<Feed>, events: mpsc::Sender<(u32, Event)>) -> Self {
        let intake = Arc::new(Intake::new(feed));
        let (close, closed) = oneshot::channel();
        let task = tokio::spawn(run(attempt, target, intake.clone(), closed, events));
        Self { intake, close: Some(close), task }
    }

    /// Ends it politely: what the gate let through still goes out. `Closed` follows within the farewell's limit and
    /// the teardown's. Asking twice changes nothing.
    pub fn close(&mut self) {
        drop(self.close.take()); // the dropped sender is the message
    }

    /// Has the kernel hold no more than so many bytes; see [`Connection::bound_send_buffer`].
    pub fn bound_send_buffer(&self, bytes: u32) {
        if let Some(socket) = self.intake.socket.get() {
            socket.bound_send_buffer(bytes);
        }
    }

    /// What went out so far.
    pub fn counters(&self) -> Counters {
        self.intake.counters()
    }

    /// Waits for the end.
    pub async fn join(self) {
        let _ = self.task.await;
    }
}

/// The part that the capture's threads and the attempt's task share.
struct Intake {
    feed: Arc<Feed>,
    appsrc: AppSrc,
    /// Once there is a connection.
    socket: OnceLock<Connection>,
    state: Mutex<IntakeState>,
    open: AtomicBool,
    /// The latest time that entered the sink.
    sent_ms: AtomicU32,
    bytes: AtomicU64,
    /// Of video, whether or not the gate let it through.
    encoded: AtomicU64,
}

#[derive(Default)]
struct IntakeState {
    gate: Gate,
    video_config: Option<Arc<[u8]>>,
    audio_config: Option<Arc<[u8]>>,
    last_picture: Option<Instant>,
    /// Of the camera, from which the last picture came.
    opening: u64,
    /// The capture's time of the last key frame, or of our last asking for one.
    key_frame_at: Duration,
    /// How the connection stood when it was looked at last.
    connection: TcpInfo,
    /// How long its oldest byte had been on its way then.
    oldest: Duration,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Intake {
    fn new(feed: Arc<Feed>) -> Self {
        let caps = gst::Caps::builder("video/x-flv").build();
        let appsrc = AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .is_live(true)
            .block(false)
            .max_bytes(0) // the gate bounds it, by time
            .build();
        Self {
            feed,
            appsrc,
            socket: OnceLock::new(),
            state: Mutex::new(IntakeState { gate: Gate::new(), ..IntakeState::default() }),
            open: AtomicBool::new(false),
            sent_ms: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            encoded: AtomicU64::new(0),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, IntakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counters(&self) -> Counters {
        let state = self.state();
        Counters {
            passed: state.gate.passed(),
            dropped: state.gate.dropped(),
            bytes: self.bytes.load(Ordering::Relaxed),
            queued: self.queued(&state.gate),
            round_trip: Duration::from_micros(state.connection.rtt_us.into()),
            acked: state.connection.acked,
            outstanding: state.connection.outstanding,
            unsent: state.connection.unsent.into(),
            oldest: state.oldest,
        }
    }

    fn queued(&self, gate: &Gate) -> Duration {
        let sent = self.sent_ms.load(Ordering::Relaxed);
        Duration::from_millis(gate.newest_ms().saturating_sub(sent).into())
    }

    fn sample(&self, info: &TcpInfo) -> bitrate::Sample {
        bitrate::Sample {
            acked: info.acked,
            arrived: info.arrived,
            outstanding: info.outstanding,
            unsent: info.unsent.into(),
            waiting: self.appsrc.current_level_bytes(),
            queued: self.queued(&self.state().gate),
            round_trip: Duration::from_micros(info.rtt_us.into()),
            encoded: self.encoded.load(Ordering::Relaxed),
        }
    }

    fn push_media(&self, dts_ms: u32, tag: Vec<u8>) {
        self.bytes.fetch_add(tag.len() as u64, Ordering::Relaxed);
        self.push(dts_ms, tag);
    }

    fn push(&self, dts_ms: u32, tag: Vec<u8>) {
        let mut buffer = gst::Buffer::from_mut_slice(tag);
        let time = gst::ClockTime::from_mseconds(dts_ms.into());
        buffer.get_mut().expect("a new buffer is ours alone").set_pts(time);
        let _ = self.appsrc.push_buffer(buffer); // fails only while the attempt is being torn down
    }

    fn let_in(&self) {
        self.open.store(true, Ordering::Release);
        self.feed.ask_for_key_frame();
    }

    fn shut(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// Which opening of the camera gives pictures, if any does.
    fn camera(&self) -> Option<u64> {
        let state = self.state();
        state.last_picture.filter(|last| last.elapsed() <= CAMERA_PAUSE).map(|_| state.opening)
    }
}

impl Consumer for Intake {
    fn video(&self, unit: Unit<'_>) {
        if !self.open.load(Ordering::Acquire) {
            return;
        }
        self.encoded.fetch_add(unit.data.len() as u64, Ordering::Relaxed);
        let mut state = self.state();
        state.last_picture = Some(Instant::now());
        state.opening = unit.opening;
        let queued = self.queued(&state.gate);
        if unit.key {
            state.key_frame_at = unit.dts;
        }
        // Some encoders know no interval in frames (the Raspberry Pi's keeps to 60 pictures whatever it is told).
        let overdue = unit.dts.saturating_sub(state.key_frame_at) > KEY_FRAME_OVERDUE;
        if overdue {
            state.key_frame_at = unit.dts;
        }
        match state.gate.video(unit.pts, unit.dts, unit.key, queued) {
            Verdict::Pass { dts_ms, composition_ms } => {
                if state.video_config.as_ref() != Some(unit.config) {
                    state.video_config = Some(unit.config.clone());
                    self.push_media(dts_ms, flv::video_configuration(dts_ms, unit.config));
                }
                self.push_media(dts_ms, flv::video_frame(dts_ms, composition_ms, unit.key, unit.data));
                drop(state);
                if overdue {
                    self.feed.ask_for_key_frame();
                }
            }
            Verdict::AskForKeyFrame => {
                drop(state);
                self.feed.ask_for_key_frame();
            }
            Verdict::Drop => {}
        }
    }

    fn audio(&self, unit: Unit<'_>) {
        if !self.open.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        let queued = self.queued(&state.gate);
        if let Verdict::Pass { dts_ms, .. } = state.gate.audio(unit.pts, queued) {
            if state.audio_config.as_ref() != Some(unit.config) {
                state.audio_config = Some(unit.config.clone());
                self.push_media(dts_ms, flv::audio_configuration(dts_ms, unit.config));
            }
            self.push_media(dts_ms, flv::audio_frame(dts_ms, unit.data));
        }
    }
}

async fn run(
    attempt: u32,
    target: Target,
    intake: Arc<Intake>,
    closed: oneshot::Receiver<()>,
    events: mpsc::Sender<(u32, Event)>,
) {
    let outcome = publish(attempt, &target, &intake, closed, &events).await;
    if let Err(failure) = outcome {
        let detail = target.url.redact(&failure.detail);
        let _ = events.send((attempt, Event::Lost(Failure::new(failure.cause, detail)))).await;
    }
    let _ = events.send((attempt, Event::Closed)).await;
}

async fn publish(
    attempt: u32,
    target: &Target,
    intake: &Arc<Intake>,
    closed: oneshot::Receiver<()>,
    events: &mpsc::Sender<(u32, Event)>,
) -> Result<(), Failure> {
    let progress = socket::watch(target.url.host(), target.url.port()).await;
    let sink = pipeline::element("rtmp2sink", None)?;
    locate(&sink, &target.url);
    sink.set_property("timeout", ACCEPT_LIMIT.as_secs() as u32);
    sink.set_property("chunk-size", 65_536_u32); // one chunk a message: fewer headers, fewer copies
    sink.set_property("async", false);
    sink.set_property("sync", false);
    let elements = gst::Pipeline::new();
    pipeline::chain(&elements, &[intake.appsrc.upcast_ref(), &sink])?;
    let errors = pipeline::errors(&elements);
    let accepted = Arc::new(Notify::new());
    observe_sink(&sink, intake, &accepted);

    let mut life = Life { attempt, target, intake, events, progress, errors, sink, phase: Phase::default() };
    let _ = elements.set_state(gst::State::Playing); // a failure is on the bus
    intake.push(0, flv::metadata(&target.metadata));
    let marker = gst::event::CustomDownstream::new(gst::Structure::new_empty(ACCEPTED_EVENT));
    intake.appsrc.send_event(marker);

    let outcome = life.live(&accepted, closed).await;
    intake.shut();
    if matches!(outcome, Ok(End::Asked)) {
        life.farewell().await;
    }
    pipeline::shut_down(elements, "publisher").await;
    outcome.map(|_| ())
}

/// Part by part: from a whole `location` rtmp2sink takes the application to end at the last `/`, even one in the query,
/// and the user at the first `@`.
fn locate(sink: &gst::Element, url: &StreamUrl) {
    log::keep_secret(url);
    sink.set_property_from_str("scheme", if url.is_tls() { "rtmps" } else { "rtmp" });
    sink.set_property("host", url.host());
    sink.set_property("port", i32::from(url.port()));
    sink.set_property("application", url.expose_app());
    sink.set_property("stream", url.expose_stream());
    if let Some((user, password)) = url.expose_user() {
        sink.set_property("username", user);
        sink.set_property("password", password);
    }
}

fn observe_sink(sink: &gst::Element, intake: &Arc<Intake>, accepted: &Arc<Notify>) {
    let pad = sink.static_pad("sink").expect("rtmp2sink has a sink pad");
    let (intake, accepted) = (Arc::downgrade(intake), accepted.clone());
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                if let (Some(intake), Some(time)) = (intake.upgrade(), buffer.pts()) {
                    intake.sent_ms.fetch_max(time.mseconds() as u32, Ordering::Relaxed);
                }
            }
            Some(gst::PadProbeData::Event(event)) if event.structure().is_some_and(|s| s.name() == ACCEPTED_EVENT) => {
                accepted.notify_one();
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

enum End {
    Asked,
}

struct Life<'a> {
    attempt: u32,
    target: &'a Target,
    intake: &'a Arc<Intake>,
    events: &'a mpsc::Sender<(u32, Event)>,
    progress: mpsc::UnboundedReceiver<Progress>,
    errors: mpsc::Receiver<gst::Message>,
    sink: gst::Element,
    phase: Phase,
}

impl Life<'_> {
    async fn live(&mut self, accepted: &Notify, mut closed: oneshot::Receiver<()>) -> Result<End, Failure> {
        let start = Instant::now();
        tokio::select! {
            result = self.connect(accepted) => result?,
            _ = &mut closed => return Ok(End::Asked),
        }
        tracing::debug!(attempt = self.attempt, url = %self.target.url, after = ?start.elapsed(), "publication accepted");
        self.say(Event::Accepted).await;
        self.intake.feed.attach(self.intake);
        self.intake.let_in();
        tokio::select! {
            failure = self.carry() => Err(failure),
            _ = &mut closed => Ok(End::Asked),
        }
    }

    /// Until the server has accepted the publication.
    async fn connect(&mut self, accepted: &Notify) -> Result<(), Failure> {
        let mut quick_ack = tokio::time::interval(QUICK_ACK_EVERY);
        quick_ack.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut limit = RESOLVE_LIMIT;
        let too_long = tokio::time::sleep(limit);
        tokio::pin!(too_long);
        loop {
            tokio::select! {
                biased;
                Some(progress) = self.progress.recv() => {
                    let before = self.phase;
                    self.progressed(progress);
                    // Only forward: a server with several addresses has no more time for it.
                    limit = match (before, self.phase) {
                        (Phase::Resolving, Phase::Connecting) => TCP_LIMIT,
                        (Phase::Resolving | Phase::Connecting, Phase::Tls | Phase::Commands) => ACCEPT_LIMIT,
                        _ => continue,
                    };
                    too_long.as_mut().reset(tokio::time::Instant::now() + limit);
                }
                () = &mut too_long => {
                    return Err(Failure::new(self.phase.timed_out(), format!("no answer within {limit:?}")));
                }
                Some(message) = self.errors.recv() => return Err(self.failure(&message)),
                () = accepted.notified() => {
                    self.phase = Phase::Published;
                    return Ok(());
                }
                _ = quick_ack.tick(), if self.intake.socket.get().is_some() => {
                    if let Some(socket) = self.intake.socket.get() {
                        socket.quick_ack();
                    }
                }
            }
        }
    }

    fn progressed(&mut self, progress: Progress) {
        self.phase = match progress {
            Progress::Resolving => Phase::Resolving,
            Progress::Connecting => Phase::Connecting,
            Progress::TlsHandshaking => Phase::Tls,
            Progress::TlsHandshaked => Phase::Commands,
            Progress::Connected(connection) => {
                let _ = self.intake.socket.set(connection); // an attempt connects once
                if self.target.url.is_tls() { Phase::Tls } else { Phase::Commands }
            }
        };
    }

    fn failure(&self, message: &gst::Message) -> Failure {
        match message.view() {
            gst::MessageView::Error(error) => {
                let debug = error.debug().unwrap_or_default();
                let cause = failure::of_publisher(self.phase, &error.error(), &debug);
                Failure::new(cause, format!("{:?}: {} ({debug})", self.phase, error.error()))
            }
            _ => Failure::new(Cause::ConnectionLost, "the sink ended the stream"),
        }
    }

    /// Until media no longer arrives; returns why.
    async fn carry(&mut self) -> Failure {
        let start = Instant::now();
        let mut detector = StallDetector::new(start.elapsed(), true);
        let mut unread = UnreadDetector::default();
        let mut flowing = false;
        let mut camera = None;
        let mut sampled = start;
        let mut transit = Transit::default();
        let mut acked_before = self.tcp_info().map_or(0, |info| info.acked);
        loop {
            let pause = if flowing { SAMPLING } else { SAMPLING / 5 };
            if let Ok(Some(message)) = tokio::time::timeout(pause, self.errors.recv()).await {
                return self.failure(&message);
            }
            let Some(info) = self.tcp_info() else {
                return Failure::new(Cause::Internal, "the connection's socket cannot be watched");
            };
            let oldest = transit.look(start.elapsed(), info.acked, info.outstanding);
            {
                let mut state = self.intake.state();
                (state.connection, state.oldest) = (info, oldest);
            }
            let sample = Sample { acked: info.acked, outstanding: info.outstanding, window: info.window };
            let now = start.elapsed();
            let verdict = detector.sample(now, sample).or_else(|| unread.sample(now, info.acked, self.acknowledged()));
            if let Some(cause) = verdict {
                return Failure::new(cause, format!("{info:?}"));
            }
            if sampled.elapsed() + SAMPLING / 10 >= bitrate::INTERVAL {
                sampled = Instant::now();
                let event = Event::Sampled(self.intake.sample(&info));
                let _ = self.events.try_send((self.attempt, event)); // the next one says all that this one did
            }
            let now_from = self.intake.camera();
            if now_from.is_none() || now_from != camera {
                // It paused, or was opened anew: what was acknowledged so far proves nothing of what comes.
                (camera, flowing, acked_before) = (now_from, false, info.acked);
            } else if !flowing && info.acked > acked_before && self.intake.state().gate.passed() > 0 {
                flowing = true;
                self.say(Event::Flowing).await;
            }
        }
    }

    fn tcp_info(&self) -> Option<TcpInfo> {
        self.intake.socket.get()?.tcp_info()
    }

    /// Bytes that the server says it has read; 0 for one that never says.
    fn acknowledged(&self) -> u64 {
        let statistics: Option<gst::Structure> = self.sink.property("stats");
        statistics.and_then(|statistics| statistics.get("out-bytes-acked").ok()).unwrap_or(0)
    }

    /// Lets what passed the gate go out and unpublishes.
    async fn farewell(&mut self) {
        if self.phase != Phase::Published || self.intake.appsrc.end_of_stream().is_err() {
            return;
        }
        let all_out = async {
            let _ = self.errors.recv().await; // EOS: all is handed to the connection
            // The connection hands its last messages to the kernel one by one; quiet for a moment means all are gone.
            let mut sampling = tokio::time::interval(QUICK_ACK_EVERY);
            let (mut acked, mut quiet_since) = (0, Instant::now());
            while let Some(info) = self.tcp_info() {
                if info.outstanding > 0 || info.acked != acked {
                    (acked, quiet_since) = (info.acked, Instant::now());
                } else if quiet_since.elapsed() >= FAREWELL_QUIET {
                    break;
                }
                sampling.tick().await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL_LIMIT, all_out).await;
    }

    async fn say(&self, event: Event) {
        let _ = self.events.send((self.attempt, event)).await; // nobody listens while the daemon ends
    }
}
