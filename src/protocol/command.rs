//! Messages from phone or cloud to the glasses, in both dialects of `MentraOS`.
//!
//! The dialects differ only in the names of the types; each accepts the other's field names, since the phones in use
//! mix them. An unknown type is no error: the same link carries messages for others. A message to us that cannot be
//! obeyed becomes a [`CommandError`] with all that the answer needs. Nothing in it quotes a URL.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::Object;
use super::{AudioSettings, Cause, SettingsError, StreamKind, StreamUrl, UrlError, VideoSettings};

/// Maximum length of a message, bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Maximum length of a stream, app or acknowledgement id, characters.
const MAX_ID: usize = 256;
/// How much of an unknown type's name is kept for the log, characters.
const MAX_KIND: usize = 64;
/// Longer duration limits are cut to this, to keep sums of times far from overflow.
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);
/// The app id that clouds put on managed streams.
const MANAGED_APP: &str = "MANAGED_STREAM";

/// A peer's names for message types. Answers use the dialect of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `start_rtmp_stream`, answered by `rtmp_stream_status` (2025, and `@mentra/sdk` 2.1.29).
    Rtmp,
    /// `start_stream`, answered by `stream_status` (2026).
    Stream,
}

/// A message that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// The dialect it was written in. Meaningless for [`Command::Photo`], [`Command::Ping`], [`Command::PhoneReady`]
    /// and [`Command::Unknown`], which have no dialect.
    pub dialect: Dialect,
    /// `mId`: the sender wants a `msg_ack`, and may repeat the message until it gets one.
    pub message_id: Option<i64>,
    /// What to do.
    pub command: Command,
}

/// What phone or cloud wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Start a stream.
    Start(StartStream),
    /// Stop a stream.
    Stop {
        /// The stream's id; `None` stops what this link started. (Phones of June 2025 omit it.)
        stream_id: Option<String>,
        /// The app that asks; empty if the phone did not say.
        app: String,
    },
    /// Report the whole state.
    GetStatus,
    /// The stream is still wanted.
    KeepAlive {
        /// Which stream.
        stream_id: String,
        /// To be repeated in the acknowledgement; empty if absent.
        ack_id: String,
    },
    /// Take a photo.
    Photo {
        /// To be repeated in the answer; not empty.
        request_id: String,
        /// The app it is for; empty if the phone did not say.
        app: String,
    },
    /// A ping, which wants a pong.
    Ping,
    /// The phone's app has started, and waits for `glasses_ready`.
    PhoneReady,
    /// Not for us, or from a later version.
    Unknown {
        /// The message's type, cut to 64 characters and without control characters.
        kind: String,
    },
}

/// A requested stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StartStream {
    /// Where to publish to.
    pub url: StreamUrl,
    /// The stream's id; empty if the phone gave none. Such a stream needs no keep-alive.
    pub stream_id: String,
    /// The app it is for; empty if the phone did not say.
    pub app: String,
    /// Who controls the stream.
    pub kind: StreamKind,
    /// The requested picture.
    pub video: VideoSettings,
    /// The requested sound.
    pub audio: AudioSettings,
    /// Time after which the stream ends.
    pub duration_limit: Option<Duration>,
    /// Light the privacy LED. Clouds always request it.
    pub flash: bool,
    /// Play a tone at start and end.
    pub sound: bool,
}

/// A message that cannot be obeyed, with what its answer needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct CommandError {
    /// The dialect to answer in; guessed from the text if that could not be parsed.
    pub dialect: Dialect,
    /// The stream that the message tried to start or stop. `None` for a keep-alive even if it named one: an error
    /// status would make the cloud end a live stream.
    pub stream_id: Option<String>,
    /// The message's `mId`.
    pub message_id: Option<i64>,
    /// The cause, for programs.
    pub cause: Cause,
    /// `MentraOS`'s word for the error, sent as `errorDetails`.
    pub code: String,
    /// One sentence for a person.
    pub detail: String,
}

/// Reads one message. Never panics, whatever the text.
pub fn parse(text: &str) -> Result<Incoming, CommandError> {
    let guess = || if text.contains("_rtmp_") { Dialect::Rtmp } else { Dialect::Stream };
    if text.len() > MAX_MESSAGE {
        let detail = format!("the message is longer than {MAX_MESSAGE} bytes");
        return Err(Rejection::new("message_too_long", detail).addressed(guess(), None, None));
    }
    // serde_json's message gives a position, never the content.
    let json: Value = serde_json::from_str(text)
        .map_err(|error| Rejection::json(error.to_string()).addressed(guess(), None, None))?;
    let message_id = json.get("mId").and_then(Value::as_i64);
    let kind = json.get("type").and_then(Value::as_str);
    let (Ok(Some(message)), Some(kind)) = (Object::new("", &json), kind) else {
        let rejection = Rejection::json("the message is not an object with a type".to_owned());
        return Err(rejection.addressed(guess(), None, message_id));
    };

    let (dialect, verb) = match kind {
        "start_rtmp_stream" => (Dialect::Rtmp, Verb::Start),
        "stop_rtmp_stream" => (Dialect::Rtmp, Verb::Stop),
        "get_rtmp_status" => (Dialect::Rtmp, Verb::GetStatus),
        "keep_rtmp_stream_alive" => (Dialect::Rtmp, Verb::KeepAlive),
        "start_stream" => (Dialect::Stream, Verb::Start),
        "stop_stream" => (Dialect::Stream, Verb::Stop),
        "get_stream_status" => (Dialect::Stream, Verb::GetStatus),
        "keep_stream_alive" => (Dialect::Stream, Verb::KeepAlive),
        "photo_request" => (guess(), Verb::Photo),
        "ping" => return Ok(Incoming { dialect: guess(), message_id, command: Command::Ping }),
        "phone_ready" => return Ok(Incoming { dialect: guess(), message_id, command: Command::PhoneReady }),
        other => {
            let kind = other.chars().filter(|c| !c.is_control()).take(MAX_KIND).collect();
            return Ok(Incoming { dialect: guess(), message_id, command: Command::Unknown { kind } });
        }
    };
    let command = match verb {
        Verb::Start => start(&message, dialect).map(Command::Start),
        Verb::Stop => stop(&message),
        Verb::GetStatus => Ok(Command::GetStatus),
        Verb::KeepAlive => keep_alive(&message),
        Verb::Photo => photo(&message),
    };
    let command = command.map_err(|rejection| {
        let named = id(&message, "streamId").ok().filter(|id| !id.is_empty() && verb != Verb::KeepAlive);
        rejection.addressed(dialect, named, message_id)
    })?;
    Ok(Incoming { dialect, message_id, command })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Stop,
    GetStatus,
    KeepAlive,
    Photo,
}

fn start(message: &Object, dialect: Dialect) -> Result<StartStream, Rejection> {
    let stream_id = id(message, "streamId")?;
    let app = id(message, "appId")?;
    let url = url(message, dialect)?;
    let null = &Value::Null;
    let object = |keys| message.get(keys).map_or(null, |(_, value)| value);
    let stream = Object::new("stream", object(&["stream"]))?;
    let limit = stream.map_or(Ok(None), |stream| stream.float(&["durationLimit"]))?;
    let silent = message.boolean(&["silent"])?.unwrap_or(false);
    Ok(StartStream {
        url,
        stream_id,
        kind: if app == MANAGED_APP { StreamKind::Managed } else { StreamKind::Unmanaged },
        app,
        video: VideoSettings::parse(object(&["video", "v"]))?,
        audio: AudioSettings::parse(object(&["audio", "a"]))?,
        duration_limit: limit
            .filter(|&seconds| seconds > 0.0)
            .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(MAX_DURATION).min(MAX_DURATION)),
        flash: message.boolean(&["flash"])?.unwrap_or(!silent),
        sound: message.boolean(&["sound"])?.unwrap_or(!silent),
    })
}

fn url(message: &Object, dialect: Dialect) -> Result<StreamUrl, Rejection> {
    for key in ["streamUrl", "rtmpUrl"] {
        match message.text(&[key])? {
            None | Some("") => {}
            Some(text) => return Ok(StreamUrl::parse(text)?),
        }
    }
    for key in ["srtUrl", "whipUrl"] {
        if message.text(&[key])?.is_some_and(|text| !text.is_empty()) {
            return Err(UrlError::Scheme.into());
        }
    }
    Err(Rejection::new(
        match dialect {
            Dialect::Rtmp => "missing_rtmp_url",
            Dialect::Stream => "missing_stream_url",
        },
        "the request names no stream URL".to_owned(),
    ))
}

fn stop(message: &Object) -> Result<Command, Rejection> {
    let stream_id = Some(id(message, "streamId")?).filter(|id| !id.is_empty());
    Ok(Command::Stop { stream_id, app: id(message, "appId")? })
}

fn keep_alive(message: &Object) -> Result<Command, Rejection> {
    let stream_id = id(message, "streamId")?;
    if stream_id.is_empty() {
        return Err(Rejection::new("missing_stream_id", "the keep-alive names no stream".to_owned()));
    }
    Ok(Command::KeepAlive { stream_id, ack_id: id(message, "ackId")? })
}

/// A requested size is ignored: a photo is as large as the picture it is taken from.
fn photo(message: &Object) -> Result<Command, Rejection> {
    let request_id = id(message, "requestId")?;
    if request_id.is_empty() {
        return Err(Rejection::new("missing_request_id", "the photo request has no id".to_owned()));
    }
    Ok(Command::Photo { request_id, app: id(message, "appId")? })
}

/// An id; empty if absent.
fn id(message: &Object, key: &'static str) -> Result<String, Rejection> {
    let id = message.text(&[key])?.unwrap_or_default();
    if id.chars().nth(MAX_ID).is_some() || id.chars().any(char::is_control) {
        let detail = format!("{key} is longer than {MAX_ID} characters or contains control characters");
        return Err(Rejection::new("invalid_id", detail));
    }
    Ok(id.to_owned())
}

/// A fault, before it is known whom to tell.
struct Rejection {
    cause: Cause,
    code: &'static str,
    detail: String,
}

impl Rejection {
    fn new(code: &'static str, detail: String) -> Self {
        Self { cause: Cause::InvalidRequest, code, detail }
    }

    fn json(detail: String) -> Self {
        Self::new("json_error", detail)
    }

    fn addressed(self, dialect: Dialect, stream_id: Option<String>, message_id: Option<i64>) -> CommandError {
        let Self { cause, code, detail } = self;
        CommandError { dialect, stream_id, message_id, cause, code: code.to_owned(), detail }
    }
}

impl From<SettingsError> for Rejection {
    fn from(error: SettingsError) -> Self {
        Self::json(error.to_string())
    }
}

impl From<UrlError> for Rejection {
    fn from(error: UrlError) -> Self {
        let code = if error == UrlError::Scheme { "Unknown stream URL protocol" } else { "invalid_url" };
        Self { cause: error.cause(), code, detail: error.to_string() }
    }
}

#[cfg(test)]
mod tests;
