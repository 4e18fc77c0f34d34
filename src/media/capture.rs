//! One opening of camera and microphone, from the first picture to the last, with a deadline on every stage.
//!
//! The task here owns both pipelines. It says `Running` when the first encoded picture is there and `Lost` when a stage
//! fails or falls silent; it never reopens anything but the sound, whose loss is nobody else's business.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::audio::{AudioPipeline, AudioSource};
use super::failure::{self, Failure};
use super::feed::Feed;
use super::memory;
use super::source::VideoSource;
use super::video::{Counters, Progress, VideoPipeline, VideoPlan};
use crate::camera::Signal;
use crate::policy::bitrate::Decision;
use crate::protocol::{AudioSettings, Cause};

/// A camera may take its time to wake up, but not more.
const FIRST_PICTURE_LIMIT: Duration = Duration::from_secs(3);
/// A running camera gives pictures; ten a second is the least that can be asked of it.
const NEXT_PICTURE_LIMIT: Duration = Duration::from_secs(1);
/// By so much longer is an encoder silent that gave up by itself than the camera behind which it stopped.
const ONE_AFTER_THE_OTHER: Duration = Duration::from_millis(20);
/// Encoders hold a few pictures back at first.
const FIRST_ENCODED_LIMIT: Duration = Duration::from_secs(3);
/// Behind a running camera.
const NEXT_ENCODED_LIMIT: Duration = Duration::from_millis(1500);
/// More than that where pictures are left out on purpose; at least one a second is encoded.
const LEFT_OUT: Duration = Duration::from_secs(1);
/// Over this time a hardware encoder must keep up with the camera,
const PACE_WINDOW: Duration = Duration::from_millis(1200);
/// at least by this much.
const PACE_PERCENT: u64 = 60;
/// How often the stages are looked at.
const SAMPLING: Duration = Duration::from_millis(100);
/// How often the camera's input is asked for its signal.
const SIGNAL_SAMPLING: Duration = Duration::from_millis(500);
/// Between attempts to open the microphone again.
const AUDIO_RETRY: Duration = Duration::from_secs(2);

/// What is to be opened.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pictures.
    pub video: VideoPlan,
    /// Where sound comes from and what it is to be like, if there is to be any.
    pub audio: Option<(AudioSource, AudioSettings)>,
}

/// What happens to a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first encoded picture is there.
    Running,
    /// A stage failed or fell silent; `Closed` follows.
    Lost(Failure),
    /// It ends, but its pipeline would not, and may keep the camera.
    LeftBehind,
    /// Camera and microphone are free. The last event.
    Closed,
}

/// An open capture.
#[derive(Debug)]
pub struct Capture {
    commands: mpsc::Sender<Command>,
    shown: Arc<Mutex<Shown>>,
    task: JoinHandle<()>,
}

enum Command {
    Photo(oneshot::Sender<Vec<u8>>),
    Encode(Decision),
    Close,
}

/// What the status shows of a capture.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// What was opened, once that is settled.
    pub plan: Option<Plan>,
    /// Whether sound is being captured.
    pub sound: bool,
    progress: Option<Arc<Progress>>,
    /// Of an opening before, where it took more than one.
    before: Counters,
}

impl Shown {
    /// Encoded pictures so far.
    pub fn pictures(&self) -> u64 {
        self.progress.as_ref().map_or(0, |progress| progress.encoded())
    }

    /// What went through so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.before;
        counters += self.progress.as_ref().map(|progress| progress.counters()).unwrap_or_default();
        counters
    }

    /// Time since the camera gave a picture, once it is open.
    pub fn camera_silent(&self) -> Option<Duration> {
        self.progress.as_ref().map(|progress| progress.camera_silent())
    }
}

impl Capture {
    /// Opens what `plan` comes to. Its events come tagged with `generation`.
    pub fn open<P>(generation: u64, plan: P, feed: Arc<Feed>, events: mpsc::Sender<(u64, Event)>) -> Self
    where
        P: Future<Output = Result<Plan, Failure>> + Send + 'static,
    {
        let (commands, receiver) = mpsc::channel(8);
        let shown = Arc::new(Mutex::new(Shown::default()));
        let task = tokio::spawn(run(generation, plan, feed, events, receiver, shown.clone()));
        Self { commands, shown, task }
    }

    /// Takes a picture as JPEG. The receiver fails if the capture ends before, or too many photos are waited for.
    pub fn photo(&self) -> oneshot::Receiver<Vec<u8>> {
        let (sender, receiver) = oneshot::channel();
        let _ = self.commands.try_send(Command::Photo(sender)); // a dropped sender tells the receiver
        receiver
    }

    /// Changes what the encoder makes.
    pub fn encode(&self, what: Decision) {
        let _ = self.commands.try_send(Command::Encode(what)); // a capture that ends needs none
    }

    /// Ends it; `Closed` follows.
    pub fn close(&self) {
        let _ = self.commands.try_send(Command::Close);
    }

    /// What there is to show.
    pub fn shown(&self) -> Shown {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end.
    pub async fn join(self) {
        drop(self.commands);
        let _ = self.task.await;
    }
}

async fn run<P>(
    generation: u64,
    plan: P,
    feed: Arc<Feed>,
    events: mpsc::Sender<(u64, Event)>,
    mut commands: mpsc::Receiver<Command>,
    shown: Arc<Mutex<Shown>>,
) where
    P: Future<Output = Result<Plan, Failure>>,
{
    if let Err(failure) = capture(generation, plan, &feed, &events, &mut commands, &shown).await {
        tracing::warn!(generation, cause = %failure.cause, %failure, "capture lost");
        let _ = events.send((generation, Event::Lost(failure))).await; // nobody listens while the daemon ends
    }
    let _ = tokio::task::spawn_blocking(memory::give_back).await;
    let _ = events.send((generation, Event::Closed)).await;
}

async fn capture<P>(
    generation: u64,
    plan: P,
    feed: &Arc<Feed>,
    events: &mpsc::Sender<(u64, Event)>,
    commands: &mut mpsc::Receiver<Command>,
    shown: &Arc<Mutex<Shown>>,
) -> Result<(), Failure>
where
    P: Future<Output = Result<Plan, Failure>>,
{
    let mut plan = plan.await?;
    loop {
        let outcome = opening(generation, &plan, feed, events, commands, shown).await;
        let nothing_came = shown.lock().unwrap_or_else(PoisonError::into_inner).pictures() == 0;
        match outcome {
            Err(failure) if nothing_came && plan.video.source.is_zero_copy() => {
                tracing::warn!(generation, %failure, "camera and encoder do not share buffers here; copying from now on");
                plan.video.source.copy_from_now_on();
            }
            outcome => return outcome,
        }
    }
}

async fn opening(
    generation: u64,
    plan: &Plan,
    feed: &Arc<Feed>,
    events: &mpsc::Sender<(u64, Event)>,
    commands: &mut mpsc::Receiver<Command>,
    shown: &Arc<Mutex<Shown>>,
) -> Result<(), Failure> {
    tracing::info!(generation, source = ?plan.video.source, encoder = plan.video.encoder(), "opening camera");
    let mut video = VideoPipeline::start(&plan.video, feed.clone()).await?;
    {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.plan = Some(plan.clone());
        shown.before = shown.counters();
        shown.progress = Some(video.progress.clone());
    }
    let (stop_sound, stopped) = oneshot::channel();
    let sound = plan
        .audio
        .clone()
        .map(|(source, settings)| tokio::spawn(keep_sound(source, settings, feed.clone(), shown.clone(), stopped)));
    let can_be_slow = plan.video.profile.as_ref().is_some_and(|profile| profile.hardware);
    let outcome = tokio::select! {
        outcome = watch(generation, &mut video, can_be_slow, events, commands) => outcome,
        failure = signal_lost(&plan.video.source) => Err(failure),
    };
    drop(stop_sound);
    if !video.stop().await {
        let _ = events.send((generation, Event::LeftBehind)).await;
    }
    if let Some(sound) = sound {
        let _ = sound.await;
    }
    outcome
}

async fn watch(
    generation: u64,
    video: &mut VideoPipeline,
    has_alternative: bool,
    events: &mpsc::Sender<(u64, Event)>,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<(), Failure> {
    let mut running = false;
    let mut pace = Pace::default();
    let mut sampling = tokio::time::interval(SAMPLING);
    sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(Command::Photo(request)) => video.photo(request),
                Some(Command::Encode(what)) => {
                    let outcome = video.encode(what);
                    tracing::debug!(generation, bitrate = what.bitrate, pictures = ?what.pictures, ?outcome, "bitrate changed");
                }
                Some(Command::Close) | None => return Ok(()),
            },
            Some(message) = video.errors.recv() => return Err(capture_failure(&message)),
            () = video.progress.first_encoded(), if !running => {
                running = true;
                let _ = events.send((generation, Event::Running)).await;
            }
            _ = sampling.tick() => {
                check_deadlines(&video.progress)?;
                if has_alternative {
                    pace.check(&video.progress)?;
                }
            }
        }
    }
}

/// Ends when the camera's input has lost its signal: never where there is none to lose. Its pictures say nothing of it.
async fn signal_lost(source: &VideoSource) -> Failure {
    let Some(node) = source.node().map(Path::to_owned) else { return std::future::pending().await };
    let mut sampling = tokio::time::interval(SIGNAL_SAMPLING);
    sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut signal = tokio::task::spawn_blocking(move || Signal::of(&node)).await.ok().flatten();
    while let Some(asked) = signal {
        sampling.tick().await;
        let answer = tokio::task::spawn_blocking(move || asked.is_there().then_some(asked)).await;
        let Ok(answer) = answer else { break }; // a panic there is told elsewhere
        if answer.is_none() {
            return Failure::new(Cause::CameraNoSignal, format!("{} receives nothing", source.device()));
        }
        signal = answer;
    }
    std::future::pending().await
}

fn check_deadlines(progress: &Progress) -> Result<(), Failure> {
    let camera_limit = if progress.captured() == 0 { FIRST_PICTURE_LIMIT } else { NEXT_PICTURE_LIMIT };
    let camera_silent = progress.camera_silent();
    // An encoder that gives up refuses the camera's next pictures, and so silences it, after itself.
    if camera_silent > camera_limit
        && progress.encoded() > 0
        && progress.encoder_silent() > camera_silent + ONE_AFTER_THE_OTHER
    {
        return Err(Failure::new(Cause::EncoderStalled, "the encoder gave up"));
    }
    if camera_silent > camera_limit {
        return Err(Failure::new(Cause::CameraStalled, format!("no picture for {camera_limit:?}")));
    }
    let left_out = if progress.one_in() > 1 { LEFT_OUT } else { Duration::ZERO };
    let encoder_limit = if progress.encoded() == 0 { FIRST_ENCODED_LIMIT } else { NEXT_ENCODED_LIMIT + left_out };
    if progress.captured() > 0 && progress.encoder_silent() > encoder_limit {
        return Err(Failure::new(Cause::EncoderStalled, format!("nothing encoded for {encoder_limit:?}")));
    }
    Ok(())
}

/// Whether a hardware encoder keeps up. Software has no better to give way to, it drops pictures instead.
#[derive(Debug, Default)]
struct Pace {
    since: Option<std::time::Instant>,
    offered: u64,
    encoded: u64,
}

impl Pace {
    /// Looks at each [`PACE_WINDOW`] as a whole.
    fn check(&mut self, progress: &Progress) -> Result<(), Failure> {
        let since = *self.since.get_or_insert_with(std::time::Instant::now);
        if since.elapsed() < PACE_WINDOW {
            return Ok(());
        }
        let (offered, encoded) = (progress.offered() - self.offered, progress.encoded() - self.encoded);
        let began = self.encoded > 0;
        *self = Self { since: None, offered: progress.offered(), encoded: progress.encoded() };
        if began && offered >= 10 && encoded * 100 < offered * PACE_PERCENT {
            let detail = format!("encodes {encoded} of {offered} pictures in {PACE_WINDOW:?}");
            return Err(Failure::new(Cause::EncoderStalled, detail));
        }
        Ok(())
    }
}

fn capture_failure(message: &gst::Message) -> Failure {
    match message.view() {
        gst::MessageView::Error(error) => failure::of_capture(error),
        _ => Failure::new(Cause::CameraLost, "the camera ended the stream"),
    }
}

/// The microphone, opened again whenever it fails, until it is told to stop.
async fn keep_sound(
    source: AudioSource,
    settings: AudioSettings,
    feed: Arc<Feed>,
    shown: Arc<Mutex<Shown>>,
    mut stop: oneshot::Receiver<()>,
) {
    let show = |sound| shown.lock().unwrap_or_else(PoisonError::into_inner).sound = sound;
    loop {
        let failure = match AudioPipeline::start(&source, &settings, feed.clone()).await {
            Ok(mut running) => {
                show(true);
                let failure = tokio::select! {
                    message = running.errors.recv() => message.map(|message| capture_failure(&message)),
                    _ = &mut stop => None,
                };
                show(false);
                running.stop().await;
                failure
            }
            Err(failure) => Some(failure),
        };
        let Some(failure) = failure else { return };
        tracing::warn!(source = source.name(), cause = %failure.cause, %failure, retry_in = ?AUDIO_RETRY, "no sound");
        if tokio::time::timeout(AUDIO_RETRY, &mut stop).await.is_ok() {
            return;
        }
    }
}
