//! What systemd is told (`sd_notify(3)`): that the daemon is ready, its status in one line, that it is healthy, that
//! it ends. Outside of a service all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::policy::Time;
use crate::policy::health::Health;
use crate::protocol::{DaemonState, StreamSnapshot};

/// How often the watchdog is fed within its time.
const FEEDS: u32 = 3;

/// The daemon as a systemd service.
#[derive(Debug)]
pub struct Service {
    /// `WatchdogSec=`, if set.
    watchdog: Option<Duration>,
    fed: Option<Time>,
    starving: bool,
    status: String,
}

impl Service {
    /// Reads systemd's environment variables.
    pub fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), fed: None, starving: false, status: String::new() }
    }

    /// The control socket exists, and so does the task that answers.
    pub fn ready(&mut self, state: &DaemonState) {
        self.show(state);
        tell(NotifyState::Ready);
    }

    /// Shows the daemon's status, if it has changed.
    pub fn show(&mut self, state: &DaemonState) {
        let status = describe(state);
        if status != self.status {
            tell(NotifyState::Status(&status));
            self.status = status;
        }
    }

    /// Call at least once a second. Feeds the watchdog when it is due and the daemon is healthy.
    pub fn feed(&mut self, health: &Health, now: Time) {
        let Some(watchdog) = self.watchdog else { return };
        if let Some(what) = health.overrun(now) {
            if !std::mem::replace(&mut self.starving, true) {
                tracing::error!(what, "only a restart can mend this; the watchdog is no longer fed");
            }
            return;
        }
        self.starving = false;
        if self.fed.is_none_or(|fed| now.saturating_sub(fed) >= watchdog / FEEDS) {
            self.fed = Some(now);
            tell(NotifyState::Watchdog);
        }
    }

    /// The daemon ends.
    pub fn stopping() {
        tell(NotifyState::Stopping);
    }
}

fn tell(what: NotifyState) {
    if let Err(error) = sd_notify::notify(&[what]) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

fn describe(state: &DaemonState) -> String {
    match (&state.stream, &state.owner, &state.last_end) {
        (Some(StreamSnapshot { state, failure, url, app, .. }), ..) => {
            let why = failure.as_ref().map_or_else(String::new, |failure| format!(", {}", failure.explain()));
            let app = if app.is_empty() { String::new() } else { format!(" for {app}") };
            format!("{} {url}{app}{why}", state.name())
        }
        (None, Some(owner), _) => format!("camera in use: {}", owner.name),
        (None, None, Some(end)) => format!("idle; last stream ended: {}", end.failure.explain()),
        (None, None, None) => "idle".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Cause, StreamEnd, StreamState};

    #[test]
    fn the_line_says_what_is_going_on_and_why_it_is_not() {
        let mut state = DaemonState::default();
        assert_eq!(describe(&state), "idle");
        let failure = Cause::DaemonCrashed.into();
        state.last_end = Some(StreamEnd { stream_id: "s".into(), state: StreamState::Error, failure });
        assert_eq!(describe(&state), "idle; last stream ended: the daemon crashed again and again with this stream");
    }
}
