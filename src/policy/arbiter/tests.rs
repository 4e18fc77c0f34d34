use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn s(s: u64) -> Time {
    Time::from_secs(s)
}

fn unmanaged(app: &str) -> Claim {
    Claim::Stream { app: app.into(), kind: StreamKind::Unmanaged }
}

fn managed(app: &str) -> Claim {
    Claim::Stream { app: app.into(), kind: StreamKind::Managed }
}

fn photo(app: &str) -> Claim {
    Claim::Photo { app: app.into() }
}

fn process() -> Claim {
    Claim::Process { pid: Some(4711), program: "qr-reader".into() }
}

/// An arbiter whose requests are numbered in the order of asking, from 1.
struct Bench {
    arbiter: Arbiter,
    requests: u64,
}

impl Bench {
    fn new(managed_yields: bool) -> Self {
        Self { arbiter: Arbiter::new(managed_yields), requests: 0 }
    }

    fn ask(&mut self, claim: Claim, now: Time) -> Vec<ArbiterAction> {
        self.requests += 1;
        self.arbiter.on(ArbiterEvent::Ask { request: RequestId(self.requests), claim }, now)
    }

    fn release(&mut self, now: Time) -> Vec<ArbiterAction> {
        let lease = self.arbiter.lease().unwrap();
        self.arbiter.on(ArbiterEvent::Release { lease }, now)
    }
}

fn granted(request: u64, lease: u64) -> ArbiterAction {
    ArbiterAction::Answer { request: RequestId(request), answer: Answer::Granted(LeaseId(lease)) }
}

fn joined(request: u64, lease: u64) -> ArbiterAction {
    ArbiterAction::Answer { request: RequestId(request), answer: Answer::Joined { of: LeaseId(lease) } }
}

#[test]
fn what_is_withdrawn_is_neither_answered_nor_judged_by() {
    let mut bench = Bench::new(true);
    bench.ask(photo("a"), s(0));
    assert_eq!(bench.ask(unmanaged("a"), s(0)), []);
    assert_eq!(bench.arbiter.on(ArbiterEvent::Withdraw { request: RequestId(2) }, s(0)), []);
    assert_eq!(bench.ask(unmanaged("b"), s(1)), [], "it waits for the photo alone");
    assert_eq!(bench.release(s(2)), [granted(3, 2)]);
}

fn revoke(lease: u64, cause: Cause) -> ArbiterAction {
    ArbiterAction::Revoke { lease: LeaseId(lease), cause }
}

/// The request and owner of a lone refusal with this cause.
#[track_caller]
fn refusal(actions: &[ArbiterAction], expected: Cause) -> (u64, Owner) {
    match actions {
        [ArbiterAction::Answer { request, answer: Answer::Refused { owner, cause } }] if *cause == expected => {
            (request.0, owner.clone())
        }
        other => panic!("not a refusal with {expected}: {other:?}"),
    }
}

#[test]
fn a_free_camera_is_anybodys() {
    for claim in [unmanaged("a"), managed("a"), photo("a"), process()] {
        assert_eq!(Bench::new(true).ask(claim, s(0)), [granted(1, 1)]);
    }
}

#[test]
fn an_unmanaged_stream_is_exclusive_and_names_its_owner() {
    let mut bench = Bench::new(true);
    bench.ask(unmanaged("a"), s(10));
    for claim in [unmanaged("b"), managed("a"), photo("b"), process(), unmanaged("")] {
        let actions = bench.ask(claim, s(40));
        let (_, owner) = refusal(&actions, Cause::CameraBusy);
        assert_eq!(owner, Owner { kind: OwnerKind::Unmanaged, name: "a".into(), pid: None, for_s: Some(30) });
    }
}

#[test]
fn the_same_app_replaces_its_unmanaged_stream_once_that_let_go() {
    for app in ["a", ""] {
        let mut bench = Bench::new(true);
        bench.ask(unmanaged(app), s(0));
        assert_eq!(bench.ask(unmanaged(app), s(1)), [revoke(1, Cause::Replaced)]);
        assert_eq!(bench.release(s(2)), [granted(2, 2)]);
        assert_eq!(bench.arbiter.owner(s(3)).and_then(|owner| owner.for_s), Some(1));
    }
}

#[test]
fn the_newest_replacement_wins_before_the_old_stream_let_go() {
    let mut bench = Bench::new(true);
    bench.ask(unmanaged("a"), s(0));
    bench.ask(unmanaged("a"), s(1));
    let (request, _) = refusal(&bench.ask(unmanaged("a"), s(1)), Cause::Replaced);
    assert_eq!(request, 2);
    let (request, _) = refusal(&bench.ask(unmanaged("b"), s(1)), Cause::CameraBusy);
    assert_eq!(request, 4);
    assert_eq!(bench.release(s(2)), [granted(3, 2)]);
}

#[test]
fn a_photo_for_the_streaming_app_comes_from_its_stream() {
    let mut bench = Bench::new(true);
    bench.ask(unmanaged("a"), s(0));
    assert_eq!(bench.ask(photo("a"), s(1)), [joined(2, 1)]);
}

#[test]
fn a_managed_stream_is_joined_by_apps_and_photos() {
    let mut bench = Bench::new(true);
    bench.ask(managed("a"), s(0));
    assert_eq!(bench.ask(managed("b"), s(1)), [joined(2, 1)]);
    assert_eq!(bench.ask(photo("c"), s(1)), [joined(3, 1)]);
    let (_, owner) = refusal(&bench.ask(process(), s(1)), Cause::CameraBusy);
    assert_eq!(owner.kind, OwnerKind::Managed);
}

#[test]
fn a_managed_stream_yields_to_an_unmanaged_one_or_not_as_configured() {
    let mut bench = Bench::new(true);
    bench.ask(managed("a"), s(0));
    assert_eq!(bench.ask(unmanaged("b"), s(1)), [revoke(1, Cause::Preempted)]);
    let (_, owner) = refusal(&bench.ask(managed("c"), s(1)), Cause::CameraBusy);
    assert_eq!((owner.kind, owner.name.as_str()), (OwnerKind::Unmanaged, "b"), "who is about to have it");
    assert_eq!(bench.release(s(1)), [granted(2, 2)]);

    let mut bench = Bench::new(false);
    bench.ask(managed("a"), s(0));
    refusal(&bench.ask(unmanaged("b"), s(1)), Cause::CameraBusy);
}

#[test]
fn streams_and_photos_wait_for_a_photo() {
    let mut bench = Bench::new(true);
    bench.ask(photo("a"), s(0));
    assert_eq!(bench.ask(photo("b"), s(0)), []);
    assert_eq!(bench.ask(managed("c"), s(0)), []);
    assert_eq!(bench.ask(managed("d"), s(0)), []);
    refusal(&bench.ask(process(), s(0)), Cause::CameraBusy);
    assert_eq!(bench.release(s(1)), [granted(2, 2)]);
    assert_eq!(bench.release(s(2)), [granted(3, 3), joined(4, 3)]);
}

#[test]
fn only_one_unmanaged_stream_waits_for_a_photo() {
    let mut bench = Bench::new(true);
    bench.ask(photo("a"), s(0));
    bench.ask(unmanaged("b"), s(0));
    refusal(&bench.ask(unmanaged("c"), s(0)), Cause::CameraBusy);
    refusal(&bench.ask(photo("c"), s(0)), Cause::CameraBusy);
    assert_eq!(bench.ask(photo("b"), s(0)), []);
    assert_eq!(bench.release(s(1)), [granted(2, 2), joined(5, 2)]);
}

#[test]
fn waiting_managed_streams_are_overtaken_by_an_unmanaged_one() {
    let mut bench = Bench::new(true);
    bench.ask(photo("a"), s(0));
    bench.ask(managed("b"), s(0));
    bench.ask(managed("c"), s(0));
    let answers = bench.ask(unmanaged("d"), s(0));
    assert_eq!(answers.len(), 2);
    for answer in answers {
        refusal(&[answer], Cause::Preempted);
    }
    assert_eq!(bench.release(s(1)), [granted(4, 2)]);
}

#[test]
fn a_process_keeps_the_camera_to_itself() {
    let mut bench = Bench::new(true);
    bench.ask(process(), s(0));
    for claim in [unmanaged("a"), managed("a"), photo("a"), process()] {
        let (_, owner) = refusal(&bench.ask(claim, s(3)), Cause::CameraBusy);
        assert_eq!((owner.name.as_str(), owner.pid, owner.for_s), ("qr-reader", Some(4711), Some(3)));
    }
}

#[test]
fn waiting_ends_after_5_s_and_the_holder_keeps_what_it_has() {
    let mut bench = Bench::new(true);
    bench.ask(unmanaged("a"), s(0));
    bench.ask(unmanaged("a"), s(1));
    assert_eq!(bench.arbiter.deadline(), Some(s(6)));
    let (request, owner) = refusal(&bench.arbiter.on(ArbiterEvent::Tick, s(6)), Cause::CameraBusy);
    assert_eq!((request, owner.for_s), (2, Some(6)));
    assert_eq!(bench.arbiter.deadline(), None);
    // A second request does not revoke the lease again; it waits.
    assert_eq!(bench.ask(unmanaged("a"), s(7)), []);
    assert_eq!(bench.release(s(8)), [granted(3, 2)]);
}

#[test]
fn at_most_16_wait() {
    let mut bench = Bench::new(true);
    bench.ask(photo("a"), s(0));
    for _ in 0..16 {
        assert_eq!(bench.ask(photo("b"), s(0)), []);
    }
    let (request, _) = refusal(&bench.ask(photo("c"), s(0)), Cause::CameraBusy);
    assert_eq!(request, 18);
}

#[test]
fn a_stream_is_not_revoked_for_a_request_that_found_no_room() {
    let mut bench = Bench::new(true);
    bench.ask(photo("a"), s(0));
    bench.ask(managed("m"), s(0));
    for _ in 0..15 {
        bench.ask(photo("b"), s(0));
    }
    // The waiting managed stream makes room for the unmanaged one.
    let answers = bench.ask(unmanaged("u"), s(0));
    refusal(&answers, Cause::Preempted);
    refusal(&bench.ask(photo("u"), s(0)), Cause::CameraBusy);
}

#[test]
fn a_release_of_a_lease_that_is_over_changes_nothing() {
    let mut bench = Bench::new(true);
    bench.ask(photo("a"), s(0));
    bench.release(s(1));
    bench.ask(unmanaged("b"), s(2));
    assert_eq!(bench.arbiter.on(ArbiterEvent::Release { lease: LeaseId(1) }, s(3)), []);
    assert_eq!(bench.arbiter.lease(), Some(LeaseId(2)));
}

#[derive(Clone, Debug)]
enum Step {
    Ask(Claim),
    AskAgain(u64, Claim),
    ReleaseCurrent,
    Release(u64),
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let app = prop::sample::select(vec!["", "a", "b"]);
    let claim = prop_oneof![
        4 => app.clone().prop_map(unmanaged),
        4 => app.clone().prop_map(managed),
        4 => app.prop_map(photo),
        1 => Just(process()),
    ];
    let step = prop_oneof![
        8 => claim.clone().prop_map(Step::Ask),
        1 => (0u64..60, claim).prop_map(|(request, claim)| Step::AskAgain(request, claim)),
        3 => Just(Step::ReleaseCurrent),
        1 => (0u64..30).prop_map(Step::Release),
        2 => Just(Step::Tick),
    ];
    prop::collection::vec((step, prop_oneof![4 => Just(0u64), 4 => 0u64..1500, 1 => 0u64..20_000]), 1..120)
}

/// What an observer of the actions can tell.
#[derive(Default)]
struct Model {
    lease: Option<LeaseId>,
    revoked: bool,
    leases: HashSet<LeaseId>,
    pending: HashSet<RequestId>,
}

impl Model {
    fn check(&mut self, actions: &[ArbiterAction], arbiter: &Arbiter, now: Time) -> Result<(), TestCaseError> {
        for action in actions {
            match action {
                ArbiterAction::Answer { request, answer } => {
                    prop_assert!(self.pending.remove(request), "{request:?} answered twice or never asked");
                    match answer {
                        Answer::Granted(lease) => {
                            prop_assert_eq!(self.lease, None, "two owners");
                            prop_assert!(self.leases.insert(*lease), "a lease id used twice");
                            self.lease = Some(*lease);
                            self.revoked = false;
                        }
                        Answer::Joined { of } => prop_assert_eq!(Some(*of), self.lease),
                        Answer::Refused { cause, .. } => {
                            prop_assert!(matches!(cause, Cause::CameraBusy | Cause::Replaced | Cause::Preempted));
                        }
                    }
                }
                ArbiterAction::Revoke { lease, cause } => {
                    prop_assert_eq!(Some(*lease), self.lease);
                    prop_assert!(matches!(cause, Cause::Replaced | Cause::Preempted));
                    prop_assert!(!std::mem::replace(&mut self.revoked, true), "revoked twice");
                }
            }
        }
        prop_assert_eq!(arbiter.lease(), self.lease);
        prop_assert_eq!(arbiter.owner(now).is_some(), self.lease.is_some());
        prop_assert!(self.lease.is_some() || self.pending.is_empty(), "waiting for a free camera");
        prop_assert!(self.pending.len() <= MOST_WAITING);
        prop_assert_eq!(arbiter.deadline().is_some(), !self.pending.is_empty());
        prop_assert!(arbiter.deadline().is_none_or(|at| at > now), "a deadline in the past");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn never_two_owners_and_every_request_is_answered_once(yields in any::<bool>(), steps in steps()) {
        let mut arbiter = Arbiter::new(yields);
        let mut model = Model::default();
        let mut now = Time::ZERO;
        let mut next = 1000;
        for (step, pause) in steps {
            now += Time::from_millis(pause);
            let event = match step {
                Step::Ask(claim) => {
                    next += 1;
                    ArbiterEvent::Ask { request: RequestId(next), claim }
                }
                Step::AskAgain(back, claim) => ArbiterEvent::Ask { request: RequestId(next.saturating_sub(back)), claim },
                Step::ReleaseCurrent => ArbiterEvent::Release { lease: model.lease.unwrap_or(LeaseId(0)) },
                Step::Release(lease) => ArbiterEvent::Release { lease: LeaseId(lease) },
                Step::Tick => ArbiterEvent::Tick,
            };
            // Whatever was due is answered before a request is taken, so a request's name may be free again.
            let actions = arbiter.on(ArbiterEvent::Tick, now);
            model.check(&actions, &arbiter, now)?;
            match &event {
                ArbiterEvent::Ask { request, .. } => {
                    model.pending.insert(*request);
                }
                ArbiterEvent::Release { lease } if model.lease == Some(*lease) => model.lease = None,
                _ => {}
            }
            let actions = arbiter.on(event, now);
            model.check(&actions, &arbiter, now)?;
        }
        // In any state: after `PATIENCE` nobody waits any more, and a released camera is available.
        now += PATIENCE;
        let actions = arbiter.on(ArbiterEvent::Tick, now);
        model.check(&actions, &arbiter, now)?;
        prop_assert!(model.pending.is_empty());
        if let Some(lease) = model.lease.take() {
            arbiter.on(ArbiterEvent::Release { lease }, now);
        }
        let actions = arbiter.on(ArbiterEvent::Ask { request: RequestId(1), claim: process() }, now);
        let free = matches!(actions[..], [ArbiterAction::Answer { answer: Answer::Granted(_), .. }]);
        prop_assert!(free);
    }
}
