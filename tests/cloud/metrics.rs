//! The cloud's metrics over the life of a managed stream.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::sdk::{CAMERA, SOON, Stage, start_managed, text, watch};
use crate::support::cloud_server::{API_KEY, CloudServer, TOKEN, USER};
use crate::support::scrape::get;
use crate::support::{Scrape, heavy, poll_until};
use crate::viewer::Viewer;

#[test]
fn a_managed_stream_and_its_viewers_show_in_numbers() {
    let _turn = heavy::turn();
    let mut stage = Stage::new(&[("org.one", CAMERA)]);
    let port = stage.cloud.http();
    let idle = Scrape::of(port);
    assert_eq!(idle.sum("lenscast_cloud_streams"), 0);
    assert_eq!(idle.count("lenscast_cloud_connected{kind=\"glasses\"}"), 1);
    assert_eq!(idle.count("lenscast_cloud_connected{kind=\"app\"}"), 1);
    assert_eq!(idle.count("lenscast_cloud_webhooks_total{outcome=\"started\"}"), 1);
    assert!((1e6..1e10).contains(&idle.value("process_resident_memory_bytes")));

    let options = json!({"quality": "720p", "enableWebRTC": true});
    let stream = start_managed(&mut stage.apps[0], &options).expect("it starts");
    let hls = text(&stream, "hlsUrl");
    assert!(watch(hls, 1).0 > 10, "there is something to be counted");
    let (base, id) = text(&stream, "webrtcUrl").split_once("/whep/").expect("a WHEP URL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let seen = runtime.block_on(async {
        let mut viewer = Viewer::join(base, id).await;
        viewer.watch(SOON, |seen| seen.pictures.len() > 10).await;
        let seen = Scrape::of(port);
        viewer.leave().await;
        seen
    });
    seen.assert_after(&idle);
    assert_eq!(seen.count("lenscast_cloud_streams{kind=\"managed\",status=\"active\"}"), 1);
    assert_eq!(seen.sum("lenscast_cloud_streams"), 1, "a stream has one status");
    assert_eq!(seen.count("lenscast_cloud_streams_started_total{kind=\"managed\"}"), 1);
    assert_eq!(seen.count("lenscast_cloud_viewers{kind=\"webrtc\"}"), 1);
    assert!(seen.value("lenscast_cloud_viewers{kind=\"http\"}") >= 1.0, "ffprobe has just watched");
    assert_eq!(seen.count("lenscast_cloud_whep_offers_total{outcome=\"agreed\"}"), 1);
    assert!(seen.value("lenscast_cloud_ingest_frames_total{media=\"video\"}") > 10.0);
    assert!(seen.value("lenscast_cloud_ingest_frames_total{media=\"audio\"}") > 10.0);
    assert!(seen.value("lenscast_cloud_ingest_bytes_total") > 50_000.0);
    assert_eq!(seen.count("lenscast_cloud_publications_total"), 1);
    for kind in ["playlist", "initialization", "segment"] {
        assert!(seen.value(&format!("lenscast_cloud_playback_files_total{{kind=\"{kind}\"}}")) >= 1.0, "{kind}");
    }
    assert!(seen.value("lenscast_cloud_playback_bytes_total") > 10_000.0);
    assert!(seen.value("lenscast_cloud_http_answers_total{class=\"2xx\"}") >= 3.0);
    assert!(seen.value("lenscast_cloud_http_connections") >= 3.0, "app, glasses, and who asks");

    stage.apps[0].call("stopManagedStream", &json!([])).expect("it ends");
    stage.apps[0].managed("stopped", SOON);
    let ended = poll_until("the publication's end", SOON, || {
        Some(Scrape::of(port)).filter(|now| now.sum("lenscast_cloud_publications_ended_total") > 0)
    });
    ended.assert_after(&seen);
    assert_eq!(ended.count("lenscast_cloud_streams_ended_total{cause=\"requested\"}"), 1);
    assert_eq!(ended.sum("lenscast_cloud_streams_ended_total"), 1);
    assert_eq!(ended.sum("lenscast_cloud_streams"), 0);
    assert_eq!(ended.sum("lenscast_cloud_viewers"), 0);
    let told = get(port, "/metrics", "").1;
    for given_away in [API_KEY, TOKEN, USER, "org.one", id, text(&stream, "streamId"), "127.0.0.1"] {
        assert!(!told.contains(given_away), "{given_away} in {told}");
    }
    stage.finish();
}

#[test]
fn behind_a_proxy_only_who_has_the_token_reads() {
    const SECRET: &str = "0123456789abcdef-for-prometheus";
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{SECRET}\n")).expect("the token file");
    let config = format!("[metrics]\ntoken_file = \"{}\"\n", file.display());
    let cloud = CloudServer::start(&config);
    let port = cloud.http();
    let status = |headers: &str| get(port, "/metrics", headers).0;
    assert_eq!(status(&format!("authorization: Bearer {SECRET}\r\n")), 200);
    assert_eq!(status(&format!("authorization: Bearer {SECRET}\r\nx-forwarded-for: 192.0.2.1\r\n")), 200);
    for wrong in ["", "authorization: Bearer 0123456789abcdef\r\n", "authorization: Basic 0123\r\n"] {
        assert_eq!(status(wrong), 404, "{wrong}");
    }
    // The answer comes soon, whatever else is going on.
    let began = std::time::Instant::now();
    assert_eq!(status(&format!("authorization: Bearer {SECRET}\r\n")), 200);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(!cloud.log().contains(SECRET));
    cloud.finish();
}
