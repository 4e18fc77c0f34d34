//! The npm package `@mentra/sdk`, unmodified, in Node, with the cloud and a real daemon.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::link_proxy::LinkProxy;
use crate::support::cloud_server::{API_KEY, CloudServer, USER, app};
use crate::support::sdk_app::SdkApp;
use crate::support::{Daemon, Nginx, heavy, poll_until};

pub const CAMERA: &str = "\"CAMERA\"";
/// Time for a stream's start: three times the promise of 1.5 s, as the machine is busy.
pub const START: Duration = Duration::from_millis(4500);
/// Time for an app that has come back to get its statuses.
const BACK: Duration = Duration::from_secs(2);
pub const SOON: Duration = Duration::from_secs(10);

/// A cloud, its glasses, and apps that have a session.
pub struct Stage {
    pub cloud: CloudServer,
    pub daemon: Daemon,
    pub apps: Vec<SdkApp>,
}

impl Stage {
    /// One app per pair of package and permissions.
    pub fn new(packages: &[(&str, &str)]) -> Self {
        Self::with(packages, "", CloudServer::link)
    }

    fn with(packages: &[(&str, &str)], more: &str, link: impl FnOnce(&CloudServer) -> String) -> Self {
        Self::build(packages, None, more, link)
    }

    /// One app, and a cable from the glasses to ingest that can be cut.
    pub fn with_cable() -> (Self, LinkProxy) {
        let (cable, port) = LinkProxy::listen();
        let stage = Self::build(&[("org.one", CAMERA)], Some(port), "", CloudServer::link);
        cable.lead_to(format!("127.0.0.1:{}", stage.cloud.rtmp()));
        (stage, cable)
    }

    fn build(
        packages: &[(&str, &str)],
        rtmp: Option<u16>,
        more: &str,
        link: impl FnOnce(&CloudServer) -> String,
    ) -> Self {
        let apps: Vec<SdkApp> = packages.iter().map(|(package, _)| SdkApp::start(package, API_KEY)).collect();
        let configured = packages.iter().zip(&apps).map(|((package, may), sdk)| app(package, may, &sdk.webhook()));
        let cloud = CloudServer::start_behind(rtmp, &(more.to_owned() + &configured.collect::<String>()));
        let daemon = Daemon::start(&link(&cloud));
        let mut this = Self { cloud, daemon, apps };
        poll_until("the glasses' link", SOON, || this.cloud.log().contains("glasses connected").then_some(()));
        for n in 0..this.apps.len() {
            this.start_session(n);
        }
        this
    }

    fn start_session(&mut self, n: usize) {
        self.cloud.ctl(&["app", "start", self.apps[n].package(), "--user", USER]);
        self.apps[n].wait("its session", SOON, |said| said.get("session").is_some());
    }

    pub fn finish(self) {
        self.apps.into_iter().for_each(SdkApp::finish);
        self.daemon.finish();
        self.cloud.finish();
    }
}

pub fn start_managed(app: &mut SdkApp, options: &Value) -> Result<Value, String> {
    let id = app.begin("startManagedStream", &json!([options]));
    app.outcome(id, START)
}

fn check(app: &mut SdkApp) -> Value {
    app.call("checkExistingStream", &json!([])).expect("a check is always answered")
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"))
}

/// Reads `seconds` of a URL. Returns the number of pictures and their size.
pub fn watch(url: &str, seconds: u32) -> (u64, u64, u64) {
    let interval = format!("%+{seconds}");
    let output = crate::support::process::run(
        "ffprobe",
        &[
            "-v",
            "error",
            "-read_intervals",
            &interval,
            "-select_streams",
            "v:0",
            "-count_frames",
            "-show_entries",
            "stream=nb_read_frames,width,height",
            "-of",
            "json",
            url,
        ],
    );
    let json: Value = serde_json::from_slice(&output.stdout).expect("ffprobe writes JSON");
    let stream = &json["streams"][0];
    let frames = stream["nb_read_frames"].as_str().and_then(|n| n.parse().ok()).unwrap_or(0);
    (frames, stream["width"].as_u64().unwrap_or(0), stream["height"].as_u64().unwrap_or(0))
}

#[test]
fn two_apps_share_a_managed_stream_and_the_last_one_ends_it() {
    let _turn = heavy::turn();
    let mut stage = Stage::new(&[("org.one", CAMERA), ("org.two", CAMERA)]);
    let [one, two] = &mut stage.apps[..] else { unreachable!() };
    assert_eq!(check(one)["hasActiveStream"], false);

    let result = start_managed(one, &json!({"quality": "720p", "enableWebRTC": true})).expect("it starts");
    for url in ["hlsUrl", "dashUrl", "webrtcUrl", "previewUrl", "thumbnailUrl"] {
        assert!(text(&result, url).starts_with(&stage.cloud.url()), "{result}");
    }
    // Playable at once: that is what `active` means.
    for url in ["hlsUrl", "dashUrl"] {
        let (frames, width, height) = watch(text(&result, url), 1);
        assert!(frames > 10 && (width, height) == (1280, 720), "{url}: {frames} pictures of {width}x{height}");
    }
    let words: Vec<String> =
        one.heard().iter().filter_map(|said| said["managed"]["status"].as_str().map(str::to_owned)).collect();
    assert_eq!(words, ["initializing", "preparing", "active"]);

    let joined = start_managed(two, &json!({"quality": "1080p"})).expect("it joins");
    assert_eq!((&joined["streamId"], &joined["hlsUrl"]), (&result["streamId"], &result["hlsUrl"]));
    let info = check(two)["streamInfo"].clone();
    assert_eq!(
        (text(&info, "type"), text(&info, "status"), &info["streamId"]),
        ("managed", "active", &result["streamId"])
    );
    assert!(info["activeViewers"].as_u64() >= Some(1), "ffprobe has just watched: {info}");
    assert!(text(&info, "createdAt").ends_with('Z'), "{info}");

    one.call("stopManagedStream", &json!([])).expect("it leaves");
    one.managed("stopped", SOON);
    assert_eq!(check(two)["streamInfo"]["status"], "active", "the other goes on");
    two.call("stopManagedStream", &json!([])).expect("it ends it");
    two.managed("stopped", SOON);
    assert_eq!(check(one)["hasActiveStream"], false);
    poll_until("the glasses to be idle", SOON, || stage.daemon.control().status()["stream"].is_null().then_some(()));

    let again = start_managed(one, &json!({})).expect("a new start follows an end");
    assert_ne!(again["streamId"], result["streamId"]);
    assert!(again.get("webrtcUrl").is_none(), "not asked for: {again}");
    stage.finish();
}

#[test]
fn full_hd_is_what_comes_when_asked_for() {
    let _turn = heavy::turn();
    let mut stage = Stage::new(&[("org.one", CAMERA)]);
    let result = start_managed(&mut stage.apps[0], &json!({"quality": "1080p"})).expect("it starts");
    let (frames, width, height) = watch(text(&result, "hlsUrl"), 1);
    assert!(frames > 5 && (width, height) == (1920, 1080), "{frames} pictures of {width}x{height}");
    stage.finish();
}

#[test]
fn unmanaged_is_exclusive_and_goes_straight_to_the_apps_server() {
    let _turn = heavy::turn();
    let nginx = Nginx::start();
    let mut stage = Stage::new(&[("org.one", CAMERA), ("org.two", CAMERA), ("org.blind", "\"MICROPHONE\"")]);
    let [one, two, blind] = &mut stage.apps[..] else { unreachable!() };
    let url = nginx.url("live", "s3cret-key");

    blind.call("startStream", &json!([{"rtmpUrl": url}])).expect("resolves when sent");
    assert!(text(&blind.unmanaged("error", SOON), "errorDetails").contains("permission"));
    let refused = start_managed(blind, &json!({})).expect_err("not without the permission");
    assert!(refused.contains("permission"), "{refused}");

    let options =
        json!([{"rtmpUrl": url, "video": {"width": 640, "height": 360, "bitrate": 600_000, "frameRate": 20}}]);
    one.call("startStream", &options).expect("resolves when sent");
    let status = one.unmanaged("active", START);
    assert_eq!(text(&status, "appId"), "org.one");
    assert_eq!(one.call("getCurrentStreamUrl", &json!([])), Ok(json!(url)));
    let info = check(one)["streamInfo"].clone();
    assert_eq!(
        (text(&info, "type"), text(&info, "rtmpUrl"), text(&info, "requestingAppId")),
        ("unmanaged", url.as_str(), "org.one")
    );
    let seen = check(two)["streamInfo"].clone();
    assert!(!seen.to_string().contains("s3cret-key") && text(&seen, "requestingAppId") == "org.one", "{seen}");

    let refused = start_managed(two, &json!({})).expect_err("unmanaged blocks managed");
    assert!(refused.contains("unmanaged stream already active"), "{refused}");
    two.call("startStream", &options).expect("resolves when sent");
    assert!(text(&two.unmanaged("error", SOON), "errorDetails").contains("org.one"));
    assert_eq!(two.call("getCurrentStreamUrl", &json!([])), Ok(Value::Null));
    let photo = two.call("requestPhoto", &json!([{}])).expect_err("another app's unmanaged stream runs");
    assert!(photo.contains("unmanaged stream of org.one"), "{photo}");

    let measured = one.wait("measurements", SOON, |said| said["unmanaged"]["stats"].is_object());
    assert_eq!(measured["unmanaged"]["stats"]["width"], 640);
    one.call("stopStream", &json!([])).expect("resolves when sent");
    one.unmanaged("stopped", SOON);
    assert_eq!(one.call("getCurrentStreamUrl", &json!([])), Ok(Value::Null));

    // The other order: an unmanaged stream takes the camera from a managed one, whose viewers are told why.
    start_managed(two, &json!({})).expect("the camera is free");
    one.call("startStream", &options).expect("resolves when sent");
    let told = two.managed("stopped", SOON);
    assert!(text(&told, "message").contains("org.one"), "{told}");
    one.unmanaged("active", SOON);
    one.call("stopStream", &json!([])).expect("resolves when sent");
    one.unmanaged("stopped", SOON);
    stage.finish();
}

#[test]
fn without_glasses_an_app_is_told_so_at_once() {
    let mut sdk = SdkApp::start("org.one", API_KEY);
    let cloud = CloudServer::start(&app("org.one", CAMERA, &sdk.webhook()));
    cloud.ctl(&["app", "start", "org.one", "--user", USER]);
    sdk.wait("its session", SOON, |said| said.get("session").is_some());
    let refused = start_managed(&mut sdk, &json!({})).expect_err("there are no glasses");
    assert!(refused.contains("not connected"), "{refused}");
    sdk.call("startStream", &json!([{"rtmpUrl": "rtmp://127.0.0.1/live/x"}])).expect("resolves when sent");
    sdk.unmanaged("error", SOON);
    sdk.call("stopManagedStream", &json!([])).expect("always answered");
    sdk.managed("stopped", SOON);
    sdk.finish();
    cloud.finish();
}

#[test]
fn an_app_that_lost_its_socket_is_right_again() {
    let _turn = heavy::turn();
    let mut stage = Stage::new(&[("org.one", CAMERA)]);
    let result = start_managed(&mut stage.apps[0], &json!({})).expect("it starts");
    let one = &mut stage.apps[0];
    one.heard().clear();
    one.call("dropSocket", &json!([])).expect("dropped");
    // The package tries after a second.
    let status = one.managed("active", Duration::from_secs(1) + BACK);
    assert_eq!(status["streamId"], result["streamId"]);

    // An app is told of an end in its absence when it is back.
    one.call("dropSocket", &json!([])).expect("dropped");
    stage.cloud.ctl(&["stop", text(&result, "streamId")]);
    let told = stage.apps[0].managed("stopped", Duration::from_secs(1) + BACK);
    assert!(text(&told, "message").contains("lenscastctl"), "{told}");
    stage.finish();
}

#[test]
fn an_app_that_gave_up_is_started_again() {
    let _turn = heavy::turn();
    let mut stage = Stage::new(&[("org.one", CAMERA)]);
    let result = start_managed(&mut stage.apps[0], &json!({})).expect("it starts");
    let port = stage.apps[0].port();
    stage.apps[0].process().kill();
    stage.apps[0] = SdkApp::start_at("org.one", API_KEY, port);
    let one = &mut stage.apps[0];
    one.wait("its session", Duration::from_secs(30), |said| said.get("session").is_some());
    let status = one.managed("active", BACK);
    assert_eq!(status["streamId"], result["streamId"]);
    assert_eq!(check(one)["streamInfo"]["streamId"], result["streamId"]);
    stage.finish();
}

#[test]
fn a_restarted_cloud_takes_live_streams_over() {
    let _turn = heavy::turn();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut stage = Stage::new(&[("org.one", CAMERA)]);
        let result = start_managed(&mut stage.apps[0], &json!({"enableWebRTC": true})).expect("it starts");
        stage.apps[0].heard().clear();
        let page = text(&result, "previewUrl").replace("/watch/", "/api/watch/");
        stage.cloud.restart(signal);
        // Before anybody is back.
        let output = crate::support::process::run("curl", &["-sSf", "-m", "5", &page]);
        let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_ne!(text(&shown, "state"), "ended");
        let status = stage.apps[0].managed("active", Duration::from_secs(12));
        assert_eq!((&status["streamId"], &status["hlsUrl"]), (&result["streamId"], &result["hlsUrl"]));
        let (frames, ..) = watch(text(&result, "hlsUrl"), 1);
        assert!(frames > 10, "{frames} pictures after {signal}");
        stage.apps[0].call("stopManagedStream", &json!([])).expect("sent");
        stage.apps[0].managed("stopped", SOON);
        stage.finish();
    }
}

#[test]
fn a_cut_link_ends_nothing() {
    let _turn = heavy::turn();
    let mut proxy = None;
    let nginx = Nginx::start();
    let mut stage = Stage::with(&[("org.one", CAMERA)], "", |cloud| {
        let (cut, link) = LinkProxy::before(cloud);
        proxy = Some(cut);
        link
    });
    let proxy = proxy.expect("made above");
    let one = &mut stage.apps[0];
    start_managed(one, &json!({})).expect("it starts");
    one.heard().clear();
    proxy.cut();
    let cut = Instant::now();
    while cut.elapsed() < Duration::from_secs(2) {
        assert_eq!(check(one)["streamInfo"]["status"], "active", "media goes on without the link");
    }
    proxy.mend();
    // A stop that was requested without a link is delivered when the link is back.
    proxy.cut();
    one.call("stopManagedStream", &json!([])).expect("sent");
    one.managed("stopped", SOON);
    let links = |cloud: &CloudServer| cloud.log().matches("core: glasses connected").count();
    let before = links(&stage.cloud);
    proxy.mend();
    // The glasses may have given up by then: nobody accepts the stream any more.
    poll_until("the glasses to be back and to have stopped", Duration::from_secs(20), || {
        (links(&stage.cloud) > before && stage.daemon.control().status()["stream"].is_null()).then_some(())
    });

    let one = &mut stage.apps[0];
    one.call("startStream", &json!([{"rtmpUrl": nginx.url("live", "k")}])).expect("resolves when sent");
    one.unmanaged("active", Duration::from_secs(20));
    proxy.cut();
    assert_eq!(text(&one.unmanaged("reconnecting", SOON), "errorDetails"), "glasses link lost");
    proxy.mend();
    one.unmanaged("active", Duration::from_secs(20));
    one.call("stopStream", &json!([])).expect("resolves when sent");
    one.unmanaged("stopped", SOON);
    stage.finish();
}

#[test]
fn photos_while_live_and_without_a_stream() {
    let _turn = heavy::turn();
    let mut stage = Stage::new(&[("org.one", CAMERA), ("org.two", CAMERA)]);
    let [one, two] = &mut stage.apps[..] else { unreachable!() };
    let idle = two.call("requestPhoto", &json!([{}])).expect("the camera is free");
    start_managed(one, &json!({})).expect("it starts");
    let live = two.call("requestPhoto", &json!([{"size": "full"}])).expect("from the running picture");
    for photo in [idle, live] {
        assert_eq!((text(&photo, "mimeType"), text(&photo, "jpeg")), ("image/jpeg", "ffd8"));
        assert!(photo["bytes"].as_u64() > Some(2000), "{photo}");
    }
    assert_eq!(check(one)["streamInfo"]["status"], "active");
    stage.finish();
}

#[test]
fn a_wrong_key_gets_nowhere() {
    let sdk = SdkApp::start("org.one", "key-of-another");
    let cloud = CloudServer::start(&app("org.one", CAMERA, &sdk.webhook()));
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_lenscastctl"))
        .args(["cloud", "app", "start", "org.one", "--user", USER])
        .env("LENSCAST_CLOUD_SOCKET", cloud.socket())
        .output()
        .expect("lenscastctl runs");
    assert!(!started.status.success());
    drop(sdk);
    cloud.finish();
}

#[test]
fn restream_destinations_are_told_one_by_one() {
    let _turn = heavy::turn();
    let (here, mut late) = (Nginx::start(), Nginx::absent());
    let mut stage = Stage::new(&[("org.one", CAMERA), ("org.two", CAMERA)]);
    let [one, two] = &mut stage.apps[..] else { unreachable!() };
    let options = json!({"restreamDestinations": [
        {"url": here.url("live", "first-key"), "name": "First"}, {"url": late.url("live", "second-key")}
    ]});
    start_managed(one, &options).expect("it starts");
    let is = |said: &Value, n: usize, word: &str| said["managed"]["outputs"][n]["status"] == word;
    let told = one.wait("one of two", SOON, |said| is(said, 0, "active") && is(said, 1, "error"));
    let outputs = &told["managed"]["outputs"];
    assert_eq!((&outputs[0]["name"], &outputs[0]["url"]), (&json!("First"), &json!(here.url("live", "first-key"))));
    assert!(outputs[1]["error"].is_string(), "{outputs}");

    late.launch();
    one.wait("both", SOON, |said| is(said, 0, "active") && is(said, 1, "active"));
    // Only the app that gave a key sees it.
    start_managed(two, &json!({})).expect("it joins");
    let seen = two.wait("the outputs", SOON, |said| said["managed"]["outputs"].is_array());
    assert!(!seen.to_string().contains("-key"), "{seen}");
    for server in [&here, &late] {
        server.recordings().wait_frames(0, 30, SOON);
    }
    stage.finish();
}
