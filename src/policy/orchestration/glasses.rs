//! Messages of the glasses, and commands to them.

use super::stream::{Final, LOST_BY_GLASSES};
use super::{Action, Device, Orchestration, RESTARTS, Time, ToStop};
use crate::protocol::glasses::{GlassesCommand, GlassesMessage, GlassesState, GlassesStatus};

/// Whether a run ended only because the glasses' link or process failed, so that they can start it again.
fn is_revivable(end: &GlassesStatus) -> bool {
    matches!(end.cause.as_deref(), Some("daemon_restarted" | "shutdown" | "link_lost" | "keep_alive_timeout"))
}

impl Orchestration {
    pub(super) fn command(&mut self, command: GlassesCommand) {
        if self.device.down.is_none() {
            self.actions.push(Action::Device { command, dialect: self.device.dialect });
        }
    }

    pub(super) fn device_up(&mut self, name: String, now: Time) {
        let commands = self.owed_to(&name);
        let dialect = self.device.dialect;
        self.device = Device { name: Some(name), down: None, present: true, wifi: None, dialect };
        let restored = std::mem::take(&mut self.restored);
        for stream in &mut self.streams {
            // Commands on the previous connection may be lost, even if nobody saw it end.
            stream.asked = None;
            if restored && stream.is_unmanaged() {
                // Before now they had no way to report it.
                stream.started = now;
            }
        }
        for command in commands {
            self.command(command);
        }
        // lenscastd sends its state unasked; a phone's glasses have to be asked.
        self.command(GlassesCommand::GetStatus);
    }

    /// Whether the present glasses may be those that had the stream.
    fn may_have(&self, stop: &ToStop) -> bool {
        stop.device.is_none() || stop.device == self.device.name
    }

    pub(super) fn device_says(&mut self, message: GlassesMessage, now: Time) {
        match message {
            GlassesMessage::Status(status) => {
                if let Some(id) = status.stream_id.clone() {
                    self.status(&id, status, now);
                }
            }
            GlassesMessage::Snapshot { stream, last_end } => self.snapshot(stream, last_end.as_ref(), now),
            GlassesMessage::KeepAliveAck { stream_id, .. } => {
                if let Some(stream) = self.stream(&stream_id) {
                    stream.keep_alive.answered();
                }
            }
            GlassesMessage::Connection { connected, wifi } => {
                self.device.present = connected;
                self.device.wifi = wifi;
            }
            GlassesMessage::Other => {}
        }
    }

    pub(super) fn status(&mut self, id: &str, status: GlassesStatus, now: Time) {
        if status.state.is_terminal() && self.to_stop.get(id).is_some_and(|stop| self.may_have(stop)) {
            self.to_stop.remove(id);
        }
        let Some(stream) = self.stream(id) else { return };
        // After their state, which has restarted the stream, the glasses report the end of the old run.
        let of_old_run = stream.restarts > 0 && stream.glasses.is_none() && stream.ending.is_none();
        if of_old_run && status.state.is_terminal() && is_revivable(&status) {
            return;
        }
        stream.keep_alive.answered();
        stream.stale = false;
        stream.asked = None;
        if status.state.is_terminal() {
            let end = stream.ending.take().map_or_else(|| Final::told(&status), |ending| ending.end);
            return self.finish(id, &end);
        }
        if status.state != GlassesState::Streaming {
            stream.interrupted.get_or_insert(now);
        } else if stream.is_unmanaged() {
            stream.interrupted = None;
        }
        stream.glasses = Some(status);
    }

    /// Handles the glasses' whole state, which they send unasked and when asked. A stream that they do not run is over,
    /// or is started again if [`is_revivable`]. A state that was sent before a start reached them says nothing about
    /// that stream.
    pub(super) fn snapshot(&mut self, stream: Option<GlassesStatus>, last_end: Option<&GlassesStatus>, now: Time) {
        let running = stream.as_ref().and_then(|status| status.stream_id.clone());
        let mut to_stop = std::mem::take(&mut self.to_stop);
        to_stop.retain(|id, stop| Some(id) == running.as_ref() || !self.may_have(stop));
        self.to_stop = to_stop;
        let owed = self.device().map(|device| self.owed_to(device)).unwrap_or_default();
        for command in owed {
            self.command(command);
        }
        let acknowledge = self.settings.timing.acknowledge;
        let lost: Vec<String> =
            self.streams.iter().map(|stream| stream.id.clone()).filter(|id| Some(id) != running.as_ref()).collect();
        for id in lost {
            let ended = last_end.filter(|end| end.stream_id.as_ref() == Some(&id));
            let Some(stream) = self.stream(&id) else { continue };
            if let Some(ending) = stream.ending.take() {
                self.finish(&id, &ending.end);
                continue;
            }
            let revivable = ended.is_none_or(is_revivable);
            if revivable && stream.asked.is_some_and(|at| now < at + acknowledge) {
                continue;
            }
            if revivable && stream.restarts < RESTARTS {
                stream.restarts += 1;
                stream.started = now;
                stream.asked = Some(now);
                stream.glasses = None;
                stream.stale = false;
                stream.interrupted.get_or_insert(now);
                let start = stream.start();
                self.command(start);
            } else {
                let end = ended
                    .map_or_else(|| Final::failed("the glasses no longer stream it", LOST_BY_GLASSES), Final::told);
                self.finish(&id, &end);
            }
        }
        if let (Some(id), Some(status)) = (running, stream) {
            self.status(&id, status, now);
        }
    }
}
