//! Each message as sent over the wire.

use std::time::Duration;

use super::*;
use crate::protocol::{HeatSnapshot, OwnerKind, PictureShare, StreamEnd, StreamKind, StreamSnapshot, command};

const BOTH: [(Dialect, &str); 2] = [(Dialect::Rtmp, "rtmp_stream_status"), (Dialect::Stream, "stream_status")];

fn report(state: StreamState) -> StreamReport {
    StreamReport::new(state, None)
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
    (report.failure, report.attempt, report.max_attempts) = (Some(Cause::ServerFrozen.into()), 3, Some(27));
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
        let end = |state, cause| status(&StreamReport::new(state, Some(Failure::from(cause))), "s1", dialect);
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
fn who_has_the_camera_and_what_each_stage_said_is_told_in_either_dialect() {
    let owner = Owner { kind: OwnerKind::Foreign, name: "zoom".into(), pid: Some(812), for_s: None };
    let busy = Failure { owner: Some(owner), ..Failure::new(Cause::CameraBusy, "EBUSY") };
    let broken = Failure::new(Cause::EncoderFailed, "x264: gone; v4l2: hangs");
    for (dialect, kind) in BOTH {
        assert_eq!(
            status(&StreamReport::new(StreamState::Error, Some(busy.clone())), "s1", dialect),
            json!({"type": kind, "status": "error", "streamId": "s1", "cause": "camera_busy",
                   "errorDetails": "the camera is in use: program zoom (pid 812)",
                   "owner": {"kind": "foreign", "name": "zoom", "pid": 812}})
        );
        assert_eq!(
            status(&StreamReport::new(StreamState::Error, Some(broken.clone())), "s1", dialect)["errorDetails"],
            "no video encoder works: x264: gone; v4l2: hangs"
        );
        let again = status(&StreamReport::new(StreamState::Reconnecting, Some(busy.clone())), "s1", dialect);
        assert_eq!((&again["details"], &again["owner"]["pid"]), (&json!("EBUSY"), &json!(812)));
        let last_end = StreamEnd { stream_id: "s1".into(), state: StreamState::Error, failure: busy.clone() };
        let idle = DaemonState { last_end: Some(last_end), ..DaemonState::default() };
        assert_eq!(snapshot(&idle, dialect)["lastEnd"]["owner"]["name"], "zoom");
    }
}

#[test]
fn an_end_fits_on_a_serial_line_whatever_was_said() {
    let much = Failure::new(Cause::EncoderFailed, "\"é".repeat(10_000));
    for state in [StreamState::Error, StreamState::Reconnecting] {
        let message = status(&StreamReport::new(state, Some(much.clone())), "s1", Dialect::Stream).to_string();
        assert!(message.len() < crate::protocol::k900::MAX_SERIAL_MESSAGE / 2, "{}", message.len());
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
        failure: None,
        url: "rtmp://h/a/***".into(),
        attempt: 0,
        publications: 1,
        metrics: Metrics::default(),
    };
    let mut state = DaemonState::default();
    for (dialect, kind) in BOTH {
        state.stream = None;
        state.last_end = None;
        let idle =
            json!({"type": kind, "kind": "snapshot", "status": "stopped", "streaming": false, "reconnecting": false});
        assert_eq!(snapshot(&state, dialect), idle);

        let failure = Failure::new(Cause::ConnectionLost, "reset by peer");
        state.last_end = Some(StreamEnd { stream_id: "s0".into(), state: StreamState::Error, failure });
        let mut ended = idle;
        ended["lastEnd"] = json!({"streamId": "s0", "status": "error", "cause": "connection_lost",
                                   "details": "reset by peer"});
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

        let failure = Some(Cause::CameraLost.into());
        state.stream = Some(StreamSnapshot { attempt: 4, failure, ..stream(StreamState::Reconnecting) });
        let expected = json!({"type": kind, "kind": "snapshot", "status": "reconnecting", "streaming": false,
            "reconnecting": true, "streamId": "s1", "attempt": 4, "cause": "camera_lost"});
        assert_eq!(snapshot(&state, dialect), expected);
    }
}
