//! The stream of the previous process: resumed, or reported as over. And what the next process needs of ours.

use std::time::Duration;

use super::stream::{Asked, Origin};
use super::streams::Streams;
use super::{Effect, Outbox};
use crate::device::config::OnLoss;
use crate::link::LinkId;
use crate::policy::Time;
use crate::policy::arbiter::RequestId;
use crate::policy::resume::{self, Former, HARMLESS_AFTER};
use crate::protocol::command::{Dialect, StartStream};
use crate::protocol::control::ReportLine;
use crate::protocol::{Cause, StreamEnd, StreamReport, StreamState, report};

/// Measurements (one a second) between writes: often enough to tell how long the process has been gone, seldom enough for
/// a board's flash memory.
const KEPT_EVERY: u64 = 10;

/// A running stream, as the next process needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The request, with the duration that is left.
    pub start: StartStream,
    /// The link that asked, and its dialect; none for a client of the control socket.
    pub link: Option<(LinkId, Dialect)>,
    /// How long the stream goes on without a keep-alive.
    pub patience: Duration,
    /// How many processes in a row crashed during this stream.
    pub crashes: u32,
    /// This process ends on purpose, so that the next one continues.
    pub handed_over: bool,
}

/// What the previous process left.
#[derive(Clone, Debug)]
pub struct LeftOver {
    /// Its stream.
    pub stream: Remembered,
    /// Since that process was last known to live; `None` if the clock cannot tell.
    pub gone_for: Option<Duration>,
}

impl LeftOver {
    /// The start that takes the stream up, or why it is over.
    pub(super) fn taken_up(self, request: RequestId) -> Result<Asked, Over> {
        let Self { stream: Remembered { start, link, patience, crashes, handed_over }, gone_for } = self;
        let crashes = crashes.saturating_add(u32::from(!handed_over));
        if let Some(cause) = resume::over(&Former { gone_for, patience, crashes }) {
            return Err(Over { stream_id: start.stream_id, link, cause });
        }
        tracing::info!(
            stream_id = start.stream_id,
            app = start.app,
            crashes,
            "taking up the stream of the process before"
        );
        // Nobody waits for the answer to this request: the previous process gave it.
        let origin = link.map_or(Origin::Control(request), |(link, dialect)| Origin::Link(link, dialect));
        Ok(Asked { start, origin, crashes: Some(crashes) })
    }
}

/// A stream of the process before this one that is not taken up.
#[derive(Debug)]
pub(super) struct Over {
    pub stream_id: String,
    pub link: Option<(LinkId, Dialect)>,
    pub cause: Cause,
}

impl Streams {
    /// The stream of the previous process is over. Returns the message for the link that asked for it.
    pub fn left_over_ended(&mut self, over: &Over, out: &mut Outbox) -> Option<(LinkId, String)> {
        let Over { stream_id, link, cause } = over;
        let state = if *cause == Cause::DaemonRestarted { StreamState::Stopped } else { StreamState::Error };
        let end = StreamReport::new(state, Some((*cause).into()));
        tracing::warn!(stream_id, %cause, "the stream of the process before is over");
        out.counts.ended.count(cause.name());
        out.push(Effect::Tell(ReportLine::new(stream_id, &end)));
        self.last_end = Some(StreamEnd { stream_id: stream_id.clone(), state, failure: (*cause).into() });
        out.push(Effect::Remember(None));
        link.map(|(link, dialect)| (link, report::status(&end, stream_id, dialect).to_string()))
    }

    /// Keeps what the next process needs, if there is a stream.
    pub fn remember(&self, handed_over: bool, now: Time, out: &mut Outbox) {
        let Some(stream) = &self.active else { return };
        let harmless = stream.life.streaming_for(now).is_some_and(|time| time >= HARMLESS_AFTER);
        let config = &self.config;
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
        out.push(Effect::Remember(Some(Box::new(remembered))));
    }

    /// Keeps it every `KEPT_EVERY` measurements.
    pub(super) fn remember_now_and_then(&self, now: Time, out: &mut Outbox) {
        if self.measured.is_multiple_of(KEPT_EVERY) {
            self.remember(false, now, out);
        }
    }
}
