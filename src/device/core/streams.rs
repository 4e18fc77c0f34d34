//! The one stream that lives, the one that waits for its end, and how the last one ended.

use std::time::Duration;

use super::camera::StreamNeed;
use super::rate::Rate;
use super::stream::{Active, Asked, Origin};
use super::{Effect, Outbox};
use crate::device::config::{Config, OnLoss, Stream as StreamConfig};
use crate::link::LinkId;
use crate::media::chime::Chime;
use crate::media::publisher;
use crate::policy::Time;
use crate::policy::arbiter::{LeaseId, RequestId};
use crate::policy::bitrate::Decision;
use crate::policy::heat::Allowance;
use crate::policy::stream::{Stream, StreamAction, StreamEvent, StreamSettings};
use crate::protocol::command::StartStream;
use crate::protocol::control::{Answer, ReportLine, Started};
use crate::protocol::{Cause, Failure, Metrics, StreamEnd, StreamReport, StreamState, VideoSettings};

/// What others are to know.
#[derive(Debug)]
pub enum StreamOutcome {
    /// The stream's state changed; who directs it is to be told.
    Reported { origin: Origin, stream_id: String, report: StreamReport },
    /// It ended, and let go of the camera.
    Ended { lease: LeaseId },
}

/// The streams.
#[derive(Debug)]
pub struct Streams {
    pub(super) config: StreamConfig,
    sound: bool,
    pub(super) active: Option<Active>,
    /// A start that waits for the end of the stream it replaces.
    after_end: Option<(RequestId, Asked)>,
    pub(super) last_end: Option<StreamEnd>,
    metrics: Metrics,
    /// Measurements of the stream so far.
    pub(super) measured: u64,
    /// Publishers opened so far.
    publishers: u32,
}

impl Streams {
    pub fn new(config: &Config) -> Self {
        Self {
            config: config.stream.clone(),
            sound: config.audio.device != "none",
            active: None,
            after_end: None,
            last_end: None,
            metrics: Metrics::default(),
            measured: 0,
            publishers: 0,
        }
    }

    /// The stream that lives.
    pub fn active(&self) -> Option<&Active> {
        self.active.as_ref()
    }

    /// How the last one ended.
    pub fn last_end(&self) -> Option<&StreamEnd> {
        self.last_end.as_ref()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn need(&self) -> Option<StreamNeed> {
        self.active.as_ref().map(Active::need)
    }

    /// What the encoder is to make.
    pub fn decision(&self) -> Option<Decision> {
        self.active.as_ref().map(|stream| stream.rate.decision())
    }

    pub fn deadline(&self) -> Option<Time> {
        self.active.as_ref()?.life.deadline()
    }

    /// Whether this link started the stream.
    pub fn is_of(&self, link: LinkId) -> bool {
        self.active.as_ref().is_some_and(|stream| stream.origin.link() == Some(link))
    }

    /// Whether this is the start of the stream that lives again, perhaps because its answer was lost.
    pub fn repeats(&self, start: &StartStream) -> bool {
        self.active.as_ref().is_some_and(|stream| {
            let live = &stream.start;
            !start.stream_id.is_empty()
                && (&live.stream_id, &live.app, &live.url) == (&start.stream_id, &start.app, &start.url)
        })
    }

    /// Whether a start that joins the stream means this one: it has no id of its own, or the same.
    pub fn is_meant_by(&self, asked: &Asked) -> bool {
        let id = &asked.start.stream_id;
        self.active.as_ref().is_some_and(|stream| id.is_empty() || stream.start.stream_id == *id)
    }

    /// The start was granted the camera.
    pub fn begin(
        &mut self,
        asked: Asked,
        lease: LeaseId,
        heat: Allowance,
        now: Time,
        out: &mut Outbox,
    ) -> Vec<StreamOutcome> {
        let Asked { start, origin, crashes } = asked;
        let (life, actions) = Stream::new(self.settings(&start, origin, crashes.is_some(), lease, now), now);
        let rate = Rate::new(&self.config, &start.video, heat, now);
        let unanswered = if let Origin::Control(request) = origin { Some(request) } else { None };
        out.counts.started(start.kind);
        self.metrics = Metrics::default();
        self.measured = 0;
        self.active = Some(Active {
            life,
            lease,
            origin,
            unanswered,
            stoppers: vec![],
            publications: 0,
            publishers_before: self.publishers,
            // The process before this one told it.
            heard: crashes.is_some() && start.sound,
            start,
            crashes: crashes.unwrap_or(0),
            rate,
        });
        self.remember(false, now, out);
        self.carry_out(actions, out)
    }

    fn settings(
        &self,
        start: &StartStream,
        origin: Origin,
        resumed: bool,
        lease: LeaseId,
        now: Time,
    ) -> StreamSettings {
        let config = &self.config;
        let link = origin.link();
        StreamSettings {
            give_up_after: config.give_up_after(),
            keep_alive_timeout: (link.is_some() && !start.stream_id.is_empty())
                .then(|| Duration::from_secs(config.keep_alive_timeout_s)),
            stop_on_keep_alive_loss: config.on_keep_alive_loss == OnLoss::Stop,
            link_loss_grace: link.map(|_| config.link_loss_grace()),
            camera_hold: Duration::from_secs(config.camera_hold_s),
            duration_limit: start.duration_limit,
            seed: lease.0 ^ now.as_nanos() as u64,
            resumed,
        }
    }

    /// Another stream is to begin when this one has ended. Returns the start that waited for that until now.
    pub fn begin_after_end(&mut self, request: RequestId, asked: Asked) -> Option<Asked> {
        self.after_end.replace((request, asked)).map(|(_, displaced)| displaced)
    }

    /// The start that waits for the end of a stream, where `which` says so.
    pub fn take_next(&mut self, which: impl Fn(&Asked) -> bool) -> Option<(RequestId, Asked)> {
        self.after_end.take_if(|(_, asked)| which(asked))
    }

    /// This control request is answered when the stream has ended.
    pub fn answer_at_end(&mut self, request: RequestId) {
        if let Some(stream) = &mut self.active {
            stream.stoppers.push(request);
        }
    }

    pub fn on(&mut self, event: StreamEvent, now: Time, out: &mut Outbox) -> Vec<StreamOutcome> {
        let Some(stream) = &mut self.active else { return Vec::new() };
        let actions = stream.life.on(event, now);
        self.carry_out(actions, out)
    }

    /// A publisher of the stream says something. Also returns what the encoder is to make, if that is another thing than before.
    pub fn publisher(
        &mut self,
        publisher: u32,
        event: publisher::PublisherEvent,
        now: Time,
        out: &mut Outbox,
    ) -> (Option<Decision>, Vec<StreamOutcome>) {
        let Some(stream) = self.active.as_mut().filter(|stream| stream.publishers_before < publisher) else {
            return (None, Vec::new());
        };
        let attempt = publisher - stream.publishers_before;
        let event = match event {
            publisher::PublisherEvent::Accepted => {
                stream.publications += 1;
                stream.rate.connected(now);
                return (None, Vec::new());
            }
            publisher::PublisherEvent::Sampled(sample) => {
                let before = stream.rate.send_buffer();
                let what = stream.rate.sampled(sample, now);
                if let Some(bytes) = stream.rate.send_buffer().filter(|bytes| before != Some(*bytes)) {
                    out.push(Effect::BoundSendBuffer(publisher, bytes));
                }
                return (what, Vec::new());
            }
            publisher::PublisherEvent::Flowing => StreamEvent::PublisherFlowing { attempt },
            publisher::PublisherEvent::Lost(failure) => {
                let (stream_id, cause) = (&stream.start.stream_id, failure.cause);
                tracing::warn!(stream_id, %cause, attempt, %failure, "publication lost");
                StreamEvent::PublisherLost { attempt, failure }
            }
            publisher::PublisherEvent::Closed => StreamEvent::PublisherClosed { attempt },
        };
        (None, self.on(event, now, out))
    }

    /// Begins where the last stream on this network was; a stream that was carried already knows better.
    pub fn uplink_known(&mut self, publisher: u32, bitrate: u32, now: Time) -> Option<Decision> {
        let stream = self.active.as_mut().filter(|stream| stream.publishers_before < publisher)?;
        (stream.publications == 0).then(|| stream.rate.known(bitrate, now))
    }

    /// What heat allows. Returns what the encoder is to make, if that is another thing than before.
    pub fn heat(&mut self, allowance: Allowance, now: Time) -> Option<Decision> {
        self.active.as_mut()?.rate.heat(allowance, now)
    }

    /// Another bitrate is asked for; returns what the encoder is to make.
    pub fn limit_bitrate(&mut self, bitrate: u32, now: Time) -> Option<Decision> {
        let stream = self.active.as_mut()?;
        let bitrate = VideoSettings::clamp_bitrate(bitrate);
        stream.start.video.bitrate = bitrate;
        Some(stream.rate.limit(bitrate, now))
    }

    /// How the stream does; comes once a second.
    pub fn measured(&mut self, metrics: Metrics, now: Time, out: &mut Outbox) {
        self.metrics = metrics;
        self.measured += 1;
        self.remember_now_and_then(now, out);
    }

    fn carry_out(&mut self, actions: Vec<StreamAction>, out: &mut Outbox) -> Vec<StreamOutcome> {
        let mut outcomes = Vec::new();
        for action in actions {
            let Some(stream) = &self.active else { break };
            match action {
                StreamAction::OpenPublisher { attempt } => {
                    self.publishers = stream.publishers_before + attempt;
                    out.push(Effect::OpenPublisher(self.publishers, stream.target(self.sound)));
                }
                StreamAction::ClosePublisher { attempt } => {
                    out.push(Effect::ClosePublisher(stream.publishers_before + attempt));
                }
                StreamAction::Report(report) => outcomes.extend(self.report(report, out)),
                StreamAction::End { state, failure } => outcomes.extend(self.end(state, failure, out)),
            }
        }
        outcomes
    }

    fn report(&mut self, report: StreamReport, out: &mut Outbox) -> Option<StreamOutcome> {
        let stream = self.active.as_mut()?;
        let stream_id = stream.start.stream_id.clone();
        tracing::info!(
            stream_id,
            app = stream.start.app,
            state = report.state.name(),
            cause = report.cause().map(Cause::name),
            attempt = report.attempt,
            detail = report.failure.as_ref().map(|failure| failure.detail.as_str()).filter(|detail| !detail.is_empty()),
            "stream"
        );
        if report.state == StreamState::Streaming && stream.start.sound && !stream.heard {
            stream.heard = true;
            out.push(Effect::Play(Chime::Begun));
        }
        if report.state == StreamState::Reconnecting {
            out.counts.retries.count(report.cause().unwrap_or(Cause::Internal).name());
        }
        out.push(Effect::Tell(ReportLine::new(&stream_id, &report)));
        if matches!(report.state, StreamState::Connecting | StreamState::Streaming | StreamState::Reconnecting)
            && let Some(request) = stream.unanswered.take()
        {
            // The start came to something; whatever follows is the stream's own story.
            out.reply(request, Ok(Answer::Started(Started { stream_id: stream_id.clone() })));
        }
        Some(StreamOutcome::Reported { origin: stream.origin, stream_id, report })
    }

    fn end(&mut self, state: StreamState, failure: Failure, out: &mut Outbox) -> Option<StreamOutcome> {
        let stream = self.active.take()?;
        if stream.heard {
            let low = failure.cause == Cause::BatteryLow;
            out.push(Effect::Play(if low { Chime::BatteryLow } else { Chime::Ended }));
        }
        if stream.publications > 0 && stream.rate.tried_uplink() {
            out.push(Effect::RememberUplink(stream.rate.carries()));
        }
        if let Some(request) = stream.unanswered {
            out.reply(request, Err(failure.clone().into()));
        }
        for request in stream.stoppers {
            out.reply(request, Ok(Answer::Done));
        }
        out.counts.ended.count(failure.cause.name());
        self.last_end = Some(StreamEnd { stream_id: stream.start.stream_id, state, failure });
        out.push(Effect::Remember(None));
        Some(StreamOutcome::Ended { lease: stream.lease })
    }
}
