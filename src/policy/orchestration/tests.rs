use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::protocol::app::{self, ManagedStatus, ManagedWord, Output, OutputState, ShownUrl, UnmanagedStatus};
use crate::protocol::glasses::{self, GlassesCommand};
use crate::protocol::{Secret, StreamUrl};

/// A cloud with one user, and what it said.
struct Cloud {
    machine: Orchestration,
    now: Time,
    ids: u32,
    said: Vec<Action>,
    /// What the store has.
    kept: Durable,
}

fn settings() -> Settings {
    Settings {
        timing: Timing::default(),
        public_url: "https://v".into(),
        ingest_url: "rtmp://c/live".into(),
        preempt: true,
    }
}

impl Cloud {
    /// With glasses linked and the apps `a` and `b` there.
    fn new() -> Self {
        let machine = Orchestration::new(settings());
        let mut cloud = Self { machine, now: Time::from_secs(100), ids: 0, said: vec![], kept: Durable::default() };
        cloud.event(Event::DeviceUp { device: "glasses".into() });
        for app in ["a", "b"] {
            cloud.event(Event::AppUp { app: app.into(), may_stream: true });
        }
        cloud.said.clear();
        cloud
    }

    fn event(&mut self, event: Event) -> &mut Self {
        let actions = self.machine.handle(event, self.now);
        if actions.contains(&Action::Save) {
            self.kept = self.machine.durable();
        }
        self.said.extend(actions);
        self
    }

    /// The cloud's process ends, and another takes over what the store has.
    fn restart(&mut self) -> Vec<Action> {
        let kept = serde_json::to_string(&self.kept).unwrap();
        let (machine, actions) = Orchestration::restore(settings(), serde_json::from_str(&kept).unwrap(), self.now);
        self.machine = machine;
        self.said.clear();
        actions
    }

    fn app_up(&mut self, app: &str) -> &mut Self {
        self.event(Event::AppUp { app: app.into(), may_stream: true })
    }

    fn ask(&mut self, app: &str, message: &serde_json::Value) -> &mut Self {
        self.ids += 1;
        let text = |what: &str| format!("{what}{}", self.ids);
        let (id, playback, key) = (self.ids.to_string(), text("p"), Secret::new(text("k")));
        let fresh = Fresh { id, key, playback, created_at: "2026-11-23T10:00:00Z".into() };
        let app = app.to_owned();
        let event = match app::parse(&message.to_string()) {
            Ok(request) => Event::Request { app, request, fresh, watching: 7 },
            Err(refused) => Event::Refused { app, refused },
        };
        self.event(event)
    }

    fn managed(&mut self, app: &str) -> &mut Self {
        self.ask(app, &json!({"type": "managed_stream_request", "enableWebRTC": true, "quality": "1080p"}))
    }

    fn unmanaged(&mut self, app: &str) -> &mut Self {
        self.ask(app, &json!({"type": "rtmp_stream_request", "rtmpUrl": "rtmp://h/live/s3cret"}))
    }

    fn stop_managed(&mut self, app: &str) -> &mut Self {
        self.ask(app, &json!({"type": "managed_stream_stop"}))
    }

    fn stop_unmanaged(&mut self, app: &str) -> &mut Self {
        self.ask(app, &json!({"type": "rtmp_stream_stop"}))
    }

    fn glasses(&mut self, stream: &str, status: &str) -> &mut Self {
        self.glasses_say(&json!({"type": "stream_status", "streamId": stream, "status": status, "cause": "because"}))
    }

    fn glasses_say(&mut self, message: &serde_json::Value) -> &mut Self {
        let (message, dialect) = glasses::parse(&message.to_string());
        self.event(Event::Device { message, dialect })
    }

    fn publishing(&mut self, stream: &str) -> &mut Self {
        self.event(Event::Publishing { stream_id: stream.into() })
    }

    fn playable(&mut self, stream: &str) -> &mut Self {
        self.event(Event::Playable { stream_id: stream.into(), width: 1920, height: 1080 })
    }

    /// Managed and playing, started by `a`: stream m1.
    fn live() -> Self {
        let mut cloud = Self::new();
        cloud.managed("a").glasses("m1", "streaming").publishing("m1").playable("m1");
        cloud.said.clear();
        cloud
    }

    fn wait(&mut self, seconds: u64) -> &mut Self {
        let until = self.now + Time::from_secs(seconds);
        while let Some(next) = self.machine.deadline().filter(|next| *next <= until) {
            assert!(next > self.now || self.machine.deadline().is_some(), "a deadline in the past stays there");
            self.now = next.max(self.now);
            self.event(Event::Tick);
            assert!(self.machine.deadline().is_none_or(|after| after > self.now), "a tick leaves nothing due");
        }
        self.now = until;
        self
    }

    /// Waits while media arrives.
    fn wait_with_media(&mut self, stream: &str, seconds: u64) -> &mut Self {
        for _ in 0..seconds {
            self.event(Event::Media { stream_id: stream.into() }).wait(1);
        }
        self
    }

    /// What an app was told of both kinds of stream, in words.
    fn told(&mut self, app: &str) -> Vec<String> {
        let mut told = Vec::new();
        for action in &self.said {
            match action {
                Action::Managed { app: to, status } if to == app => told.push(word(status)),
                Action::Unmanaged { app: to, status } if to == app => told.push(status.word.to_owned()),
                _ => {}
            }
        }
        // Its message may change while something is being prepared.
        told.dedup_by(|one, other| one == "preparing" && other == "preparing");
        told
    }

    fn last_managed(&self, app: &str) -> ManagedStatus {
        let of = |action: &Action| match action {
            Action::Managed { app: to, status } if to == app => Some(status.clone()),
            _ => None,
        };
        self.said.iter().rev().find_map(of).expect("told")
    }

    fn last_unmanaged(&self, app: &str) -> UnmanagedStatus {
        let of = |action: &Action| match action {
            Action::Unmanaged { app: to, status } if to == app => Some(status.clone()),
            _ => None,
        };
        self.said.iter().rev().find_map(of).expect("told")
    }

    /// What the glasses were told, without keep-alives.
    fn commands(&self) -> Vec<String> {
        let of = |action: &Action| match action {
            Action::Device { command: GlassesCommand::Start { stream_id, .. }, .. } => {
                Some(format!("start {stream_id}"))
            }
            Action::Device { command: GlassesCommand::Stop { stream_id, .. }, .. } => Some(format!("stop {stream_id}")),
            _ => None,
        };
        self.said.iter().filter_map(of).collect()
    }

    fn clear(&mut self) -> &mut Self {
        self.said.clear();
        self
    }
}

/// What is counted of a stream's end, when the glasses say this; and of nothing said at all.
#[test]
fn each_stream_is_counted_once_and_its_cause_is_one_of_few() {
    let ends = |cloud: &Cloud| -> Vec<(&'static str, usize)> {
        let begun = cloud.said.iter().filter(|action| matches!(action, Action::Began { .. })).count();
        let of = |action: &Action| match action {
            Action::Ended { cause, .. } => Some((*cause, begun)),
            _ => None,
        };
        cloud.said.iter().filter_map(of).collect()
    };
    for (cause, counted) in [("encoder_failed", "encoder_failed"), ("because", "other"), ("rtmp://h/a/s3cret", "other")]
    {
        let mut cloud = Cloud::new();
        cloud.managed("a").managed("b");
        let end = json!({"type": "stream_status", "streamId": "m1", "status": "error", "cause": cause});
        cloud.glasses_say(&end).glasses_say(&end).wait(200);
        assert_eq!(ends(&cloud), [(counted, 1)], "{cause}");
    }
    let mut cloud = Cloud::new();
    cloud.managed("a").wait(60);
    assert_eq!(ends(&cloud), [("not_started", 1)]);
    let mut cloud = Cloud::live();
    cloud.stop_managed("a").glasses("m1", "stopped").wait(200);
    assert_eq!(ends(&cloud), [("requested", 0)], "as asked, whatever the glasses say");
    let mut cloud = Cloud::live();
    cloud.unmanaged("b").glasses("m1", "stopped").wait(1);
    assert_eq!(ends(&cloud), [("preempted", 1)]);
    for reason in END_REASONS {
        assert!(!crate::protocol::Cause::ALL.iter().any(|cause| cause.name() == reason), "{reason} is a cause too");
    }
}

fn word(status: &ManagedStatus) -> String {
    serde_json::to_value(status.word).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn urls_come_when_and_only_when_they_play() {
    let mut cloud = Cloud::new();
    cloud.managed("a").glasses("m1", "connecting").glasses("m1", "streaming");
    assert_eq!(cloud.told("a"), ["initializing"], "the glasses' word alone makes nothing active");
    assert!(cloud.last_managed("a").urls.is_none());
    cloud.publishing("m1");
    assert_eq!(cloud.told("a"), ["initializing", "preparing"]);
    cloud.playable("m1").playable("m1");
    assert_eq!(cloud.told("a"), ["initializing", "preparing", "active"]);
    let urls = cloud.last_managed("a").urls.unwrap();
    assert_eq!(
        (urls.hls_url.as_str(), urls.webrtc_url.as_deref()),
        ("https://v/hls/p1/index.m3u8", Some("https://v/whep/p1"))
    );
    let open = cloud
        .said
        .iter()
        .any(|action| matches!(action, Action::Open { stream_id, webrtc: true, .. } if stream_id == "m1"));
    assert!(open && cloud.commands() == ["start m1"]);
}

#[test]
fn a_smaller_camera_is_said() {
    let mut cloud = Cloud::new();
    cloud.managed("a").publishing("m1");
    cloud.event(Event::Playable { stream_id: "m1".into(), width: 1280, height: 720 });
    assert_eq!(cloud.last_managed("a").message.as_deref(), Some("1080p was asked for; the camera gives 1280x720"));
}

#[test]
fn apps_join_and_leave_and_the_last_one_ends_it() {
    let mut cloud = Cloud::live();
    cloud.managed("b");
    assert_eq!(cloud.told("b"), ["active"]);
    assert!(cloud.last_managed("b").message.unwrap().contains("options stay"));
    cloud.clear().stop_managed("a");
    assert_eq!((cloud.told("a"), cloud.told("b").len()), (vec!["stopped".to_owned()], 0));
    cloud.clear().stop_managed("b");
    assert_eq!((cloud.told("b"), cloud.commands()), (vec!["stopping".to_owned()], vec!["stop m1".to_owned()]));
    cloud.glasses("m1", "stopping").glasses("m1", "stopped").wait(200);
    assert_eq!(cloud.told("b"), ["stopping", "stopped"]);
    assert!(cloud.said.contains(&Action::Close { stream_id: "m1".into() }));
    assert_eq!(cloud.commands(), ["stop m1"]);
}

#[test]
fn glasses_that_do_not_confirm_a_stop_hold_nobody_up() {
    let mut cloud = Cloud::live();
    cloud.stop_managed("a").managed("b").wait(4);
    assert_eq!(cloud.told("b"), Vec::<String>::new(), "waits for the end of the first");
    cloud.wait(2);
    assert_eq!(
        (cloud.told("a"), cloud.told("b")),
        (vec!["stopping".into(), "stopped".into()], vec!["initializing".to_owned()])
    );
    assert_eq!(cloud.commands(), ["stop m1", "start m3"]);
}

#[test]
fn who_may_not_is_told_so() {
    let mut cloud = Cloud::new();
    cloud.event(Event::AppUp { app: "c".into(), may_stream: false });
    cloud.managed("c").unmanaged("c");
    assert_eq!(cloud.told("c"), ["error", "error"]);
    assert!(cloud.last_managed("c").message.unwrap().contains("permission"));
    cloud.event(Event::DeviceDown).managed("a").unmanaged("a");
    assert!(cloud.last_managed("a").message.unwrap().contains("not connected"));
    assert!(cloud.last_unmanaged("a").details.unwrap().contains("not connected"));
    cloud.event(Event::DeviceUp { device: "glasses".into() });
    cloud
        .glasses_say(&json!({"type": "glasses_connection_state", "status": "CONNECTED", "wifi": {"connected": false}}));
    cloud.managed("a");
    assert!(cloud.last_managed("a").message.unwrap().contains("WiFi"));
    assert!(cloud.commands().is_empty());
    cloud.ask("a", &json!({"type": "managed_stream_request", "quality": "8k"}));
    assert_eq!(word(&cloud.last_managed("a")), "error");
}

#[test]
fn unmanaged_is_exclusive_and_takes_precedence() {
    let mut cloud = Cloud::live();
    cloud.unmanaged("b");
    assert_eq!((cloud.told("a"), cloud.commands()), (vec!["stopping".to_owned()], vec!["stop m1".to_owned()]));
    cloud.glasses("m1", "stopped");
    assert!(cloud.last_managed("a").message.unwrap().contains("b started"));
    assert_eq!(
        (cloud.commands(), cloud.told("b")),
        (vec!["stop m1".into(), "start s2".into()], vec!["initializing".to_owned()])
    );
    cloud.glasses("s2", "streaming");
    assert_eq!(cloud.told("b"), ["initializing", "active"]);
    cloud.clear().managed("a").unmanaged("a").managed("b");
    assert_eq!((cloud.told("a"), cloud.told("b")), (vec!["error".into(), "error".into()], vec!["error".to_owned()]));
    assert!(cloud.last_unmanaged("a").details.unwrap().contains("camera_busy: an unmanaged stream of b"));
    assert!(cloud.commands().is_empty());

    cloud.clear().unmanaged("b").glasses("s2", "stopped");
    assert_eq!(cloud.told("b"), ["stopping", "stopped", "initializing"], "an app's own newer stream takes the place");
}

#[test]
fn a_refusing_cloud_keeps_managed_streams() {
    let mut cloud = Cloud::live();
    cloud.machine.settings.preempt = false;
    cloud.unmanaged("b");
    assert_eq!((cloud.told("a").len(), cloud.told("b")), (0, vec!["error".to_owned()]));
}

#[test]
fn glasses_statuses_are_told_truthfully() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "initializing").glasses("s1", "streaming").glasses("s1", "reconnecting");
    cloud.glasses("s1", "reconnected").glasses("s1", "reconnect_failed").glasses("s1", "stopped");
    assert_eq!(cloud.told("a"), ["initializing", "active", "reconnecting", "active", "error"]);

    let mut cloud = Cloud::live();
    cloud.glasses("m1", "reconnecting");
    assert_eq!(cloud.told("a"), ["preparing"]);
    assert_eq!(cloud.last_managed("a").message.unwrap(), "The glasses are reconnecting: because");
    cloud.event(Event::PublisherLost { stream_id: "m1".into(), why: "closed".into() });
    cloud.publishing("m1").glasses("m1", "reconnected");
    assert_eq!(cloud.told("a"), ["preparing"], "not before something plays");
    cloud.playable("m1").glasses("m1", "error");
    assert_eq!(cloud.told("a"), ["preparing", "active", "error"]);
    cloud.clear().glasses("m1", "stopped").wait(300);
    assert!(cloud.told("a").is_empty(), "one end is enough");
}

#[test]
fn measurements_reach_the_app_without_new_states() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").clear();
    for _ in 0..2 {
        let numbers = json!({"b": 2_000_000, "f": 30, "w": 1280, "h": 720, "d": 0, "u": 4});
        cloud.glasses_say(&json!({"type": "stream_status", "streamId": "s1", "status": "streaming", "m": numbers}));
    }
    assert_eq!(cloud.told("a"), ["active", "active"]);
    assert_eq!(cloud.last_unmanaged("a").stats.unwrap()["bitrate"], 2_000_000);
}

#[test]
fn missed_keep_alives_end_a_stream_and_stop_the_glasses() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").clear().wait(60);
    assert_eq!((cloud.told("a"), cloud.commands()), (vec!["timeout".to_owned()], vec!["stop s1".to_owned()]));

    let mut cloud = Cloud::live();
    cloud.wait_with_media("m1", 120);
    assert!(cloud.told("a").is_empty(), "media that arrives is answer enough");
    cloud.wait(60);
    assert_eq!(
        (cloud.told("a"), cloud.commands()),
        (vec!["preparing".into(), "error".to_owned()], vec!["stop m1".to_owned()])
    );
}

#[test]
fn a_publisher_that_says_nothing_does_not_play() {
    let mut cloud = Cloud::live();
    cloud.wait(5);
    assert_eq!(cloud.told("a"), ["preparing"]);
    assert!(cloud.last_managed("a").message.unwrap().contains("no media arrives"));
    cloud.event(Event::Media { stream_id: "m1".into() });
    assert_eq!(cloud.told("a"), ["preparing", "active"]);
}

#[test]
fn answered_keep_alives_go_on_while_reconnecting() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").glasses("s1", "reconnecting").clear();
    let mut sent = 0;
    for _ in 0..100 {
        cloud.wait(1);
        for action in std::mem::take(&mut cloud.said) {
            if let Action::Device { command: GlassesCommand::KeepAlive { stream_id, ack_id }, .. } = action {
                sent += 1;
                cloud.glasses_say(&json!({"type": "keep_alive_ack", "streamId": stream_id, "ackId": ack_id}));
            }
        }
    }
    assert!((6..=8).contains(&sent) && cloud.machine.overview(0).unwrap().stream.status == "reconnecting", "{sent}");
}

#[test]
fn a_lost_link_is_no_end_before_its_time() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").event(Event::DeviceDown).wait(110);
    assert_eq!(cloud.told("a"), ["initializing", "active", "reconnecting"]);
    assert_eq!(cloud.last_unmanaged("a").details.as_deref(), Some("glasses link lost"));
    cloud.clear().event(Event::DeviceUp { device: "glasses".into() });
    assert!(cloud.told("a").is_empty(), "the link is no word of theirs");
    cloud.glasses_say(&json!({"type": "stream_status", "kind": "snapshot", "status": "streaming", "streamId": "s1"}));
    assert_eq!(cloud.told("a").last().unwrap(), "active");
    cloud.event(Event::DeviceDown).wait(121);
    assert_eq!(cloud.told("a").last().unwrap(), "error");
    cloud.clear().event(Event::DeviceUp { device: "glasses".into() });
    assert_eq!(cloud.commands(), ["stop s1"], "what was given up must not run on");
}

#[test]
fn a_stop_without_a_link_is_delivered_later() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").event(Event::DeviceDown).clear().stop_unmanaged("a").wait(30);
    assert_eq!((cloud.told("a"), cloud.commands().len()), (vec!["stopping".to_owned()], 0));
    cloud.event(Event::DeviceUp { device: "glasses".into() });
    assert_eq!(cloud.commands(), ["stop s1"]);
    cloud.glasses("s1", "stopped");
    assert_eq!(cloud.told("a"), ["stopping", "stopped"]);
    cloud.clear().event(Event::DeviceDown).event(Event::DeviceUp { device: "glasses".into() });
    assert!(cloud.commands().is_empty());
}

#[test]
fn managed_goes_on_without_a_link_while_media_arrives() {
    let mut cloud = Cloud::live();
    cloud.event(Event::DeviceDown).wait_with_media("m1", 300);
    assert!(cloud.told("a").is_empty());
    cloud.event(Event::PublisherLost { stream_id: "m1".into(), why: "closed".into() }).wait(121);
    assert_eq!(cloud.told("a"), ["preparing", "error"]);
}

#[test]
fn glasses_that_restarted_are_started_again() {
    let mut cloud = Cloud::live();
    cloud.event(Event::PublisherLost { stream_id: "m1".into(), why: "closed".into() });
    cloud.event(Event::DeviceDown).event(Event::DeviceUp { device: "glasses".into() }).clear();
    let empty = json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"});
    cloud.glasses_say(&empty);
    assert_eq!((cloud.commands(), cloud.told("a").len()), (vec!["start m1".to_owned()], 0));
    let ended = json!({"type": "stream_status", "kind": "snapshot", "status": "stopped",
                       "lastEnd": {"streamId": "m1", "status": "error", "cause": "camera_lost"}});
    cloud.glasses_say(&ended);
    assert_eq!(cloud.told("a"), ["error"]);
    assert_eq!(cloud.last_managed("a").message.as_deref(), Some("camera_lost"));
}

/// They tell it when their link is up and when they are asked, all of it on its way before the start reaches them.
#[test]
fn what_glasses_told_before_they_heard_of_a_start_is_no_loss() {
    let empty = json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"});
    let mut cloud = Cloud::live();
    cloud.event(Event::DeviceDown).event(Event::DeviceUp { device: "glasses".into() }).clear();
    for _ in 0..5 {
        cloud.glasses_say(&empty);
    }
    cloud.glasses("m1", "streaming");
    assert_eq!((cloud.commands(), cloud.told("a").len()), (vec!["start m1".to_owned()], 0));
    cloud.clear().glasses_say(&empty);
    assert_eq!(cloud.commands(), ["start m1"], "they had heard of it, so it is lost");
    cloud.clear().wait(12).glasses_say(&empty);
    assert!(cloud.commands().contains(&"start m1".to_owned()), "they never heard of it");
    let mut cloud = Cloud::new();
    cloud.managed("a").glasses_say(&empty);
    assert_eq!(cloud.commands(), ["start m1"], "a first start is as slow");
}

#[test]
fn the_end_of_the_run_before_a_restart_ends_nothing() {
    for (cause, word) in [
        ("daemon_restarted", "stopped"),
        ("shutdown", "stopped"),
        ("link_lost", "error"),
        ("keep_alive_timeout", "timeout"),
    ] {
        let mut cloud = Cloud::new();
        cloud
            .unmanaged("a")
            .glasses("s1", "streaming")
            .event(Event::DeviceDown)
            .event(Event::DeviceUp { device: "glasses".into() })
            .clear();
        let end = json!({"type": "stream_status", "streamId": "s1", "status": word, "cause": cause});
        let mut snapshot = json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"});
        snapshot["lastEnd"] = end.clone();
        cloud.glasses_say(&snapshot).glasses_say(&end).glasses("s1", "initializing").glasses("s1", "streaming");
        assert_eq!(cloud.commands(), ["start s1"], "{cause}");
        assert_eq!(cloud.told("a"), ["initializing", "active"], "{cause}");
        cloud.glasses_say(&end);
        assert_eq!(cloud.told("a").last().unwrap(), word, "now it is this run's");
    }
}

#[test]
fn a_start_without_glasses_is_refused_at_once_even_while_another_stream_ends() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").event(Event::DeviceDown).stop_unmanaged("a").clear().managed("b");
    assert_eq!(cloud.told("b"), ["error"]);
    assert!(cloud.last_managed("b").message.unwrap().contains("not connected"));
    cloud.event(Event::DeviceUp { device: "glasses".into() }).glasses("s1", "stopped").wait(1);
    assert_eq!((cloud.told("b").len(), cloud.commands()), (1, vec!["stop s1".to_owned()]), "nobody waits for it");
}

#[test]
fn a_start_that_waits_can_be_taken_back() {
    let mut cloud = Cloud::live();
    cloud.stop_managed("a").managed("b").stop_managed("b");
    assert_eq!(cloud.told("b"), ["stopped"]);
    cloud.glasses("m1", "stopped").wait(10);
    assert_eq!(cloud.told("a"), ["stopping", "stopped"]);
    assert_eq!(cloud.commands(), ["stop m1"]);
}

#[test]
fn what_never_plays_ends_in_time() {
    let mut cloud = Cloud::new();
    cloud.managed("a").glasses("m1", "reconnecting").wait(26);
    assert_eq!(
        (cloud.told("a"), cloud.commands()),
        (vec!["initializing".into(), "error".to_owned()], vec!["start m1".into(), "stop m1".to_owned()])
    );
    assert!(cloud.last_managed("a").message.unwrap().contains("they said last: because"));
}

#[test]
fn an_app_that_comes_back_is_told_again() {
    let mut cloud = Cloud::live();
    let gone = |deliberate| Event::AppDown { app: "a".into(), deliberate };
    cloud.event(gone(false)).wait(3).event(Event::AppUp { app: "a".into(), may_stream: true });
    assert_eq!(cloud.told("a"), ["active"]);
    cloud.clear().event(gone(false)).glasses("m1", "error");
    assert!(cloud.told("a").is_empty());
    cloud.event(Event::AppUp { app: "a".into(), may_stream: true }).wait(1);
    assert_eq!(cloud.told("a"), ["error"], "what ended meanwhile, once");
}

#[test]
fn an_app_that_begins_to_listen_is_told() {
    let mut cloud = Cloud::live();
    let listen = |to: &[&str]| json!({"type": "subscription_update", "subscriptions": to});
    cloud
        .ask("a", &listen(&[]))
        .ask("a", &listen(&["rtmp_stream_status"]))
        .ask("b", &listen(&["managed_stream_status"]));
    assert!(cloud.told("a").is_empty() && cloud.told("b").is_empty());
    cloud.ask("a", &listen(&["managed_stream_status"])).ask("a", &listen(&["managed_stream_status", "location"]));
    assert_eq!(cloud.told("a"), ["active"]);
}

#[test]
fn an_app_that_gave_up_is_started_once() {
    let start = Action::StartApp { app: "a".into() };
    let mut cloud = Cloud::live();
    cloud.event(Event::AppDown { app: "a".into(), deliberate: false }).wait(9);
    assert!(!cloud.said.contains(&start));
    cloud.wait(28);
    assert_eq!(cloud.said.iter().filter(|action| **action == start).count(), 1);
    assert!(cloud.commands().is_empty());
    cloud.wait(10);
    assert_eq!(cloud.commands(), ["stop m1"], "nobody is left");

    let mut cloud = Cloud::new();
    cloud.event(Event::AppDown { app: "a".into(), deliberate: false }).wait(60);
    assert!(!cloud.said.contains(&start), "no stream of it runs");
    let mut cloud = Cloud::live();
    cloud.event(Event::AppDown { app: "a".into(), deliberate: true });
    assert_eq!(cloud.commands(), ["stop m1"], "it said goodbye");
}

#[test]
fn a_check_tells_what_runs_and_hides_keys_of_others() {
    let mut cloud = Cloud::live();
    cloud.ask("b", &json!({"type": "stream_status_check", "sessionId": "unknown-session-id"}));
    let Some(Action::Checked { app, stream: Some(stream) }) = cloud.said.last() else { panic!("{:?}", cloud.said) };
    assert_eq!(
        (app.as_str(), stream.kind, stream.status.as_str(), stream.active_viewers),
        ("b", "managed", "active", Some(7))
    );

    let mut cloud = Cloud::new();
    cloud.ask("a", &json!({"type": "stream_status_check"}));
    assert_eq!(cloud.said, [Action::Checked { app: "a".into(), stream: None }]);
    cloud.unmanaged("a");
    for (app, url) in [("a", "rtmp://h/live/s3cret"), ("b", "rtmp://h/live/***")] {
        cloud.ask(app, &json!({"type": "stream_status_check"}));
        let Some(Action::Checked { stream: Some(stream), .. }) = cloud.said.last() else { panic!() };
        assert_eq!((json!(stream.rtmp_url), stream.requesting_app_id.as_deref()), (json!(url), Some("a")));
    }
}

#[test]
fn stops_of_what_is_not_ones_own() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").clear();
    cloud.ask("b", &json!({"type": "rtmp_stream_stop", "streamId": "s1"})).stop_unmanaged("b").stop_managed("b");
    assert_eq!(cloud.told("b"), ["error", "stopped", "stopped"]);
    assert!(cloud.commands().is_empty() && cloud.last_managed("b").stream_id.is_none());
}

#[test]
fn keys_of_destinations_are_for_the_app_that_gave_them() {
    let mut cloud = Cloud::live();
    cloud.managed("b").clear();
    let url = StreamUrl::parse("rtmp://y/live/k").unwrap();
    let output = Output { url: ShownUrl { url, own: false }, name: None, status: OutputState::Active, error: None };
    cloud.event(Event::Outputs { stream_id: "m1".into(), outputs: vec![output] });
    let url = |app: &str| cloud.last_managed(app).json()["outputs"][0]["url"].clone();
    assert_eq!((url("a"), url("b")), (json!("rtmp://y/live/k"), json!("rtmp://y/live/***")));
}

#[test]
fn photos_are_allowed_by_the_same_rules() {
    let photo = json!({"type": "photo_request", "requestId": "r"});
    let mut cloud = Cloud::live();
    cloud.ask("b", &photo);
    assert!(matches!(cloud.said.last(), Some(Action::Photo { from: Some(id), .. }) if id == "m1"));
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").ask("b", &photo);
    assert!(matches!(cloud.said.last(), Some(Action::PhotoRefused { code: "CAMERA_BUSY", .. })));
    cloud.ask("a", &photo);
    assert!(matches!(cloud.said.last(), Some(Action::Photo { from: None, .. })));
    cloud.event(Event::AppUp { app: "c".into(), may_stream: false }).ask("c", &photo);
    assert!(matches!(cloud.said.last(), Some(Action::PhotoRefused { code: "PERMISSION_DENIED", .. })));
}

#[test]
fn a_restarted_cloud_takes_live_streams_over() {
    let mut cloud = Cloud::live();
    cloud.managed("b");
    let actions = cloud.restart();
    let Action::Open { stream_id, key, playback, webrtc, .. } = &actions[0] else { panic!("{actions:?}") };
    assert_eq!((stream_id.as_str(), key.expose(), playback.as_str(), *webrtc), ("m1", "k1", "p1", true));
    cloud.app_up("b").publishing("m1");
    assert_eq!(cloud.told("b"), ["preparing"]);
    cloud
        .event(Event::DeviceUp { device: "glasses".into() })
        .glasses("m1", "streaming")
        .playable("m1")
        .wait_with_media("m1", 9);
    cloud.app_up("a");
    assert_eq!(
        (cloud.told("a"), cloud.told("b")),
        (vec!["active".to_owned()], vec!["preparing".into(), "active".to_owned()])
    );
    assert!(!format!("{:?}", cloud.machine.durable()).contains("k1"));
}

#[test]
fn a_restarted_cloud_gives_what_played_the_time_to_recover() {
    let mut cloud = Cloud::live();
    cloud.restart();
    cloud.app_up("a").wait(110);
    assert_eq!(cloud.told("a"), ["preparing"]);
    cloud.wait(11);
    assert_eq!(cloud.told("a"), ["preparing", "error"]);
}

#[test]
fn glasses_that_take_their_time_to_come_back_to_a_restarted_cloud_keep_their_stream() {
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").restart();
    cloud
        .app_up("a")
        .wait(60)
        .event(Event::DeviceUp { device: "glasses".into() })
        .wait(1)
        .glasses("s1", "streaming")
        .wait(1);
    let told = cloud.told("a");
    assert!(told.last().unwrap() == "active" && !told.contains(&"error".to_owned()), "{told:?}");
}

#[test]
fn a_stop_is_owed_to_the_glasses_that_had_the_stream() {
    let up = |device: &str| Event::DeviceUp { device: device.into() };
    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").stop_unmanaged("a").wait(6).event(Event::DeviceDown).clear();
    cloud.event(up("others")).glasses("s1", "error");
    cloud.glasses_say(&json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"}));
    assert_eq!(cloud.commands(), [""; 0], "it is none of theirs");
    assert_eq!(cloud.machine.owed_to("others"), []);
    cloud.event(Event::DeviceDown).restart();
    cloud.event(up("glasses"));
    assert_eq!(cloud.commands(), ["stop s1"]);
    cloud.glasses("s1", "stopped");
    assert_eq!(cloud.machine.owed_to("glasses"), []);
}

#[test]
fn a_restarted_cloud_tells_the_ends_that_the_one_before_did_not() {
    let mut cloud = Cloud::live();
    cloud.stop_managed("a").managed("b").restart();
    cloud.app_up("a").app_up("b").wait(1);
    assert_eq!((cloud.told("a"), cloud.told("b")), (vec!["stopped".to_owned()], vec!["error".to_owned()]));
    assert_eq!(cloud.last_managed("a").stream_id.as_deref(), Some("m1"));
    assert!(cloud.last_managed("b").message.unwrap().contains("ask again"));
    cloud.restart();
    cloud.app_up("a").app_up("b").wait(1);
    assert!(cloud.told("a").is_empty() && cloud.told("b").is_empty(), "once");

    let mut cloud = Cloud::new();
    cloud.unmanaged("a").glasses("s1", "streaming").event(Event::AppDown { app: "a".into(), deliberate: false });
    cloud.clear().glasses("s1", "timeout");
    assert!(cloud.told("a").is_empty());
    let missed = cloud.machine.apps["a"].missed.clone();
    cloud.restart();
    cloud.app_up("b").restart();
    cloud.app_up("a");
    assert!(missed.len() == 1 && cloud.said.starts_with(&missed), "{missed:?}, {:?}", cloud.said);
    assert_eq!(cloud.last_unmanaged("a").word, "timeout");

    let mut cloud = Cloud::live();
    cloud.stop_managed("a").managed("b").stop_managed("b").restart();
    cloud.app_up("b").wait(1);
    assert!(cloud.told("b").is_empty(), "it was told");

    let old = json!({"streams": [], "to_stop": [], "apps": [["a", true]]});
    cloud.kept = serde_json::from_value(old).expect("what an older version has written");
    cloud.restart();
    assert!(cloud.machine.has_app("a"));
}

fn steps() -> impl Strategy<Value = (u8, u8, u8)> {
    (0u8..22, 0u8..2, 0u8..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens: one stream at most is alive, every request ends once, nothing is due after a tick, and an idle
    /// hour later nothing is left that glasses do not know to stop.
    #[test]
    fn every_request_ends_once(steps in proptest::collection::vec(steps(), 1..80)) {
        let mut cloud = Cloud::new();
        let mut open: BTreeMap<(bool, String), i32> = BTreeMap::new();
        for (what, who, wait) in steps {
            let app = ["a", "b"][usize::from(who)];
            let stream = cloud.machine.streams.first().map_or("m1".to_owned(), |stream| stream.id.clone());
            let there = cloud.machine.apps.get(app).is_some_and(|app| app.away.is_none());
            // What is due now ends before it can be stopped.
            cloud.event(Event::Tick);
            settle(&mut cloud, &mut open);
            // The package refuses a second request of a kind while one runs.
            let free = |managed| there && open.get(&(managed, app.to_owned())).is_none_or(|n| *n == 0);
            match what {
                0 if free(true) => { open.insert((true, app.into()), 1); cloud.managed(app); }
                1 if free(false) => { open.insert((false, app.into()), 1); cloud.unmanaged(app); }
                2 if there && !free(true) => { cloud.stop_managed(app); }
                3 if there && !free(false) => { cloud.stop_unmanaged(app); }
                4 => { cloud.event(Event::DeviceDown); }
                5 => { cloud.event(Event::DeviceUp { device: "glasses".into() }); }
                6 => { cloud.event(Event::AppDown { app: app.into(), deliberate: false }); }
                7 => { cloud.event(Event::AppUp { app: app.into(), may_stream: true }); }
                8 | 9 => { cloud.glasses(&stream, "streaming"); }
                10 => { cloud.glasses(&stream, "reconnecting"); }
                11 => { cloud.glasses(&stream, ["error", "stopped"][usize::from(who)]); }
                12 | 13 => { cloud.publishing(&stream); }
                14 | 15 => { cloud.playable(&stream); }
                16 => { cloud.event(Event::PublisherLost { stream_id: stream, why: "x".into() }); }
                17 => { cloud.glasses_say(&json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"})); }
                18 => { cloud.event(Event::Media { stream_id: stream }); }
                19 => { cloud.restart(); }
                _ => { cloud.wait(u64::from(wait)); }
            }
            prop_assert!(cloud.machine.streams.iter().filter(|stream| stream.ending.is_none()).count() <= 1);
            settle(&mut cloud, &mut open);
            // An app that is forgotten has nobody left to be told.
            let machine = &cloud.machine;
            let ending = |managed: bool, app: &str| {
                machine.streams.iter().any(|stream| stream.is_unmanaged() != managed && stream.takes_part(app))
            };
            open.retain(|(managed, app), _| machine.apps.contains_key(app) || ending(*managed, app));
        }
        for app in ["a", "b"] {
            cloud.event(Event::AppUp { app: app.into(), may_stream: true });
        }
        // Ingest lets no silent publisher stay.
        for stream_id in cloud.machine.streams.iter().map(|stream| stream.id.clone()).collect::<Vec<_>>() {
            cloud.event(Event::PublisherLost { stream_id, why: "silent".into() });
        }
        cloud.event(Event::DeviceDown).wait(3600);
        settle(&mut cloud, &mut open);
        prop_assert!(open.values().all(|n| *n == 0), "{:?} without an end", open);
        prop_assert!(cloud.machine.streams.is_empty() && cloud.machine.waiting.is_empty());
    }
}

/// Counts off the final statuses that were sent.
fn settle(cloud: &mut Cloud, open: &mut BTreeMap<(bool, String), i32>) {
    for action in cloud.said.drain(..) {
        let (key, last) = match action {
            Action::Managed { app, status } => {
                ((true, app), matches!(status.word, ManagedWord::Stopped | ManagedWord::Error))
            }
            Action::Unmanaged { app, status } => ((false, app), matches!(status.word, "stopped" | "error" | "timeout")),
            _ => continue,
        };
        if last {
            let left = open.entry(key.clone()).or_default();
            *left -= 1;
            assert!(*left >= 0, "{key:?} ended twice");
        }
    }
}
