//! The state of the cloud, owned by one task. What comes in becomes an event of the user's machine
//! ([`crate::policy::orchestration`]), and the machine's actions are carried out here. Nothing here decides.
//!
//! Nothing here waits either: services take orders without waiting, and what takes time (webhooks, photos, the store)
//! goes to tasks that [`super::task`] joins.

mod devices;
mod numbers;
mod people;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use devices::Devices;
use numbers::{Counts, kind_name};

use super::config::Config;
use super::control::{self, StreamInfo};
use super::credential::random;
use super::documents::Documents;
use super::gateway::{ConnectionId, DeviceMessage, GatewayEvent, Outgoing};
use super::live::{Live, News, Services};
use super::photos::{Asker, Photos};
use super::timestamp;
use super::watch_page::WatchState;
use super::webhook::Launcher;
use crate::ingest;
use crate::policy::Time;
use crate::policy::orchestration::{Action, Durable, Event, Fresh, Orchestration, Settings, Timing};
use crate::protocol::app::{self, AppRequest, ManagedWord, checked};
use crate::protocol::{Dialect, Secret, glasses};

/// The app name under which `lenscastctl cloud start` takes part.
const PERSON: &str = "lenscastctl";

/// What viewers' pages are shown, by playback id.
pub(super) type Pages = BTreeMap<String, WatchState>;

pub(super) struct Core {
    settings: Settings,
    begun: Instant,
    users: BTreeMap<String, User>,
    live: BTreeMap<String, Live>,
    services: Services,
    launcher: Launcher,
    photos: Photos,
    news: mpsc::Sender<News>,
    documents: Documents,
    pages: watch::Sender<Pages>,
    /// Pages of streams that ended, oldest first.
    ended_pages: VecDeque<String>,
    watchers: Vec<mpsc::Sender<control::Event>>,
    counts: Counts,
    /// Tasks that take time and may be aborted; joined by the cloud's task.
    pub(super) errands: JoinSet<()>,
    /// Tasks that close a stream's destinations politely; joined by the cloud's task.
    pub(super) farewells: JoinSet<()>,
}

struct User {
    machine: Orchestration,
    apps: BTreeMap<String, (ConnectionId, Outgoing)>,
    devices: Devices,
    /// The stream as watchers were told last.
    shown: Option<StreamInfo>,
}

impl User {
    /// Whether the present glasses are needed for a stream. An ending stream needs them only if they can still report
    /// its end.
    fn is_busy(&self) -> bool {
        self.machine.stream_id().is_some() || (self.machine.has_stream() && self.devices.present().is_some())
    }
}

impl Core {
    #[allow(clippy::too_many_arguments, reason = "the parts it wires, each once")]
    pub(super) fn new(
        config: &Config,
        services: Services,
        launcher: Launcher,
        photos: Photos,
        news: mpsc::Sender<News>,
        documents: Documents,
        pages: watch::Sender<Pages>,
    ) -> Self {
        let settings = Settings {
            timing: Timing::default(),
            public_url: config.http.public_url(),
            ingest_url: config.rtmp.public_url(),
            preempt: config.streams.preempt,
        };
        Self {
            settings,
            begun: Instant::now(),
            users: BTreeMap::new(),
            live: BTreeMap::new(),
            services,
            launcher,
            photos,
            news,
            documents,
            pages,
            ended_pages: VecDeque::new(),
            watchers: Vec::new(),
            counts: Counts::default(),
            errands: JoinSet::new(),
            farewells: JoinSet::new(),
        }
    }

    fn now(&self) -> Time {
        self.begun.elapsed()
    }

    /// Takes over the streams that an earlier process left in the store.
    pub(super) fn restore(&mut self, kept: Vec<(String, String)>) {
        for (name, document) in kept {
            let durable: Durable = match serde_json::from_str(&document) {
                Ok(durable) => durable,
                Err(error) => {
                    warn!(user = name, %error, "cannot read the stored streams of this user");
                    continue;
                }
            };
            let (machine, actions) = Orchestration::restore(self.settings.clone(), durable, self.now());
            let has_person = machine.has_app(PERSON);
            let devices = Devices::with(machine.device().filter(|_| machine.has_stream()));
            let user = User { machine, apps: BTreeMap::new(), devices, shown: None };
            self.users.insert(name.clone(), user);
            for action in actions {
                self.carry_out(&name, action);
            }
            self.show(&name);
            if has_person {
                self.event(&name, Event::AppUp { app: PERSON.into(), may_stream: true });
            }
        }
    }

    /// When [`Self::tick`] must be called next, if at all.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let machines = self.users.values().filter_map(|user| user.machine.deadline());
        let machines = machines.min().map(|time| self.begun + time);
        machines.into_iter().chain(self.photos.deadline()).min()
    }

    /// Gives machines their timeouts and gives up on late photos.
    pub(super) fn tick(&mut self) {
        let now = self.now();
        let due = |user: &User| user.machine.deadline().is_some_and(|deadline| deadline <= now);
        let names: Vec<String> =
            self.users.iter().filter(|(_, user)| due(user)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.event(&name, Event::Tick);
        }
        self.photos.expire(Instant::now(), &mut self.errands);
    }

    /// Checks on which streams media arrived. To be called every second or so.
    pub(super) fn poll(&mut self) {
        let moved: Vec<(String, String)> = self
            .live
            .iter_mut()
            .filter_map(|(stream_id, live)| live.has_moved().then(|| (live.user.clone(), stream_id.clone())))
            .collect();
        for (user, stream_id) in moved {
            self.event(&user, Event::Media { stream_id });
        }
    }

    /// Ends all streams' tasks. The glasses that publish them and the stored documents stay: the next process takes
    /// them over.
    pub(super) async fn close(mut self) {
        self.documents.close();
        self.errands.shutdown().await;
        for live in std::mem::take(&mut self.live).into_values() {
            self.farewells.spawn(live.let_go());
        }
        while let Some(ended) = self.farewells.join_next().await {
            log_panic(ended);
        }
    }

    // What comes in.

    pub(super) fn gateway(&mut self, event: GatewayEvent) {
        match event {
            GatewayEvent::AppUp { connection, user, app, may_stream, outgoing, .. } => {
                info!(user, app, "app connected");
                self.note(format!("{app} connected for {user}"));
                self.user(&user).apps.insert(app.clone(), (connection, outgoing));
                self.event(&user, Event::AppUp { app, may_stream });
            }
            GatewayEvent::AppMessage { user, app, text, .. } => self.app_says(&user, app, &text),
            GatewayEvent::AppDown { connection, user, app, deliberate } => {
                let known = self.user(&user);
                if known.apps.get(&app).is_some_and(|(present, _)| *present == connection) {
                    known.apps.remove(&app);
                    info!(user, app, deliberate, "app gone");
                    self.note(format!("{app} gone for {user}"));
                    self.event(&user, Event::AppDown { app, deliberate });
                }
            }
            GatewayEvent::DeviceUp { connection, user, device, outgoing, .. } => {
                info!(user, device, "glasses connected");
                self.note(format!("{device} of {user} connected"));
                let known = self.user(&user);
                let (before, busy) = (known.devices.present().is_some(), known.is_busy());
                if known.devices.up(device.clone(), connection, outgoing.clone(), busy) {
                    self.device_up(&user, device, before);
                } else {
                    for command in known.machine.owed_to(&device) {
                        outgoing.send(command.json(Dialect::Stream).to_string());
                    }
                }
            }
            GatewayEvent::DeviceMessage { connection, user, message, .. } => {
                let devices = &self.user(&user).devices;
                if devices.is_present(connection) {
                    self.device_says(&user, message);
                } else if devices.is_linked(connection) {
                    // These glasses may have been asked for a photo before others took their place.
                    self.photo_answered(&user, &message);
                }
            }
            GatewayEvent::DeviceDown { connection, user, device } => {
                let known = self.user(&user);
                let was_present = known.devices.is_present(connection);
                if known.devices.down(connection) {
                    info!(user, device, "glasses gone");
                    self.note(format!("{device} of {user} gone"));
                }
                if was_present {
                    self.event(&user, Event::DeviceDown);
                }
            }
        }
    }

    fn app_says(&mut self, user: &str, app: String, text: &str) {
        match app::parse(text) {
            Ok(AppRequest::Other { .. }) => {}
            Ok(request) => {
                let watching = self.watching(user);
                self.event(user, Event::Request { app, request, fresh: fresh(), watching });
            }
            Err(refused) => {
                info!(user, app, %refused, "app's request refused");
                self.event(user, Event::Refused { app, refused });
            }
        }
    }

    /// `before`: the user already had glasses present.
    fn device_up(&mut self, user: &str, device: String, before: bool) {
        if before {
            self.event(user, Event::DeviceDown);
        }
        self.event(user, Event::DeviceUp { device });
    }

    fn device_says(&mut self, user: &str, message: DeviceMessage) {
        if !self.photo_answered(user, &message)
            && let DeviceMessage::Text(text) = message
        {
            let (message, dialect) = glasses::parse(&text);
            self.event(user, Event::Device { message, dialect });
        }
    }

    /// Whether the message was about a photo.
    fn photo_answered(&mut self, user: &str, message: &DeviceMessage) -> bool {
        match message {
            DeviceMessage::Text(text) => self.photos.answered(user, text, &mut self.errands),
            DeviceMessage::Binary(bytes) => {
                self.photos.taken(user, bytes, &mut self.errands);
                true
            }
        }
    }

    pub(super) fn ingest(&mut self, event: ingest::Event) {
        let Some(live) = self.live.get_mut(&event.stream_id) else { return };
        let (user, stream_id) = (live.user.clone(), event.stream_id);
        if let ingest::Happening::Stopped(why) = &event.what {
            self.counts.publications_ended.count(why.name());
        }
        match event.what {
            ingest::Happening::Publishing { peer, encoder } => {
                info!(stream_id, %peer, encoder, publication = event.publication, "publishing");
                live.publication = event.publication;
                self.counts.publications += 1;
                self.event(&user, Event::Publishing { stream_id });
            }
            // At a takeover, the old publication stops after the new one has started.
            ingest::Happening::Stopped(_) if event.publication != live.publication => {}
            ingest::Happening::Stopped(why) => {
                info!(stream_id, publication = event.publication, %why, "publisher gone");
                self.event(&user, Event::PublisherLost { stream_id, why: why.to_string() });
            }
        }
    }

    pub(super) fn news(&mut self, news: News) {
        let Some(live) = self.live.get(news.stream_id()) else { return };
        let user = live.user.clone();
        let event = match news {
            News::Playable { publication, .. } if publication != live.publication => return,
            News::Playable { stream_id, width, height, .. } => Event::Playable { stream_id, width, height },
            News::Outputs { stream_id, outputs } => Event::Outputs { stream_id, outputs },
        };
        self.event(&user, event);
    }

    // What goes out.

    fn user(&mut self, name: &str) -> &mut User {
        let settings = &self.settings;
        self.users.entry(name.to_owned()).or_insert_with(|| User {
            machine: Orchestration::new(settings.clone()),
            apps: BTreeMap::new(),
            devices: Devices::default(),
            shown: None,
        })
    }

    /// Gives the machine an event and carries out its actions. Returns why [`PERSON`] was refused, if so.
    fn event(&mut self, name: &str, event: Event) -> Option<String> {
        let now = self.now();
        let actions = self.user(name).machine.handle(event, now);
        let mut refused = None;
        for action in actions {
            if let Action::Managed { app, status } = &action
                && app == PERSON
                && matches!(status.word, ManagedWord::Error)
            {
                refused.clone_from(&status.message);
            }
            self.carry_out(name, action);
        }
        self.show(name);
        let user = self.user(name);
        let (before, busy) = (user.devices.present().is_some(), user.is_busy());
        if let Some(device) = user.devices.fall_back(busy) {
            self.device_up(name, device, before);
        } else if user.machine.is_idle() && user.apps.is_empty() && user.devices.is_empty() {
            self.users.remove(name);
        }
        refused
    }

    fn carry_out(&mut self, name: &str, action: Action) {
        match action {
            Action::Managed { app, status } => {
                info!(user = name, app, status = ?status.word, stream_id = status.stream_id, message = status.message, "told");
                let end = match status.word {
                    ManagedWord::Stopped => Some("stopped"),
                    ManagedWord::Error => Some("error"),
                    _ => None,
                };
                if let Some(word) = end {
                    self.ended(name, status.stream_id.as_deref(), word, status.message.as_deref());
                }
                self.tell(name, &app, &status.json());
            }
            Action::Unmanaged { app, status } => {
                if status.stats.is_none() {
                    info!(
                        user = name,
                        app,
                        status = status.word,
                        stream_id = status.stream_id,
                        details = status.details,
                        "told"
                    );
                }
                if matches!(status.word, "stopped" | "error" | "timeout") {
                    self.ended(name, status.stream_id.as_deref(), status.word, status.details.as_deref());
                }
                self.tell(name, &app, &status.json());
            }
            Action::Checked { app, stream } => self.tell(name, &app, &checked(stream.as_ref())),
            Action::Device { command, dialect } => {
                if let Some(outgoing) = self.user(name).devices.present() {
                    outgoing.send(command.json(dialect).to_string());
                }
            }
            Action::Open { stream_id, key, playback, webrtc, destinations } => {
                let (user, news) = (name.to_owned(), self.news.clone());
                let live = Live::open(&self.services, user, &stream_id, &key, playback, webrtc, destinations, news);
                self.live.insert(stream_id, live);
            }
            Action::Close { stream_id } => {
                if let Some(live) = self.live.remove(&stream_id) {
                    self.end_page(live.playback.clone());
                    let broadcast = live.broadcast.clone();
                    live.close(&self.services, &stream_id, &mut self.farewells);
                    self.counts.past.add(&broadcast.statistics());
                }
            }
            Action::Began { stream_id, kind } => {
                let kind = kind_name(kind);
                info!(user = name, stream_id, kind, "stream begins");
                self.counts.begun.count(kind);
            }
            Action::Ended { stream_id, kind, cause } => {
                info!(user = name, stream_id, kind = kind_name(kind), cause, "stream over");
                self.counts.ended.count(cause);
            }
            Action::StartApp { app } => {
                let (launcher, user) = (self.launcher.clone(), name.to_owned());
                self.errands.spawn(async move {
                    if let Err(error) = launcher.start(&app, &user).await {
                        warn!(user, app, %error, "an app whose stream runs could not be started again");
                    }
                });
            }
            Action::Photo { app, request, from } => {
                let broadcast = from.and_then(|id| self.live.get(&id)).map(|live| live.broadcast.clone());
                let device = self.user(name).devices.present().cloned();
                self.photos.take(
                    Asker { user: name, app: &app },
                    request,
                    broadcast,
                    device.as_ref(),
                    &mut self.errands,
                );
            }
            Action::PhotoRefused { app, request, code, message } => {
                self.photos.refuse(Asker { user: name, app: &app }, &request, code, message, &mut self.errands);
            }
            Action::Save => {
                let machine = &self.user(name).machine;
                let document = (!machine.is_idle()).then(|| serde_json::to_string(&machine.durable()).ok()).flatten();
                self.documents.put(name, document);
            }
        }
    }

    fn tell(&mut self, user: &str, app: &str, message: &serde_json::Value) {
        if let Some((_, outgoing)) = self.user(user).apps.get(app) {
            let mut message = message.clone();
            message["timestamp"] = json!(timestamp::now());
            outgoing.send(message.to_string());
        }
    }
}

fn fresh() -> Fresh {
    Fresh { id: random(6), key: Secret::new(random(24)), playback: random(16), created_at: timestamp::now() }
}

/// How often to call [`Core::poll`] while there is a stream.
pub(super) const POLL: Duration = Duration::from_secs(1);

/// Logs a task's panic, which so far is only on standard error.
pub(super) fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a task failed");
    }
}
