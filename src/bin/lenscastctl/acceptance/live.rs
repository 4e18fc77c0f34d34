//! A stream from the daemon to our own sink, watched at both ends.

use std::path::Path;
use std::time::Duration;

use lenscast::ingest::sink::{Arrived, Sink};
use lenscast::link::control_client::{Client, Watching};
use lenscast::protocol::control::{Done, Event, ReportLine, Request, Start, Started, VideoWish};
use lenscast::protocol::{DaemonState, StreamState};
use tokio::time::{Instant, timeout_at};

use crate::failure::Failure;
use crate::render;

/// Limit until the first picture arrives: encoder trials take time.
pub const BEGIN: Duration = Duration::from_secs(45);

/// The stream under observation.
pub struct Live {
    pub sink: Sink,
    /// The daemon's latest state.
    pub state: DaemonState,
    stream_id: String,
    watching: Watching,
    began: Instant,
}

/// What happened to the stream.
#[derive(Debug, PartialEq)]
pub enum News {
    /// The time is over.
    Nothing,
    /// A change in its life.
    Report(ReportLine),
}

/// The stream's id, which contains our pid: no other stream has it.
pub fn stream_id() -> String {
    format!("acceptance-{}", std::process::id())
}

/// Stops the stream if it still runs.
pub async fn stop(socket: &Path) {
    if let Ok(mut client) = Client::connect(socket).await {
        let _: Result<Done, _> = client.call(&Request::Stop { stream_id: Some(stream_id()) }).await;
    }
}

impl Live {
    /// Starts it.
    pub async fn begin(socket: &Path, video: VideoWish) -> Result<Self, Failure> {
        let sink = Sink::open().await.map_err(|error| Failure::Other(format!("no port to publish to: {error}")))?;
        let (state, watching) = Client::connect(socket).await?.watch().await?;
        let start = Start {
            url: sink.url(),
            app: None,
            stream_id: Some(stream_id()),
            kind: None,
            video: Some(video),
            audio: None,
            duration_s: None,
        };
        let began = Instant::now();
        let Started { stream_id } = crate::ask(socket, &Request::Start(start)).await?;
        Ok(Self { sink, state, stream_id, watching, began })
    }

    /// Seconds since it was asked for.
    pub fn age(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// The stream's next event until `deadline`. Earlier events show in `state`.
    pub async fn next(&mut self, deadline: Instant) -> Result<News, Failure> {
        loop {
            let Ok(event) = timeout_at(deadline, self.watching.next()).await else { return Ok(News::Nothing) };
            match event? {
                Event::Report(report) if report.stream_id == self.stream_id => return Ok(News::Report(report)),
                Event::State { state } => self.state = *state,
                Event::Report(_) | Event::Lagged => {}
            }
        }
    }

    /// Waits until it is in the state `wanted`; the error names the state that it is in.
    pub async fn wait(&mut self, wanted: StreamState, within: Duration) -> Result<Result<ReportLine, String>, Failure> {
        let deadline = Instant::now() + within;
        loop {
            match self.next(deadline).await? {
                News::Report(report) if report.state == wanted => return Ok(Ok(report)),
                News::Report(report) if report.state.is_terminal() => return Ok(Err(said(&report))),
                News::Report(_) => {}
                News::Nothing => {
                    let stream = self.state.stream.as_ref();
                    let now = stream.map_or_else(
                        || "gone".into(),
                        |stream| format!("{}{}", stream.state.name(), render::because(stream.failure.as_ref())),
                    );
                    return Ok(Err(format!("not {} within {} s: {now}", wanted.name(), within.as_secs())));
                }
            }
        }
    }
}

/// A report in words, without the stream's id.
pub fn said(report: &ReportLine) -> String {
    format!("{}{}", report.state.name(), render::because(report.failure.as_ref()))
}

/// What arrived between two looks.
pub fn since(before: &Arrived, now: &Arrived) -> Arrived {
    Arrived {
        publications: now.publications - before.publications,
        pictures: now.pictures - before.pictures,
        key_frames: now.key_frames - before.key_frames,
        picture_bytes: now.picture_bytes - before.picture_bytes,
        sounds: now.sounds - before.sounds,
        sound_bytes: now.sound_bytes - before.sound_bytes,
        longest_gap: now.longest_gap,
    }
}
