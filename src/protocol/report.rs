//! Messages from the glasses to phone and cloud, in the dialect they were addressed in.
//!
//! Every status carries `type`, and `streamId` when there is a stream (clouds drop a status without either). Extra
//! fields carry what `MentraOS` has no field for: `cause`, `details`, `delayMs`, `owner`, `lastEnd`. One report makes
//! one message, so a stream's end is reported once.

use serde_json::{Value, json};

use super::control::Refusal;
use super::{
    BoardSnapshot, Cause, CommandError, DaemonState, Dialect, Failure, Metrics, Owner, StreamReport, StreamState,
};

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

/// Maximum length of a failure's text, characters: a longer message would not fit on a serial line, and an end must.
const LONGEST_TEXT: usize = 1000;

/// What was requested of a stream that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To stop the stream.
    Stop,
    /// To keep the stream alive.
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
    if let Some(failure) = &report.failure {
        tell_cause(&mut message, failure);
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
            if let Some(failure) = &report.failure {
                message["reason"] = failure.cause.name().into();
                tell_details(&mut message, failure);
            }
        }
        // Apps show errorDetails as an error, and a stop on request is not one.
        StreamState::Stopped | StreamState::Error if report.cause() != Some(Cause::Requested) => {
            let unexplained = Cause::Internal.into();
            message["errorDetails"] = end_details(report.failure.as_ref().unwrap_or(&unexplained)).into();
        }
        _ => {}
    }
    message
}

/// The measurements of a stream, sent every 2 s while it streams; with the temperature in degrees Celsius, if known,
/// and what heat takes away.
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

/// The answer to a keep-alive; the timestamp is in milliseconds since 1970.
pub fn keep_alive_ack(stream_id: &str, ack_id: &str, timestamp_ms: u64) -> Value {
    json!({"type": "keep_alive_ack", "streamId": stream_id, "ackId": ack_id, "timestamp": timestamp_ms})
}

/// Acknowledges a message with an `mId`; the timestamp is in milliseconds since 1970.
pub fn msg_ack(message_id: i64, timestamp_ms: u64) -> Value {
    json!({"type": "msg_ack", "mId": message_id, "timestamp": timestamp_ms})
}

/// The answer to a ping.
pub fn pong() -> Value {
    json!({"type": "pong"})
}

/// The answer to a phone that is ready; the timestamp is in milliseconds since 1970.
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

/// The answer to a request that was understood but is refused; `owner` has the camera.
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
        // Stopped before it began, which is not an error.
        let report = StreamReport::new(StreamState::Stopped, Some(refusal.cause.into()));
        return status(&report, stream_id, dialect);
    }
    let mut message = refused(stream_id, dialect, refusal.cause, refusal.owner.as_ref());
    // `MentraOS`'s words, where it has some: programs compare with them.
    match refusal.cause {
        Cause::BatteryLow => message["errorDetails"] = refusal.message.as_str().into(),
        Cause::NetworkUnreachable => message["errorDetails"] = "no_wifi_connection".into(),
        _ => {}
    }
    message
}

/// The answer to a stop or keep-alive for a stream that does not exist here; `stream_id` may be empty for a stop.
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

/// The whole state: the answer to a status request, and the first message on a link that was lost.
///
/// Without a stream its status is `stopped`. The last one's end is in `lastEnd` and not in `streamId`, so that nobody
/// takes it for a second end.
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
    if let Some(failure) = stream.and_then(|stream| stream.failure.as_ref()) {
        tell_cause(&mut message, failure);
        tell_details(&mut message, failure);
    }
    if let Some(end) = state.last_end.as_ref().filter(|_| stream.is_none()) {
        let mut told = json!({"streamId": end.stream_id, "status": end.state.name()});
        tell_cause(&mut told, &end.failure);
        tell_details(&mut told, &end.failure);
        message["lastEnd"] = told;
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

/// Adds the cause, for programs, and who has the camera, if that is the reason.
fn tell_cause(message: &mut Value, failure: &Failure) {
    message["cause"] = failure.cause.name().into();
    if let Some(owner) = &failure.owner {
        message["owner"] = json!(owner);
    }
}

/// Adds details beyond the cause, if `errorDetails` does not give them.
fn tell_details(message: &mut Value, failure: &Failure) {
    if !failure.detail.is_empty() {
        message["details"] = cut(&failure.detail).into();
    }
}

fn end_details(failure: &Failure) -> String {
    match failure.cause {
        // `MentraOS`'s own sentence: programs compare with it.
        Cause::KeepAliveTimeout => "Stream timed out - no keep-alive from cloud".into(),
        _ => cut(&failure.explain()),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
