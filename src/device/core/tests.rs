//! The daemon without its devices: a clock that is a number, and a world that answers effects as told.

mod board;
mod failures;
mod leases;
mod links;
mod photos;
mod resume;
mod withdrawn;

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::camera::PHOTO_LIMIT;
use super::*;
use crate::link::control::Peer;
use crate::media::{capture, publisher};
use crate::policy::bitrate;
use crate::protocol::control::{Reply, Request, Start};
use crate::protocol::{CameraState, Failure, Owner, OwnerKind, StreamKind};

/// Camera and server, as they behave in a test.
#[derive(Clone, Copy, PartialEq, Eq)]
enum World {
    /// Everything works at once.
    Works,
    /// Nothing ever answers.
    Silent,
}

struct Daemon {
    core: Core,
    now: Time,
    world: World,
    replies: HashMap<RequestId, Vec<Reply>>,
    sent: Vec<Value>,
    sent_over: Vec<(LinkId, Value)>,
    photos: Vec<Vec<u8>>,
    reports: Vec<(String, StreamState, Option<Cause>)>,
    captures: Vec<u64>,
    publishers: Vec<u32>,
    board: Reading,
    encoder: Vec<bitrate::Decision>,
    /// What the wearer heard.
    chimes: Vec<Chime>,
    /// What the next process would find.
    kept: Option<Remembered>,
}

impl Daemon {
    fn new() -> Self {
        Self::with(&config::Config::default())
    }

    fn with(settings: &config::Config) -> Self {
        Self {
            core: Core::new(settings),
            now: Duration::from_secs(100),
            world: World::Works,
            replies: HashMap::new(),
            sent: vec![],
            sent_over: vec![],
            photos: vec![],
            reports: vec![],
            captures: vec![],
            publishers: vec![],
            board: Reading::default(),
            encoder: vec![],
            chimes: vec![],
            kept: None,
        }
    }

    fn give(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.core.on(input, self.now) {
                self.carry_out(effect, &mut inputs);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, inputs: &mut VecDeque<Input>) {
        let works = self.world == World::Works;
        match effect {
            Effect::OpenCapture(generation, _) => {
                self.captures.push(generation);
                assert_eq!(self.captures.len(), 1, "two captures open");
                inputs.extend(works.then_some(Input::Capture(generation, capture::CaptureEvent::Running)));
            }
            Effect::CloseCapture(generation) if works && self.captures.contains(&generation) => {
                self.captures.clear();
                inputs.push_back(Input::Capture(generation, capture::CaptureEvent::Closed));
            }
            Effect::OpenPublisher(attempt, _) => {
                self.publishers.push(attempt);
                assert_eq!(self.publishers.len(), 1, "two publishers open");
                if works {
                    inputs.push_back(Input::Publisher(attempt, publisher::PublisherEvent::Accepted));
                    inputs.push_back(Input::Publisher(attempt, publisher::PublisherEvent::Flowing));
                }
            }
            Effect::ClosePublisher(attempt) => {
                self.publishers.clear();
                inputs.extend(works.then_some(Input::Publisher(attempt, publisher::PublisherEvent::Closed)));
            }
            Effect::TakePhoto(request) if works => inputs.push_back(Input::PhotoTaken(request, Ok(vec![0xff, 0xd8]))),
            Effect::FindCamera(request) => {
                assert!(self.captures.is_empty(), "the camera is given away while it is open");
                inputs.push_back(Input::CameraFound(request, Ok("/dev/video7".into())));
            }
            Effect::LookAtBoard => inputs.push_back(Input::Board(self.board.clone())),
            Effect::Play(chime) => self.chimes.push(chime),
            Effect::Encode(_, what) => self.encoder.push(what),
            Effect::Remember(remembered) => self.kept = remembered.map(|remembered| *remembered),
            Effect::Reply(request, reply) => self.replies.entry(request).or_default().push(reply),
            Effect::Send(link, text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                self.sent_over.push((link, message.clone()));
                self.sent.push(message);
            }
            Effect::SendPhoto(frame) => self.photos.push(frame),
            Effect::Tell(line) => {
                self.reports.push((line.stream_id, line.state, line.failure.map(|failure| failure.cause)));
            }
            _ => {}
        }
    }

    fn lose_publisher(&mut self, cause: Cause) {
        let attempt = self.publishers.pop().expect("a publisher is open");
        self.give(Input::Publisher(attempt, publisher::PublisherEvent::Lost(Failure::new(cause, ""))));
        self.give(Input::Publisher(attempt, publisher::PublisherEvent::Closed));
    }

    fn lose_capture(&mut self, failure: Failure) {
        let generation = self.captures.pop().expect("a capture is open");
        self.give(Input::Capture(generation, capture::CaptureEvent::Lost(failure)));
        self.give(Input::Capture(generation, capture::CaptureEvent::Closed));
    }

    fn ask(&mut self, connection: u64, what: Request) -> RequestId {
        let request = self.core.next_request();
        let peer = Peer { pid: Some(4), uid: 0, program: "zbarcam".into() };
        self.give(Input::Control { request, connection, peer, what });
        request
    }

    fn start(&mut self, app: &str, id: &str, kind: StreamKind) -> RequestId {
        let start = Start {
            url: format!("rtmp://h/live/key-of-{id}"),
            app: Some(app.into()),
            stream_id: Some(id.into()),
            kind: Some(kind),
            video: None,
            audio: None,
            duration_s: None,
        };
        self.ask(1, Request::Start(start))
    }

    fn photo(&mut self, app: &str) -> RequestId {
        self.ask(2, Request::Photo { app: Some(app.into()) })
    }

    fn cloud(&mut self, message: &Value) {
        self.give(Input::LinkMessage(LinkId::Cloud, message.to_string()));
    }

    /// The one reply to a request.
    fn reply(&self, request: RequestId) -> &Reply {
        let replies = self.replies.get(&request).expect("no reply");
        assert_eq!(replies.len(), 1, "{replies:?}");
        &replies[0]
    }

    fn refused(&self, request: RequestId) -> (Cause, Option<Owner>) {
        let refusal = self.reply(request).as_ref().expect_err("granted");
        (refusal.cause, refusal.owner.clone())
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.core.deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline;
            self.give(Input::Tick);
        }
        self.now = end;
    }

    fn statuses(&self, id: &str) -> Vec<&str> {
        self.sent.iter().filter(|message| message["streamId"] == id).filter_map(|m| m["status"].as_str()).collect()
    }
}

fn start_message(id: &str, app: &str) -> Value {
    json!({"type": "start_stream", "streamUrl": format!("rtmp://h/live/{id}"), "streamId": id, "appId": app})
}

#[test]
fn a_start_is_answered_once_it_came_to_something() {
    let mut daemon = Daemon::new();
    let request = daemon.start("a", "s1", StreamKind::Unmanaged);
    assert!(matches!(daemon.reply(request), Ok(Answer::Started(_))));
    assert_eq!(daemon.core.state(daemon.now).stream.unwrap().state, StreamState::Streaming);
}

#[test]
fn the_wearer_hears_once_that_it_is_live_and_that_it_is_over() {
    let mut daemon = Daemon::new();
    daemon.give(Input::LinkUp(LinkId::Cloud));
    daemon.cloud(&start_message("s1", "a"));
    assert_eq!(daemon.chimes, [Chime::Begun]);
    daemon.lose_publisher(Cause::ServerFrozen);
    daemon.pass(Duration::from_secs(5));
    assert_eq!(daemon.statuses("s1").last(), Some(&"reconnected"));
    assert_eq!(daemon.chimes, [Chime::Begun], "a reconnection is nobody's business");
    daemon.cloud(&json!({"type": "stop_stream", "streamId": "s1"}));
    assert_eq!(daemon.chimes, [Chime::Begun, Chime::Ended]);

    let mut quiet = start_message("s2", "a");
    quiet["sound"] = json!(false);
    daemon.cloud(&quiet);
    daemon.cloud(&json!({"type": "stop_stream", "streamId": "s2"}));
    assert_eq!(daemon.statuses("s2").last(), Some(&"stopped"));
    assert_eq!(daemon.chimes.len(), 2, "who wants none hears none");
}

#[test]
fn a_camera_held_by_a_stranger_refuses_the_start_and_names_him() {
    let mut daemon = Daemon::new();
    daemon.world = World::Silent;
    let request = daemon.start("a", "s1", StreamKind::Unmanaged);
    assert!(!daemon.replies.contains_key(&request));
    let owner = Owner { kind: OwnerKind::Foreign, name: "ffmpeg".into(), pid: Some(77), for_s: None };
    daemon.world = World::Works;
    daemon.lose_capture(Failure { owner: Some(owner.clone()), ..Failure::new(Cause::CameraBusy, "EBUSY") });
    assert_eq!(daemon.refused(request), (Cause::CameraBusy, Some(owner)));
    assert_eq!(daemon.reports.last().unwrap().2, Some(Cause::CameraBusy));
    assert!(daemon.core.is_idle());
}

#[test]
fn who_comes_after_a_stream_that_could_not_have_the_camera_is_told_as_soon() {
    let mut daemon = Daemon::new();
    daemon.world = World::Silent;
    daemon.start("a", "s1", StreamKind::Unmanaged);
    let publisher = daemon.publishers[0];
    let next = daemon.start("a", "s2", StreamKind::Unmanaged);
    daemon.lose_capture(Failure::new(Cause::CameraBusy, "EBUSY"));
    assert!(daemon.captures.is_empty(), "who ends does not try again");
    daemon.give(Input::Publisher(publisher, publisher::PublisherEvent::Closed));
    assert_eq!(daemon.captures, [2], "it is tried for the next");
    daemon.world = World::Works;
    daemon.lose_capture(Failure::new(Cause::CameraBusy, "EBUSY"));
    assert_eq!(daemon.refused(next).0, Cause::CameraBusy);
    assert!(daemon.core.is_idle());
}

#[test]
fn who_waits_behind_a_photo_that_could_not_have_the_camera_gets_it() {
    for streams in [false, true] {
        let mut daemon = Daemon::new();
        daemon.world = World::Silent;
        let first = daemon.photo("a");
        let next = if streams { daemon.start("b", "s1", StreamKind::Unmanaged) } else { daemon.photo("b") };
        daemon.world = World::Works;
        daemon.lose_capture(Failure::new(Cause::CameraBusy, "EBUSY"));
        assert_eq!(daemon.refused(first).0, Cause::CameraBusy);
        assert!(daemon.reply(next).is_ok(), "{:?}", daemon.reply(next));
    }
}

#[test]
fn why_the_camera_could_not_be_had_is_past_once_nobody_wants_it() {
    let mut daemon = Daemon::new();
    daemon.world = World::Silent;
    daemon.photo("a");
    daemon.lose_capture(Failure::new(Cause::CameraBusy, "EBUSY"));
    let camera = daemon.core.state(daemon.now).camera;
    assert_eq!((camera.state, camera.failure), (CameraState::Closed, None));
    let slow = daemon.photo("a");
    let camera = daemon.core.state(daemon.now).camera;
    assert_eq!((camera.state, camera.failure), (CameraState::Opening, None));
    daemon.pass(PHOTO_LIMIT);
    assert_eq!(daemon.refused(slow).0, Cause::CameraStalled);
}

#[test]
fn a_camera_that_a_hanging_pipeline_keeps_is_in_use_and_given_to_nobody() {
    let mut daemon = Daemon::new();
    daemon.world = World::Silent;
    daemon.photo("a");
    let generation = daemon.captures.pop().unwrap();
    daemon.give(Input::Capture(generation, capture::CaptureEvent::Lost(Failure::new(Cause::EncoderStalled, ""))));
    daemon.give(Input::Capture(generation, capture::CaptureEvent::LeftBehind));
    daemon.pass(Duration::from_mins(1));
    assert!(daemon.core.camera_in_use(), "nobody wants it, but it may see");
    daemon.photo("a");
    assert!(daemon.captures.is_empty(), "it would only be busy");
    daemon.give(Input::Capture(generation, capture::CaptureEvent::Closed));
    assert_eq!(daemon.captures, [generation + 1]);
}

#[test]
fn another_app_is_refused_with_the_owner_and_the_same_app_replaces_its_own() {
    let mut daemon = Daemon::new();
    daemon.start("a", "s1", StreamKind::Unmanaged);
    let other = daemon.start("b", "s2", StreamKind::Unmanaged);
    let (cause, owner) = daemon.refused(other);
    assert_eq!((cause, owner.unwrap().name.as_str()), (Cause::CameraBusy, "a"));
    let generation = daemon.captures[0];
    let replacing = daemon.start("a", "s3", StreamKind::Unmanaged);
    assert!(daemon.reply(replacing).is_ok());
    assert!(daemon.reports.contains(&("s1".into(), StreamState::Stopped, Some(Cause::Replaced))));
    assert_eq!(daemon.captures, [generation], "the camera need not close for that");
}

#[test]
fn an_unmanaged_stream_takes_the_camera_from_a_managed_one_which_is_told() {
    let mut daemon = Daemon::new();
    daemon.give(Input::LinkUp(LinkId::Cloud));
    daemon.cloud(&start_message("m1", "MANAGED_STREAM"));
    let request = daemon.start("a", "s1", StreamKind::Unmanaged);
    assert!(daemon.reply(request).is_ok());
    assert_eq!(daemon.statuses("m1").last(), Some(&"stopped"));
    assert_eq!(daemon.sent.last().unwrap()["cause"], "preempted");
}

#[test]
fn an_end_while_the_link_is_down_is_told_when_it_is_back_and_once() {
    let mut daemon = Daemon::new();
    daemon.give(Input::LinkUp(LinkId::Cloud));
    daemon.cloud(&start_message("s1", "a"));
    daemon.give(Input::LinkDown(LinkId::Cloud));
    let told = daemon.sent.len();
    daemon.ask(1, Request::Stop { stream_id: Some("s1".into()) });
    assert_eq!(daemon.sent.len(), told);
    daemon.give(Input::LinkUp(LinkId::Cloud));
    assert_eq!(daemon.sent[told]["kind"], "snapshot", "the whole state comes first");
    assert_eq!(daemon.statuses("s1").iter().filter(|status| **status == "stopped").count(), 1);
    daemon.give(Input::LinkDown(LinkId::Cloud));
    daemon.give(Input::LinkUp(LinkId::Cloud));
    assert_eq!(daemon.statuses("s1").iter().filter(|status| **status == "stopped").count(), 1);
}

#[test]
fn a_link_stops_only_what_it_started() {
    let mut daemon = Daemon::new();
    daemon.give(Input::LinkUp(LinkId::Cloud));
    daemon.start("a", "s1", StreamKind::Unmanaged);
    daemon.cloud(&json!({"type": "stop_stream"}));
    daemon.cloud(&json!({"type": "stop_stream", "streamId": "s9"}));
    assert_eq!(daemon.core.state(daemon.now).stream.unwrap().state, StreamState::Streaming);
    assert_eq!(daemon.sent.len(), 3, "a snapshot and two typed answers: {:?}", daemon.sent);
}

#[test]
fn a_command_sent_twice_is_acknowledged_twice_and_obeyed_once() {
    let mut daemon = Daemon::new();
    daemon.give(Input::LinkUp(LinkId::Cloud));
    let mut message = start_message("s1", "a");
    message["mId"] = json!(41);
    daemon.cloud(&message);
    daemon.cloud(&message);
    assert_eq!(daemon.sent.iter().filter(|message| message["type"] == "msg_ack").count(), 2);
    assert_eq!(daemon.statuses("s1").iter().filter(|status| **status == "initializing").count(), 1);
}

#[test]
fn a_keep_alive_is_acknowledged_while_its_stream_lives_and_answered_when_not() {
    let mut daemon = Daemon::new();
    daemon.give(Input::LinkUp(LinkId::Cloud));
    daemon.cloud(&start_message("s1", "a"));
    daemon.world = World::Silent;
    daemon.lose_publisher(Cause::ConnectionLost);
    for (id, kind) in [("s1", "keep_alive_ack"), ("s7", "stream_status")] {
        daemon.cloud(&json!({"type": "keep_stream_alive", "streamId": id, "ackId": "x"}));
        assert_eq!(daemon.sent.last().unwrap()["type"], kind);
    }
}

#[test]
fn a_bitrate_changes_without_reopening_anything() {
    let mut daemon = Daemon::new();
    let too_early = daemon.ask(1, Request::Bitrate { bitrate: 500_000 });
    assert_eq!(daemon.refused(too_early).0, Cause::UnknownStream);
    daemon.start("a", "s1", StreamKind::Unmanaged);
    let (generation, publishers) = (daemon.captures.clone(), daemon.publishers.clone());
    let change = daemon.ask(1, Request::Bitrate { bitrate: 500_000 });
    assert!(daemon.reply(change).is_ok());
    daemon.pass(Duration::from_secs(1));
    assert_eq!((daemon.captures.clone(), daemon.publishers.clone()), (generation, publishers));
}

#[test]
fn the_daemon_ends_its_stream_before_itself() {
    let mut daemon = Daemon::new();
    daemon.start("a", "s1", StreamKind::Unmanaged);
    daemon.give(Input::Shutdown);
    assert!(daemon.core.is_idle());
    assert_eq!(daemon.reports.last().unwrap(), &("s1".into(), StreamState::Stopped, Some(Cause::Shutdown)));
    let late = daemon.start("a", "s2", StreamKind::Unmanaged);
    assert_eq!(daemon.refused(late).0, Cause::Shutdown);
}

#[derive(Clone, Debug)]
enum Step {
    Start(u8, bool),
    CloudStart(u8),
    Stop,
    Photo(u8),
    Acquire(u64),
    Close(u64),
    Link(bool),
    LosePublisher,
    LoseCapture(Cause),
    Silence(bool),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_u8, any::<bool>()).prop_map(|(app, managed)| Step::Start(app, managed)),
        (0..3_u8).prop_map(Step::CloudStart),
        Just(Step::Stop),
        (0..3_u8).prop_map(Step::Photo),
        (0..3_u64).prop_map(Step::Acquire),
        (0..3_u64).prop_map(Step::Close),
        any::<bool>().prop_map(Step::Link),
        Just(Step::LosePublisher),
        prop::sample::select(vec![Cause::CameraLost, Cause::CameraBusy]).prop_map(Step::LoseCapture),
        any::<bool>().prop_map(Step::Silence),
        (1..8_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens: nobody is answered twice, everybody who stays is answered in the end, each stream that began
    /// ends once, and the daemon gets back to idle.
    #[test]
    fn everybody_is_answered_once_and_all_ends_idle(steps in prop::collection::vec(step(), 1..60)) {
        let mut daemon = Daemon::new();
        let (mut asked, mut count) = (Vec::new(), 0);
        for step in steps {
            count += 1;
            match step {
                Step::Start(app, managed) => {
                    let kind = if managed { StreamKind::Managed } else { StreamKind::Unmanaged };
                    asked.push((1, daemon.start(&format!("app{app}"), &format!("c{count}"), kind)));
                }
                Step::CloudStart(app) => daemon.cloud(&start_message(&format!("l{count}"), &format!("app{app}"))),
                Step::Stop => asked.push((1, daemon.ask(1, Request::Stop { stream_id: None }))),
                Step::Photo(app) => asked.push((2, daemon.photo(&format!("app{app}")))),
                Step::Acquire(connection) => {
                    asked.push((10 + connection, daemon.ask(10 + connection, Request::CameraAcquire { program: None })));
                }
                Step::Close(connection) => {
                    daemon.give(Input::ConnectionClosed(10 + connection));
                    asked.retain(|(of, request)| *of != 10 + connection || daemon.replies.contains_key(request));
                }
                Step::Link(up) => daemon.give(if up { Input::LinkUp(LinkId::Cloud) } else { Input::LinkDown(LinkId::Cloud) }),
                Step::LosePublisher if !daemon.publishers.is_empty() => daemon.lose_publisher(Cause::ConnectionLost),
                Step::LoseCapture(cause) if !daemon.captures.is_empty() => daemon.lose_capture(Failure::new(cause, "")),
                Step::LosePublisher | Step::LoseCapture(_) => {}
                Step::Silence(silent) => daemon.world = if silent { World::Silent } else { World::Works },
                Step::Pass(ms) => daemon.pass(Duration::from_millis(ms)),
            }
        }
        daemon.world = World::Works;
        for connection in 10..13 {
            daemon.give(Input::ConnectionClosed(connection));
        }
        // What a silent world swallowed, it now says.
        for generation in std::mem::take(&mut daemon.captures) {
            daemon.give(Input::Capture(generation, capture::CaptureEvent::Lost(Failure::new(Cause::CameraStalled, ""))));
            daemon.give(Input::Capture(generation, capture::CaptureEvent::Closed));
        }
        daemon.pass(Duration::from_secs(10));
        daemon.publishers.clear();
        daemon.give(Input::Shutdown);
        daemon.pass(Duration::from_secs(30));
        prop_assert!(daemon.core.is_idle(), "{:?}", daemon.core);
        for (connection, request) in asked {
            let answers = daemon.replies.get(&request).map_or(0, Vec::len);
            prop_assert!(answers == 1 || (connection >= 10 && answers == 0), "{request:?}: {answers} answers");
        }
        let mut ended = std::collections::HashSet::new();
        for (id, state, cause) in &daemon.reports {
            prop_assert!(!ended.contains(id), "{id} goes on after its end");
            if state.is_terminal() {
                prop_assert!(cause.is_some());
                ended.insert(id);
            }
        }
    }
}
