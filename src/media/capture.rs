//! One opening of camera and microphone, from the first picture to the last, with a deadline on every stage.
//!
//! The task here owns both pipelines. It reports `Running` on the first encoded picture and `Lost` when a stage fails
//! or falls silent. It reopens only the sound, whose loss concerns nobody else.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::audio::{AudioPipeline, AudioSource};
use super::failure;
use super::feed::Feed;
use super::memory;
use super::source::VideoSource;
use super::video::{Counters, LeftBehind, Progress, VideoPipeline, VideoPlan};
use crate::camera::Signal;
use crate::policy::bitrate::Decision;
use crate::protocol::{AudioSettings, Cause, Failure};

/// Limit for a camera to wake up.
const FIRST_PICTURE_LIMIT: Duration = Duration::from_secs(3);
/// Longest gap between pictures of a running camera; ten a second is the least that can be requested.
const NEXT_PICTURE_LIMIT: Duration = Duration::from_secs(1);
/// An encoder counts as given up when it has been silent this much longer than its input.
const ONE_AFTER_THE_OTHER: Duration = Duration::from_millis(20);
/// Limit after the camera's first picture: encoders hold a few back.
const FIRST_ENCODED_LIMIT: Duration = Duration::from_secs(3);
/// Longest gap between encoded pictures while the camera runs.
const NEXT_ENCODED_LIMIT: Duration = Duration::from_millis(1500);
/// Added to that limit where pictures are left out on purpose; at least one a second is encoded.
const LEFT_OUT: Duration = Duration::from_secs(1);
/// Period over which a hardware encoder must keep up with the camera.
const PACE_WINDOW: Duration = Duration::from_millis(1200);
/// Share of the camera's pictures that it must encode in that period.
const PACE_PERCENT: u64 = 60;
/// Interval between checks of the stages.
const SAMPLING: Duration = Duration::from_millis(100);
/// Interval between checks of the signal at the camera's input.
const SIGNAL_SAMPLING: Duration = Duration::from_millis(500);
/// Limit for a microphone to open.
const AUDIO_OPENING_LIMIT: Duration = Duration::from_secs(5);
/// Delay between attempts to reopen the microphone.
const AUDIO_RETRY: Duration = Duration::from_secs(2);
/// Limit for the sound to end; its pipeline has a limit of its own.
const AUDIO_END_LIMIT: Duration = Duration::from_secs(3);

/// What to open.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Source and settings of the pictures.
    pub video: VideoPlan,
    /// Source and settings of the sound, if there is any.
    pub audio: Option<(AudioSource, AudioSettings)>,
}

/// What happens to a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureEvent {
    /// The first encoded picture is there.
    Running,
    /// A stage failed or fell silent; `Closed` follows.
    Lost(Failure),
    /// A pipeline would not end. `Closed` follows once the camera is free nevertheless, which may be never.
    LeftBehind,
    /// Camera and microphone are free. The last event.
    Closed,
}

/// An open capture.
#[derive(Debug)]
pub struct Capture {
    /// `None` once it must close.
    commands: Option<mpsc::Sender<Command>>,
    shown: Arc<Mutex<Shown>>,
    task: JoinHandle<()>,
}

enum Command {
    Photo(oneshot::Sender<Result<Vec<u8>, Failure>>),
    Encode(Decision),
}

/// The part of a capture that the status shows.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The plan, once it has been settled.
    pub plan: Option<Plan>,
    /// Whether sound is being captured.
    pub sound: bool,
    progress: Option<Arc<Progress>>,
    /// Counts of earlier openings, if there was more than one.
    before: Counters,
}

impl Shown {
    /// Encoded pictures so far.
    pub fn pictures(&self) -> u64 {
        self.progress.as_ref().map_or(0, |progress| progress.encoded())
    }

    /// Counts so far.
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
    /// Opens what `plan` resolves to. Its events are tagged with `generation`.
    pub fn open<P>(generation: u64, plan: P, feed: Arc<Feed>, events: mpsc::Sender<(u64, CaptureEvent)>) -> Self
    where
        P: Future<Output = Result<Plan, Failure>> + Send + 'static,
    {
        let (commands, receiver) = mpsc::channel(8);
        let shown = Arc::new(Mutex::new(Shown::default()));
        let task = tokio::spawn(run(generation, plan, feed, events, receiver, shown.clone()));
        Self { commands: Some(commands), shown, task }
    }

    /// Takes a picture as JPEG, or says why it cannot. The receiver fails if the capture ends first, or if too many
    /// photos are already waiting.
    pub fn photo(&self) -> oneshot::Receiver<Result<Vec<u8>, Failure>> {
        let (sender, receiver) = oneshot::channel();
        self.command(Command::Photo(sender)); // a dropped sender tells the receiver
        receiver
    }

    /// Changes what the encoder makes.
    pub fn encode(&self, what: Decision) {
        self.command(Command::Encode(what)); // a capture that ends needs none
    }

    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _ = commands.try_send(command);
        }
    }

    /// Ends the capture; `Closed` follows. A second call changes nothing.
    pub fn close(&mut self) {
        drop(self.commands.take()); // the dropped sender is the message, which no full queue can lose
    }

    /// The state to show.
    pub fn shown(&self) -> Shown {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end, no longer than `limit`; a driver that hangs is left to its thread.
    pub async fn join(mut self, limit: Duration) {
        self.close();
        let _ = tokio::time::timeout(limit, self.task).await;
    }
}

async fn run<P>(
    generation: u64,
    plan: P,
    feed: Arc<Feed>,
    events: mpsc::Sender<(u64, CaptureEvent)>,
    mut commands: mpsc::Receiver<Command>,
    shown: Arc<Mutex<Shown>>,
) where
    P: Future<Output = Result<Plan, Failure>>,
{
    let mut left_behind = None;
    if let Err(failure) = capture(generation, plan, &feed, &events, &mut commands, &shown, &mut left_behind).await {
        tracing::warn!(generation, cause = %failure.cause, %failure, "capture lost");
        let _ = events.send((generation, CaptureEvent::Lost(failure))).await; // nobody listens while the daemon ends
    }
    if let Some(left_behind) = left_behind {
        let _ = events.send((generation, CaptureEvent::LeftBehind)).await;
        // Until then the camera may still see, so it counts as open. Only the watchdog sets a deadline: nothing else
        // would help.
        left_behind.camera_free().await;
    }
    let _ = tokio::task::spawn_blocking(memory::give_back).await;
    let _ = events.send((generation, CaptureEvent::Closed)).await;
}

async fn capture<P>(
    generation: u64,
    plan: P,
    feed: &Arc<Feed>,
    events: &mpsc::Sender<(u64, CaptureEvent)>,
    commands: &mut mpsc::Receiver<Command>,
    shown: &Arc<Mutex<Shown>>,
    left_behind: &mut Option<LeftBehind>,
) -> Result<(), Failure>
where
    P: Future<Output = Result<Plan, Failure>>,
{
    let mut plan = plan.await?;
    loop {
        let outcome = opening(generation, &plan, feed, events, commands, shown, left_behind).await;
        let nothing_came = shown.lock().unwrap_or_else(PoisonError::into_inner).pictures() == 0;
        match outcome {
            Err(failure) if nothing_came && plan.video.source.is_zero_copy() => {
                tracing::warn!(generation, %failure, "camera and encoder do not share buffers here; copying from now on");
                plan.video.source.copy_from_now_on();
                if left_behind.is_some() {
                    return Err(failure); // it may keep the camera
                }
            }
            outcome => return outcome,
        }
    }
}

async fn opening(
    generation: u64,
    plan: &Plan,
    feed: &Arc<Feed>,
    events: &mpsc::Sender<(u64, CaptureEvent)>,
    commands: &mut mpsc::Receiver<Command>,
    shown: &Arc<Mutex<Shown>>,
    left_behind: &mut Option<LeftBehind>,
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
    let sound = plan.audio.clone().map(|(source, settings)| {
        let (name, feed) = (source.name().to_owned(), feed.clone());
        let open = move || AudioPipeline::new(&source, &settings, feed.clone());
        tokio::spawn(keep_sound(name, open, shown.clone(), stopped))
    });
    let can_be_slow = plan.video.profile.as_ref().is_some_and(|profile| profile.hardware);
    let outcome = tokio::select! {
        outcome = watch(generation, &mut video, can_be_slow, events, commands) => outcome,
        failure = signal_lost(&plan.video.source) => Err(failure),
    };
    drop(stop_sound);
    *left_behind = video.stop(&plan.video.source).await.err();
    if let Some(sound) = sound {
        let _ = tokio::time::timeout(AUDIO_END_LIMIT, sound).await; // by then it has nothing to do with the camera
    }
    outcome
}

async fn watch(
    generation: u64,
    video: &mut VideoPipeline,
    has_alternative: bool,
    events: &mpsc::Sender<(u64, CaptureEvent)>,
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
                None => return Ok(()),
            },
            Some(message) = video.errors.recv() => return Err(capture_failure(&message)),
            () = video.progress.first_encoded(), if !running => {
                running = true;
                let _ = events.send((generation, CaptureEvent::Running)).await;
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

/// Resolves when the camera's input loses its signal, which its pictures do not show; never resolves for a source that
/// has no signal to lose.
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
    // An encoder that gives up refuses further pictures and so silences the camera, shortly after itself.
    if camera_silent > camera_limit
        && progress.encoded() > 0
        && progress.encoder_silent() > progress.offers_silent() + ONE_AFTER_THE_OTHER
    {
        return Err(Failure::new(Cause::EncoderStalled, "the encoder stopped taking pictures"));
    }
    if camera_silent > camera_limit {
        return Err(Failure::new(Cause::CameraStalled, format!("no picture for {camera_limit:?}")));
    }
    let left_out = if progress.one_in() > 1 { LEFT_OUT } else { Duration::ZERO };
    let encoder_limit = if progress.encoded() == 0 { FIRST_ENCODED_LIMIT } else { NEXT_ENCODED_LIMIT + left_out };
    if progress.encoder_silent() > encoder_limit {
        return Err(Failure::new(Cause::EncoderStalled, format!("nothing encoded for {encoder_limit:?}")));
    }
    Ok(())
}

/// Whether a hardware encoder keeps up. Software has no better encoder to give way to; it drops pictures instead.
#[derive(Debug, Default)]
struct Pace {
    since: Option<std::time::Instant>,
    offered: u64,
    encoded: u64,
}

impl Pace {
    /// Judges each [`PACE_WINDOW`] as a whole.
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

/// Runs the microphone that `open` makes, reopening it whenever it fails, until told to stop.
async fn keep_sound(
    name: String,
    open: impl Fn() -> Result<AudioPipeline, Failure>,
    shown: Arc<Mutex<Shown>>,
    mut stop: oneshot::Receiver<()>,
) {
    let show = |sound: bool| shown.lock().unwrap_or_else(PoisonError::into_inner).sound = sound;
    loop {
        let mut hanging = None;
        let failure = match open() {
            Ok(mut microphone) => {
                let failure = tokio::select! {
                    failure = hear(&mut microphone, show) => Some(failure),
                    _ = &mut stop => None,
                };
                show(false);
                hanging = microphone.stop().await.err();
                failure
            }
            Err(failure) => Some(failure),
        };
        let Some(failure) = failure else { return };
        tracing::warn!(source = name, cause = %failure.cause, %failure, retry_in = ?AUDIO_RETRY, "no sound");
        let retry = async {
            // Until the driver comes back, each further attempt would add its threads to those that hang.
            if let Some(hanging) = hanging {
                let _ = hanging.await;
            }
            tokio::time::sleep(AUDIO_RETRY).await;
        };
        tokio::select! {
            () = retry => {}
            _ = &mut stop => return,
        }
    }
}

/// Starts the microphone and waits until it fails.
async fn hear(microphone: &mut AudioPipeline, show: impl Fn(bool)) -> Failure {
    match tokio::time::timeout(AUDIO_OPENING_LIMIT, microphone.start()).await {
        Ok(Ok(())) => show(true),
        Ok(Err(failure)) => return failure,
        Err(_) => return Failure::new(Cause::AudioFailed, format!("did not open within {AUDIO_OPENING_LIMIT:?}")),
    }
    match microphone.errors.recv().await {
        Some(message) => capture_failure(&message),
        None => Failure::new(Cause::AudioFailed, "it ended without an error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::profile;
    use crate::media::source::Rotation;
    use crate::policy::bitrate::Pictures;
    use crate::protocol::VideoSettings;

    #[tokio::test]
    async fn it_closes_however_much_it_was_told_before() {
        crate::media::init().unwrap();
        let profile = profile::load(&[]).unwrap().into_iter().find(|profile| profile.name == "x264");
        let settings = VideoSettings { width: 320, height: 240, frame_rate: 30, bitrate: 500_000 };
        let source = VideoSource::Test { pattern: "ball".into() };
        let video = VideoPlan { source, settings, rotation: Rotation::None, profile };
        let (events, mut told) = mpsc::channel(8);
        let mut capture = Capture::open(1, async { Ok(Plan { video, audio: None }) }, Arc::default(), events);
        for bitrate in (100_000..500_000).step_by(10_000) {
            capture.encode(Decision { bitrate, pictures: Pictures::All });
        }
        capture.close();
        let closed = async { while told.recv().await.is_some_and(|(_, event)| event != CaptureEvent::Closed) {} };
        assert!(tokio::time::timeout(Duration::from_secs(10), closed).await.is_ok(), "it runs on");
    }

    #[tokio::test]
    async fn a_microphone_that_hangs_in_opening_does_not_keep_the_camera() {
        crate::media::init().unwrap();
        let (let_go, held) = std::sync::mpsc::channel();
        let held = Arc::new(Mutex::new(held));
        let (stop, stopped) = oneshot::channel();
        let open = move || Ok(AudioPipeline::hanging(held.clone()));
        let sound = tokio::spawn(keep_sound("hangs".into(), open, Arc::default(), stopped));
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(stop);
        let ended = tokio::time::timeout(AUDIO_END_LIMIT, sound).await;
        drop(let_go); // the threads that hang must end before the test can
        assert!(ended.is_ok(), "the capture's end waits for it");
    }

    /// The fault `now` milliseconds after the start, with pictures at these times; see [`Progress::at`].
    fn cause(now: u64, captured: &[u64], offered: &[u64], encoded: &[u64]) -> Option<Cause> {
        check_deadlines(&Progress::at(now, captured, offered, encoded)).err().map(|failure| failure.cause)
    }

    #[test]
    fn a_camera_that_stalls_is_not_the_encoders_fault() {
        assert_eq!(cause(2500, &[], &[], &[]), None);
        assert_eq!(cause(3100, &[], &[], &[]), Some(Cause::CameraStalled));
        // The previous picture was encoded; those after it were left out.
        assert_eq!(cause(3100, &[100, 2000], &[100, 1933], &[140, 1970]), Some(Cause::CameraStalled));
        // The camera encodes, and the parser keeps the latest picture until the next.
        assert_eq!(cause(3100, &[100, 2000], &[], &[140, 1967]), Some(Cause::CameraStalled));
        assert_eq!(cause(3100, &[100, 2900], &[100, 2833], &[140, 2870]), None);
    }

    #[test]
    fn an_encoder_that_refuses_pictures_is_at_fault_though_the_camera_stalls_behind_it() {
        assert_eq!(cause(3100, &[100, 2000], &[100, 2000], &[140, 1900]), Some(Cause::EncoderStalled));
        assert_eq!(cause(3100, &[100, 3090], &[100, 3090], &[140, 1500]), Some(Cause::EncoderStalled));
    }

    #[test]
    fn an_encoder_has_its_time_from_the_first_picture_of_a_camera_that_is_slow_to_wake_up() {
        assert_eq!(cause(3200, &[2900, 3190], &[2900, 3190], &[]), None);
        assert_eq!(cause(6000, &[2900, 5990], &[2900, 5990], &[]), Some(Cause::EncoderStalled));
    }
}
