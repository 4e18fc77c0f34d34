//! One stream: the facts about it, and what follows from them for those who take part.

use std::time::Duration;

use super::{Action, MANAGED_APP, Settings, Time, Timing};
use crate::protocol::app::{
    CheckedStream, ManagedRequest, ManagedStatus, ManagedWord, Output, UnmanagedRequest, UnmanagedStatus, ViewerUrls,
};
use crate::protocol::glasses::{GlassesCommand, GlassesState, GlassesStatus};
use crate::protocol::{Dialect, Secret, StreamUrl};

/// A stream for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// As an app that did not start it is told.
    pub stream: CheckedStream,
    /// Its id in viewers' URLs, if it is managed.
    pub playback: Option<String>,
    /// Why it is as it is.
    pub message: Option<String>,
    /// Those who take part.
    pub apps: Vec<String>,
    /// Restream destinations, without their keys.
    pub outputs: Vec<Output>,
}

/// From a start to the first keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) url: StreamUrl,
    /// The viewing apps of a managed stream, in the order in which they came; the owner of an unmanaged one.
    pub(super) participants: Vec<Participant>,
    pub(super) created_at: String,
    pub(super) started: Time,
    /// What the glasses said last; nothing before they have said something.
    pub(super) glasses: Option<GlassesStatus>,
    pub(super) media: Media,
    pub(super) was_active: bool,
    /// When media arrived last, as far as that was told.
    pub(super) heard: Time,
    /// That is too long ago.
    pub(super) silent: bool,
    /// Since when it is not what it should be.
    pub(super) interrupted: Option<Time>,
    /// Why media stopped to arrive.
    pub(super) why: Option<String>,
    pub(super) size: Option<(u32, u32)>,
    pub(super) outputs: Vec<Output>,
    pub(super) keep_alive: KeepAlives,
    pub(super) restarts: u32,
    pub(super) ending: Option<Ending>,
}

/// What ingest has of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// No publisher.
    Absent,
    /// A publisher.
    Published,
    /// And a segment of what it sends can be played.
    Playable,
}

#[derive(Debug)]
pub(super) enum Kind {
    Managed { request: ManagedRequest, key: Secret, playback: String },
    Unmanaged { request: UnmanagedRequest },
}

#[derive(Debug)]
pub(super) struct Participant {
    pub(super) app: String,
    /// It joined a stream that another had started.
    pub(super) joined: bool,
    /// What it was told last, but for measurements.
    pub(super) told: Option<Status>,
}

impl Participant {
    pub(super) fn joining(app: String) -> Self {
        Self { app, joined: true, told: None }
    }
}

/// The glasses were told to stop; at `until` at the latest they are taken to have.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) until: Time,
    pub(super) end: Final,
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Final {
    pub(super) managed: ManagedWord,
    pub(super) unmanaged: &'static str,
    pub(super) details: Option<String>,
    pub(super) cause: Option<String>,
}

impl Final {
    /// As asked.
    pub(super) fn stopped() -> Self {
        Self { managed: ManagedWord::Stopped, unmanaged: "stopped", details: None, cause: None }
    }

    /// By somebody else's wish.
    pub(super) fn because(details: String) -> Self {
        Self { details: Some(details), ..Self::stopped() }
    }

    pub(super) fn failed(details: &str) -> Self {
        let details = Some(details.to_owned());
        Self { managed: ManagedWord::Error, unmanaged: "error", details, cause: None }
    }

    pub(super) fn timed_out(unmanaged: bool) -> Self {
        let what = if unmanaged { "the glasses no longer answer" } else { "Stream timed out waiting for keep-alive" };
        Self { unmanaged: "timeout", cause: Some("keep_alive_timeout".into()), ..Self::failed(what) }
    }

    /// As the glasses say.
    pub(super) fn told(status: &GlassesStatus) -> Self {
        let GlassesStatus { details, cause, .. } = status.clone();
        let details = details.or_else(|| cause.clone());
        match status.state {
            GlassesState::TimedOut => Self { unmanaged: "timeout", details, cause, ..Self::failed("") },
            GlassesState::Failed => {
                Self { cause, ..Self::failed(details.as_deref().unwrap_or("the glasses ended the stream")) }
            }
            _ => Self { details, cause, ..Self::stopped() },
        }
    }
}

/// A status on its way to an app.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Status {
    Managed(ManagedStatus),
    Unmanaged(UnmanagedStatus),
}

impl Status {
    pub(super) fn addressed(self, app: String) -> Action {
        match self {
            Self::Managed(status) => Action::Managed { app, status },
            Self::Unmanaged(status) => Action::Unmanaged { app, status },
        }
    }
}

impl ManagedStatus {
    /// A status without URLs and outputs.
    pub(super) fn plain(word: ManagedWord, stream_id: Option<String>, message: Option<String>) -> Self {
        Self { word, stream_id, urls: None, message, outputs: Vec::new() }
    }
}

impl UnmanagedStatus {
    /// A status that is only a word.
    pub(super) fn plain(dialect: Dialect, word: &'static str, stream_id: Option<String>, app: &str) -> Self {
        Self { dialect, word, stream_id, app: app.to_owned(), details: None, cause: None, stats: None }
    }
}

impl Stream {
    pub(super) fn new(id: String, kind: Kind, url: StreamUrl, app: String, created_at: String, now: Time) -> Self {
        Self {
            id,
            kind,
            url,
            participants: vec![Participant { app, joined: false, told: None }],
            created_at,
            started: now,
            glasses: None,
            media: Media::Absent,
            was_active: false,
            heard: now,
            silent: false,
            interrupted: Some(now),
            why: None,
            size: None,
            outputs: Vec::new(),
            keep_alive: KeepAlives::new(now + KEEP_ALIVE),
            restarts: 0,
            ending: None,
        }
    }

    pub(super) fn participant(&mut self, app: &str) -> Option<&mut Participant> {
        self.participants.iter_mut().find(|participant| participant.app == app)
    }

    pub(super) fn takes_part(&self, app: &str) -> bool {
        self.participants.iter().any(|participant| participant.app == app)
    }

    pub(super) fn is_unmanaged(&self) -> bool {
        matches!(self.kind, Kind::Unmanaged { .. })
    }

    pub(super) fn is_managed_of(&self, app: &str) -> bool {
        !self.is_unmanaged() && self.takes_part(app)
    }

    /// Who asked for it first, and is still there.
    pub(super) fn owner(&self) -> &str {
        self.participants.first().map_or("", |participant| participant.app.as_str())
    }

    pub(super) fn playback(&self) -> Option<&str> {
        match &self.kind {
            Kind::Managed { playback, .. } => Some(playback),
            Kind::Unmanaged { .. } => None,
        }
    }

    /// The app that the glasses are told.
    pub(super) fn glasses_app(&self) -> &str {
        if self.is_unmanaged() { self.owner() } else { MANAGED_APP }
    }

    pub(super) fn start(&self) -> GlassesCommand {
        let (video, audio, stream, sound) = match &self.kind {
            Kind::Managed { request, .. } => (&request.video, &request.audio, &request.stream, true),
            Kind::Unmanaged { request } => (&request.video, &request.audio, &request.stream, request.sound),
        };
        GlassesCommand::Start {
            stream_id: self.id.clone(),
            app: self.glasses_app().to_owned(),
            url: self.url.clone(),
            video: video.clone(),
            audio: audio.clone(),
            stream: stream.clone(),
            sound,
        }
    }

    fn glasses_state(&self) -> Option<GlassesState> {
        self.glasses.as_ref().map(|status| status.state)
    }

    /// Whether a publisher is at ingest.
    pub(super) fn is_published(&self) -> bool {
        self.media != Media::Absent
    }

    /// Whether media plays at this moment.
    fn is_active(&self) -> bool {
        self.media == Media::Playable && !self.silent && self.glasses_state() != Some(GlassesState::Reconnecting)
    }

    /// Media arrived, or is about to.
    pub(super) fn heard(&mut self, now: Time) {
        self.heard = now;
        self.silent = false;
        if self.media == Media::Playable {
            self.interrupted = None;
        }
        self.keep_alive.answered();
    }

    /// A publisher that says nothing does not play, whatever it holds open.
    pub(super) fn listen(&mut self, now: Time, timing: &Timing) {
        if self.is_published() && !self.silent && self.heard + timing.silence <= now {
            self.silent = true;
            self.interrupted.get_or_insert(now);
            self.why = Some("no media arrives".into());
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self, timing: &Timing, down: Option<Time>) -> Option<Time> {
        if let Some(ending) = &self.ending {
            return Some(ending.until);
        }
        let limit = self.limit(timing, down);
        let silence = (self.is_published() && !self.silent).then(|| self.heard + timing.silence);
        let keep_alive = down.is_none().then(|| self.keep_alive.deadline(timing.acknowledge));
        limit.into_iter().chain(keep_alive).chain(silence).min()
    }

    /// When it is given up if nothing gets better.
    fn limit(&self, timing: &Timing, down: Option<Time>) -> Option<Time> {
        match (&self.kind, self.glasses_state()) {
            (Kind::Managed { .. }, _) if self.is_active() => None,
            (Kind::Managed { .. }, _) if !self.was_active => Some(self.started + timing.start),
            (Kind::Managed { .. }, _) => self.interrupted.map(|since| since + timing.recovery),
            (Kind::Unmanaged { .. }, _) if down.is_some() => down.map(|since| since + timing.recovery),
            (Kind::Unmanaged { .. }, None) => Some(self.started + timing.start),
            // The glasses know their own limits, and say when they give up.
            (Kind::Unmanaged { .. }, Some(_)) => None,
        }
    }

    /// How it ends if it is over by now.
    pub(super) fn overdue(&self, now: Time, timing: &Timing, down: Option<Time>) -> Option<Final> {
        if self.limit(timing, down).is_none_or(|limit| limit > now) {
            return None;
        }
        let last = self.glasses.as_ref().and_then(|status| status.details.clone().or_else(|| status.cause.clone()));
        let said = last.map_or_else(String::new, |last| format!("; they said last: {last}"));
        Some(if down.is_some() {
            Final { cause: Some("link_lost".into()), ..Final::failed("glasses link lost") }
        } else if self.was_active {
            Final::failed(&format!("no media from the glasses for {} s{said}", timing.recovery.as_secs()))
        } else {
            Final::failed(&format!("the glasses did not stream within {} s{said}", timing.start.as_secs()))
        })
    }

    /// Statuses that differ from what their apps were told last.
    pub(super) fn news(
        &mut self,
        settings: &Settings,
        down: bool,
        is_here: impl Fn(&str) -> bool,
    ) -> Vec<(String, Status)> {
        let measured = self.glasses.as_mut().and_then(|glasses| glasses.stats.take());
        let mut news = Vec::new();
        for n in 0..self.participants.len() {
            let participant = &self.participants[n];
            if !is_here(&participant.app) {
                continue;
            }
            let status = self.status(participant, settings, down);
            if participant.told.as_ref() != Some(&status) {
                news.push((participant.app.clone(), status.clone()));
                self.participants[n].told = Some(status);
            } else if let (Status::Unmanaged(status), Some(_)) = (status, &measured) {
                let with_stats = UnmanagedStatus { stats: measured.clone(), ..status };
                news.push((participant.app.clone(), Status::Unmanaged(with_stats)));
            }
        }
        news
    }

    fn status(&self, participant: &Participant, settings: &Settings, down: bool) -> Status {
        let stream_id = Some(self.id.clone());
        match &self.kind {
            Kind::Managed { request, playback, .. } => {
                let word = self.managed_word();
                let active = word == ManagedWord::Active;
                let urls = active.then(|| ViewerUrls::new(&settings.public_url, playback, request.webrtc));
                let message = if active { self.remark(participant, request) } else { self.obstacle(down) };
                let outputs = self.outputs.iter().map(|output| for_app(output, &participant.app, self)).collect();
                Status::Managed(ManagedStatus { word, stream_id, urls, message, outputs })
            }
            Kind::Unmanaged { request } => {
                let (word, details) = self.unmanaged_word(down);
                let cause = self.glasses.as_ref().and_then(|status| status.cause.clone());
                let cause = cause.filter(|_| word == "reconnecting" && !down);
                let plain = UnmanagedStatus::plain(request.dialect, word, stream_id, &participant.app);
                Status::Unmanaged(UnmanagedStatus { details, cause, ..plain })
            }
        }
    }

    fn managed_word(&self) -> ManagedWord {
        if self.ending.is_some() {
            ManagedWord::Stopping
        } else if self.is_active() {
            ManagedWord::Active
        } else if self.is_published() || self.was_active {
            ManagedWord::Preparing
        } else {
            ManagedWord::Initializing
        }
    }

    fn unmanaged_word(&self, down: bool) -> (&'static str, Option<String>) {
        if self.ending.is_some() {
            return ("stopping", None);
        }
        if down {
            return ("reconnecting", Some("glasses link lost".into()));
        }
        let reason =
            || self.glasses.as_ref().and_then(|status| status.details.clone().or_else(|| status.cause.clone()));
        match self.glasses_state() {
            Some(GlassesState::Streaming) => ("active", None),
            Some(GlassesState::Reconnecting) => ("reconnecting", reason()),
            Some(GlassesState::Stopping) => ("stopping", None),
            _ => ("initializing", None),
        }
    }

    /// Why it does not play yet, or no longer.
    fn obstacle(&self, down: bool) -> Option<String> {
        if self.ending.is_some() {
            return None;
        }
        if !self.was_active {
            let text = if self.is_published() { "The stream arrives" } else { "Waiting for the glasses to start" };
            return Some(text.into());
        }
        let why = match &self.glasses {
            Some(status) if status.state == GlassesState::Reconnecting => status.cause.clone(),
            _ if down && !self.is_published() => Some("glasses link lost".into()),
            _ if !self.is_published() || self.silent => self.why.clone(),
            _ => None,
        };
        Some(why.map_or("The glasses are reconnecting".into(), |why| format!("The glasses are reconnecting: {why}")))
    }

    /// What is worth knowing of a stream that plays.
    fn remark(&self, participant: &Participant, request: &ManagedRequest) -> Option<String> {
        if participant.joined {
            return Some("Joined the running stream; its options stay as they are".into());
        }
        let asked = request.quality?;
        let (width, height) = self.size?;
        (width.min(height) < asked).then(|| format!("{asked}p was asked for; the camera gives {width}x{height}"))
    }

    /// The final status for one who took part.
    pub(super) fn last_words(&self, app: &str, end: &Final) -> Action {
        let (stream_id, details) = (Some(self.id.clone()), end.details.clone());
        let status = match &self.kind {
            Kind::Managed { .. } => Status::Managed(ManagedStatus::plain(end.managed, stream_id, details)),
            Kind::Unmanaged { request } => {
                let plain = UnmanagedStatus::plain(request.dialect, end.unmanaged, stream_id, app);
                Status::Unmanaged(UnmanagedStatus { details, cause: end.cause.clone(), ..plain })
            }
        };
        status.addressed(app.to_owned())
    }

    /// For a person.
    pub(super) fn overview(&self, watching: u64, settings: &Settings, down: bool) -> Overview {
        let message = match &self.kind {
            Kind::Managed { .. } if self.is_active() => None,
            Kind::Managed { .. } => self.obstacle(down),
            Kind::Unmanaged { .. } => self.unmanaged_word(down).1,
        };
        Overview {
            stream: self.checked(None, watching, settings, down),
            playback: self.playback().map(str::to_owned),
            message,
            apps: self.participants.iter().map(|participant| participant.app.clone()).collect(),
            outputs: self.outputs.iter().map(|output| for_app(output, "", self)).collect(),
        }
    }

    /// For `checkExistingStream()` by this app; by a person without.
    pub(super) fn checked(&self, app: Option<&str>, watching: u64, settings: &Settings, down: bool) -> CheckedStream {
        let (stream_id, created_at) = (self.id.clone(), self.created_at.clone());
        match &self.kind {
            Kind::Managed { request, playback, .. } => CheckedStream {
                kind: "managed",
                stream_id,
                status: serde_json::to_value(self.managed_word())
                    .ok()
                    .and_then(|word| word.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                created_at,
                urls: Some(ViewerUrls::new(&settings.public_url, playback, request.webrtc)),
                active_viewers: Some(watching),
                rtmp_url: None,
                requesting_app_id: None,
            },
            Kind::Unmanaged { request } => CheckedStream {
                kind: "unmanaged",
                stream_id,
                status: self.unmanaged_word(down).0.to_owned(),
                created_at,
                urls: None,
                active_viewers: None,
                rtmp_url: Some(if app == Some(self.owner()) {
                    request.url.expose().to_owned()
                } else {
                    request.url.to_string()
                }),
                requesting_app_id: Some(self.owner().to_owned()),
            },
        }
    }
}

/// An app sees the keys of destinations only if it gave them.
fn for_app(output: &Output, app: &str, stream: &Stream) -> Output {
    let own = stream.participants.iter().any(|participant| participant.app == app && !participant.joined);
    Output { own, ..output.clone() }
}

/// Keep-alives of one stream.
#[derive(Debug)]
pub(super) struct KeepAlives {
    pub(super) next: Time,
    /// When the one without an answer was sent.
    open: Option<Time>,
    misses: u32,
}

impl KeepAlives {
    /// The start itself is the first.
    pub(super) fn new(next: Time) -> Self {
        Self { next, open: None, misses: 0 }
    }

    pub(super) fn sent(&mut self, now: Time, every: Duration) {
        self.next = now + every;
        self.open = Some(now);
    }

    pub(super) fn answered(&mut self) {
        self.open = None;
        self.misses = 0;
    }

    /// The link is down: nothing is sent, nothing counts.
    pub(super) fn pause(&mut self) {
        self.open = None;
    }

    /// How many in a row had no answer by now.
    pub(super) fn missed(&mut self, now: Time, limit: Duration) -> u32 {
        if self.open.take_if(|sent| *sent + limit <= now).is_some() {
            self.misses += 1;
        }
        self.misses
    }

    fn deadline(&self, limit: Duration) -> Time {
        self.open.map_or(self.next, |sent| self.next.min(sent + limit))
    }
}
