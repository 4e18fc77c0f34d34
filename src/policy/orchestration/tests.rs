mod apps;
mod devices;
mod ends;
mod restart;

use serde_json::json;

use super::*;
use crate::protocol::app::{self, ManagedStatus, ManagedWord, Output, OutputState, ShownUrl, UnmanagedStatus};
use crate::protocol::glasses::{self, GlassesCommand};
use crate::protocol::{Secret, StreamUrl};

/// A cloud with one user, and the actions it took.
struct Cloud {
    machine: Orchestration,
    now: Time,
    ids: u32,
    said: Vec<Action>,
    /// What the store holds.
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
    /// With glasses linked and the apps `a` and `b` connected.
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

    /// The cloud's process ends, and another takes over what the store holds.
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

    /// A managed stream m1, started by `a` and playing.
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

    /// What an app was told of both kinds of stream, as words.
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

    /// The commands to the glasses, without keep-alives.
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

fn word(status: &ManagedStatus) -> String {
    serde_json::to_value(status.word).unwrap().as_str().unwrap().to_owned()
}
