//! What a stream reports about itself.

use super::{Camera, Stream, StreamAction, retry};
use crate::protocol::{StreamReport, StreamState};

impl Stream {
    /// The report for the current state.
    pub(super) fn view(&self) -> StreamReport {
        if self.streaming() {
            let plain = StreamReport::new(StreamState::Streaming, None);
            let (reconnected, attempt) = (self.reconnected.is_some(), self.reconnected.unwrap_or(0));
            return StreamReport { attempt, reconnected, ..plain };
        }
        match (&self.outage, self.camera) {
            (Some(outage), _) => {
                let class = retry::class(outage.failure.cause);
                let estimate = retry::estimated_attempts(class, self.settings.give_up_after);
                StreamReport {
                    attempt: outage.retry,
                    max_attempts: estimate.map(|estimate| estimate.max(outage.retry)),
                    retry_in: outage.retry_in,
                    ..StreamReport::new(StreamState::Reconnecting, Some(outage.failure.clone()))
                }
            }
            (None, Camera::Running) => StreamReport::new(StreamState::Connecting, None),
            (None, _) => StreamReport::new(StreamState::Initializing, None),
        }
    }

    pub(super) fn say(&mut self, report: StreamReport, actions: &mut Vec<StreamAction>) {
        if report != self.reported {
            self.reported = report.clone();
            actions.push(StreamAction::Report(report));
        }
    }
}
