//! The task that owns the daemon: brings every event to [`Core`] and carries out what it decides.
//!
//! Everything that waits or blocks happens elsewhere (captures, publishers and links have tasks of their own, looking
//! at hardware has blocking threads) and comes back as an event; this task only ever waits for the next one.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::config::Config;
use super::core::{CaptureSettings, Core, Effect, Input};
use super::meter::Meter;
use super::metrics::{self, Present, Totals};
use super::service::Service;
use super::{doctor, network, plan, remember};
use crate::board;
use crate::camera::Hotplug;
use crate::link::cloud::{self, CloudConfig};
use crate::link::control::{self, ControlEvent};
use crate::link::metrics::{self as metrics_link, Scrape};
use crate::link::{LinkEvent, LinkId, Outgoing, uart};
use crate::media::capture::{self, Capture};
use crate::media::encoder::Encoders;
use crate::media::failure::Failure;
use crate::media::feed::Feed;
use crate::media::profile;
use crate::media::publisher::{self, Publisher};
use crate::media::source::VideoSource;
use crate::media::video;
use crate::policy::arbiter::{LeaseId, RequestId};
use crate::policy::health::{self, Health};
use crate::protocol::control::{Answer, Cameras, Checkup, Holder, Reply, ReportLine, Request};
use crate::protocol::{Cause, DaemonState, VideoSettings};
use crate::toml_file::FileError;

/// Between measurements; the state that is shown is renewed as often.
const MEASURING: Duration = Duration::from_secs(1);
/// For the stream's polite end and the camera's closing when the daemon ends.
const FAREWELL_LIMIT: Duration = Duration::from_secs(3);
/// A photo from a running capture takes a few pictures' time.
const PHOTO_LIMIT: Duration = Duration::from_secs(2);
/// Events wait here for the task; their senders wait when it is full.
const QUEUE: usize = 64;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// GStreamer is not usable.
    #[error("GStreamer cannot be used: {0}")]
    GStreamer(String),
    /// An encoder profile is not usable.
    #[error("encoder profiles: {0}")]
    Profile(#[from] FileError),
    /// `encoder.profile` names none.
    #[error("encoder.profile = {0:?}: there is no such profile; there are {1}, and auto")]
    UnknownProfile(String, String),
    /// `tls.ca_file` is not usable.
    #[error("tls.ca_file: {0}")]
    Authorities(String),
    /// `metrics.listen` is not to be had.
    #[error("metrics.listen = {0}: {1}")]
    Metrics(SocketAddr, std::io::Error),
    /// The control socket cannot be opened.
    #[error("control socket: {0}")]
    ControlSocket(std::io::Error),
}

/// How the daemon is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// With all that runs, which is told.
    Ended,
    /// For the next process to go on with the stream: nobody is told that it ended.
    HandedOver,
}

/// Runs the daemon until `stop` is ready, then ends what runs.
pub async fn run(config: Config, stop: impl Future<Output = Stop>) -> Result<(), StartError> {
    let (mut task, mut events) = Task::start(config)?;
    tokio::pin!(stop);
    task.service.ready(&task.present());
    let mut measuring = tokio::time::interval(MEASURING);
    measuring.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ending: Option<Instant> = None;
    loop {
        let deadline = task.next_deadline();
        let input = tokio::select! {
            biased;
            how = &mut stop, if ending.is_none() => {
                tracing::info!(?how, "ending");
                Service::stopping();
                if how == Stop::HandedOver {
                    task.take(Input::HandOver);
                    break;
                }
                ending = Some(Instant::now() + FAREWELL_LIMIT);
                Input::Shutdown
            }
            () = at(ending) => break,
            Some(event) = events.captures.recv() => task.capture_input(event).await,
            Some((attempt, event)) = events.publishers.recv() => task.publisher_input(attempt, event).await,
            Some(input) = events.inputs.recv() => input,
            Some(event) = events.control.recv() => match task.control_input(event) {
                Some(input) => input,
                None => continue,
            },
            Some(event) = events.cloud.recv() => link_input(LinkId::Cloud, event),
            Some(event) = events.uart.recv() => link_input(LinkId::Uart, event),
            Some(reading) = events.board.recv() => Input::Board(reading),
            Some(reply) = events.scrapes.recv() => {
                let _ = reply.send(task.numbers()); // who asked may be gone
                continue;
            }
            Ok(()) = changed(&mut events.hotplug) => {
                task.encoders.forget_failures();
                Input::DevicesChanged
            }
            _ = measuring.tick() => {
                task.service.feed(&task.health, task.now());
                let Some(metrics) = task.measure() else {
                    task.show();
                    continue;
                };
                Input::Measured(metrics)
            }
            () = at(deadline) => Input::Tick,
        };
        task.take(input);
        if ending.is_some() && task.core.is_idle() {
            break;
        }
    }
    task.end(events).await;
    Ok(())
}

fn link_input(link: LinkId, event: LinkEvent) -> Input {
    match event {
        LinkEvent::Up => Input::LinkUp(link),
        LinkEvent::Down => Input::LinkDown(link),
        LinkEvent::Message(text) => Input::LinkMessage(link, text),
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn changed(hotplug: &mut Option<Hotplug>) -> std::io::Result<()> {
    match hotplug {
        Some(hotplug) => hotplug.changed().await,
        None => std::future::pending().await,
    }
}

struct Events {
    captures: mpsc::Receiver<(u64, capture::Event)>,
    publishers: mpsc::Receiver<(u32, publisher::Event)>,
    inputs: mpsc::Receiver<Input>,
    control: mpsc::Receiver<ControlEvent>,
    cloud: mpsc::Receiver<LinkEvent>,
    uart: mpsc::Receiver<LinkEvent>,
    board: mpsc::Receiver<board::Reading>,
    scrapes: mpsc::Receiver<Scrape>,
    hotplug: Option<Hotplug>,
}

struct Task {
    core: Core,
    start: Instant,
    config: Arc<Config>,
    encoders: Arc<Encoders>,
    feed: Arc<Feed>,
    board: board::Watch,
    health: Health,
    service: Service,
    captures: HashMap<u64, Capture>,
    publishers: HashMap<u32, Publisher>,
    /// Of the stream with this lease.
    meter: Option<(LeaseId, Meter)>,
    totals: Totals,
    replies: HashMap<RequestId, oneshot::Sender<Reply>>,
    capture_events: mpsc::Sender<(u64, capture::Event)>,
    publisher_events: mpsc::Sender<(u32, publisher::Event)>,
    inputs: mpsc::Sender<Input>,
    state: watch::Sender<DaemonState>,
    reports: broadcast::Sender<ReportLine>,
    to_cloud: mpsc::Sender<Outgoing>,
    to_uart: mpsc::Sender<Outgoing>,
    links_end: watch::Sender<bool>,
    links: JoinSet<()>,
}

impl Task {
    fn start(config: Config) -> Result<(Self, Events), StartError> {
        crate::media::init().map_err(StartError::GStreamer)?;
        if let Some(file) = &config.tls.ca_file {
            crate::media::trust(file).map_err(StartError::Authorities)?;
        }
        let encoders = Arc::new(Encoders::new(load_profiles(&config)?));
        let bind = |address| metrics_link::bind(address).map_err(|error| StartError::Metrics(address, error));
        let metrics_listener = config.metrics.listen.map(bind).transpose()?;
        // Last: whoever finds it there finds everything else there too.
        let listener =
            control::bind(&config.control.socket, Some(&config.control.group)).map_err(StartError::ControlSocket)?;
        let (capture_events, captures) = mpsc::channel(QUEUE);
        let (publisher_events, publishers) = mpsc::channel(QUEUE);
        let (inputs, received) = mpsc::channel(QUEUE);
        let (control_events, control) = mpsc::channel(QUEUE);
        let (cloud_events, cloud) = mpsc::channel(QUEUE);
        let (to_cloud, for_cloud) = mpsc::channel(QUEUE);
        let (uart_events, uart) = mpsc::channel(QUEUE);
        let (to_uart, for_uart) = mpsc::channel(QUEUE);
        let (asked_for_numbers, scrapes) = mpsc::channel(1);
        let (state, shown) = watch::channel(DaemonState::default());
        let (reports, _) = broadcast::channel(QUEUE);
        let (links_end, links_ended) = watch::channel(false);
        let mut links = JoinSet::new();
        links.spawn(control::serve(listener, control_events, shown, reports.clone(), links_ended.clone()));
        if let Some(listener) = metrics_listener {
            links.spawn(metrics_link::serve(listener, asked_for_numbers, links_ended.clone()));
        }
        if let Some(url) = config.cloud.url.clone() {
            let cloud = CloudConfig { url, token: config.cloud.token.clone(), ca_file: config.tls.ca_file.clone() };
            links.spawn(cloud::run(cloud, cloud_events, for_cloud, links_ended.clone()));
        }
        if let Some(settings) = &config.link.uart {
            links.spawn(uart::run(settings.line(), uart_events, for_uart, links_ended));
        }
        let hotplug = Hotplug::new().inspect_err(|error| tracing::warn!(%error, "no hot-plug notices")).ok();
        let (readings, looks) = mpsc::channel(QUEUE);
        let board = board::Watch::start(config.board_settings(), config.light(), readings);
        let left_over = remember::recall(&config);
        let mut task = Self {
            core: Core::new(config.clone()),
            start: Instant::now(),
            config: Arc::new(config),
            encoders,
            feed: Arc::default(),
            board,
            health: Health::default(),
            service: Service::new(),
            captures: HashMap::new(),
            publishers: HashMap::new(),
            meter: None,
            totals: Totals::default(),
            replies: HashMap::new(),
            capture_events,
            publisher_events,
            inputs,
            state,
            reports,
            to_cloud,
            to_uart,
            links_end,
            links,
        };
        task.warm_up();
        task.take(left_over.map_or(Input::Tick, Input::LeftOver));
        Ok((
            task,
            Events { captures, publishers, inputs: received, control, cloud, uart, board: looks, scrapes, hotplug },
        ))
    }

    fn warm_up(&self) {
        let (encoders, config) = (self.encoders.clone(), self.config.clone());
        tokio::task::spawn_blocking(move || {
            encoders.warm_up(&config.encoder.profile, &VideoSettings::default());
        });
    }

    fn prepare_next_encoder(&self, generation: u64) {
        let plan = self.captures.get(&generation).and_then(|capture| capture.shown().plan);
        if let Some(plan) = plan.filter(|plan| plan.video.profile.is_some()) {
            let (encoders, config) = (self.encoders.clone(), self.config.clone());
            tokio::task::spawn_blocking(move || {
                encoders.prepare_next(&config.encoder.profile, plan.video.encoder(), &plan.video.settings);
            });
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.core.deadline().map(|deadline| self.start + deadline)
    }

    fn take(&mut self, input: Input) {
        let effects = self.core.on(input, self.now());
        // First, so that the light shines before the camera sees.
        self.board.camera_in_use(self.core.camera_in_use());
        if !self.core.camera_in_use() {
            self.health.on(health::Event::Unwanted, self.now());
        }
        for effect in effects {
            self.carry_out(effect);
        }
        match self.core.measurable() {
            Some((lease, _)) if self.meter.as_ref().is_some_and(|(of, _)| *of == lease) => {}
            Some((lease, picture)) => self.meter = Some((lease, Meter::new(picture))),
            None => self.meter = None,
        }
        self.show();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::OpenCapture(generation, settings) => {
                self.health.on(health::Event::Opening(generation), self.now());
                let plan = self.plan(settings);
                let capture = Capture::open(generation, plan, self.feed.clone(), self.capture_events.clone());
                self.captures.insert(generation, capture);
            }
            Effect::CloseCapture(generation) => {
                if let Some(capture) = self.captures.get(&generation) {
                    capture.close();
                }
            }
            Effect::Encode(generation, what) => {
                if let Some(capture) = self.captures.get(&generation) {
                    capture.encode(what);
                }
            }
            Effect::DistrustEncoder(failure) => {
                if let Some(plan) = self.captures.values().find_map(|capture| capture.shown().plan) {
                    self.encoders.distrust(plan.video.encoder(), &plan.video.settings, &failure);
                }
            }
            Effect::OpenPublisher(attempt, target) => {
                self.recall_uplink(attempt);
                self.totals.attempt(attempt, self.now());
                let events = self.publisher_events.clone();
                self.publishers.insert(attempt, Publisher::open(attempt, target, self.feed.clone(), events));
            }
            Effect::ClosePublisher(attempt) => {
                if let Some(publisher) = self.publishers.get_mut(&attempt) {
                    publisher.close();
                }
            }
            Effect::TakePhoto(request) => self.take_photo(request),
            Effect::LookAtBoard => self.board.look(),
            Effect::FindCamera(request) => self.find_camera(request),
            Effect::Reply(request, reply) => self.reply(request, reply),
            Effect::Tell(line) => drop(self.reports.send(line)), // an error means that nobody watches
            Effect::Send(link, message) => self.send(link, Outgoing::Text(message)),
            Effect::SendPhoto(frame) => self.send(LinkId::Cloud, Outgoing::Binary(frame)),
            Effect::RememberUplink(bitrate) => {
                if let Some(network) = network::current() {
                    remember::keep_uplink(&self.config, network, bitrate);
                }
            }
            Effect::Remember(remembered) => remember::keep(&self.config, remembered.as_deref()),
        }
    }

    fn send(&self, link: LinkId, outgoing: Outgoing) {
        let queue = match link {
            LinkId::Cloud => &self.to_cloud,
            LinkId::Uart => &self.to_uart,
        };
        if queue.try_send(outgoing).is_err() {
            tracing::warn!("the link takes no more; message dropped");
        }
    }

    /// Tells what this network carried before, if anything is known.
    fn recall_uplink(&self, publisher: u32) {
        let known = network::current().and_then(|network| remember::uplink(&self.config, &network));
        if let Some(bitrate) = known {
            let _ = self.inputs.try_send(Input::Uplink(publisher, bitrate)); // only a start from further off is lost
        }
    }

    fn plan(&self, settings: CaptureSettings) -> impl Future<Output = Result<capture::Plan, Failure>> + use<> {
        let (config, encoders, light) = (self.config.clone(), self.encoders.clone(), self.board.light());
        let make = move || {
            plan::light_up(&config, light.as_deref())?;
            plan::make(&config, &encoders, &settings)
        };
        async move {
            tokio::task::spawn_blocking(make)
                .await
                .unwrap_or_else(|error| Err(Failure::new(Cause::Internal, error.to_string())))
        }
    }

    fn take_photo(&self, request: RequestId) {
        let running = self.captures.iter().max_by_key(|(generation, _)| **generation);
        let photo = running.map(|(_, capture)| capture.photo());
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let jpeg = match photo {
                Some(photo) => tokio::time::timeout(PHOTO_LIMIT, photo).await.ok().and_then(Result::ok),
                None => None,
            };
            let _ = inputs.send(Input::PhotoTaken(request, jpeg)).await; // the daemon may have ended
        });
    }

    fn find_camera(&self, request: RequestId) {
        let (config, inputs, light) = (self.config.clone(), self.inputs.clone(), self.board.light());
        tokio::task::spawn_blocking(move || {
            let found = plan::light_up(&config, light.as_deref()).and_then(|()| plan::device_for_lease(&config));
            let found = found.map_err(plan::refusal);
            let _ = inputs.blocking_send(Input::CameraFound(request, found)); // the daemon may have ended
        });
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        let Some(sender) = self.replies.remove(&request) else { return };
        if sender.send(reply).is_err() {
            let inputs = self.inputs.clone();
            tokio::spawn(async move { inputs.send(Input::Undeliverable(request)).await });
        }
    }

    async fn capture_input(&mut self, (generation, event): (u64, capture::Event)) -> Input {
        let now = self.now();
        match &event {
            capture::Event::Running => {
                self.health.on(health::Event::Settled(generation), now);
                self.health.on(health::Event::Running, now);
            }
            capture::Event::Lost(_) | capture::Event::Closed => self.health.on(health::Event::Settled(generation), now),
            capture::Event::LeftBehind => self.health.on(health::Event::LeftBehind, now),
        }
        let event = match event {
            capture::Event::Lost(failure) if failure.cause == Cause::CameraBusy && failure.owner.is_none() => {
                let plan = self.captures.get(&generation).and_then(|capture| capture.shown().plan);
                let owner = match plan.map(|plan| plan.video.source) {
                    Some(VideoSource::V4l2 { node, .. }) => {
                        let look = tokio::task::spawn_blocking(move || plan::foreign_holder(&node));
                        look.await.ok().flatten()
                    }
                    _ => None,
                };
                capture::Event::Lost(Failure { owner, ..failure })
            }
            capture::Event::Closed => {
                if let Some(capture) = self.captures.remove(&generation) {
                    self.totals.capture_over(capture.shown().counters());
                    capture.join().await;
                }
                capture::Event::Closed
            }
            capture::Event::Running => {
                self.prepare_next_encoder(generation);
                capture::Event::Running
            }
            event @ (capture::Event::Lost(_) | capture::Event::LeftBehind) => event,
        };
        Input::Capture(generation, event)
    }

    async fn publisher_input(&mut self, attempt: u32, event: publisher::Event) -> Input {
        match event {
            publisher::Event::Accepted => self.totals.accepted(attempt, self.now()),
            publisher::Event::Flowing => {
                let now = self.now();
                self.totals.flowing(attempt, now);
                if let Some((_, meter)) = &mut self.meter {
                    meter.flowing(now);
                }
            }
            publisher::Event::Closed => {
                if let Some(publisher) = self.publishers.remove(&attempt) {
                    let counters = publisher.counters();
                    self.totals.publication_over(counters);
                    let publisher::Counters { passed, dropped, bytes, .. } = counters;
                    tracing::info!(publisher = attempt, frames = passed, dropped, bytes, "publication over");
                    if let Some((_, meter)) = &mut self.meter {
                        meter.publication_over(counters);
                    }
                    publisher.join().await;
                }
            }
            publisher::Event::Sampled(_) | publisher::Event::Lost(_) => {}
        }
        Input::Publisher(attempt, event)
    }

    /// Requests that only look at hardware are answered from here, on a thread that may block.
    fn control_input(&mut self, event: ControlEvent) -> Option<Input> {
        match event {
            ControlEvent::Closed { connection } => Some(Input::ConnectionClosed(connection)),
            ControlEvent::Request { connection, peer, request: what, reply } => {
                let owner = self.core.state(self.now()).owner;
                let (config, encoders) = (self.config.clone(), self.encoders.clone());
                match what {
                    Request::CameraList => {
                        tokio::task::spawn_blocking(move || {
                            reply.send(Ok(Answer::Cameras(Cameras { cameras: doctor::cameras() })))
                        });
                    }
                    Request::Doctor => {
                        tokio::task::spawn_blocking(move || {
                            reply.send(Ok(Answer::Checkup(Checkup { lines: doctor::examine(&config, &encoders) })))
                        });
                    }
                    Request::CameraWho if owner.is_none() => {
                        tokio::task::spawn_blocking(move || {
                            let owner = plan::foreign_owner(&config);
                            reply.send(Ok(Answer::Holder(Holder { owner })))
                        });
                    }
                    what => {
                        let request = self.core.next_request();
                        self.replies.insert(request, reply);
                        return Some(Input::Control { request, connection, peer, what });
                    }
                }
                None
            }
        }
    }

    fn measure(&mut self) -> Option<crate::protocol::Metrics> {
        let now = self.now();
        let (_, meter) = self.meter.as_mut()?;
        let running = self.publishers.iter().max_by_key(|(attempt, _)| **attempt);
        Some(meter.measure(now, running.map(|(_, publisher)| publisher.counters())))
    }

    /// For Prometheus.
    fn numbers(&self) -> String {
        let mut captures = video::Counters::default();
        for capture in self.captures.values() {
            captures += capture.shown().counters();
        }
        let state = self.present();
        let camera = self.captures.get(&state.camera.generation);
        let mut publishers: Vec<_> = self.publishers.iter().map(|(number, of)| (number, of.counters())).collect();
        publishers.sort_unstable_by_key(|(number, _)| *number);
        let publishers: Vec<_> = publishers.into_iter().map(|(_, counters)| counters).collect();
        let present = Present {
            core: &self.core,
            state: &state,
            captures,
            camera_silent: camera.and_then(|capture| capture.shown().camera_silent()),
            publishers: &publishers,
        };
        metrics::write(&self.totals, &present)
    }

    /// The state, with what only the capture knows.
    fn present(&self) -> DaemonState {
        let mut state = self.core.state(self.now());
        if let Some(capture) = self.captures.get(&state.camera.generation) {
            let shown = capture.shown();
            state.camera.frames = shown.pictures();
            if let Some(plan) = shown.plan {
                let source = &plan.video.source;
                state.camera.device = Some(source.device());
                state.camera.name = Some(source.name());
                state.camera.mode = Some(source.mode(&plan.video.settings));
                state.camera.encoder = Some(plan.video.encoder().to_owned());
                state.camera.zero_copy = source.is_zero_copy();
                state.camera.audio = plan.audio.filter(|_| shown.sound).map(|(source, _)| source.name().to_owned());
            }
        }
        state
    }

    fn show(&mut self) {
        let state = self.present();
        self.service.show(&state);
        self.state.send_if_modified(|shown| {
            let news = *shown != state;
            *shown = state;
            news
        });
    }

    async fn end(mut self, events: Events) {
        drop(events); // who still has something to say is not kept waiting
        for (_, capture) in self.captures.drain() {
            capture.close();
            capture.join().await;
        }
        for (_, mut publisher) in self.publishers.drain() {
            publisher.close();
            publisher.join().await;
        }
        self.board.end().await;
        drop((self.to_cloud, self.to_uart));
        let _ = self.links_end.send(true);
        while self.links.join_next().await.is_some() {}
    }
}

fn load_profiles(config: &Config) -> Result<Vec<profile::Profile>, StartError> {
    let profiles = profile::load(&config.encoder.folders())?;
    let wanted = &config.encoder.profile;
    if wanted != "auto" && !profiles.iter().any(|profile| profile.name == *wanted) {
        let names: Vec<_> = profiles.iter().map(|profile| profile.name.as_str()).collect();
        return Err(StartError::UnknownProfile(wanted.clone(), names.join(", ")));
    }
    Ok(profiles)
}
