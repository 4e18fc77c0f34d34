//! What the glasses say, and what they are told.

use super::stream::{Final, LOST_BY_GLASSES};
use super::{Action, Device, Orchestration, RESTARTS, Time, ToStop};
use crate::protocol::glasses::{GlassesCommand, GlassesMessage, GlassesState, GlassesStatus};

/// Whether the glasses ended a run that they can begin again, as it was only their link, or their process, that failed.
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
            // What was told to a connection before this one may be lost, even if nobody saw its end.
            stream.asked = None;
            if restored && stream.is_unmanaged() {
                // Only from now on can they speak of it.
                stream.started = now;
            }
        }
        for command in commands {
            self.command(command);
        }
        // lenscastd tells its state by itself; a phone's glasses are asked.
        self.command(GlassesCommand::GetStatus);
    }

    /// Whether the present glasses are those that had it, as far as that is known.
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
        // The glasses tell the old run's end behind their state, upon which it was started again.
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

    /// The glasses' whole state: what they do not run is over, or is started again if [`is_revivable`]. They tell it of
    /// themselves and when asked, and what they told before a start reached them says nothing of that.
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
