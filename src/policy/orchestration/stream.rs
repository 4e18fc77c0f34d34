//! One stream: the facts about it, and its deadlines.

use super::told::Status;
use super::{MANAGED_APP, Time, Timing};
use crate::protocol::app::{ManagedRequest, ManagedWord, Output, UnmanagedRequest};
use crate::protocol::glasses::{GlassesCommand, GlassesState, GlassesStatus};
use crate::protocol::{Cause, Secret, StreamKind, StreamUrl};

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) url: StreamUrl,
    /// The apps that watch a managed stream, in the order in which they came; the owner of an unmanaged one.
    pub(super) participants: Vec<Participant>,
    pub(super) created_at: String,
    pub(super) started: Time,
    /// The last status from the glasses, if any.
    pub(super) glasses: Option<GlassesStatus>,
    /// Whether that status is from before their link was lost.
    pub(super) stale: bool,
    pub(super) media: Media,
    pub(super) was_active: bool,
    /// When media last arrived, as far as reported.
    pub(super) heard: Time,
    /// Whether that is too long ago.
    pub(super) silent: bool,
    /// When the stream stopped being as it should.
    pub(super) interrupted: Option<Time>,
    /// Why media stopped arriving.
    pub(super) why: Option<String>,
    pub(super) size: Option<(u32, u32)>,
    pub(super) outputs: Vec<Output>,
    pub(super) keep_alive: KeepAlives,
    pub(super) restarts: u32,
    /// When the glasses were told to start it. Cleared when they mention it or their link breaks.
    pub(super) asked: Option<Time>,
    pub(super) ending: Option<Ending>,
}

/// What ingest has of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// There is no publisher.
    Absent,
    /// There is a publisher.
    Published,
    /// There is a publisher, and a segment of its media can be played.
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
    /// Whether it joined a stream that another app had started.
    pub(super) joined: bool,
    /// The last status it was told, without measurements.
    pub(super) told: Option<Status>,
}

impl Participant {
    pub(super) fn joining(app: String) -> Self {
        Self { app, joined: true, told: None }
    }
}

/// The glasses were told to stop. At `until` the stream is over even if they have not confirmed.
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
    /// The reason that is counted if there is no cause.
    pub(super) reason: &'static str,
}

/// The reasons for a stream's end besides the causes that the glasses know.
pub const END_REASONS: [&str; 4] = [NO_MEDIA, NOT_STARTED, LOST_BY_GLASSES, OTHER];
/// Nothing came from the glasses for too long.
const NO_MEDIA: &str = "no_media";
/// Nothing ever came from the glasses.
const NOT_STARTED: &str = "not_started";
/// The glasses said that they do not run it.
pub(super) const LOST_BY_GLASSES: &str = "lost_by_glasses";
/// The glasses gave no reason, or one that is unknown here.
const OTHER: &str = "other";

impl Final {
    /// Stopped on request.
    pub(super) fn stopped() -> Self {
        Self {
            managed: ManagedWord::Stopped,
            unmanaged: "stopped",
            details: None,
            cause: None,
            reason: Cause::Requested.name(),
        }
    }

    /// Stopped by somebody else, for this reason.
    pub(super) fn because(details: String) -> Self {
        Self { details: Some(details), ..Self::stopped() }
    }

    pub(super) fn failed(details: &str, reason: &'static str) -> Self {
        let details = Some(details.to_owned());
        Self { managed: ManagedWord::Error, unmanaged: "error", details, cause: None, reason }
    }

    /// The name under which the end is counted: one of a few, whatever the glasses say.
    pub(super) fn counted(&self) -> &'static str {
        match &self.cause {
            Some(cause) => Cause::ALL.iter().map(|known| known.name()).find(|name| name == cause).unwrap_or(OTHER),
            None => self.reason,
        }
    }

    pub(super) fn timed_out(unmanaged: bool) -> Self {
        let what = if unmanaged { "the glasses no longer answer" } else { "Stream timed out waiting for keep-alive" };
        Self { unmanaged: "timeout", cause: Some("keep_alive_timeout".into()), ..Self::failed(what, OTHER) }
    }

    /// As the glasses report it.
    pub(super) fn told(status: &GlassesStatus) -> Self {
        let GlassesStatus { details, cause, .. } = status.clone();
        let details = details.or_else(|| cause.clone());
        match status.state {
            GlassesState::TimedOut => Self { unmanaged: "timeout", details, cause, ..Self::failed("", OTHER) },
            GlassesState::Failed => {
                let details = details.as_deref().unwrap_or("the glasses ended the stream");
                Self { cause, ..Self::failed(details, OTHER) }
            }
            _ => Self { details, cause, ..Self::stopped() },
        }
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
            stale: false,
            media: Media::Absent,
            was_active: false,
            heard: now,
            silent: false,
            interrupted: Some(now),
            why: None,
            size: None,
            outputs: Vec::new(),
            keep_alive: KeepAlives::new(now),
            restarts: 0,
            asked: None,
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

    pub(super) fn stream_kind(&self) -> StreamKind {
        if self.is_unmanaged() { StreamKind::Unmanaged } else { StreamKind::Managed }
    }

    pub(super) fn is_managed_of(&self, app: &str) -> bool {
        !self.is_unmanaged() && self.takes_part(app)
    }

    /// The app that asked for it first of those still taking part.
    pub(super) fn owner(&self) -> &str {
        self.participants.first().map_or("", |participant| participant.app.as_str())
    }

    pub(super) fn playback(&self) -> Option<&str> {
        match &self.kind {
            Kind::Managed { playback, .. } => Some(playback),
            Kind::Unmanaged { .. } => None,
        }
    }

    /// The app name that the glasses are given.
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

    pub(super) fn glasses_state(&self) -> Option<GlassesState> {
        self.glasses.as_ref().map(|status| status.state)
    }

    /// Whether a publisher is at ingest.
    pub(super) fn is_published(&self) -> bool {
        self.media != Media::Absent
    }

    /// Whether media plays at this moment.
    pub(super) fn is_active(&self) -> bool {
        self.media == Media::Playable && !self.silent && self.glasses_state() != Some(GlassesState::Reconnecting)
    }

    /// Notes that media arrived, or is about to.
    pub(super) fn heard(&mut self, now: Time) {
        self.heard = now;
        self.silent = false;
        if self.media == Media::Playable {
            self.interrupted = None;
        }
        self.keep_alive.answered();
    }

    /// Marks a stream as silent whose publisher has sent nothing for too long.
    pub(super) fn listen(&mut self, now: Time, timing: &Timing) {
        if self.is_published() && !self.silent && self.heard + timing.silence <= now {
            self.silent = true;
            self.interrupted.get_or_insert(now);
            self.why = Some("no media arrives".into());
        }
    }

    /// When something is due next.
    pub(super) fn deadline(&self, timing: &Timing, down: Option<Time>) -> Option<Time> {
        if let Some(ending) = &self.ending {
            return Some(ending.until);
        }
        let limit = self.limit(timing, down);
        let silence = (self.is_published() && !self.silent).then(|| self.heard + timing.silence);
        let keep_alive = down.is_none().then(|| self.keep_alive.deadline(timing));
        limit.into_iter().chain(keep_alive).chain(silence).min()
    }

    /// When the stream is given up unless it recovers.
    fn limit(&self, timing: &Timing, down: Option<Time>) -> Option<Time> {
        match (&self.kind, self.glasses_state()) {
            (Kind::Managed { .. }, _) if self.is_active() => None,
            (Kind::Managed { .. }, _) if !self.was_active => Some(self.started + timing.start),
            (Kind::Managed { .. }, _) => self.interrupted.map(|since| since + timing.recovery),
            (Kind::Unmanaged { .. }, _) if down.is_some() => down.map(|since| since + timing.recovery),
            (Kind::Unmanaged { .. }, None) => Some(self.started + timing.start),
            // The glasses know their own limits, and report when they give up.
            (Kind::Unmanaged { .. }, Some(_)) => None,
        }
    }

    /// The end of the stream, if its time limit has passed.
    pub(super) fn overdue(&self, now: Time, timing: &Timing, down: Option<Time>) -> Option<Final> {
        if self.limit(timing, down).is_none_or(|limit| limit > now) {
            return None;
        }
        let last = self.glasses.as_ref().and_then(|status| status.details.clone().or_else(|| status.cause.clone()));
        let said = last.map_or_else(String::new, |last| format!("; they said last: {last}"));
        Some(if down.is_some() {
            Final { cause: Some("link_lost".into()), ..Final::failed("glasses link lost", OTHER) }
        } else if self.was_active {
            Final::failed(&format!("no media from the glasses for {} s{said}", timing.recovery.as_secs()), NO_MEDIA)
        } else {
            Final::failed(&format!("the glasses did not stream within {} s{said}", timing.start.as_secs()), NOT_STARTED)
        })
    }
}

/// Keep-alives of one stream.
#[derive(Debug)]
pub(super) struct KeepAlives {
    /// When the last one was sent.
    last: Time,
    /// Whether it has no answer yet.
    open: bool,
    misses: u32,
}

impl KeepAlives {
    /// The start itself counts as the first, and has its own answers.
    pub(super) fn new(now: Time) -> Self {
        Self { last: now, open: false, misses: 0 }
    }

    pub(super) fn is_due(&self, now: Time, timing: &Timing) -> bool {
        self.last + timing.keep_alive <= now
    }

    pub(super) fn sent(&mut self, now: Time) {
        self.last = now;
        self.open = true;
    }

    pub(super) fn answered(&mut self) {
        self.open = false;
        self.misses = 0;
    }

    /// The link is down: nothing is sent or counted.
    pub(super) fn pause(&mut self) {
        self.open = false;
    }

    /// How many in a row have had no answer by `now`.
    pub(super) fn missed(&mut self, now: Time, timing: &Timing) -> u32 {
        if self.open && self.last + timing.acknowledge <= now {
            self.open = false;
            self.misses += 1;
        }
        self.misses
    }

    fn deadline(&self, timing: &Timing) -> Time {
        let next = self.last + timing.keep_alive;
        if self.open { next.min(self.last + timing.acknowledge) } else { next }
    }
}
