//! All state of the daemon, and what each event makes of it: `(event, now) -> effects`. Nothing here waits or does
//! I/O; the task in [`super::task`] carries the effects out and brings the events. That edge is the seam for tests.
//!
//! The state is in parts, none of which knows another. A part returns what others are to know; [`Core`] brings it there.
//!
//! ```text
//! control socket ─┐         ┌─ commands: what is asked for ─┐   ┌─ board: whether a stream may start and go on
//! links ──────────┼─► Input ┤                               ├─► ├─ claims: who gets the camera
//! capture ────────┤         └─ what devices say ────────────┘   ├─ streams: the one publication and its rate     ─► Effect
//! publisher ──────┘                                             ├─ camera: capture, photos, leases of others
//!                                                               └─ links: what phone and cloud are told
//! ```

mod board;
mod camera;
mod claims;
mod commands;
mod control;
mod counts;
mod links;
mod rate;
mod resume;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

pub use counts::Counts;
pub use resume::{LeftOver, Remembered};
pub use words::{Effect, Input};

use super::config;
use crate::board::Reading;
use crate::link::LinkId;
use crate::media::chime::Chime;
use crate::policy::Time;
use crate::policy::arbiter::{Claim, LeaseId, RequestId};
use crate::policy::stream::StreamEvent;
use crate::protocol::command::{Dialect, StartStream};
use crate::protocol::control::{Answer, PROTOCOL_VERSION, Refusal, Started};
use crate::protocol::{BoardSnapshot, Cause, DaemonState, Metrics, StreamState, VideoSettings, report};
use board::{Board, Judgement};
use camera::{Camera, CameraOutcome};
use claims::{Claims, Decided, Purpose};
use links::Links;
use resume::Over;
use stream::{Active, Asked, Origin};
use streams::{StreamOutcome, Streams};
use words::Outbox;

/// Measurements come every second; links are told every second one: `MentraOS` expects them every 2 s.
const METRICS_EVERY: u64 = 2;

/// The state of the daemon.
#[derive(Debug)]
pub struct Core {
    board: Board,
    claims: Claims,
    streams: Streams,
    camera: Camera,
    links: Links,
    last_request: u64,
    ending: bool,
    out: Outbox,
}

impl Core {
    /// A daemon with nothing to do.
    pub fn new(settings: &config::Config) -> Self {
        Self {
            board: Board::new(settings),
            claims: Claims::new(settings.stream.managed_yields),
            streams: Streams::new(settings),
            camera: Camera::new(Duration::from_secs(settings.camera.photo_linger_s)),
            links: Links::default(),
            last_request: 0,
            ending: false,
            out: Outbox::default(),
        }
    }

    /// The number of the next request.
    pub fn next_request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// Takes an event and says what is to be done.
    pub fn on(&mut self, input: Input, now: Time) -> Vec<Effect> {
        match input {
            Input::Control { request, connection, peer, what } => {
                self.control_request(request, connection, &peer, what, now);
            }
            Input::Undeliverable(request) => {
                let outcomes = self.camera.take_back(request);
                self.after_camera(outcomes, now);
            }
            Input::ConnectionClosed(connection) => self.connection_closed(connection, now),
            Input::LinkUp(link) => self.link_up(link, now),
            Input::LinkDown(link) => self.link_down(link, now),
            Input::LinkMessage(link, text) => {
                if let Some(incoming) = self.links.read(link, &text, &mut self.out) {
                    self.obey(link, incoming, now);
                }
            }
            Input::Capture(generation, event) => {
                let outcomes = self.camera.capture(generation, event, now, &mut self.out);
                self.after_camera(outcomes, now);
            }
            Input::Publisher(publisher, event) => {
                let (what, outcomes) = self.streams.publisher(publisher, event, now, &mut self.out);
                self.encode(what);
                self.after_streams(outcomes, now);
            }
            Input::Uplink(publisher, bitrate) => {
                let what = self.streams.uplink_known(publisher, bitrate, now);
                self.encode(what);
            }
            Input::PhotoTaken(request, jpeg) => {
                let outcomes = self.camera.photo_taken(request, jpeg, &mut self.out);
                self.after_camera(outcomes, now);
            }
            Input::CameraFound(request, found) => {
                let outcomes = self.camera.found(request, found, &mut self.out);
                self.after_camera(outcomes, now);
            }
            Input::Measured(metrics) => self.measured(metrics, now),
            Input::Board(reading) => self.board_read(reading, now),
            Input::LeftOver(left_over) => self.take_up(left_over, now),
            Input::HandOver => self.streams.remember(true, now, &mut self.out),
            Input::DevicesChanged => {
                let outcomes = self.camera.devices_changed(now, &mut self.out);
                self.after_camera(outcomes, now);
            }
            Input::Shutdown => self.shut_down(now),
            Input::Tick => self.tick(now),
        }
        self.settle_camera(now);
        std::mem::take(&mut self.out.effects)
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Time> {
        [self.claims.deadline(), self.camera.deadline(), self.streams.deadline()].into_iter().flatten().min()
    }

    /// The live stream, which can be measured: its lease and its picture.
    pub fn measurable(&self) -> Option<(LeaseId, VideoSettings)> {
        self.streams.active().map(|stream| (stream.lease, stream.start.video))
    }

    /// Whether the daemon may end: nothing runs any more.
    pub fn is_idle(&self) -> bool {
        self.streams.active().is_none() && !self.camera.is_open()
    }

    /// Whether anybody uses the camera or is about to: the privacy light shines meanwhile.
    pub fn camera_in_use(&self) -> bool {
        self.camera.in_use()
    }

    /// What happened since the daemon began.
    pub fn counts(&self) -> &Counts {
        &self.out.counts
    }

    /// Whether a link to phone or cloud is up.
    pub fn is_linked(&self) -> bool {
        LinkId::ALL.into_iter().any(|link| self.links.is_up(link))
    }

    /// What the encoder is to make, bit/s of video, while there is a stream.
    pub fn target_bitrate(&self) -> Option<u32> {
        self.streams.decision().map(|what| what.bitrate)
    }

    /// The state to show. The caller adds what only the capture knows.
    pub fn state(&self, now: Time) -> DaemonState {
        DaemonState {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL_VERSION,
            uptime_s: now.as_secs(),
            stream: self.streams.active().map(|stream| stream.snapshot(self.streams.metrics())),
            last_end: self.streams.last_end().cloned(),
            camera: self.camera.snapshot(),
            owner: self.claims.owner(now),
            board: self.board_snapshot(),
        }
    }

    fn board_snapshot(&self) -> BoardSnapshot {
        self.board.snapshot(self.camera.in_use())
    }

    fn tick(&mut self, now: Time) {
        let decided = self.claims.tick(now);
        self.after_claims(decided, now);
        let outcomes = self.camera.tick(now, &mut self.out);
        self.after_camera(outcomes, now);
        self.stream_event(StreamEvent::Tick, now);
    }

    fn shut_down(&mut self, now: Time) {
        self.ending = true;
        self.withdraw_starts(Cause::Shutdown, |_| true, now);
        self.stream_event(StreamEvent::Stop(Cause::Shutdown), now);
        let outcomes = self.camera.refuse_photos(Cause::Shutdown.into(), &mut self.out);
        self.after_camera(outcomes, now);
    }

    fn link_up(&mut self, link: LinkId, now: Time) {
        let snapshot = report::snapshot(&self.state(now), self.links.dialect(link)).to_string();
        self.links.up(link, snapshot, &mut self.out);
        if self.streams.is_of(link) {
            self.stream_event(StreamEvent::LinkUp, now);
        }
    }

    fn link_down(&mut self, link: LinkId, now: Time) {
        self.links.down(link, &mut self.out);
        if self.streams.is_of(link) {
            self.stream_event(StreamEvent::LinkDown, now);
        }
    }

    fn tell_snapshot(&mut self, link: LinkId, dialect: Dialect, now: Time) {
        let snapshot = report::snapshot(&self.state(now), dialect);
        self.links.tell(link, snapshot.to_string(), &mut self.out);
    }

    fn measured(&mut self, metrics: Metrics, now: Time) {
        self.streams.measured(metrics, now, &mut self.out);
        let Some(stream) = self.streams.active() else { return };
        if let Origin::Link(link, dialect) = stream.origin
            && stream.life.state() == StreamState::Streaming
            && self.streams.measured.is_multiple_of(METRICS_EVERY)
        {
            let (metrics, id) = (self.streams.metrics(), &stream.start.stream_id);
            let message = report::metrics(metrics, &self.board_snapshot(), id, dialect).to_string();
            self.links.tell(link, message, &mut self.out);
        }
    }

    fn board_read(&mut self, reading: Reading, now: Time) {
        let doubted = self.board.on(reading, now);
        let what = self.streams.heat(self.board.allowance(), now);
        self.encode(what);
        if let Some(cause) = self.board.end() {
            self.stream_event(StreamEvent::Stop(cause), now);
        }
        for (request, asked) in doubted {
            self.consider_stream(request, asked, true, now);
        }
    }

    /// Takes up the stream of the process before this one, or tells its end.
    fn take_up(&mut self, left_over: LeftOver, now: Time) {
        let request = self.next_request();
        match left_over.taken_up(request) {
            Ok(asked) => self.consider_stream(request, asked, false, now),
            Err(over) => self.left_over_ended(&over),
        }
    }

    fn left_over_ended(&mut self, over: &Over) {
        if let Some((link, message)) = self.streams.left_over_ended(over, &mut self.out) {
            self.links.tell_end(link, message, &mut self.out);
        }
    }

    /// Asks for a stream; the answer goes to its origin.
    fn ask_for_stream(&mut self, request: RequestId, start: StartStream, origin: Origin, now: Time) {
        self.consider_stream(request, Asked { start, origin, crashes: None }, false, now);
    }

    /// `looked`: the board was looked at for this request.
    fn consider_stream(&mut self, request: RequestId, asked: Asked, looked: bool, now: Time) {
        if self.ending {
            return self.refuse_stream(&asked, Cause::Shutdown.into());
        }
        if self.streams.repeats(&asked.start) {
            return self.repeat_status(request, asked.origin);
        }
        match self.board.judge(request, asked, looked, &mut self.out) {
            Judgement::Allowed(asked) => {
                let claim = Claim::Stream { app: asked.start.app.clone(), kind: asked.start.kind };
                self.ask(request, claim, Purpose::Stream(asked), now);
            }
            Judgement::Refused(asked, refusal) => self.refuse_stream(&asked, refusal),
            Judgement::Doubted => {}
        }
    }

    fn ask(&mut self, request: RequestId, claim: Claim, purpose: Purpose, now: Time) {
        let decided = self.claims.ask(request, claim, purpose, now);
        self.after_claims(decided, now);
    }

    fn after_claims(&mut self, decided: Vec<Decided>, now: Time) {
        for decided in decided {
            match decided {
                Decided::Granted(_, Purpose::Stream(asked), lease) => self.begin_stream(asked, lease, now),
                Decided::Joined(request, Purpose::Stream(asked), _) => self.join_stream(request, asked, now),
                Decided::Refused(_, Purpose::Stream(asked), failure) => self.refuse_stream(&asked, failure.into()),
                Decided::Granted(request, Purpose::Photo { .. }, lease) => {
                    self.camera.begin_photo(request, lease, false, now, &mut self.out);
                }
                Decided::Joined(request, Purpose::Photo { .. }, lease) => {
                    self.camera.begin_photo(request, lease, true, now, &mut self.out);
                }
                Decided::Refused(request, Purpose::Photo { .. }, failure) => {
                    self.out.counts.photos_failed.count(failure.cause.name());
                    self.links.answer_photo(request, Err(failure.into()), &mut self.out);
                }
                Decided::Granted(request, Purpose::Process { connection, program }, lease) => {
                    self.camera.begin_process_lease(request, connection, program, lease, &mut self.out);
                }
                Decided::Joined(request, Purpose::Process { .. }, _) => {
                    self.out.reply(request, Err(Cause::Internal.into()));
                }
                Decided::Refused(request, Purpose::Process { .. }, failure) => {
                    self.out.reply(request, Err(failure.into()));
                }
                Decided::Revoked(lease, cause) => {
                    if self.streams.active().is_some_and(|stream| stream.lease == lease) {
                        self.stream_event(StreamEvent::Stop(cause), now);
                    }
                }
            }
        }
    }

    fn begin_stream(&mut self, asked: Asked, lease: LeaseId, now: Time) {
        let link = asked.origin.link();
        let outcomes = self.streams.begin(asked, lease, self.board.allowance(), now, &mut self.out);
        self.after_streams(outcomes, now);
        if link.is_some_and(|link| !self.links.is_up(link)) {
            self.stream_event(StreamEvent::LinkDown, now);
        }
    }

    /// The cloud directs a managed stream that runs already. With an id of its own it is another stream, and takes
    /// this one's place; else it is this one.
    fn join_stream(&mut self, request: RequestId, asked: Asked, now: Time) {
        if self.streams.is_meant_by(&asked) {
            return self.repeat_status(request, asked.origin);
        }
        if let Some(displaced) = self.streams.begin_after_end(request, asked) {
            self.refuse_stream(&displaced, Cause::Replaced.into());
        }
        self.stream_event(StreamEvent::Stop(Cause::Replaced), now);
    }

    /// Refuses the starts that wait, be it for a look at the board, for the camera or for the end of another stream, where
    /// `which` says so. Returns whether there were any.
    fn withdraw_starts(&mut self, cause: Cause, which: impl Fn(&Asked) -> bool, now: Time) -> bool {
        let mut withdrawn = self.board.withdraw(&which);
        let queued = self.claims.withdraw(|purpose| matches!(purpose, Purpose::Stream(asked) if which(asked)), now);
        withdrawn.extend(queued.into_iter().filter_map(|purpose| match purpose {
            Purpose::Stream(asked) => Some(asked),
            Purpose::Photo { .. } | Purpose::Process { .. } => None,
        }));
        withdrawn.extend(self.streams.take_next(&which).map(|(_, asked)| asked));
        for asked in &withdrawn {
            self.refuse_stream(asked, cause.into());
        }
        !withdrawn.is_empty()
    }

    fn refuse_stream(&mut self, asked: &Asked, refusal: Refusal) {
        self.out.counts.refused.count(refusal.cause.name());
        if refusal.cause == Cause::BatteryLow && asked.start.sound {
            self.out.push(Effect::Play(Chime::BatteryLow));
        }
        let stream_id = &asked.start.stream_id;
        match asked.origin {
            origin if asked.crashes.is_some() => {
                let link = if let Origin::Link(link, dialect) = origin { Some((link, dialect)) } else { None };
                self.left_over_ended(&Over { stream_id: stream_id.clone(), link, cause: refusal.cause });
            }
            Origin::Link(link, dialect) => {
                let message = report::start_refused(stream_id, dialect, &refusal);
                self.links.tell_end(link, message.to_string(), &mut self.out);
            }
            Origin::Control(request) => self.out.reply(request, Err(refusal)),
        }
    }

    /// Says how the stream stands that was asked for again.
    fn repeat_status(&mut self, request: RequestId, origin: Origin) {
        let Some(Active { start, life, .. }) = self.streams.active() else { return };
        match origin {
            Origin::Link(link, dialect) => {
                let message = report::status(life.last_report(), &start.stream_id, dialect).to_string();
                self.links.tell(link, message, &mut self.out);
            }
            Origin::Control(_) => {
                self.out.reply(request, Ok(Answer::Started(Started { stream_id: start.stream_id.clone() })));
            }
        }
    }

    fn stream_event(&mut self, event: StreamEvent, now: Time) {
        let outcomes = self.streams.on(event, now, &mut self.out);
        self.after_streams(outcomes, now);
    }

    fn after_streams(&mut self, outcomes: Vec<StreamOutcome>, now: Time) {
        for outcome in outcomes {
            match outcome {
                StreamOutcome::Reported { origin: Origin::Link(link, dialect), stream_id, report } => {
                    self.links.report(link, dialect, &stream_id, &report, &mut self.out);
                }
                // It was answered, and watches.
                StreamOutcome::Reported { origin: Origin::Control(_), .. } => {}
                StreamOutcome::Ended { lease } => {
                    let decided = self.claims.release(lease, now);
                    self.after_claims(decided, now);
                    if let Some((request, asked)) = self.streams.take_next(|_| true) {
                        self.consider_stream(request, asked, false, now);
                    }
                }
            }
        }
    }

    fn encode(&mut self, what: Option<crate::policy::bitrate::Decision>) {
        if let Some(what) = what {
            self.camera.encode(what, &mut self.out);
        }
    }

    /// Who needs the camera decides whether it is open, and how; what it says of that may change who needs it.
    fn settle_camera(&mut self, now: Time) {
        loop {
            let outcomes = self.camera.settle(self.streams.need(), self.ending, now, &mut self.out);
            if outcomes.is_empty() {
                return;
            }
            self.after_camera(outcomes, now);
        }
    }

    fn after_camera(&mut self, outcomes: Vec<CameraOutcome>, now: Time) {
        for outcome in outcomes {
            match outcome {
                CameraOutcome::Running => {
                    self.encode(self.streams.decision());
                    self.stream_event(StreamEvent::CameraRunning, now);
                }
                CameraOutcome::Lost(failure) => self.stream_event(StreamEvent::CameraLost(failure), now),
                CameraOutcome::Failed(failure) => self.stream_event(StreamEvent::CameraFailed(failure), now),
                CameraOutcome::Photo(request, reply) => self.links.answer_photo(request, reply, &mut self.out),
                CameraOutcome::Released(lease) => {
                    let decided = self.claims.release(lease, now);
                    self.after_claims(decided, now);
                }
            }
        }
    }
}
