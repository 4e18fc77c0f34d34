//! The glasses' RTMP connection is killed again and again; viewers go on watching.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::browser::small;
use crate::sdk::{SOON, Stage, start_managed, text};
use crate::support::sdk_app::SdkApp;
use crate::support::{Browser, heavy, probe};
use crate::viewer::{self, Viewer, Watched};

const KILLS: usize = 10;
/// Three times the promise of 1 s.
const BACK: Duration = Duration::from_secs(3);
/// The glasses wait at most 5 s between two attempts; then a segment has to be closed.
const RECOVERY: Duration = Duration::from_secs(15);
/// Time for players to buffer what browsers demand, beside each other and an encoder on two cores.
const PLAYING: Duration = Duration::from_secs(20);
const URLS: [&str; 5] = ["hlsUrl", "dashUrl", "webrtcUrl", "previewUrl", "thumbnailUrl"];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// One WebRTC session, until it is told to leave.
struct WhepViewer {
    leave: Arc<AtomicBool>,
    watching: JoinHandle<Watched>,
}

impl WhepViewer {
    fn join(url: &str) -> Self {
        let (base, id) = url.split_once("/whep/").expect("a WHEP URL");
        let (base, id) = (base.to_owned(), id.to_owned());
        let leave = Arc::new(AtomicBool::new(false));
        let told = leave.clone();
        let watching = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut viewer = Viewer::join(&base, &id).await;
                viewer.watch(Duration::from_mins(2), |_| told.load(Ordering::Relaxed)).await;
                viewer.leave().await;
                viewer.watched
            })
        });
        Self { leave, watching }
    }

    fn finish(self) -> Watched {
        self.leave.store(true, Ordering::Relaxed);
        self.watching.join().expect("it watched to the end")
    }
}

/// Asserts that the newest publication, after `kills` others, can be played as HLS now.
fn newest_publication_plays(hls: &str, kills: usize) {
    let base = hls.rsplit_once('/').expect("a URL").0;
    let fetch = |name: &str| {
        runtime().block_on(async {
            let answer = viewer::http().get(format!("{base}/{name}")).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{name}");
            answer.bytes().await.unwrap()
        })
    };
    let playlist = String::from_utf8(fetch("video.m3u8").to_vec()).unwrap();
    let (old, newest) = playlist.rsplit_once("#EXT-X-DISCONTINUITY\n").expect("a new publication is a discontinuity");
    let before = old.lines().find_map(|line| line.strip_prefix("#EXT-X-DISCONTINUITY-SEQUENCE:")).unwrap();
    let before: usize = before.parse().unwrap();
    assert!(before + old.matches("#EXT-X-DISCONTINUITY\n").count() + 1 >= kills, "{playlist}");
    let map = newest.split_once("#EXT-X-MAP:URI=\"").expect("an initialization segment").1.split_once('"').unwrap().0;
    let closed = newest.lines().skip_while(|line| !line.starts_with("#EXTINF")).nth(1);
    let closed = closed.unwrap_or_else(|| panic!("active, and no segment of the new publication:\n{playlist}"));
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("segment.mp4");
    std::fs::write(&file, [fetch(map), fetch(closed)].concat()).expect("a segment is small");
    let seen = probe::probe(&file);
    assert!(seen.frames > 5 && seen.complaints.is_empty(), "{seen:?}");
}

/// The statuses that arrived without being waited for.
fn words(app: &mut SdkApp) -> Vec<Value> {
    app.heard().iter().filter_map(|said| said["managed"].get("status").cloned()).collect()
}

#[test]
fn viewers_watch_on_while_the_glasses_connection_is_killed_ten_times() {
    let _turn = heavy::alone();
    let (mut stage, cable) = Stage::with_cable();
    let app = &mut stage.apps[0];
    let result = start_managed(app, &small(true)).expect("it starts");
    let hls_url = text(&result, "hlsUrl");
    let whep = WhepViewer::join(text(&result, "webrtcUrl"));
    let mut hls = Browser::play("reconnect-hls", "hls", hls_url);
    hls.pictures(30.0, Duration::from_secs(30));
    let mut dash = Browser::play("reconnect-dash", "dash", text(&result, "dashUrl"));
    dash.pictures(30.0, Duration::from_secs(30));
    app.heard().clear();

    let mut killed = Vec::new();
    for kill in 1..=KILLS {
        killed.push(Instant::now());
        cable.cut();
        let away = app.managed("preparing", SOON);
        assert!(URLS.iter().all(|url| away.get(url).is_none()), "not usable now: {away}");
        assert_eq!(app.call("checkExistingStream", &json!([])).unwrap()["streamInfo"]["status"], "preparing");
        cable.mend();
        let back = app.managed("active", RECOVERY);
        newest_publication_plays(hls_url, kill);
        assert!(words(app).iter().all(|word| word == "preparing"), "{:?}", app.heard());
        app.heard().clear();
        for url in URLS {
            assert_eq!(back[url], result[url], "{url}");
        }
        // A browser that has stalled repeatedly plays on only with 3 s in its buffer, so it must get there before the
        // next kill.
        hls.pictures(15.0, PLAYING);
        dash.pictures(15.0, PLAYING);
        assert!(words(app).is_empty(), "it plays: {:?}", app.heard());
    }

    let watched = whep.finish();
    assert!(!watched.ended, "the session ended");
    let connected = cable.connected();
    let delays: Vec<Duration> = killed
        .iter()
        .map(|&killed| {
            // Media follows a connection within milliseconds.
            let ingest = *connected.iter().find(|&&at| at > killed).expect("the glasses came back");
            let picture = watched.pictures.iter().find(|picture| picture.key && picture.at > ingest);
            picture.expect("a picture of the new publication").at - ingest
        })
        .collect();
    println!("WHEP: picture back after {delays:?}");
    assert!(delays.iter().all(|&delay| delay < BACK), "{delays:?}");
    for seen in [hls.finish(), dash.finish()] {
        assert!(!seen["errors"].to_string().contains("fatal"), "{seen}");
        println!("{} stood still for {} ms at most", seen["mode"], seen["longestStillMs"]);
    }
    stage.finish();
}
