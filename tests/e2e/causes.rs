//! Each kind of failure has its own cause, is reported in time, and is retried as appropriate.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::control::small;
use crate::support::nginx::GOOD_KEY;
use crate::support::watch::Event;
use crate::support::{Certificate, Daemon, HalfOpen, Nginx, Process, Recordings, Watch, poll_until};

const SOON: Duration = Duration::from_secs(10);
const APP: &str = "org.example.app";
const STREAM: &str = "stream-1";

fn begin(url: &str, config: &str) -> (Daemon, Watch) {
    let daemon = Daemon::start(config);
    let watch = daemon.watch();
    daemon.control().granted(&small(url, APP, STREAM));
    (daemon, watch)
}

fn wait_retry(watch: &mut Watch, cause: &str, within: Duration) -> Event {
    watch.wait(&format!("a retry because of {cause}"), within, |event| {
        event.report() == Some("reconnecting") && event.cause() == cause
    })
}

/// Asserts that the stream is over for this reason, and that this was reported once.
fn assert_ended(watch: &mut Watch, daemon: &Daemon, cause: &str, within: Duration) -> Event {
    let end = watch.wait_state("error", within);
    assert_eq!(end.cause(), cause);
    assert_eq!(end.json["stream_id"], STREAM);
    let state = watch.wait_snapshot("the stream to be gone", SOON, |state| state["stream"] == Value::Null);
    assert_eq!(state["last_end"]["cause"], cause);
    assert_eq!(state["last_end"]["stream_id"], STREAM);
    // The camera is released.
    assert_eq!(daemon.control().status()["owner"], Value::Null);
    let ends = watch.reports().iter().filter(|e| matches!(e.report(), Some("error" | "stopped"))).count();
    assert_eq!(ends, 1, "an end is told once");
    end
}

#[test]
fn a_rejected_key_ends_the_stream_after_a_second_try() {
    let nginx = Nginx::start();
    let (daemon, mut watch) = begin(&nginx.url("keyed", "wrong-key"), "");
    let first = wait_retry(&mut watch, "publish_rejected", SOON);
    let end = assert_ended(&mut watch, &daemon, "publish_rejected", SOON);
    let apart = end.at.saturating_sub(first.at);
    assert!(apart >= Duration::from_millis(900), "the second try came {apart:?} after the first");
    assert_eq!(nginx.publish_requests("wrong-key"), 2);
    daemon.finish();
}

#[test]
fn an_unknown_application_is_a_rejection_too() {
    let nginx = Nginx::start();
    let (daemon, mut watch) = begin(&nginx.url("nowhere", "key"), "");
    assert_ended(&mut watch, &daemon, "publish_rejected", SOON);
    daemon.finish();
}

#[test]
fn a_stream_that_exists_is_waited_for() {
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let url = nginx.url("keyed", GOOD_KEY);
    let mut other = Command::new("ffmpeg");
    other.args(["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=15", "-c:v", "libx264"]);
    other.args(["-preset", "ultrafast", "-f", "flv", &url]);
    let mut other = Process::spawn(other.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    recordings.wait_first_frame(0, SOON);
    Recordings::wait_next_name();
    let (daemon, mut watch) = begin(&url, "");
    let first = wait_retry(&mut watch, "stream_exists", SOON);
    let second = wait_retry(&mut watch, "stream_exists", SOON);
    let third = wait_retry(&mut watch, "stream_exists", SOON);
    let apart = third.at.saturating_sub(second.at);
    assert!(second.at > first.at && apart >= Duration::from_millis(1500), "asked again after {apart:?}");
    other.kill();
    watch.wait_state("streaming", SOON);
    recordings.wait_first_frame(1, SOON);
    daemon.finish();
}

#[test]
fn a_refused_port_is_tried_until_somebody_listens() {
    let mut nginx = Nginx::absent();
    let (daemon, mut watch) = begin(&nginx.url("live", "key"), "");
    wait_retry(&mut watch, "connect_refused", SOON);
    nginx.launch();
    watch.wait_state("streaming", SOON);
    daemon.finish();
}

#[test]
fn a_refused_port_is_given_up_when_the_time_is_over() {
    let nginx = Nginx::absent();
    let (daemon, mut watch) = begin(&nginx.url("live", "key"), "[stream]\ngive_up_after_s = 3\n");
    let first = wait_retry(&mut watch, "connect_refused", SOON);
    let end = assert_ended(&mut watch, &daemon, "connect_refused", SOON);
    let tried = end.at.saturating_sub(first.at);
    assert!(tried >= Duration::from_secs(2), "given up after {tried:?} already");
    daemon.finish();
}

#[test]
fn an_unknown_host_is_a_matter_of_dns() {
    let (daemon, mut watch) = begin("rtmp://no-such-host.invalid/live/key", "");
    wait_retry(&mut watch, "dns_failed", SOON);
    wait_retry(&mut watch, "dns_failed", SOON);
    daemon.finish();
}

#[test]
fn a_half_open_server_is_given_three_seconds() {
    let server = HalfOpen::start();
    let (daemon, mut watch) = begin(&server.url("key"), "");
    wait_retry(&mut watch, "handshake_timeout", Duration::from_secs(9));
    poll_until("a second connection", SOON, || (server.accepted() >= 2).then_some(()));
    // A stop does not wait for a hanging attempt.
    daemon.control().granted(&serde_json::json!({"cmd": "stop"}));
    watch.wait_state("stopped", Duration::from_secs(3));
    daemon.finish();
}

#[test]
fn a_certificate_that_nobody_signed_is_not_accepted() {
    let certificate = Certificate::self_signed();
    let nginx = Nginx::start_with(&certificate);
    let recordings = nginx.recordings();
    let daemon = Daemon::start("");
    let mut watch = daemon.watch();
    // The connection is made while the camera opens: whichever comes first decides whether the start is refused, or
    // granted and then ended.
    let answer = daemon.control().request(&small(&nginx.secure_url("127.0.0.1", "live", "key"), APP, STREAM));
    assert!(answer["ok"] == true || answer["error"]["cause"] == "tls_certificate_rejected", "{answer}");
    assert_ended(&mut watch, &daemon, "tls_certificate_rejected", SOON);
    assert_eq!(recordings.count(), 0);
    daemon.finish();
}

#[test]
fn a_certificate_signed_by_a_trusted_authority_is() {
    let certificate = Certificate::signed();
    let nginx = Nginx::start_with(&certificate);
    let recordings = nginx.recordings();
    let trust = format!("[tls]\nca_file = \"{}\"\n", certificate.authority().display());
    for (index, host) in ["127.0.0.1", "localhost"].into_iter().enumerate() {
        let (daemon, mut watch) = begin(&nginx.secure_url(host, "live", &format!("key-{index}")), &trust);
        watch.wait_state("streaming", SOON);
        recordings.wait_frames(index, 15, SOON);
        daemon.finish();
    }
}
