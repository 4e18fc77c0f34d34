//! `doctor --full`: a maker's acceptance run of a board.
//!
//! | module | what |
//! |---|---|
//! | `report`, `board` | the report and its file; the identity of the board |
//! | `live`, `stream`, `unplug`, `processor` | the daemon's stream to our own sink |
//! | `parts` | everything else, one part at a time: by the daemon, or by this process under a lease |
//!
//! The daemon owns the camera: it does what it can, and lends the camera for the rest. Nothing outlives the run: a lease ends
//! with its connection, and the stream is stopped by name.

mod board;
mod live;
mod parts;
mod processor;
mod report;
mod stream;
mod unplug;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lenscast::device::config::Encoder;
use lenscast::link::control_client::{Client, ClientError};
use lenscast::media::profile::{self, Profile};
use lenscast::protocol::VideoSettings;
use lenscast::protocol::control::{Checkup, Done, Lease, Request, Status, VideoWish};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::doctor::DoctorArguments;
use crate::failure::{FAILED_STEP, Failure, INTERRUPTED};
use crate::text::clean;
use crate::{ask, line};

use report::{Outcome, Report, Step};

/// The length of the run to which the durations below add up.
const USUAL_MINUTES: f64 = 10.0;
const STREAM: Duration = Duration::from_mins(5);
const EACH_MODE: Duration = Duration::from_secs(3);
const EACH_TARGET: Duration = Duration::from_secs(5);
const SOUND: Duration = Duration::from_secs(10);

/// Makes the run; returns the exit status.
pub async fn run(socket: &Path, file: &Path, wanted: &DoctorArguments) -> Result<u8, Failure> {
    let Status { state } = ask(socket, &Request::Status).await?;
    if let Some(stream) = &state.stream {
        let why = format!("the stream {} runs; stop it first", clean(&stream.stream_id));
        return Err(Failure::Other(why));
    }
    let unusable = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
    let folders = Encoder { profiles: wanted.profiles.clone(), ..Encoder::default() }.folders();
    let profiles = profile::load(&folders).map_err(|error| unusable(&error))?;
    lenscast::media::init_with(&profiles).map_err(|error| unusable(&error))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let devices = parts::look(board::nodes).await.unwrap_or_default();
    let report = Report::new(now, board::Board::look(&state.version), devices);
    report.write(file)?;

    let mut run = Run { socket, file, wanted, report };
    let listen = |kind| signal(kind).map_err(|error| Failure::Other(error.to_string()));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hang_up = listen(SignalKind::hangup())?;
    let outcome = tokio::select! {
        outcome = run.steps(profiles) => Some(outcome),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hang_up.recv() => None,
    };
    run.report.complete = matches!(outcome, Some(Ok(())));
    // A lease ends with its connection, but a stream does not end with ours.
    live::stop(socket).await;
    run.report.write(file)?;
    match outcome {
        None => {
            tell("");
            line(&format!("interrupted; what there was is in {}", file.display()))?;
            Ok(INTERRUPTED)
        }
        Some(Err(failure)) => Err(failure),
        Some(Ok(())) => run.sum_up(),
    }
}

struct Run<'a> {
    socket: &'a Path,
    file: &'a Path,
    wanted: &'a DoctorArguments,
    report: Report,
}

impl Run<'_> {
    async fn steps(&mut self, profiles: Vec<Profile>) -> Result<(), Failure> {
        let DoctorArguments { width, height, fps, bitrate, minutes, .. } = *self.wanted;
        let share = minutes / USUAL_MINUTES;
        // A shorter measurement tells nothing.
        let short = |usual: Duration| usual.mul_f64(share).clamp(Duration::from_secs(1), usual);
        let video =
            VideoWish { width: Some(width), height: Some(height), bitrate: Some(bitrate), frame_rate: Some(fps) };

        tell("findings: every encoder is tried");
        let Checkup { lines } = ask(self.socket, &Request::Doctor).await?;
        self.report.set_findings(lines);
        let step = report::of_findings(&self.report.findings);
        self.add(step)?;

        tell("photo");
        let step = parts::photo(self.socket).await;
        self.add(step)?;

        let device = self.camera().await;
        if let Some(why) = unplug::why_not(self.wanted.no_unplug, device.as_deref().unwrap_or_default()) {
            self.add(Step::skipped("unplug", why))?;
        } else {
            tell("");
            let step = unplug::run(self.socket, video).await?;
            self.add(step)?;
        }

        let time = STREAM.mul_f64(share);
        tell(&format!("stream: {} s", time.as_secs()));
        let (step, samples, microphone) = stream::run(self.socket, video, time, &mut tell).await?;
        self.report.samples = samples;
        self.add(step)?;

        tell("sound");
        let step = parts::sound(microphone.as_deref(), short(SOUND)).await;
        self.add(step)?;

        let asked = VideoSettings { width, height, bitrate, frame_rate: fps };
        // The lease is held until the last encoder is done.
        let lease = self.lend().await;
        let camera = match &lease {
            Ok((_, device)) if device == "test" => {
                self.add(Step::skipped("camera modes", "the configuration asks for the test picture"))?;
                None
            }
            Ok((_, device)) => {
                let node = PathBuf::from(device);
                parts::camera_modes(&node, short(EACH_MODE), &mut |step| self.note(step)).await;
                Some(node)
            }
            Err(why) => {
                self.add(Step::failed("camera modes", why))?;
                None
            }
        };
        parts::encoders(profiles, camera, asked, short(EACH_TARGET), &mut |step| self.note(step)).await;
        self.report.write(self.file)
    }

    /// The camera, for as long as the connection is kept; or why not.
    async fn lend(&self) -> Result<(Client, String), String> {
        let lent = async {
            let mut client = Client::connect(self.socket).await?;
            let program = Some("lenscastctl doctor".to_owned());
            let Lease { device, .. } = client.call(&Request::CameraAcquire { program }).await?;
            Ok((client, device))
        };
        lent.await.map_err(|error: ClientError| error.to_string())
    }

    /// The camera that the daemon would lend.
    async fn camera(&self) -> Option<String> {
        let (mut client, device) = self.lend().await.ok()?;
        // Released, not only dropped: the next request must find the camera free.
        let Done {} = client.call(&Request::CameraRelease).await.ok()?;
        Some(device)
    }

    /// Shows the result of a step and writes it to the file.
    fn add(&mut self, step: Step) -> Result<(), Failure> {
        self.note(step);
        self.report.write(self.file)
    }

    fn note(&mut self, step: Step) {
        let (word, why) = match (step.outcome, step.reason.as_deref()) {
            (Outcome::Passed, _) => ("passed ", ""),
            (Outcome::Failed, why) => ("FAILED ", why.unwrap_or_default()),
            (Outcome::Skipped, why) => ("skipped", why.unwrap_or_default()),
        };
        tell("");
        let colon = if why.is_empty() { "" } else { ": " };
        // The step is in the report even if nobody reads standard output any more.
        let _ = line(&clean(&format!("{word}  {}{colon}{why}", step.name)));
        self.report.steps.push(step);
    }

    fn sum_up(&self) -> Result<u8, Failure> {
        let count = |outcome| self.report.steps.iter().filter(|step| step.outcome == outcome).count();
        let [passed, failed, skipped] = [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(count);
        line(&format!("{passed} passed, {failed} failed, {skipped} skipped; the report is {}", self.file.display()))?;
        Ok(if self.report.has_failed() { FAILED_STEP } else { 0 })
    }
}

/// Progress on a terminal. It replaces earlier progress; the result of the step replaces it.
fn tell(what: &str) {
    let mut aside = std::io::stderr();
    if aside.is_terminal() && std::io::stdout().is_terminal() {
        // Nothing can be reported when standard error is closed.
        let _ = write!(aside, "\r\x1b[K{}\r", clean(what)).and_then(|()| aside.flush());
    }
}
