//! The program `lenscastctl` against the daemon's control socket, with a device behind it that answers as told.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lenscast::link::control::{ControlEvent, bind, serve};
use lenscast::protocol::control::{
    Answer, CameraInfo, Cameras, Checkup, DoctorLine, Event, Holder, Lease, Level, Reply, ReportLine, Request, Started,
};
use lenscast::protocol::{
    Cause, DaemonState, Failure, Metrics, Owner, OwnerKind, StreamKind, StreamSnapshot, StreamState,
};
use tokio::sync::{broadcast, mpsc, watch};

/// Far longer than anything here takes: a hang becomes a failure.
const SOON: Duration = Duration::from_secs(20);

/// A daemon without a device: `answer` stands for it.
struct Daemon {
    socket: PathBuf,
    state: watch::Sender<DaemonState>,
    reports: broadcast::Sender<ReportLine>,
    /// Requests as they come, `None` for a connection's end.
    seen: std::sync::mpsc::Receiver<Option<Request>>,
    shutdown: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
    directory: tempfile::TempDir,
}

impl Daemon {
    fn start(answer: impl Fn(&Request) -> Reply + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let (state, state_seen) = watch::channel(DaemonState { version: "9.8.7".into(), ..DaemonState::default() });
        let (reports, _) = broadcast::channel(64);
        let (shutdown, ordered) = watch::channel(false);
        let (to_test, seen) = std::sync::mpsc::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (path, sender) = (socket.clone(), reports.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (to_device, mut events) = mpsc::channel(8);
                let listener = bind(&path, None).unwrap();
                ready.send(()).unwrap();
                let device = async {
                    while let Some(event) = events.recv().await {
                        match event {
                            ControlEvent::Request { request, reply, .. } => {
                                let _ = reply.send(answer(&request));
                                let _ = to_test.send(Some(request));
                            }
                            ControlEvent::Closed { .. } => drop(to_test.send(None)),
                        }
                    }
                };
                tokio::join!(device, serve(listener, to_device, state_seen, sender, ordered));
            });
        });
        is_ready.recv_timeout(SOON).unwrap();
        Self { socket, state, reports, seen, shutdown, thread: Some(thread), directory }
    }

    fn ctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lenscastctl"));
        command.args(arguments).env("LENSCAST_SOCKET", &self.socket).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        outcome(&self.ctl(arguments).output().unwrap())
    }

    fn seen(&self) -> Option<Request> {
        self.seen.recv_timeout(SOON).unwrap()
    }

    /// Until somebody watches.
    fn wait_watched(&self) {
        let until = Instant::now() + SOON;
        while self.reports.receiver_count() == 0 {
            assert!(Instant::now() < until, "nobody watches");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(&mut self) {
        let _ = self.shutdown.send(true);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn stream(id: &str, state: StreamState) -> StreamSnapshot {
    StreamSnapshot {
        stream_id: id.into(),
        app: "lenscastctl".into(),
        kind: StreamKind::Unmanaged,
        state,
        failure: None,
        url: "rtmp://h/live/***".into(),
        attempt: 0,
        publications: 0,
        metrics: Metrics::default(),
    }
}

fn refuse(_: &Request) -> Reply {
    let owner = Owner { kind: OwnerKind::Process, name: "zbar".into(), pid: Some(77), for_s: Some(3) };
    Err(Failure::held_by(owner, Cause::CameraBusy).into())
}

/// Lines as they come, so that a test can act in between.
struct Running {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(SOON).unwrap()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Exit status and standard error.
    fn end(mut self) -> (i32, String) {
        let until = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                self.child.kill().unwrap();
                panic!("it hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (status.code().unwrap(), errors)
    }
}

#[test]
fn status_is_for_people_and_with_json_for_programs() {
    let daemon = Daemon::start(refuse);
    let (status, output, _) = daemon.run(&["status"]);
    assert_eq!(status, 0);
    assert!(output.contains("lenscastd 9.8.7") && !output.contains('\x1b'), "{output}");
    let (_, output, _) = daemon.run(&["status", "--json"]);
    let state: DaemonState = serde_json::from_str(&output).unwrap();
    assert_eq!(state.version, "9.8.7");
    assert_eq!(output.lines().count(), 1);
}

#[test]
fn without_a_daemon_it_says_what_to_do() {
    let mut daemon = Daemon::start(refuse);
    daemon.stop();
    for command in [&["status"][..], &["watch"], &["stop"], &["camera", "acquire", "--", "true"]] {
        let (status, output, errors) = daemon.run(command);
        assert_eq!((status, output.as_str()), (3, ""), "{command:?}");
        assert!(errors.contains("control.sock") && errors.contains("systemctl start lenscastd"), "{errors}");
    }
}

#[test]
fn a_refusal_names_cause_and_owner() {
    let daemon = Daemon::start(refuse);
    let (status, output, errors) = daemon.run(&["start", "rtmp://h/live/SECRET"]);
    assert_eq!((status, output.as_str()), (1, ""));
    assert!(errors.contains("(camera_busy)") && errors.contains("zbar (pid 77) for 3 s"), "{errors}");
    assert_eq!(errors.matches("zbar").count(), 1, "told once: {errors}");
    assert!(!errors.contains("SECRET"));
}

#[test]
fn wrong_usage_is_2() {
    let daemon = Daemon::start(refuse);
    for wrong in
        [&["fly"][..], &["start"], &["start", "x", "--bitrate", "fast"], &["camera", "acquire"], &["start", "-"]]
    {
        assert_eq!(daemon.run(wrong).0, 2, "{wrong:?}");
    }
    for wrong in [&["--full"][..], &["--no-unplug"], &["--full", "x", "--json"], &["--full", "x", "--minutes", "0"]] {
        assert_eq!(daemon.run(&[&["doctor"], wrong].concat()).0, 2, "doctor {wrong:?}");
    }
    assert_eq!(daemon.run(&["--help"]).0, 0);
}

#[test]
fn start_asks_for_what_was_said_and_prints_the_id() {
    let daemon = Daemon::start(|_| Ok(Answer::Started(Started { stream_id: "s42".into() })));
    let mut command =
        daemon.ctl(&["start", "-", "--managed", "--fps", "24", "--audio-bitrate", "96k", "--duration", "9"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"rtmp://h/live/key\n").unwrap();
    assert_eq!(outcome(&child.wait_with_output().unwrap()).1, "s42\n");
    let Some(Request::Start(start)) = daemon.seen() else { panic!() };
    assert_eq!(start.url, "rtmp://h/live/key");
    assert_eq!(start.video.unwrap().frame_rate, Some(24));
    assert_eq!(start.audio.unwrap().bitrate, Some(96_000));
    assert_eq!(start.duration_s, Some(9));
}

#[test]
fn start_can_wait_until_the_stream_is_live_or_ended() {
    for (last, cause, expected) in
        [(StreamState::Streaming, None, 0), (StreamState::Error, Some(Cause::PublishRejected), 1)]
    {
        let daemon = Daemon::start(|_| Ok(Answer::Started(Started { stream_id: "s1".into() })));
        daemon.state.send_modify(|state| state.stream = Some(stream("s1", StreamState::Initializing)));
        let running = Running::start(daemon.ctl(&["start", "rtmp://h/live/k", "--wait"]));
        assert_eq!(running.line(), "s1");
        daemon.wait_watched();
        let report =
            |state, failure| ReportLine { stream_id: "s1".into(), state, failure, attempt: 0, retry_in_ms: None };
        daemon.reports.send(report(StreamState::Connecting, None)).unwrap();
        daemon.reports.send(report(last, cause.map(|cause| Failure::new(cause, "its words")))).unwrap();
        let (status, errors) = running.end();
        assert_eq!(status, expected, "{errors}");
        assert!(errors.contains("connecting"), "{errors}");
        assert_eq!(errors.contains(": its words (publish_rejected)"), cause.is_some(), "{errors}");
    }
}

#[test]
fn start_waits_for_nothing_where_its_stream_is_live_already() {
    let daemon = Daemon::start(|_| Ok(Answer::Started(Started { stream_id: "s1".into() })));
    daemon.state.send_modify(|state| state.stream = Some(stream("s1", StreamState::Streaming)));
    assert_eq!(daemon.run(&["start", "rtmp://h/live/k", "--wait"]), (0, "s1\n".into(), String::new()));
}

#[test]
fn stop_passes_the_id_on() {
    let daemon = Daemon::start(|_| Ok(Answer::Done));
    assert_eq!(daemon.run(&["stop", "s7"]), (0, String::new(), String::new()));
    assert_eq!(daemon.seen(), Some(Request::Stop { stream_id: Some("s7".into()) }));
}

#[test]
fn a_photo_goes_to_file_or_output() {
    let jpeg: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let answer = jpeg.clone();
    let daemon = Daemon::start(move |_| Ok(Answer::Photo(answer.clone())));
    let file = daemon.directory.path().join("p.jpg");
    assert_eq!(daemon.run(&["photo", file.to_str().unwrap()]).0, 0);
    assert!(std::fs::read(&file).unwrap() == jpeg);
    assert!(daemon.ctl(&["photo", "-"]).output().unwrap().stdout == jpeg);
    let (status, _, errors) = daemon.run(&["photo", "/nowhere/p.jpg"]);
    assert_eq!(status, 1);
    assert!(errors.contains("/nowhere/p.jpg"), "{errors}");
}

#[test]
fn cameras_owner_and_findings_are_listed() {
    let daemon = Daemon::start(|request| {
        let owner = Owner { kind: OwnerKind::Foreign, name: "zoom".into(), pid: Some(4), for_s: Some(1) };
        match request {
            Request::CameraList => Ok(Answer::Cameras(Cameras {
                cameras: vec![CameraInfo {
                    node: "/dev/video0".into(),
                    identity: "usb-1".into(),
                    name: "Webcam".into(),
                    kind: "usb".into(),
                    modes: vec!["640x480 YUYV 30/1".into()],
                    holder: Some(owner),
                }],
            })),
            Request::CameraWho => Ok(Answer::Holder(Holder { owner: Some(owner) })),
            _ => Ok(Answer::Checkup(Checkup {
                lines: vec![DoctorLine { level: Level::Fail, subject: "encoder".into(), text: "none works".into() }],
            })),
        }
    });
    let (_, list, _) = daemon.run(&["camera", "list"]);
    assert!(list.contains("/dev/video0") && list.contains("640x480") && list.contains("zoom"), "{list}");
    let (_, list, _) = daemon.run(&["camera", "list", "--json"]);
    assert_eq!(serde_json::from_str::<Vec<CameraInfo>>(&list).unwrap()[0].identity, "usb-1");
    let (_, who, _) = daemon.run(&["camera", "who"]);
    assert_eq!(who, "program zoom (pid 4) for 1 s\n");
    let (status, findings, _) = daemon.run(&["doctor"]);
    assert_eq!(status, 1);
    assert!(findings.contains("FAILED") && findings.contains("none works"), "{findings}");
}

#[test]
fn watch_in_a_pipe_gives_a_line_for_every_change() {
    let mut daemon = Daemon::start(refuse);
    let running = Running::start(daemon.ctl(&["watch"]));
    let first: Vec<String> = (0..3).map(|_| running.line()).collect();
    assert_eq!(first, ["stream none", "camera closed", "owner nobody"]);
    let report = ReportLine {
        stream_id: "s1".into(),
        state: StreamState::Reconnecting,
        failure: Some(Cause::ServerFrozen.into()),
        attempt: 2,
        retry_in_ms: Some(300),
    };
    daemon.reports.send(report).unwrap();
    let line = running.line();
    assert!(line.starts_with("stream s1 reconnecting") && line.contains("server_frozen"), "{line}");
    daemon.state.send_modify(|state| state.camera.device = Some("/dev/video0".into()));
    assert_eq!(running.line(), "camera closed, /dev/video0");
    daemon.stop();
    let (status, errors) = running.end();
    assert_eq!(status, 3, "{errors}");
}

#[test]
fn watch_with_json_gives_events_of_one_kind() {
    let daemon = Daemon::start(refuse);
    let mut running = Running::start(daemon.ctl(&["watch", "--json"]));
    let event = |line: String| serde_json::from_str::<Event>(&line).unwrap();
    assert!(matches!(event(running.line()), Event::State { state } if state.version == "9.8.7"));
    let report = ReportLine {
        stream_id: "s1".into(),
        state: StreamState::Streaming,
        failure: None,
        attempt: 0,
        retry_in_ms: None,
    };
    daemon.reports.send(report.clone()).unwrap();
    assert_eq!(event(running.line()), Event::Report(report));
    running.child.kill().unwrap();
    running.child.wait().unwrap();
}

fn grant(request: &Request) -> Reply {
    match request {
        Request::CameraAcquire { .. } => Ok(Answer::Lease(Lease { lease: 1, device: "/dev/video7".into() })),
        _ => Err(Cause::Internal.into()),
    }
}

#[test]
fn a_program_runs_under_the_lease_and_gives_its_status() {
    let daemon = Daemon::start(grant);
    let script = ["camera", "acquire", "--", "sh", "-c", "echo $LENSCAST_CAMERA; exit 7"];
    let (status, output, errors) = daemon.run(&script);
    assert_eq!((status, output.as_str()), (7, "/dev/video7\n"), "{errors}");
    assert_eq!(daemon.seen(), Some(Request::CameraAcquire { program: Some("sh".into()) }));
    assert_eq!(daemon.seen(), None, "the lease ends with the program");
    assert_eq!(daemon.run(&["camera", "acquire", "--", "no-such-program-here"]).0, 127);
    assert_eq!(daemon.run(&["camera", "acquire", "--", "/dev/null"]).0, 126);
    assert_eq!(daemon.run(&["camera", "acquire", "--", "sh", "-c", "kill -9 $$"]).0, 137);
}

#[test]
fn a_refused_program_does_not_run() {
    let daemon = Daemon::start(refuse);
    let (status, output, _) = daemon.run(&["camera", "acquire", "--", "echo", "ran"]);
    assert_eq!((status, output.as_str()), (1, ""));
}

#[test]
fn signals_reach_the_program() {
    for (signal, name) in [(nix::sys::signal::Signal::SIGINT, "INT"), (nix::sys::signal::Signal::SIGTERM, "TERM")] {
        let daemon = Daemon::start(grant);
        let script = format!("trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done");
        // A shell cannot trap what was ignored before it began, as `make test &` has it.
        let program = ["env", "--default-signal=INT", "sh", "-c", &script];
        let running = Running::start(daemon.ctl(&[&["camera", "acquire", "--"][..], &program].concat()));
        assert_eq!(running.line(), "ready");
        running.signal(signal);
        assert_eq!(running.line(), format!("got {name}"));
        assert_eq!(running.end().0, 5);
    }
}

#[test]
fn a_program_without_handlers_of_its_own_is_ended_by_a_signal() {
    let daemon = Daemon::start(grant);
    let mut command = daemon.ctl(&["camera", "acquire", "--", "cat"]);
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut input = running.child.stdin.take().unwrap();
    input.write_all(b"ready\n").unwrap();
    assert_eq!(running.line(), "ready");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(running.end().0, 128 + 15);
}

#[test]
fn a_program_does_not_outlive_its_lease() {
    let daemon = Daemon::start(grant);
    let script = "trap 'echo over; exit' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(daemon.ctl(&["camera", "acquire", "--", "sh", "-c", script]));
    assert_eq!(running.line(), "ready");
    running.child.kill().unwrap();
    assert_eq!(running.line(), "over");
    running.child.wait().unwrap();
    daemon.seen();
    assert_eq!(daemon.seen(), None, "the daemon notices");
}

#[test]
fn a_configuration_is_checked_without_a_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lenscastd.toml");
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lenscastctl"));
        outcome(&command.arg("check-config").arg(&file).output().unwrap())
    };
    std::fs::write(&file, "").unwrap();
    assert_eq!(check().0, 0);
    std::fs::write(&file, "no = [toml").unwrap();
    let (status, _, errors) = check();
    assert_eq!(status, 1);
    assert!(errors.contains("lenscastd.toml"), "{errors}");
}
