//! Requests from clients of the control socket, read by hand.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::protocol::StreamKind;

/// Maximum length of a request line, bytes, without its newline.
pub const MAX_REQUEST_LINE: usize = 64 * 1024;

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Request {
    /// The daemon's whole state; answered by [`Status`](super::Status).
    Status,
    /// The state and then every change; answered by [`Status`](super::Status), then [`Event`](super::Event)s. Nothing
    /// more is read from this connection.
    Watch,
    /// Start a stream; answered by [`Started`](super::Started) once it is accepted, not once it runs.
    Start(Start),
    /// Stop a stream; answered by [`Done`](super::Done).
    Stop {
        /// The stream's id; without it, the running stream.
        #[serde(skip_serializing_if = "Option::is_none")]
        stream_id: Option<String>,
    },
    /// Change the running stream's video bitrate; answered by [`Done`](super::Done) once the encoder has been told.
    Bitrate {
        /// Bit/s; clamped as at the start.
        bitrate: u32,
    },
    /// Take a photo; answered by [`PhotoHeader`](super::PhotoHeader) and that many bytes of JPEG.
    Photo {
        /// The app that the photo is for; an app may take photos from its own stream.
        #[serde(skip_serializing_if = "Option::is_none")]
        app: Option<String>,
    },
    /// List the cameras; answered by [`Cameras`](super::Cameras).
    CameraList,
    /// Who has the camera; answered by [`Holder`](super::Holder).
    CameraWho,
    /// Reserve the camera for this process; answered by [`Lease`](super::Lease). Ends with the connection.
    CameraAcquire {
        /// The program's name, shown to others; by default the name of the requesting process.
        #[serde(skip_serializing_if = "Option::is_none")]
        program: Option<String>,
    },
    /// Give up the leases of this connection; answered by [`Done`](super::Done).
    CameraRelease,
    /// Check what works; answered by [`Checkup`](super::Checkup).
    Doctor,
}

/// A stream to start. Omitted fields take the daemon's configured values.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Start {
    /// The server's URL with the stream key; therefore never printed.
    pub url: String,
    /// The app it runs for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The stream's id; by default the daemon makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Who controls the stream; by default `unmanaged`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<StreamKind>,
    /// Settings of the picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoWish>,
    /// Settings of the sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioWish>,
    /// Time of streaming after which the stream ends, seconds.
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

/// The requested picture. The daemon checks the ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VideoWish {
    /// Width, pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height, pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Bits per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<u32>,
    /// Frames per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<u32>,
}

/// The requested sound. The daemon checks the ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AudioWish {
    /// Bits per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<u32>,
    /// Samples per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
}

/// Why a line is not a request. The text repeats names of fields, never their values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RequestError(String);

/// Every `cmd` there is.
pub(super) const COMMANDS: &str =
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

/// An object being read: known fields are taken out, unknown ones remain.
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
