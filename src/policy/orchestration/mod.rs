//! One user's streams, seen from the cloud: who may start one, who watches, what apps are told, when it is over.
//!
//! At most one stream of a user is alive; others may still be *ending*, and what is asked meanwhile waits for them. What an
//! app is told is never set by an event: after each event every participant's status is worked out from facts (what the
//! glasses said, whether media arrives, whether a segment can be played) and sent if it is another than it was told last.
//! So an app that was away is simply told again, and no status can be a hope.
//!
//! A request ends in exactly one final status. A stream that was told to stop stays in `to_stop` until the glasses are known
//! not to run it, however often their link breaks.

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

/// How long. In parentheses what they are by default.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From a request to the first picture that plays (25 s: the npm package gives up after 30).
    pub start: Duration,
    /// For glasses to confirm a stop (5 s).
    pub stop: Duration,
    /// Without media, or without the glasses' link, before a stream is given up (120 s, as the glasses do).
    pub recovery: Duration,
    /// Without media at ingest before a stream no longer plays (4 s; that it arrives is told every second).
    pub silence: Duration,
    /// Between keep-alives (15 s).
    pub keep_alive: Duration,
    /// For a keep-alive's answer (10 s).
    pub acknowledge: Duration,
    /// For a lost app to come back by itself (10 s: the package tries after 1, 2 and 4 s).
    pub app: Duration,
    /// And once more, after it was started anew (30 s).
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

/// Keep-alives without answer that end a stream.
const MISSES: u32 = 3;
/// How often a stream is started again on glasses that lost it.
const RESTARTS: u32 = 3;
/// The app that managed streams are started as (docs/protocol.md#link-messages).
const MANAGED_APP: &str = "MANAGED_STREAM";

/// What does not change while the cloud runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long.
    pub timing: Timing,
    /// Base of the URLs that viewers get.
    pub public_url: String,
    /// Base of the URLs that glasses publish to, with its application: `rtmp://host:1935/live`.
    pub ingest_url: String,
    /// Whether an app's unmanaged stream takes the camera from a managed one, or is refused.
    pub preempt: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Orchestration {
    settings: Settings,
    device: Device,
    apps: BTreeMap<String, App>,
    streams: Vec<Stream>,
    waiting: Vec<(String, AppRequest, Fresh)>,
    /// Streams that glasses may still run and must not, by their ids.
    to_stop: BTreeMap<String, ToStop>,
    keep_alives: u64,
    /// The streams are an earlier process's, and no glasses have linked since.
    restored: bool,
    actions: Vec<Action>,
}

/// A stop that is owed to glasses.
#[derive(Clone, Debug)]
struct ToStop {
    app: String,
    /// The name of those that had the stream; none if that is not known.
    device: Option<String>,
}

#[derive(Clone, Debug)]
struct Device {
    /// Of those that are linked, or were last.
    name: Option<String>,
    /// Since when it is down; `None` if it is up.
    down: Option<Time>,
    /// Behind a phone the glasses themselves may be away.
    present: bool,
    wifi: Option<bool>,
    dialect: Dialect,
}

#[derive(Debug, Default)]
struct App {
    may_stream: bool,
    dialect: Option<Dialect>,
    /// Whether it listens to managed statuses, and to unmanaged ones.
    listens: (bool, bool),
    away: Option<Away>,
    /// Final statuses of what ended meanwhile.
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

    /// Takes note of an event; gives what is to be done, in this order.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Action> {
        // What was due before the event is done before it.
        self.expire(now);
        self.note(event, now);
        self.ask_again(now);
        self.tell();
        mem::take(&mut self.actions)
    }

    /// When a [`Event::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Time> {
        let streams = self.streams.iter().filter_map(|stream| stream.deadline(&self.settings.timing, self.device.down));
        let apps = self.apps.values().filter_map(|app| app.away).map(|away| away.until);
        streams.chain(apps).min()
    }

    /// Whether there is nothing to remember of this user.
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

    /// What these glasses are still to be told of streams that are over.
    pub fn owed_to(&self, device: &str) -> Vec<GlassesCommand> {
        let theirs = self.to_stop.iter().filter(|(_, stop)| stop.device.as_deref().is_none_or(|of| of == device));
        theirs.map(|(id, stop)| GlassesCommand::Stop { stream_id: id.clone(), app: stop.app.clone() }).collect()
    }

    /// Whether the app takes part in the cloud's doings for this user, present or away.
    pub fn has_app(&self, app: &str) -> bool {
        self.apps.contains_key(app)
    }

    /// The stream there is, if it is not ending: for a person, who may see everything but keys.
    pub fn overview(&self, watching: u64) -> Option<Overview> {
        let down = self.device.down.is_some();
        self.alive().map(|stream| stream.overview(watching, &self.settings, down))
    }

    /// The id of the stream there is, if it is not ending.
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

    /// An app that begins to listen is told what is so: what was sent before reached no handler of its. (The package calls
    /// an app's code only after it has read what came with the acknowledgement.)
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

    /// Takes an app out of its streams without telling it: it is not there.
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
