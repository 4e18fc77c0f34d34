//! A connection that watches: gets every report as it comes, and the state when it has changed.

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep_until};

use crate::protocol::control::{Answer, Event, Status, only_counters_differ};

use super::{Connection, End, ordered};

impl Connection {
    /// Runs until the client or the daemon ends it.
    pub(super) async fn watch(&mut self) -> Result<(), End> {
        // Before the state is read: a report in between is then sent twice rather than never.
        let mut reports = self.shared.reports.subscribe();
        let mut states = self.shared.state.clone();
        let mut told = states.borrow_and_update().clone();
        self.writer.reply(&Ok(Answer::Status(Status { state: Box::new(told.clone()) }))).await?;
        let mut due = Instant::now() + self.shared.limits.counters;
        let mut untold = false;
        loop {
            // A report goes before the state that results from it, and all reports before the end.
            let tell_state = tokio::select! {
                biased;
                report = reports.recv() => match report {
                    Ok(report) => {
                        self.writer.write(&Event::Report(report).line()).await?;
                        false
                    }
                    Err(RecvError::Lagged(_)) => {
                        reports = reports.resubscribe();
                        self.writer.write(&Event::Lagged.line()).await?;
                        true
                    }
                    Err(RecvError::Closed) => return Err(End::Shutdown),
                },
                changed = states.changed() => {
                    if changed.is_err() {
                        return Err(End::Shutdown);
                    }
                    untold = true;
                    !only_counters_differ(&told, &states.borrow_and_update()) || due <= Instant::now()
                }
                () = sleep_until(due), if untold => true,
                () = self.hangup.wait() => return Err(End::Client),
                () = ordered(&mut self.shutdown) => break,
            };
            if tell_state {
                told = states.borrow_and_update().clone();
                self.writer.write(&Event::State { state: Box::new(told.clone()) }.line()).await?;
                due = Instant::now() + self.shared.limits.counters;
                untold = false;
            }
        }
        loop {
            match reports.try_recv() {
                Ok(report) => self.writer.write(&Event::Report(report).line()).await?,
                Err(TryRecvError::Lagged(_)) => self.writer.write(&Event::Lagged.line()).await?,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let last = states.borrow().clone();
        if last != told {
            self.writer.write(&Event::State { state: Box::new(last) }.line()).await?;
        }
        Err(End::Shutdown)
    }
}
