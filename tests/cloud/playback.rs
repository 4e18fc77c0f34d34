//! HLS and DASH as decoded by `ffprobe` over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use lenscast::broadcast::{Bounds, Broadcast, Frame};
use lenscast::playback::{Options, Playback};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::flv_source::{encode, publish};
use crate::support::process::run;

const ID: &str = "0123456789abcdef";

struct Served {
    playback: Playback,
    broadcast: Broadcast,
    base: String,
    folder: TempDir,
}

async fn serve() -> Served {
    let playback = Playback::default();
    let broadcast = Broadcast::new(Bounds::default());
    playback.open(ID, &broadcast, Options::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let service = playback.router().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    Served { playback, broadcast, base, folder: TempDir::new().unwrap() }
}

/// What `ffprobe` decoded of one track.
#[derive(Debug)]
struct Decoded {
    frames: usize,
    first: f64,
    last: f64,
}

#[derive(Debug)]
struct Seen {
    video: Decoded,
    audio: Decoded,
    complaints: String,
}

fn see(arguments: &[&str]) -> Seen {
    let entries = ["-v", "error", "-show_entries", "frame=media_type,best_effort_timestamp_time", "-of", "json"];
    let output = run("timeout", &[&["40", "ffprobe"], &entries[..], arguments].concat());
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let frames = json["frames"].as_array().unwrap();
    let decoded = |kind: &str| {
        let of_kind = frames.iter().filter(|frame| frame["media_type"] == kind);
        let times: Vec<f64> = of_kind
            .filter_map(|frame| frame["best_effort_timestamp_time"].as_str().and_then(|time| time.parse().ok()))
            .collect();
        Decoded {
            frames: times.len(),
            first: times.iter().copied().fold(f64::MAX, f64::min),
            last: times.iter().copied().fold(0.0, f64::max),
        }
    };
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    Seen { video: decoded("video"), audio: decoded("audio"), complaints }
}

fn count(frames: &[Frame], video: bool) -> usize {
    frames.iter().filter(|frame| frame.is_video() == video).count()
}

/// Asserts that at least 98 % of `sent` was seen, and that sound accompanies the picture from beginning to end.
fn check(seen: &Seen, sent: &[Frame], times: usize) {
    let (video, audio) = (times * count(sent, true), times * count(sent, false));
    assert!(seen.video.frames * 100 >= video * 98 && seen.video.frames <= video, "of {video}: {seen:?}");
    assert!(seen.audio.frames * 100 >= audio * 98, "of {audio}: {seen:?}");
    assert!((seen.video.first - seen.audio.first).abs() < 0.1, "{seen:?}");
    assert!((seen.video.last - seen.audio.last).abs() < 0.1, "{seen:?}");
}

/// Runs `ffprobe` while this runtime goes on.
async fn see_live(arguments: Vec<String>) -> Seen {
    let seen = tokio::task::spawn_blocking(move || see(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    tokio::time::timeout(Duration::from_mins(1), seen).await.expect("ffprobe hangs").unwrap()
}

async fn until_playable(served: &Served) {
    let mut state = served.playback.state(ID).unwrap();
    let playable = state.wait_for(|state| state.playable);
    tokio::time::timeout(Duration::from_secs(10), playable).await.expect("never playable").unwrap();
}

/// The body of an answer that must be a 200.
async fn fetch(served: &Served, path: &str) -> Vec<u8> {
    let address = served.base.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{path}: {}",
        String::from_utf8_lossy(&answer[..40.min(answer.len())])
    );
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    answer.split_off(body)
}

/// Reads a Period on its own: each track's initialization segment and the segments of its timeline.
async fn see_period(served: &Served, period: &str) -> Seen {
    let value = |text: &str, name: &str| -> Option<String> {
        let rest = text.split_once(&format!(" {name}=\""))?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let mut tracks = Vec::new();
    for (n, set) in period.split("<AdaptationSet ").skip(1).enumerate() {
        let mut data = fetch(served, &format!("/hls/{ID}/{}", value(set, "initialization").unwrap())).await;
        let media = value(set, "media").unwrap();
        let mut first = None;
        for entry in set.split("<S").skip(1).map(|entry| format!(" {entry}")).filter(|entry| entry.starts_with("  t="))
        {
            let number = |name| value(&entry, name).map(|text| text.parse::<u64>().unwrap());
            let start = number("t").unwrap();
            first = first.or(Some(start));
            for repeat in 0..=number("r").unwrap_or(0) {
                let time = start + repeat * number("d").unwrap();
                data.extend(fetch(served, &format!("/hls/{ID}/{}", media.replace("$Time$", &time.to_string()))).await);
            }
        }
        let first = first.expect("a segment");
        let file = served.folder.path().join(format!("{first}-{n}.mp4"));
        std::fs::write(&file, data).unwrap();
        tracks.push(see_live(vec![file.to_str().unwrap().into()]).await);
    }
    let audio = tracks.pop().unwrap().audio;
    Seen { audio, ..tracks.pop().unwrap() }
}

#[tokio::test]
async fn hls_and_dash_show_every_frame_with_sound_in_step() {
    let served = serve().await;
    let file = served.folder.path().join("a.flv");
    let sent = encode(&file, 8, "320x240", &["-g", "30", "-bf", "2", "-sc_threshold", "0"]);
    let watch = async {
        until_playable(&served).await;
        let hls = format!("{}/hls/{ID}/index.m3u8", served.base);
        let dash = format!("{}/dash/{ID}/manifest.mpd", served.base);
        let hls = see_live(vec!["-live_start_index".into(), "0".into(), hls]);
        // Two players with the same User-Agent and address count as one viewer, as documented. ffmpeg does not notice
        // that a manifest has become static, so it reads only some seconds.
        tokio::join!(hls, see_live(vec!["-read_intervals".into(), "%+3".into(), dash]))
    };
    let publish = async {
        publish(&served.broadcast, 1, &sent, Duration::ZERO, 1).await;
        let viewers = served.playback.state(ID).unwrap().borrow().viewers;
        served.broadcast.end();
        viewers
    };
    let ((hls, dash), viewers) = tokio::join!(watch, publish);
    check(&hls, &sent, 1);
    assert_eq!(hls.complaints, "");
    assert!(dash.video.frames >= 88 && dash.audio.frames >= 125, "{dash:?}");
    assert_eq!(viewers, 1);
    // What is left after the end, from its beginning.
    let dash = see_live(vec![format!("{}/dash/{ID}/manifest.mpd", served.base)]).await;
    check(&dash, &sent, 1);
    served.playback.shutdown().await;
    assert!(served.playback.state(ID).is_none());
}

#[tokio::test]
async fn hls_plays_on_over_a_reconnect_and_over_lost_sound() {
    let served = serve().await;
    let sent = encode(&served.folder.path().join("a.flv"), 4, "320x240", &["-g", "30", "-bf", "0"]);
    let again = encode(&served.folder.path().join("b.flv"), 4, "320x240", &["-g", "60", "-bf", "0"]);
    // A second of sound is lost. It is replaced by silence, which decodes and keeps the rest in place.
    let lost = Duration::from_millis(1500)..Duration::from_millis(2500);
    let deaf: Vec<Frame> =
        sent.iter().filter(|frame| frame.is_video() || !lost.contains(&frame.dts)).cloned().collect();
    let watch = async {
        until_playable(&served).await;
        let hls = format!("{}/hls/{ID}/index.m3u8", served.base);
        see_live(vec!["-live_start_index".into(), "0".into(), hls]).await
    };
    let publish = async {
        publish(&served.broadcast, 1, &deaf, Duration::ZERO, 2).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        publish(&served.broadcast, 2, &again, Duration::from_secs(6), 2).await;
        served.broadcast.end();
    };
    let (hls, ()) = tokio::join!(watch, publish);
    check(&hls, &sent, 2);
    assert_eq!(hls.complaints, "");
    assert!(hls.video.last > 9.9, "media time goes on by the wall clock: {hls:?}");
}

#[tokio::test]
async fn each_publication_is_a_period_that_decodes_by_itself() {
    let served = serve().await;
    let sent = encode(&served.folder.path().join("a.flv"), 4, "320x240", &["-g", "30", "-bf", "0"]);
    let again = encode(&served.folder.path().join("b.flv"), 4, "640x360", &["-g", "250", "-bf", "2"]);
    publish(&served.broadcast, 1, &sent, Duration::ZERO, 16).await;
    publish(&served.broadcast, 2, &again, Duration::from_secs(6), 16).await;
    served.broadcast.end();
    let mut state = served.playback.state(ID).unwrap();
    tokio::time::timeout(Duration::from_secs(10), state.wait_for(|state| state.ended)).await.unwrap().unwrap();
    let manifest = String::from_utf8(fetch(&served, &format!("/dash/{ID}/manifest.mpd")).await).unwrap();
    let periods: Vec<&str> = manifest.split("<Period ").skip(1).collect();
    assert_eq!(periods.len(), 2, "{manifest}");
    for (period, size) in periods.into_iter().zip(["width=\"320\"", "width=\"640\""]) {
        assert!(period.contains(size), "{period}");
        let seen = see_period(&served, period).await;
        check(&seen, &sent, 1);
        assert_eq!(seen.complaints, "");
    }
}
