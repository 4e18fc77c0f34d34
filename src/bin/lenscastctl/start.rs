//! `start`, and with `--wait` the stream's way to being live.

use std::io::BufRead;
use std::path::Path;

use lenscast::link::control_client::Client;
use lenscast::protocol::control::{Event, Request, Started};
use lenscast::protocol::{Cause, StreamState};

use crate::args::StartArguments;
use crate::failure::Failure;
use crate::{aside, line, render};

/// Starts the stream and prints its id.
pub async fn run(socket: &Path, wanted: &StartArguments) -> Result<(), Failure> {
    let url = if wanted.url == "-" { url_from_input()? } else { wanted.url.clone() };
    // First, so that no report of the new stream is missed.
    let watching = if wanted.wait { Some(Client::connect(socket).await?.watch().await?.1) } else { None };
    let Started { stream_id } = crate::ask(socket, &Request::Start(wanted.request(url))).await?;
    line(&crate::text::clean(&stream_id))?;
    let Some(mut watching) = watching else { return Ok(()) };
    let mut follow = Follow::new(stream_id);
    loop {
        let event = watching.next().await?;
        match follow.event(&event) {
            Some(Outcome::Live) => return Ok(()),
            Some(Outcome::Ended(state, cause)) => {
                let why = render::because(cause);
                return Err(Failure::Other(format!("the stream ended as {}{why}", state.name())));
            }
            None => {
                if let Event::Report(report) = &event
                    && report.stream_id == follow.stream_id
                {
                    aside(&render::report(report));
                }
            }
        }
    }
}

fn url_from_input() -> Result<String, Failure> {
    let mut url = String::new();
    std::io::stdin().lock().read_line(&mut url).map_err(|error| Failure::Other(format!("standard input: {error}")))?;
    match url.trim() {
        "" => Err(Failure::Usage("standard input holds no URL".into())),
        url => Ok(url.to_owned()),
    }
}

/// What became of the stream.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Live,
    Ended(StreamState, Option<Cause>),
}

/// Follows one stream through the events.
struct Follow {
    stream_id: String,
    /// Reports were lost: the next state tells what they would have. Otherwise states tell nothing, since one from
    /// before the start may still show an earlier stream of the same id.
    lagged: bool,
}

impl Follow {
    fn new(stream_id: String) -> Self {
        Self { stream_id, lagged: false }
    }

    fn event(&mut self, event: &Event) -> Option<Outcome> {
        let (stream_id, state, cause) = match event {
            Event::Report(report) => (&report.stream_id, report.state, report.cause),
            Event::Lagged => {
                self.lagged = true;
                return None;
            }
            Event::State { state } => {
                if !std::mem::take(&mut self.lagged) {
                    return None;
                }
                match (&state.stream, &state.last_end) {
                    (Some(stream), _) if stream.stream_id == self.stream_id => (&stream.stream_id, stream.state, None),
                    (_, Some(end)) => (&end.stream_id, end.state, Some(end.cause)),
                    _ => return None,
                }
            }
        };
        if *stream_id != self.stream_id {
            return None;
        }
        match state {
            StreamState::Streaming => Some(Outcome::Live),
            state if state.is_terminal() => Some(Outcome::Ended(state, cause)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lenscast::protocol::control::ReportLine;
    use lenscast::protocol::{DaemonState, StreamEnd};

    fn report(stream_id: &str, state: StreamState, cause: Option<Cause>) -> Event {
        Event::Report(ReportLine { stream_id: stream_id.into(), state, cause, attempt: 0, retry_in_ms: None })
    }

    fn ended() -> Event {
        let end = StreamEnd { stream_id: "s1".into(), state: StreamState::Error, cause: Cause::DnsFailed };
        Event::State { state: Box::new(DaemonState { last_end: Some(end), ..DaemonState::default() }) }
    }

    #[test]
    fn waits_through_connecting_and_reconnecting_for_its_own_stream() {
        let mut follow = Follow::new("s1".into());
        for event in [
            report("s1", StreamState::Connecting, None),
            report("s1", StreamState::Reconnecting, Some(Cause::ConnectRefused)),
            report("s0", StreamState::Streaming, None),
            report("s0", StreamState::Stopped, Some(Cause::Replaced)),
        ] {
            assert_eq!(follow.event(&event), None, "{event:?}");
        }
        assert_eq!(follow.event(&report("s1", StreamState::Streaming, None)), Some(Outcome::Live));
    }

    #[test]
    fn an_end_comes_with_its_cause() {
        let event = report("s1", StreamState::Error, Some(Cause::PublishRejected));
        let outcome = Outcome::Ended(StreamState::Error, Some(Cause::PublishRejected));
        assert_eq!(Follow::new("s1".into()).event(&event), Some(outcome));
    }

    #[test]
    fn a_state_counts_only_after_lost_reports() {
        let mut follow = Follow::new("s1".into());
        assert_eq!(follow.event(&ended()), None, "that may be an earlier stream of this id");
        assert_eq!(follow.event(&Event::Lagged), None);
        assert_eq!(follow.event(&ended()), Some(Outcome::Ended(StreamState::Error, Some(Cause::DnsFailed))));
    }
}
