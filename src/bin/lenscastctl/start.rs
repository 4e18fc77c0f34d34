//! `start`, and with `--wait` following the stream until it is live.

use std::io::BufRead;
use std::path::Path;

use lenscast::link::control_client::Client;
use lenscast::protocol::control::{Event, Request, Started};
use lenscast::protocol::{self, StreamState};

use crate::args::StartArguments;
use crate::failure::Failure;
use crate::text::clean;
use crate::{aside, line, render};

/// Starts the stream and prints its id.
pub async fn run(socket: &Path, wanted: &StartArguments) -> Result<(), Failure> {
    let url = if wanted.url == "-" { url_from_input()? } else { wanted.url.clone() };
    let Started { stream_id } = crate::ask(socket, &Request::Start(wanted.request(url))).await?;
    line(&clean(&stream_id))?;
    if !wanted.wait {
        return Ok(());
    }
    // Only now: earlier reports may concern an earlier stream with this id.
    let (state, mut watching) = Client::connect(socket).await?.watch().await?;
    let mut event = Event::State { state: Box::new(state) };
    loop {
        match outcome(&event, &stream_id) {
            Some(Outcome::Live) => return Ok(()),
            Some(Outcome::Ended(state, why)) => {
                let why = clean(&render::because(why.as_ref()));
                return Err(Failure::Other(format!("the stream ended as {}{why}", state.name())));
            }
            None => {
                if let Event::Report(report) = &event
                    && report.stream_id == stream_id
                {
                    aside(&render::report(report));
                }
            }
        }
        event = watching.next().await?;
    }
}

fn url_from_input() -> Result<String, Failure> {
    let mut url = String::new();
    std::io::stdin().lock().read_line(&mut url).map_err(|error| Failure::Other(format!("standard input: {error}")))?;
    match url.trim() {
        "" => Err(Failure::Usage("there is no URL on standard input".into())),
        url => Ok(url.to_owned()),
    }
}

/// The stream's outcome.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Live,
    Ended(StreamState, Option<protocol::Failure>),
}

/// The outcome of the stream according to an event since the start, if it decides.
fn outcome(event: &Event, stream_id: &str) -> Option<Outcome> {
    let (state, why) = match event {
        Event::Report(report) if report.stream_id == stream_id => (report.state, &report.failure),
        Event::Report(_) | Event::Lagged => return None,
        Event::State { state } => match (&state.stream, &state.last_end) {
            (Some(stream), _) if stream.stream_id == stream_id => (stream.state, &stream.failure),
            (_, Some(end)) if end.stream_id == stream_id => {
                return Some(Outcome::Ended(end.state, Some(end.failure.clone())));
            }
            // Another stream has ended since.
            _ => (StreamState::Stopped, &None),
        },
    };
    match state {
        StreamState::Streaming => Some(Outcome::Live),
        state if state.is_terminal() => Some(Outcome::Ended(state, why.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lenscast::protocol::control::ReportLine;
    use lenscast::protocol::{Cause, DaemonState, Metrics, StreamEnd, StreamKind, StreamSnapshot};

    fn report(stream_id: &str, state: StreamState, cause: Option<Cause>) -> Event {
        Event::Report(ReportLine {
            stream_id: stream_id.into(),
            state,
            failure: cause.map(Into::into),
            attempt: 0,
            retry_in_ms: None,
        })
    }

    fn state(running: Option<StreamState>, ended: Option<Cause>) -> Event {
        let stream = running.map(|state| StreamSnapshot {
            stream_id: "s1".into(),
            app: "a".into(),
            kind: StreamKind::Unmanaged,
            state,
            failure: None,
            url: "rtmp://h/live/***".into(),
            attempt: 0,
            publications: 0,
            metrics: Metrics::default(),
        });
        let last_end =
            ended.map(|cause| StreamEnd { stream_id: "s1".into(), state: StreamState::Error, failure: cause.into() });
        Event::State { state: Box::new(DaemonState { stream, last_end, ..DaemonState::default() }) }
    }

    #[test]
    fn waits_through_connecting_and_reconnecting_for_its_own_stream() {
        for event in [
            state(Some(StreamState::Initializing), None),
            report("s1", StreamState::Connecting, None),
            report("s1", StreamState::Reconnecting, Some(Cause::ConnectRefused)),
            report("s0", StreamState::Streaming, None),
            report("s0", StreamState::Stopped, Some(Cause::Replaced)),
            Event::Lagged,
        ] {
            assert_eq!(outcome(&event, "s1"), None, "{event:?}");
        }
        assert_eq!(outcome(&report("s1", StreamState::Streaming, None), "s1"), Some(Outcome::Live));
    }

    #[test]
    fn an_end_comes_with_its_cause_and_is_not_an_earlier_streams_of_the_same_id() {
        let ended = |cause: Cause| Some(Outcome::Ended(StreamState::Error, Some(cause.into())));
        let event = report("s1", StreamState::Error, Some(Cause::PublishRejected));
        assert_eq!(outcome(&event, "s1"), ended(Cause::PublishRejected));
        assert_eq!(outcome(&state(None, Some(Cause::DnsFailed)), "s1"), ended(Cause::DnsFailed));
        assert_eq!(outcome(&state(Some(StreamState::Connecting), Some(Cause::DnsFailed)), "s1"), None);
        assert!(
            matches!(outcome(&state(None, None), "s1"), Some(Outcome::Ended(..))),
            "waits for nothing that is over"
        );
    }

    #[test]
    fn one_that_streams_already_is_live() {
        assert_eq!(outcome(&state(Some(StreamState::Streaming), None), "s1"), Some(Outcome::Live));
    }
}
