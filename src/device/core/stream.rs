//! The one stream: begun, joined, refused, reported, ended.

use std::time::Duration;

use super::rate::Rate;
use super::{CaptureSettings, Core, Effect, Waiting};
use crate::device::config::OnLoss;
use crate::link::LinkId;
use crate::media::chime::Chime;
use crate::media::flv::Metadata;
use crate::media::publisher;
use crate::policy::Time;
use crate::policy::arbiter::{Claim, Event as ArbiterEvent, LeaseId, RequestId};
use crate::policy::bitrate::Decision;
use crate::policy::stream::{Action, Event, Settings, Stream};
use crate::protocol::command::{Dialect, StartStream};
use crate::protocol::control::{Answer, Refusal, ReportLine, Started};
use crate::protocol::{Cause, Failure, Metrics, StreamEnd, StreamReport, StreamSnapshot, StreamState, report};

/// A stream that was asked for.
#[derive(Debug)]
pub struct Asked {
    pub start: StartStream,
    pub origin: Origin,
    /// It is that of the process before this one, with which so many ended in a row.
    pub crashes: Option<u32>,
}

/// Who asked, and so who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// That link, in this dialect.
    Link(LinkId, Dialect),
    /// A client of the control socket.
    Control(RequestId),
}

impl Origin {
    /// The link, if it is one.
    pub fn link(self) -> Option<LinkId> {
        match self {
            Self::Link(link, _) => Some(link),
            Self::Control(_) => None,
        }
    }
}

/// The stream that lives.
#[derive(Debug)]
pub struct Active {
    pub life: Stream,
    pub lease: LeaseId,
    pub start: StartStream,
    pub origin: Origin,
    /// A control request that waits to hear whether the start came to anything.
    unanswered: Option<RequestId>,
    /// Control requests that wait for its end.
    stoppers: Vec<RequestId>,
    publications: u32,
    /// Its attempts count from 1, the daemon's publishers on from this: one that is slow to end is never taken for the
    /// next stream's.
    publishers_before: u32,
    /// The wearer was told that it is live.
    heard: bool,
    /// How many processes in a row ended with it.
    pub crashes: u32,
    /// What the encoder is to make.
    pub rate: Rate,
}

impl Active {
    pub fn snapshot(&self, metrics: &Metrics) -> StreamSnapshot {
        StreamSnapshot {
            stream_id: self.start.stream_id.clone(),
            app: self.start.app.clone(),
            kind: self.start.kind,
            state: self.life.state(),
            failure: self.life.failure().cloned(),
            url: self.start.url.to_string(),
            attempt: self.life.attempt(),
            publications: self.publications,
            metrics: metrics.clone(),
        }
    }

    pub fn capture_settings(&self) -> CaptureSettings {
        CaptureSettings { video: self.start.video, audio: self.start.audio }
    }

    fn target(&self, sound: bool) -> publisher::Target {
        let (video, audio) = (&self.start.video, &self.start.audio);
        publisher::Target {
            url: self.start.url.clone(),
            metadata: Metadata {
                width: video.width,
                height: video.height,
                frame_rate: f64::from(video.frame_rate),
                video_bitrate: video.bitrate,
                audio: sound.then_some((audio.bitrate, audio.sample_rate)),
            },
        }
    }
}

impl Core {
    /// Asks for a stream; the answer goes to its origin.
    pub(super) fn ask_for_stream(&mut self, request: RequestId, start: StartStream, origin: Origin, now: Time) {
        self.consider_stream(request, Asked { start, origin, crashes: None }, false, now);
    }

    /// `looked`: the board was looked at for this request.
    pub(super) fn consider_stream(&mut self, request: RequestId, asked: Asked, looked: bool, now: Time) {
        if self.ending {
            return self.refuse_stream(&asked, Cause::Shutdown.into());
        }
        let Asked { start, origin, .. } = &asked;
        if let Some(stream) = &self.stream
            && !start.stream_id.is_empty()
            && stream.start.stream_id == start.stream_id
            && stream.start.app == start.app
            && stream.start.url == start.url
        {
            // The same start again, perhaps because its answer was lost: say how it stands.
            return self.repeat_status(request, *origin);
        }
        let Some(asked) = self.board_allows(request, asked, looked) else { return };
        let claim = Claim::Stream { app: asked.start.app.clone(), kind: asked.start.kind };
        self.waiting.insert(request, Waiting::Stream(asked));
        self.arbitrate(ArbiterEvent::Ask { request, claim }, now);
    }

    pub(super) fn begin_stream(&mut self, asked: Asked, lease: LeaseId, now: Time) {
        let Asked { start, origin, crashes } = asked;
        let config = &self.settings.stream;
        let link = origin.link();
        let settings = Settings {
            give_up_after: config.give_up_after(),
            keep_alive_timeout: (link.is_some() && !start.stream_id.is_empty())
                .then(|| Duration::from_secs(config.keep_alive_timeout_s)),
            stop_on_keep_alive_loss: config.on_keep_alive_loss == OnLoss::Stop,
            link_loss_grace: link.map(|_| config.link_loss_grace()),
            camera_hold: Duration::from_secs(config.camera_hold_s),
            duration_limit: start.duration_limit,
            seed: lease.0 ^ now.as_nanos() as u64,
            resumed: crashes.is_some(),
        };
        let (life, actions) = Stream::new(settings, now);
        let rate = Rate::new(config, &start.video, self.board.allowance(), now);
        let unanswered = if let Origin::Control(request) = origin { Some(request) } else { None };
        self.counts.started(start.kind);
        self.metrics = Metrics::default();
        self.measured = 0;
        self.stream = Some(Active {
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
        self.remember(false, now);
        self.stream_actions(actions, now);
        self.want_camera_anew();
        self.settle_camera(now);
        if self.capture.running {
            self.stream_event(Event::CameraRunning, now);
        }
        if link.is_some_and(|link| !self.links.of(link).up) {
            self.stream_event(Event::LinkDown, now);
        }
    }

    /// The cloud directs a managed stream that runs already. With an id of its own it is another stream, and takes
    /// this one's place; else it is this one.
    pub(super) fn join_stream(&mut self, request: RequestId, asked: Asked, now: Time) {
        let same = self
            .stream
            .as_ref()
            .is_some_and(|stream| asked.start.stream_id.is_empty() || stream.start.stream_id == asked.start.stream_id);
        if same {
            return self.repeat_status(request, asked.origin);
        }
        if let Some((_, displaced)) = self.after_end.replace((request, asked)) {
            self.refuse_stream(&displaced, Cause::Replaced.into());
        }
        self.stop_stream(Cause::Replaced, now);
    }

    /// Refuses the starts that wait, be it for a look at the board, for the camera or for the end of another stream, where
    /// `which` says so. Whether there were any.
    pub(super) fn withdraw_starts(&mut self, cause: Cause, which: impl Fn(&Asked) -> bool, now: Time) -> bool {
        let mut withdrawn = self.board.withdraw(&which);
        let waits = |waiting: &Waiting| matches!(waiting, Waiting::Stream(asked) if which(asked));
        let mut queued: Vec<(RequestId, Waiting)> = self.waiting.extract_if(|_, waiting| waits(waiting)).collect();
        queued.sort_unstable_by_key(|(request, _)| *request);
        for (request, waiting) in queued {
            // Or others would be judged against it.
            self.arbitrate(ArbiterEvent::Withdraw { request }, now);
            if let Waiting::Stream(asked) = waiting {
                withdrawn.push(asked);
            }
        }
        withdrawn.extend(self.after_end.take_if(|(_, asked)| which(asked)).map(|(_, asked)| asked));
        for asked in &withdrawn {
            self.refuse_stream(asked, cause.into());
        }
        !withdrawn.is_empty()
    }

    pub(super) fn refuse_stream(&mut self, asked: &Asked, refusal: Refusal) {
        self.counts.refused.count(refusal.cause.name());
        if refusal.cause == Cause::BatteryLow && asked.start.sound {
            self.effects.push(Effect::Play(Chime::BatteryLow));
        }
        if asked.crashes.is_some() {
            let link = if let Origin::Link(link, dialect) = asked.origin { Some((link, dialect)) } else { None };
            return self.tell_left_over(&asked.start.stream_id, link, refusal.cause);
        }
        match asked.origin {
            Origin::Link(link, dialect) => {
                let message = report::start_refused(&asked.start.stream_id, dialect, &refusal);
                self.tell_end(link, message.to_string());
            }
            Origin::Control(request) => self.reply(request, Err(refusal)),
        }
    }

    pub(super) fn stop_stream(&mut self, cause: Cause, now: Time) {
        self.stream_event(Event::Stop(cause), now);
    }

    /// Ends the stream and tells `request` when it has ended.
    pub(super) fn stop_stream_for(&mut self, request: RequestId, now: Time) {
        if let Some(stream) = &mut self.stream {
            stream.stoppers.push(request);
        }
        self.stop_stream(Cause::Requested, now);
    }

    pub(super) fn stream_event(&mut self, event: Event, now: Time) {
        if let Some(stream) = &mut self.stream {
            let actions = stream.life.on(event, now);
            self.stream_actions(actions, now);
        }
    }

    pub(super) fn publisher_event(&mut self, publisher: u32, event: publisher::Event, now: Time) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.publishers_before < publisher) else { return };
        let attempt = publisher - stream.publishers_before;
        let event = match event {
            publisher::Event::Accepted => {
                stream.publications += 1;
                stream.rate.connected(now);
                return;
            }
            publisher::Event::Sampled(sample) => {
                let before = stream.rate.send_buffer();
                let what = stream.rate.sampled(sample, now);
                if let Some(bytes) = stream.rate.send_buffer().filter(|bytes| before != Some(*bytes)) {
                    self.effects.push(Effect::BoundSendBuffer(publisher, bytes));
                }
                if let Some(what) = what {
                    self.encode(what);
                }
                return;
            }
            publisher::Event::Flowing => Event::PublisherFlowing { attempt },
            publisher::Event::Lost(failure) => {
                let (stream_id, cause) = (&stream.start.stream_id, failure.cause);
                tracing::warn!(stream_id, %cause, attempt, %failure, "publication lost");
                Event::PublisherLost { attempt, failure }
            }
            publisher::Event::Closed => Event::PublisherClosed { attempt },
        };
        self.stream_event(event, now);
    }

    /// Begins where the last stream on this network was; a stream that was carried already knows better.
    pub(super) fn uplink_known(&mut self, publisher: u32, bitrate: u32, now: Time) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.publishers_before < publisher) else { return };
        if stream.publications == 0 {
            let what = stream.rate.known(bitrate, now);
            self.encode(what);
        }
    }

    /// Tells the encoder what to make, if one runs.
    pub(super) fn encode(&mut self, what: Decision) {
        if self.capture.open.is_some() {
            self.effects.push(Effect::Encode(self.capture.generation, what));
        }
    }

    fn stream_actions(&mut self, actions: Vec<Action>, now: Time) {
        for action in actions {
            match action {
                Action::OpenPublisher { attempt } => {
                    let sound = self.settings.audio.device != "none";
                    if let Some(stream) = &self.stream {
                        self.publishers = stream.publishers_before + attempt;
                        self.effects.push(Effect::OpenPublisher(self.publishers, stream.target(sound)));
                    }
                }
                Action::ClosePublisher { attempt } => {
                    if let Some(stream) = &self.stream {
                        self.effects.push(Effect::ClosePublisher(stream.publishers_before + attempt));
                    }
                }
                Action::Report(report) => self.report(&report),
                Action::End { state, failure } => self.ended(state, failure, now),
            }
        }
    }

    fn report(&mut self, report: &StreamReport) {
        let Some(stream) = &mut self.stream else { return };
        let id = stream.start.stream_id.clone();
        tracing::info!(
            stream_id = id,
            app = stream.start.app,
            state = report.state.name(),
            cause = report.cause().map(Cause::name),
            attempt = report.attempt,
            detail = report.failure.as_ref().map(|failure| failure.detail.as_str()).filter(|detail| !detail.is_empty()),
            "stream"
        );
        if report.state == StreamState::Streaming && stream.start.sound && !stream.heard {
            stream.heard = true;
            self.effects.push(Effect::Play(Chime::Begun));
        }
        if report.state == StreamState::Reconnecting {
            self.counts.retries.count(report.cause().unwrap_or(Cause::Internal).name());
        }
        self.effects.push(Effect::Tell(ReportLine::new(&id, report)));
        if let Origin::Link(link, dialect) = stream.origin {
            self.tell_report(link, dialect, &id, report);
        } else if matches!(report.state, StreamState::Connecting | StreamState::Streaming | StreamState::Reconnecting) {
            // The start came to something; whatever follows is the stream's own story.
            if let Some(request) = stream.unanswered.take() {
                self.reply(request, Ok(Answer::Started(Started { stream_id: id })));
            }
        }
    }

    fn ended(&mut self, state: StreamState, failure: Failure, now: Time) {
        let Some(stream) = self.stream.take() else { return };
        if stream.heard {
            self.effects.push(Effect::Play(if failure.cause == Cause::BatteryLow {
                Chime::BatteryLow
            } else {
                Chime::Ended
            }));
        }
        if stream.publications > 0 && stream.rate.tried_uplink() {
            self.effects.push(Effect::RememberUplink(stream.rate.carries()));
        }
        let stream_id = stream.start.stream_id;
        if let Some(request) = stream.unanswered {
            self.reply(request, Err(failure.clone().into()));
        }
        for request in stream.stoppers {
            self.reply(request, Ok(Answer::Done));
        }
        self.counts.ended.count(failure.cause.name());
        self.last_end = Some(StreamEnd { stream_id, state, failure });
        self.effects.push(Effect::Remember(None));
        self.arbitrate(ArbiterEvent::Release { lease: stream.lease }, now);
        if let Some((request, asked)) = self.after_end.take() {
            self.consider_stream(request, asked, false, now);
        }
    }

    fn repeat_status(&mut self, request: RequestId, origin: Origin) {
        let Some(stream) = &self.stream else { return };
        match origin {
            Origin::Link(link, dialect) => {
                let message = report::status(stream.life.last_report(), &stream.start.stream_id, dialect).to_string();
                self.tell(link, message);
            }
            Origin::Control(_) => {
                let stream_id = stream.start.stream_id.clone();
                self.reply(request, Ok(Answer::Started(Started { stream_id })));
            }
        }
    }
}
