//! Who may do what at every endpoint of the real program, and which secrets it reveals.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::support::cloud_server::{API_KEY, CloudServer, TOKEN, USER, app};
use crate::support::{Daemon, heavy, poll_until};

const SOON: Duration = Duration::from_secs(10);
const UPGRADE: &str = "connection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const NOBODY: &str = "0123456789abcdef0123456789abcdef";

/// Sends a request unchanged and returns everything that comes back.
fn exchange(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the cloud listens");
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no answer in time; so far {} bytes", answer.len());
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn ask(port: u16, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let connection = if headers.contains("connection: ") { "" } else { "connection: close\r\n" };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: h\r\n{connection}{headers}{length}\r\n");
    let answer = exchange(port, (head + body).as_bytes());
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

/// A managed stream that is active.
fn live(cloud: &CloudServer) -> Value {
    cloud.ctl(&["start", "--user", USER]);
    poll_until("an active stream", Duration::from_secs(20), || {
        let stream = cloud.streams()[0].clone();
        (stream["status"] == "active").then_some(stream)
    })
}

fn stop(cloud: &CloudServer, stream: &Value) {
    cloud.ctl(&["stop", stream["stream_id"].as_str().expect("an id")]);
    poll_until("the stream's end", SOON, || cloud.streams().as_array().is_some_and(Vec::is_empty).then_some(()));
}

/// The unguessable part of a stream's URLs.
fn playback_id(stream: &Value) -> String {
    let url = stream["hls_url"].as_str().expect("HLS");
    url.rsplit('/').nth(1).expect("an id").to_owned()
}

/// All files of the database.
fn stored(cloud: &CloudServer) -> String {
    let read = |suffix: &str| {
        let mut path = cloud.store().into_os_string();
        path.push(suffix);
        fs::read(path).unwrap_or_default()
    };
    ["", "-wal", "-journal"].map(|suffix| String::from_utf8_lossy(&read(suffix)).into_owned()).concat()
}

/// Method, path, header fields, body, and the expected status. The test replaces what is in braces.
#[rustfmt::skip]
const TABLE: &[(&str, &str, &str, &str, u16)] = &[
    ("GET", "/healthz", "", "", 200),
    ("HEAD", "/healthz", "", "", 200),
    ("POST", "/healthz", "", "x", 405),
    ("GET", "/", "", "", 404),
    // From this machine, without a proxy.
    ("GET", "/metrics", "", "", 200),
    ("POST", "/metrics", "", "x", 405),
    ("GET", "/metrics", "x-forwarded-for: 127.0.0.1\r\n", "", 404),
    ("GET", "/metrics", "forwarded: for=127.0.0.1\r\n", "", 404),
    ("GET", "/metrics/", "", "", 404),
    ("GET", "/api/apps", "", "", 404),
    ("GET", "/api/streams", "", "", 404),
    // Sockets: apps send their key in the first message, glasses their token in the header.
    ("GET", "/app-ws", "", "", 400),
    ("POST", "/app-ws", "{upgrade}", "", 405),
    ("GET", "/glasses-ws", "", "", 400),
    ("POST", "/glasses-ws", "{upgrade}", "", 405),
    ("GET", "/glasses-ws", "{upgrade}", "", 401),
    ("GET", "/glasses-ws", "{upgrade}{wrong}", "", 401),
    // Public information.
    ("GET", "/api/public/permissions/org.one", "", "", 200),
    ("GET", "/api/public/permissions/org.two", "", "", 404),
    ("POST", "/api/public/permissions/org.one", "", "{}", 405),
    ("DELETE", "/api/public/permissions/org.one", "", "", 405),
    // A viewer of a stream has its id and nothing else.
    ("GET", "/hls/{id}/index.m3u8", "", "", 200),
    ("HEAD", "/hls/{id}/index.m3u8", "", "", 200),
    ("OPTIONS", "/hls/{id}/index.m3u8", "", "", 200),
    ("POST", "/hls/{id}/index.m3u8", "", "x", 405),
    ("PUT", "/hls/{id}/index.m3u8", "", "x", 405),
    ("DELETE", "/hls/{id}/index.m3u8", "", "", 405),
    ("GET", "/hls/{nobody}/index.m3u8", "", "", 404),
    ("GET", "/hls/{id}/other.m3u8", "", "", 404),
    ("GET", "/hls/{id}/v99999999999999999999999.m4s", "", "", 404),
    ("GET", "/hls/{id}/video.m3u8?_HLS_msn=9999999999999999999", "", "", 400),
    ("GET", "/hls/{id}/video.m3u8?_HLS_msn=x", "", "", 400),
    ("GET", "/hls/{id}", "", "", 404),
    ("GET", "/hls/", "", "", 404),
    ("GET", "/dash/{id}/manifest.mpd", "", "", 200),
    ("POST", "/dash/{id}/manifest.mpd", "", "x", 405),
    ("GET", "/dash/{nobody}/manifest.mpd", "", "", 404),
    ("GET", "/thumbnails/{id}.jpg", "", "", 200),
    ("PUT", "/thumbnails/{id}.jpg", "", "x", 405),
    ("GET", "/thumbnails/{nobody}.jpg", "", "", 404),
    ("GET", "/thumbnails/{id}", "", "", 404),
    ("GET", "/api/watch/{id}", "", "", 200),
    ("POST", "/api/watch/{id}", "", "x", 405),
    ("GET", "/api/watch/{nobody}", "", "", 404),
    // The page is the same for every id; it shows itself that there is no stream.
    ("GET", "/watch/{id}", "", "", 200),
    ("POST", "/watch/{id}", "", "x", 405),
    ("GET", "/watch/assets/watch.js", "", "", 200),
    ("GET", "/watch/assets/other.js", "", "", 404),
    // WHEP
    ("GET", "/whep/{id}", "", "", 405),
    ("OPTIONS", "/whep/{id}", "", "", 204),
    ("POST", "/whep/{nobody}", "{sdp}", "v=0", 404),
    ("POST", "/whep/{id}", "", "v=0", 415),
    ("POST", "/whep/{id}", "{sdp}", "not an offer", 400),
    ("POST", "/whep/{id}", "{sdp}", "{large}", 413),
    ("DELETE", "/whep/{id}/{nobody}", "", "", 404),
    ("DELETE", "/whep/{id}", "", "", 405),
    ("PATCH", "/whep/{id}/{nobody}", "content-type: application/trickle-ice-sdpfrag\r\n", "a=x", 404),
    // Paths that leave their folder.
    ("GET", "/../../../../etc/passwd", "", "", 404),
    ("GET", "/watch/assets/../../../etc/passwd", "", "", 404),
    ("GET", "/watch/assets/..%2f..%2f..%2fetc%2fpasswd", "", "", 404),
    ("GET", "/hls/{id}/..%2f..%2f..%2fetc%2fpasswd", "", "", 404),
    ("GET", "/hls/..%2f{id}/index.m3u8", "", "", 404),
    ("GET", "/thumbnails/..%2f..%2fetc%2fpasswd.jpg", "", "", 404),
    ("GET", "/hls/%ff%fe/index.m3u8", "", "", 400),
    ("GET", "/hls/{id}%00/index.m3u8", "", "", 404),
    // Too much of everything.
    ("GET", "/healthz", "x: {long}\r\n", "", 431),
    ("GET", "/healthz", "{many}", "", 431),
    ("GET", "/{long}", "", "", 431),
    ("GET", "/healthz", "", "{large}", 200),
    ("POST", "/healthz", "", "{large}", 405),
    ("BREW", "/healthz", "", "", 405),
    ("GET", "no-slash", "", "", 404),
];

#[test]
fn who_may_do_what() {
    let _turn = heavy::turn();
    let cloud = CloudServer::start(&app("org.one", "\"CAMERA\"", "http://127.0.0.1:1/webhook"));
    let daemon = Daemon::start(&cloud.link());
    poll_until("the glasses' link", SOON, || cloud.log().contains("glasses connected").then_some(()));
    let stream = live(&cloud);
    let id = playback_id(&stream);
    let port = cloud.http();
    let sdp = "content-type: application/sdp\r\n";
    let large = &"x".repeat(1 << 20);
    let fill = |text: &str| {
        let text = text.replace("{id}", &id).replace("{nobody}", NOBODY).replace("{large}", large);
        let text = text.replace("{long}", &"y".repeat(20 << 10)).replace("{many}", &"x: y\r\n".repeat(100));
        let wrong = format!("authorization: Bearer {API_KEY}\r\n");
        text.replace("{upgrade}", UPGRADE).replace("{wrong}", &wrong).replace("{sdp}", sdp)
    };
    let mut wrong = vec![];
    for (method, path, headers, body, status) in TABLE {
        let path = fill(path);
        let (found, answer) = ask(port, method, &path, &fill(headers), &fill(body));
        if found != *status {
            wrong.push(format!("{method} {path:.80} is {found}, not {status}"));
        }
        for given_away in [API_KEY, TOKEN, "root:", "sha256"] {
            assert!(!answer.contains(given_away), "{method} {path} tells {given_away}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The glasses of another user.
    let token = cloud.ctl(&["device", "add", "second", "--user", "v@example.com"]);
    let mut request = format!("ws://127.0.0.1:{port}/glasses-ws").into_client_request().expect("a URL");
    request.headers_mut().insert("authorization", format!("Bearer {}", token.trim()).parse().expect("a header"));
    let second = TcpStream::connect(("127.0.0.1", port)).expect("the cloud listens");
    let (second, _) = tungstenite::client(request, second).expect("the right token lets in");
    drop(second);
    assert!(exchange(port, b"\x16\x03\x01 not HTTP \r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(exchange(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").len() < 1000);
    let chunked =
        format!("POST /whep/{id} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{sdp}transfer-encoding: chunked\r\n\r\n");
    let chunked = format!("{chunked}100000\r\n{large}\r\n0\r\n\r\n");
    let answer = exchange(port, chunked.as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");

    // The stream is undisturbed.
    assert_eq!(cloud.streams()[0]["status"], "active");
    stop(&cloud, &stream);
    // Players may finish what they have begun; no new viewer gets a picture.
    poll_until("the playlist's end", SOON, || {
        ask(port, "GET", &format!("/hls/{id}/video.m3u8"), "", "").1.contains("#EXT-X-ENDLIST").then_some(())
    });
    let (status, answer) = ask(port, "POST", &format!("/whep/{id}"), sdp, "v=0");
    assert!([404, 410].contains(&status), "{answer}");
    let next = live(&cloud);
    let next_id = playback_id(&next);
    assert!(id.len() >= 32 && next_id.len() >= 32 && id != next_id, "{id} and {next_id} can be guessed");
    stop(&cloud, &next);
    daemon.finish();
    cloud.finish();
}

/// All messages to an app that introduces itself, and the close code.
fn introduce(cloud: &CloudServer, package: &str, key: &str) -> (Vec<Value>, u16) {
    let request = format!("ws://127.0.0.1:{}/app-ws", cloud.http()).into_client_request().expect("a URL");
    let stream = TcpStream::connect(("127.0.0.1", cloud.http())).expect("the cloud listens");
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    let (mut socket, _) = tungstenite::client(request, stream).expect("anybody may open it");
    let hello = json!({"type": "tpa_connection_init", "sessionId": "s-1", "packageName": package, "apiKey": key});
    socket.send(Message::text(hello.to_string())).expect("sent");
    let mut told = vec![];
    loop {
        match socket.read().expect("an end with a reason") {
            Message::Text(text) => told.push(serde_json::from_str(&text).expect("JSON")),
            Message::Close(frame) => return (told, frame.expect("a reason").code.into()),
            _ => {}
        }
    }
}

#[test]
fn keys_and_tokens_are_nowhere_to_be_read() {
    let _turn = heavy::turn();
    let cloud = CloudServer::start_talkative(&app("org.one", "\"CAMERA\"", "http://127.0.0.1:1/webhook"));
    let key = cloud.ctl(&["app", "add", "org.added"]).trim().to_owned();
    let token = cloud.ctl(&["device", "add", "second", "--user", "v@example.com"]).trim().to_owned();
    assert!(key.len() >= 64 && token.len() >= 64);

    for (package, key, code) in [
        ("org.one", "wrong", "INVALID_API_KEY"),
        ("org.unknown", API_KEY, "INVALID_API_KEY"),
        ("org.added", API_KEY, "INVALID_API_KEY"),
        ("org.one", API_KEY, "SESSION_NOT_FOUND"),
        ("org.added", &key, "SESSION_NOT_FOUND"),
    ] {
        let (told, closed) = introduce(&cloud, package, key);
        assert_eq!((&told[0]["code"], closed), (&json!(code), 1008), "{package}: {told:?}");
    }

    let daemon = Daemon::start(&cloud.link());
    poll_until("the glasses' link", SOON, || cloud.log().contains("glasses connected").then_some(()));
    let stream = live(&cloud);
    // The stream's key is only in the database of running streams, which nobody else may read.
    let digits = |text: &str| -> Option<String> {
        let (_, rest) = text.split_once("\"key\":\"")?;
        Some(rest.split('"').next()?.to_owned()).filter(|key| key.len() >= 32)
    };
    let stream_key = poll_until("the stream's key in the database", SOON, || digits(&stored(&cloud)));
    for (path, mode) in [(cloud.store(), 0o600), (cloud.socket(), 0o660)] {
        let found = fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}: {found:o}", path.display());
    }
    let secrets = [API_KEY, TOKEN, &key, &token];
    for secret in secrets {
        assert!(!stored(&cloud).contains(secret), "a key or token is in the database");
    }

    let wrong = "a-wrong-stream-key";
    let url = format!("rtmp://127.0.0.1:{}/live/{wrong}", cloud.rtmp());
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10:duration=5"]);
    ffmpeg.args(["-c:v", "libx264", "-f", "flv", &url]).stdin(Stdio::null()).stderr(Stdio::null());
    assert!(!ffmpeg.status().expect("ffmpeg runs").success(), "a publisher without a key gets in");
    assert_eq!(cloud.streams()[0]["status"], "active", "and disturbs nobody");

    let mut told = vec![cloud.log(), cloud.ctl(&["streams", "--json"]), cloud.ctl(&["streams"])];
    told.extend(["app", "device"].map(|what| cloud.ctl(&[what, "list", "--json"])));
    for name in ["hls_url", "dash_url", "watch_url"] {
        let url = stream[name].as_str().expect("an active stream has URLs");
        let path = url.strip_prefix(&cloud.url()).expect("our own URL");
        told.push(ask(cloud.http(), "GET", path, "", "").1);
    }
    told.push(ask(cloud.http(), "GET", &format!("/api/watch/{}", playback_id(&stream)), "", "").1);
    stop(&cloud, &stream);
    told.push(cloud.log());
    for happening in ["a publisher was refused", "publishing", "publisher stopped", "glasses connected"] {
        assert!(cloud.log().contains(happening), "{happening}: not logged, so that no secret is there proves nothing");
    }
    for text in &told {
        for secret in secrets.into_iter().chain([stream_key.as_str(), wrong]) {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line.map(|line| line.replace(secret, "SECRET")), None, "a secret is told");
        }
    }
    assert!(!daemon.log().contains(&stream_key), "the daemon's log has the stream's key");
    daemon.finish();
    cloud.finish();
}

#[test]
fn two_thousand_clients_are_served_beside_one_that_says_nothing() {
    const CLIENTS: usize = 2000;
    let mut cloud = CloudServer::start("");
    let connect = || TcpStream::connect(("127.0.0.1", cloud.http())).expect("a connection");
    let silent = connect();
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect()).collect();
    for round in 0..2 {
        for client in &mut clients {
            client.write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").expect("sent");
        }
        for client in &mut clients {
            client.set_read_timeout(Some(SOON)).expect("a limit");
            let mut answer = [0; 512];
            let count = client.read(&mut answer).expect("an answer");
            assert!(answer[..count].starts_with(b"HTTP/1.1 200"), "round {round}");
        }
    }
    assert!(cloud.process().open_files() > CLIENTS, "all at once");
    drop(clients);
    poll_until("the connections' end", SOON, || (cloud.process().open_files() < 100).then_some(()));
    drop(silent);
    cloud.finish();
}
