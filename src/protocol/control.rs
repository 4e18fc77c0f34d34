//! The messages of the control socket: newline-delimited JSON, one reply line per request line.
//!
//! Every request is an object with a `cmd`. It is read by hand, not by a derived `Deserialize`, to keep two promises
//! that derived messages break: an error names the field (`video.width must be a whole number`), and no error repeats
//! a value, since a misplaced one may be a stream key. Replies and events are derived; the asker knows the reply's
//! type. docs/control.schema.json is made from these types, in tests only.
//!
//! ```text
//! > {"cmd":"start","url":"rtmp://host/live/KEY"}
//! < {"ok":true,"stream_id":"s1"}            or {"ok":false,"error":{"cause":"camera_busy","message":"..."}}
//! ```

mod request;

pub use request::{AudioWish, MAX_REQUEST_LINE, Request, RequestError, Start, VideoWish};
use serde::{Deserialize, Serialize};

use super::{Cause, DaemonState, Failure, Metrics, Owner, StreamReport, StreamState};

/// Incremented with each command or field that requests gain, since older daemons refuse those, and with each change
/// that breaks a client (docs/protocol.md#what-clients-may-rely-on).
pub const PROTOCOL_VERSION: u32 = 1;

/// The outcome of a request.
pub type Reply = Result<Answer, Refusal>;

/// The answer to a request that was granted.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The answer to `stop`, `bitrate` and `camera_release`.
    Done,
    /// The answer to `status` and `watch`.
    Status(Status),
    /// The answer to `start`.
    Started(Started),
    /// The answer to `photo`: the JPEG.
    Photo(Vec<u8>),
    /// The answer to `camera_list`.
    Cameras(Cameras),
    /// The answer to `camera_who`.
    Holder(Holder),
    /// The answer to `camera_acquire`.
    Lease(Lease),
    /// The answer to `doctor`.
    Checkup(Checkup),
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[error("{message} ({cause})")]
pub struct Refusal {
    /// The cause, for programs.
    pub cause: Cause,
    /// One sentence for a person.
    pub message: String,
    /// Who has the camera, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { cause: failure.cause, message: failure.explain(), owner: failure.owner }
    }
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Failure::from(cause).into()
    }
}

/// The reply that carries nothing but success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Done {}

/// The reply to `status` and `watch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// The daemon's state.
    pub state: Box<DaemonState>,
}

/// The reply to `start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Started {
    /// The stream's id.
    pub stream_id: String,
}

/// The reply line to `photo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PhotoHeader {
    /// Bytes of JPEG that follow the line.
    pub length: u64,
}

/// The reply to `camera_list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cameras {
    /// The cameras and what is known of them.
    pub cameras: Vec<CameraInfo>,
}

/// A camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CameraInfo {
    /// Its device node, for example `/dev/video0`.
    pub node: String,
    /// A stable identity, which does not change when nodes are renumbered.
    pub identity: String,
    /// The human-readable name.
    pub name: String,
    /// The kind of device.
    pub kind: String,
    /// The modes it offers, for example `1280x720 NV12 30/1`.
    pub modes: Vec<String>,
    /// Who has it open or leased.
    pub holder: Option<Owner>,
}

/// The reply to `camera_who`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Holder {
    /// Who has the camera, if anybody.
    pub owner: Option<Owner>,
}

/// The reply to `camera_acquire`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lease {
    /// The lease's number.
    pub lease: u64,
    /// The device to open.
    pub device: String,
}

/// The reply to `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Checkup {
    /// The findings, in reading order.
    pub lines: Vec<DoctorLine>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DoctorLine {
    /// Whether it works.
    pub level: Level,
    /// What was checked.
    pub subject: String,
    /// What was found, and what to do about it.
    pub text: String,
}

/// Whether something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It works.
    Ok,
    /// It works, with a limit.
    Warn,
    /// It does not work.
    Fail,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Granted{T}"))]
struct Granted<T> {
    #[cfg_attr(test, schemars(extend("const" = true)))]
    ok: bool,
    #[serde(flatten)]
    answer: T,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Refused {
    #[cfg_attr(test, schemars(extend("const" = false)))]
    ok: bool,
    error: Refusal,
}

/// The line for a reply, with its newline. The caller must write a photo's bytes after it.
pub fn reply_line(reply: &Reply) -> Vec<u8> {
    match reply {
        Ok(Answer::Done) => granted(&Done {}),
        Ok(Answer::Status(answer)) => granted(answer),
        Ok(Answer::Started(answer)) => granted(answer),
        Ok(Answer::Photo(jpeg)) => granted(&PhotoHeader { length: jpeg.len() as u64 }),
        Ok(Answer::Cameras(answer)) => granted(answer),
        Ok(Answer::Holder(answer)) => granted(answer),
        Ok(Answer::Lease(answer)) => granted(answer),
        Ok(Answer::Checkup(answer)) => granted(answer),
        Err(refusal) => line(&Refused { ok: false, error: refusal.clone() }),
    }
}

fn granted<T: Serialize>(answer: &T) -> Vec<u8> {
    line(&Granted { ok: true, answer })
}

fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("these types have string keys and no failing serializer");
    bytes.push(b'\n');
    bytes
}

/// Reads a reply line whose type the caller knows from its request. The outer error: the line is no such reply.
pub fn parse_reply<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Result<Result<T, Refusal>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Head {
        ok: bool,
    }
    if serde_json::from_slice::<Head>(line)?.ok {
        serde_json::from_slice::<Granted<T>>(line).map(|reply| Ok(reply.answer))
    } else {
        serde_json::from_slice::<Refused>(line).map(|reply| Err(reply.error))
    }
}

/// What a watching connection gets after the initial state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A change in a stream's life. Every change is sent.
    Report(ReportLine),
    /// The state changed. Sent at most once a second while only counters change.
    State {
        /// The whole new state.
        state: Box<DaemonState>,
    },
    /// Reports were lost because the watcher read too slowly. A `state` follows.
    Lagged,
}

impl Event {
    /// The line, with its newline.
    pub fn line(&self) -> Vec<u8> {
        line(self)
    }
}

/// A change in a stream's life, as sent to watchers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReportLine {
    /// The stream's id.
    pub stream_id: String,
    /// The stream's new state.
    pub state: StreamState,
    /// The reason, for `reconnecting` and every end.
    #[serde(flatten)]
    pub failure: Option<Failure>,
    /// The number of the retry in this outage, from 1; when it streams again, how many it took; else 0.
    pub attempt: u32,
    /// Milliseconds to the next attempt, if one is planned.
    pub retry_in_ms: Option<u64>,
}

impl ReportLine {
    /// The line for a report of the stream `stream_id`.
    pub fn new(stream_id: &str, report: &StreamReport) -> Self {
        Self {
            stream_id: stream_id.into(),
            state: report.state,
            failure: report.failure.clone(),
            attempt: report.attempt,
            retry_in_ms: report.retry_in.map(|delay| delay.as_millis() as u64),
        }
    }
}

/// Whether only clocks, counters and measurements differ, which a person would not call news.
pub fn only_counters_differ(a: &DaemonState, b: &DaemonState) -> bool {
    fn still(state: &DaemonState) -> DaemonState {
        let mut state = state.clone();
        state.uptime_s = 0;
        state.camera.frames = 0;
        (state.board.temperature_c, state.board.zone) = (None, None);
        if let Some(stream) = &mut state.stream {
            stream.metrics = Metrics::default();
        }
        if let Some(owner) = &mut state.owner {
            owner.for_s = None;
        }
        state
    }
    still(a) == still(b)
}

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
