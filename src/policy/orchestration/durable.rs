//! The part of a user's streams that survives the cloud's process: enough to take over streams that go on without it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::owed::Owed;
use super::stream::{Kind, Participant, Stream};
use super::{Action, Away, Orchestration, Settings, Time, ToStop};
use crate::protocol::app::{Destination, ManagedRequest, UnmanagedRequest};
use crate::protocol::{Dialect, Secret, StreamUrl};

/// The stored document, keys included. Only the cloud reads the store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Durable {
    streams: Vec<DurableStream>,
    /// Streams that glasses may still run but must not: id and app. `stop_on` has the glasses, if known.
    to_stop: Vec<(String, String)>,
    #[serde(default)]
    stop_on: BTreeMap<String, String>,
    /// The glasses that have the streams.
    #[serde(default)]
    device: Option<String>,
    /// The apps that have a session, and whether each may use the camera.
    apps: Vec<(String, bool)>,
    /// Final statuses that apps have not been told.
    #[serde(default)]
    owed: Vec<Owed>,
}

#[derive(Clone, Serialize, Deserialize)]
struct DurableStream {
    id: String,
    created_at: String,
    /// The apps that take part, and whether each joined later.
    apps: Vec<(String, bool)>,
    url: String,
    video: Value,
    audio: Value,
    stream: Value,
    was_active: bool,
    managed: Option<DurableManaged>,
    unmanaged: Option<DurableUnmanaged>,
}

/// Keeps keys out of a log that uses `{:?}`.
impl std::fmt::Debug for DurableStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DurableStream").field("id", &self.id).field("apps", &self.apps).finish_non_exhaustive()
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct DurableManaged {
    key: String,
    playback: String,
    quality: Option<u32>,
    webrtc: bool,
    destinations: Vec<(String, Option<String>)>,
}

#[derive(Clone, Serialize, Deserialize)]
struct DurableUnmanaged {
    /// Whether the app uses the `rtmp_*` names.
    rtmp: bool,
    sound: bool,
}

impl Orchestration {
    /// What to store for the next process.
    pub fn durable(&self) -> Durable {
        let alive = self.streams.iter().filter(|stream| stream.ending.is_none());
        Durable {
            streams: alive.map(DurableStream::of).collect(),
            to_stop: self.to_stop.iter().map(|(id, stop)| (id.clone(), stop.app.clone())).collect(),
            stop_on: self.to_stop.iter().filter_map(|(id, stop)| Some((id.clone(), stop.device.clone()?))).collect(),
            device: self.device.name.clone(),
            apps: self.apps.iter().map(|(name, app)| (name.clone(), app.may_stream)).collect(),
            owed: self.owed(),
        }
    }

    /// Takes over what an earlier process stored. Everybody is away at first, and has the usual time to come back.
    pub fn restore(settings: Settings, durable: Durable, now: Time) -> (Self, Vec<Action>) {
        let mut this = Self::new(settings);
        this.device.down = Some(now);
        for (name, may_stream) in durable.apps {
            let app = this.apps.entry(name).or_default();
            app.may_stream = may_stream;
            app.away = Some(Away { until: now + this.settings.timing.app, started: false });
        }
        for (name, status) in durable.owed.into_iter().map(Owed::addressed) {
            this.last_words(&name, status);
        }
        let mut stop_on = durable.stop_on;
        let stops = durable.to_stop.into_iter().map(|(id, app)| {
            let device = stop_on.remove(&id);
            (id, ToStop { app, device })
        });
        this.to_stop = stops.collect();
        this.device.name = durable.device;
        this.restored = true;
        this.streams = durable.streams.into_iter().filter_map(|stream| stream.revive(now)).collect();
        let open = this.streams.iter().filter_map(|stream| match &stream.kind {
            Kind::Managed { request, key, playback } => Some(Action::Open {
                stream_id: stream.id.clone(),
                key: key.clone(),
                playback: playback.clone(),
                webrtc: request.webrtc,
                destinations: request.destinations.clone(),
            }),
            Kind::Unmanaged { .. } => None,
        });
        let actions = open.collect();
        (this, actions)
    }
}

impl DurableStream {
    fn of(stream: &Stream) -> Self {
        let (video, audio, settings) = match &stream.kind {
            Kind::Managed { request, .. } => (&request.video, &request.audio, &request.stream),
            Kind::Unmanaged { request } => (&request.video, &request.audio, &request.stream),
        };
        let (managed, unmanaged) = match &stream.kind {
            Kind::Managed { request, key, playback } => {
                let destinations = request.destinations.iter();
                let managed = DurableManaged {
                    key: key.expose().to_owned(),
                    playback: playback.clone(),
                    quality: request.quality,
                    webrtc: request.webrtc,
                    destinations: destinations.map(|to| (to.url.expose().to_owned(), to.name.clone())).collect(),
                };
                (Some(managed), None)
            }
            Kind::Unmanaged { request } => {
                (None, Some(DurableUnmanaged { rtmp: request.dialect == Dialect::Rtmp, sound: request.sound }))
            }
        };
        Self {
            id: stream.id.clone(),
            created_at: stream.created_at.clone(),
            apps: stream.participants.iter().map(|participant| (participant.app.clone(), participant.joined)).collect(),
            url: stream.url.expose().to_owned(),
            video: video.clone(),
            audio: audio.clone(),
            stream: settings.clone(),
            was_active: stream.was_active,
            managed,
            unmanaged,
        }
    }

    /// `None` if this version cannot read it.
    fn revive(self, now: Time) -> Option<Stream> {
        let url = StreamUrl::parse(&self.url).ok()?;
        let kind = match (self.managed, self.unmanaged) {
            (Some(managed), None) => {
                let destinations = managed.destinations.into_iter();
                let request = ManagedRequest {
                    video: self.video,
                    audio: self.audio,
                    stream: self.stream,
                    quality: managed.quality,
                    webrtc: managed.webrtc,
                    destinations: destinations
                        .filter_map(|(url, name)| Some(Destination { url: StreamUrl::parse(&url).ok()?, name }))
                        .collect(),
                };
                Kind::Managed { request, key: Secret::new(managed.key), playback: managed.playback }
            }
            (None, Some(unmanaged)) => Kind::Unmanaged {
                request: UnmanagedRequest {
                    dialect: if unmanaged.rtmp { Dialect::Rtmp } else { Dialect::Stream },
                    url: url.clone(),
                    video: self.video,
                    audio: self.audio,
                    stream: self.stream,
                    sound: unmanaged.sound,
                },
            },
            _ => return None,
        };
        let participants = self.apps.into_iter().map(|(app, joined)| Participant { app, joined, told: None }).collect();
        let stream = Stream::new(self.id, kind, url, String::new(), self.created_at, now);
        Some(Stream { participants, was_active: self.was_active, ..stream })
    }
}
