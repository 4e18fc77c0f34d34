//! What people ask with `lenscastctl`, and what they and viewers' pages are shown.

use tokio::sync::oneshot;

use super::{Core, PERSON, User, fresh};
use crate::cloud::control::{self, ControlEvent, Refusal, StreamInfo, Streams};
use crate::cloud::view;
use crate::cloud::watch_page::{LiveState, WatchState};
use crate::policy::orchestration::{Event, Overview};
use crate::protocol::Cause;
use crate::protocol::app::{AppRequest, ManagedRequest};

/// How many ended streams have a page that says so.
const ENDED_PAGES: usize = 1000;

impl Core {
    pub(in crate::cloud) fn control(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Streams { reply } => {
                let _ = reply.send(self.streams()); // who asked may be gone
            }
            ControlEvent::Start { start, reply } => self.start(&start, reply),
            ControlEvent::Stop { stream_id, reply } => {
                let is_it = |user: &User| user.machine.stream_id() == Some(stream_id.as_str());
                let name = self.users.iter().find(|(_, user)| is_it(user)).map(|(name, _)| name.clone());
                let answer = match name {
                    Some(name) => {
                        self.event(&name, Event::Stop { stream_id, why: "stopped by lenscastctl".into() });
                        Ok(())
                    }
                    None => Err(view::refusal(Cause::UnknownStream, "no such stream")),
                };
                let _ = reply.send(answer); // who asked may be gone
            }
            ControlEvent::Watch { events } => {
                if events.try_send(control::Event::State(self.streams())).is_ok() {
                    self.watchers.push(events);
                }
            }
        }
    }

    fn start(&mut self, start: &control::Start, reply: oneshot::Sender<Result<StreamInfo, Refusal>>) {
        let user = start.user.clone();
        let request = match view::request(start) {
            Ok(request) => AppRequest::StartManaged(ManagedRequest { webrtc: true, ..request }),
            Err(refusal) => {
                let _ = reply.send(Err(refusal)); // who asked may be gone
                return;
            }
        };
        self.event(&user, Event::AppUp { app: PERSON.into(), may_stream: true });
        let event = Event::Request { app: PERSON.into(), request, fresh: fresh(), watching: 0 };
        let refused = self.event(&user, event);
        let watching = self.watching(&user);
        let overview = self.user(&user).machine.overview(watching);
        let answer = match (refused, overview) {
            (Some(why), _) => Err(view::refusal(Cause::InvalidRequest, why)),
            (None, Some(overview)) => Ok(view::stream(&user, overview, watching)),
            (None, None) => {
                // Otherwise the request would wait until that stream has ended. A person who is told of the failure can
                // ask again.
                let request = AppRequest::StopManaged;
                self.event(&user, Event::Request { app: PERSON.into(), request, fresh: fresh(), watching: 0 });
                Err(view::refusal(Cause::StreamExists, "another stream is ending; try again"))
            }
        };
        let _ = reply.send(answer); // who asked may be gone
    }

    pub(super) fn watching(&self, user: &str) -> u64 {
        let stream_id = self.users.get(user).and_then(|user| user.machine.stream_id());
        stream_id.and_then(|id| self.live.get(id)).map_or(0, |live| live.viewers(&self.services))
    }

    pub(super) fn overview(&self, name: &str) -> Option<(Overview, u64)> {
        let watching = self.watching(name);
        Some((self.users.get(name)?.machine.overview(watching)?, watching))
    }

    fn streams(&self) -> Streams {
        let of = |name: &String| self.overview(name).map(|(overview, watching)| view::stream(name, overview, watching));
        Streams { streams: self.users.keys().filter_map(of).collect() }
    }

    /// Tells watchers and viewers' pages what has changed in a user's stream.
    pub(super) fn show(&mut self, name: &str) {
        let overview = self.overview(name);
        let page = overview.as_ref().and_then(|(overview, _)| Some((overview.playback.clone()?, view::page(overview))));
        if let Some((playback, page)) = page {
            self.pages.send_if_modified(|pages| pages.insert(playback, page.clone()).as_ref() != Some(&page));
        }
        let info = overview.map(|(overview, watching)| view::stream(name, overview, watching));
        let user = self.user(name);
        if info.is_some() && info != user.shown {
            user.shown.clone_from(&info);
            if let Some(stream) = info {
                self.tell_watchers(&control::Event::Stream { stream });
            }
        }
    }

    /// Late viewers see that the stream is over, until too many newer streams have ended.
    pub(super) fn end_page(&mut self, playback: String) {
        let ended = WatchState { state: LiveState::Ended, hls: None, dash: None, whep: None };
        self.ended_pages.push_back(playback.clone());
        let forgotten = (self.ended_pages.len() > ENDED_PAGES).then(|| self.ended_pages.pop_front()).flatten();
        self.pages.send_modify(|pages| {
            pages.insert(playback, ended);
            if let Some(oldest) = forgotten {
                pages.remove(&oldest);
            }
        });
    }

    /// Tells watchers of a stream's end, once, however many apps are told.
    pub(super) fn ended(&mut self, name: &str, stream_id: Option<&str>, word: &str, message: Option<&str>) {
        let user = self.user(name);
        let runs = user.machine.stream_id() == stream_id;
        if runs || user.shown.as_ref().map(|shown| shown.stream_id.as_str()) != stream_id {
            return;
        }
        if let Some(shown) = user.shown.take() {
            let (status, message) = (word.to_owned(), message.map(str::to_owned));
            self.tell_watchers(&control::Event::Ended { stream_id: shown.stream_id, status, message });
        }
    }

    pub(super) fn note(&mut self, text: String) {
        self.tell_watchers(&control::Event::Note { text });
    }

    /// A watcher that does not read is dropped: its connection ends, and it can ask again.
    fn tell_watchers(&mut self, event: &control::Event) {
        self.watchers.retain(|watcher| watcher.try_send(event.clone()).is_ok());
    }
}
