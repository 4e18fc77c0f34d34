//! The protocol between cloud and glasses, from the cloud's side (docs/protocol.md#statuses). [`super::command`] and
//! [`super::report`] are the glasses' side.
//!
//! A status is read for what it *means*: phones and glasses of three generations have a dozen words for six states,
//! and an unknown word must not be taken for a live stream.

use serde_json::{Value, json};

use super::Dialect;

/// Maximum length of a text kept from glasses, characters.
const MAX_TEXT: usize = 300;

/// The state of a stream according to its glasses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlassesState {
    /// The stream is being set up.
    Initializing,
    /// Media goes through.
    Streaming,
    /// Media was lost, and the glasses are retrying.
    Reconnecting,
    /// The stream is ending.
    Stopping,
    /// Ended on request, or without a fault.
    Stopped,
    /// Ended by a fault.
    Failed,
    /// Ended because no keep-alives arrived.
    TimedOut,
}

impl GlassesState {
    /// Whether the state is final.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed | Self::TimedOut)
    }

    fn read(word: &str) -> Self {
        match word {
            "initializing" | "connecting" | "starting" => Self::Initializing,
            "streaming" | "active" | "reconnected" | "streaming_started" => Self::Streaming,
            "reconnecting" => Self::Reconnecting,
            "stopping" => Self::Stopping,
            "stopped" | "not_streaming" => Self::Stopped,
            "timeout" => Self::TimedOut,
            // error, reconnect_failed, disconnected, and any unknown word.
            _ => Self::Failed,
        }
    }
}

/// A change in a stream's life, or its current state.
#[derive(Clone, Debug, PartialEq)]
pub struct GlassesStatus {
    /// The stream's id; `None` in messages about no stream.
    pub stream_id: Option<String>,
    /// The stream's state.
    pub state: GlassesState,
    /// The reason, for a person.
    pub details: Option<String>,
    /// The reason, for programs: a [`super::Cause`]'s name from `lenscastd`, another word from others.
    pub cause: Option<String>,
    /// Measurements, named as apps know them.
    pub stats: Option<Value>,
}

/// A message from glasses, or from the phone they are paired with.
#[derive(Clone, Debug, PartialEq)]
pub enum GlassesMessage {
    /// About a stream.
    Status(GlassesStatus),
    /// The whole state: the current stream, or that there is none and how the last one ended.
    Snapshot {
        /// The current stream.
        stream: Option<GlassesStatus>,
        /// The stream that ended last.
        last_end: Option<GlassesStatus>,
    },
    /// A keep-alive arrived.
    KeepAliveAck {
        /// The stream's id.
        stream_id: String,
        /// The keep-alive's id.
        ack_id: String,
    },
    /// The glasses' connection to their phone, or to Wi-Fi, changed.
    Connection {
        /// Whether the glasses are connected to the phone.
        connected: bool,
        /// Whether they are on a Wi-Fi network, if known.
        wifi: Option<bool>,
    },
    /// Nothing that concerns streams.
    Other,
}

/// Reads one message and, if recognisable, its dialect. Never panics, whatever the text.
pub fn parse(text: &str) -> (GlassesMessage, Option<Dialect>) {
    let Ok(json) = serde_json::from_str::<Value>(text) else { return (GlassesMessage::Other, None) };
    let field = |key: &str| words(&json, key);
    let kind = json.get("type").and_then(Value::as_str).unwrap_or_default();
    let dialect = match kind {
        "rtmp_stream_status" => Some(Dialect::Rtmp),
        "stream_status" => Some(Dialect::Stream),
        _ => None,
    };
    let message = match kind {
        "rtmp_stream_status" | "stream_status" if json["kind"] == "snapshot" => {
            let end = &json["lastEnd"];
            GlassesMessage::Snapshot {
                stream: status(&json).filter(|status| status.stream_id.is_some()),
                last_end: end.is_object().then(|| status(end)).flatten(),
            }
        }
        "rtmp_stream_status" | "stream_status" => status(&json).map_or(GlassesMessage::Other, GlassesMessage::Status),
        "keep_alive_ack" => match (field("streamId"), field("ackId")) {
            (Some(stream_id), Some(ack_id)) => GlassesMessage::KeepAliveAck { stream_id, ack_id },
            _ => GlassesMessage::Other,
        },
        "glasses_connection_state" => GlassesMessage::Connection {
            connected: matches!(field("status").as_deref(), Some("CONNECTED" | "RECONNECTED")),
            wifi: json["wifi"]["connected"].as_bool(),
        },
        _ => GlassesMessage::Other,
    };
    (message, dialect)
}

fn status(json: &Value) -> Option<GlassesStatus> {
    let word = json.get("status")?.as_str()?;
    Some(GlassesStatus {
        stream_id: words(json, "streamId"),
        state: GlassesState::read(word),
        details: words(json, "errorDetails").or_else(|| words(json, "error")),
        cause: words(json, "cause").or_else(|| words(json, "reason")),
        stats: stats(json),
    })
}

/// A text cut to `MAX_TEXT`, without control characters; `None` if it is empty.
fn words(json: &Value, key: &str) -> Option<String> {
    let text = json.get(key)?.as_str()?;
    let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
    (!text.is_empty()).then_some(text)
}

/// Apps get all the numbers or none, as from `MentraOS`'s clouds (docs/protocol.md#measurements).
fn stats(json: &Value) -> Option<Value> {
    const FIELDS: [(&str, &str, bool); 7] = [
        ("bitrate", "b", true),
        ("fps", "f", true),
        ("droppedFrames", "d", true),
        ("duration", "u", true),
        ("width", "w", false),
        ("height", "h", false),
        ("temperatureC", "tp", false),
    ];
    let numbers = json.get("stats").or_else(|| json.get("m"))?;
    let mut stats = json!({});
    for (name, short, needed) in FIELDS {
        match numbers.get(name).or_else(|| numbers.get(short)).filter(|n| n.is_number()) {
            Some(number) => stats[name] = number.clone(),
            None if needed => return None,
            None => {}
        }
    }
    Some(stats)
}

/// A message from the cloud to glasses.
#[derive(Clone, Debug, PartialEq)]
pub enum GlassesCommand {
    /// Start a stream.
    Start {
        /// The cloud's id for the stream.
        stream_id: String,
        /// The app it is for; `MANAGED_STREAM` for several (docs/protocol.md#link-messages).
        app: String,
        /// The URL to publish to, with its key.
        url: super::StreamUrl,
        /// `video` as given by the app or made by the cloud.
        video: Value,
        /// `audio`, from the same source.
        audio: Value,
        /// `stream`, from the same source.
        stream: Value,
        /// Whether the glasses announce the stream by sound.
        sound: bool,
    },
    /// Stop a stream.
    Stop {
        /// The stream's id.
        stream_id: String,
        /// The app it is for.
        app: String,
    },
    /// The stream is still wanted.
    KeepAlive {
        /// The stream's id.
        stream_id: String,
        /// To be repeated in the answer.
        ack_id: String,
    },
    /// Report the whole state.
    GetStatus,
}

impl GlassesCommand {
    /// The message as sent to glasses of this generation.
    pub fn json(&self, dialect: Dialect) -> Value {
        let word = |rtmp: &'static str, stream: &'static str| match dialect {
            Dialect::Rtmp => rtmp,
            Dialect::Stream => stream,
        };
        match self {
            Self::Start { stream_id, app, url, video, audio, stream, sound } => json!({
                "type": word("start_rtmp_stream", "start_stream"), word("rtmpUrl", "streamUrl"): url.expose(),
                "streamId": stream_id, "appId": app, "video": video, "audio": audio, "stream": stream,
                // The light protects wearer and bystanders; an app may not switch it off.
                "flash": true, "sound": sound,
            }),
            Self::Stop { stream_id, app } => {
                json!({"type": word("stop_rtmp_stream", "stop_stream"), "streamId": stream_id, "appId": app})
            }
            Self::KeepAlive { stream_id, ack_id } => {
                json!({"type": word("keep_rtmp_stream_alive", "keep_stream_alive"), "streamId": stream_id, "ackId": ack_id})
            }
            Self::GetStatus => json!({"type": word("get_rtmp_status", "get_stream_status")}),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::{
        BoardSnapshot, Cause, Command, Metrics, StreamReport, StreamState, StreamUrl, command, report,
    };

    fn read(message: &Value) -> GlassesMessage {
        parse(&message.to_string()).0
    }

    fn state(message: &Value) -> GlassesState {
        match read(message) {
            GlassesMessage::Status(status) => status.state,
            other => panic!("{message}: {other:?}"),
        }
    }

    #[test]
    fn every_report_of_the_daemon_means_here_what_it_meant_there() {
        for dialect in [Dialect::Rtmp, Dialect::Stream] {
            for (theirs, ours) in [
                (StreamState::Initializing, GlassesState::Initializing),
                (StreamState::Connecting, GlassesState::Initializing),
                (StreamState::Streaming, GlassesState::Streaming),
                (StreamState::Reconnecting, GlassesState::Reconnecting),
                (StreamState::Stopping, GlassesState::Stopping),
                (StreamState::Stopped, GlassesState::Stopped),
                (StreamState::Error, GlassesState::Failed),
            ] {
                let retry_in = Some(Duration::from_secs(1));
                let plain = StreamReport::new(theirs, Some(Cause::CameraLost.into()));
                let report = StreamReport { attempt: 2, retry_in, reconnected: true, ..plain };
                let json = report::status(&report, "m1", dialect);
                let (message, told) = parse(&json.to_string());
                let GlassesMessage::Status(status) = message else { panic!("{json}") };
                assert_eq!((status.state, told), (ours, Some(dialect)), "{json}");
                assert_eq!((status.stream_id.as_deref(), status.cause.as_deref()), (Some("m1"), Some("camera_lost")));
            }
            let board = BoardSnapshot { temperature_c: Some(41.0), ..BoardSnapshot::default() };
            let numbers = Metrics { bitrate: 2_000_000, fps: 29.97, width: 1280, height: 720, ..Metrics::default() };
            let json = report::metrics(&numbers, &board, "m1", dialect);
            let GlassesMessage::Status(status) = read(&json) else { panic!("{json}") };
            let measured = status.stats.unwrap();
            assert_eq!(
                (&measured["bitrate"], &measured["width"], &measured["temperatureC"]),
                (&json!(2_000_000), &json!(1280), &json!(41.0))
            );
        }
    }

    #[test]
    fn no_word_is_taken_for_more_than_it_says() {
        let word = |word: &str| state(&json!({"type": "rtmp_stream_status", "streamId": "s", "status": word}));
        assert_eq!(word("reconnect_failed"), GlassesState::Failed);
        assert_eq!(word("disconnected"), GlassesState::Failed);
        assert_eq!(word("a_word_of_2030"), GlassesState::Failed);
        assert_eq!(word("timeout"), GlassesState::TimedOut);
        assert!(word("reconnect_failed").is_terminal() && !word("reconnecting").is_terminal());
        let part = json!({"type": "stream_status", "status": "streaming", "m": {"b": 1, "f": 2}});
        assert!(matches!(read(&part), GlassesMessage::Status(status) if status.stats.is_none()));
    }

    #[test]
    fn a_full_state_tells_the_stream_or_how_the_last_one_ended() {
        let live = json!({"type": "stream_status", "kind": "snapshot", "status": "streaming", "streamId": "m1"});
        let GlassesMessage::Snapshot { stream: Some(stream), last_end: None } = read(&live) else { panic!("{live}") };
        assert_eq!((stream.state, stream.stream_id.as_deref()), (GlassesState::Streaming, Some("m1")));
        let idle = json!({"type": "stream_status", "kind": "snapshot", "status": "stopped",
                          "lastEnd": {"streamId": "m1", "status": "error", "cause": "camera_lost"}});
        let GlassesMessage::Snapshot { stream: None, last_end: Some(end) } = read(&idle) else { panic!("{idle}") };
        assert_eq!((end.state, end.cause.as_deref()), (GlassesState::Failed, Some("camera_lost")));
    }

    #[test]
    fn the_daemon_understands_every_command() {
        let url = StreamUrl::parse("rtmp://h/live/key").unwrap();
        let empty = || json!({});
        let start = GlassesCommand::Start {
            stream_id: "m1".into(),
            app: "MANAGED_STREAM".into(),
            url,
            video: json!({"width": 1280, "height": 720}),
            audio: empty(),
            stream: empty(),
            sound: true,
        };
        let stop = GlassesCommand::Stop { stream_id: "m1".into(), app: "MANAGED_STREAM".into() };
        let keep = GlassesCommand::KeepAlive { stream_id: "m1".into(), ack_id: "a1".into() };
        for dialect in [Dialect::Rtmp, Dialect::Stream] {
            let understood = |command: &GlassesCommand| {
                let incoming = command::parse(&command.json(dialect).to_string()).unwrap();
                assert_eq!(incoming.dialect, dialect);
                incoming.command
            };
            let Command::Start(got) = understood(&start) else { panic!("no start") };
            assert_eq!((got.url.expose(), got.video.height, got.stream_id.as_str()), ("rtmp://h/live/key", 720, "m1"));
            assert_eq!(understood(&stop), Command::Stop { stream_id: Some("m1".into()), app: "MANAGED_STREAM".into() });
            assert_eq!(understood(&keep), Command::KeepAlive { stream_id: "m1".into(), ack_id: "a1".into() });
            assert_eq!(understood(&GlassesCommand::GetStatus), Command::GetStatus);
        }
    }

    #[test]
    fn phones_tell_of_wifi() {
        let told = json!({"type": "glasses_connection_state", "status": "CONNECTED", "wifi": {"connected": false}});
        assert_eq!(read(&told), GlassesMessage::Connection { connected: true, wifi: Some(false) });
        for other in ["", "[1]", "{\"type\":\"keep_alive_ack\"}", "{\"type\":\"stream_status\"}"] {
            assert_eq!(parse(other).0, GlassesMessage::Other, "{other}");
        }
    }
}
