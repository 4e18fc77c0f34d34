//! Heat, battery and privacy light of a board with a `/sys` made of plain files; everything else is real.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::control::{small, start};
use crate::support::{CloudStandIn, Daemon, Nginx, Sys, Watch, monotonic, poll_until};

const SOON: Duration = Duration::from_secs(10);
const APP: &str = "org.example.app";

fn step(state: &Value) -> u64 {
    state["board"]["heat"]["step"].as_u64().unwrap_or(0)
}

fn wait_step(watch: &mut Watch, wanted: u64) -> Value {
    watch.wait_snapshot(&format!("heat step {wanted}"), SOON, |state| step(state) == wanted)
}

#[test]
fn heat_takes_from_the_stream_step_by_step_gives_it_back_and_ends_it() {
    let (nginx, sys) = (Nginx::start(), Sys::new());
    let recordings = nginx.recordings();
    let mut cloud = CloudStandIn::start();
    let daemon = Daemon::start(&format!("{}{}", cloud.config(), sys.config()));
    cloud.wait_connected(SOON);
    let mut watch = daemon.watch();
    cloud.send(&json!({
        "type": "start_stream", "streamUrl": nginx.url("live", "key"), "appId": APP, "streamId": "s1",
        "video": {"width": 320, "height": 240, "bitrate": 800_000, "frameRate": 30},
    }));
    watch.wait_state("streaming", SOON);

    // The last of five steps is taken before the board throttles, at 85 degrees.
    let mut seen = Vec::new();
    for (celsius, wanted) in [(74, 0), (75, 1), (77, 2), (79, 3), (81, 4), (83, 5)] {
        sys.celsius(celsius);
        let state = watch.wait_snapshot("the temperature", SOON, |state| {
            state["board"]["temperature_c"] == f64::from(celsius) && step(state) == wanted
        });
        let heat = &state["board"]["heat"];
        seen.push((step(&state), heat["bitrate_percent"].as_u64(), heat["pictures"].as_str().map(str::to_owned)));
        assert_eq!(state["stream"]["state"], "streaming");
    }
    let given = |step, percent, pictures: &str| (step, Some(percent), Some(pictures.to_owned()));
    let all = [
        (0, None, None),
        given(1, 80, "all"),
        given(2, 60, "all"),
        given(3, 45, "half"),
        given(4, 30, "half"),
        given(5, 20, "quarter"),
    ];
    assert_eq!(seen, all);
    // The stream goes on with a quarter of its pictures, and reports it.
    watch.wait_snapshot("few pictures", SOON, |state| {
        state["stream"]["metrics"]["fps"].as_f64().is_some_and(|fps| (5.0..=10.0).contains(&fps))
    });
    cloud.wait_message("measurements of a hot board", SOON, |m| {
        m["m"]["tp"] == 83.0 && m["heat"] == json!({"step": 5, "of": 5, "bitrate_percent": 20, "pictures": "quarter"})
    });

    sys.celsius(60);
    for wanted in [4, 3, 2, 1, 0] {
        wait_step(&mut watch, wanted);
    }
    watch.wait_snapshot("all pictures", SOON, |state| {
        state["stream"]["metrics"]["fps"].as_f64().is_some_and(|fps| fps > 25.0)
    });
    assert_eq!(recordings.count(), 1, "on the same connection throughout");

    sys.celsius(101);
    assert_eq!(watch.wait_state("stopping", SOON).cause(), "overheated");
    assert_eq!(watch.wait_state("error", SOON).cause(), "overheated");
    let end = cloud.wait_message("the end", SOON, |m| m["streamId"] == "s1" && m["status"] == "error");
    assert_eq!((&end["cause"], &end["errorDetails"]), (&json!("overheated"), &json!("the glasses are too hot")));
    let refused = daemon.control().refused(&small(&nginx.url("live", "again"), APP, "s2"));
    assert_eq!(refused["cause"], "overheated");
    let states: Vec<String> = watch.reports().iter().filter_map(|e| e.report().map(str::to_owned)).collect();
    assert_eq!(states[states.len() - 3..], ["streaming", "stopping", "error"], "{states:?}");
    daemon.finish();
}

#[test]
fn a_battery_below_the_floor_ends_the_stream_and_refuses_the_next_until_it_charges() {
    let (nginx, sys) = (Nginx::start(), Sys::new());
    let daemon = Daemon::start(&sys.config());
    let mut watch = daemon.watch();
    daemon.control().granted(&small(&nginx.url("live", "key"), APP, "s1"));
    watch.wait_state("streaming", SOON);
    for percent in [50, 10] {
        sys.battery(percent, "Discharging");
        let state = watch.wait_snapshot("the level", SOON, |state| state["board"]["battery"]["percent"] == percent);
        assert_eq!(state["stream"]["state"], "streaming");
    }
    sys.battery(9, "Discharging");
    assert_eq!(watch.wait_state("error", SOON).cause(), "battery_low");

    let refused = daemon.control().refused(&small(&nginx.url("live", "again"), APP, "s2"));
    assert_eq!(refused["cause"], "battery_low");
    assert_eq!(refused["message"], "Battery level too low (9%) - minimum 10% required");
    // The daemon reads the battery again before it refuses.
    sys.battery(9, "Charging");
    daemon.control().granted(&small(&nginx.url("live", "charging"), APP, "s3"));
    watch.wait_state("streaming", SOON);
    sys.battery(2, "Charging");
    assert_eq!(watch.wait_state("error", SOON).cause(), "battery_low");
    daemon.finish();
}

#[test]
fn the_light_shines_from_before_the_first_picture_to_after_the_last_across_reconnects() {
    let (mut nginx, sys) = (Nginx::start(), Sys::new());
    let recordings = nginx.recordings();
    let mut daemon = Daemon::start(&format!("{}require = true\n", sys.config()));
    let mut watch = daemon.watch();
    assert!(!sys.led(), "an idle daemon's");
    let changes = sys.follow_led();
    daemon.control().granted(&small(&nginx.url("live", "key"), APP, "s1"));
    watch.wait_state("streaming", SOON);
    let first = recordings.wait_first_frame(0, SOON);
    nginx.kill();
    watch.wait_state("reconnecting", SOON);
    assert!(sys.led(), "the camera goes on seeing");
    nginx.launch();
    watch.wait_state("streaming", SOON);
    watch.wait_snapshot("the light in the state", SOON, |state| state["board"]["privacy_led"] == true);
    let stop_at = monotonic();
    daemon.control().granted(&json!({"cmd": "stop"}));
    sys.wait_led(false, SOON);
    poll_until("the change noted", SOON, || (changes.so_far().len() >= 2).then_some(()));
    let noted = changes.so_far();
    assert!(matches!(noted[..], [(on, true), (off, false)] if on < first.at && off > stop_at), "{noted:?}, {first:?}");

    // A photo also counts as use of the camera.
    daemon.control().photo(APP).expect("a photo");
    assert!(sys.led(), "the camera stays open for a while");

    // On, and then off in either way: asked to end, and killed.
    daemon.control().granted(&small(&nginx.url("live", "key"), APP, "s2"));
    watch.wait_state("streaming", SOON);
    daemon.restart(Signal::SIGTERM);
    assert!(!sys.led());
    daemon.control().granted(&small(&nginx.url("live", "key"), APP, "s3"));
    sys.wait_led(true, SOON);
    daemon.process().kill();
    assert!(sys.led(), "nobody was there to switch it off");
    daemon.led_off();
    assert!(!sys.led());
}

#[test]
fn without_its_light_a_required_one_there_is_no_stream_and_no_photo() {
    let (nginx, sys) = (Nginx::start(), Sys::new());
    let daemon = Daemon::start(&format!("{}require = true\n", sys.config()));
    let mut watch = daemon.watch();
    daemon.control().granted(&small(&nginx.url("live", "key"), APP, "s1"));
    watch.wait_state("streaming", SOON);
    sys.lose_led();
    assert_eq!(watch.wait_state("error", SOON).cause(), "privacy_led_failed");
    watch.wait_snapshot("the camera closed", SOON, |state| state["camera"]["state"] == "closed");

    let recordings = nginx.recordings();
    let before = recordings.count();
    let refused = daemon.control().refused(&small(&nginx.url("live", "dark"), APP, "s2"));
    assert_eq!(refused["cause"], "privacy_led_failed");
    let refused = daemon.control().photo(APP).expect_err("no photo in the dark");
    assert_eq!(refused["cause"], "privacy_led_failed");
    assert_eq!(recordings.count(), before, "not a picture went out");
    let lines = daemon.control().granted(&json!({"cmd": "doctor"}))["lines"].clone();
    let of = |subject: &str| {
        let line = lines.as_array().unwrap().iter().find(|line| line["subject"] == subject);
        line.unwrap_or_else(|| panic!("no {subject} in {lines}")).clone()
    };
    assert_eq!(of("privacy LED")["level"], "fail");
    assert!(of("heat")["text"].as_str().unwrap().contains("cpu-thermal: 45.0"), "{lines}");
    assert!(of("battery")["text"].as_str().unwrap().contains("90 %"), "{lines}");
    daemon.finish();

    // Where the light is not required, its loss must not stop the picture.
    let daemon = Daemon::start(&sys.config());
    let mut watch = daemon.watch();
    daemon.control().granted(&start(&nginx.url("live", "bright"), APP, "s3", (320, 240), 15, 300_000));
    watch.wait_state("streaming", SOON);
    watch.wait_snapshot("the truth about the light", SOON, |state| state["board"]["privacy_led"] == false);
    daemon.finish();
}
