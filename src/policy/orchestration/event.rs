use crate::protocol::app::{
    AppRequest, CheckedStream, Destination, ManagedStatus, Output, PhotoRequest, Refused, UnmanagedStatus,
};
use crate::protocol::glasses::{GlassesCommand, GlassesMessage};
use crate::protocol::{Dialect, Secret, StreamKind};

/// What only chance and the calendar can give; used if the request needs it.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// Random part of the stream's id.
    pub id: String,
    /// Key for ingest.
    pub key: Secret,
    /// Unguessable id of playback.
    pub playback: String,
    /// ISO 8601.
    pub created_at: String,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An app's socket is there; `may_stream` if it has the permission CAMERA.
    AppUp {
        /// Its package.
        app: String,
        /// It has the permission CAMERA.
        may_stream: bool,
    },
    /// It is gone; `deliberate` if the app closed it.
    AppDown {
        /// Its package.
        app: String,
        /// The app closed it, or was stopped.
        deliberate: bool,
    },
    /// An app asks; `watching` is how many people watch the user's stream now.
    Request {
        /// Which.
        app: String,
        /// For what.
        request: AppRequest,
        /// What a new stream would need.
        fresh: Fresh,
        /// How many people watch the user's stream now.
        watching: u64,
    },
    /// An app asked in a way that cannot be obeyed.
    Refused {
        /// Which.
        app: String,
        /// Why.
        refused: Refused,
    },
    /// The glasses' link is there.
    DeviceUp {
        /// Which glasses: a user may have several, of which one is linked at a time as far as this machine is concerned.
        device: String,
    },
    /// It is gone.
    DeviceDown,
    /// The glasses, or their phone, say something.
    Device {
        /// What.
        message: GlassesMessage,
        /// In which words, if that shows.
        dialect: Option<Dialect>,
    },
    /// A person ends a stream for all who take part.
    Stop {
        /// Which.
        stream_id: String,
        /// For a person.
        why: String,
    },
    /// A publisher of the stream is at ingest.
    Publishing {
        /// Which.
        stream_id: String,
    },
    /// There is none any more.
    PublisherLost {
        /// Which.
        stream_id: String,
        /// For a person.
        why: String,
    },
    /// Media of it arrived lately.
    Media {
        /// Which.
        stream_id: String,
    },
    /// A segment of the present publication can be played; with the picture's size in pixels.
    Playable {
        /// Which.
        stream_id: String,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Its restream destinations fare so.
    Outputs {
        /// Which.
        stream_id: String,
        /// Each destination, with its key.
        outputs: Vec<Output>,
    },
    /// Time went by.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Tell an app about managed streaming.
    Managed {
        /// Which.
        app: String,
        /// What.
        status: ManagedStatus,
    },
    /// Tell an app about its own stream.
    Unmanaged {
        /// Which.
        app: String,
        /// What.
        status: UnmanagedStatus,
    },
    /// Answer an app's check.
    Checked {
        /// Which.
        app: String,
        /// What there is.
        stream: Option<CheckedStream>,
    },
    /// Tell the glasses.
    Device {
        /// What.
        command: GlassesCommand,
        /// In which words.
        dialect: Dialect,
    },
    /// Take a photo for an app: from the running picture of this stream, or by the glasses.
    Photo {
        /// For whom.
        app: String,
        /// Which.
        request: PhotoRequest,
        /// The stream whose running picture it is; without, the glasses take it.
        from: Option<String>,
    },
    /// Refuse a photo.
    PhotoRefused {
        /// Whom.
        app: String,
        /// Which.
        request: PhotoRequest,
        /// For programs.
        code: &'static str,
        /// For a person.
        message: String,
    },
    /// Take media for a stream and make it playable.
    Open {
        /// Which.
        stream_id: String,
        /// What its publisher must present.
        key: Secret,
        /// Its id in viewers' URLs.
        playback: String,
        /// Whether viewers may use WebRTC.
        webrtc: bool,
        /// Where else it goes.
        destinations: Vec<Destination>,
    },
    /// Do so no longer.
    Close {
        /// Which.
        stream_id: String,
    },
    /// Take note: a stream was begun.
    Began {
        /// Which.
        stream_id: String,
        /// Of which kind.
        kind: StreamKind,
    },
    /// Take note: it is over, however many apps hear of it.
    Ended {
        /// Which.
        stream_id: String,
        /// Of which kind.
        kind: StreamKind,
        /// The name of a [`crate::protocol::Cause`], or one of [`super::END_REASONS`].
        cause: &'static str,
    },
    /// Start an app by its webhook: its stream runs and it is gone.
    StartApp {
        /// Which.
        app: String,
    },
    /// Keep [`super::Orchestration::durable`] for the next start.
    Save,
}
