//! Derives the statuses for a stream's participants, and for those who ask about it, from the stream's facts.

use super::stream::{Final, Kind, Participant, Stream};
use super::told::Status;
use super::{Action, Settings};
use crate::protocol::app::{
    CheckedStream, ManagedRequest, ManagedStatus, ManagedWord, Output, ShownUrl, UnmanagedStatus, ViewerUrls,
};
use crate::protocol::glasses::GlassesState;

/// A stream as shown to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The stream as an app that did not start it is told.
    pub stream: CheckedStream,
    /// Its id in viewers' URLs, if it is managed.
    pub playback: Option<String>,
    /// The reason for its status.
    pub message: Option<String>,
    /// The apps that take part.
    pub apps: Vec<String>,
    /// Restream destinations, without their keys.
    pub outputs: Vec<Output>,
}

impl Stream {
    /// The statuses that differ from what their apps were told last.
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
                let cause = cause.filter(|_| word == "reconnecting" && !down && !self.stale);
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
        if down || self.stale {
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

    /// Why the stream does not play yet, or no longer.
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

    /// A remark for the app about a stream that plays.
    fn remark(&self, participant: &Participant, request: &ManagedRequest) -> Option<String> {
        if participant.joined {
            return Some("Joined the running stream; its options stay as they are".into());
        }
        let asked = request.quality?;
        let (width, height) = self.size?;
        (width.min(height) < asked).then(|| format!("{asked}p was asked for; the camera gives {width}x{height}"))
    }

    /// The final status for an app that took part.
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

    /// The stream as shown to a person.
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

    /// The answer to `checkExistingStream()` of this app, or to a person if `app` is `None`.
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
                rtmp_url: Some(ShownUrl { url: request.url.clone(), own: app == Some(self.owner()) }),
                requesting_app_id: Some(self.owner().to_owned()),
            },
        }
    }
}

/// An app sees the keys only of destinations that it gave.
fn for_app(output: &Output, app: &str, stream: &Stream) -> Output {
    let own = stream.participants.iter().any(|participant| participant.app == app && !participant.joined);
    let url = ShownUrl { own, ..output.url.clone() };
    Output { url, ..output.clone() }
}
