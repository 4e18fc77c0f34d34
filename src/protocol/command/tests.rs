use proptest::prelude::*;
use serde_json::json;

use super::*;

fn understood(message: &Value) -> Incoming {
    parse(&message.to_string()).unwrap_or_else(|e| panic!("{message}: {e}"))
}

fn started(message: &Value) -> StartStream {
    match understood(message).command {
        Command::Start(start) => start,
        other => panic!("{other:?}"),
    }
}

fn refused(message: &Value) -> CommandError {
    parse(&message.to_string()).unwrap_err()
}

/// A start as `MentraOS`'s cloud of June 2025 sends it.
fn rtmp_start() -> Value {
    json!({"type": "start_rtmp_stream", "sessionId": "u@e.com", "rtmpUrl": "rtmp://h/live/s3cret", "appId": "org.test.app",
           "streamId": "0b6f", "video": {}, "audio": {}, "stream": {}, "timestamp": "2025-06-01T00:00:00Z"})
}

/// A start as `MentraOS`'s cloud of 2026 sends it.
fn stream_start() -> Value {
    json!({"type": "start_stream", "sessionId": "u@e.com", "streamUrl": "rtmps://h:444/live/s3cret", "appId": "MANAGED_STREAM",
           "streamId": "mabc", "video": {"width": 1280, "height": 720}, "audio": {"ec": true},
           "stream": {"durationLimit": 60}, "flash": true, "sound": false, "mId": 7})
}

fn with(mut message: Value, key: &str, value: Value) -> Value {
    message[key] = value;
    message
}

#[test]
fn starts_in_both_dialects() {
    let incoming = understood(&rtmp_start());
    assert_eq!((incoming.dialect, incoming.message_id), (Dialect::Rtmp, None));
    let Command::Start(start) = incoming.command else { panic!("no start") };
    assert_eq!(start.url.expose(), "rtmp://h/live/s3cret");
    assert_eq!((start.stream_id.as_str(), start.app.as_str()), ("0b6f", "org.test.app"));
    assert_eq!(start.kind, StreamKind::Unmanaged);
    assert_eq!((start.video, start.audio), Default::default());
    assert_eq!((start.duration_limit, start.flash, start.sound), (None, true, true));

    let incoming = understood(&stream_start());
    assert_eq!((incoming.dialect, incoming.message_id), (Dialect::Stream, Some(7)));
    let Command::Start(start) = incoming.command else { panic!("no start") };
    assert_eq!((start.url.port(), start.kind), (444, StreamKind::Managed));
    assert_eq!((start.video.width, start.video.frame_rate, start.audio.echo_cancellation), (1280, 15, true));
    assert_eq!((start.duration_limit, start.flash, start.sound), (Some(Duration::from_mins(1)), true, false));
}

#[test]
fn a_phone_may_shorten_mix_and_leave_out() {
    let start = started(&json!({"type": "start_stream", "rtmpUrl": "rtmp://h/a/k", "streamUrl": "",
        "v": {"w": 640, "h": 480}, "a": {"br": 96_000}, "video": null}));
    assert_eq!((start.video.width, start.video.height, start.audio.bitrate), (640, 480, 96_000));
    assert_eq!((start.stream_id.as_str(), start.app.as_str()), ("", ""));

    let both = with(with(rtmp_start(), "streamUrl", json!("rtmp://other/a/k")), "v", json!({"w": 640}));
    assert_eq!(started(&both).url.host(), "other");
    assert_eq!(started(&both).video.width, 960, "the full key wins");
}

#[test]
fn silent_means_no_light_and_no_tone_unless_said_otherwise() {
    let silent = with(rtmp_start(), "silent", json!(true));
    assert_eq!((started(&silent).flash, started(&silent).sound), (false, false));
    let lit = with(silent, "flash", json!(true));
    assert_eq!((started(&lit).flash, started(&lit).sound), (true, false));
}

#[test]
fn a_duration_limit_is_seconds() {
    let limit = |n: Value| started(&with(rtmp_start(), "stream", json!({"durationLimit": n}))).duration_limit;
    assert_eq!(limit(json!(1.5)), Some(Duration::from_millis(1500)));
    assert_eq!(limit(json!(1e300)), Some(MAX_DURATION));
    for none in [json!(0), json!(-3), json!(null)] {
        assert_eq!(limit(none), None);
    }
}

#[test]
fn stops_keep_alives_and_questions_in_both_dialects() {
    for (message, dialect, command) in [
        (json!({"type": "stop_rtmp_stream"}), Dialect::Rtmp, Command::Stop { stream_id: None, app: String::new() }),
        (
            json!({"type": "stop_stream", "sessionId": "s", "appId": "org.a", "streamId": ""}),
            Dialect::Stream,
            Command::Stop { stream_id: None, app: "org.a".into() },
        ),
        (
            json!({"type": "stop_stream", "streamId": "s1"}),
            Dialect::Stream,
            Command::Stop { stream_id: Some("s1".into()), app: String::new() },
        ),
        (json!({"type": "get_rtmp_status"}), Dialect::Rtmp, Command::GetStatus),
        (json!({"type": "get_stream_status"}), Dialect::Stream, Command::GetStatus),
        (
            json!({"type": "keep_rtmp_stream_alive", "streamId": "s1", "ackId": "a1"}),
            Dialect::Rtmp,
            Command::KeepAlive { stream_id: "s1".into(), ack_id: "a1".into() },
        ),
        (
            json!({"type": "keep_stream_alive", "streamId": "s1"}),
            Dialect::Stream,
            Command::KeepAlive { stream_id: "s1".into(), ack_id: String::new() },
        ),
    ] {
        let incoming = understood(&message);
        assert_eq!((incoming.dialect, incoming.command), (dialect, command), "{message}");
    }
    assert_eq!(understood(&json!({"type": "ping"})).command, Command::Ping);
}

#[test]
fn messages_for_others_are_let_pass() {
    let unknown = |kind: &str| understood(&json!({"type": kind, "streamId": 5, "mId": 1})).command;
    assert_eq!(unknown("connection_ack"), Command::Unknown { kind: "connection_ack".into() });
    assert_eq!(unknown(&"é\n".repeat(100)), Command::Unknown { kind: "é".repeat(MAX_KIND) });
}

#[test]
fn what_cannot_be_obeyed_is_answered_with_mentraos_word() {
    let long = "x".repeat(MAX_ID + 1);
    for (message, code, cause, detail) in [
        (json!({"type": "start_rtmp_stream"}), "missing_rtmp_url", Cause::InvalidRequest, "names no stream URL"),
        (json!({"type": "start_stream", "rtmpUrl": ""}), "missing_stream_url", Cause::InvalidRequest, "names no"),
        (
            json!({"type": "start_stream", "srtUrl": "srt://h:1?passphrase=s3cret"}),
            "Unknown stream URL protocol",
            Cause::InvalidUrl,
            "rtmp://",
        ),
        (
            with(rtmp_start(), "rtmpUrl", json!("https://h/whip/s3cret")),
            "Unknown stream URL protocol",
            Cause::InvalidUrl,
            "rtmp://",
        ),
        (with(rtmp_start(), "rtmpUrl", json!("rtmp://h:x/a/s3cret")), "invalid_url", Cause::InvalidUrl, "port"),
        (with(rtmp_start(), "rtmpUrl", json!(["s3cret"])), "json_error", Cause::InvalidRequest, "rtmpUrl must be a"),
        (with(rtmp_start(), "video", json!({"w": "s3cret"})), "json_error", Cause::InvalidRequest, "video.w must be"),
        (with(rtmp_start(), "stream", json!(3)), "json_error", Cause::InvalidRequest, "stream must be an object"),
        (with(rtmp_start(), "appId", json!(long)), "invalid_id", Cause::InvalidRequest, "appId"),
        (with(rtmp_start(), "flash", json!("yes")), "json_error", Cause::InvalidRequest, "flash must be true or"),
        (json!({"type": "keep_stream_alive"}), "missing_stream_id", Cause::InvalidRequest, "keep-alive"),
        (json!({"streamId": "s1"}), "json_error", Cause::InvalidRequest, "type"),
        (json!([1, 2]), "json_error", Cause::InvalidRequest, "object"),
    ] {
        let error = refused(&message);
        assert_eq!((error.code.as_str(), error.cause), (code, cause), "{message}");
        assert!(error.detail.contains(detail), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[test]
fn an_error_names_the_message_and_the_stream_it_answers() {
    let error = refused(&with(stream_start(), "streamUrl", json!("")));
    assert_eq!((error.stream_id.as_deref(), error.message_id), (Some("mabc"), Some(7)));
    assert_eq!(error.dialect, Dialect::Stream);

    for bad in [json!("a\u{7}b"), json!("x".repeat(MAX_ID + 1)), json!(12)] {
        let error = refused(&with(stream_start(), "streamId", bad));
        assert_eq!((error.stream_id, error.message_id), (None, Some(7)));
    }
    assert_eq!(started(&with(rtmp_start(), "streamId", json!("é".repeat(MAX_ID)))).stream_id.len(), 2 * MAX_ID);

    // An error with the stream's id would make the cloud end the live stream.
    let error = refused(&json!({"type": "keep_stream_alive", "streamId": "s1", "ackId": 5}));
    assert_eq!(error.stream_id, None);
}

#[test]
fn a_text_that_is_no_json_is_answered_in_the_dialect_it_seems_to_speak() {
    let error = parse(r#"{"type":"start_rtmp_stream","rtmpUrl":"rtmp://h/a/s3cret""#).unwrap_err();
    assert_eq!((error.dialect, error.code.as_str()), (Dialect::Rtmp, "json_error"));
    assert!(!error.to_string().contains("s3cret"));
    assert_eq!(parse("").unwrap_err().dialect, Dialect::Stream);
    assert_eq!(parse(&"[".repeat(1000)).unwrap_err().code, "json_error");
}

#[test]
fn a_message_too_long_is_refused() {
    let fitting = with(rtmp_start(), "pad", json!("")).to_string();
    let pad = |n: usize| with(rtmp_start(), "pad", json!("x".repeat(n))).to_string();
    assert!(parse(&pad(MAX_MESSAGE - fitting.len())).is_ok());
    let error = parse(&pad(MAX_MESSAGE - fitting.len() + 1)).unwrap_err();
    assert_eq!((error.code.as_str(), error.dialect), ("message_too_long", Dialect::Rtmp));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
        "rtmps?://[a-z:@]{0,5}/[a-z/?]{0,8}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "streamUrl",
        "rtmpUrl",
        "srtUrl",
        "streamId",
        "ackId",
        "appId",
        "mId",
        "video",
        "v",
        "audio",
        "a",
        "stream",
        "durationLimit",
        "width",
        "w",
        "fps",
        "sr",
        "ec",
        "silent",
        "flash",
    ]);
    leaf.prop_recursive(2, 24, 12, move |inner| {
        prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..12)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*") {
        let _ = parse(&text);
    }

    #[test]
    fn no_message_panics(
        mut message in any_json(),
        kind in prop::sample::select(vec!["start_rtmp_stream", "start_stream", "stop_stream", "keep_stream_alive"]),
    ) {
        if message.is_object() {
            message["type"] = kind.into();
        }
        let _ = parse(&message.to_string());
    }

    #[test]
    fn no_error_echoes_a_key(key in "[A-Z]{12}", broken in 0..4) {
        let good = format!("rtmp://user:{key}@h/app/{key}?t={key}");
        let text = match broken {
            0 => good.replace("@h", "@h:no"),
            1 => good.replace("rtmp:", "srt:"),
            2 => format!("{good} "),
            _ => good.replace("@h", "@"),
        };
        let error = refused(&with(rtmp_start(), "rtmpUrl", json!(text)));
        prop_assert!(!format!("{error:?} {error}").contains(&key), "{error:?}");
        let fine = understood(&with(rtmp_start(), "rtmpUrl", json!(good)));
        prop_assert!(!format!("{fine:?}").contains(&key), "{fine:?}");
    }
}
