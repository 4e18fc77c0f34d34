//! The life of the capture pipeline while somebody needs it: opened, closed after a linger, reopened after a loss.
//!
//! Each opening is a *generation*, counted up from 1. The next one is opened only when the former is closed: a V4L2
//! device has one user. What arrives for an older generation is ignored.
//!
//! A camera that somebody holds or forbids, or that cannot do what is asked, is told to the holder at once
//! (`Failed`): waiting would not help. Once it ran, or when there is none yet, it is worth coming back to (`Lost`,
//! reopened): after 100 ms, then x1.5 to at most 1 s, and at once when a device appears. A new node is the kernel's alone
//! until udev has given it to its group, so a forbidden one is tried again for a moment, in silence. Deadlines of the pipeline
//! itself (first frame, next frame, teardown) are the media side's; this machine waits for its word.

use std::time::Duration;

use super::Time;
use crate::protocol::{CameraState, Cause, Failure};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// A camera that ran this long has healed: its next loss begins with the first delay again.
const HEALED: Duration = Duration::from_secs(5);
/// udev's time to give a new node to its group.
const SETTLING: Duration = Duration::from_secs(3);

/// What happens to the camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A holder needs it. Answered with `Running` at once if it runs.
    Wanted,
    /// Nobody needs it any more.
    Unwanted {
        /// How long it stays open for the next holder.
        linger: Duration,
    },
    /// A fresh encoded frame of that generation. Only the first one matters.
    Running {
        /// Which opening.
        generation: u64,
    },
    /// That generation failed.
    Lost {
        /// Which opening.
        generation: u64,
        /// Why.
        failure: Failure,
    },
    /// The teardown of that generation is finished.
    Closed {
        /// Which opening.
        generation: u64,
    },
    /// Devices appeared or vanished.
    DevicesChanged,
    /// The deadline has come.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the capture pipeline.
    Open {
        /// Which opening.
        generation: u64,
    },
    /// Tear it down and say `Closed`.
    Close {
        /// Which opening.
        generation: u64,
    },
    /// Tell the holder: encoded frames arrive.
    Running,
    /// Tell the holder: they do not, and the camera is being tried again.
    Lost(Failure),
    /// Tell the holder: it cannot have the camera. It is not tried again until somebody wants it anew.
    Failed(Failure),
}

#[derive(Clone, Copy, Debug)]
enum Pipeline {
    /// Nothing is open. `reopen`: when to try again.
    Closed { reopen: Option<Time> },
    /// `since`: when its first frame came.
    Open { since: Option<Time> },
    /// Being torn down. `reopen`: not before that time.
    Closing { reopen: Time },
}

/// The camera machine.
#[derive(Debug)]
pub struct Camera {
    pipeline: Pipeline,
    generation: u64,
    wanted: bool,
    /// Nobody needs it, but it stays open until then.
    linger_until: Option<Time>,
    /// The holder's first opening is not over: neither has it run, nor was it lost.
    first_opening: bool,
    /// Until then a camera that is forbidden at the first opening may only be new.
    settles_until: Option<Time>,
    delay: Duration,
    failure: Option<Failure>,
}

impl Default for Camera {
    fn default() -> Self {
        Self::new()
    }
}

impl Camera {
    /// A camera that is closed and not needed.
    pub fn new() -> Self {
        Self {
            pipeline: Pipeline::Closed { reopen: None },
            generation: 0,
            wanted: false,
            linger_until: None,
            first_opening: false,
            settles_until: None,
            delay: FIRST_DELAY,
            failure: None,
        }
    }

    /// Takes an event; what is to be done about it, in this order.
    pub fn on(&mut self, event: Event, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Wanted => self.want(now, &mut actions),
            Event::Unwanted { linger } => self.unwant(now.saturating_add(linger)),
            Event::Running { generation } if generation == self.generation => self.running(now, &mut actions),
            Event::Lost { generation, failure } if generation == self.generation => {
                self.lost(failure, now, &mut actions);
            }
            Event::Closed { generation } if generation == self.generation => self.closed(now, &mut actions),
            Event::DevicesChanged => self.devices_changed(now),
            Event::Running { .. } | Event::Lost { .. } | Event::Closed { .. } | Event::Tick => {}
        }
        self.proceed(now, &mut actions);
        actions
    }

    /// When a `Tick` is due.
    pub fn deadline(&self) -> Option<Time> {
        match self.pipeline {
            Pipeline::Closed { reopen } => reopen,
            Pipeline::Open { .. } => self.linger_until,
            Pipeline::Closing { .. } => None,
        }
    }

    /// Which opening is the latest; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether somebody needs it and was not told that it cannot be had.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// What it is doing, as a status shows it.
    pub fn state(&self) -> CameraState {
        match self.pipeline {
            Pipeline::Open { since: Some(_) } => CameraState::Running,
            _ if self.failure.is_some() => CameraState::Lost,
            Pipeline::Open { since: None } => CameraState::Opening,
            Pipeline::Closed { .. } | Pipeline::Closing { .. } if self.wanted => CameraState::Opening,
            Pipeline::Closed { .. } | Pipeline::Closing { .. } => CameraState::Closed,
        }
    }

    /// Why it is lost, while it is.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn want(&mut self, now: Time, actions: &mut Vec<Action>) {
        let fresh = !self.wanted;
        self.wanted = true;
        self.linger_until = None;
        match self.pipeline {
            Pipeline::Open { since: Some(_) } => actions.push(Action::Running),
            // A holder that joins an outage must know of it.
            _ if !fresh => actions.extend(self.failure.clone().map(Action::Lost)),
            Pipeline::Closed { .. } => {
                self.first_opening = true;
                self.pipeline = Pipeline::Closed { reopen: Some(now) };
            }
            Pipeline::Open { since: None } => self.first_opening = true,
            Pipeline::Closing { .. } => {
                self.first_opening = true;
                self.pipeline = Pipeline::Closing { reopen: now };
            }
        }
        if fresh {
            self.settles_until = None;
            self.failure = None;
            self.delay = FIRST_DELAY;
        }
    }

    fn unwant(&mut self, until: Time) {
        self.wanted = false;
        self.first_opening = false;
        self.failure = None;
        match &mut self.pipeline {
            // The shorter linger holds: it may be a shutdown's.
            Pipeline::Open { .. } => {
                self.linger_until = Some(self.linger_until.map_or(until, |earlier| earlier.min(until)));
            }
            Pipeline::Closed { reopen } => *reopen = None,
            Pipeline::Closing { .. } => {}
        }
    }

    fn running(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let Pipeline::Open { since: since @ None } = &mut self.pipeline {
            *since = Some(now);
            self.first_opening = false;
            self.failure = None;
            if self.wanted {
                actions.push(Action::Running);
            }
        }
    }

    fn lost(&mut self, failure: Failure, now: Time, actions: &mut Vec<Action>) {
        let Pipeline::Open { since } = self.pipeline else { return };
        if since.is_some_and(|since| now.saturating_sub(since) >= HEALED) {
            self.delay = FIRST_DELAY;
        }
        self.pipeline = Pipeline::Closing { reopen: now.saturating_add(self.delay) };
        self.delay = self.delay.mul_f64(1.5).min(LONGEST_DELAY);
        self.linger_until = None;
        actions.push(Action::Close { generation: self.generation });
        let first_opening = std::mem::take(&mut self.first_opening);
        if !self.wanted {
            return;
        }
        let settles = first_opening
            && failure.cause == Cause::CameraForbidden
            && now < *self.settles_until.get_or_insert(now.saturating_add(SETTLING));
        if settles {
            self.first_opening = true;
        } else if first_opening && hopeless(failure.cause) {
            self.wanted = false;
            actions.push(Action::Failed(failure));
        } else {
            self.failure = Some(failure.clone());
            actions.push(Action::Lost(failure));
        }
    }

    fn closed(&mut self, now: Time, actions: &mut Vec<Action>) {
        // Closed without having been asked to and without a word before: a loss all the same.
        if let Pipeline::Open { .. } = self.pipeline {
            self.lost(Cause::Internal.into(), now, actions);
            actions.retain(|action| !matches!(action, Action::Close { .. }));
        }
        if let Pipeline::Closing { reopen } = self.pipeline {
            self.pipeline = Pipeline::Closed { reopen: self.wanted.then_some(reopen) };
        }
    }

    fn devices_changed(&mut self, now: Time) {
        // A device's nodes appear one by one: if this was too early, the next try is soon.
        match &mut self.pipeline {
            Pipeline::Closed { reopen: Some(reopen) } | Pipeline::Closing { reopen } if *reopen > now => {
                *reopen = now;
                self.delay = FIRST_DELAY;
            }
            _ => {}
        }
    }

    /// What is due at `now`.
    fn proceed(&mut self, now: Time, actions: &mut Vec<Action>) {
        match self.pipeline {
            Pipeline::Closed { reopen: Some(at) } if now >= at => {
                self.generation += 1;
                self.pipeline = Pipeline::Open { since: None };
                actions.push(Action::Open { generation: self.generation });
            }
            Pipeline::Open { .. } if self.linger_until.is_some_and(|until| now >= until) => {
                self.linger_until = None;
                self.pipeline = Pipeline::Closing { reopen: now };
                actions.push(Action::Close { generation: self.generation });
            }
            _ => {}
        }
    }
}

/// At a first opening, what trying again within a second does not change.
fn hopeless(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::CameraBusy
            | Cause::CameraForbidden
            | Cause::CameraFailed
            | Cause::EncoderFailed
            | Cause::PrivacyLedFailed
    )
}

#[cfg(test)]
mod tests;
