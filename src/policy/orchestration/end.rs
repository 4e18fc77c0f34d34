//! The end of streams and of apps: requested, or because a time limit has passed.

use super::stream::{Ending, Final};
use super::{Action, Away, MISSES, Orchestration, Time, ToStop};
use crate::protocol::glasses::GlassesCommand;

impl Orchestration {
    /// Tells the glasses to stop a stream. Its apps get the final status once the glasses have stopped.
    pub(super) fn begin_end(&mut self, id: &str, end: Final, now: Time) {
        let timing = self.settings.timing;
        let down = self.device.down;
        let Some(stream) = self.stream(id).filter(|stream| stream.ending.is_none()) else { return };
        let app = stream.glasses_app().to_owned();
        // Without a link only an unmanaged stream can still be running somewhere.
        let unmanaged = stream.is_unmanaged();
        let until = match down {
            None => now + timing.stop,
            Some(since) if unmanaged => (since + timing.recovery).max(now),
            Some(_) => now,
        };
        stream.ending = Some(Ending { until, end });
        self.owe_stop(id, &app);
        self.command(GlassesCommand::Stop { stream_id: id.to_owned(), app });
        self.actions.push(Action::Save);
        if down.is_some() && !unmanaged {
            self.expire(now);
        }
    }

    fn owe_stop(&mut self, id: &str, app: &str) {
        self.to_stop.insert(id.to_owned(), ToStop { app: app.to_owned(), device: self.device.name.clone() });
    }

    /// Removes a stream that is over, and tells each of its apps once.
    pub(super) fn finish(&mut self, id: &str, end: &Final) {
        let Some(at) = self.streams.iter().position(|stream| stream.id == id) else { return };
        let stream = self.streams.remove(at);
        for participant in &stream.participants {
            self.last_words(&participant.app, stream.last_words(&participant.app, end));
        }
        let kind = stream.stream_kind();
        self.actions.push(Action::Ended { stream_id: stream.id.clone(), kind, cause: end.counted() });
        if stream.playback().is_some() {
            self.actions.push(Action::Close { stream_id: stream.id });
        }
        self.actions.push(Action::Save);
    }

    /// Sends a final status. An app that is away gets it when it is back; an app that has left for good does not get
    /// it.
    pub(super) fn last_words(&mut self, app: &str, status: Action) {
        match self.apps.get_mut(app) {
            Some(app) if app.away.is_some() => app.missed.push(status),
            Some(_) => self.actions.push(status),
            None => {}
        }
    }

    /// As [`Self::finish`], but the glasses must stop too.
    pub(super) fn give_up(&mut self, id: &str, end: &Final) {
        let Some(stream) = self.stream(id) else { return };
        let app = stream.glasses_app().to_owned();
        self.owe_stop(id, &app);
        self.command(GlassesCommand::Stop { stream_id: id.to_owned(), app });
        self.finish(id, end);
    }

    pub(super) fn expire(&mut self, now: Time) {
        let due: Vec<String> = self
            .apps
            .iter()
            .filter(|(_, app)| app.away.is_some_and(|away| away.until <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.app_overdue(&name, now);
        }
        let ids: Vec<String> = self.streams.iter().map(|stream| stream.id.clone()).collect();
        for id in ids {
            self.stream_overdue(&id, now);
        }
    }

    pub(super) fn app_overdue(&mut self, name: &str, now: Time) {
        let takes_part = self.streams.iter().any(|stream| stream.ending.is_none() && stream.takes_part(name));
        let until = now + self.settings.timing.app_start;
        if let Some(away) = self.apps.get_mut(name).and_then(|app| app.away.as_mut())
            && takes_part
            && !away.started
        {
            *away = Away { until, started: true };
            return self.actions.push(Action::StartApp { app: name.to_owned() });
        }
        self.apps.remove(name);
        self.leave_all(name, now);
        self.actions.push(Action::Save);
    }

    pub(super) fn stream_overdue(&mut self, id: &str, now: Time) {
        let timing = self.settings.timing;
        let down = self.device.down;
        let Some(stream) = self.stream(id) else { return };
        if let Some(ending) = stream.ending.take_if(|ending| ending.until <= now) {
            return self.finish(id, &ending.end);
        }
        if stream.ending.is_some() {
            return;
        }
        stream.listen(now, &timing);
        if let Some(end) = stream.overdue(now, &timing, down) {
            return self.give_up(id, &end);
        }
        if down.is_some() {
            return;
        }
        if stream.keep_alive.missed(now, &timing) >= MISSES {
            let end = Final::timed_out(stream.is_unmanaged());
            return self.give_up(id, &end);
        }
        if stream.keep_alive.is_due(now, &timing) {
            stream.keep_alive.sent(now);
            self.keep_alives += 1;
            let ack_id = format!("a{}", self.keep_alives);
            self.command(GlassesCommand::KeepAlive { stream_id: id.to_owned(), ack_id });
        }
    }
}
