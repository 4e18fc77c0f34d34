//! The time from an app's request to pictures that can be watched.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::figures::{Row, Section, Unit};
use crate::support::cloud_server::{API_KEY, CloudServer, USER, app};
use crate::support::probe::probe;
use crate::support::sdk_app::SdkApp;
use crate::support::{Daemon, Watch, monotonic, poll_until};
use crate::{Extent, http_client, milliseconds, progress};

const SOON: Duration = Duration::from_secs(15);

struct Taken {
    active: Duration,
    decoded: Duration,
}

/// Starts a stream, records the times and ends the stream.
fn begin(app: &mut SdkApp, watch: &mut Watch) -> Taken {
    let asked = monotonic();
    let call = app.begin("startManagedStream", &json!([{"quality": "720p", "enableWebRTC": true}]));
    let result = app.outcome(call, SOON).expect("it starts");
    let active = monotonic();
    let index = result["hlsUrl"].as_str().expect("an active stream has URLs");
    // As a player does: through the playlist that names the others.
    http_client::text(index);
    let playlist = http_client::text(&http_client::beside(index, "video.m3u8"));
    let named = |line: &&str| http_client::is_segment(line);
    let segment = playlist.lines().find(named).expect("active means that a closed segment is listed");
    let init = playlist.split_once("#EXT-X-MAP:URI=\"").and_then(|(_, rest)| rest.split('"').next());
    let init = init.expect("fragments have an initialization segment");
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("segment.mp4");
    let parts = [init, segment].map(|name| http_client::get(&http_client::beside(index, name)).expect("it is listed"));
    fs::write(&file, parts.concat()).expect("a file");
    let seen = probe(&file);
    let decoded = monotonic();
    assert!(seen.frames > 5 && seen.size == (1280, 720) && seen.complaints.is_empty(), "{seen:?}");
    app.call("stopManagedStream", &json!([])).expect("it stops");
    app.managed("stopped", SOON);
    watch.wait_snapshot("the camera to be closed", SOON, |state| state["camera"]["state"] == "closed");
    Taken { active: active.saturating_sub(asked), decoded: decoded.saturating_sub(asked) }
}

/// Measures the start.
pub fn section(extent: &Extent) -> Section {
    let mut sdk = SdkApp::start("org.bench", API_KEY);
    let cloud = CloudServer::start(&app("org.bench", "\"CAMERA\"", &sdk.webhook()));
    let mut first = Vec::new();
    let mut later = Vec::new();
    for life in 0..extent.lives {
        let daemon = Daemon::start_logging(&cloud.link(), "info", &[]);
        poll_until("the glasses' link", SOON, || {
            (cloud.log().matches("glasses connected").count() > life).then_some(())
        });
        if life == 0 {
            cloud.ctl(&["app", "start", "org.bench", "--user", USER]);
            sdk.wait("its session", SOON, |said| said.get("session").is_some());
        }
        let mut watch = daemon.watch();
        for stream in 0..extent.streams {
            let taken = begin(&mut sdk, &mut watch);
            let (active, decoded) = (milliseconds(taken.active), milliseconds(taken.decoded));
            progress(&format!("start: active after {active:.0} ms, decoded after {decoded:.0} ms"));
            if stream == 0 { &mut first } else { &mut later }.push(taken);
        }
        daemon.finish();
    }
    sdk.finish();
    cloud.finish();
    let all = || first.iter().chain(&later);
    let row = |what: &str, values: Vec<f64>| Row::new(what, Unit::Milliseconds, values);
    Section {
        title: "From an app's request to a stream that plays",
        method: "From startManagedStream() in the unmodified @mentra/sdk to its promise resolved with `active`, and to the \
                 first closed HLS segment fetched (playlist, initialization, segment) and decoded by ffprobe. 1280x720, \
                 sound included; camera closed before each, test picture for a camera, x264 for an encoder; SDK, cloud, \
                 glasses and ffprobe are processes of one machine. MentraOS reports 4.89 s."
            .to_owned(),
        rows: vec![
            row("request to active", all().map(|taken| milliseconds(taken.active)).collect()).budget(1500.0),
            row("request to first segment decoded", all().map(|taken| milliseconds(taken.decoded)).collect())
                .budget(1500.0),
            row("  of it the daemon's first stream, active", first.iter().map(|t| milliseconds(t.active)).collect()),
            row("  later streams, active", later.iter().map(|t| milliseconds(t.active)).collect()),
        ],
    }
}
