//! The control socket's words: newline JSON, one request per line, one reply line per request.
//!
//! Every request is an object with a `cmd`. It is read by hand, not by a derived `Deserialize`, for two promises that
//! derived messages break: an error names the field (`video.width must be a whole number`), and no error repeats a
//! value, since a misplaced one may be a stream key. Replies and events are derived; whoever asked knows the reply's type.
//!
//! ```text
//! > {"cmd":"start","url":"rtmp://host/live/KEY"}
//! < {"ok":true,"stream_id":"s1"}            or {"ok":false,"error":{"cause":"camera_busy","message":"..."}}
//! ```

mod request;

pub use request::{AudioWish, MAX_REQUEST_LINE, Request, RequestError, Start, VideoWish};
use serde::{Deserialize, Serialize};

use super::{Cause, DaemonState, Failure, Metrics, Owner, StreamReport, StreamState};

/// Rises with each command or field that requests gain, since older daemons refuse it, and with each change that breaks a
/// client (docs/protocol.md#what-clients-may-rely-on).
pub const PROTOCOL_VERSION: u32 = 1;

/// What a request comes to.
pub type Reply = Result<Answer, Refusal>;

/// A request granted.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `stop`, `bitrate` and `camera_release`.
    Done,
    /// To `status` and `watch`.
    Status(Status),
    /// To `start`.
    Started(Started),
    /// To `photo`: the JPEG.
    Photo(Vec<u8>),
    /// To `camera_list`.
    Cameras(Cameras),
    /// To `camera_who`.
    Holder(Holder),
    /// To `camera_acquire`.
    Lease(Lease),
    /// To `doctor`.
    Checkup(Checkup),
}

/// A request refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({cause})")]
pub struct Refusal {
    /// For a program.
    pub cause: Cause,
    /// For a person.
    pub message: String,
    /// Who has the camera, where that is the reason.
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

/// The reply to what has nothing to tell but success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// The reply to `status` and `watch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's state.
    pub state: Box<DaemonState>,
}

/// The reply to `start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The stream's id.
    pub stream_id: String,
}

/// The reply line to `photo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhotoHeader {
    /// How many bytes of JPEG follow the line.
    pub length: u64,
}

/// The reply to `camera_list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cameras {
    /// The devices.
    pub cameras: Vec<CameraInfo>,
}

/// A camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraInfo {
    /// Its device node, for example `/dev/video0`.
    pub node: String,
    /// What stays the same when nodes are renumbered.
    pub identity: String,
    /// Its name for a person.
    pub name: String,
    /// What sort of device.
    pub kind: String,
    /// What it offers, for example `1280x720 NV12 30/1`.
    pub modes: Vec<String>,
    /// Who has it open or leased.
    pub holder: Option<Owner>,
}

/// The reply to `camera_who`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who has the camera, if anybody.
    pub owner: Option<Owner>,
}

/// The reply to `camera_acquire`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its number.
    pub lease: u64,
    /// The device to open.
    pub device: String,
}

/// The reply to `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkup {
    /// What was looked at, in an order to read.
    pub lines: Vec<DoctorLine>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorLine {
    /// How it is.
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// What was found, and what to do about it.
    pub text: String,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
struct Granted<T> {
    ok: bool,
    #[serde(flatten)]
    answer: T,
}

#[derive(Serialize, Deserialize)]
struct Refused {
    ok: bool,
    error: Refusal,
}

/// The line for a reply, with its newline. The bytes of a photo follow it and are the caller's to write.
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

/// Reads a reply line of which the caller knows the type, from what it asked. The outer error: it is no such reply.
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

/// What a watching connection gets after the first state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A change in a stream's life. Each is sent.
    Report(ReportLine),
    /// The state changed. At most once a second while only counters did.
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

/// A change in a stream's life, as watchers get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportLine {
    /// The stream.
    pub stream_id: String,
    /// Where it is now.
    pub state: StreamState,
    /// Why, for `reconnecting` and every end.
    #[serde(flatten)]
    pub failure: Option<Failure>,
    /// Which retry of this outage, from 1; when it streams again how many that took; else 0.
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

/// Nothing a person would call news separates the two states: only clocks, counters and measurements run on.
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
mod tests;
