//! Who may use the camera: one holder at a time, one table
//! (docs/architecture.md#who-may-use-the-camera), typed answers.
//!
//! A request is judged against whoever will have the camera once all waiting requests have been served: the waiting
//! stream if there is one, else the holder. So nobody waits for what would be refused anyway, and a newer request of
//! an app replaces its older one before that has started. Waiting requests are served in order as soon as the holder
//! lets go, and refused at their deadline. The arbiter never takes a lease away from a holder that still uses the
//! device: two users of one V4L2 device end both.

use std::{collections::VecDeque, time::Duration};

use super::Time;
use crate::protocol::{Cause, Owner, OwnerKind, StreamKind};

/// How long a request waits for the holder to let go.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How many requests may wait; more are refused at once.
pub const MOST_WAITING: usize = 16;

/// A right to use the camera. Numbers count up from 1 and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// A request, named by the asker. A name may be reused once its request has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What the camera is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A stream of an app. Two apps are the same if their ids are equal, even if both are empty.
    Stream {
        /// The app's id.
        app: String,
        /// Exclusive or shareable.
        kind: StreamKind,
    },
    /// A photo for an app.
    Photo {
        /// The app's id.
        app: String,
    },
    /// Another process wants to open the device itself.
    Process {
        /// Its process id, if known.
        pid: Option<u32>,
        /// Its program's name.
        program: String,
    },
}

/// What happens to the arbiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArbiterEvent {
    /// Somebody wants the camera. Ignored while a request with that name waits.
    Ask {
        /// The answer carries this name.
        request: RequestId,
        /// What for.
        claim: Claim,
    },
    /// The asker no longer wants the camera and gets no answer. Ignored unless the request waits.
    Withdraw {
        /// The name it was asked under.
        request: RequestId,
    },
    /// The holder of a lease has let go of the camera, whether or not it was revoked. Ignored for leases that are
    /// over.
    Release {
        /// The lease that ends.
        lease: LeaseId,
    },
    /// The deadline has come.
    Tick,
}

/// The one answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The asker has the camera until it releases the lease.
    Granted(LeaseId),
    /// Served by the running stream: a photo from it, or one more app on the managed stream. Grants no lease of its
    /// own.
    Joined {
        /// The stream's lease.
        of: LeaseId,
    },
    /// The camera is not available.
    Refused {
        /// Who has the camera, or is about to.
        owner: Owner,
        /// `CameraBusy`; `Replaced` or `Preempted` for a request that waited and was overtaken.
        cause: Cause,
    },
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArbiterAction {
    /// Tell the asker.
    Answer {
        /// Whose request.
        request: RequestId,
        /// The only answer to it.
        answer: Answer,
    },
    /// The holder must let go and then send [`ArbiterEvent::Release`]; only then is the asker answered. Sent once per lease.
    Revoke {
        /// The lease to give up.
        lease: LeaseId,
        /// `Replaced` or `Preempted`.
        cause: Cause,
    },
}

/// The one arbiter of the camera.
#[derive(Debug)]
pub struct Arbiter {
    managed_yields: bool,
    last_lease: u64,
    holder: Option<Holder>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Holder {
    lease: LeaseId,
    claim: Claim,
    since: Time,
    revoked: bool,
}

#[derive(Debug)]
struct Waiting {
    request: RequestId,
    claim: Claim,
    until: Time,
}

/// What a claim may do about another one.
enum Verdict {
    Join,
    Wait,
    Overtake(Cause),
    Refuse,
}

impl Arbiter {
    /// `managed_yields`: a managed stream is preempted by an unmanaged one; otherwise the unmanaged one is refused.
    pub fn new(managed_yields: bool) -> Self {
        Self { managed_yields, last_lease: 0, holder: None, waiting: VecDeque::new() }
    }

    /// Handles an event; returns the actions in order.
    pub fn on(&mut self, event: ArbiterEvent, now: Time) -> Vec<ArbiterAction> {
        let mut actions = Vec::new();
        self.expire(now, &mut actions);
        match event {
            ArbiterEvent::Ask { request, claim } => {
                if !self.waiting.iter().any(|waiting| waiting.request == request) {
                    self.ask(request, claim, now, &mut actions);
                }
            }
            ArbiterEvent::Withdraw { request } => self.waiting.retain(|waiting| waiting.request != request),
            ArbiterEvent::Release { lease } => {
                if self.holder.as_ref().is_some_and(|holder| holder.lease == lease) {
                    self.holder = None;
                    self.serve(now, &mut actions);
                }
            }
            ArbiterEvent::Tick => {}
        }
        actions
    }

    /// Who has the camera.
    pub fn owner(&self, now: Time) -> Option<Owner> {
        self.holder.as_ref().map(|holder| owner_of(&holder.claim, now.saturating_sub(holder.since)))
    }

    /// The current lease, if any.
    pub fn lease(&self) -> Option<LeaseId> {
        self.holder.as_ref().map(|holder| holder.lease)
    }

    /// When a `Tick` is due.
    pub fn deadline(&self) -> Option<Time> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    fn ask(&mut self, request: RequestId, claim: Claim, now: Time, actions: &mut Vec<ArbiterAction>) {
        let Some(holder) = &self.holder else {
            self.grant(request, claim, now, actions);
            return;
        };
        let (next, since) = match self.waiting_stream() {
            Some(stream) => (&stream.claim, now),
            None => (&holder.claim, holder.since),
        };
        let verdict = judge(next, &claim, self.managed_yields);
        match verdict {
            Verdict::Join if self.waiting_stream().is_none() && !holder.revoked => {
                let answer = Answer::Joined { of: holder.lease };
                actions.push(ArbiterAction::Answer { request, answer });
            }
            Verdict::Refuse => {
                let owner = owner_of(next, now.saturating_sub(since));
                actions.push(refused(request, owner, Cause::CameraBusy));
            }
            Verdict::Overtake(cause) if self.waiting_stream().is_some() => {
                let owner = owner_of(&claim, Duration::ZERO);
                self.waiting.retain(|waiting| {
                    let overtaken = matches!(waiting.claim, Claim::Stream { .. });
                    if overtaken {
                        actions.push(refused(waiting.request, owner.clone(), cause));
                    }
                    !overtaken
                });
                self.wait(request, claim, now, actions);
            }
            Verdict::Overtake(cause) => {
                if self.wait(request, claim, now, actions) {
                    self.revoke(cause, actions);
                }
            }
            Verdict::Join | Verdict::Wait => {
                self.wait(request, claim, now, actions);
            }
        }
    }

    /// Queues the request; false if the queue is full.
    fn wait(&mut self, request: RequestId, claim: Claim, now: Time, actions: &mut Vec<ArbiterAction>) -> bool {
        if self.waiting.len() >= MOST_WAITING {
            let owner = self.owner(now).unwrap_or_else(|| owner_of(&claim, Duration::ZERO));
            actions.push(refused(request, owner, Cause::CameraBusy));
            return false;
        }
        self.waiting.push_back(Waiting { request, claim, until: now.saturating_add(PATIENCE) });
        true
    }

    fn revoke(&mut self, cause: Cause, actions: &mut Vec<ArbiterAction>) {
        if let Some(holder) = &mut self.holder
            && !holder.revoked
        {
            holder.revoked = true;
            actions.push(ArbiterAction::Revoke { lease: holder.lease, cause });
        }
    }

    /// The camera is free: the first in the queue gets it, the others are judged against that one.
    fn serve(&mut self, now: Time, actions: &mut Vec<ArbiterAction>) {
        for Waiting { request, claim, until } in std::mem::take(&mut self.waiting) {
            let Some(holder) = &self.holder else {
                self.grant(request, claim, now, actions);
                continue;
            };
            match judge(&holder.claim, &claim, self.managed_yields) {
                Verdict::Join => {
                    let answer = Answer::Joined { of: holder.lease };
                    actions.push(ArbiterAction::Answer { request, answer });
                }
                Verdict::Wait => self.waiting.push_back(Waiting { request, claim, until }),
                Verdict::Overtake(cause) => {
                    self.waiting.push_back(Waiting { request, claim, until });
                    self.revoke(cause, actions);
                }
                Verdict::Refuse => {
                    let owner = owner_of(&holder.claim, now.saturating_sub(holder.since));
                    actions.push(refused(request, owner, Cause::CameraBusy));
                }
            }
        }
    }

    fn grant(&mut self, request: RequestId, claim: Claim, now: Time, actions: &mut Vec<ArbiterAction>) {
        self.last_lease += 1;
        let lease = LeaseId(self.last_lease);
        self.holder = Some(Holder { lease, claim, since: now, revoked: false });
        actions.push(ArbiterAction::Answer { request, answer: Answer::Granted(lease) });
    }

    fn expire(&mut self, now: Time, actions: &mut Vec<ArbiterAction>) {
        let Some(owner) = self.owner(now) else { return };
        self.waiting.retain(|waiting| {
            let expired = now >= waiting.until;
            if expired {
                actions.push(refused(waiting.request, owner.clone(), Cause::CameraBusy));
            }
            !expired
        });
    }

    /// The stream that comes next. Other requests in the queue may join it; none gets the camera before it ends.
    fn waiting_stream(&self) -> Option<&Waiting> {
        self.waiting.iter().find(|waiting| matches!(waiting.claim, Claim::Stream { .. }))
    }
}

/// The table: `has` holds the camera (or comes next), `asks` wants it.
fn judge(has: &Claim, asks: &Claim, managed_yields: bool) -> Verdict {
    use StreamKind::{Managed, Unmanaged};
    match (has, asks) {
        (Claim::Stream { app, kind: Unmanaged }, Claim::Stream { app: asking, kind: Unmanaged }) if app == asking => {
            Verdict::Overtake(Cause::Replaced)
        }
        (Claim::Stream { app, kind: Unmanaged }, Claim::Photo { app: asking }) if app == asking => Verdict::Join,
        (Claim::Stream { kind: Managed, .. }, Claim::Stream { kind: Unmanaged, .. }) if managed_yields => {
            Verdict::Overtake(Cause::Preempted)
        }
        (Claim::Stream { kind: Managed, .. }, Claim::Stream { kind: Managed, .. } | Claim::Photo { .. }) => {
            Verdict::Join
        }
        (Claim::Photo { .. }, Claim::Stream { .. } | Claim::Photo { .. }) => Verdict::Wait,
        (Claim::Process { .. } | Claim::Stream { .. }, _) | (_, Claim::Process { .. }) => Verdict::Refuse,
    }
}

fn refused(request: RequestId, owner: Owner, cause: Cause) -> ArbiterAction {
    ArbiterAction::Answer { request, answer: Answer::Refused { owner, cause } }
}

fn owner_of(claim: &Claim, held: Duration) -> Owner {
    let (kind, name, pid) = match claim {
        Claim::Stream { app, kind: StreamKind::Unmanaged } => (OwnerKind::Unmanaged, app, None),
        Claim::Stream { app, kind: StreamKind::Managed } => (OwnerKind::Managed, app, None),
        Claim::Photo { app } => (OwnerKind::Photo, app, None),
        Claim::Process { pid, program } => (OwnerKind::Process, program, *pid),
    };
    Owner { kind, name: name.clone(), pid, for_s: Some(held.as_secs()) }
}

#[cfg(test)]
mod tests;
