//! What the glasses tell phone and cloud, in the words of the dialect they were addressed in.
//!
//! Every status carries `type`, and `streamId` when there is one (clouds drop a status without either). What
//! `MentraOS` has no field for is added beside its fields: `cause`, `delayMs`, `owner`, `lastEnd`. One report makes one
//! message, so a stream's end is told once.

use serde_json::{Value, json};

use super::control::Refusal;
use super::{BoardSnapshot, Cause, CommandError, DaemonState, Dialect, Metrics, Owner, StreamReport, StreamState};

impl Dialect {
    /// The `type` of every status in this dialect.
    pub fn status_type(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp_stream_status",
            Self::Stream => "stream_status",
        }
    }

    fn start_type(self) -> &'static str {
        match self {
            Self::Rtmp => "start_rtmp_stream",
            Self::Stream => "start_stream",
        }
    }
}

/// What was asked of a stream that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To stop it.
    Stop,
    /// To go on with it.
    KeepAlive,
}

/// A change in a stream's life.
pub fn status(report: &StreamReport, stream_id: &str, dialect: Dialect) -> Value {
    let back = report.state == StreamState::Streaming && report.reconnected;
    let word = match (dialect, report.state) {
        (Dialect::Stream, StreamState::Streaming) if back => "reconnected",
        (_, state) => state.name(),
    };
    let mut message = base(dialect, stream_id, word);
    if let Some(cause) = report.cause {
        message["cause"] = cause.name().into();
    }
    match report.state {
        StreamState::Streaming if back && dialect == Dialect::Rtmp => {
            message["reconnected"] = true.into();
            message["attempts"] = report.attempt.into();
        }
        StreamState::Streaming if back => message["attempt"] = report.attempt.into(),
        StreamState::Reconnecting => {
            message["attempt"] = report.attempt.into();
            if let Some(most) = report.max_attempts {
                message["maxAttempts"] = most.into();
            }
            if let Some(delay) = report.retry_in {
                message["delayMs"] = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).into();
            }
            if let Some(cause) = report.cause {
                message["reason"] = cause.name().into();
            }
        }
        // Apps show errorDetails as an error, and a stop on request is none.
        StreamState::Stopped | StreamState::Error if report.cause != Some(Cause::Requested) => {
            message["errorDetails"] = end_details(report.cause.unwrap_or(Cause::Internal)).into();
        }
        _ => {}
    }
    message
}

/// The measurements of a stream, told every 2 s while it streams; the temperature in degrees Celsius if it is known, and
/// what heat takes away.
pub fn metrics(metrics: &Metrics, board: &BoardSnapshot, stream_id: &str, dialect: Dialect) -> Value {
    // Clouds drop the whole set if one number is missing or not finite.
    let tenths = |n: f64| if n.is_finite() { (n * 10.0).round() / 10.0 } else { 0.0 };
    let temperature = board.temperature_c.filter(|t| t.is_finite()).map(tenths);
    let Metrics { bitrate, fps, width, height, dropped_frames, duration_s, .. } = metrics;
    let fps = tenths(*fps);
    let mut message = base(dialect, stream_id, StreamState::Streaming.name());
    let (field, mut numbers, temperature_key) = match dialect {
        Dialect::Stream => {
            ("m", json!({"b": bitrate, "f": fps, "w": width, "h": height, "d": dropped_frames, "u": duration_s}), "tp")
        }
        Dialect::Rtmp => (
            "stats",
            json!({"bitrate": bitrate, "fps": fps, "droppedFrames": dropped_frames, "duration": duration_s,
                   "width": width, "height": height}),
            "temperatureC",
        ),
    };
    if let Some(temperature) = temperature {
        numbers[temperature_key] = temperature.into();
    }
    message[field] = numbers;
    if let Some(heat) = &board.heat {
        message["heat"] = json!(heat);
    }
    message
}

/// The answer to a keep-alive; the timestamp in milliseconds since 1970.
pub fn keep_alive_ack(stream_id: &str, ack_id: &str, timestamp_ms: u64) -> Value {
    json!({"type": "keep_alive_ack", "streamId": stream_id, "ackId": ack_id, "timestamp": timestamp_ms})
}

/// Says that a message with an `mId` arrived; the timestamp in milliseconds since 1970.
pub fn msg_ack(message_id: i64, timestamp_ms: u64) -> Value {
    json!({"type": "msg_ack", "mId": message_id, "timestamp": timestamp_ms})
}

/// The answer to a ping.
pub fn pong() -> Value {
    json!({"type": "pong"})
}

/// The answer to a phone that is ready; the timestamp in milliseconds since 1970.
pub fn glasses_ready(timestamp_ms: u64) -> Value {
    json!({"type": "glasses_ready", "timestamp": timestamp_ms})
}

/// The answer to a message that cannot be obeyed.
pub fn rejected(error: &CommandError) -> Value {
    let mut message = failure(error.dialect, error.stream_id.as_deref().unwrap_or_default(), error.cause);
    message["errorDetails"] = error.code.as_str().into();
    message["details"] = error.detail.as_str().into();
    message
}

/// The answer to a request that was understood and is refused; `owner` is who stands in its way.
pub fn refused(stream_id: &str, dialect: Dialect, cause: Cause, owner: Option<&Owner>) -> Value {
    let mut message = failure(dialect, stream_id, cause);
    let why = match owner {
        None => cause.explain().to_owned(),
        Some(owner) if cause == Cause::NotOwner => format!("owned by {owner}"),
        Some(owner) => format!("in use by {owner}"),
    };
    message["errorDetails"] = format!("{cause}: {why}").into();
    if let Some(owner) = owner {
        message["owner"] = json!(owner);
    }
    message
}

/// The answer to a start that is refused.
pub fn start_refused(stream_id: &str, dialect: Dialect, refusal: &Refusal) -> Value {
    if refusal.cause == Cause::Requested {
        // Stopped before it began, which is no error.
        let (state, cause) = (StreamState::Stopped, Some(refusal.cause));
        let report = StreamReport { state, cause, attempt: 0, max_attempts: None, retry_in: None, reconnected: false };
        return status(&report, stream_id, dialect);
    }
    let mut message = refused(stream_id, dialect, refusal.cause, refusal.owner.as_ref());
    // MentraOS's words, where it has some: programs compare with them.
    match refusal.cause {
        Cause::BatteryLow => message["errorDetails"] = refusal.message.as_str().into(),
        Cause::NetworkUnreachable => message["errorDetails"] = "no_wifi_connection".into(),
        _ => {}
    }
    message
}

/// The answer to a stop or keep-alive for a stream that does not live here; `stream_id` may be empty for a stop.
pub fn unknown_stream(stream_id: &str, dialect: Dialect, what: Asked) -> Value {
    let mut message = failure(dialect, stream_id, Cause::UnknownStream);
    message["errorDetails"] = match what {
        Asked::Stop => "not_streaming".into(),
        Asked::KeepAlive => format!("Unknown stream ID - please send {} command", dialect.start_type()).into(),
    };
    if !stream_id.is_empty() {
        message["receivedStreamId"] = stream_id.into();
    }
    message
}

/// The whole state: the answer to a question for it, and the first message on a link that was lost.
///
/// Without a stream its status is `stopped`. How the last one ended is in `lastEnd` and not in `streamId`, so that
/// nobody takes it for a second end.
pub fn snapshot(state: &DaemonState, dialect: Dialect) -> Value {
    let stream = state.stream.as_ref();
    let is = |state| stream.is_some_and(|stream| stream.state == state);
    let word = match stream.map(|stream| stream.state) {
        None => StreamState::Stopped,
        Some(StreamState::Connecting) => StreamState::Initializing,
        Some(state) => state,
    };
    let mut message = base(dialect, stream.map_or("", |stream| stream.stream_id.as_str()), word.name());
    message["kind"] = "snapshot".into();
    message["streaming"] = is(StreamState::Streaming).into();
    message["reconnecting"] = is(StreamState::Reconnecting).into();
    if let Some(stream) = stream.filter(|stream| stream.state == StreamState::Reconnecting) {
        message["attempt"] = stream.attempt.into();
    }
    if let Some(cause) = stream.and_then(|stream| stream.cause) {
        message["cause"] = cause.name().into();
    }
    if let Some(end) = state.last_end.as_ref().filter(|_| stream.is_none()) {
        message["lastEnd"] = json!({"streamId": end.stream_id, "status": end.state.name(), "cause": end.cause.name()});
    }
    message
}

fn base(dialect: Dialect, stream_id: &str, status: &str) -> Value {
    let mut message = json!({"type": dialect.status_type(), "status": status});
    if !stream_id.is_empty() {
        message["streamId"] = stream_id.into();
    }
    message
}

fn failure(dialect: Dialect, stream_id: &str, cause: Cause) -> Value {
    let mut message = base(dialect, stream_id, StreamState::Error.name());
    message["cause"] = cause.name().into();
    message
}

fn end_details(cause: Cause) -> &'static str {
    match cause {
        // MentraOS's own sentence: programs compare with it.
        Cause::KeepAliveTimeout => "Stream timed out - no keep-alive from cloud",
        cause => cause.explain(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::{HeatSnapshot, OwnerKind, PictureShare, StreamEnd, StreamKind, StreamSnapshot, command};

    const BOTH: [(Dialect, &str); 2] = [(Dialect::Rtmp, "rtmp_stream_status"), (Dialect::Stream, "stream_status")];

    fn report(state: StreamState) -> StreamReport {
        StreamReport { state, cause: None, attempt: 0, max_attempts: None, retry_in: None, reconnected: false }
    }

    #[test]
    fn plain_changes_are_a_word_and_an_id() {
        for (dialect, kind) in BOTH {
            for (state, word) in [
                (StreamState::Initializing, "initializing"),
                (StreamState::Connecting, "connecting"),
                (StreamState::Streaming, "streaming"),
                (StreamState::Stopping, "stopping"),
            ] {
                let message = status(&report(state), "s1", dialect);
                assert_eq!(message, json!({"type": kind, "status": word, "streamId": "s1"}));
                assert_eq!(status(&report(state), "", dialect), json!({"type": kind, "status": word}));
            }
        }
    }

    #[test]
    fn a_retry_tells_attempt_limit_delay_and_cause() {
        let mut report = report(StreamState::Reconnecting);
        (report.cause, report.attempt, report.max_attempts) = (Some(Cause::ServerFrozen), 3, Some(27));
        report.retry_in = Some(Duration::from_millis(480));
        for (dialect, kind) in BOTH {
            let expected = json!({"type": kind, "status": "reconnecting", "streamId": "s1", "attempt": 3, "maxAttempts": 27,
                "delayMs": 480, "reason": "server_frozen", "cause": "server_frozen"});
            assert_eq!(status(&report, "s1", dialect), expected);
        }
        (report.max_attempts, report.retry_in) = (None, None);
        let expected = json!({"type": "stream_status", "status": "reconnecting", "streamId": "s1", "attempt": 3,
            "reason": "server_frozen", "cause": "server_frozen"});
        assert_eq!(status(&report, "s1", Dialect::Stream), expected, "never gives up, under way");
    }

    #[test]
    fn recovery_has_a_word_in_each_dialect() {
        let mut report = report(StreamState::Streaming);
        (report.reconnected, report.attempt) = (true, 2);
        let expected = json!({"type": "rtmp_stream_status", "status": "streaming", "streamId": "s1", "reconnected": true, "attempts": 2});
        assert_eq!(status(&report, "s1", Dialect::Rtmp), expected);
        let expected = json!({"type": "stream_status", "status": "reconnected", "streamId": "s1", "attempt": 2});
        assert_eq!(status(&report, "s1", Dialect::Stream), expected);
    }

    #[test]
    fn an_end_says_why() {
        for (dialect, kind) in BOTH {
            let end = |state, cause| status(&StreamReport { cause: Some(cause), ..report(state) }, "s1", dialect);
            assert_eq!(
                end(StreamState::Stopped, Cause::Requested),
                json!({"type": kind, "status": "stopped", "streamId": "s1", "cause": "requested"})
            );
            assert_eq!(
                end(StreamState::Stopped, Cause::DurationOver),
                json!({"type": kind, "status": "stopped", "streamId": "s1", "cause": "duration_over",
                       "errorDetails": "the agreed duration is over"})
            );
            assert_eq!(
                end(StreamState::Error, Cause::KeepAliveTimeout),
                json!({"type": kind, "status": "error", "streamId": "s1", "cause": "keep_alive_timeout",
                       "errorDetails": "Stream timed out - no keep-alive from cloud"})
            );
            assert_eq!(
                end(StreamState::Error, Cause::PublishRejected)["errorDetails"],
                "the server refused the stream key or application"
            );
        }
    }

    #[test]
    fn metrics_have_every_number_that_clouds_insist_on() {
        let measured = Metrics {
            bitrate: 1_500_000,
            fps: 29.97,
            width: 1280,
            height: 720,
            sent_frames: 900,
            dropped_frames: 4,
            duration_s: 30,
            queue_ms: 12,
            rtt_ms: 8.5,
        };
        let board = |temperature_c| BoardSnapshot { temperature_c, ..BoardSnapshot::default() };
        assert_eq!(
            metrics(&measured, &board(Some(71.26)), "s1", Dialect::Stream),
            json!({"type": "stream_status", "status": "streaming", "streamId": "s1",
                   "m": {"b": 1_500_000, "f": 30.0, "w": 1280, "h": 720, "d": 4, "u": 30, "tp": 71.3}})
        );
        assert_eq!(
            metrics(&measured, &board(None), "s1", Dialect::Rtmp),
            json!({"type": "rtmp_stream_status", "status": "streaming", "streamId": "s1",
                   "stats": {"bitrate": 1_500_000, "fps": 30.0, "droppedFrames": 4, "duration": 30, "width": 1280,
                             "height": 720}})
        );
        let unreal = board(Some(f64::INFINITY));
        let broken = metrics(&Metrics { fps: f64::NAN, ..measured.clone() }, &unreal, "s1", Dialect::Stream);
        assert_eq!(broken["m"]["f"], 0.0);
        assert_eq!(broken["m"].get("tp"), None);
        let heat = HeatSnapshot { step: 3, of: 5, bitrate_percent: 45, pictures: PictureShare::Half };
        let hot = metrics(&measured, &BoardSnapshot { heat: Some(heat), ..board(Some(80.0)) }, "s1", Dialect::Stream);
        assert_eq!(hot["heat"], json!({"step": 3, "of": 5, "bitrate_percent": 45, "pictures": "half"}));
    }

    #[test]
    fn acknowledgements() {
        assert_eq!(
            keep_alive_ack("s1", "a1", 1_750_000_000_000),
            json!({"type": "keep_alive_ack", "streamId": "s1", "ackId": "a1", "timestamp": 1_750_000_000_000_u64})
        );
        assert_eq!(msg_ack(-5, 9), json!({"type": "msg_ack", "mId": -5, "timestamp": 9}));
        assert_eq!(pong(), json!({"type": "pong"}));
    }

    #[test]
    fn a_command_that_cannot_be_obeyed_is_answered_where_it_came_from() {
        let answer = |text: &str| rejected(&command::parse(text).unwrap_err());
        assert_eq!(
            answer(r#"{"type":"start_rtmp_stream","streamId":"s1"}"#),
            json!({"type": "rtmp_stream_status", "status": "error", "streamId": "s1", "cause": "invalid_request",
                   "errorDetails": "missing_rtmp_url", "details": "the request names no stream URL"})
        );
        assert_eq!(
            answer(r#"{"type":"start_stream","whipUrl":"https://h/k"}"#),
            json!({"type": "stream_status", "status": "error", "cause": "invalid_url",
                   "errorDetails": "Unknown stream URL protocol",
                   "details": "the URL must begin with rtmp:// or rtmps://"})
        );
    }

    #[test]
    fn a_refusal_names_who_has_the_camera() {
        let owner = Owner { kind: OwnerKind::Foreign, name: "guvcview".into(), pid: Some(812), for_s: None };
        assert_eq!(
            refused("s2", Dialect::Stream, Cause::CameraBusy, Some(&owner)),
            json!({"type": "stream_status", "status": "error", "streamId": "s2", "cause": "camera_busy",
                   "errorDetails": "camera_busy: in use by program guvcview (pid 812)",
                   "owner": {"kind": "foreign", "name": "guvcview", "pid": 812}})
        );
        let owner = Owner { kind: OwnerKind::Unmanaged, name: "org.a".into(), pid: None, for_s: Some(3) };
        assert_eq!(
            refused("s2", Dialect::Rtmp, Cause::NotOwner, Some(&owner))["errorDetails"],
            "not_owner: owned by stream of org.a for 3 s"
        );
        assert_eq!(
            refused("", Dialect::Rtmp, Cause::NoCamera, None),
            json!({"type": "rtmp_stream_status", "status": "error", "cause": "no_camera",
                   "errorDetails": "no_camera: no camera was found"})
        );
    }

    #[test]
    fn what_the_device_itself_forbids_is_said_in_mentra_os_words() {
        let sentence = "Battery level too low (7%) - minimum 10% required";
        let low = Refusal { message: sentence.into(), ..Cause::BatteryLow.into() };
        assert_eq!(
            start_refused("s2", Dialect::Rtmp, &low),
            json!({"type": "rtmp_stream_status", "status": "error", "streamId": "s2", "cause": "battery_low",
                   "errorDetails": sentence})
        );
        let offline = start_refused("s2", Dialect::Stream, &Cause::NetworkUnreachable.into());
        assert_eq!(
            (&offline["errorDetails"], &offline["cause"]),
            (&json!("no_wifi_connection"), &json!("network_unreachable"))
        );
        assert_eq!(
            start_refused("s2", Dialect::Stream, &Cause::Overheated.into())["errorDetails"],
            "overheated: the glasses are too hot"
        );
    }

    #[test]
    fn an_unknown_stream_is_answered() {
        assert_eq!(
            unknown_stream("s9", Dialect::Rtmp, Asked::KeepAlive),
            json!({"type": "rtmp_stream_status", "status": "error", "streamId": "s9", "receivedStreamId": "s9",
                   "cause": "unknown_stream", "errorDetails": "Unknown stream ID - please send start_rtmp_stream command"})
        );
        assert_eq!(
            unknown_stream("", Dialect::Stream, Asked::Stop),
            json!({"type": "stream_status", "status": "error", "cause": "unknown_stream", "errorDetails": "not_streaming"})
        );
    }

    #[test]
    fn a_snapshot_is_the_whole_truth_in_either_dialect() {
        let stream = |state| StreamSnapshot {
            stream_id: "s1".into(),
            app: "org.a".into(),
            kind: StreamKind::Unmanaged,
            state,
            cause: None,
            url: "rtmp://h/a/***".into(),
            attempt: 0,
            publications: 1,
            metrics: Metrics::default(),
        };
        let mut state = DaemonState::default();
        for (dialect, kind) in BOTH {
            state.stream = None;
            state.last_end = None;
            let idle = json!({"type": kind, "kind": "snapshot", "status": "stopped", "streaming": false, "reconnecting": false});
            assert_eq!(snapshot(&state, dialect), idle);

            let cause = Cause::ConnectionLost;
            state.last_end = Some(StreamEnd { stream_id: "s0".into(), state: StreamState::Error, cause });
            let mut ended = idle;
            ended["lastEnd"] = json!({"streamId": "s0", "status": "error", "cause": "connection_lost"});
            assert_eq!(snapshot(&state, dialect), ended);

            for (at, word, streaming) in [
                (StreamState::Initializing, "initializing", false),
                (StreamState::Connecting, "initializing", false),
                (StreamState::Streaming, "streaming", true),
                (StreamState::Stopping, "stopping", false),
            ] {
                state.stream = Some(stream(at));
                let expected = json!({"type": kind, "kind": "snapshot", "status": word, "streaming": streaming,
                    "reconnecting": false, "streamId": "s1"});
                assert_eq!(snapshot(&state, dialect), expected);
            }

            let cause = Some(Cause::CameraLost);
            state.stream = Some(StreamSnapshot { attempt: 4, cause, ..stream(StreamState::Reconnecting) });
            let expected = json!({"type": kind, "kind": "snapshot", "status": "reconnecting", "streaming": false,
                "reconnecting": true, "streamId": "s1", "attempt": 4, "cause": "camera_lost"});
            assert_eq!(snapshot(&state, dialect), expected);
        }
    }
}
