//! Messages between phone, cloud, glasses, apps and `lenscastctl`.

use serde_json::{Value, json};

use crate::fuzz_input::{SECRET, assert_hidden};
use crate::protocol::app::{self, AppRequest};
use crate::protocol::control::{
    Cameras, Checkup, Event, Holder, Lease, PhotoHeader, Request, Start, Started, Status, parse_reply,
};
use crate::protocol::glasses::{self, GlassesCommand, GlassesMessage, GlassesStatus};
use crate::protocol::{AudioSettings, Command, Dialect, StartStream, VideoSettings, command, photo};

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

fn assert_short(text: &str, most: usize) {
    assert!(text.chars().count() <= most && !text.chars().any(char::is_control), "{text:?}");
}

/// A command of the phone or cloud to the glasses.
pub fn command(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let incoming = match command::parse(text) {
        Ok(incoming) => incoming,
        Err(error) => {
            assert_hidden(&error.to_string());
            return error.stream_id.iter().for_each(|id| assert_short(id, 256));
        }
    };
    match incoming.command {
        Command::Start(start) => check_start(&start),
        Command::Stop { stream_id, app } => {
            assert_short(&app, 256);
            if let Some(stream_id) = stream_id {
                let again = Command::Stop { stream_id: Some(stream_id.clone()), app: app.clone() };
                sent_again(&GlassesCommand::Stop { stream_id, app }, |got| assert_eq!(got, again));
            }
        }
        Command::KeepAlive { stream_id, ack_id } => {
            assert_short(&ack_id, 256);
            let again = Command::KeepAlive { stream_id: stream_id.clone(), ack_id: ack_id.clone() };
            sent_again(&GlassesCommand::KeepAlive { stream_id, ack_id }, |got| assert_eq!(got, again));
        }
        Command::Photo { request_id, app } => {
            assert!(!request_id.is_empty());
            assert_short(&request_id, 256);
            assert_short(&app, 256);
        }
        Command::Unknown { kind } => assert_short(&kind, 64),
        Command::GetStatus | Command::Ping | Command::PhoneReady => {}
    }
}

fn check_start(start: &StartStream) {
    let StartStream { url, stream_id, app, video, audio, duration_limit, .. } = start;
    assert_short(stream_id, 256);
    assert_short(app, 256);
    assert!((320..=1920).contains(&video.width) && (240..=1080).contains(&video.height), "{video:?}");
    assert!(video.width.is_multiple_of(2) && video.height.is_multiple_of(2), "{video:?}");
    assert!((10..=60).contains(&video.frame_rate) && (100_000..=10_000_000).contains(&video.bitrate), "{video:?}");
    assert!([22_050, 24_000, 32_000, 44_100, 48_000].contains(&audio.sample_rate), "{audio:?}");
    assert!(duration_limit.is_none_or(|limit| limit.as_secs() <= 365 * 24 * 3600));
    let command = GlassesCommand::Start {
        stream_id: stream_id.clone(),
        app: app.clone(),
        url: url.clone(),
        video: json!(video),
        audio: json!(audio),
        stream: json!({}),
        sound: start.sound,
    };
    sent_again(&command, |got| {
        let again = StartStream { duration_limit: None, flash: true, ..start.clone() };
        assert_eq!(got, Command::Start(again));
    });
}

/// Glasses of either generation understand what the cloud sends on.
fn sent_again(command: &GlassesCommand, check: impl Fn(Command)) {
    for dialect in [Dialect::Rtmp, Dialect::Stream] {
        let incoming = command::parse(&command.json(dialect).to_string()).expect("glasses understand the cloud");
        assert_eq!(incoming.dialect, dialect);
        check(incoming.command);
    }
}

/// The daemon's control socket: requests, and the answers and events as `lenscastctl` reads them.
pub fn control_request(data: &[u8]) {
    match Request::parse(data) {
        Ok(request) => {
            let line = serde_json::to_vec(&request).expect("requests are JSON");
            assert!(!line.contains(&b'\n'));
            assert_eq!(Request::parse(&line).as_ref(), Ok(&request));
            if let Request::Start(start) = request {
                let alone = Start { url: start.url, app: None, stream_id: None, kind: None, ..start };
                assert!(alone.url.len() < SECRET.len() || !format!("{alone:?}").contains(&alone.url));
            }
        }
        // The error names an unknown field; it repeats nothing else.
        Err(error) if !keys_hold_the_secret(data) => assert_hidden(&error.to_string()),
        Err(_) => {}
    }
    let _ = parse_reply::<Status>(data);
    let _ = parse_reply::<Started>(data);
    let _ = parse_reply::<PhotoHeader>(data);
    let _ = parse_reply::<Cameras>(data);
    let _ = parse_reply::<Holder>(data);
    let _ = parse_reply::<Lease>(data);
    let _ = parse_reply::<Checkup>(data);
    if let Ok(event) = serde_json::from_slice::<Event>(data) {
        let line = event.line();
        assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1));
        let again = serde_json::from_slice::<Event>(&line).expect("events are read as they are written");
        assert!(!matches!(event, Event::Report(_)) || again == event);
    }
}

fn keys_hold_the_secret(data: &[u8]) -> bool {
    fn within(value: &Value) -> bool {
        match value {
            Value::Object(fields) => fields.iter().any(|(key, value)| key.contains(SECRET) || within(value)),
            Value::Array(items) => items.iter().any(within),
            _ => false,
        }
    }
    serde_json::from_slice(data).is_ok_and(|value| within(&value))
}

/// A request of an app to the cloud.
pub fn app_request(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match app::parse(text) {
        Ok(AppRequest::StartManaged(request)) => {
            assert!(request.destinations.len() <= 10);
            for destination in &request.destinations {
                destination.name.iter().for_each(|name| assert!(name.chars().count() <= 200));
            }
            forwarded(request.video, request.audio);
        }
        Ok(AppRequest::StartUnmanaged(request)) => forwarded(request.video, request.audio),
        Ok(AppRequest::StopUnmanaged { stream_id, .. }) => stream_id.iter().for_each(|id| assert_short(id, 200)),
        Ok(AppRequest::Photo(request)) => {
            assert_short(&request.request_id, 200);
            let secrets = format!("{:?}{:?}", request.webhook_url, request.auth_token);
            assert_hidden(&secrets);
        }
        Ok(AppRequest::Other { kind }) => assert_short(&kind, 200),
        Ok(AppRequest::StopManaged | AppRequest::Check | AppRequest::Subscribe { .. }) => {}
        Err(refused) => assert_hidden(&refused.to_string()),
    }
}

/// The glasses accept whatever an app may ask for.
fn forwarded(video: Value, audio: Value) {
    let url = crate::protocol::StreamUrl::parse("rtmp://host/live/key").expect("a URL");
    let wanted = (VideoSettings::parse(&video), AudioSettings::parse(&audio));
    let start = GlassesCommand::Start {
        stream_id: "s".into(),
        app: "a".into(),
        url,
        video,
        audio,
        stream: json!({}),
        sound: true,
    };
    sent_again(&start, |got| {
        let Command::Start(got) = got else { panic!("{got:?}") };
        assert_eq!((Ok(got.video), Ok(got.audio)), wanted);
    });
}

/// A message of the glasses to the cloud.
pub fn glasses(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match glasses::parse(text).0 {
        GlassesMessage::Status(status) => check_status(&status),
        GlassesMessage::Snapshot { stream, last_end } => {
            assert!(stream.iter().all(|status| status.stream_id.is_some()));
            stream.iter().chain(&last_end).for_each(check_status);
        }
        GlassesMessage::KeepAliveAck { stream_id, ack_id } => {
            assert!(!stream_id.is_empty() && !ack_id.is_empty());
            assert_short(&stream_id, 300);
            assert_short(&ack_id, 300);
        }
        GlassesMessage::Connection { .. } | GlassesMessage::Other => {}
    }
}

fn check_status(status: &GlassesStatus) {
    for text in [&status.stream_id, &status.details, &status.cause].into_iter().flatten() {
        assert!(!text.is_empty());
        assert_short(text, 300);
    }
    if let Some(stats) = &status.stats {
        let fields = stats.as_object().expect("an object");
        assert!((4..=7).contains(&fields.len()) && fields.values().all(Value::is_number), "{stats}");
    }
}

/// The binary message of a photo.
pub fn photo_frame(data: &[u8]) {
    let Some((head, at)) = photo::parse_frame(data) else { return };
    let jpeg = &data[at..];
    assert_eq!(head.bytes, jpeg.len());
    let again = photo::frame(&head.request_id, jpeg).expect("not longer than it was");
    let (head_again, at_again) = photo::parse_frame(&again).expect("read as it is written");
    assert_eq!((head_again, &again[at_again..]), (head, jpeg));
}
