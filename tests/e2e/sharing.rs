//! One owner of the camera at a time; everybody else is told who it is.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::control::{managed, small};
use crate::support::recordings::Recordings;
use crate::support::{Control, Daemon, Nginx, Process, Watch};

const SOON: Duration = Duration::from_secs(10);

/// Asks for the camera and keeps the connection open until it is killed.
const HOLDER: &str = "
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b'{\"cmd\":\"camera_acquire\"}\\n')
print(s.makefile().readline(), end='', flush=True)
time.sleep(600)
";

/// Another process that requested the camera, and the answer it got.
fn holder(daemon: &Daemon) -> (Process, Value) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", HOLDER]).arg(daemon.socket()).stdin(Stdio::null()).stdout(writer);
    let process = Process::spawn(&mut command);
    drop(command);
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    (process, serde_json::from_str(&line).unwrap())
}

struct Scene {
    nginx: Nginx,
    recordings: Recordings,
    daemon: Daemon,
    watch: Watch,
    control: Control,
}

fn scene(config: &str) -> Scene {
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let daemon = Daemon::start(config);
    let watch = daemon.watch();
    let control = daemon.control();
    Scene { nginx, recordings, daemon, watch, control }
}

#[test]
fn a_lease_blocks_streams_until_its_process_is_killed() {
    let mut s = scene("");
    let (mut process, granted) = holder(&s.daemon);
    assert_eq!(granted["ok"], true, "{granted}");
    let owner = s.control.granted(&json!({"cmd": "camera_who"}))["owner"].clone();
    assert_eq!(owner["kind"], "process");
    assert_eq!(owner["pid"], process.pid());

    let request = small(&s.nginx.url("live", "key"), "org.example.app", "stream-1");
    for asked in [request.clone(), managed(request.clone())] {
        let refusal = s.control.refused(&asked);
        assert_eq!(refusal["cause"], "camera_busy", "{refusal}");
        assert_eq!(refusal["owner"]["pid"], process.pid(), "{refusal}");
        assert!(refusal["owner"]["name"].as_str().unwrap().contains("python"), "{refusal}");
    }
    let refusal = s.control.photo("org.example.app").unwrap_err();
    assert_eq!(refusal["owner"]["pid"], process.pid(), "{refusal}");
    let (_second, refused) = holder(&s.daemon);
    assert_eq!(refused["ok"], false, "{refused}");

    process.kill();
    s.watch.wait_snapshot("the lease to end with its process", SOON, |state| state["owner"] == Value::Null);
    s.control.granted(&request);
    s.watch.wait_state("streaming", SOON);
    s.daemon.finish();
}

#[test]
fn a_stream_blocks_leases_and_is_named() {
    let mut s = scene("");
    s.control.granted(&small(&s.nginx.url("live", "key"), "org.example.app", "stream-1"));
    s.watch.wait_state("streaming", SOON);
    let (_process, refused) = holder(&s.daemon);
    assert_eq!(refused["error"]["cause"], "camera_busy", "{refused}");
    assert_eq!(refused["error"]["owner"]["kind"], "unmanaged");
    assert_eq!(refused["error"]["owner"]["name"], "org.example.app");
    s.control.granted(&json!({"cmd": "stop"}));
    s.watch.wait_state("stopped", SOON);
    let (_process, granted) = holder(&s.daemon);
    assert_eq!(granted["ok"], true, "{granted}");
    s.daemon.finish();
}

#[test]
fn the_owner_of_an_unmanaged_stream_may_take_a_photo_and_nobody_else() {
    let mut s = scene("");
    s.control.granted(&small(&s.nginx.url("live", "key"), "org.example.app", "stream-1"));
    s.watch.wait_state("streaming", SOON);
    s.recordings.wait_frames(0, 15, SOON);
    assert_is_photo(&s.control.photo("org.example.app").expect("its own stream"), (320, 240));
    let refusal = s.control.photo("org.example.other").unwrap_err();
    assert_eq!(refusal["cause"], "camera_busy", "{refusal}");
    assert_eq!(refusal["owner"]["name"], "org.example.app", "{refusal}");
    assert_undisturbed(s);
}

#[test]
fn anybody_may_take_a_photo_of_a_managed_stream() {
    let mut s = scene("");
    s.control.granted(&managed(small(&s.nginx.url("live", "key"), "org.example.app", "stream-1")));
    s.watch.wait_state("streaming", SOON);
    s.recordings.wait_frames(0, 15, SOON);
    for app in ["org.example.app", "org.example.other"] {
        assert_is_photo(&s.control.photo(app).expect("a managed stream is shared"), (320, 240));
    }
    assert_undisturbed(s);
}

#[test]
fn a_photo_opens_an_idle_camera_and_closes_it_after_a_while() {
    let mut s = scene("[camera]\ndevice = \"test\"\nphoto_linger_s = 2\n");
    let jpeg = s.control.photo("org.example.app").expect("nobody has the camera");
    assert!(jpeg.starts_with(&[0xff, 0xd8]));
    s.watch.wait_snapshot("the camera to be opened", SOON, |state| state["camera"]["state"] == "running");
    let closed = s.watch.wait_snapshot("the camera to be closed", SOON, |state| state["camera"]["state"] == "closed");
    assert_eq!(closed["owner"], Value::Null);
    s.daemon.finish();
}

#[test]
fn an_unmanaged_stream_takes_the_place_of_a_managed_one() {
    let mut s = scene("");
    s.control.granted(&managed(small(&s.nginx.url("live", "key-1"), "org.example.app", "stream-1")));
    s.watch.wait_state("streaming", SOON);
    s.control.granted(&small(&s.nginx.url("live", "key-2"), "org.example.other", "stream-2"));
    let end = s.watch.wait("the managed stream to end", SOON, |e| e.report() == Some("stopped"));
    assert_eq!((end.json["stream_id"].as_str(), end.cause()), (Some("stream-1"), "preempted"));
    let begun = s.watch.wait_state("streaming", SOON);
    assert_eq!(begun.json["stream_id"], "stream-2");
    s.daemon.finish();
}

#[test]
fn a_managed_stream_that_does_not_yield_refuses_an_unmanaged_one() {
    let mut s = scene("[stream]\nmanaged_yields = false\n");
    s.control.granted(&managed(small(&s.nginx.url("live", "key-1"), "org.example.app", "stream-1")));
    s.watch.wait_state("streaming", SOON);
    let refusal = s.control.refused(&small(&s.nginx.url("live", "key-2"), "org.example.other", "stream-2"));
    assert_eq!(refusal["owner"]["kind"], "managed", "{refusal}");
    assert_undisturbed(s);
}

#[test]
fn a_stop_for_a_stream_that_is_not_there_changes_nothing() {
    let mut s = scene("");
    s.control.granted(&small(&s.nginx.url("live", "key"), "org.example.app", "stream-1"));
    s.watch.wait_state("streaming", SOON);
    let refusal = s.control.refused(&json!({"cmd": "stop", "stream_id": "stream-2"}));
    assert_eq!(refusal["cause"], "unknown_stream", "{refusal}");
    assert_undisturbed(s);
}

fn assert_is_photo(jpeg: &[u8], size: (u64, u64)) {
    assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]), "a whole JPEG file");
    let file = tempfile::Builder::new().suffix(".jpg").tempfile().unwrap();
    std::fs::write(file.path(), jpeg).unwrap();
    let probe = crate::support::probe::probe(file.path());
    assert_eq!((probe.codecs, probe.size), (vec!["mjpeg".to_owned()], size));
}

/// Asserts that the stream was not affected: one publication, no frame missing, camera not reopened.
fn assert_undisturbed(mut s: Scene) {
    let already = s.recordings.wait("the recording", SOON, |all| Some(all.first()?.frames().len()));
    s.recordings.wait_frames(0, already + 30, SOON);
    let state = s.control.status();
    assert_eq!(state["camera"]["generation"], 1, "{state}");
    assert_eq!(state["stream"]["stream_id"], "stream-1", "{state}");
    assert_eq!(state["stream"]["state"], "streaming", "{state}");
    s.daemon.finish();
    let all = s.recordings.finish();
    assert_eq!(all.len(), 1, "one publication");
    let sequences = all[0].sequences();
    assert_eq!(sequences[sequences.len() - 1] - sequences[0] + 1, sequences.len() as u64, "no frame is missing");
}
