//! What Prometheus sees of the daemon, over the life of a stream.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::support::control::small;
use crate::support::scrape::{free_port, get};
use crate::support::{CloudStandIn, Daemon, Nginx, Process, Scrape, heavy, poll_until};

const SOON: Duration = Duration::from_secs(10);
const KEY: &str = "a-secret-stream-key";
const APP: &str = "org.example.app";

/// A daemon that serves its metrics, and the port. Another program may take a free port before the daemon listens on
/// it.
fn start(more: &str) -> (Daemon, u16) {
    let port = free_port();
    (Daemon::start(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n{more}")), port)
}

/// How many TCP and UDP sockets of a process others can reach.
fn listening(process: &Process) -> usize {
    let pid = process.pid();
    let own: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its files")
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    let is_own =
        |line: &&str| line.split_whitespace().nth(9).is_some_and(|inode| own.contains(&format!("socket:[{inode}]")));
    let count = |table: &str, state: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).expect("the kernel's table");
        text.lines().filter(is_own).filter(|line| line.split_whitespace().nth(3) == Some(state)).count()
    };
    count("tcp", "0A") + count("tcp6", "0A") + count("udp", "07") + count("udp6", "07")
}

#[test]
fn a_stream_shows_in_numbers_from_its_start_over_the_servers_death_to_its_end() {
    let _turn = heavy::turn();
    let mut nginx = Nginx::start();
    let recordings = nginx.recordings();
    let (daemon, port) = start("");
    let idle = Scrape::of(port);
    assert_eq!(idle.sum("lenscast_stream_state"), 0, "there is no stream");
    assert_eq!(idle.count("lenscast_camera_state{state=\"closed\"}"), 1);
    assert_eq!(idle.find("lenscast_publish_queue_seconds"), None, "nothing is measured where nothing is");
    assert_eq!(idle.find("lenscast_capture_last_frame_age_seconds"), None);
    assert!((1e6..1e9).contains(&idle.value("process_resident_memory_bytes")));

    let mut watch = daemon.watch();
    let mut control = daemon.control();
    control.granted(&small(&nginx.url("live", KEY), APP, "stream-1"));
    watch.wait_state("streaming", SOON);
    recordings.wait_frames(0, 60, SOON);
    let live = Scrape::of(port);
    live.assert_after(&idle);
    assert_eq!(live.count("lenscast_stream_state{state=\"streaming\"}"), 1);
    assert_eq!(live.sum("lenscast_stream_state"), 1, "one state at a time");
    assert_eq!(live.count("lenscast_camera_state{state=\"running\"}"), 1);
    assert_eq!(live.count("lenscast_encoder_info{encoder=\"x264\"}"), 1);
    assert_eq!(live.count("lenscast_streams_started_total{kind=\"unmanaged\"}"), 1);
    assert_eq!(live.sum("lenscast_stream_reconnects_total"), 0);
    // What arrived has left the publisher, what left it was encoded, and what was encoded was captured.
    let stages = ["capture", "encode", "publish"].map(|stage| live.value(&format!("lenscast_{stage}_frames_total")));
    assert!(stages.is_sorted_by(|before, after| before >= after) && stages[2] >= 60.0, "{stages:?}");
    assert!(live.value("lenscast_capture_last_frame_age_seconds") < 1.0);
    assert_eq!(live.sum("lenscast_captures_lost_total"), 0);
    let latency =
        live.value("lenscast_encode_latency_seconds_sum") / live.value("lenscast_encode_latency_seconds_count");
    assert!((0.0001..1.0).contains(&latency), "a picture takes {latency} s to be encoded");
    let (made, sent) = (live.value("lenscast_encode_bytes_total"), live.value("lenscast_publish_bytes_total"));
    assert!(made > 10_000.0 && sent > 10_000.0, "{made} bytes made, {sent} sent");
    assert!(live.value("lenscast_publish_acknowledged_bytes_total") > 10_000.0);
    assert!((1.0..1e7).contains(&live.value("lenscast_encode_target_bytes_per_second")));
    assert!(live.value("lenscast_publish_queue_seconds") < 2.0);
    assert!(live.value("lenscast_publish_oldest_byte_age_seconds") < 2.0);
    assert!((1e-6..1.0).contains(&live.value("lenscast_publish_round_trip_seconds")));
    assert_eq!(live.count("lenscast_publish_accept_seconds_count"), 1);
    assert_eq!(live.count("lenscast_publish_first_media_seconds_count"), 1);

    assert!(control.photo(APP).is_ok());
    let refused = control.refused(&small(&nginx.url("live", "other"), "org.example.other", "stream-2"));
    assert_eq!(refused["cause"], "camera_busy");
    nginx.kill();
    watch.wait_state("reconnecting", SOON);
    nginx.launch();
    watch.wait_state("streaming", SOON);
    recordings.wait_frames(1, 30, SOON);
    let back = Scrape::of(port);
    back.assert_after(&live);
    assert_eq!(back.count("lenscast_stream_reconnects_total{cause=\"connection_lost\"}"), 1);
    assert_eq!(back.count("lenscast_publish_accept_seconds_count"), 2);
    assert!(back.value("lenscast_publish_attempts_total") >= 2.0);
    assert_eq!(back.count("lenscast_photos_taken_total"), 1);
    assert_eq!(back.count("lenscast_streams_refused_total{cause=\"camera_busy\"}"), 1);
    assert_eq!(back.sum("lenscast_streams_ended_total"), 0, "the stream goes on");
    assert!(back.value("lenscast_publish_frames_total") >= live.value("lenscast_publish_frames_total") + 30.0);

    control.granted(&json!({"cmd": "stop"}));
    watch.wait_state("stopped", SOON);
    let ended = poll_until("the camera to be closed", SOON, || {
        Some(Scrape::of(port)).filter(|now| now.value("lenscast_camera_state{state=\"closed\"}") > 0.0)
    });
    ended.assert_after(&back);
    assert_eq!(ended.count("lenscast_streams_ended_total{cause=\"requested\"}"), 1);
    assert_eq!(ended.sum("lenscast_streams_ended_total"), 1);
    assert_eq!(ended.sum("lenscast_stream_state"), 0);
    assert_eq!(ended.find("lenscast_publish_queue_seconds"), None);
    let told = get(port, "/metrics", "").1;
    for given_away in [KEY, APP, "stream-1", "rtmp:", "127.0.0.1"] {
        assert!(!told.contains(given_away), "{given_away} in {told}");
    }
    daemon.finish();
}

#[test]
fn keep_alives_and_the_link_are_counted() {
    let mut cloud = CloudStandIn::start();
    let (daemon, port) = start(&cloud.config());
    cloud.wait_connected(SOON);
    poll_until("the link", SOON, || (Scrape::of(port).value("lenscast_link_up") > 0.0).then_some(()));
    cloud.send(&json!({"type": "keep_stream_alive", "streamId": "nobody's", "ackId": "a1"}));
    cloud.send(&json!({"type": "start_stream", "streamUrl": "http://h/live/key", "streamId": "s1"}));
    let seen = poll_until("both to be counted", SOON, || {
        let now = Scrape::of(port);
        (now.sum("lenscast_keep_alives_total") + now.sum("lenscast_link_messages_refused_total") >= 2).then_some(now)
    });
    assert_eq!(seen.count("lenscast_keep_alives_total{stream=\"unknown\"}"), 1);
    assert_eq!(seen.count("lenscast_link_messages_refused_total{cause=\"invalid_url\"}"), 1);
    daemon.finish();
}

#[test]
fn nobody_can_reach_the_daemon_unless_it_is_told_so() {
    let mut daemon = Daemon::start("");
    assert_eq!(listening(daemon.process()), 0);
    daemon.finish();
    let (mut daemon, port) = start("");
    assert_eq!(listening(daemon.process()), 1, "the check sees what it is about");
    assert_eq!(get(port, "/", "").0, 404);
    daemon.finish();
}
