//! All state of the daemon, and what each event makes of it: `(event, now) -> effects`. Nothing here waits or does
//! I/O; the task in [`super::task`] carries the effects out and brings the events. That edge is the seam for tests.
//!
//! ```text
//! control socket ─┐                      ┌─ arbiter: who may use the camera
//! links ──────────┼─► Input ─► Core ─────┼─ stream: life of the one publication      ─► Effect
//! capture ────────┤                      └─ camera: life of the capture pipeline
//! publisher ──────┘
//! ```

mod board;
mod camera;
mod control;
mod counts;
mod links;
mod rate;
mod resume;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

pub use counts::Counts;
pub use resume::{LeftOver, Remembered};

use super::config;
use crate::board::Reading;
use crate::link::LinkId;
use crate::link::control::Peer;
use crate::media::{capture, chime::Chime, publisher};
use crate::policy::Time;
use crate::policy::arbiter::{self, Arbiter, LeaseId, RequestId};
use crate::policy::bitrate;
use crate::policy::camera as camera_policy;
use crate::protocol::control::{Refusal, Reply, ReportLine, Request};
use crate::protocol::{AudioSettings, Cause, DaemonState, Failure, Metrics, StreamEnd, VideoSettings};

/// What happens to the daemon.
#[derive(Debug)]
pub enum Input {
    /// A client of the control socket asks; answered by [`Effect::Reply`].
    Control {
        /// From [`Core::next_request`].
        request: RequestId,
        /// Which connection.
        connection: u64,
        /// Who.
        peer: Peer,
        /// What.
        what: Request,
    },
    /// The reply could not be delivered: what was granted by it is to be taken back.
    Undeliverable(RequestId),
    /// A connection of the control socket ended.
    ConnectionClosed(u64),
    /// A link is up.
    LinkUp(LinkId),
    /// A link is down.
    LinkDown(LinkId),
    /// A message came over a link.
    LinkMessage(LinkId, String),
    /// Of a capture.
    Capture(u64, capture::Event),
    /// Of a publisher.
    Publisher(u32, publisher::Event),
    /// What the network carried the last time, bit/s of video; before the publisher with this number is connected.
    Uplink(u32, u32),
    /// A photo was taken, or why not.
    PhotoTaken(RequestId, Result<Vec<u8>, Refusal>),
    /// The answer to [`Effect::FindCamera`]: the device's node.
    CameraFound(RequestId, Result<String, Refusal>),
    /// How the stream does.
    Measured(Metrics),
    /// How the board does; also the answer to [`Effect::LookAtBoard`].
    Board(Reading),
    /// What the process before this one left.
    LeftOver(LeftOver),
    /// Video devices came or went.
    DevicesChanged,
    /// The next process is to go on with the stream: this one ends without a word.
    HandOver,
    /// The daemon is to end.
    Shutdown,
    /// The deadline is over.
    Tick,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Open camera and microphone; events come tagged with the generation.
    OpenCapture(u64, CaptureSettings),
    /// Close that capture.
    CloseCapture(u64),
    /// The encoder in use failed: another is to be taken.
    DistrustEncoder(Failure),
    /// Tell the encoder of that capture what to make from now on.
    Encode(u64, bitrate::Decision),
    /// Begin a publication attempt; events come tagged with the number, which is never used again.
    OpenPublisher(u32, publisher::Target),
    /// Have the kernel hold no more than so many bytes for it.
    BoundSendBuffer(u32, u32),
    /// End it.
    ClosePublisher(u32),
    /// Take a photo from the running capture.
    TakePhoto(RequestId),
    /// Look at heat, battery and network now.
    LookAtBoard,
    /// Find the camera for a process that leases it.
    FindCamera(RequestId),
    /// Tell the wearer.
    Play(Chime),
    /// Answer a control request.
    Reply(RequestId, Reply),
    /// Tell those who watch.
    Tell(ReportLine),
    /// Send over that link.
    Send(LinkId, String),
    /// Send over the cloud link, as a binary message.
    SendPhoto(Vec<u8>),
    /// Keep in mind what the network carried, bit/s of video; none if it was enough.
    RememberUplink(Option<u32>),
    /// Keep what must outlive the daemon.
    Remember(Option<Box<Remembered>>),
}

/// What a capture is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureSettings {
    /// The picture.
    pub video: VideoSettings,
    /// The sound.
    pub audio: AudioSettings,
}

/// See the module's description.
#[derive(Debug)]
pub struct Core {
    settings: config::Config,
    arbiter: Arbiter,
    camera: camera_policy::Camera,
    capture: CaptureState,
    board: board::Board,
    stream: Option<stream::Active>,
    /// A start that waits for the end of the stream it replaces.
    after_end: Option<(RequestId, stream::Asked)>,
    /// Requests that wait for the arbiter.
    waiting: HashMap<RequestId, Waiting>,
    photos: Vec<camera::Photo>,
    /// The cloud link's names of the photos that it asked for.
    cloud_photos: HashMap<RequestId, String>,
    processes: Vec<camera::ProcessLease>,
    last_request: u64,
    /// Publishers opened so far.
    publishers: u32,
    links: links::Links,
    last_end: Option<StreamEnd>,
    metrics: Metrics,
    measured: u64,
    ending: bool,
    counts: Counts,
    effects: Vec<Effect>,
}

/// Who asked the arbiter, and for what.
#[derive(Debug)]
enum Waiting {
    Stream(stream::Asked),
    /// No connection for the link's.
    Photo {
        connection: Option<u64>,
    },
    Process {
        connection: u64,
        program: String,
    },
}

/// What is known of the capture.
#[derive(Debug, Default)]
struct CaptureState {
    generation: u64,
    open: Option<CaptureSettings>,
    running: bool,
    wanted: bool,
    /// Opened for a photo, with nobody streaming.
    for_photo: bool,
}

impl Core {
    /// A daemon with nothing to do.
    pub fn new(settings: config::Config) -> Self {
        Self {
            arbiter: Arbiter::new(settings.stream.managed_yields),
            board: board::Board::new(&settings),
            settings,
            camera: camera_policy::Camera::new(),
            capture: CaptureState::default(),
            stream: None,
            after_end: None,
            waiting: HashMap::new(),
            photos: Vec::new(),
            cloud_photos: HashMap::new(),
            processes: Vec::new(),
            last_request: 0,
            publishers: 0,
            links: links::Links::default(),
            last_end: None,
            metrics: Metrics::default(),
            measured: 0,
            ending: false,
            counts: Counts::default(),
            effects: Vec::new(),
        }
    }

    /// A number for a request that is about to come.
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
            Input::Undeliverable(request) => self.take_back(request, now),
            Input::ConnectionClosed(connection) => self.connection_closed(connection, now),
            Input::LinkUp(link) => self.link_up(link, now),
            Input::LinkDown(link) => self.link_down(link, now),
            Input::LinkMessage(link, text) => self.link_message(link, &text, now),
            Input::Capture(generation, event) => self.capture_event(generation, event, now),
            Input::Publisher(attempt, event) => self.publisher_event(attempt, event, now),
            Input::Uplink(publisher, bitrate) => self.uplink_known(publisher, bitrate, now),
            Input::PhotoTaken(request, jpeg) => self.photo_taken(request, jpeg, now),
            Input::CameraFound(request, found) => self.camera_found(request, found, now),
            Input::Measured(metrics) => self.measured(metrics, now),
            Input::Board(reading) => self.board_read(reading, now),
            Input::LeftOver(left_over) => self.take_up(left_over, now),
            Input::HandOver => self.remember(true, now),
            Input::DevicesChanged => self.camera_policy(camera_policy::Event::DevicesChanged, now),
            Input::Shutdown => self.shut_down(now),
            Input::Tick => self.tick(now),
        }
        self.settle_camera(now);
        std::mem::take(&mut self.effects)
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Time> {
        let photos = self.photos.iter().map(|photo| photo.deadline).min();
        [self.arbiter.deadline(), self.camera.deadline(), self.stream.as_ref().and_then(|s| s.life.deadline()), photos]
            .into_iter()
            .flatten()
            .min()
    }

    /// The stream that lives, by its lease, and its picture; there is something to measure then.
    pub fn measurable(&self) -> Option<(LeaseId, VideoSettings)> {
        self.stream.as_ref().map(|stream| (stream.lease, stream.start.video))
    }

    /// Whether the daemon may end: nothing runs any more.
    pub fn is_idle(&self) -> bool {
        self.stream.is_none() && self.capture.open.is_none()
    }

    /// The state to be shown; the caller adds what only the capture itself knows.
    pub fn state(&self, now: Time) -> DaemonState {
        DaemonState {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: crate::protocol::control::PROTOCOL_VERSION,
            uptime_s: now.as_secs(),
            stream: self.stream.as_ref().map(|stream| stream.snapshot(&self.metrics)),
            last_end: self.last_end.clone(),
            camera: self.camera_snapshot(),
            owner: self.arbiter.owner(now),
            board: self.board_snapshot(),
        }
    }

    fn tick(&mut self, now: Time) {
        self.arbitrate(arbiter::Event::Tick, now);
        self.camera_policy(camera_policy::Event::Tick, now);
        self.stream_event(crate::policy::stream::Event::Tick, now);
        self.expire_photos(now);
    }

    fn shut_down(&mut self, now: Time) {
        self.ending = true;
        self.withdraw_starts(Cause::Shutdown, |_| true, now);
        self.stop_stream(Cause::Shutdown, now);
        for photo in std::mem::take(&mut self.photos) {
            self.counts.photos_failed.count(Cause::Shutdown.name());
            self.reply(photo.request, Err(Cause::Shutdown.into()));
        }
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        if let Some(name) = self.cloud_photos.remove(&request) {
            return self.tell_photo(&name, reply);
        }
        self.effects.push(Effect::Reply(request, reply));
    }

    /// Brings an event to the arbiter and carries its decisions out.
    fn arbitrate(&mut self, event: arbiter::Event, now: Time) {
        for action in self.arbiter.on(event, now) {
            match action {
                arbiter::Action::Answer { request, answer } => self.answered(request, answer, now),
                arbiter::Action::Revoke { lease, cause } => self.revoke(lease, cause, now),
            }
        }
    }

    fn answered(&mut self, request: RequestId, answer: arbiter::Answer, now: Time) {
        let Some(waiting) = self.waiting.remove(&request) else {
            // Who asked is gone; what was granted goes back.
            if let arbiter::Answer::Granted(lease) = answer {
                self.arbitrate(arbiter::Event::Release { lease }, now);
            }
            return;
        };
        match (waiting, answer) {
            (Waiting::Stream(asked), arbiter::Answer::Granted(lease)) => self.begin_stream(asked, lease, now),
            (Waiting::Stream(asked), arbiter::Answer::Joined { .. }) => self.join_stream(request, asked, now),
            (Waiting::Stream(asked), arbiter::Answer::Refused { owner, cause }) => {
                self.refuse_stream(&asked, Failure::held_by(owner, cause).into());
            }
            (Waiting::Photo { .. }, arbiter::Answer::Granted(lease)) => {
                self.begin_photo(request, Some(lease), now);
            }
            (Waiting::Photo { .. }, arbiter::Answer::Joined { .. }) => {
                self.begin_photo(request, None, now);
            }
            (Waiting::Process { connection, program }, arbiter::Answer::Granted(lease)) => {
                self.begin_process_lease(request, connection, program, lease);
            }
            (
                waiting @ (Waiting::Photo { .. } | Waiting::Process { .. }),
                arbiter::Answer::Refused { owner, cause },
            ) => {
                if let Waiting::Photo { .. } = waiting {
                    self.counts.photos_failed.count(cause.name());
                }
                self.reply(request, Err(Failure::held_by(owner, cause).into()));
            }
            (Waiting::Process { .. }, arbiter::Answer::Joined { .. }) => {
                self.reply(request, Err(Cause::Internal.into()));
            }
        }
    }

    fn revoke(&mut self, lease: LeaseId, cause: Cause, now: Time) {
        if self.stream.as_ref().is_some_and(|stream| stream.lease == lease) {
            self.stop_stream(cause, now);
        }
    }
}

/// How long a photo may take in all, the opening of the camera included.
const PHOTO_LIMIT: Duration = Duration::from_secs(5);
