//! The server dies, pauses, or stays away: the stream goes on, and reports its state.

use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::support::control::{small, start};
use crate::support::recordings::Recording;
use crate::support::{Daemon, Nginx, heavy, monotonic, poll_until};
use crate::traffic::{HEAVY, NOISE};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_server_killed_twelve_times_costs_two_seconds_each_and_nothing_else() {
    const KILLS: usize = 12;
    /// Frames on their way when the server dies: five, at 30 a second.
    const IN_FLIGHT: Duration = Duration::from_millis(5 * 1000 / 30);
    let _turn = heavy::turn();
    let mut nginx = Nginx::start();
    let recordings = nginx.recordings();
    let mut daemon = Daemon::start("");
    let mut watch = daemon.watch();
    let mut control = daemon.control();
    control.granted(&start(&nginx.url("live", "key"), "org.example.app", "stream-1", (640, 360), 30, 800_000));
    watch.wait_state("streaming", SOON);
    let generation = control.status()["camera"]["generation"].clone();
    let mut resources = None;
    let mut killed_at = Vec::new();
    for kill in 0..KILLS {
        let first = recordings.wait_first_frame(kill, SOON);
        sleep((first.at + Duration::from_secs(6)).saturating_sub(monotonic()));
        killed_at.push(monotonic());
        nginx.kill();
        nginx.launch();
        let lost = watch.wait_state("reconnecting", SOON);
        assert_eq!(lost.cause(), "connection_lost");
        watch.wait_state("streaming", SOON);
        if resources.is_none() {
            // The old publisher's resources are freed at once, but not necessarily before the new one streams.
            sleep(Duration::from_secs(2));
            resources = Some((daemon.process().open_files(), daemon.process().threads()));
        }
    }
    recordings.wait_frames(KILLS, 60, SOON);
    let (files, threads) = resources.expect("measured after the first");
    poll_until("files and threads to be as after the first reconnect", SOON, || {
        (daemon.process().open_files() <= files && daemon.process().threads() <= threads).then_some(())
    });
    let state = control.status();
    assert_eq!(state["camera"]["generation"], generation, "the capture pipeline was not restarted");
    let sent = state["stream"]["metrics"]["sent_frames"].as_u64().unwrap();
    control.granted(&json!({"cmd": "stop"}));
    watch.wait_state("stopped", SOON);
    daemon.finish();

    let all = recordings.finish();
    assert_eq!(all.len(), KILLS + 1, "one publication for each life of the server");
    for (kill, pair) in all.windows(2).enumerate() {
        let (old, new) = (pair[0].frames(), pair[1].frames());
        let last = old[old.len() - 1];
        let outage = new[0].at.saturating_sub(last.at);
        assert!(outage <= Duration::from_secs(2), "outage {kill} took {outage:?}");
        let encoded = Duration::from_micros(last.stamp.expect("every frame has one").encoded_us);
        let missing = killed_at[kill].saturating_sub(encoded);
        assert!(missing <= IN_FLIGHT, "of the {missing:?} before kill {kill} nothing arrived");
    }
    let sequences: Vec<u64> = all.iter().flat_map(Recording::sequences).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "sequence numbers rise through all recordings");
    assert!(sent <= sequences.len() as u64 + 5 * KILLS as u64, "{sent} frames are said to be sent");
    for recording in &all {
        assert!(recording.frames()[0].key, "{} begins with a key frame", recording.path.display());
        let within = recording.sequences();
        assert_eq!(within[within.len() - 1] - within[0] + 1, within.len() as u64, "no frame is missing within");
    }
}

#[test]
fn a_server_that_pauses_for_a_second_is_not_called_frozen() {
    let _turn = heavy::turn();
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let daemon = Daemon::start(NOISE);
    let mut watch = daemon.watch();
    daemon.control().granted(&HEAVY.request(&nginx.url("live", "key")));
    watch.wait_state("streaming", SOON);
    HEAVY.wait_flowing(&recordings);
    for _ in 0..3 {
        nginx.freeze();
        sleep(Duration::from_secs(1));
        nginx.thaw();
        sleep(Duration::from_secs(2));
    }
    let heard = watch.listen(Duration::from_secs(4));
    assert!(heard.iter().any(|event| event.metrics().is_some()), "the watch lives");
    let states: Vec<String> = watch.reports().iter().filter_map(|e| e.report().map(str::to_owned)).collect();
    assert_eq!(states.last().map(String::as_str), Some("streaming"), "{states:?}");
    assert!(!states.iter().any(|state| state == "reconnecting"), "{states:?}");
    assert_eq!(recordings.count(), 1);
    daemon.finish();
}

#[test]
fn a_server_away_for_forty_seconds_finds_the_stream_still_trying() {
    let mut nginx = Nginx::start();
    let recordings = nginx.recordings();
    let daemon = Daemon::start("");
    let mut watch = daemon.watch();
    daemon.control().granted(&small(&nginx.url("live", "key"), "org.example.app", "stream-1"));
    watch.wait_state("streaming", SOON);
    recordings.wait_frames(0, 30, SOON);
    nginx.kill();
    let lost = watch.wait_state("reconnecting", SOON);
    assert_eq!(lost.cause(), "connection_lost");
    assert_eq!(lost.json["attempt"], 1);
    sleep(Duration::from_secs(40));
    nginx.launch();
    // The longest pause between two attempts is 5 s.
    watch.wait_state("streaming", Duration::from_secs(15));
    recordings.wait_first_frame(1, SOON);
    let retries = watch.reports().iter().filter(|event| event.report() == Some("reconnecting")).count();
    assert!((8..=40).contains(&retries), "{retries} retries reported in 40 s");
    assert!(watch.reports().iter().any(|event| event.cause() == "connect_refused"), "each retry says what it met");
    daemon.finish();
}
