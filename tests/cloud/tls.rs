//! HTTPS, WSS and RTMPS served by the program itself.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::cloud_server::{CloudServer, USER};
use crate::support::{Certificate, Daemon, heavy, poll_until};

fn curl(trust: &Path, url: &str) -> (bool, String) {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-m", "5", "--fail", "--cacert"]).arg(trust).arg(url);
    let output = curl.output().expect("curl runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn glasses_link_and_publish_and_viewers_watch_by_tls() {
    let _turn = heavy::turn();
    // Signed by an authority: rustls refuses a certificate that is its own authority, which is openssl's default.
    let certificate = Certificate::signed();
    let trust = certificate.authority();
    let stranger = Certificate::self_signed();
    let cloud = CloudServer::start_with_tls("", certificate);
    let health = cloud.url() + "/healthz";
    assert_eq!(curl(&trust, &health), (true, "{\"status\":\"ok\"}".into()));
    assert!(!curl(&stranger.authority(), &health).0, "another certificate is another server");
    assert!(!curl(&trust, &health.replace("https", "http")).0, "no plain HTTP where TLS is configured");

    // The link uses wss; the daemon is given an rtmps:// address and publishes there.
    let daemon = Daemon::start(&cloud.link());
    poll_until("the glasses' link", Duration::from_secs(10), || {
        cloud.log().contains("glasses connected").then_some(())
    });
    let started: Value = serde_json::from_str(&cloud.ctl(&["start", "--user", USER, "--json"])).expect("JSON");
    let stream = poll_until("an active stream", Duration::from_secs(20), || {
        let stream = cloud.streams()[0].clone();
        (stream["status"] == "active").then_some(stream)
    });
    assert_eq!(stream["stream_id"], started["stream_id"]);
    for name in ["hls_url", "dash_url", "watch_url"] {
        let url = stream[name].as_str().expect("an active stream has URLs");
        assert!(url.starts_with("https://"), "{url}");
        assert!(curl(&trust, url).0, "{url}");
    }
    assert!(daemon.log().contains("url=rtmps://localhost:"), "published by TLS");
    cloud.ctl(&["stop", stream["stream_id"].as_str().expect("an id")]);
    daemon.finish();
    cloud.finish();
}
