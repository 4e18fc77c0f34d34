//! What phone and cloud see over the WebSocket, in the dialects of both generations.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::cloud::Heard;
use crate::support::recordings::Recordings;
use crate::support::{CloudStandIn, Daemon, Nginx};

const SOON: Duration = Duration::from_secs(10);

/// A dialect of `MentraOS`.
#[derive(Clone, Copy)]
struct Dialect {
    start: &'static str,
    url: &'static str,
    stop: &'static str,
    keep_alive: &'static str,
    get_status: &'static str,
    status: &'static str,
    metrics: &'static str,
}

const RTMP: Dialect = Dialect {
    start: "start_rtmp_stream",
    url: "rtmpUrl",
    stop: "stop_rtmp_stream",
    keep_alive: "keep_rtmp_stream_alive",
    get_status: "get_rtmp_status",
    status: "rtmp_stream_status",
    metrics: "stats",
};
const STREAM: Dialect = Dialect {
    start: "start_stream",
    url: "streamUrl",
    stop: "stop_stream",
    keep_alive: "keep_stream_alive",
    get_status: "get_stream_status",
    status: "stream_status",
    metrics: "m",
};

/// Glasses linked to a cloud, and a server.
struct Scene {
    dialect: Dialect,
    cloud: CloudStandIn,
    nginx: Nginx,
    recordings: Recordings,
    daemon: Daemon,
}

fn scene(dialect: Dialect, config: &str) -> Scene {
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let mut cloud = CloudStandIn::start();
    let daemon = Daemon::start(&format!("{}{config}", cloud.config()));
    cloud.wait_connected(SOON);
    Scene { dialect, cloud, nginx, recordings, daemon }
}

impl Scene {
    fn start(&self, app: &str, stream_id: &str) {
        let mut message = json!({
            "type": self.dialect.start, "sessionId": "u@example.com", "appId": app, "streamId": stream_id,
            "video": {"width": 320, "height": 240, "bitrate": 300_000, "frameRate": 15}, "audio": {}, "stream": {},
            "flash": true, "sound": true, "timestamp": "2026-01-01T00:00:00Z",
        });
        message[self.dialect.url] = self.nginx.url("live", stream_id).into();
        self.cloud.send(&message);
    }

    fn stop(&self, app: &str, stream_id: &str) {
        self.cloud.send(&json!({"type": self.dialect.stop, "appId": app, "streamId": stream_id}));
    }

    /// Waits for a status of a stream in this dialect, ignoring snapshots and measurements.
    fn wait_status(&mut self, stream_id: &str, status: &str, within: Duration) -> Value {
        let dialect = self.dialect;
        self.cloud.wait_message(&format!("{stream_id} to be {status}"), within, |message| {
            message["type"] == dialect.status
                && message["streamId"] == stream_id
                && message["status"] == status
                && message.get("kind").is_none()
                && message.get(dialect.metrics).is_none()
        })
    }

    /// Waits until the stream runs for the first time.
    fn wait_streaming(&mut self, stream_id: &str) -> Value {
        self.wait_status(stream_id, "streaming", SOON)
    }

    /// The statuses that the cloud received for a stream, without measurements and snapshots.
    fn statuses(&mut self, stream_id: &str) -> Vec<String> {
        let metrics = self.dialect.metrics;
        let messages = self.cloud.messages().into_iter().map(|(_, message)| message);
        messages
            .filter(|m| m["streamId"] == stream_id && m.get("kind").is_none() && m.get(metrics).is_none())
            .filter_map(|m| m["status"].as_str().map(str::to_owned))
            .collect()
    }

    fn ends(&mut self, stream_id: &str) -> usize {
        self.statuses(stream_id).iter().filter(|status| matches!(status.as_str(), "stopped" | "error")).count()
    }
}

fn from_start_to_stop(dialect: Dialect) {
    let mut s = scene(dialect, "");
    s.start("org.example.app", "stream-1");
    s.wait_streaming("stream-1");
    let mut at = Vec::new();
    for _ in 0..4 {
        let metrics = s.cloud.wait("a measurement", SOON, |r| {
            r.message().is_some_and(|m| m.get(dialect.metrics).is_some_and(Value::is_object))
        });
        let message = metrics.message().unwrap();
        assert_eq!((&message["type"], &message["streamId"]), (&json!(dialect.status), &json!("stream-1")));
        let numbers = &message[dialect.metrics];
        let names: &[&str] = match dialect.metrics {
            "m" => &["b", "f", "w", "h", "d", "u"],
            _ => &["bitrate", "fps", "width", "height", "droppedFrames", "duration"],
        };
        assert!(names.iter().all(|name| numbers[name].is_number()), "{numbers}");
        assert_eq!((numbers[names[2]].as_u64(), numbers[names[3]].as_u64()), (Some(320), Some(240)));
        at.push((metrics.at, numbers[names[0]].as_u64().unwrap(), numbers[names[1]].as_f64().unwrap()));
    }
    let span = at[3].0.saturating_sub(at[0].0);
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&span), "three times 2 s took {span:?}");
    assert!((50_000..800_000).contains(&at[3].1), "a bitrate of {}", at[3].1);
    assert!((10.0..20.0).contains(&at[3].2), "{} frames a second", at[3].2);

    s.cloud.send(&json!({"type": dialect.keep_alive, "streamId": "stream-1", "ackId": "a12345"}));
    let ack = s.cloud.wait_message("an acknowledgement", SOON, |m| m["type"] == "keep_alive_ack");
    assert_eq!((&ack["streamId"], &ack["ackId"]), (&json!("stream-1"), &json!("a12345")));
    s.cloud.send(&json!({"type": dialect.keep_alive, "streamId": "stream-9", "ackId": "a99999"}));
    let unknown =
        s.cloud.wait_message("an answer", SOON, |m| m["streamId"] == "stream-9" || m["receivedStreamId"] == "stream-9");
    assert_eq!((&unknown["type"], &unknown["status"]), (&json!(dialect.status), &json!("error")), "{unknown}");

    s.cloud.send(&json!({"type": dialect.get_status}));
    let snapshot = s.cloud.wait_message("a snapshot", SOON, |m| m["kind"] == "snapshot");
    assert_eq!((&snapshot["type"], &snapshot["streaming"]), (&json!(dialect.status), &json!(true)), "{snapshot}");

    s.stop("org.example.app", "stream-1");
    let end = s.wait_status("stream-1", "stopped", SOON);
    assert_eq!(end["cause"], "requested", "{end}");
    s.recordings.wait_closed(0, SOON);
    assert_eq!(s.statuses("stream-1"), ["initializing", "connecting", "streaming", "stopping", "stopped"]);
    s.daemon.finish();
    assert_eq!(s.recordings.finish().len(), 1);
}

#[test]
fn rtmp_words_from_start_to_stop() {
    from_start_to_stop(RTMP);
}

#[test]
fn stream_words_from_start_to_stop() {
    from_start_to_stop(STREAM);
}

fn stop_without_an_id(dialect: Dialect) {
    let mut s = scene(dialect, "");
    s.start("org.example.app", "stream-1");
    s.wait_streaming("stream-1");
    s.cloud.send(&json!({"type": dialect.stop}));
    s.wait_status("stream-1", "stopped", SOON);
    s.cloud.send(&json!({"type": dialect.stop, "streamId": "stream-7"}));
    let answer = s.cloud.wait_message("an answer", SOON, |m| m["cause"] == "unknown_stream");
    assert_eq!((&answer["type"], &answer["status"]), (&json!(dialect.status), &json!("error")));
    assert_eq!(s.ends("stream-1"), 1);
    s.daemon.finish();
}

#[test]
fn rtmp_words_stop_what_the_link_started() {
    stop_without_an_id(RTMP);
}

#[test]
fn stream_words_stop_what_the_link_started() {
    stop_without_an_id(STREAM);
}

fn second_start(dialect: Dialect) {
    let mut s = scene(dialect, "");
    s.start("org.example.app", "stream-1");
    s.wait_streaming("stream-1");

    s.start("org.example.other", "stream-2");
    let refusal = s.wait_status("stream-2", "error", SOON);
    assert_eq!(refusal["cause"], "camera_busy", "{refusal}");
    assert!(refusal["errorDetails"].as_str().unwrap().contains("org.example.app"), "the owner is named: {refusal}");
    assert_eq!(refusal["owner"]["name"], "org.example.app", "{refusal}");
    assert_eq!(s.ends("stream-1"), 0);

    s.start("org.example.app", "stream-3");
    let end = s.wait_status("stream-1", "stopped", SOON);
    assert_eq!(end["cause"], "replaced", "{end}");
    s.wait_streaming("stream-3");
    assert_eq!(s.ends("stream-1"), 1);
    s.daemon.finish();
}

#[test]
fn rtmp_words_for_a_second_start() {
    second_start(RTMP);
}

#[test]
fn stream_words_for_a_second_start() {
    second_start(STREAM);
}

/// The default timeout, in full.
#[test]
fn a_minute_without_a_keep_alive_ends_the_stream() {
    let mut s = scene(STREAM, "");
    s.start("org.example.app", "stream-1");
    s.wait_streaming("stream-1");
    // A keep-alive in between restarts the minute.
    std::thread::sleep(Duration::from_secs(5));
    s.cloud.send(&json!({"type": "keep_stream_alive", "streamId": "stream-1", "ackId": "a1"}));
    let ack = s.cloud.wait("an acknowledgement", SOON, |r| r.message().is_some_and(|m| m["type"] == "keep_alive_ack"));
    let end = s.cloud.wait("the end", Duration::from_secs(75), |r| {
        r.message().is_some_and(|m| matches!(m["status"].as_str(), Some("stopped" | "error")))
    });
    assert_eq!(end.message().unwrap()["cause"], "keep_alive_timeout");
    let after = end.at.saturating_sub(ack.at);
    assert!((Duration::from_secs(59)..Duration::from_secs(65)).contains(&after), "ended after {after:?}");
    s.recordings.wait_closed(0, SOON);
    assert_eq!(s.ends("stream-1"), 1);
    s.daemon.finish();
}

fn keep_alive_clock_stands_still(dialect: Dialect) {
    let mut s = scene(dialect, "[stream]\nkeep_alive_timeout_s = 4\n");
    s.start("org.example.app", "stream-1");
    s.wait_streaming("stream-1");
    s.nginx.kill();
    let lost = s.wait_status("stream-1", "reconnecting", SOON);
    assert_eq!(lost["reason"], "connection_lost", "{lost}");
    assert!(lost["attempt"] == 1 && lost["maxAttempts"].is_u64(), "{lost}");
    // Twice the time, with an acknowledgement in between.
    s.cloud.listen(Duration::from_secs(8));
    s.cloud.send(&json!({"type": dialect.keep_alive, "streamId": "stream-1", "ackId": "a1"}));
    s.cloud.wait_message("an acknowledgement", SOON, |m| m["type"] == "keep_alive_ack" && m["ackId"] == "a1");
    assert_eq!(s.ends("stream-1"), 0, "{:?}", s.statuses("stream-1"));
    s.nginx.launch();
    let word = if dialect.metrics == "m" { "reconnected" } else { "streaming" };
    s.wait_status("stream-1", word, Duration::from_secs(15));
    let end = s.wait_status("stream-1", "error", Duration::from_secs(12));
    assert_eq!(end["cause"], "keep_alive_timeout", "{end}");
    assert_eq!(s.ends("stream-1"), 1);
    s.daemon.finish();
}

#[test]
fn rtmp_words_while_reconnecting() {
    keep_alive_clock_stands_still(RTMP);
}

#[test]
fn stream_words_while_reconnecting() {
    keep_alive_clock_stands_still(STREAM);
}

#[test]
fn a_lost_link_comes_back_with_the_whole_state_and_the_stream_went_on() {
    let mut s = scene(STREAM, "");
    s.start("org.example.app", "stream-1");
    s.wait_streaming("stream-1");
    for away in [false, true] {
        if away {
            s.cloud.go_away();
            std::thread::sleep(Duration::from_secs(3));
            s.cloud.come_back();
        } else {
            s.cloud.drop_link();
        }
        s.cloud.wait_connected(Duration::from_secs(15));
        let first = s.cloud.wait("the first message", SOON, |r| matches!(r.what, Heard::Message(_)));
        let first = first.message().unwrap();
        assert_eq!(first["kind"], "snapshot", "{first}");
        assert_eq!((&first["streamId"], &first["status"]), (&json!("stream-1"), &json!("streaming")), "{first}");
    }
    s.stop("org.example.app", "stream-1");
    s.wait_status("stream-1", "stopped", SOON);
    s.daemon.finish();
    let all = s.recordings.finish();
    assert_eq!(all.len(), 1, "one publication");
    let sequences: BTreeSet<u64> = all[0].sequences().into_iter().collect();
    assert_eq!(
        sequences.last().unwrap() - sequences.first().unwrap() + 1,
        sequences.len() as u64,
        "no frame is missing"
    );
}

#[test]
fn a_link_that_stays_lost_ends_the_stream_where_that_is_asked_for() {
    let mut s = scene(STREAM, "[stream]\non_link_loss = \"stop\"\nlink_loss_grace_s = 2\n");
    s.start("org.example.app", "stream-1");
    s.wait_streaming("stream-1");
    let mut watch = s.daemon.watch();
    s.cloud.go_away();
    let end = watch.wait("the end", SOON, |e| matches!(e.report(), Some("stopped" | "error")));
    assert_eq!(end.cause(), "link_lost");
    s.cloud.come_back();
    let told =
        s.cloud.wait_message("the end to be told", Duration::from_secs(20), |m| m.to_string().contains("link_lost"));
    assert!(told.to_string().contains("stream-1"), "{told}");
    s.daemon.finish();
}

fn daemon_killed(dialect: Dialect) {
    let mut s = scene(dialect, "");
    s.start("org.example.app", "stream-1");
    s.wait_streaming("stream-1");
    s.daemon.restart(Signal::SIGKILL);
    s.cloud.wait_connected(SOON);
    // The link may come up after the stream: then the snapshot reports everything.
    s.cloud.wait_message("the stream to go on", SOON, |m| {
        let status = m["status"].as_str().unwrap_or_default();
        m["streamId"] == "stream-1" && matches!(status, "streaming" | "reconnected" | "active")
    });
    s.recordings.wait_frames(1, 15, SOON);
    s.stop("org.example.app", "stream-1");
    s.wait_status("stream-1", "stopped", SOON);
    assert_eq!(s.ends("stream-1"), 1);
    s.start("org.example.app", "stream-2");
    s.wait_streaming("stream-2");
    s.daemon.finish();
}

#[test]
fn an_end_that_the_daemon_could_not_tell_is_told_by_the_next_one() {
    let mut s = scene(RTMP, "[stream]\nkeep_alive_timeout_s = 1\non_keep_alive_loss = \"stop\"\n");
    s.start("org.example.app", "stream-1");
    s.wait_streaming("stream-1");
    s.daemon.stop_for(Signal::SIGKILL, Duration::from_millis(1500));
    s.cloud.wait_connected(SOON);
    let end = s.cloud.wait_message("the old stream's end", SOON, |m| m["streamId"] == "stream-1");
    assert_eq!((&end["type"], &end["cause"]), (&json!(RTMP.status), &json!("daemon_restarted")), "{end}");
    assert!(matches!(end["status"].as_str(), Some("stopped" | "error")), "{end}");
    assert_eq!(s.ends("stream-1"), 1);
    s.daemon.finish();
}

#[test]
fn rtmp_words_after_the_daemon_was_killed() {
    daemon_killed(RTMP);
}

#[test]
fn stream_words_after_the_daemon_was_killed() {
    daemon_killed(STREAM);
}

#[test]
fn a_shutdown_is_told_to_the_cloud() {
    let mut s = scene(STREAM, "");
    s.start("org.example.app", "stream-1");
    s.wait_streaming("stream-1");
    s.daemon.restart(Signal::SIGTERM);
    let end = s.cloud.wait_message("the end", SOON, |m| m["streamId"] == "stream-1" && m["status"] == "stopped");
    assert_eq!(end["cause"], "shutdown", "{end}");
    s.cloud.wait_connected(SOON);
    s.start("org.example.app", "stream-2");
    s.wait_streaming("stream-2");
    assert_eq!(s.ends("stream-1"), 1, "a clean end is not told again after the restart");
    s.daemon.finish();
}

#[test]
fn a_cloud_that_does_not_know_the_token_is_asked_again() {
    let mut cloud = CloudStandIn::start();
    let config = cloud.config().replace(crate::support::cloud::TOKEN, "another-token-77c1");
    let daemon = Daemon::start(&config);
    for _ in 0..2 {
        // Attempts are half a minute apart: nobody changes a token within seconds.
        cloud.wait("a visit", Duration::from_secs(45), |r| matches!(r.what, Heard::TurnedAway));
    }
    assert!(!daemon.log().contains("another-token-77c1"), "the token is in the log");
    daemon.finish();
}
