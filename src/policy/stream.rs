//! The life of one stream (docs/architecture.md#a-streams-life): when to connect, what to report, when to give up.
//!
//! The camera is opened and the server connected at the same time. `streaming` is reported only while the camera runs
//! and the current publisher flows; after each camera outage that publisher must first report again that it flows.
//!
//! An *outage* lasts from the first loss, of camera or publisher, until the stream streams again. The first reason to
//! come decides, once, what ends a stream for good. Then the publisher is closed; once it is closed, or its time is
//! up, the terminal report and [`StreamAction::End`] follow. Nothing comes after them.

mod report;
mod words;

use std::time::Duration;

pub use words::{StreamAction, StreamEvent, StreamSettings};

use super::{
    Time,
    keep_alive::KeepAlive,
    retry::{self, Backoff, Class},
};
use crate::protocol::{Cause, Failure, StreamReport, StreamState};

/// How long the next publisher waits for the previous one to be closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// How long the end waits for the publisher to be closed.
const END_PATIENCE: Duration = Duration::from_secs(3);
/// A process that has just begun has no link yet. That counts as a lost link only after this time.
const FIRST_LINK: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
enum Camera {
    /// Being opened; nothing known yet.
    Opening,
    Running,
    /// Lost since this time.
    Lost(Time),
}

#[derive(Clone, Copy, Debug)]
enum Publisher {
    /// `flowing`: the publisher has said so since the camera was last lost.
    Open {
        attempt: u32,
        flowing: bool,
    },
    /// Asked to close, or closing by itself; assumed gone at `until`.
    Closing {
        attempt: u32,
        until: Time,
    },
    None,
}

#[derive(Clone, Debug)]
struct Outage {
    failure: Failure,
    /// The retry that is under way or comes next.
    retry: u32,
    /// Whether that retry was made.
    tried: bool,
    /// The delay reported for that retry.
    retry_in: Option<Duration>,
}

#[derive(Clone, Debug)]
enum Life {
    Alive,
    Ending { state: StreamState, failure: Failure },
    Ended { failure: Failure },
}

impl Outage {
    fn new(failure: Failure) -> Self {
        Self { failure, retry: 1, tried: false, retry_in: None }
    }
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    settings: StreamSettings,
    life: Life,
    camera: Camera,
    publisher: Publisher,
    /// Number of the latest publisher.
    attempt: u32,
    /// When the next publisher is opened, if camera and previous publisher permit.
    open_at: Option<Time>,
    outage: Option<Outage>,
    backoff: Backoff,
    /// When media last went through, or the stream began.
    media_at: Time,
    first_streaming: Option<Time>,
    /// Streaming, now or last, followed an outage that took this many retries.
    reconnected: Option<u32>,
    /// The first rejection of the key since media last went through.
    rejected_at: Option<Time>,
    /// Like `rejected_at`, for `StreamExists`.
    exists_since: Option<Time>,
    keep_alive: Option<KeepAlive>,
    link_lost_at: Option<Time>,
    /// The link that started the stream was not up yet; it may come until then.
    link_due: Option<Time>,
    reported: StreamReport,
}

impl Stream {
    /// A stream that begins at `now`, and its first actions. The caller opens the camera.
    pub fn new(settings: StreamSettings, now: Time) -> (Self, Vec<StreamAction>) {
        let keep_alive = settings.keep_alive_timeout.filter(|_| settings.stop_on_keep_alive_loss).map(KeepAlive::new);
        let mut stream = Self {
            life: Life::Alive,
            camera: Camera::Opening,
            publisher: Publisher::None,
            attempt: 0,
            open_at: Some(now),
            outage: settings.resumed.then(|| Outage::new(Cause::DaemonRestarted.into())),
            backoff: Backoff::new(settings.seed),
            media_at: now,
            first_streaming: settings.resumed.then_some(now),
            reconnected: None,
            rejected_at: None,
            exists_since: None,
            keep_alive,
            link_lost_at: None,
            link_due: settings.resumed.then(|| now.saturating_add(FIRST_LINK)),
            reported: StreamReport::new(StreamState::Initializing, None),
            settings,
        };
        stream.reported = stream.view();
        let mut actions = vec![StreamAction::Report(stream.reported.clone())];
        stream.proceed(now, &mut actions);
        (stream, actions)
    }

    /// Handles an event; returns the actions in order. None after the end.
    pub fn on(&mut self, event: StreamEvent, now: Time) -> Vec<StreamAction> {
        let mut actions = Vec::new();
        self.proceed(now, &mut actions);
        if self.alive() {
            self.take(event, now, &mut actions);
        } else if let StreamEvent::PublisherClosed { attempt } = event {
            self.publisher_closed(attempt);
        }
        self.proceed(now, &mut actions);
        actions
    }

    /// When a `Tick` is due.
    pub fn deadline(&self) -> Option<Time> {
        match self.life {
            Life::Alive => {
                let closing = match self.publisher {
                    Publisher::Closing { until, .. } => Some(until),
                    Publisher::Open { .. } | Publisher::None => None,
                };
                let open = self.open_at.filter(|_| self.may_open());
                let ends = self.ends().map(|end| end.map(|(at, _)| at));
                [closing, open, self.hold_until(), self.give_up_at()].into_iter().chain(ends).flatten().min()
            }
            Life::Ending { .. } => match self.publisher {
                Publisher::Closing { until, .. } => Some(until),
                Publisher::Open { .. } | Publisher::None => None,
            },
            Life::Ended { .. } => None,
        }
    }

    /// What was last reported.
    pub fn last_report(&self) -> &StreamReport {
        &self.reported
    }

    /// The state last reported.
    pub fn state(&self) -> StreamState {
        self.reported.state
    }

    /// Why the stream reconnects, ends or has ended.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.life {
            Life::Alive => self.outage.as_ref().map(|outage| &outage.failure),
            Life::Ending { failure, .. } | Life::Ended { failure } => Some(failure),
        }
    }

    /// How long the stream would live on without a keep-alive; `None` while that does not end it.
    pub fn keep_alive_left(&self, now: Time) -> Option<Duration> {
        Some(self.keep_alive.as_ref()?.deadline()?.saturating_sub(now))
    }

    /// What is left of the stream's duration, if that is limited.
    pub fn duration_left(&self, now: Time) -> Option<Duration> {
        let since = self.first_streaming.unwrap_or(now);
        self.settings.duration_limit.map(|limit| limit.saturating_sub(now.saturating_sub(since)))
    }

    /// How long it has been streaming without an interruption.
    pub fn streaming_for(&self, now: Time) -> Option<Duration> {
        self.streaming().then(|| now.saturating_sub(self.media_at))
    }

    /// The number of the retry in this outage, from 1; 0 outside of outages.
    pub fn attempt(&self) -> u32 {
        self.outage.as_ref().map_or(0, |outage| outage.retry)
    }

    fn alive(&self) -> bool {
        matches!(self.life, Life::Alive)
    }

    fn take(&mut self, event: StreamEvent, now: Time, actions: &mut Vec<StreamAction>) {
        let was_streaming = self.streaming();
        match event {
            StreamEvent::CameraRunning => self.camera_running(now),
            StreamEvent::CameraLost(failure) => self.camera_lost(failure, now),
            StreamEvent::CameraFailed(failure) => self.end(StreamState::Error, failure, now, actions),
            StreamEvent::PublisherFlowing { attempt } => self.publisher_flowing(attempt),
            StreamEvent::PublisherLost { attempt, failure } => self.publisher_lost(attempt, failure, now, actions),
            StreamEvent::PublisherClosed { attempt } => {
                // Closed without a request and without a reported loss: still a loss.
                self.publisher_lost(attempt, Cause::Internal.into(), now, actions);
                self.publisher_closed(attempt);
            }
            StreamEvent::KeepAlive => {
                if let Some(clock) = &mut self.keep_alive {
                    clock.heard(now);
                }
            }
            StreamEvent::LinkUp => self.link_up(now),
            StreamEvent::LinkDown => self.link_down(now),
            StreamEvent::Stop(cause) => self.stop(cause, now, actions),
            StreamEvent::Tick => {}
        }
        match (was_streaming, self.streaming()) {
            (false, true) => self.streaming_began(now),
            (true, false) => self.streaming_ended(now),
            _ => {}
        }
    }

    // Camera.

    fn camera_running(&mut self, now: Time) {
        self.camera = Camera::Running;
        // The publisher was closed when the hold ended.
        if matches!(self.publisher, Publisher::Closing { .. } | Publisher::None) {
            self.open_at.get_or_insert(now);
        }
    }

    fn camera_lost(&mut self, failure: Failure, now: Time) {
        if !matches!(self.camera, Camera::Lost(_)) {
            self.camera = Camera::Lost(now);
        }
        if let Publisher::Open { flowing, .. } = &mut self.publisher {
            *flowing = false;
        }
        let outage = self.outage.get_or_insert_with(|| Outage::new(failure.clone()));
        // A failure that differs only in its words, such as a counter in them, is not news.
        if (outage.failure.cause, &outage.failure.owner) != (failure.cause, &failure.owner) {
            outage.failure = failure;
        }
        outage.retry_in = None;
    }

    fn hold_until(&self) -> Option<Time> {
        match (self.camera, self.publisher) {
            (Camera::Lost(since), Publisher::Open { .. }) => Some(since.saturating_add(self.settings.camera_hold)),
            _ => None,
        }
    }

    // Publisher.

    fn publisher_flowing(&mut self, which: u32) {
        // Also while the camera counts as lost: its frames may have overtaken the event that it runs again.
        if let Publisher::Open { attempt, flowing } = &mut self.publisher
            && *attempt == which
        {
            *flowing = true;
        }
    }

    fn publisher_lost(&mut self, which: u32, failure: Failure, now: Time, actions: &mut Vec<StreamAction>) {
        match self.publisher {
            Publisher::Open { attempt, .. } if attempt == which => {}
            _ => return,
        }
        self.publisher = Publisher::Closing { attempt: which, until: now.saturating_add(CLOSE_PATIENCE) };
        // The streaming period that the back-off looks at ends here.
        let delay = self.backoff.lost(now);
        let delay = match retry::class(failure.cause) {
            Class::Fatal => return self.end(StreamState::Error, failure, now, actions),
            Class::Rejected => {
                let first = *self.rejected_at.get_or_insert(now);
                if now.saturating_sub(first) >= retry::REJECTED_DELAY {
                    return self.end(StreamState::Error, failure, now, actions);
                }
                retry::REJECTED_DELAY
            }
            Class::StreamExists => {
                self.exists_since.get_or_insert(now);
                retry::STREAM_EXISTS_DELAY
            }
            Class::Retry | Class::Camera => delay,
        };
        self.open_at = Some(now.saturating_add(delay));
        let outage = self.outage.get_or_insert_with(|| Outage::new(failure.clone()));
        if std::mem::take(&mut outage.tried) {
            outage.retry = outage.retry.saturating_add(1);
        }
        // While the camera is gone, the stream waits for the camera.
        if !matches!(self.camera, Camera::Lost(_)) {
            outage.failure = failure;
            outage.retry_in = Some(delay);
        }
    }

    fn publisher_closed(&mut self, which: u32) {
        if let Publisher::Closing { attempt, .. } = self.publisher
            && attempt == which
        {
            self.publisher = Publisher::None;
        }
    }

    fn may_open(&self) -> bool {
        matches!(self.publisher, Publisher::None) && !matches!(self.camera, Camera::Lost(_))
    }

    /// Asks an open publisher to close, and waits for that no longer than `patience`.
    fn close_publisher(&mut self, patience: Duration, now: Time, actions: &mut Vec<StreamAction>) {
        if let Publisher::Open { attempt, .. } = self.publisher {
            self.publisher = Publisher::Closing { attempt, until: now.saturating_add(patience) };
            actions.push(StreamAction::ClosePublisher { attempt });
        }
    }

    // Streaming.

    fn streaming(&self) -> bool {
        self.alive()
            && matches!((self.camera, self.publisher), (Camera::Running, Publisher::Open { flowing: true, .. }))
    }

    fn streaming_began(&mut self, now: Time) {
        let retries = self.outage.take().map_or(0, |outage| outage.retry - u32::from(!outage.tried));
        self.rejected_at = None;
        self.exists_since = None;
        self.media_at = now;
        self.reconnected = self.first_streaming.map(|_| retries);
        self.first_streaming.get_or_insert(now);
        self.backoff.streaming(now);
        if let Some(clock) = &mut self.keep_alive {
            clock.start(now);
        }
    }

    fn streaming_ended(&mut self, now: Time) {
        self.media_at = now;
        if let Some(clock) = &mut self.keep_alive {
            clock.stop();
        }
    }

    // Link.

    fn link_down(&mut self, now: Time) {
        if self.settings.link_loss_grace.is_none() || self.link_lost_at.is_some() {
            return;
        }
        self.link_lost_at = Some(self.link_due.map_or(now, |due| due.max(now)));
        if let Some(clock) = &mut self.keep_alive {
            clock.link_down(now);
        }
    }

    fn link_up(&mut self, now: Time) {
        self.link_due = None;
        if self.link_lost_at.take().is_some()
            && let Some(clock) = &mut self.keep_alive
        {
            clock.link_up(now);
        }
    }

    // The end.

    /// When and why the stream ends if nothing changes.
    fn ends(&self) -> [Option<(Time, Cause)>; 3] {
        let sum = |at: Option<Time>, after: Option<Duration>| Some(at?.saturating_add(after?));
        [
            sum(self.first_streaming, self.settings.duration_limit).map(|at| (at, Cause::DurationOver)),
            sum(self.link_lost_at, self.settings.link_loss_grace).map(|at| (at, Cause::LinkLost)),
            self.keep_alive.as_ref().and_then(KeepAlive::deadline).map(|at| (at, Cause::KeepAliveTimeout)),
        ]
    }

    fn give_up_at(&self) -> Option<Time> {
        if self.streaming() {
            return None;
        }
        let class = self.outage.as_ref().map(|outage| retry::class(outage.failure.cause));
        match (class, self.exists_since) {
            (Some(Class::StreamExists), Some(since)) => Some(since.saturating_add(retry::STREAM_EXISTS_BUDGET)),
            _ => self.settings.give_up_after.map(|after| self.media_at.saturating_add(after)),
        }
    }

    fn stop(&mut self, cause: Cause, now: Time, actions: &mut Vec<StreamAction>) {
        let state = match cause {
            Cause::Requested
            | Cause::Replaced
            | Cause::Preempted
            | Cause::DurationOver
            | Cause::Shutdown
            | Cause::HolderGone => StreamState::Stopped,
            _ => StreamState::Error,
        };
        self.say(StreamReport::new(StreamState::Stopping, Some(cause.into())), actions);
        self.end(state, cause.into(), now, actions);
    }

    fn end(&mut self, state: StreamState, failure: Failure, now: Time, actions: &mut Vec<StreamAction>) {
        self.life = Life::Ending { state, failure };
        self.outage = None;
        self.close_publisher(END_PATIENCE, now, actions);
    }

    // What follows from time and events.

    /// Does what is due at `now` and reports what changed.
    fn proceed(&mut self, now: Time, actions: &mut Vec<StreamAction>) {
        if let Publisher::Closing { until, .. } = self.publisher
            && now >= until
        {
            self.publisher = Publisher::None;
        }
        if self.alive() {
            self.end_if_due(now, actions);
        }
        if self.alive() {
            if self.hold_until().is_some_and(|until| now >= until) {
                self.close_publisher(CLOSE_PATIENCE, now, actions);
            }
            if self.may_open() && self.open_at.is_some_and(|at| now >= at) {
                self.open_at = None;
                self.attempt += 1;
                self.publisher = Publisher::Open { attempt: self.attempt, flowing: false };
                if let Some(outage) = &mut self.outage {
                    outage.tried = true;
                }
                actions.push(StreamAction::OpenPublisher { attempt: self.attempt });
            }
            let view = self.view();
            self.say(view, actions);
        }
        if let Life::Ending { state, failure } = &self.life
            && matches!(self.publisher, Publisher::None)
        {
            let (state, failure) = (*state, failure.clone());
            self.life = Life::Ended { failure: failure.clone() };
            self.say(StreamReport::new(state, Some(failure.clone())), actions);
            actions.push(StreamAction::End { state, failure });
        }
    }

    fn end_if_due(&mut self, now: Time, actions: &mut Vec<StreamAction>) {
        // The earliest, if several are due because a Tick came late.
        let due = self.ends().into_iter().flatten().filter(|&(at, _)| now >= at).min_by_key(|&(at, _)| at);
        if let Some((_, cause)) = due {
            self.stop(cause, now, actions);
        } else if self.give_up_at().is_some_and(|at| now >= at) {
            let failure = match (self.outage.take(), self.camera) {
                (Some(outage), _) => outage.failure,
                // Nobody reported a fault: neither frames nor a report came.
                (None, Camera::Running) => Cause::HandshakeTimeout.into(),
                (None, _) => Cause::CameraStalled.into(),
            };
            self.end(StreamState::Error, failure, now, actions);
        }
    }
}

#[cfg(test)]
mod tests;
