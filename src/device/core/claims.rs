//! Requests that wait for the arbiter, and what it decides about them.

use std::collections::HashMap;

use super::stream::Asked;
use crate::policy::Time;
use crate::policy::arbiter::{Answer, Arbiter, ArbiterAction, ArbiterEvent, Claim, LeaseId, RequestId};
use crate::protocol::{Cause, Failure, Owner};

/// What the camera was asked for.
#[derive(Debug)]
pub enum Purpose {
    Stream(Asked),
    /// No connection if the cloud link asked.
    Photo {
        connection: Option<u64>,
    },
    Process {
        connection: u64,
        program: String,
    },
}

/// The arbiter's word, with what was asked for.
#[derive(Debug)]
pub enum Decided {
    Granted(RequestId, Purpose, LeaseId),
    /// Served by the stream with this lease.
    Joined(RequestId, Purpose, LeaseId),
    Refused(RequestId, Purpose, Failure),
    /// Its holder is to let go.
    Revoked(LeaseId, Cause),
}

/// Who asked for the camera.
#[derive(Debug)]
pub struct Claims {
    arbiter: Arbiter,
    waiting: HashMap<RequestId, Purpose>,
}

impl Claims {
    /// `managed_yields`: an unmanaged stream takes a managed one's place.
    pub fn new(managed_yields: bool) -> Self {
        Self { arbiter: Arbiter::new(managed_yields), waiting: HashMap::new() }
    }

    pub fn ask(&mut self, request: RequestId, claim: Claim, purpose: Purpose, now: Time) -> Vec<Decided> {
        self.waiting.insert(request, purpose);
        self.on(ArbiterEvent::Ask { request, claim }, now)
    }

    pub fn release(&mut self, lease: LeaseId, now: Time) -> Vec<Decided> {
        self.on(ArbiterEvent::Release { lease }, now)
    }

    pub fn tick(&mut self, now: Time) -> Vec<Decided> {
        self.on(ArbiterEvent::Tick, now)
    }

    /// Takes out the requests that wait, where `which` says so, in the order in which they came.
    pub fn withdraw(&mut self, which: impl Fn(&Purpose) -> bool, now: Time) -> Vec<Purpose> {
        let mut gone: Vec<_> = self.waiting.extract_if(|_, purpose| which(purpose)).collect();
        gone.sort_unstable_by_key(|(request, _)| *request);
        for (request, _) in &gone {
            // Or others would be judged against it. Nobody is answered because of it.
            self.arbiter.on(ArbiterEvent::Withdraw { request: *request }, now);
        }
        gone.into_iter().map(|(_, purpose)| purpose).collect()
    }

    /// Who has the camera.
    pub fn owner(&self, now: Time) -> Option<Owner> {
        self.arbiter.owner(now)
    }

    pub fn deadline(&self) -> Option<Time> {
        self.arbiter.deadline()
    }

    fn on(&mut self, event: ArbiterEvent, now: Time) -> Vec<Decided> {
        let mut decided = Vec::new();
        for action in self.arbiter.on(event, now) {
            let (request, answer) = match action {
                ArbiterAction::Answer { request, answer } => (request, answer),
                ArbiterAction::Revoke { lease, cause } => {
                    decided.push(Decided::Revoked(lease, cause));
                    continue;
                }
            };
            match (self.waiting.remove(&request), answer) {
                (Some(purpose), Answer::Granted(lease)) => decided.push(Decided::Granted(request, purpose, lease)),
                (Some(purpose), Answer::Joined { of }) => decided.push(Decided::Joined(request, purpose, of)),
                (Some(purpose), Answer::Refused { owner, cause }) => {
                    decided.push(Decided::Refused(request, purpose, Failure::held_by(owner, cause)));
                }
                // Who asked is gone; what was granted goes back.
                (None, Answer::Granted(lease)) => decided.extend(self.release(lease, now)),
                (None, _) => {}
            }
        }
        decided
    }
}
