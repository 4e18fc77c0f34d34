//! Glass to glass: how old a picture is when a browser shows it.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::figures::{Figure, Row, Section, Unit};
use crate::glasses::{Glasses, active};
use crate::support::cloud_server::CloudServer;
use crate::support::process::run;
use crate::{Extent, clock_picture, progress};

/// An HLS player begins further behind and then catches up, by 4 %.
const SETTLE: Duration = Duration::from_secs(8);

/// The ages of the pictures that a browser showed, in ms.
fn watch(page: &str, player: &str, extent: &Extent) -> Vec<f64> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/cloud/latency.mjs");
    let url = format!("{page}?player={player}");
    let (settle, seconds) = (SETTLE.as_secs().to_string(), extent.watching.as_secs().to_string());
    let output = Command::new("timeout").args(["90", "node", script, &url, &settle, &seconds]).output();
    let output = output.expect("node runs");
    let seen: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let ages: Vec<f64> = seen["ages"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    assert!(!ages.is_empty(), "no picture could be read: {seen}");
    let (unread, errors, figures) = (&seen["unread"], &seen["errors"], &seen["figures"]);
    progress(&format!("{player}: {} pictures, {unread} not readable, errors {errors}; {figures}", ages.len()));
    ages
}

/// Measures the latency.
pub fn section(extent: &Extent) -> Section {
    let browser = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");
    if !std::path::Path::new(browser).join("node_modules/playwright-core/package.json").exists() {
        run("npm", &["ci", "--ignore-scripts", "--prefix", browser]);
    }
    let cloud = CloudServer::start("");
    let glasses = Glasses::link(&cloud);
    let publishing = clock_picture::spawn(&glasses.start(&cloud));
    let stream = active(&cloud);
    let page = stream["watch_url"].as_str().expect("an active stream has a page");
    let (mut webrtc, mut hls) = (Vec::new(), Vec::new());
    for _ in 0..extent.rounds {
        webrtc.extend(watch(page, "webrtc", extent));
        hls.extend(watch(page, "hls", extent));
    }
    drop(publishing);
    cloud.finish();
    let row = |what: &str, ages: &[f64]| Row::new(what, Unit::Milliseconds, ages.iter().copied());
    Section {
        title: "Glass to glass",
        method: format!(
            "The time of day is drawn into each picture before it is encoded, and read back in headless Chromium, on the \
             cloud's watch page, by requestVideoFrameCallback with the time at which the picture is due on the screen. \
             1280x720 at 30 fps, x264 at 2 Mbit/s as the daemon has it, AAC, the daemon's own publisher. {} round(s) of \
             {} s, {} s after the first picture. Encoder, server and browser (software decoding and drawing) share this \
             machine's cores.",
            extent.rounds,
            extent.watching.as_secs(),
            SETTLE.as_secs()
        ),
        rows: vec![
            row("WebRTC (WHEP)", &webrtc).budget(250.0),
            row("WebRTC (WHEP)", &webrtc).figure(Figure::P95),
            row("LL-HLS (hls.js)", &hls).budget(2000.0),
            row("LL-HLS (hls.js)", &hls).figure(Figure::P95),
        ],
    }
}
