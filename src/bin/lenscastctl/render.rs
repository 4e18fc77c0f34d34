//! The daemon's answers as text. Pure: state in, text out.

mod board;

use lenscast::protocol::control::{CameraInfo, DoctorLine, Level, ReportLine};
use lenscast::protocol::{CameraState, DaemonState, Failure, Owner, StreamKind, StreamSnapshot, StreamState};

use crate::text::{Row, Tone, bitrate, clean, duration};

/// The whole state, for `status` and at the top of the live view.
pub fn state(state: &DaemonState) -> Vec<Row> {
    let mut rows = vec![
        Row::new("daemon")
            .with(Tone::Plain, format!("lenscastd {}", state.version))
            .with(Tone::Dim, format!("up {}", duration(state.uptime_s))),
    ];
    match &state.stream {
        Some(stream) => rows.extend(stream_rows(stream)),
        None => rows.push(Row::new("stream").with(Tone::Dim, "none")),
    }
    if let Some(end) = &state.last_end
        && state.stream.is_none()
    {
        let tone = if end.state == StreamState::Error { Tone::Bad } else { Tone::Dim };
        rows.push(
            Row::new("last")
                .with(Tone::Plain, &end.stream_id)
                .with(tone, end.state.name())
                .with(tone, end.failure.explain())
                .with(Tone::Dim, format!("({})", end.failure.cause)),
        );
    }
    rows.extend(camera_rows(state));
    rows.extend(board::rows(&state.board));
    rows.push(match &state.owner {
        Some(owner) => Row::new("owner").with(Tone::Plain, owner.to_string()),
        None => Row::new("owner").with(Tone::Dim, "nobody"),
    });
    rows
}

fn stream_rows(stream: &StreamSnapshot) -> Vec<Row> {
    let kind = match stream.kind {
        StreamKind::Unmanaged => "unmanaged",
        StreamKind::Managed => "managed",
    };
    let mut first = Row::new("stream")
        .with(stream_tone(stream.state), stream.state.name())
        .with(Tone::Plain, &stream.stream_id)
        .with(Tone::Dim, kind)
        .with(Tone::Dim, &stream.app);
    if stream.attempt > 0 {
        first = first.with(Tone::Warn, format!("attempt {}", stream.attempt));
    }
    let mut rows = vec![first];
    if let Some(failure) = &stream.failure {
        rows.push(
            Row::new("cause")
                .with(stream_tone(stream.state), failure.explain())
                .with(Tone::Dim, format!("({})", failure.cause)),
        );
    }
    rows.push(Row::new("to").with(Tone::Plain, &stream.url));
    let metrics = &stream.metrics;
    let picture = if metrics.width > 0 { format!("{}x{}", metrics.width, metrics.height) } else { String::new() };
    rows.push(
        Row::new("media")
            .with(Tone::Plain, bitrate(metrics.bitrate))
            .with(Tone::Plain, format!("{:.1} fps", metrics.fps))
            .with(Tone::Plain, picture)
            .with(queue_tone(metrics.queue_ms), format!("queue {} ms", metrics.queue_ms))
            .with(Tone::Plain, format!("rtt {:.0} ms", metrics.rtt_ms)),
    );
    let dropped = if metrics.dropped_frames > 0 { Tone::Warn } else { Tone::Plain };
    rows.push(
        Row::new("frames")
            .with(Tone::Plain, format!("{} sent", metrics.sent_frames))
            .with(dropped, format!("{} dropped", metrics.dropped_frames))
            .with(Tone::Plain, format!("live {}", duration(metrics.duration_s)))
            .with(Tone::Dim, publications(stream.publications)),
    );
    rows
}

fn publications(count: u32) -> String {
    format!("{count} publication{}", if count == 1 { "" } else { "s" })
}

/// The gate drops pictures when a second of media waits; half of that deserves a warning.
fn queue_tone(queue_ms: u64) -> Tone {
    match queue_ms {
        0..500 => Tone::Plain,
        500..1_000 => Tone::Warn,
        _ => Tone::Bad,
    }
}

fn stream_tone(state: StreamState) -> Tone {
    match state {
        StreamState::Streaming => Tone::Good,
        StreamState::Initializing | StreamState::Connecting | StreamState::Reconnecting => Tone::Warn,
        StreamState::Stopping | StreamState::Stopped => Tone::Dim,
        StreamState::Error => Tone::Bad,
    }
}

fn camera_rows(state: &DaemonState) -> Vec<Row> {
    let camera = &state.camera;
    let tone = match camera.state {
        CameraState::Closed => Tone::Dim,
        CameraState::Opening => Tone::Warn,
        CameraState::Running => Tone::Good,
        CameraState::Lost => Tone::Bad,
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut rows = vec![
        Row::new("camera")
            .with(tone, camera_name(camera.state))
            .with(tone, because(camera.failure.as_ref()).trim_start_matches(": "))
            .with(Tone::Plain, text(&camera.device))
            .with(Tone::Plain, text(&camera.name))
            .with(Tone::Plain, text(&camera.mode)),
    ];
    let using = [("video", &camera.encoder), ("audio", &camera.audio)];
    rows.extend(using.into_iter().filter_map(|(label, what)| {
        let row = Row::new(label).with(Tone::Plain, what.as_ref()?);
        Some(if label == "video" && camera.zero_copy { row.with(Tone::Plain, "zero-copy") } else { row })
    }));
    rows
}

fn camera_name(state: CameraState) -> &'static str {
    match state {
        CameraState::Closed => "closed",
        CameraState::Opening => "opening",
        CameraState::Running => "running",
        CameraState::Lost => "lost",
    }
}

/// A report as one line: for pipes, and for the last lines of the live view.
pub fn report(report: &ReportLine) -> String {
    let state = report.state.name();
    let attempt = match (report.state, report.attempt) {
        (_, 0) => String::new(),
        (StreamState::Streaming, retry) => format!(" again, at attempt {retry}"),
        (_, retry) => format!(", attempt {retry}"),
    };
    let next = report.retry_in_ms.map_or_else(String::new, |delay| format!(", next in {delay} ms"));
    clean(&format!("stream {} {state}{}{attempt}{next}", report.stream_id, because(report.failure.as_ref())))
}

/// `: the reason (its_name)`, or nothing.
pub fn because(failure: Option<&Failure>) -> String {
    failure.map_or_else(String::new, |failure| format!(": {} ({})", failure.explain(), failure.cause))
}

/// News of camera and owner, one line each; everything if there is no `old`. Streams have their own reports.
pub fn changes(old: Option<&DaemonState>, new: &DaemonState) -> Vec<String> {
    let mut lines = Vec::new();
    let camera = |state: &DaemonState| {
        let camera = &state.camera;
        let named = [&camera.device, &camera.name, &camera.mode, &camera.encoder, &camera.audio];
        let parts = [camera_name(camera.state)].into_iter().chain(named.into_iter().flatten().map(String::as_str));
        format!("camera {}{}", parts.collect::<Vec<_>>().join(", "), because(camera.failure.as_ref()))
    };
    let owner = |state: &DaemonState| match &state.owner {
        // Without the age, which changes every second.
        Some(owner) => {
            format!("owner {}", Owner { for_s: None, ..owner.clone() })
        }
        None => "owner nobody".into(),
    };
    if old.map(camera) != Some(camera(new)) {
        lines.push(clean(&camera(new)));
    }
    if old.map(owner) != Some(owner(new)) {
        lines.push(clean(&owner(new)));
    }
    lines.extend(board::changes(old.map(|state| &state.board), &new.board));
    lines
}

/// The stream as one line, where no report covers it: at first, and after reports were lost.
pub fn stream(state: &DaemonState) -> String {
    clean(&match (&state.stream, &state.last_end) {
        (Some(stream), _) => {
            format!("stream {} {}{}", stream.stream_id, stream.state.name(), because(stream.failure.as_ref()))
        }
        (None, Some(end)) => {
            format!("stream {} {}{}", end.stream_id, end.state.name(), because(Some(&end.failure)))
        }
        (None, None) => "stream none".into(),
    })
}

/// The rows for `camera list`.
pub fn cameras(cameras: &[CameraInfo]) -> Vec<Row> {
    if cameras.is_empty() {
        return vec![Row::new("").with(Tone::Bad, "no camera found; `lenscastctl doctor` says more")];
    }
    let one = |camera: &CameraInfo| {
        let mut rows = vec![
            Row::new("camera")
                .with(Tone::Good, &camera.node)
                .with(Tone::Plain, &camera.name)
                .with(Tone::Dim, &camera.kind),
            Row::new("identity").with(Tone::Plain, &camera.identity),
        ];
        let modes = Row::new("modes");
        rows.push(match camera.modes.as_slice() {
            [] => modes.with(Tone::Warn, "none"),
            some => some.iter().fold(modes, |row, mode| row.with(Tone::Plain, mode)),
        });
        if let Some(holder) = &camera.holder {
            rows.push(Row::new("in use").with(Tone::Warn, holder.to_string()));
        }
        rows
    };
    cameras.iter().flat_map(one).collect()
}

/// The rows for `doctor`.
pub fn doctor(lines: &[DoctorLine]) -> Vec<Row> {
    let one = |line: &DoctorLine| {
        let (label, tone) = match line.level {
            Level::Ok => ("ok", Tone::Good),
            Level::Warn => ("warning", Tone::Warn),
            Level::Fail => ("FAILED", Tone::Bad),
        };
        Row::new(label).with(tone, &line.subject).with(Tone::Plain, &line.text)
    };
    lines.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lenscast::protocol::{BoardSnapshot, CameraSnapshot, Cause, Metrics, OwnerKind, StreamEnd};

    fn live() -> DaemonState {
        DaemonState {
            version: "0.1.0".into(),
            protocol: 1,
            uptime_s: 11_520,
            stream: Some(StreamSnapshot {
                stream_id: "s1".into(),
                app: "com.example.live".into(),
                kind: StreamKind::Unmanaged,
                state: StreamState::Streaming,
                failure: None,
                url: "rtmp://host/live/***".into(),
                attempt: 0,
                publications: 1,
                metrics: Metrics {
                    bitrate: 1_920_000,
                    fps: 29.97,
                    width: 1280,
                    height: 720,
                    sent_frames: 5321,
                    dropped_frames: 4,
                    duration_s: 177,
                    queue_ms: 40,
                    rtt_ms: 22.6,
                },
            }),
            last_end: None,
            camera: CameraSnapshot {
                state: CameraState::Running,
                device: Some("/dev/video0".into()),
                mode: Some("1280x720 NV12 30/1".into()),
                encoder: Some("x264".into()),
                ..CameraSnapshot::default()
            },
            owner: Some(Owner {
                kind: OwnerKind::Unmanaged,
                name: "com.example.live".into(),
                pid: None,
                for_s: Some(177),
            }),
            board: BoardSnapshot::default(),
        }
    }

    fn text(rows: &[Row], width: usize) -> String {
        rows.iter().flat_map(|row| row.lines(width, false)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_live_stream_is_shown_in_full() {
        assert_eq!(
            text(&state(&live()), 100),
            "\
daemon   lenscastd 0.1.0  up 3 h 12 min
stream   streaming  s1  unmanaged  com.example.live
to       rtmp://host/live/***
media    1.92 Mbit/s  30.0 fps  1280x720  queue 40 ms  rtt 23 ms
frames   5321 sent  4 dropped  live 2 min 57 s  1 publication
camera   running  /dev/video0  1280x720 NV12 30/1
video    x264
owner    stream of com.example.live for 177 s"
        );
    }

    #[test]
    fn an_outage_says_why_and_which_attempt() {
        let mut state_now = live();
        let stream = state_now.stream.as_mut().unwrap();
        (stream.state, stream.failure, stream.attempt) =
            (StreamState::Reconnecting, Some(Cause::ServerFrozen.into()), 3);
        let shown = text(&state(&state_now), 100);
        for part in ["reconnecting", "attempt 3", "no longer reads", "(server_frozen)"] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn an_idle_daemon_tells_how_the_last_stream_ended() {
        let end = StreamEnd {
            stream_id: "s9".into(),
            state: StreamState::Error,
            failure: Failure::new(Cause::CameraLost, "usb-1 is gone"),
        };
        let idle = DaemonState { last_end: Some(end), ..DaemonState::default() };
        let shown = text(&state(&idle), 100);
        for part in ["none", "s9", "error", "usb-1 is gone", "(camera_lost)", "closed", "nobody"] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn a_report_reads_as_a_sentence() {
        let line = ReportLine {
            stream_id: "s1".into(),
            state: StreamState::Reconnecting,
            failure: Some(Cause::NetworkStalled.into()),
            attempt: 2,
            retry_in_ms: Some(340),
        };
        assert_eq!(
            report(&line),
            "stream s1 reconnecting: the network no longer carries data to the server (network_stalled), attempt 2, next \
             in 340 ms"
        );
        let back = ReportLine { state: StreamState::Streaming, failure: None, retry_in_ms: None, ..line };
        assert_eq!(report(&back), "stream s1 streaming again, at attempt 2");
        assert_eq!(report(&ReportLine { attempt: 0, ..back }), "stream s1 streaming");
    }

    #[test]
    fn only_news_makes_a_line() {
        let first = live();
        assert_eq!(changes(None, &first).len(), 2);
        let mut later = first.clone();
        later.uptime_s += 1;
        later.owner.as_mut().unwrap().for_s = Some(178);
        later.camera.frames += 30;
        assert_eq!(changes(Some(&first), &later), Vec::<String>::new());
        later.camera.state = CameraState::Lost;
        later.camera.failure = Some(Cause::CameraLost.into());
        assert_eq!(changes(Some(&first), &later).len(), 1);
        assert!(changes(Some(&first), &later)[0].contains("camera_lost"));
        later.owner = None;
        assert_eq!(changes(Some(&first), &later)[1], "owner nobody");
    }

    #[test]
    fn the_stream_line_falls_back_to_its_end() {
        assert_eq!(stream(&DaemonState::default()), "stream none");
        assert_eq!(stream(&live()), "stream s1 streaming");
        let end = StreamEnd { stream_id: "s1".into(), state: StreamState::Stopped, failure: Cause::Requested.into() };
        let ended = DaemonState { last_end: Some(end), ..DaemonState::default() };
        assert_eq!(stream(&ended), "stream s1 stopped: stopped on request (requested)");
    }

    #[test]
    fn a_camera_in_use_names_its_holder() {
        let camera = CameraInfo {
            node: "/dev/video2".into(),
            identity: "usb-1".into(),
            name: "HD Webcam".into(),
            kind: "usb".into(),
            modes: vec!["1280x720 MJPG 30/1".into(), "640x480 YUYV 30/1".into()],
            holder: Some(Owner { kind: OwnerKind::Foreign, name: "zoom".into(), pid: Some(42), for_s: None }),
        };
        let shown = text(&cameras(&[camera]), 40);
        assert_eq!(
            shown,
            "\
camera   /dev/video2  HD Webcam  usb
identity usb-1
modes    1280x720 MJPG 30/1
         640x480 YUYV 30/1
in use   program zoom (pid 42)"
        );
        assert!(text(&cameras(&[]), 80).contains("doctor"));
    }
}
