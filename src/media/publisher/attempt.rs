//! An attempt's task: builds the elements, keeps each stage within its limit, watches that media arrives, and says
//! goodbye.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gstreamer::{self as gst, prelude::*};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::intake::Intake;
use crate::media::failure::{self, Phase};
use crate::media::flv::{self, Metadata};
use crate::media::socket::{self, Progress, TcpInfo};
use crate::media::transit::Transit;
use crate::media::{log, pipeline};
use crate::policy::bitrate;
use crate::policy::stall::{StallDetector, TcpSample, UnreadDetector};
use crate::protocol::{Cause, Failure, StreamUrl};

/// Limit for resolving the server's address.
const RESOLVE_LIMIT: Duration = Duration::from_secs(3);
/// Limit for TCP to connect: one SYN and, a second later, another. A third would come so late (at 3 s before Linux
/// 6.5) that a new attempt is sooner when a network comes back.
const TCP_LIMIT: Duration = Duration::from_secs(2);
/// Limit from there until the server has accepted the publication.
const ACCEPT_LIMIT: Duration = Duration::from_secs(3);
/// Interval between checks of the socket.
const SAMPLING: Duration = Duration::from_millis(100);
/// Interval between calls of [`socket::Connection::quick_ack`].
const QUICK_ACK_EVERY: Duration = Duration::from_millis(2);
/// Limit for a polite end: the last frames out, `deleteStream`, everything acknowledged.
const UNPUBLISH_LIMIT: Duration = Duration::from_secs(1);
/// When nothing has been on its way for this long, everything has arrived.
const UNPUBLISH_QUIET: Duration = Duration::from_millis(20);
/// Follows the metadata; when it arrives at the sink, the metadata was taken.
const ACCEPTED_EVENT: &str = "lenscast-publish-accepted";

/// What to publish, and where.
#[derive(Clone, Debug)]
pub struct Target {
    /// The RTMP server, application and key.
    pub url: StreamUrl,
    /// The metadata, before the camera has delivered anything.
    pub metadata: Metadata,
}

/// What happens to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublisherEvent {
    /// The server accepted the publication.
    Accepted,
    /// Media arrives at the server, for the first time or again after the camera paused.
    Flowing,
    /// The state of the connection, every [`bitrate::INTERVAL`].
    Sampled(bitrate::UplinkSample),
    /// It failed; `Closed` follows.
    Lost(Failure),
    /// Everything is released. The last event.
    Closed,
}

/// The attempt from beginning to end; reports both.
pub(super) async fn run(
    attempt: u32,
    target: Target,
    intake: Arc<Intake>,
    closed: oneshot::Receiver<()>,
    events: mpsc::Sender<(u32, PublisherEvent)>,
) {
    let outcome = publish(attempt, &target, &intake, closed, &events).await;
    if let Err(failure) = outcome {
        let detail = target.url.redact(&failure.detail);
        let _ = events.send((attempt, PublisherEvent::Lost(Failure::new(failure.cause, detail)))).await;
    }
    let _ = events.send((attempt, PublisherEvent::Closed)).await;
}

async fn publish(
    attempt: u32,
    target: &Target,
    intake: &Arc<Intake>,
    closed: oneshot::Receiver<()>,
    events: &mpsc::Sender<(u32, PublisherEvent)>,
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

/// Sets the address part by part: given a whole `location`, rtmp2sink ends the application at the last `/`, even one
/// in the query, and the user at the first `@`.
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
    events: &'a mpsc::Sender<(u32, PublisherEvent)>,
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
        self.say(PublisherEvent::Accepted).await;
        self.intake.feed.attach(self.intake);
        self.intake.let_in();
        tokio::select! {
            failure = self.carry() => Err(failure),
            _ = &mut closed => Ok(End::Asked),
        }
    }

    /// Returns when the server has accepted the publication.
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
                    // Phases only advance: a server with several addresses gets no extra time.
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
                let place = error.debug().unwrap_or_default();
                let cause = failure::of_publisher(self.phase, &error.error(), &place);
                tracing::debug!(phase = ?self.phase, place = self.target.url.redact(&place), "GStreamer ended a publication");
                Failure::new(cause, failure::words(&error.error(), &place))
            }
            _ => Failure::new(Cause::ConnectionLost, "the sink ended the stream"),
        }
    }

    /// Returns when media no longer arrives, with the reason.
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
            let sample = TcpSample { acked: info.acked, outstanding: info.outstanding, window: info.window };
            let now = start.elapsed();
            let verdict = detector.sample(now, sample).or_else(|| unread.sample(now, info.acked, self.acknowledged()));
            if let Some(cause) = verdict {
                tracing::debug!(?info, "the server reads nothing");
                return cause.into();
            }
            if sampled.elapsed() + SAMPLING / 10 >= bitrate::INTERVAL {
                sampled = Instant::now();
                let event = PublisherEvent::Sampled(self.intake.sample(&info));
                let _ = self.events.try_send((self.attempt, event)); // the next one says all that this one did
            }
            let now_from = self.intake.camera();
            if now_from.is_none() || now_from != camera {
                // The camera paused or was reopened: earlier acknowledgements prove nothing about what comes.
                (camera, flowing, acked_before) = (now_from, false, info.acked);
            } else if !flowing && info.acked > acked_before && self.intake.state().gate.passed() > 0 {
                flowing = true;
                self.say(PublisherEvent::Flowing).await;
            }
        }
    }

    fn tcp_info(&self) -> Option<TcpInfo> {
        self.intake.socket.get()?.tcp_info()
    }

    /// Bytes that the server says it has read; 0 if it never says.
    fn acknowledged(&self) -> u64 {
        let statistics: Option<gst::Structure> = self.sink.property("stats");
        statistics.and_then(|statistics| statistics.get("out-bytes-acked").ok()).unwrap_or(0)
    }

    /// Lets media that passed the gate go out, then unpublishes.
    async fn farewell(&mut self) {
        if self.phase != Phase::Published || self.intake.appsrc.end_of_stream().is_err() {
            return;
        }
        let all_out = async {
            let _ = self.errors.recv().await; // EOS: all is handed to the connection
            // The connection hands its last messages to the kernel one by one; a quiet moment means that all are gone.
            let mut sampling = tokio::time::interval(QUICK_ACK_EVERY);
            let (mut acked, mut quiet_since) = (0, Instant::now());
            while let Some(info) = self.tcp_info() {
                if info.outstanding > 0 || info.acked != acked {
                    (acked, quiet_since) = (info.acked, Instant::now());
                } else if quiet_since.elapsed() >= UNPUBLISH_QUIET {
                    break;
                }
                sampling.tick().await;
            }
        };
        let _ = tokio::time::timeout(UNPUBLISH_LIMIT, all_out).await;
    }

    async fn say(&self, event: PublisherEvent) {
        let _ = self.events.send((self.attempt, event)).await; // nobody listens while the daemon ends
    }
}
