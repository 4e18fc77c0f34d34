//! The task that owns the daemon: brings every event to [`Core`] and carries out what it decides.
//!
//! Everything that waits or blocks happens elsewhere (captures, publishers and links have tasks of their own, looking
//! at hardware has blocking threads) and comes back as an event; this task only ever waits for the next one.

mod effects;
mod events;
mod show;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::config::Config;
use super::core::{Core, Input};
use super::meter::Meter;
use super::metrics::Totals;
use super::remember::{self, Keeper};
use super::service::Service;
use crate::board;
use crate::camera::Hotplug;
use crate::link::cloud::{self, CloudConfig};
use crate::link::control::{self, ControlEvent};
use crate::link::metrics::{self as metrics_link, Scrape};
use crate::link::{LinkEvent, LinkId, Outgoing, uart};
use crate::media::capture::{self, Capture};
use crate::media::chime::Speaker;
use crate::media::encoder::Encoders;
use crate::media::feed::Feed;
use crate::media::profile;
use crate::media::publisher::{self, Publisher};
use crate::policy::arbiter::{LeaseId, RequestId};
use crate::policy::health::{self, Health};
use crate::protocol::control::{Reply, ReportLine};
use crate::protocol::{DaemonState, VideoSettings};
use crate::toml_file::FileError;

/// Between measurements. The shown state is renewed as often.
const MEASURING: Duration = Duration::from_secs(1);
/// Limit for the end of the stream and the closing of the camera when the daemon ends.
const FAREWELL_LIMIT: Duration = Duration::from_secs(3);
/// Events that wait for the task. A sender waits while the queue is full.
const QUEUE: usize = 64;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// GStreamer cannot be initialized.
    #[error("GStreamer cannot be used: {0}")]
    GStreamer(String),
    /// An encoder profile is not usable.
    #[error("encoder profiles: {0}")]
    Profile(#[from] FileError),
    /// `encoder.profile` names no profile.
    #[error("encoder.profile = {0:?}: there is no such profile; there are {1}, and auto")]
    UnknownProfile(String, String),
    /// `tls.ca_file` is not usable.
    #[error("tls.ca_file: {0}")]
    Authorities(String),
    /// `metrics.listen` cannot be bound.
    #[error("metrics.listen = {0}: {1}")]
    Metrics(SocketAddr, std::io::Error),
    /// The control socket cannot be opened.
    #[error("control socket: {0}")]
    ControlSocket(std::io::Error),
}

/// How the daemon is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ends the stream, which is told to everybody concerned.
    Ended,
    /// The next process continues the stream: nobody is told of an end.
    HandedOver,
}

/// Runs the daemon until `stop` is ready, then ends the stream and closes the camera.
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
    let left = ending.map_or(FAREWELL_LIMIT, |ending| ending.saturating_duration_since(Instant::now()));
    task.end(events, left).await;
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
    captures: mpsc::Receiver<(u64, capture::CaptureEvent)>,
    publishers: mpsc::Receiver<(u32, publisher::PublisherEvent)>,
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
    keeper: Keeper,
    /// `None`: the wearer hears nothing.
    speaker: Option<Speaker>,
    feed: Arc<Feed>,
    board: board::Watch,
    health: Health,
    service: Service,
    captures: HashMap<u64, Capture>,
    publishers: HashMap<u32, Publisher>,
    /// The meter of the stream with this lease.
    meter: Option<(LeaseId, Meter)>,
    totals: Totals,
    replies: HashMap<RequestId, oneshot::Sender<Reply>>,
    capture_events: mpsc::Sender<(u64, capture::CaptureEvent)>,
    publisher_events: mpsc::Sender<(u32, publisher::PublisherEvent)>,
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
        let profiles = load_profiles(&config)?;
        crate::media::init_with(&profiles).map_err(StartError::GStreamer)?;
        if let Some(file) = &config.tls.ca_file {
            crate::media::trust(file).map_err(StartError::Authorities)?;
        }
        let encoders = Arc::new(Encoders::new(profiles));
        let bind = |address| metrics_link::bind(address).map_err(|error| StartError::Metrics(address, error));
        let metrics_listener = config.metrics.listen.map(bind).transpose()?;
        // The socket comes last: a client that finds it finds everything else ready.
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
        let config = Arc::new(config);
        let mut task = Self {
            core: Core::new(&config),
            start: Instant::now(),
            config: config.clone(),
            encoders,
            keeper: Keeper::start(config.clone()),
            speaker: (config.speaker.device != "none").then(|| Speaker::start(config.speaker.device.clone())),
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

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn next_deadline(&self) -> Option<Instant> {
        // `None`: too far away for the clock, a limit that was meant as "never".
        self.core.deadline().and_then(|deadline| self.start.checked_add(deadline))
    }

    fn take(&mut self, input: Input) {
        let effects = self.core.on(input, self.now());
        // The light comes first, so that it shines before the camera sees.
        self.board.camera_in_use(self.core.camera_in_use());
        if !self.core.camera_in_use() {
            self.health.on(health::HealthEvent::Unwanted, self.now());
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

    /// Ends what still runs. Cameras have `left`; everything else has limits of its own.
    async fn end(mut self, events: Events, left: Duration) {
        drop(events); // who still has something to say is not kept waiting
        for (_, capture) in self.captures.drain() {
            capture.join(left).await;
        }
        for (_, mut publisher) in self.publishers.drain() {
            publisher.close();
            publisher.join().await;
        }
        self.board.end().await;
        self.keeper.end().await;
        if let Some(speaker) = self.speaker {
            speaker.end().await;
        }
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
