//! The life of the capture pipeline, and the one owner of what is known of it. It is told who needs the camera and how;
//! it opens, closes after a linger, closes and opens anew for other settings, and reopens after a loss.
//!
//! Each opening is a *generation*, counted up from 1. The next one is opened only when the former is closed: a V4L2
//! device has one user. What arrives for an older generation is ignored.
//!
//! A camera that somebody holds or forbids, or that cannot do what is asked, is told to the holder at once
//! (`Failed`): waiting would not help, and it is not tried again for this holder. Once it ran, or when there is none yet, it
//! is worth coming back to (`Lost`, reopened): after 100 ms, then x1.5 to at most 1 s, and at once when a device appears. A
//! new node is the kernel's alone until udev has given it to its group, so a forbidden one is tried again for a moment, in
//! silence. Deadlines of the pipeline itself (first frame, next frame, teardown) are the media side's; this machine waits
//! for its word.

use std::time::Duration;

use super::Time;
use super::arbiter::LeaseId;
use crate::protocol::{AudioSettings, CameraState, Cause, Failure, VideoSettings};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// A camera that ran this long has healed: its next loss begins with the first delay again.
const HEALED: Duration = Duration::from_secs(5);
/// udev's time to give a new node to its group.
const SETTLING: Duration = Duration::from_secs(3);

/// What a capture is to be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureSettings {
    /// The picture.
    pub video: VideoSettings,
    /// The sound.
    pub audio: AudioSettings,
}

/// Who needs the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nobody: it closes when the last holder's linger is over.
    Nobody,
    /// Nobody, and another process or the end of this one waits for it: it closes at once.
    Closed,
    /// A holder of a lease.
    Holder(Holder),
}

/// Who needs the camera, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Each holder has another.
    pub lease: LeaseId,
    /// `None`: as it is open, else the default. With the same lease only its bitrate may change, which reopens nothing.
    pub settings: Option<CaptureSettings>,
    /// How long the camera stays open afterwards, for the next holder.
    pub linger: Duration,
}

/// What happens to the camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraEvent {
    /// Who needs it from now on. A new holder is answered with `Running` at once if it runs as wanted.
    Needed(Need),
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
pub enum CameraAction {
    /// Open the capture pipeline.
    Open {
        /// Which opening.
        generation: u64,
        /// How.
        settings: CaptureSettings,
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
    /// Tell the holder: it cannot have the camera. It is not tried again for this one.
    Failed(Failure),
}

#[derive(Clone, Copy, Debug)]
enum Pipeline {
    /// Nothing is open. `reopen`: when to try again.
    Closed { reopen: Option<Time> },
    /// `since`: when its first frame came.
    Open { settings: CaptureSettings, since: Option<Time> },
    /// Being torn down. `reopen`: not before that time.
    Closing { settings: CaptureSettings, reopen: Time },
}

/// The camera machine.
#[derive(Debug)]
pub struct Camera {
    pipeline: Pipeline,
    generation: u64,
    need: Need,
    /// The holder was told that it cannot have the camera.
    given_up: bool,
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
            need: Need::Nobody,
            given_up: false,
            linger_until: None,
            first_opening: false,
            settles_until: None,
            delay: FIRST_DELAY,
            failure: None,
        }
    }

    /// Takes an event; what is to be done about it, in this order.
    pub fn on(&mut self, event: CameraEvent, now: Time) -> Vec<CameraAction> {
        let mut actions = Vec::new();
        match event {
            CameraEvent::Needed(need) => self.needed(need, now, &mut actions),
            CameraEvent::Running { generation } if generation == self.generation => self.running(now, &mut actions),
            CameraEvent::Lost { generation, failure } if generation == self.generation => {
                self.lost(failure, now, &mut actions);
            }
            CameraEvent::Closed { generation } if generation == self.generation => self.closed(now, &mut actions),
            CameraEvent::DevicesChanged => self.devices_changed(now),
            CameraEvent::Running { .. } | CameraEvent::Lost { .. } | CameraEvent::Closed { .. } | CameraEvent::Tick => {
            }
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

    /// Whether a holder needs it and was not told that it cannot be had.
    pub fn is_wanted(&self) -> bool {
        matches!(self.need, Need::Holder(_)) && !self.given_up
    }

    /// Whether a generation is open, or not closed yet.
    pub fn is_open(&self) -> bool {
        !matches!(self.pipeline, Pipeline::Closed { .. })
    }

    /// Whether encoded frames arrive.
    pub fn is_running(&self) -> bool {
        matches!(self.pipeline, Pipeline::Open { since: Some(_), .. })
    }

    /// What it is doing, as a status shows it.
    pub fn state(&self) -> CameraState {
        match self.pipeline {
            Pipeline::Open { since: Some(_), .. } => CameraState::Running,
            _ if self.failure.is_some() => CameraState::Lost,
            Pipeline::Open { since: None, .. } => CameraState::Opening,
            Pipeline::Closed { .. } | Pipeline::Closing { .. } if self.is_wanted() => CameraState::Opening,
            Pipeline::Closed { .. } | Pipeline::Closing { .. } => CameraState::Closed,
        }
    }

    /// Why it is lost, while it is.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn needed(&mut self, need: Need, now: Time, actions: &mut Vec<CameraAction>) {
        let before = std::mem::replace(&mut self.need, need);
        match (before, need) {
            (Need::Holder(last), Need::Holder(next)) if last.lease == next.lease => self.adjust(next.settings),
            (_, Need::Holder(next)) => {
                let joins = matches!(before, Need::Holder(_)) && !self.given_up;
                self.take_on(next, joins, now, actions);
            }
            (Need::Holder(last), Need::Nobody) => self.let_go(now.saturating_add(last.linger)),
            (_, Need::Closed) => self.let_go(now),
            (Need::Nobody | Need::Closed, Need::Nobody) => {}
        }
    }

    /// The holder's bitrate changed, or it is now content with what is open.
    fn adjust(&mut self, wanted: Option<CaptureSettings>) {
        if let (Pipeline::Open { settings, .. }, Some(wanted)) = (&mut self.pipeline, wanted) {
            *settings = wanted;
        }
    }

    /// A new holder. `joins`: another one held it until now, so that it may be amidst an outage.
    fn take_on(&mut self, holder: Holder, joins: bool, now: Time, actions: &mut Vec<CameraAction>) {
        self.given_up = false;
        self.linger_until = None;
        let other = match self.pipeline {
            Pipeline::Open { settings, .. } | Pipeline::Closing { settings, .. } => {
                holder.settings.is_some_and(|wanted| wanted != settings)
            }
            Pipeline::Closed { .. } => false,
        };
        match &mut self.pipeline {
            Pipeline::Open { settings, .. } if other => {
                self.pipeline = Pipeline::Closing { settings: *settings, reopen: now };
                actions.push(CameraAction::Close { generation: self.generation });
            }
            Pipeline::Open { since: Some(_), .. } => actions.push(CameraAction::Running),
            // Whoever joins an outage must know of it.
            _ if joins && !other => actions.extend(self.failure.clone().map(CameraAction::Lost)),
            Pipeline::Open { since: None, .. } => {}
            Pipeline::Closed { reopen } => *reopen = Some(now),
            Pipeline::Closing { reopen, .. } => *reopen = now,
        }
        if !joins || other {
            self.first_opening = !self.is_running();
            self.settles_until = None;
            self.failure = None;
            self.delay = FIRST_DELAY;
        }
    }

    fn let_go(&mut self, until: Time) {
        self.given_up = false;
        self.first_opening = false;
        self.failure = None;
        match &mut self.pipeline {
            // The shorter linger holds: another process may wait.
            Pipeline::Open { .. } => {
                self.linger_until = Some(self.linger_until.map_or(until, |earlier| earlier.min(until)));
            }
            Pipeline::Closed { reopen } => *reopen = None,
            Pipeline::Closing { .. } => {}
        }
    }

    fn running(&mut self, now: Time, actions: &mut Vec<CameraAction>) {
        if let Pipeline::Open { since: since @ None, .. } = &mut self.pipeline {
            *since = Some(now);
            self.first_opening = false;
            self.failure = None;
            if self.is_wanted() {
                actions.push(CameraAction::Running);
            }
        }
    }

    fn lost(&mut self, failure: Failure, now: Time, actions: &mut Vec<CameraAction>) {
        let Pipeline::Open { settings, since } = self.pipeline else { return };
        if since.is_some_and(|since| now.saturating_sub(since) >= HEALED) {
            self.delay = FIRST_DELAY;
        }
        self.pipeline = Pipeline::Closing { settings, reopen: now.saturating_add(self.delay) };
        self.delay = self.delay.mul_f64(1.5).min(LONGEST_DELAY);
        self.linger_until = None;
        actions.push(CameraAction::Close { generation: self.generation });
        let first_opening = std::mem::take(&mut self.first_opening);
        if !self.is_wanted() {
            return;
        }
        let settles = first_opening
            && failure.cause == Cause::CameraForbidden
            && now < *self.settles_until.get_or_insert(now.saturating_add(SETTLING));
        if settles {
            self.first_opening = true;
        } else if first_opening && hopeless(failure.cause) {
            self.given_up = true;
            actions.push(CameraAction::Failed(failure));
        } else {
            self.failure = Some(failure.clone());
            actions.push(CameraAction::Lost(failure));
        }
    }

    fn closed(&mut self, now: Time, actions: &mut Vec<CameraAction>) {
        // Closed without having been asked to and without a word before: a loss all the same.
        if let Pipeline::Open { .. } = self.pipeline {
            self.lost(Cause::Internal.into(), now, actions);
            actions.retain(|action| !matches!(action, CameraAction::Close { .. }));
        }
        if let Pipeline::Closing { reopen, .. } = self.pipeline {
            self.pipeline = Pipeline::Closed { reopen: self.is_wanted().then_some(reopen) };
        }
    }

    fn devices_changed(&mut self, now: Time) {
        // A device's nodes appear one by one: if this was too early, the next try is soon.
        match &mut self.pipeline {
            Pipeline::Closed { reopen: Some(reopen) } | Pipeline::Closing { reopen, .. } if *reopen > now => {
                *reopen = now;
                self.delay = FIRST_DELAY;
            }
            _ => {}
        }
    }

    /// What is due at `now`.
    fn proceed(&mut self, now: Time, actions: &mut Vec<CameraAction>) {
        match self.pipeline {
            Pipeline::Closed { reopen: Some(at) } if now >= at => {
                let settings = if let Need::Holder(holder) = self.need { holder.settings } else { None };
                let settings = settings.unwrap_or_default();
                self.generation += 1;
                self.pipeline = Pipeline::Open { settings, since: None };
                actions.push(CameraAction::Open { generation: self.generation, settings });
            }
            Pipeline::Open { settings, .. } if self.linger_until.is_some_and(|until| now >= until) => {
                self.linger_until = None;
                self.pipeline = Pipeline::Closing { settings, reopen: now };
                actions.push(CameraAction::Close { generation: self.generation });
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
