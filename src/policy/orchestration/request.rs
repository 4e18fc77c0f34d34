//! Apps' requests, and the reasons to refuse them.

use std::mem;

use super::stream::{Final, Kind, Participant, Stream};
use super::{Action, Fresh, Orchestration, Time};
use crate::protocol::Dialect;
use crate::protocol::StreamUrl;
use crate::protocol::app::{AppRequest, ManagedStatus, ManagedWord, PhotoRequest, UnmanagedStatus};

impl Orchestration {
    pub(super) fn request(&mut self, app: String, request: AppRequest, fresh: Fresh, watching: u64, now: Time) {
        match request {
            AppRequest::StartManaged(_) => self.start_managed(app, request, fresh, now),
            AppRequest::StartUnmanaged(ref unmanaged) => {
                if let Some(known) = self.apps.get_mut(&app) {
                    known.dialect = Some(unmanaged.dialect);
                }
                self.start_unmanaged(app, request, fresh, now);
            }
            AppRequest::StopManaged => self.stop_managed(&app, now),
            AppRequest::StopUnmanaged { dialect, stream_id } => self.stop_unmanaged(&app, dialect, stream_id, now),
            AppRequest::Check => {
                let down = self.device.down.is_some();
                let stream = self.alive().map(|stream| stream.checked(Some(&app), watching, &self.settings, down));
                self.actions.push(Action::Checked { app, stream });
            }
            AppRequest::Photo(request) => self.photo(app, request),
            AppRequest::Subscribe { managed, unmanaged } => self.subscribe(&app, managed, unmanaged),
            AppRequest::Other { .. } => {}
        }
    }

    pub(super) fn start_managed(&mut self, app: String, request: AppRequest, fresh: Fresh, now: Time) {
        if !self.apps.get(&app).is_some_and(|app| app.may_stream) {
            return self.refuse_managed(&app, "Camera permission required for managed streams".into());
        }
        if let Some(stream) = self.alive_mut() {
            if !matches!(stream.kind, Kind::Managed { .. }) {
                let why = format!("Cannot start managed stream - unmanaged stream already active ({})", stream.owner());
                return self.refuse_managed(&app, why);
            }
            match stream.participant(&app) {
                Some(participant) => participant.told = None,
                None => stream.participants.push(Participant::joining(app)),
            }
            return self.actions.push(Action::Save);
        }
        if let Err(why) = self.reachable() {
            return self.refuse_managed(&app, why);
        }
        if !self.streams.is_empty() {
            return self.wait(app, request, fresh);
        }
        let AppRequest::StartManaged(request) = request else { return };
        let destinations = request.destinations.clone();
        let url = format!("{}/{}", self.settings.ingest_url.trim_end_matches('/'), fresh.key.expose());
        let Ok(url) = StreamUrl::parse(&url) else {
            return self.refuse_managed(&app, "the cloud's ingest URL is not usable; see its configuration".into());
        };
        self.actions.push(Action::Open {
            stream_id: format!("m{}", fresh.id),
            key: fresh.key.clone(),
            playback: fresh.playback.clone(),
            webrtc: request.webrtc,
            destinations,
        });
        let kind = Kind::Managed { request, key: fresh.key, playback: fresh.playback };
        self.begin(Stream::new(format!("m{}", fresh.id), kind, url, app, fresh.created_at, now));
    }

    pub(super) fn start_unmanaged(&mut self, app: String, request: AppRequest, fresh: Fresh, now: Time) {
        let AppRequest::StartUnmanaged(unmanaged) = &request else { return };
        let dialect = unmanaged.dialect;
        if !self.apps.get(&app).is_some_and(|app| app.may_stream) {
            return self.refuse_unmanaged(
                &app,
                dialect,
                None,
                "Camera permission required to start video streams".into(),
            );
        }
        if let Err(why) = self.reachable() {
            return self.refuse_unmanaged(&app, dialect, None, why);
        }
        if let Some(stream) = self.alive() {
            let id = stream.id.clone();
            let managed = matches!(stream.kind, Kind::Managed { .. });
            let owner = stream.owner().to_owned();
            let end = if managed && self.settings.preempt {
                Final {
                    cause: Some("preempted".into()),
                    ..Final::because(format!("{app} started an unmanaged stream"))
                }
            } else if !managed && owner == app {
                Final {
                    cause: Some("replaced".into()),
                    ..Final::because("replaced by a new stream of the same app".into())
                }
            } else {
                let kind = if managed { "a managed stream" } else { "an unmanaged stream" };
                let why = format!("camera_busy: {kind} of {owner} is running");
                return self.refuse_unmanaged(&app, dialect, None, why);
            };
            self.begin_end(&id, end, now);
        }
        if !self.streams.is_empty() {
            return self.wait(app, request, fresh);
        }
        let AppRequest::StartUnmanaged(unmanaged) = request else { return };
        let url = unmanaged.url.clone();
        let kind = Kind::Unmanaged { request: unmanaged };
        self.begin(Stream::new(format!("s{}", fresh.id), kind, url, app, fresh.created_at, now));
    }

    /// Whether glasses can be asked to stream.
    pub(super) fn reachable(&self) -> Result<(), String> {
        if self.device.down.is_some() || !self.device.present {
            return Err("Cannot process stream request - smart glasses are not connected".into());
        }
        if self.device.wifi == Some(false) {
            return Err("Cannot process request - smart glasses must be connected to WiFi for this operation".into());
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, mut stream: Stream) {
        self.actions.push(Action::Began { stream_id: stream.id.clone(), kind: stream.stream_kind() });
        self.command(stream.start());
        stream.asked = self.device.down.is_none().then_some(stream.started);
        self.streams.push(stream);
        self.actions.push(Action::Save);
    }

    /// Keeps a request until the ending streams have ended. An app's newer request replaces its older one.
    pub(super) fn wait(&mut self, app: String, request: AppRequest, fresh: Fresh) {
        if let Some(waiting) = self
            .waiting
            .iter_mut()
            .find(|(other, old, _)| *other == app && mem::discriminant(old) == mem::discriminant(&request))
        {
            let old = mem::replace(&mut waiting.1, request);
            self.refuse(&app, &old, "replaced by a newer request of the same app".into());
        } else {
            self.waiting.push((app, request, fresh));
        }
        self.actions.push(Action::Save);
    }

    pub(super) fn ask_again(&mut self, now: Time) {
        if self.streams.is_empty() && !self.waiting.is_empty() {
            for (app, request, fresh) in mem::take(&mut self.waiting) {
                self.request(app, request, fresh, 0, now);
            }
            self.actions.push(Action::Save);
        }
    }

    pub(super) fn stop_managed(&mut self, app: &str, now: Time) {
        let pending = |(other, request, _): &(String, AppRequest, Fresh)| {
            other == app && matches!(request, AppRequest::StartManaged(_))
        };
        if self.waiting.iter().any(pending) {
            self.waiting.retain(|request| !pending(request));
            self.actions.push(Action::Save);
        } else if let Some(stream) = self.streams.iter_mut().find(|stream| stream.is_managed_of(app)) {
            if stream.ending.is_some() {
                return;
            }
            let id = stream.id.clone();
            if stream.participants.len() == 1 {
                return self.begin_end(&id, Final::stopped(), now);
            }
            stream.participants.retain(|participant| participant.app != app);
            let status = ManagedStatus::plain(ManagedWord::Stopped, Some(id), None);
            self.actions.push(Action::Managed { app: app.to_owned(), status });
            return self.actions.push(Action::Save);
        }
        // The package sends a stop even if it knows of no stream, and waits for this status.
        let status = ManagedStatus::plain(ManagedWord::Stopped, None, None);
        self.actions.push(Action::Managed { app: app.to_owned(), status });
    }

    pub(super) fn stop_unmanaged(&mut self, app: &str, dialect: Dialect, stream_id: Option<String>, now: Time) {
        self.waiting.retain(|(other, request, _)| other != app || !matches!(request, AppRequest::StartUnmanaged(_)));
        self.actions.push(Action::Save);
        let asked = |stream: &&Stream| stream_id.as_ref().is_none_or(|id| *id == stream.id);
        match self.streams.iter().find(|stream| stream.is_unmanaged() && asked(stream)) {
            Some(stream) if stream.owner() == app => {
                if stream.ending.is_none() {
                    let id = stream.id.clone();
                    self.begin_end(&id, Final::stopped(), now);
                }
            }
            Some(stream) if stream_id.is_some() => {
                let why = format!("App {app} cannot stop stream {} owned by {}", stream.id, stream.owner());
                self.refuse_unmanaged(app, dialect, stream_id, why);
            }
            _ => {
                let status = UnmanagedStatus::plain(dialect, "stopped", stream_id, app);
                self.actions.push(Action::Unmanaged { app: app.to_owned(), status });
            }
        }
    }

    pub(super) fn photo(&mut self, app: String, request: PhotoRequest) {
        let refuse = |code, message: &str| (code, message.to_owned());
        let refused = if self.apps.get(&app).is_some_and(|app| app.may_stream) {
            match self.alive() {
                Some(stream) if stream.is_unmanaged() && stream.owner() != app => {
                    Some(("CAMERA_BUSY", format!("an unmanaged stream of {} is running", stream.owner())))
                }
                Some(stream) if !stream.is_unmanaged() && stream.is_published() => None,
                _ => self.reachable().err().map(|why| refuse("PHONE_GLASSES_NOT_CONNECTED", &why)),
            }
        } else {
            Some(refuse("PERMISSION_DENIED", "Camera permission required to take photos"))
        };
        self.actions.push(if let Some((code, message)) = refused {
            Action::PhotoRefused { app, request, code, message }
        } else {
            let running = |stream: &&Stream| !stream.is_unmanaged() && stream.is_published();
            let from = self.alive().filter(running).map(|stream| stream.id.clone());
            Action::Photo { app, request, from }
        });
    }

    pub(super) fn refuse(&mut self, app: &str, request: &AppRequest, why: String) {
        match request {
            AppRequest::StartUnmanaged(unmanaged) => self.refuse_unmanaged(app, unmanaged.dialect, None, why),
            _ => self.refuse_managed(app, why),
        }
    }

    pub(super) fn refuse_managed(&mut self, app: &str, why: String) {
        let status = ManagedStatus::plain(ManagedWord::Error, None, Some(why));
        self.last_words(app, Action::Managed { app: app.to_owned(), status });
    }

    pub(super) fn refuse_unmanaged(&mut self, app: &str, dialect: Dialect, stream_id: Option<String>, why: String) {
        let status = UnmanagedStatus { details: Some(why), ..UnmanagedStatus::plain(dialect, "error", stream_id, app) };
        self.last_words(app, Action::Unmanaged { app: app.to_owned(), status });
    }
}
