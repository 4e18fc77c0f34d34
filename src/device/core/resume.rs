//! The stream of the process before this one, taken up or told to be over; and what of ours the next one needs.

use std::time::Duration;

use super::stream::{Asked, Origin};
use super::{Core, Effect};
use crate::device::config::OnLoss;
use crate::link::LinkId;
use crate::policy::Time;
use crate::policy::resume::{self, Former, HARMLESS_AFTER};
use crate::protocol::command::{Dialect, StartStream};
use crate::protocol::control::ReportLine;
use crate::protocol::{Cause, StreamEnd, StreamReport, StreamState, report};

/// What is kept is renewed every so many measurements, which come once a second: often enough to tell how long the process
/// has been gone, and seldom enough for a board's flash memory.
const KEPT_EVERY: u64 = 10;

/// A stream that runs, as its next process needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// What was asked for; of the duration, what is left.
    pub start: StartStream,
    /// The link that asked, and its dialect; none for a client of the control socket.
    pub link: Option<(LinkId, Dialect)>,
    /// How long it goes on without a keep-alive.
    pub patience: Duration,
    /// How many processes in a row ended with it, none of them on purpose.
    pub crashes: u32,
    /// This process ends on purpose, for the next one to go on.
    pub handed_over: bool,
}

/// What the process before this one left.
#[derive(Clone, Debug)]
pub struct LeftOver {
    /// Its stream.
    pub stream: Remembered,
    /// Since it was last known to live; `None` if the clock cannot tell.
    pub gone_for: Option<Duration>,
}

impl Core {
    /// Takes the stream up, or tells its end.
    pub(super) fn take_up(&mut self, left_over: LeftOver, now: Time) {
        let LeftOver { stream: Remembered { start, link, patience, crashes, handed_over }, gone_for } = left_over;
        let crashes = crashes.saturating_add(u32::from(!handed_over));
        if let Some(cause) = resume::over(&Former { gone_for, patience, crashes }) {
            return self.tell_left_over(&start.stream_id, link, cause);
        }
        tracing::info!(
            stream_id = start.stream_id,
            app = start.app,
            crashes,
            "taking up the stream of the process before"
        );
        let request = self.next_request();
        // Nobody waits for the answer to this request: who asked heard it from the process before.
        let origin = link.map_or(Origin::Control(request), |(link, dialect)| Origin::Link(link, dialect));
        self.consider_stream(request, Asked { start, origin, crashes: Some(crashes) }, false, now);
    }

    /// The stream of a process that is gone is over.
    pub(super) fn tell_left_over(&mut self, stream_id: &str, link: Option<(LinkId, Dialect)>, cause: Cause) {
        let state = if cause == Cause::DaemonRestarted { StreamState::Stopped } else { StreamState::Error };
        let end = StreamReport::new(state, Some(cause.into()));
        tracing::warn!(stream_id, %cause, "the stream of the process before is over");
        self.counts.ended.count(cause.name());
        self.effects.push(Effect::Tell(ReportLine::new(stream_id, &end)));
        if let Some((link, dialect)) = link {
            self.tell_end(link, report::status(&end, stream_id, dialect).to_string());
        }
        self.last_end = Some(StreamEnd { stream_id: stream_id.to_owned(), state, failure: cause.into() });
        self.effects.push(Effect::Remember(None));
    }

    /// Keeps what the next process needs, if there is a stream.
    pub(super) fn remember(&mut self, handed_over: bool, now: Time) {
        let Some(stream) = &self.stream else { return };
        let harmless = stream.life.streaming_for(now).is_some_and(|time| time >= HARMLESS_AFTER);
        let config = &self.settings.stream;
        let without = if config.on_keep_alive_loss == OnLoss::Stop {
            Duration::from_secs(config.keep_alive_timeout_s)
        } else {
            config.link_loss_grace()
        };
        let remembered = Remembered {
            start: StartStream { duration_limit: stream.life.duration_left(now), ..stream.start.clone() },
            link: match stream.origin {
                Origin::Link(link, dialect) => Some((link, dialect)),
                Origin::Control(_) => None,
            },
            patience: stream.life.keep_alive_left(now).unwrap_or(without),
            crashes: if harmless { 0 } else { stream.crashes },
            handed_over,
        };
        self.effects.push(Effect::Remember(Some(Box::new(remembered))));
    }

    /// Keeps it from time to time; called with each measurement.
    pub(super) fn remember_now_and_then(&mut self, now: Time) {
        if self.measured.is_multiple_of(KEPT_EVERY) {
            self.remember(false, now);
        }
    }
}
