//! The daemon's whole state, as sent by `status` and `watch`, and first on a link that was lost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cause, Failure};

/// The state of a stream:
/// `initializing → connecting → streaming ⇄ reconnecting → stopping → stopped | error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// The stream is ending.
    Stopping,
    /// Ended by decision.
    Stopped,
    /// Ended by a fault.
    Error,
}

impl StreamState {
    /// All states, in the order of a stream's life.
    pub const ALL: [Self; 7] = [
        Self::Initializing,
        Self::Connecting,
        Self::Streaming,
        Self::Reconnecting,
        Self::Stopping,
        Self::Stopped,
        Self::Error,
    ];

    /// Whether no event leads out of it.
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

/// One change in a stream's life, before it is worded for a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamReport {
    /// The stream's new state.
    pub state: StreamState,
    /// The reason, for `reconnecting` and every end.
    pub failure: Option<Failure>,
    /// The number of the retry in this outage, from 1; with `reconnected`, how many the outage took; else 0.
    pub attempt: u32,
    /// Estimated number of retries before giving up; `None` if it never gives up.
    pub max_attempts: Option<u32>,
    /// Delay until the next attempt.
    pub retry_in: Option<Duration>,
    /// Whether `streaming` follows an outage.
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

/// Who controls a stream, and therefore what else may use the camera meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StreamKind {
    /// Straight to the endpoint an app named; the camera is for this app alone.
    Unmanaged,
    /// Arranged by the cloud; the camera is shareable.
    Managed,
}

/// Who has the camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Owner {
    /// What the camera is used for.
    pub kind: OwnerKind,
    /// The app's id, or the program's name.
    pub name: String,
    /// The process, if it is one and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Seconds since then; unknown for a process that opened the device behind the daemon's back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

/// What the camera is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
            // A service that cannot see other users' processes does not know their names.
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DaemonState {
    /// The daemon's version.
    pub version: String,
    /// The daemon's [`super::control::PROTOCOL_VERSION`]; 0 from a daemon that does not say.
    #[cfg_attr(test, schemars(description = "The protocol's version; 0 from a daemon that does not say."))]
    #[serde(default)]
    pub protocol: u32,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// The current stream, if any.
    pub stream: Option<StreamSnapshot>,
    /// How the last stream ended.
    pub last_end: Option<StreamEnd>,
    /// The camera's state.
    pub camera: CameraSnapshot,
    /// Who has the camera.
    pub owner: Option<Owner>,
    /// The board's state.
    #[serde(default)]
    pub board: BoardSnapshot,
}

/// The current stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StreamSnapshot {
    /// The stream's id; empty if it was started without one.
    pub stream_id: String,
    /// The app it runs for.
    pub app: String,
    /// Who controls it.
    pub kind: StreamKind,
    /// The stream's state.
    pub state: StreamState,
    /// Why it reconnects.
    #[serde(flatten)]
    pub failure: Option<Failure>,
    /// The server's URL, without the key.
    pub url: String,
    /// The number of the retry in this outage, from 1.
    pub attempt: u32,
    /// RTMP publications that the server has accepted so far.
    pub publications: u32,
    /// The latest measurements.
    pub metrics: Metrics,
}

/// Measurements of a stream, updated every 2 s on links and every second for `watch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metrics {
    /// Bits per second sent over the last interval, video and audio.
    pub bitrate: u64,
    /// Video frames per second sent over the last interval.
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
    /// Duration of the media waiting to be sent, milliseconds.
    pub queue_ms: u64,
    /// Round-trip time to the server, milliseconds.
    pub rtt_ms: f64,
}

/// The board's state. Unknown values are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BoardSnapshot {
    /// Temperature of the thermal zone nearest to its limits, degrees Celsius.
    pub temperature_c: Option<f64>,
    /// The type of that zone.
    pub zone: Option<String>,
    /// What streams give up because of heat; absent while they give up nothing.
    pub heat: Option<HeatSnapshot>,
    /// The battery's charge.
    pub battery: Option<BatterySnapshot>,
    /// Whether the privacy light is on.
    pub privacy_led: Option<bool>,
}

/// What a stream gives up because of heat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeatSnapshot {
    /// Number of steps taken, from 1.
    pub step: u32,
    /// Total number of steps.
    pub of: u32,
    /// Per cent of the requested bitrate.
    pub bitrate_percent: u32,
    /// Share of the camera's pictures that is encoded.
    pub pictures: PictureShare,
}

/// Share of the camera's pictures that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PictureShare {
    /// All pictures.
    All,
    /// Every second picture.
    Half,
    /// Every fourth picture.
    Quarter,
    /// One per second, as a key frame.
    KeyFrames,
}

/// The battery's charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BatterySnapshot {
    /// Per cent, 0 to 100.
    pub percent: u8,
    /// On a charger, or fully charged.
    pub charging: bool,
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StreamEnd {
    /// The stream's id.
    pub stream_id: String,
    /// `stopped` or `error`.
    pub state: StreamState,
    /// Why the stream ended.
    #[serde(flatten)]
    pub failure: Failure,
}

/// The camera's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CameraSnapshot {
    /// `closed`, `opening`, `running` or `lost`.
    pub state: CameraState,
    /// Why it is lost.
    #[serde(flatten)]
    pub failure: Option<Failure>,
    /// The open device, if any: its node, or `test`.
    pub device: Option<String>,
    /// The camera's human-readable name.
    pub name: Option<String>,
    /// The mode of its pictures, for example `1280x720 NV12 30/1`.
    pub mode: Option<String>,
    /// The encoder profile in use.
    pub encoder: Option<String>,
    /// Whether the encoder reads pictures where the camera left them (dmabuf), without a copy.
    #[serde(default)]
    pub zero_copy: bool,
    /// The microphone in use.
    pub audio: Option<String>,
    /// Number of openings of the capture pipeline: unchanged means that it was not restarted.
    pub generation: u64,
    /// Encoded frames since that opening.
    pub frames: u64,
}

/// The camera's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CameraState {
    /// The camera is not needed.
    #[default]
    Closed,
    /// The camera is being opened; no frame yet.
    Opening,
    /// Encoded frames arrive.
    Running,
    /// Needed but not available; being retried.
    Lost,
}

impl CameraState {
    /// All states.
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
