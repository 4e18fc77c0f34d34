//! The daemon's whole state, as `status` and `watch` give it and as a link receives it first after it was lost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cause, Failure};

/// Where a stream is in its life:
/// `initializing → connecting → streaming ⇄ reconnecting → stopping → stopped | error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// The camera is being opened.
    Initializing,
    /// The camera runs; the RTMP server does not have media yet.
    Connecting,
    /// Media progresses: the server's process reads it.
    Streaming,
    /// Media does not progress; the daemon is working on it. The cause says why.
    Reconnecting,
    /// On its way to the end.
    Stopping,
    /// Ended as somebody decided.
    Stopped,
    /// Ended by a fault.
    Error,
}

impl StreamState {
    /// All there are, in the order of a stream's life.
    pub const ALL: [Self; 7] = [
        Self::Initializing,
        Self::Connecting,
        Self::Streaming,
        Self::Reconnecting,
        Self::Stopping,
        Self::Stopped,
        Self::Error,
    ];

    /// No event leads out of it.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Stopped | Self::Error)
    }

    /// The wire name, as serde writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Connecting => "connecting",
            Self::Streaming => "streaming",
            Self::Reconnecting => "reconnecting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Error => "error",
        }
    }
}

/// One change in a stream's life, before it is put in words for a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamReport {
    /// Where the stream is now.
    pub state: StreamState,
    /// Why, for `reconnecting` and every end.
    pub failure: Option<Failure>,
    /// Which retry of this outage it is, from 1; with `reconnected`, how many the outage took; else 0.
    pub attempt: u32,
    /// How many retries are estimated to fit before giving up; `None` when it never gives up.
    pub max_attempts: Option<u32>,
    /// When the next attempt is made.
    pub retry_in: Option<Duration>,
    /// `streaming` after an outage, not for the first time.
    pub reconnected: bool,
}

impl StreamReport {
    /// A report outside of outages.
    pub fn new(state: StreamState, failure: Option<Failure>) -> Self {
        Self { state, failure, attempt: 0, max_attempts: None, retry_in: None, reconnected: false }
    }

    /// The failure's cause.
    pub fn cause(&self) -> Option<Cause> {
        self.failure.as_ref().map(|failure| failure.cause)
    }
}

/// Who directs a stream, and so what else may use the camera meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamKind {
    /// Straight to the endpoint an app named; the camera is its alone.
    Unmanaged,
    /// Arranged by the cloud; shareable.
    Managed,
}

/// Who has the camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// What for.
    pub kind: OwnerKind,
    /// The app's id, or the program's name.
    pub name: String,
    /// The process, where it is one and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// For how many seconds already. Nobody knows that of a process that opened the device behind the daemon's back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

/// What somebody has the camera for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerKind {
    /// An unmanaged stream.
    Unmanaged,
    /// A managed stream.
    Managed,
    /// A photo being taken.
    Photo,
    /// A process that holds a lease from this daemon.
    Process,
    /// A process that opened the device behind the daemon's back.
    Foreign,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            OwnerKind::Unmanaged => write!(f, "stream of {}", self.name)?,
            OwnerKind::Managed => write!(f, "managed stream")?,
            OwnerKind::Photo => write!(f, "photo for {}", self.name)?,
            // A service that sees no other users' processes does not know what they are called.
            OwnerKind::Process | OwnerKind::Foreign if self.name.is_empty() => write!(f, "a program")?,
            OwnerKind::Process | OwnerKind::Foreign => write!(f, "program {}", self.name)?,
        }
        if let Some(pid) = self.pid {
            write!(f, " (pid {pid})")?;
        }
        match self.for_s {
            Some(seconds) => write!(f, " for {seconds} s"),
            None => Ok(()),
        }
    }
}

/// The daemon's whole state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DaemonState {
    /// The daemon's version.
    pub version: String,
    /// [`super::control::PROTOCOL_VERSION`] of the daemon; 0 from one that does not say.
    #[serde(default)]
    pub protocol: u32,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// The stream, if one lives.
    pub stream: Option<StreamSnapshot>,
    /// How the last stream ended.
    pub last_end: Option<StreamEnd>,
    /// The camera.
    pub camera: CameraSnapshot,
    /// Who has the camera.
    pub owner: Option<Owner>,
    /// How the board does.
    #[serde(default)]
    pub board: BoardSnapshot,
}

/// A living stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamSnapshot {
    /// Its id; empty if it was started without one.
    pub stream_id: String,
    /// The app it runs for.
    pub app: String,
    /// Who directs it.
    pub kind: StreamKind,
    /// Where it is in its life.
    pub state: StreamState,
    /// Why it reconnects.
    #[serde(flatten)]
    pub failure: Option<Failure>,
    /// Where it goes, without the key.
    pub url: String,
    /// Which retry of this outage, from 1.
    pub attempt: u32,
    /// RTMP publications that the server accepted so far.
    pub publications: u32,
    /// The latest measurements.
    pub metrics: Metrics,
}

/// Measurements of a stream, renewed every 2 s on links and every second for `watch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Bits per second that went out over the last interval, video and audio.
    pub bitrate: u64,
    /// Video frames per second that went out over the last interval.
    pub fps: f64,
    /// Picture width, pixels.
    pub width: u32,
    /// Picture height, pixels.
    pub height: u32,
    /// Video frames let through to the server since the stream began.
    pub sent_frames: u64,
    /// Video frames dropped by the gate while it was open, since the stream began.
    pub dropped_frames: u64,
    /// Seconds since media first reached the server.
    pub duration_s: u64,
    /// Media waiting to be sent, milliseconds.
    pub queue_ms: u64,
    /// Round-trip time to the server, milliseconds.
    pub rtt_ms: f64,
}

/// How the board does. What it does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoardSnapshot {
    /// Degrees Celsius, of the thermal zone nearest to its limits.
    pub temperature_c: Option<f64>,
    /// The type of that zone.
    pub zone: Option<String>,
    /// What streams give up because of heat; absent while they need not.
    pub heat: Option<HeatSnapshot>,
    /// The battery.
    pub battery: Option<BatterySnapshot>,
    /// Whether the privacy light shines.
    pub privacy_led: Option<bool>,
}

/// What a stream gives up because of heat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeatSnapshot {
    /// How many steps are taken, from 1.
    pub step: u32,
    /// How many there are.
    pub of: u32,
    /// Of the bitrate that was asked for, per cent.
    pub bitrate_percent: u32,
    /// How many of the camera's pictures are encoded.
    pub pictures: PictureShare,
}

/// How many of the camera's pictures are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PictureShare {
    /// Every one.
    All,
    /// Every second.
    Half,
    /// Every fourth.
    Quarter,
    /// One a second.
    KeyFrames,
}

/// How full the battery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatterySnapshot {
    /// 0 to 100.
    pub percent: u8,
    /// On a charger, or full.
    pub charging: bool,
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// The stream.
    pub stream_id: String,
    /// `stopped` or `error`.
    pub state: StreamState,
    /// Why.
    #[serde(flatten)]
    pub failure: Failure,
}

/// What the camera is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CameraSnapshot {
    /// `closed`, `opening`, `running` or `lost`.
    pub state: CameraState,
    /// Why it is lost.
    #[serde(flatten)]
    pub failure: Option<Failure>,
    /// Which device, when one is open: its node, or `test`.
    pub device: Option<String>,
    /// Its name for a person.
    pub name: Option<String>,
    /// The picture it gives, for example `1280x720 NV12 30/1`.
    pub mode: Option<String>,
    /// The encoder profile in use.
    pub encoder: Option<String>,
    /// The encoder reads pictures where the camera left them (dmabuf); nothing in between touches them.
    #[serde(default)]
    pub zero_copy: bool,
    /// The microphone in use.
    pub audio: Option<String>,
    /// Counts the openings of the capture pipeline: unchanged means that it was not restarted.
    pub generation: u64,
    /// Encoded frames since that opening.
    pub frames: u64,
}

/// What the camera is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CameraState {
    /// Nobody needs it.
    #[default]
    Closed,
    /// Being opened; no frame yet.
    Opening,
    /// Encoded frames arrive.
    Running,
    /// Needed, but not to be had; being tried again.
    Lost,
}

impl CameraState {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Opening, Self::Running, Self::Lost];

    /// The wire name, as serde writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Opening => "opening",
            Self::Running => "running",
            Self::Lost => "lost",
        }
    }
}
