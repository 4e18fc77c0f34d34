use crate::protocol::app::{
    AppRequest, CheckedStream, Destination, ManagedStatus, Output, PhotoRequest, Refused, UnmanagedStatus,
};
use crate::protocol::glasses::{GlassesCommand, GlassesMessage};
use crate::protocol::{Dialect, Secret, StreamKind};

/// Random values and the time, used if a request needs them.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// Random part of the stream's id.
    pub id: String,
    /// The key for ingest.
    pub key: Secret,
    /// The unguessable id for playback.
    pub playback: String,
    /// The current time in ISO 8601.
    pub created_at: String,
}

/// An event.
#[derive(Clone, Debug)]
pub enum Event {
    /// An app has connected.
    AppUp {
        /// The app's package name.
        app: String,
        /// Whether it has the permission CAMERA.
        may_stream: bool,
    },
    /// An app's connection has ended.
    AppDown {
        /// The app's package name.
        app: String,
        /// Whether the app closed it or was stopped.
        deliberate: bool,
    },
    /// An app has a request.
    Request {
        /// The app's package name.
        app: String,
        request: AppRequest,
        /// Values that a new stream would need.
        fresh: Fresh,
        /// How many people watch the user's stream now.
        watching: u64,
    },
    /// An app's request cannot be obeyed.
    Refused {
        /// The app's package name.
        app: String,
        /// The reason.
        refused: Refused,
    },
    /// The glasses' link is up.
    DeviceUp {
        /// The name of the glasses. A user may have several, but for this machine only one is linked at a time.
        device: String,
    },
    /// The glasses' link is down.
    DeviceDown,
    /// A message of the glasses, or of their phone.
    Device {
        message: GlassesMessage,
        /// The generation of message names that it uses, if that shows.
        dialect: Option<Dialect>,
    },
    /// A person ends a stream for everybody.
    Stop {
        /// The stream's id.
        stream_id: String,
        /// The reason, for people.
        why: String,
    },
    /// A publisher of the stream has arrived at ingest.
    Publishing {
        /// The stream's id.
        stream_id: String,
    },
    /// The stream has no publisher any more.
    PublisherLost {
        /// The stream's id.
        stream_id: String,
        /// The reason, for people.
        why: String,
    },
    /// Media of the stream has arrived since the last event.
    Media {
        /// The stream's id.
        stream_id: String,
    },
    /// A segment of the current publication can be played.
    Playable {
        /// The stream's id.
        stream_id: String,
        /// Width of the picture, in pixels.
        width: u32,
        /// Height of the picture, in pixels.
        height: u32,
    },
    /// The status of a stream's restream destinations has changed.
    Outputs {
        /// The stream's id.
        stream_id: String,
        /// Each destination, with its key.
        outputs: Vec<Output>,
    },
    /// The machine's deadline has passed.
    Tick,
}

/// An action for the cloud to carry out.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Tell an app about managed streaming.
    Managed {
        /// The app's package name.
        app: String,
        status: ManagedStatus,
    },
    /// Tell an app about its own stream.
    Unmanaged {
        /// The app's package name.
        app: String,
        status: UnmanagedStatus,
    },
    /// Answer an app's check.
    Checked {
        /// The app's package name.
        app: String,
        /// The stream there is, if any.
        stream: Option<CheckedStream>,
    },
    /// Send a command to the glasses.
    Device {
        command: GlassesCommand,
        /// The generation of message names to use.
        dialect: Dialect,
    },
    /// Take a photo for an app, from a running stream or with the glasses.
    Photo {
        /// The app's package name.
        app: String,
        request: PhotoRequest,
        /// The stream to take it from; without one, the glasses take it.
        from: Option<String>,
    },
    /// Refuse an app a photo.
    PhotoRefused {
        /// The app's package name.
        app: String,
        request: PhotoRequest,
        /// The reason, for programs.
        code: &'static str,
        /// The reason, for people.
        message: String,
    },
    /// Accept media for a stream and make it playable.
    Open {
        stream_id: String,
        /// The key that its publisher must present.
        key: Secret,
        /// Its id in viewers' URLs.
        playback: String,
        /// Whether viewers may use WebRTC.
        webrtc: bool,
        /// The other servers it is sent to.
        destinations: Vec<Destination>,
    },
    /// End what `Open` began.
    Close {
        /// The stream's id.
        stream_id: String,
    },
    /// For the metrics: a stream has begun.
    Began {
        /// The stream's id.
        stream_id: String,
        kind: StreamKind,
    },
    /// For the metrics: a stream is over. Sent once, however many apps are told.
    Ended {
        /// The stream's id.
        stream_id: String,
        kind: StreamKind,
        /// The name of a [`crate::protocol::Cause`], or one of [`super::END_REASONS`].
        cause: &'static str,
    },
    /// Start an app by its webhook: its stream runs, but the app is gone.
    StartApp {
        /// The app's package name.
        app: String,
    },
    /// Store [`super::Orchestration::durable`] for the next process.
    Save,
}
