//! The cloud's answers as text for people. Pure.

use lenscast::cloud::accounts::Origin;
use lenscast::cloud::control::{AppInfo, DeviceInfo, Event, StreamInfo};
use lenscast::protocol::StreamKind;

use crate::text::{Row, Tone, clean};

/// The output of `cloud app list`.
pub fn apps(apps: &[AppInfo]) -> Vec<Row> {
    if apps.is_empty() {
        return vec![Row::new("").with(Tone::Dim, "no apps; add one with `lenscastctl cloud app add`")];
    }
    let one = |app: &AppInfo| {
        let first = Row::new("app").with(Tone::Good, &app.package);
        let first = app.permissions.iter().fold(first, |row, permission| row.with(Tone::Plain, permission.name()));
        let mut rows = vec![first.with(Tone::Dim, origin(app.origin))];
        if let Some(url) = &app.webhook_url {
            rows.push(Row::new("webhook").with(Tone::Plain, url));
        }
        let sessions = app.sessions.iter().map(|session| {
            let (tone, word) = connected(session.connected);
            Row::new("for").with(Tone::Plain, &session.user).with(tone, word)
        });
        rows.extend(sessions);
        rows
    };
    apps.iter().flat_map(one).collect()
}

/// The output of `cloud device list`.
pub fn devices(devices: &[DeviceInfo]) -> Vec<Row> {
    if devices.is_empty() {
        return vec![Row::new("").with(Tone::Dim, "no glasses; add some with `lenscastctl cloud device add`")];
    }
    let one = |device: &DeviceInfo| {
        let (tone, word) = connected(device.connected);
        let row = Row::new("device").with(Tone::Good, &device.name).with(Tone::Plain, &device.user);
        row.with(tone, word).with(Tone::Dim, origin(device.origin))
    };
    devices.iter().map(one).collect()
}

/// The output of `cloud streams`.
pub fn streams(streams: &[StreamInfo]) -> Vec<Row> {
    if streams.is_empty() {
        return vec![Row::new("").with(Tone::Dim, "no streams")];
    }
    streams.iter().flat_map(stream).collect()
}

fn stream(stream: &StreamInfo) -> Vec<Row> {
    let kind = match stream.kind {
        StreamKind::Unmanaged => "unmanaged",
        StreamKind::Managed => "managed",
    };
    let mut rows = vec![
        Row::new("stream")
            .with(status_tone(&stream.status), &stream.status)
            .with(Tone::Plain, &stream.stream_id)
            .with(Tone::Dim, kind)
            .with(Tone::Plain, &stream.user)
            .with(Tone::Dim, &stream.since),
    ];
    if let Some(message) = &stream.message {
        rows.push(Row::new("").with(Tone::Plain, message));
    }
    if !stream.apps.is_empty() {
        rows.push(stream.apps.iter().fold(Row::new("apps"), |row, app| row.with(Tone::Plain, app)));
    }
    if stream.kind == StreamKind::Managed {
        rows.push(Row::new("viewers").with(Tone::Plain, stream.viewers.to_string()));
    }
    let urls = [
        ("watch", &stream.watch_url),
        ("hls", &stream.hls_url),
        ("dash", &stream.dash_url),
        ("webrtc", &stream.webrtc_url),
    ];
    rows.extend(urls.iter().filter_map(|(label, url)| Some(Row::new(label).with(Tone::Plain, url.as_ref()?))));
    let outputs = stream.outputs.iter().map(|output| {
        let row = Row::new("output").with(status_tone(&output.status), &output.status).with(Tone::Plain, &output.name);
        row.with(Tone::Bad, output.error.as_deref().unwrap_or_default())
    });
    rows.extend(outputs);
    rows
}

/// The output of `cloud watch`, in a pipe or on a terminal: one line per event.
pub fn event(event: &Event) -> Vec<String> {
    match event {
        Event::State(state) if state.streams.is_empty() => vec!["no streams".into()],
        Event::State(state) => state.streams.iter().map(stream_line).collect(),
        Event::Stream { stream } => vec![stream_line(stream)],
        Event::Ended { stream_id, status, message } => {
            let message = message.as_deref().map_or_else(String::new, |message| format!(": {message}"));
            vec![clean(&format!("stream {stream_id} {status}{message}"))]
        }
        Event::Note { text } => vec![clean(text)],
    }
}

fn stream_line(stream: &StreamInfo) -> String {
    let message = stream.message.as_deref().map_or_else(String::new, |message| format!(": {message}"));
    let StreamInfo { stream_id, user, status, viewers, .. } = stream;
    clean(&format!("stream {stream_id} of {user} {status}, {viewers} viewers{message}"))
}

fn status_tone(status: &str) -> Tone {
    match status {
        "active" => Tone::Good,
        "error" | "timeout" => Tone::Bad,
        "stopped" => Tone::Dim,
        _ => Tone::Warn,
    }
}

fn connected(connected: bool) -> (Tone, &'static str) {
    if connected { (Tone::Good, "connected") } else { (Tone::Dim, "not connected") }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Config => "in the configuration",
        Origin::Store => "",
    }
}

#[cfg(test)]
mod tests {
    use lenscast::cloud::accounts::Permission;
    use lenscast::cloud::control::{OutputInfo, SessionInfo, Streams};

    use super::*;

    fn text(rows: &[Row]) -> String {
        rows.iter().flat_map(|row| row.lines(200, false)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_person_sees_who_runs_where_and_how_to_watch() {
        let stream = StreamInfo {
            stream_id: "m1".into(),
            user: "u@e.com".into(),
            kind: StreamKind::Managed,
            status: "active".into(),
            message: None,
            apps: vec!["org.one\x1b[2J".into()],
            viewers: 3,
            since: "2026-01-01T00:00:00Z".into(),
            watch_url: Some("http://h/watch/x".into()),
            hls_url: None,
            dash_url: None,
            webrtc_url: None,
            outputs: vec![OutputInfo { name: "YT".into(), status: "error".into(), error: Some("refused".into()) }],
        };
        let shown = text(&streams(std::slice::from_ref(&stream)));
        for part in ["active  m1", "u@e.com", "org.one", "viewers  3", "http://h/watch/x", "error  YT  refused"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(!shown.contains('\x1b'));
        let lines = event(&Event::State(Streams { streams: vec![stream] }));
        assert_eq!(lines, ["stream m1 of u@e.com active, 3 viewers"]);
        assert!(text(&streams(&[])).contains("no streams"));
    }

    #[test]
    fn lists_say_what_to_do_when_they_are_empty() {
        assert!(text(&apps(&[])).contains("app add") && text(&devices(&[])).contains("device add"));
        let app = AppInfo {
            package: "org.one".into(),
            permissions: [Permission::Camera].into(),
            webhook_url: Some("http://h/webhook".into()),
            origin: Origin::Config,
            sessions: vec![SessionInfo { user: "u".into(), connected: true }],
        };
        let shown = text(&apps(&[app]));
        for part in ["org.one  CAMERA  in the configuration", "http://h/webhook", "u  connected"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}
