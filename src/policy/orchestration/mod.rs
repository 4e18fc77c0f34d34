//! One user's streams as the cloud sees them: who may start one, who watches, what apps are told, when a stream is
//! over.
//!
//! At most one stream of a user is alive. Others may still be *ending*, and requests wait until they have ended. An
//! event never sets an app's status. After each event the status of every participant is derived from facts (what the
//! glasses said, whether media arrives, whether a segment can be played), and is sent if it differs from the last one
//! sent. So an app that was away is simply told again, and no status is a mere hope.
//!
//! A request has exactly one final status. A stream that was told to stop stays in `to_stop` until the glasses are
//! known not to run it, however often their link breaks.

mod durable;
mod end;
mod event;
mod glasses;
mod owed;
mod request;
mod status;
mod stream;
mod told;

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use super::Time;
use crate::protocol::Dialect;
use crate::protocol::app::{AppRequest, Refused};
use crate::protocol::glasses::GlassesCommand;

pub use durable::Durable;
pub use event::{Action, Event, Fresh};
pub use status::Overview;
pub use stream::END_REASONS;
use stream::{Final, Media, Stream};

/// Time limits and intervals, with their defaults in parentheses.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From a request to the first picture that plays (25 s: the npm package gives up after 30).
    pub start: Duration,
    /// For glasses to confirm a stop (5 s).
    pub stop: Duration,
    /// Without media, or without the glasses' link, before a stream is given up (120 s, as in the glasses).
    pub recovery: Duration,
    /// Without media at ingest before a stream no longer plays (4 s; arrival is reported every second).
    pub silence: Duration,
    /// Between keep-alives (15 s).
    pub keep_alive: Duration,
    /// For the answer to a keep-alive (10 s).
    pub acknowledge: Duration,
    /// For a lost app to come back by itself (10 s: the package tries after 1, 2 and 4 s).
    pub app: Duration,
    /// For a lost app to come back after it was started again (30 s).
    pub app_start: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(25),
            stop: Duration::from_secs(5),
            recovery: Duration::from_mins(2),
            silence: Duration::from_secs(4),
            keep_alive: Duration::from_secs(15),
            acknowledge: Duration::from_secs(10),
            app: Duration::from_secs(10),
            app_start: Duration::from_secs(30),
        }
    }
}

/// How many keep-alives in a row without an answer end a stream.
const MISSES: u32 = 3;
/// How often a stream is restarted on glasses that lost it.
const RESTARTS: u32 = 3;
/// The app name under which managed streams are started (docs/protocol.md#link-messages).
const MANAGED_APP: &str = "MANAGED_STREAM";

/// The settings, which do not change while the cloud runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub timing: Timing,
    /// Base of the URLs for viewers.
    pub public_url: String,
    /// Base of the URLs that glasses publish to, including the application: `rtmp://host:1935/live`.
    pub ingest_url: String,
    /// Whether an app's unmanaged stream takes the camera from a managed one (true) or is refused (false).
    pub preempt: bool,
}

/// The state machine of one user.
#[derive(Debug)]
pub struct Orchestration {
    settings: Settings,
    device: Device,
    apps: BTreeMap<String, App>,
    streams: Vec<Stream>,
    waiting: Vec<(String, AppRequest, Fresh)>,
    /// Streams that glasses may still run but must not, by id.
    to_stop: BTreeMap<String, ToStop>,
    keep_alives: u64,
    /// Whether the streams come from an earlier process and no glasses have linked since.
    restored: bool,
    actions: Vec<Action>,
}

/// A stop that the glasses have not confirmed.
#[derive(Clone, Debug)]
struct ToStop {
    app: String,
    /// The name of the glasses that had the stream, if known.
    device: Option<String>,
}

#[derive(Clone, Debug)]
struct Device {
    /// The name of the glasses that are linked, or were last.
    name: Option<String>,
    /// When the link went down; `None` if it is up.
    down: Option<Time>,
    /// Behind a phone, the glasses themselves may be away.
    present: bool,
    wifi: Option<bool>,
    dialect: Dialect,
}

#[derive(Debug, Default)]
struct App {
    may_stream: bool,
    dialect: Option<Dialect>,
    /// Whether the app subscribes to managed statuses, and to unmanaged ones.
    listens: (bool, bool),
    away: Option<Away>,
    /// Final statuses of streams that ended while the app was away.
    missed: Vec<Action>,
}

#[derive(Clone, Copy, Debug)]
struct Away {
    until: Time,
    started: bool,
}

impl Orchestration {
    /// A user without streams, apps or glasses.
    pub fn new(settings: Settings) -> Self {
        let down = Some(Time::ZERO);
        let device = Device { name: None, down, present: true, wifi: None, dialect: Dialect::Stream };
        Self {
            settings,
            device,
            apps: BTreeMap::new(),
            streams: Vec::new(),
            waiting: Vec::new(),
            to_stop: BTreeMap::new(),
            keep_alives: 0,
            restored: false,
            actions: Vec::new(),
        }
    }

    /// Handles an event. Returns the actions to carry out, in order.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        // Deadlines before the event come first.
        self.expire(now);
        self.note(event, now);
        self.ask_again(now);
        self.tell();
        mem::take(&mut self.actions)
    }

    /// When an [`Event::Tick`] is due next, if at all.
    pub fn deadline(&self) -> Option<Time> {
        let streams = self.streams.iter().filter_map(|stream| stream.deadline(&self.settings.timing, self.device.down));
        let apps = self.apps.values().filter_map(|app| app.away).map(|away| away.until);
        streams.chain(apps).min()
    }

    /// Whether nothing about this user needs to be kept.
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.apps.is_empty() && self.to_stop.is_empty() && self.device.down.is_some()
    }

    /// The glasses that are linked, or were last.
    pub fn device(&self) -> Option<&str> {
        self.device.name.as_deref()
    }

    /// Whether a stream is alive or ending.
    pub fn has_stream(&self) -> bool {
        !self.streams.is_empty()
    }

    /// The stop commands that these glasses still have to get.
    pub fn owed_to(&self, device: &str) -> Vec<GlassesCommand> {
        let theirs = self.to_stop.iter().filter(|(_, stop)| stop.device.as_deref().is_none_or(|of| of == device));
        theirs.map(|(id, stop)| GlassesCommand::Stop { stream_id: id.clone(), app: stop.app.clone() }).collect()
    }

    /// Whether the app has a session with this user, present or away.
    pub fn has_app(&self, app: &str) -> bool {
        self.apps.contains_key(app)
    }

    /// The stream that is alive, for a person, who may see everything but keys.
    pub fn overview(&self, watching: u64) -> Option<Overview> {
        let down = self.device.down.is_some();
        self.alive().map(|stream| stream.overview(watching, &self.settings, down))
    }

    /// The id of the stream that is alive.
    pub fn stream_id(&self) -> Option<&str> {
        self.alive().map(|stream| stream.id.as_str())
    }

    fn alive(&self) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.ending.is_none())
    }

    fn alive_mut(&mut self) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.ending.is_none())
    }

    fn stream(&mut self, id: &str) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    fn note(&mut self, event: Event, now: Time) {
        match event {
            Event::AppUp { app, may_stream } => self.app_up(&app, may_stream),
            Event::AppDown { app, deliberate } => self.app_down(&app, deliberate, now),
            Event::Request { app, request, fresh, watching } => self.request(app, request, fresh, watching, now),
            Event::Refused { app, refused } => match refused {
                Refused::Managed(why) => self.refuse_managed(&app, why),
                Refused::Unmanaged(dialect, why) => self.refuse_unmanaged(&app, dialect, None, why),
                Refused::Message(_) => {}
            },
            Event::DeviceUp { device } => self.device_up(device, now),
            Event::DeviceDown => {
                self.device.down.get_or_insert(now);
                for stream in &mut self.streams {
                    stream.keep_alive.pause();
                    stream.stale = stream.glasses.is_some();
                    stream.asked = None;
                }
            }
            Event::Device { message, dialect } => {
                self.device.dialect = dialect.unwrap_or(self.device.dialect);
                self.device_says(message, now);
            }
            Event::Stop { stream_id, why } => self.begin_end(&stream_id, Final::because(why), now),
            Event::Publishing { stream_id } => {
                if let Some(stream) = self.stream(&stream_id) {
                    stream.media = Media::Published;
                    stream.heard(now);
                }
            }
            Event::PublisherLost { stream_id, why } => {
                if let Some(stream) = self.stream(&stream_id) {
                    stream.media = Media::Absent;
                    stream.interrupted.get_or_insert(now);
                    stream.why = Some(why);
                }
            }
            Event::Media { stream_id } => {
                if let Some(stream) = self.stream(&stream_id) {
                    stream.heard(now);
                }
            }
            Event::Playable { stream_id, width, height } => {
                if let Some(stream) = self.stream(&stream_id).filter(|stream| stream.is_published()) {
                    stream.media = Media::Playable;
                    stream.heard(now);
                    stream.size = Some((width, height));
                    if !mem::replace(&mut stream.was_active, true) {
                        self.actions.push(Action::Save);
                    }
                }
            }
            Event::Outputs { stream_id, outputs } => {
                if let Some(stream) = self.stream(&stream_id) {
                    stream.outputs = outputs;
                }
            }
            Event::Tick => {}
        }
    }

    fn app_up(&mut self, app: &str, may_stream: bool) {
        let known = self.apps.entry(app.to_owned()).or_default();
        known.may_stream = may_stream;
        known.away = None;
        known.listens = (false, false);
        let missed = mem::take(&mut known.missed);
        self.actions.extend(missed);
        for stream in &mut self.streams {
            if let Some(participant) = stream.participant(app) {
                participant.told = None;
            }
        }
        self.actions.push(Action::Save);
    }

    /// Sends an app that subscribes the current statuses: none of its handlers has seen the earlier ones. (The package
    /// calls an app's code only after it has read what came with the acknowledgement.)
    fn subscribe(&mut self, name: &str, managed: bool, unmanaged: bool) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let before = std::mem::replace(&mut app.listens, (managed, unmanaged));
        let new = (managed && !before.0, unmanaged && !before.1);
        for stream in &mut self.streams {
            let wanted = if stream.is_unmanaged() { new.1 } else { new.0 };
            if let Some(participant) = stream.participant(name).filter(|_| wanted) {
                participant.told = None;
            }
        }
    }

    fn app_down(&mut self, name: &str, deliberate: bool, now: Time) {
        let Some(app) = self.apps.get_mut(name) else { return };
        if deliberate {
            self.apps.remove(name);
            self.leave_all(name, now);
        } else {
            app.away = Some(Away { until: now + self.settings.timing.app, started: false });
        }
        self.actions.push(Action::Save);
    }

    /// Removes an app from its streams. It is not told, as it is not there.
    fn leave_all(&mut self, app: &str, now: Time) {
        self.waiting.retain(|(other, ..)| other != app);
        let Some(stream) = self.alive_mut().filter(|stream| stream.takes_part(app)) else { return };
        stream.participants.retain(|participant| participant.app != app);
        if stream.participants.is_empty() {
            let id = stream.id.clone();
            self.begin_end(&id, Final::stopped(), now);
        }
    }

    fn tell(&mut self) {
        let down = self.device.down.is_some();
        let Self { streams, apps, actions, settings, .. } = self;
        for stream in streams {
            for (app, status) in stream.news(settings, down, |app| apps.get(app).is_some_and(|app| app.away.is_none()))
            {
                actions.push(status.addressed(app));
            }
        }
    }
}

#[cfg(test)]
mod tests;
