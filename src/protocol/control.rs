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

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Cause, DaemonState, Metrics, Owner, StreamKind, StreamReport, StreamState};

/// The longest request line, bytes, without its newline.
pub const MAX_REQUEST_LINE: usize = 64 * 1024;

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Request {
    /// The daemon's whole state; answered by [`Status`].
    Status,
    /// The state and then every change; answered by [`Status`], then [`Event`]s. Nothing more is read from a
    /// connection that watches.
    Watch,
    /// Start a stream; answered by [`Started`] once it is accepted, not once it runs.
    Start(Start),
    /// Stop a stream; answered by [`Done`].
    Stop {
        /// Which; without it, the one that runs.
        #[serde(skip_serializing_if = "Option::is_none")]
        stream_id: Option<String>,
    },
    /// Change the running stream's video bitrate; answered by [`Done`] once the encoder is told.
    Bitrate {
        /// Bit/s; clamped as at a start.
        bitrate: u32,
    },
    /// Take a photo; answered by [`PhotoHeader`] and that many bytes of JPEG.
    Photo {
        /// For which app; an app may take a photo from its own stream.
        #[serde(skip_serializing_if = "Option::is_none")]
        app: Option<String>,
    },
    /// The cameras there are; answered by [`Cameras`].
    CameraList,
    /// Who has the camera; answered by [`Holder`].
    CameraWho,
    /// Reserve the camera for this process; answered by [`Lease`]. Ends with the connection.
    CameraAcquire {
        /// The program's name for others to see; without it, the name of the process that asks.
        #[serde(skip_serializing_if = "Option::is_none")]
        program: Option<String>,
    },
    /// Give up the leases of this connection; answered by [`Done`].
    CameraRelease,
    /// What works here and what does not; answered by [`Checkup`].
    Doctor,
}

/// A stream to start. What is left out takes the daemon's configured value.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Start {
    /// Where to, with the stream key; therefore never printed.
    pub url: String,
    /// The app it runs for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Its id; without it, the daemon makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Who directs it; without it, `unmanaged`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<StreamKind>,
    /// The picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoWish>,
    /// The sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioWish>,
    /// End after so many seconds of streaming.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<u64>,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start")
            .field("app", &self.app)
            .field("stream_id", &self.stream_id)
            .field("kind", &self.kind)
            .field("video", &self.video)
            .field("audio", &self.audio)
            .field("duration_s", &self.duration_s)
            .finish_non_exhaustive()
    }
}

/// The picture asked for. Ranges are the daemon's to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VideoWish {
    /// Pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Bits per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<u32>,
    /// Frames per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<u32>,
}

/// The sound asked for. Ranges are the daemon's to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AudioWish {
    /// Bits per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<u32>,
    /// Samples per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
}

/// Why a line is no request. Its text repeats names of fields, never their values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RequestError(String);

const COMMANDS: &str =
    "status, watch, start, stop, bitrate, photo, camera_list, camera_who, camera_acquire, camera_release, doctor";

impl Request {
    /// Reads one line, with or without its newline.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let value: Value = serde_json::from_slice(line).map_err(|e| RequestError(format!("not JSON: {e}")))?;
        let Value::Object(map) = value else {
            return Err(RequestError("a request is a JSON object".into()));
        };
        let mut fields = Fields { map, path: "" };
        let Some(cmd) = fields.text("cmd")? else {
            return Err(RequestError(format!("cmd is missing; it is one of {COMMANDS}")));
        };
        let request = match cmd.as_str() {
            "status" => Self::Status,
            "watch" => Self::Watch,
            "start" => Self::Start(Start {
                url: fields.text("url")?.ok_or_else(|| RequestError("url is missing".into()))?,
                app: fields.text("app")?,
                stream_id: fields.text("stream_id")?,
                kind: fields.take("kind", "\"unmanaged\" or \"managed\"", |value| match value.as_str()? {
                    "unmanaged" => Some(StreamKind::Unmanaged),
                    "managed" => Some(StreamKind::Managed),
                    _ => None,
                })?,
                video: fields.object("video", "video.", |video| {
                    Ok(VideoWish {
                        width: video.number("width")?,
                        height: video.number("height")?,
                        bitrate: video.number("bitrate")?,
                        frame_rate: video.number("frame_rate")?,
                    })
                })?,
                audio: fields.object("audio", "audio.", |audio| {
                    Ok(AudioWish { bitrate: audio.number("bitrate")?, sample_rate: audio.number("sample_rate")? })
                })?,
                duration_s: fields.take("duration_s", "a whole number of seconds", Value::as_u64)?,
            }),
            "stop" => Self::Stop { stream_id: fields.text("stream_id")? },
            "bitrate" => Self::Bitrate {
                bitrate: fields.number("bitrate")?.ok_or_else(|| RequestError("bitrate is missing".into()))?,
            },
            "photo" => Self::Photo { app: fields.text("app")? },
            "camera_list" => Self::CameraList,
            "camera_who" => Self::CameraWho,
            "camera_acquire" => Self::CameraAcquire { program: fields.text("program")? },
            "camera_release" => Self::CameraRelease,
            "doctor" => Self::Doctor,
            _ => return Err(RequestError(format!("unknown cmd; it is one of {COMMANDS}"))),
        };
        fields.finish()?;
        Ok(request)
    }
}

/// An object being read: what is taken out is known, what remains is not.
struct Fields {
    map: Map<String, Value>,
    path: &'static str,
}

impl Fields {
    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, RequestError> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match convert(&value) {
                Some(converted) => Ok(Some(converted)),
                None => Err(RequestError(format!("{}{name} must be {expected}", self.path))),
            },
        }
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, RequestError> {
        self.take(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    fn number(&mut self, name: &str) -> Result<Option<u32>, RequestError> {
        self.take(name, "a whole number", |value| value.as_u64().and_then(|n| n.try_into().ok()))
    }

    fn object<T>(
        &mut self,
        name: &str,
        path: &'static str,
        read: impl FnOnce(&mut Fields) -> Result<T, RequestError>,
    ) -> Result<Option<T>, RequestError> {
        let Some(map) = self.take(name, "an object", |value| value.as_object().cloned())? else {
            return Ok(None);
        };
        let mut fields = Fields { map, path };
        let value = read(&mut fields)?;
        fields.finish()?;
        Ok(Some(value))
    }

    fn finish(&self) -> Result<(), RequestError> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(64).collect();
                Err(RequestError(format!("unknown field {:?}", format!("{}{name}", self.path))))
            }
        }
    }
}

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

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Self { cause, message: cause.explain().into(), owner: None }
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
    pub cause: Option<Cause>,
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
            cause: report.cause,
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
