//! The live view's contents and layout. Pure: events in, lines out.

use std::collections::VecDeque;
use std::time::Duration;

use lenscast::protocol::DaemonState;
use lenscast::protocol::control::Event;

use crate::render;
use crate::text::{Row, Tone, cut};

/// More than a tall terminal shows.
const LOG: usize = 200;

/// The live view's state.
#[derive(Default)]
pub struct View {
    state: Option<DaemonState>,
    /// The latest changes, with the time since the view began.
    log: VecDeque<(Duration, String)>,
    trouble: Option<String>,
    /// The caller's lines, always shown.
    caption: Vec<String>,
}

impl View {
    /// A view with the caller's lines below the state.
    pub fn with_note(note: &str) -> Self {
        Self { caption: note.lines().map(str::to_owned).collect(), ..Self::default() }
    }

    /// Connected, for the first time or again.
    pub fn connected(&mut self, state: DaemonState, now: Duration) {
        if self.trouble.take().is_some() {
            self.note(now, "the daemon is back".into());
            self.note(now, render::stream(&state));
        }
        self.state = Some(state);
    }

    /// The daemon is gone.
    pub fn lost(&mut self, reason: &str, now: Duration) {
        if self.trouble.is_none() {
            self.note(now, reason.into());
        }
        self.trouble = Some(reason.into());
    }

    /// Handles an event.
    pub fn event(&mut self, event: Event, now: Duration) {
        match event {
            Event::Report(report) => self.note(now, render::report(&report)),
            Event::Lagged => self.note(now, "some changes were lost; this view reads too slowly".into()),
            Event::State { state } => {
                for line in render::changes(self.state.as_ref(), &state) {
                    self.note(now, line);
                }
                self.state = Some(*state);
            }
        }
    }

    fn note(&mut self, now: Duration, line: String) {
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        self.log.push_back((now, line));
    }

    /// At most `height` lines of at most `width` columns: the state, the latest changes, how to leave.
    pub fn lines(&self, width: usize, height: usize, color: bool) -> Vec<String> {
        let mut rows = Vec::new();
        if let Some(trouble) = &self.trouble {
            rows.push(
                Row::new("!").with(Tone::Bad, trouble).with(Tone::Warn, "waiting for it; last known state below"),
            );
        }
        rows.extend(self.state.iter().flat_map(render::state));
        let mut lines: Vec<String> = rows.iter().flat_map(|row| row.lines(width, color)).collect();
        if !self.caption.is_empty() {
            lines.push(String::new());
            lines.extend(self.caption.iter().map(|line| cut(line, width)));
        }
        lines.truncate(height.saturating_sub(1));
        let room = height.saturating_sub(lines.len() + 3);
        if room > 0 && !self.log.is_empty() {
            lines.push(String::new());
            for (when, text) in self.log.iter().skip(self.log.len().saturating_sub(room)) {
                lines.push(cut(&format!("{:>7.1} s  {text}", when.as_secs_f64()), width));
            }
        }
        lines.push(String::new());
        lines.truncate(height.saturating_sub(1));
        lines.push(cut("Ctrl-C to quit", width));
        lines.truncate(height);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lenscast::protocol::control::ReportLine;
    use lenscast::protocol::{CameraState, Cause, StreamState};

    const NOW: Duration = Duration::from_millis(1500);

    fn report(attempt: u32) -> Event {
        Event::Report(ReportLine {
            stream_id: "s1".into(),
            state: StreamState::Reconnecting,
            failure: Some(Cause::NetworkStalled.into()),
            attempt,
            retry_in_ms: Some(340),
        })
    }

    fn view() -> View {
        let mut view = View::default();
        view.connected(DaemonState { version: "0.1.0".into(), ..DaemonState::default() }, Duration::ZERO);
        view
    }

    #[test]
    fn the_latest_changes_stay_on_screen() {
        let mut view = view();
        for attempt in 1..500 {
            view.event(report(attempt), NOW);
        }
        let lines = view.lines(120, 24, false);
        assert_eq!(lines.len(), 24);
        assert!(lines.iter().any(|line| line.contains("attempt 499") && line.contains("1.5 s")));
        assert!(!lines.iter().any(|line| line.contains("attempt 1,")));
        assert!(lines[0].contains("0.1.0"));
        assert_eq!(lines[23], "Ctrl-C to quit");
    }

    #[test]
    fn it_fits_every_terminal() {
        let mut view = view();
        view.event(report(1), NOW);
        view.lost("the daemon closed the connection", NOW);
        for (width, height) in (0..100).zip((0..40).cycle()) {
            let lines = view.lines(width, height, false);
            assert!(lines.len() <= height);
            assert!(lines.iter().all(|line| line.chars().count() <= width.max(10)), "{width}x{height} {lines:?}");
        }
    }

    #[test]
    fn a_daemon_that_went_away_is_said_once_and_its_return_too() {
        let mut view = view();
        for _ in 0..5 {
            view.lost("cannot reach the daemon", NOW);
        }
        let shown = view.lines(100, 24, false).join("\n");
        assert!(shown.contains("waiting for it") && shown.contains("0.1.0"));
        assert_eq!(shown.matches("cannot reach").count(), 2, "on top, and once among the changes: {shown}");
        view.connected(DaemonState::default(), NOW);
        let shown = view.lines(100, 24, false).join("\n");
        assert!(!shown.contains("waiting") && shown.contains("is back"));
    }

    #[test]
    fn counters_renew_the_state_without_a_line() {
        let mut view = view();
        let before = view.lines(100, 24, false).len();
        let mut state = DaemonState { uptime_s: 61, ..DaemonState::default() };
        view.event(Event::State { state: Box::new(state.clone()) }, NOW);
        let lines = view.lines(100, 24, false);
        assert!(lines[0].contains("1 min 1 s"));
        assert_eq!(lines.len(), before);
        state.camera.state = CameraState::Opening;
        view.event(Event::State { state: Box::new(state) }, NOW);
        assert!(view.lines(100, 24, false).iter().any(|line| line.contains("1.5 s  camera opening")));
    }
}
