//! Nonsense from any side gets a clear answer, the running stream is not affected, and no key is ever written down.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cloud::Heard;
use crate::support::control::small;
use crate::support::daemon::refusal;
use crate::support::nginx::GOOD_KEY;
use crate::support::recordings::Recordings;
use crate::support::{CloudStandIn, Control, Daemon, Nginx, Watch};

const SOON: Duration = Duration::from_secs(10);

struct Running {
    nginx: Nginx,
    recordings: Recordings,
    daemon: Daemon,
    watch: Watch,
    control: Control,
}

fn running(config: &str) -> Running {
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let daemon = Daemon::start(config);
    let mut watch = daemon.watch();
    let mut control = daemon.control();
    control.granted(&small(&nginx.url("live", "key"), "org.example.app", "stream-1"));
    watch.wait_state("streaming", SOON);
    Running { nginx, recordings, daemon, watch, control }
}

impl Running {
    /// Asserts that it is the same stream as before, without losses.
    fn assert_untouched(mut self) {
        let already = self.recordings.wait("the recording", SOON, |all| Some(all.first()?.frames().len()));
        self.recordings.wait_frames(0, already + 15, SOON);
        let state = self.control.status();
        assert_eq!(state["stream"]["state"], "streaming", "{state}");
        assert_eq!(state["stream"]["publications"], 1, "{state}");
        assert_eq!(state["camera"]["generation"], 1, "{state}");
        let told: Vec<String> = self.watch.reports().iter().filter_map(|e| e.report().map(str::to_owned)).collect();
        assert_eq!(told.last().map(String::as_str), Some("streaming"), "{told:?}");
        self.daemon.finish();
        let sequences = self.recordings.finish()[0].sequences();
        assert_eq!(sequences[sequences.len() - 1] - sequences[0] + 1, sequences.len() as u64, "no frame is missing");
    }
}

/// Unusable URLs, whoever sends them.
fn bad_urls() -> Vec<String> {
    let mut urls: Vec<String> = [
        "",
        "nonsense",
        "http://127.0.0.1/live/key",
        "file:///etc/passwd",
        "srt://127.0.0.1:9000",
        "rtmp://",
        "rtmp://127.0.0.1",
        "rtmp://127.0.0.1/",
        "rtmp:///live/key",
        "rtmp://127.0.0.1:99999/live/key",
        "rtmp://127.0.0.1/live/ke\u{0}y",
        "rtmp://127.0.0.1/live/ke\ny",
        "rtmp://127.0.0.1/live/key location=rtmp://elsewhere/live/key",
    ]
    .map(str::to_owned)
    .into();
    urls.push(format!("rtmp://127.0.0.1/live/{}", "k".repeat(10_000)));
    urls
}

#[test]
fn the_control_socket_answers_nonsense() {
    let r = running("");
    let mut control = r.daemon.control();
    let start = small(&r.nginx.url("live", "key-2"), "org.example.app", "stream-2");
    let with = |field: &str, value: Value| {
        let mut request = start.clone();
        request[field] = value;
        request.to_string()
    };
    let mut lines = vec![
        "nonsense".to_owned(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "{}".to_owned(),
        r#"{"cmd":7}"#.to_owned(),
        r#"{"cmd":"launch"}"#.to_owned(),
        r#"{"cmd":"start"}"#.to_owned(),
        r#"{"cmd":"status","more":1}"#.to_owned(),
        r#"{"cmd":"stop","stream_id":7}"#.to_owned(),
        "[".repeat(20_000),
        with("url", json!(7)),
        with("kind", json!("shared")),
        with("video", json!("large")),
        with("video", json!({"width": "wide"})),
        with("video", json!({"width": -1})),
        with("audio", json!([])),
        with("colour", json!("blue")),
        with("stream_id", json!("i".repeat(10_000))),
        with("stream_id", json!("line\nbreak")),
        with("app", json!("\u{1b}[2J")),
    ];
    lines.extend(bad_urls().into_iter().map(|url| with("url", url.into())));
    for line in lines {
        control.send(line.as_bytes());
        control.send(b"\n");
        let shown: String = line.chars().take(120).collect();
        let reply = control.line().unwrap_or_else(|| panic!("connection closed instead of an answer to {shown}"));
        assert_eq!(reply["ok"], false, "{shown} was granted: {reply}");
        let cause = reply["error"]["cause"].as_str().unwrap_or_default();
        assert!(matches!(cause, "invalid_request" | "invalid_url"), "{shown}: {reply}");
        assert!(reply["error"]["message"].as_str().is_some_and(|m| m.len() > 5 && m.len() < 500), "{shown}: {reply}");
    }
    for bytes in [&b"\xff\xfe\x00\x01\n"[..], b"\x00\n"] {
        control.send(bytes);
        assert_eq!(control.line().expect("an answer")["ok"], false);
    }
    control.status();
    r.assert_untouched();
}

#[test]
fn the_control_socket_survives_lines_without_an_end_and_clients_that_do_not_read() {
    let r = running("");
    let mut endless = r.daemon.control();
    let chunk = vec![b'a'; 1 << 20];
    let closed = (0..64).any(|_| endless.try_send(&chunk).is_err());
    assert!(closed, "64 MiB without a line break were taken");
    let deaf: Vec<Control> = (0..8)
        .map(|_| {
            let mut control = r.daemon.control();
            control.send(b"{\"cmd\":\"watch\"}\n");
            for _ in 0..200 {
                if control.try_send(b"{\"cmd\":\"status\"}\n").is_err() {
                    break;
                }
            }
            control
        })
        .collect();
    drop(r.daemon.control());
    r.daemon.control().status();
    drop(deaf);
    r.assert_untouched();
}

#[test]
fn the_link_answers_nonsense() {
    let mut cloud = CloudStandIn::start();
    let r = running(&cloud.config());
    cloud.wait_connected(SOON);
    let start = |url: &str| {
        json!({"type": "start_stream", "appId": "org.example.app", "streamId": "stream-2", "streamUrl": url,
               "video": {}, "audio": {}, "stream": {}})
    };
    let with = |field: &str, value: Value| {
        let mut message = start(&r.nginx.url("live", "key-2"));
        message[field] = value;
        message.to_string()
    };
    let mut texts = vec![
        "nonsense".to_owned(),
        "{".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"type":7}"#.to_owned(),
        r#"{"type":"start_stream"}"#.to_owned(),
        r#"{"type":"keep_stream_alive","streamId":[]}"#.to_owned(),
        with("streamUrl", json!(7)),
        with("streamId", json!({})),
        with("video", json!("large")),
        with("video", json!({"width": {}})),
        "[".repeat(20_000),
    ];
    texts.extend(bad_urls().into_iter().map(|url| with("streamUrl", url.into())));
    for text in texts {
        cloud.send_text(&text);
        let shown: String = text.chars().take(120).collect();
        let answer = cloud.wait_message(&format!("an answer to {shown}"), SOON, |m| m["status"] == "error");
        assert!(answer["type"].as_str().is_some_and(|t| t.ends_with("stream_status")), "{shown}: {answer}");
        assert!(answer["errorDetails"].as_str().is_some_and(|d| !d.is_empty()), "{shown}: {answer}");
        assert_ne!(answer["streamId"], "stream-1", "{shown}: an error must not seem to end the stream: {answer}");
    }
    // A message too long to be read at all is refused in WebSocket's own way: 1009, message too big.
    cloud.send_text(&with("padding", json!("p".repeat(1 << 20))));
    let told = cloud.wait("a refusal", SOON, |r| matches!(r.what, Heard::Message(_) | Heard::Disconnected(_)));
    match told.what {
        Heard::Message(answer) => assert_eq!(answer["status"], "error", "{answer}"),
        Heard::Disconnected(code) => {
            assert_eq!(code, Some(1009), "the sender of a huge message is told what was wrong");
            cloud.wait_connected(SOON);
        }
        other => panic!("{other:?}"),
    }
    // A message that may be for others is not answered, and does no harm.
    cloud.send_text(r#"{"type":"show_wifi_setup","reason":"test"}"#);
    cloud.send_bytes(b"\x00\x01\x02");
    cloud.send(&json!({"type": "get_stream_status"}));
    let snapshot = cloud.wait_message("a snapshot", SOON, |m| m["kind"] == "snapshot" && m["streaming"] == true);
    assert_eq!(snapshot["streamId"], "stream-1");
    r.assert_untouched();
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_by_name() {
    for (config, named) in [
        ("[camera]\ndevise = \"test\"\n", "devise"),
        ("[camra]\ndevice = \"test\"\n", "camra"),
        ("[camera]\ndevice = 7\n", "device"),
        ("[stream]\ngive_up_after_s = \"long\"\n", "give_up_after_s"),
        ("[stream]\non_link_loss = \"panic\"\n", "on_link_loss"),
        ("[encoder]\nprofile = \"no-such-encoder\"\n", "no-such-encoder"),
        ("[cloud]\nurl = \"http://127.0.0.1/glasses-ws\"\n", "url"),
        ("[cloud]\ntoken = \"t\"\ntoken_file = \"/tmp/t\"\nurl = \"ws://127.0.0.1/glasses-ws\"\n", "token_file"),
        ("[camera\n", "line 1"),
    ] {
        let said = refusal(config);
        assert!(said.contains(named), "{config:?} is refused with:\n{said}");
        assert!(said.lines().count() <= 12, "too many words:\n{said}");
    }
}

/// Keys and passwords pass through every part that could write them down: both sockets, the answers, the watch, and
/// the most verbose log, `GStreamer`'s included.
#[test]
fn no_key_is_written_down_anywhere() {
    const KEYS: [&str; 5] = ["k3y-0f-c0ntr0l", "k3y-0f-cl0ud", "k3y-refused", "k3y-unreachable", "p4ssw0rd-in-url"];
    let mut cloud = CloudStandIn::start();
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let daemon = Daemon::start_logging(&cloud.config(), "trace", &[("GST_DEBUG", "*:4"), ("GST_DEBUG_NO_COLOR", "1")]);
    cloud.wait_connected(SOON);
    let mut watch = daemon.watch();
    let mut control = daemon.control();
    let mut answers = Vec::new();
    let stop = json!({"cmd": "stop"});
    let ended = |watch: &mut Watch| {
        watch.wait("the end", SOON, |e| matches!(e.report(), Some("stopped" | "error")));
    };

    let url = format!("{}?auth=p4ssw0rd-in-url", nginx.url("live", KEYS[0]));
    answers.push(control.granted(&small(&url, "org.example.app", "stream-1")));
    watch.wait_state("streaming", SOON);
    answers.push(control.status());
    answers.push(control.granted(&stop));
    ended(&mut watch);

    let refused = nginx.url("keyed", KEYS[2]);
    answers.push(control.granted(&small(&refused, "org.example.app", "stream-2")));
    ended(&mut watch);
    assert_ne!(KEYS[2], GOOD_KEY);

    let nobody = Nginx::absent();
    let unreachable = nobody.url("live", KEYS[3]).replace("rtmp://", "rtmp://user:p4ssw0rd-in-url@");
    answers.push(control.request(&small(&unreachable, "org.example.app", "stream-3")));
    if answers.last().is_some_and(|answer| answer["ok"] == true) {
        watch.wait_state("reconnecting", SOON);
        answers.push(control.granted(&stop));
        ended(&mut watch);
    }

    for url in [nginx.url("live", KEYS[1]), format!("gopher://h/{}", KEYS[1]), format!("rtmp://h/a/{}\n", KEYS[1])] {
        let id = format!("stream-{}", url.len());
        cloud.send(&json!({"type": "start_stream", "appId": "a", "streamId": id, "streamUrl": url, "video": {}}));
        cloud.wait_message("an answer", SOON, |m| matches!(m["status"].as_str(), Some("streaming" | "error")));
        answers.push(control.request(&json!({"cmd": "start", "url": url, "colour": url})));
        let _ = control.request(&stop);
    }
    recordings.wait_first_frame(1, SOON);
    let mut told: Vec<String> = answers.iter().map(Value::to_string).collect();
    told.extend(watch.listen(Duration::from_secs(1)).iter().map(|e| e.json.to_string()));
    told.extend(watch.reports().iter().map(|e| e.json.to_string()));
    told.extend(cloud.messages().iter().map(|(_, message)| message.to_string()));
    let log = daemon.log();
    assert!(log.contains("rtmp2sink") && log.len() > 100_000, "GStreamer and the daemon did write their log");
    let secrets = KEYS.into_iter().chain([crate::support::cloud::TOKEN]);
    for secret in secrets {
        let spilled = log.lines().chain(told.iter().map(String::as_str)).find(|line| line.contains(secret));
        assert_eq!(spilled, None, "{secret} is written down");
    }
    daemon.finish();
}
