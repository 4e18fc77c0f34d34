use super::*;
use crate::protocol::StreamKind;
use proptest::prelude::*;

fn error(line: &str) -> String {
    Request::parse(line.as_bytes()).unwrap_err().to_string()
}

#[test]
fn reads_a_request_as_a_person_types_it() {
    let request = Request::parse(br#"{"cmd":"start","url":"rtmp://h/live/k","kind":"managed","video":{"width":640}}"#);
    let Ok(Request::Start(start)) = request else { panic!("{request:?}") };
    assert_eq!(start.url, "rtmp://h/live/k");
    assert_eq!(start.kind, Some(StreamKind::Managed));
    assert_eq!(start.video, Some(VideoWish { width: Some(640), ..VideoWish::default() }));
    assert_eq!(Request::parse(b"{\"cmd\":\"camera_acquire\"}\n"), Ok(Request::CameraAcquire { program: None }));
    assert_eq!(Request::parse(br#"{"cmd":"stop","stream_id":null}"#), Ok(Request::Stop { stream_id: None }));
}

#[test]
fn an_error_names_the_field() {
    assert_eq!(error(r#"{"cmd":"status","color":1}"#), r#"unknown field "color""#);
    assert_eq!(error(r#"{"cmd":"start","url":"x","video":{"fps":30}}"#), r#"unknown field "video.fps""#);
    assert_eq!(error(r#"{"cmd":"start","url":"x","video":{"width":"9"}}"#), "video.width must be a whole number");
    assert_eq!(error(r#"{"cmd":"start","url":"x","audio":{"bitrate":-1}}"#), "audio.bitrate must be a whole number");
    assert_eq!(error(r#"{"cmd":"start","url":"x","audio":7}"#), "audio must be an object");
    assert_eq!(error(r#"{"cmd":"start"}"#), "url is missing");
    assert!(error("{}").starts_with("cmd is missing"));
    assert!(error(r#"{"cmd":"fly"}"#).contains("camera_acquire"));
    assert!(error(r#"{"cmd":"#).starts_with("not JSON"));
}

#[test]
fn a_key_is_never_repeated() {
    let start = Request::parse(br#"{"cmd":"start","url":"rtmp://h/live/SECRET"}"#).unwrap();
    assert!(!format!("{start:?}").contains("SECRET"));
    for misplaced in [
        r#"{"cmd":"rtmp://h/live/SECRET"}"#,
        r#"{"cmd":"start","url":["rtmp://h/live/SECRET"]}"#,
        r#"{"cmd":"start","url":"x","kind":"rtmp://h/live/SECRET"}"#,
        r#"{"cmd":"start","url":"x","video":"rtmp://h/live/SECRET"}"#,
        r#"{"cmd":"start","url":"x","target":"rtmp://h/live/SECRET"}"#,
        r#"{"cmd":"start","url":"rtmp://h/live/SECRET","duration_s":"rtmp://h/live/SECRET"}"#,
        r#""rtmp://h/live/SECRET""#,
        r#"{"cmd":"start","url":"rtmp://h/live/SECRET"#,
    ] {
        assert!(!error(misplaced).contains("SECRET"), "{}", error(misplaced));
    }
}

#[test]
fn a_refusal_keeps_cause_and_owner() {
    let owner = Owner { kind: super::super::OwnerKind::Process, name: "zbar".into(), pid: Some(7), for_s: Some(3) };
    let refusal = Refusal::from(Failure::held_by(owner, Cause::CameraBusy));
    assert_eq!(refusal.message, "the camera is in use: program zbar (pid 7) for 3 s");
    let line = reply_line(&Err(refusal.clone()));
    assert!(line.starts_with(br#"{"ok":false,"error":{"cause":"camera_busy","#));
    assert_eq!(parse_reply::<Done>(&line).unwrap(), Err(refusal));
}

#[test]
fn a_reply_is_one_line_with_ok_first() {
    let line = reply_line(&Ok(Answer::Lease(Lease { lease: 4, device: "/dev/video0".into() })));
    assert_eq!(line, b"{\"ok\":true,\"lease\":4,\"device\":\"/dev/video0\"}\n");
    let line = reply_line(&Ok(Answer::Photo(vec![0; 321])));
    assert_eq!(parse_reply::<PhotoHeader>(&line).unwrap(), Ok(PhotoHeader { length: 321 }));
    assert_eq!(reply_line(&Ok(Answer::Done)), b"{\"ok\":true}\n");
    assert!(parse_reply::<Lease>(b"{\"ok\":true}\n").is_err());
}

#[test]
fn events_are_told_apart_by_their_tag() {
    let report = ReportLine {
        stream_id: "s1".into(),
        state: StreamState::Reconnecting,
        failure: Some(Failure::new(Cause::NetworkStalled, "no ack")),
        attempt: 2,
        retry_in_ms: Some(340),
    };
    assert_eq!(
        String::from_utf8(Event::Report(report).line()).unwrap(),
        "{\"event\":\"report\",\"stream_id\":\"s1\",\"state\":\"reconnecting\",\"cause\":\"network_stalled\",\
         \"detail\":\"no ack\",\"attempt\":2,\"retry_in_ms\":340}\n"
    );
    assert_eq!(Event::Lagged.line(), b"{\"event\":\"lagged\"}\n");
    let state = Event::State { state: Box::default() };
    assert_eq!(serde_json::from_slice::<Event>(&state.line()).unwrap(), state);
}

#[test]
fn counters_are_told_from_news() {
    let idle = DaemonState::default();
    let later = DaemonState { uptime_s: 5, ..DaemonState::default() };
    assert!(only_counters_differ(&idle, &later));
    let mut opened = later.clone();
    opened.camera.generation = 1;
    assert!(!only_counters_differ(&later, &opened));
    let ended = super::super::StreamEnd {
        stream_id: "s1".into(),
        state: StreamState::Error,
        failure: Cause::CameraLost.into(),
    };
    assert!(!only_counters_differ(&later, &DaemonState { last_end: Some(ended), ..later.clone() }));
}

proptest! {
    #[test]
    fn what_a_client_writes_the_daemon_reads(
        url in ".*", app in proptest::option::of(".*"), stream_id in proptest::option::of(".*"),
        managed in proptest::option::of(any::<bool>()), video in proptest::option::of(any::<[Option<u32>; 4]>()),
        audio in proptest::option::of(any::<[Option<u32>; 2]>()), duration_s in any::<Option<u64>>(),
    ) {
        let request = Request::Start(Start {
            url, app, stream_id,
            kind: managed.map(|m| if m { StreamKind::Managed } else { StreamKind::Unmanaged }),
            video: video.map(|[width, height, bitrate, frame_rate]| VideoWish { width, height, bitrate, frame_rate }),
            audio: audio.map(|[bitrate, sample_rate]| AudioWish { bitrate, sample_rate }),
            duration_s,
        });
        let line = serde_json::to_vec(&request).unwrap();
        prop_assert!(!line.contains(&b'\n'));
        prop_assert_eq!(Request::parse(&line), Ok(request));
    }

    #[test]
    fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&line);
    }
}
