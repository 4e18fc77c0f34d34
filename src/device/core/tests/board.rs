//! Heat, battery, network and light: what they do to streams, in order.

use super::*;
use crate::policy::battery::Charge;
use crate::policy::bitrate::{Decision, Pictures};
use crate::policy::heat::{HeatSample, Limits};

const LIMITS: Limits = Limits { throttle: 85.0, end: 95.0 };

fn at(celsius: f64) -> Reading {
    Reading {
        hottest: Some(("cpu-thermal".into(), celsius)),
        heat: Some(HeatSample::of(celsius, LIMITS)),
        ..Reading::default()
    }
}

fn charged(percent: u8, charging: bool) -> Reading {
    Reading { battery: Some(Charge { percent, charging }), ..Reading::default() }
}

impl Daemon {
    fn looks(&mut self, reading: &Reading) {
        self.now += Duration::from_millis(1500);
        self.board = reading.clone();
        self.give(Input::Board(reading.clone()));
    }

    fn streaming() -> Self {
        let mut settings = config::Config::default();
        settings.stream.on_keep_alive_loss = config::OnLoss::Continue; // minutes pass here
        let mut daemon = Self::with(&settings);
        daemon.give(Input::LinkUp(LinkId::Cloud));
        let mut start = start_message("s1", "a");
        start["video"] = json!({"width": 1280, "height": 720, "bitrate": 2_000_000, "frameRate": 30});
        daemon.cloud(&start);
        assert_eq!(daemon.statuses("s1").last(), Some(&"streaming"));
        daemon.encoder.clear();
        daemon
    }

    fn step(&self) -> u32 {
        self.core.state(self.now).board.heat.map_or(0, |heat| heat.step)
    }
}

#[test]
fn heat_takes_bits_then_pictures_gives_them_back_and_ends_the_stream_at_last() {
    let mut daemon = Daemon::streaming();
    let mut steps = vec![daemon.step()];
    let ramp = (70..85).chain((60..85).rev());
    for celsius in ramp {
        for _ in 0..16 {
            daemon.looks(&at(f64::from(celsius)));
            steps.push(daemon.step());
        }
    }
    steps.dedup();
    assert_eq!(steps, [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0]);
    let told: Vec<_> = daemon.encoder.iter().map(|what| (what.bitrate / 1000, what.pictures)).collect();
    let (all, half, quarter) = (Pictures::All, Pictures::Half, Pictures::Quarter);
    let down = [(1600, all), (1200, all), (900, half), (600, half), (400, quarter)];
    let up = [(600, half), (900, half), (1200, all), (1600, all), (2000, all)];
    assert_eq!(told, [down, up].concat());

    for _ in 0..3 {
        daemon.looks(&at(96.0));
    }
    assert_eq!(daemon.statuses("s1"), ["initializing", "streaming", "stopping", "error"]);
    assert_eq!(daemon.sent.last().unwrap()["cause"], "overheated");
    assert_eq!(daemon.reports.last().unwrap(), &("s1".into(), StreamState::Error, Some(Cause::Overheated)));
    let again = daemon.start("a", "s2", StreamKind::Unmanaged);
    assert_eq!(daemon.refused(again).0, Cause::Overheated);
    for _ in 0..3 {
        daemon.looks(&at(70.0));
    }
    let cool = daemon.start("a", "s3", StreamKind::Unmanaged);
    assert!(daemon.reply(cool).is_ok());
}

#[test]
fn a_stream_on_hot_glasses_opens_the_camera_with_less() {
    let mut daemon = Daemon::new();
    daemon.looks(&at(79.5));
    daemon.start("a", "s1", StreamKind::Unmanaged);
    let VideoSettings { bitrate, .. } = VideoSettings::default();
    let half = Decision { bitrate: bitrate * 45 / 100 / 10_000 * 10_000, pictures: Pictures::Half };
    assert_eq!(daemon.encoder.last().map(|what| what.pictures), Some(half.pictures));
    assert!(daemon.encoder.iter().all(|what| what.bitrate.abs_diff(half.bitrate) <= 50_000), "{:?}", daemon.encoder);
}

#[test]
fn measurements_tell_the_link_how_hot_it_is_and_what_that_costs() {
    let mut daemon = Daemon::streaming();
    for _ in 0..3 {
        daemon.looks(&at(76.26));
    }
    for _ in 0..2 {
        daemon.give(Input::Measured(Metrics::default()));
    }
    let told = daemon.sent.last().unwrap();
    assert_eq!((&told["m"]["tp"], &told["heat"]["step"], &told["heat"]["of"]), (&json!(76.3), &json!(1), &json!(5)));
}

#[test]
fn a_low_battery_refuses_a_start_and_ends_a_stream() {
    let mut daemon = Daemon::streaming();
    daemon.looks(&charged(10, false));
    daemon.looks(&charged(9, false));
    daemon.looks(&charged(10, false));
    assert_eq!(daemon.statuses("s1").last(), Some(&"streaming"), "a gauge that jumps");
    daemon.looks(&charged(9, true));
    daemon.looks(&charged(9, true));
    assert_eq!(daemon.statuses("s1").last(), Some(&"streaming"), "on a charger");
    daemon.looks(&charged(9, false));
    daemon.looks(&charged(9, false));
    assert_eq!(daemon.statuses("s1")[2..], ["stopping", "error"]);
    assert_eq!(daemon.sent.last().unwrap()["cause"], "battery_low");

    daemon.cloud(&start_message("s2", "a"));
    let refused = daemon.sent.last().unwrap();
    assert_eq!(refused["errorDetails"], "Battery level too low (9%) - minimum 10% required");
    assert_eq!((&refused["streamId"], &refused["cause"]), (&json!("s2"), &json!("battery_low")));
    assert_eq!(daemon.chimes, [Chime::Begun, Chime::BatteryLow, Chime::BatteryLow]);
}

#[test]
fn a_start_that_the_first_look_ends_is_refused_and_not_called_started() {
    let mut daemon = Daemon::new();
    daemon.looks(&charged(50, false));
    daemon.world = World::Silent;
    let start = daemon.start("a", "s1", StreamKind::Unmanaged);
    daemon.looks(&charged(9, false));
    daemon.looks(&charged(9, false));
    daemon.pass(Duration::from_secs(5));
    assert_eq!(daemon.refused(start).0, Cause::BatteryLow);
}

#[test]
fn a_refusal_is_never_out_of_date() {
    let mut daemon = Daemon::new();
    daemon.looks(&charged(5, false));
    daemon.board = charged(5, true); // plugged in a moment ago
    let start = daemon.start("a", "s1", StreamKind::Unmanaged);
    assert!(daemon.reply(start).is_ok());
}

#[test]
fn a_start_that_waits_for_a_look_is_answered_once_if_it_is_stopped_or_the_daemon_ends() {
    for end in [json!({"type": "stop_stream"}), Value::Null] {
        let mut core = Core::new(&config::Config::default());
        let now = Duration::from_secs(1);
        core.on(Input::LinkUp(LinkId::Cloud), now);
        core.on(Input::Board(charged(5, false)), now);
        let waits = core.on(Input::LinkMessage(LinkId::Cloud, start_message("s1", "a").to_string()), now);
        assert!(matches!(waits[..], [Effect::LookAtBoard]), "{waits:?}");
        let input = if end.is_null() { Input::Shutdown } else { Input::LinkMessage(LinkId::Cloud, end.to_string()) };
        let mut effects = core.on(input, now);
        effects.extend(core.on(Input::Board(charged(50, false)), now));
        let sent: Vec<&str> =
            effects.iter().filter_map(|e| if let Effect::Send(_, text) = e { Some(&**text) } else { None }).collect();
        assert_eq!((sent.len(), effects.len()), (1, 1), "{effects:?}");
        assert!(sent[0].contains(if end.is_null() { "shutdown" } else { "requested" }), "{sent:?}");
        assert!(core.is_idle());
    }
}

#[test]
fn preconditions_are_checked_in_order_and_a_server_on_the_device_needs_no_network() {
    let mut daemon = Daemon::new();
    daemon.looks(&Reading { network: Some(false), ..charged(5, false) });
    let low = daemon.start("a", "s1", StreamKind::Unmanaged);
    assert_eq!(daemon.refused(low).0, Cause::BatteryLow);
    daemon.looks(&Reading { network: Some(false), ..Reading::default() });
    let offline = daemon.start("a", "s2", StreamKind::Unmanaged);
    assert_eq!(daemon.refused(offline).0, Cause::NetworkUnreachable);
    let start = json!({"cmd": "start", "url": "rtmp://127.0.0.1/live/key"}).to_string();
    let local = daemon.ask(1, Request::parse(start.as_bytes()).unwrap());
    assert!(daemon.reply(local).is_ok());
    daemon.looks(&Reading { network: Some(false), ..Reading::default() });
    assert!(daemon.core.state(daemon.now).stream.is_some(), "who streams is not asked again");
}

#[test]
fn a_light_that_goes_out_ends_the_stream_only_where_it_is_required() {
    for require in [false, true] {
        let mut settings = config::Config::default();
        settings.privacy_led.require = require;
        let mut daemon = Daemon::with(&settings);
        daemon.start("a", "s1", StreamKind::Unmanaged);
        let light = |obeys| Reading { light_obeys: Some(obeys), ..Reading::default() };
        daemon.looks(&light(true));
        assert_eq!(daemon.core.state(daemon.now).board.privacy_led, Some(true));
        daemon.looks(&light(false));
        assert_eq!(daemon.core.streams.active().is_none(), require);
        if require {
            assert_eq!(daemon.reports.last().unwrap().2, Some(Cause::PrivacyLedFailed));
        }
    }
}

#[test]
fn the_light_is_wanted_from_before_the_camera_opens_until_it_is_closed() {
    let mut daemon = Daemon::new();
    assert!(!daemon.core.camera_in_use());
    daemon.world = World::Silent;
    daemon.start("a", "s1", StreamKind::Unmanaged);
    assert!(daemon.core.camera_in_use(), "it is being opened");
    daemon.world = World::Works;
    let generation = daemon.captures[0];
    daemon.give(Input::Capture(generation, capture::CaptureEvent::Running));
    daemon.lose_publisher(Cause::ConnectionLost);
    assert!(daemon.core.camera_in_use(), "it goes on seeing");
    daemon.lose_capture(Failure::new(Cause::CameraLost, ""));
    assert!(daemon.core.camera_in_use(), "no flicker between two attempts");
    daemon.world = World::Silent;
    daemon.pass(Duration::from_secs(1));
    daemon.ask(1, Request::Stop { stream_id: None });
    daemon.pass(Duration::from_secs(5));
    assert!(daemon.core.camera_in_use(), "still closing");
    let generation = daemon.captures.pop().unwrap();
    daemon.give(Input::Capture(generation, capture::CaptureEvent::Closed));
    assert!(!daemon.core.camera_in_use());
    daemon.ask(9, Request::CameraAcquire { program: None });
    assert!(daemon.core.camera_in_use(), "another process sees");
    daemon.give(Input::ConnectionClosed(9));
    assert!(!daemon.core.camera_in_use());
}
