//! WebRTC viewers, and the watch page in a real browser.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use axum::{Json, Router, routing::get};
use lenscast::broadcast::{Bounds, Broadcast, Statistics};
use lenscast::cloud::opus_feed::OpusFeed;
use lenscast::cloud::thumbnails::Thumbnails;
use lenscast::cloud::watch_page::{self, LiveState, WatchState};
use lenscast::whep::{Options, Whep};

use str0m::format::Codec;

use crate::live_source::LiveSource;
use crate::viewer::{self, Viewer};

/// WHEP and the watch page on a free port, with one stream that the test opens and feeds.
struct Server {
    base: String,
    whep: Whep,
    broadcast: Broadcast,
    began: Instant,
}

impl Server {
    async fn start() -> Self {
        Self::for_viewers(500).await
    }

    async fn for_viewers(sessions: usize) -> Self {
        let options = Options { bind: (Ipv4Addr::LOCALHOST, 0).into(), sessions, ..Options::default() };
        let whep = Whep::start(&options).await.unwrap();
        let broadcast = Broadcast::new(Bounds::default());
        whep.open("live", &broadcast, Some(OpusFeed::new(&broadcast)));
        let thumbnails = Thumbnails::default();
        thumbnails.open("live", &broadcast);
        let state = WatchState { state: LiveState::Live, hls: None, dash: None, whep: Some("/whep/live".into()) };
        let router = Router::new()
            .route("/api/watch/{id}", get(move || async move { Json(state) }))
            .merge(watch_page::router())
            .merge(thumbnails.router())
            .merge(whep.router());
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, whep, broadcast, began: Instant::now() }
    }

    /// Publishes, and waits for the first picture.
    async fn publish(&self, publication: u64) -> LiveSource {
        let source = LiveSource::publish(&self.broadcast, publication, self.began);
        self.reach(|statistics| statistics.pictures > 0).await;
        source
    }

    async fn reach(&self, enough: impl Fn(&Statistics) -> bool) {
        let reached = async {
            while !enough(&self.broadcast.statistics()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.expect("the publisher never came so far");
    }

    async fn viewers_reach(&self, count: usize) {
        let reached = async {
            while self.whep.viewers("live") != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(outcome.is_ok(), "{} viewers, not {count}", self.whep.viewers("live"));
    }
}

/// Runs the browser; returns what it saw.
async fn browse(arguments: Vec<String>) -> serde_json::Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/play.mjs");
    let output = tokio::task::spawn_blocking(move || {
        Command::new("timeout").arg("60").arg("node").arg(script).args(arguments).output().unwrap()
    });
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let seen = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    seen.unwrap_or_else(|| panic!("the browser saw nothing: {text} {errors}"))
}

fn screenshot(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name).to_string_lossy().into_owned()
}

#[tokio::test]
async fn the_watch_page_plays_by_webrtc_and_goes_on_after_the_glasses_reconnect() {
    let server = Server::start().await;
    let source = LiveSource::publish(&server.broadcast, 1, server.began);
    let page = format!("{}/watch/live", server.base);
    let browser = tokio::spawn(browse(
        ["--mode", "watch", "--url", &page, "--seconds", "6", "--screenshot", &screenshot("watch-whep.png")]
            .map(String::from)
            .into(),
    ));
    server.viewers_reach(1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(source);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let _source = LiveSource::publish(&server.broadcast, 2, server.began);
    let seen = browser.await.unwrap();
    assert!(seen["errors"].as_array().unwrap().is_empty(), "{seen}");
    // 6 s at 30/s, without the outage of half a second and the time to begin.
    assert!(seen["decoded"].as_f64().unwrap() > 100.0, "{seen}");
    assert!(seen["advanced"].as_f64().unwrap() > 3.0, "{seen}");
    assert!(seen["longestStillMs"].as_f64().unwrap() < 3000.0, "{seen}");
    assert_eq!(seen["size"], serde_json::json!([640, 360]), "{seen}");
    assert!(seen["figures"].as_str().unwrap().starts_with("WebRTC"), "{seen}");
    // The page says goodbye when it unloads, so the server need not wait for 10 s of silence.
    tokio::time::timeout(Duration::from_secs(5), server.viewers_reach(0)).await.expect("the page left without a word");
    server.whep.shut_down().await;
}

#[tokio::test]
async fn a_browser_hears_the_stream() {
    let server = Server::start().await;
    let _source = server.publish(1).await;
    let url = format!("{}/whep/live", server.base);
    let seen = browse(
        ["--mode", "whep", "--url", &url, "--seconds", "3", "--limit", "40", "--listen", "5"].map(String::from).into(),
    )
    .await;
    assert!(seen["errors"].as_array().unwrap().is_empty(), "{seen}");
    assert!(seen["decoded"].as_f64().unwrap() > 60.0, "{seen}");
    // Five seconds of the tone, whose energy is 0.6 a second, with nothing made up.
    assert!(seen["heard"]["energy"].as_f64().unwrap() > 1.5, "{seen}");
    assert!(seen["heard"]["concealed"].as_f64().unwrap() < 0.01, "{seen}");
    server.whep.shut_down().await;
}

#[tokio::test]
async fn a_viewer_gets_every_picture_and_the_sound_and_keeps_both_over_a_reconnect() {
    let server = Server::start().await;
    let source = server.publish(1).await;
    server.reach(|statistics| statistics.pictures > 45).await;
    let joined = Instant::now();
    let mut viewer = Viewer::join(&server.base, "live").await;
    viewer.watch(Duration::from_secs(10), |seen| seen.pictures.len() > 90 && seen.sounds > 50).await;
    let seen = &viewer.watched.pictures;
    println!("first picture {:?} after the offer", seen[0].at - joined);
    assert!(seen[0].key, "begins in the middle of a group of pictures");
    assert!(seen[0].at - joined < Duration::from_secs(3), "the first picture took {:?}", seen[0].at - joined);
    // The backlog has compressed times. After that time goes at its own pace and nothing is missing.
    let gaps: Vec<f64> = seen.windows(2).map(|pair| pair[1].time - pair[0].time).collect();
    assert!(gaps.iter().all(|&gap| gap > 0.0 && gap < 0.08), "{gaps:?}");
    assert_eq!(server.whep.viewers("live"), 1);

    drop(source);
    let cut = viewer.watched.pictures.len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _source = LiveSource::publish(&server.broadcast, 2, server.began);
    let returns = async {
        server.reach(|statistics| statistics.publication == 2).await;
        Instant::now()
    };
    let sounds = viewer.watched.sounds;
    let goes_on =
        viewer.watch(Duration::from_secs(10), |seen| seen.pictures.len() > cut + 30 && seen.sounds > sounds + 40);
    let (back, ()) = tokio::join!(returns, goes_on);
    let seen = &viewer.watched.pictures;
    let gap = seen.windows(2).position(|pair| pair[1].time - pair[0].time > 0.2).expect("the outage shows in time");
    let first = seen[gap + 1];
    assert!(first.key, "goes on in the middle of a group of pictures");
    assert!(first.at < back + Duration::from_secs(3), "the picture was back after {:?}", first.at - back);
    println!("picture back {:?} after ingest", first.at.saturating_duration_since(back));
    let whole = viewer.watched.pictures.windows(2).all(|pair| pair[1].time > pair[0].time);
    assert!(whole, "time runs backwards");

    assert_eq!(viewer.leave().await, 200);
    assert_eq!(server.whep.viewers("live"), 0);
    assert_eq!(viewer.leave().await, 404);
    server.whep.shut_down().await;
}

#[tokio::test]
async fn whoever_cannot_be_served_hears_why() {
    let server = Server::for_viewers(1).await;
    let url = format!("{}/whep/live", server.base);
    let sdp = "application/sdp";
    let (_, _, offer, _) = viewer::offer(Codec::H264).await;
    let offer = offer.to_sdp_string();
    let status = |response: reqwest::Response| response.status().as_u16();

    let early = viewer::post(&url, sdp, offer.clone()).await;
    assert!(early.headers().contains_key("retry-after"));
    assert_eq!(status(early), 409, "before the first picture");
    let _source = server.publish(1).await;

    assert_eq!(status(viewer::post(&format!("{}/whep/other", server.base), sdp, offer.clone()).await), 404);
    assert_eq!(status(viewer::post(&url, "text/plain", offer.clone()).await), 415);
    assert_eq!(status(viewer::post(&url, sdp, "v=0\r\nnonsense".into()).await), 400);
    assert_eq!(status(viewer::post(&url, sdp, String::new()).await), 400);
    assert_eq!(status(viewer::post(&url, sdp, "x".repeat(100_000)).await), 413);
    let (_, _, vp8, _) = viewer::offer(Codec::Vp8).await;
    let refused = viewer::post(&url, sdp, vp8.to_sdp_string()).await;
    assert_eq!(refused.status(), 406);
    assert!(refused.text().await.unwrap().contains("H.264"));

    let client = viewer::http();
    let options = client.request(reqwest::Method::OPTIONS, &url).send().await.unwrap();
    assert_eq!(options.status(), 204);
    assert_eq!(options.headers()["accept-post"], sdp);
    assert_eq!(options.headers()["access-control-allow-origin"], "*");
    assert_eq!(status(client.get(&url).send().await.unwrap()), 405);

    let mut watching = Viewer::join(&server.base, "live").await;
    watching.watch(Duration::from_secs(10), |seen| !seen.pictures.is_empty()).await;
    let full = viewer::post(&url, sdp, offer).await;
    assert!(full.headers().contains_key("retry-after"));
    assert_eq!(status(full), 503);

    let trickle = |session: &str, kind: &'static str, body: &'static str| {
        client.patch(session).header("content-type", kind).body(body).send()
    };
    let session = watching.watched.session.clone();
    let fragment = "application/trickle-ice-sdpfrag";
    assert_eq!(status(trickle(&session, fragment, "a=end-of-candidates").await.unwrap()), 204);
    assert_eq!(status(trickle(&session, "text/plain", "").await.unwrap()), 415);
    let stranger = format!("{url}/0123456789abcdef0123456789abcdef");
    assert_eq!(status(trickle(&stranger, fragment, "").await.unwrap()), 404);
    assert_eq!(status(client.delete(&stranger).send().await.unwrap()), 404);

    // The stream is closed: its viewers are told, and its URL is gone.
    server.whep.close("live");
    watching.watch(Duration::from_secs(5), |seen| seen.ended).await;
    assert_eq!(status(client.delete(&session).send().await.unwrap()), 404);
    server.whep.shut_down().await;
}

#[tokio::test]
async fn a_stream_with_b_frames_and_one_that_ended_are_refused() {
    let server = Server::start().await;
    let _source = LiveSource::publish_b_frames(&server.broadcast, 1, server.began);
    server.reach(|statistics| statistics.pictures > 10).await;
    let (_, _, offer, _) = viewer::offer(Codec::H264).await;
    let refused = viewer::post(&format!("{}/whep/live", server.base), "application/sdp", offer.to_sdp_string()).await;
    assert_eq!(refused.status(), 406);
    assert!(refused.text().await.unwrap().contains("B-frames"));
    server.broadcast.end();
    let ended = viewer::post(&format!("{}/whep/live", server.base), "application/sdp", offer.to_sdp_string()).await;
    assert_eq!(ended.status(), 410);
    server.whep.shut_down().await;
}

#[tokio::test]
async fn thumbnails_come_from_the_newest_key_frame() {
    let server = Server::start().await;
    let get = |id: &str| viewer::http().get(format!("{}/thumbnails/{id}.jpg", server.base)).send();
    assert_eq!(get("other").await.unwrap().status(), 404);
    let early = get("live").await.unwrap();
    assert_eq!(early.status(), 503);
    assert!(early.headers().contains_key("retry-after"));
    let _source = server.publish(1).await;
    let picture = get("live").await.unwrap();
    assert_eq!(picture.status(), 200);
    assert_eq!(picture.headers()["content-type"], "image/jpeg");
    let first = picture.bytes().await.unwrap();
    assert!(first.starts_with(&[0xff, 0xd8]) && first.len() > 1000);
    server.reach(|statistics| statistics.pictures > 40).await;
    // Kept for a while, although there is a newer key frame.
    assert_eq!(get("live").await.unwrap().bytes().await.unwrap(), first);
    server.whep.shut_down().await;
}
