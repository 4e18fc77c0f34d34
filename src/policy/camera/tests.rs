use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// What a capture says of a loss.
fn said(cause: Cause) -> Failure {
    Failure::new(cause, format!("/dev/video0: {cause}"))
}

const SETTINGS: CaptureSettings = CaptureSettings {
    video: VideoSettings { width: 640, height: 360, bitrate: 1_000_000, frame_rate: 30 },
    audio: AudioSettings { bitrate: 64_000, sample_rate: 48_000, echo_cancellation: false, noise_suppression: false },
};

fn open(generation: u64) -> CameraAction {
    CameraAction::Open { generation, settings: SETTINGS }
}

fn holder(lease: u64, linger: u64) -> Need {
    Need::Holder(Holder { lease: LeaseId(lease), settings: Some(SETTINGS), linger: ms(linger) })
}

/// A holder that leaves it open for 3 s.
fn wanted(lease: u64) -> CameraEvent {
    CameraEvent::Needed(holder(lease, 3000))
}

const UNWANTED: CameraEvent = CameraEvent::Needed(Need::Nobody);
const CLOSED: CameraEvent = CameraEvent::Needed(Need::Closed);

/// A camera whose first generation runs since time zero.
fn running() -> Camera {
    let mut camera = Camera::new();
    assert_eq!(camera.on(wanted(1), ms(0)), [open(1)]);
    assert_eq!(camera.on(CameraEvent::Running { generation: 1 }, ms(0)), [CameraAction::Running]);
    camera
}

fn lose(camera: &mut Camera, cause: Cause, now: Time) -> Vec<CameraAction> {
    let generation = camera.generation();
    camera.on(CameraEvent::Lost { generation, failure: said(cause) }, now)
}

fn close(camera: &mut Camera, now: Time) -> Vec<CameraAction> {
    let generation = camera.generation();
    camera.on(CameraEvent::Closed { generation }, now)
}

#[test]
fn runs_once_however_many_frames_come() {
    let mut camera = running();
    assert_eq!(camera.on(CameraEvent::Running { generation: 1 }, ms(33)), []);
    assert_eq!(camera.state(), CameraState::Running);
    assert_eq!(camera.on(wanted(2), ms(50)), [CameraAction::Running], "the next holder learns that it runs");
}

#[test]
fn a_lost_camera_is_closed_first_and_reopened_100_ms_after_the_loss() {
    let mut camera = running();
    let lost = lose(&mut camera, Cause::CameraLost, ms(1000));
    assert_eq!(lost, [CameraAction::Close { generation: 1 }, CameraAction::Lost(said(Cause::CameraLost))]);
    assert_eq!(camera.on(CameraEvent::Tick, ms(1500)), [], "not before the former is closed");
    assert_eq!(close(&mut camera, ms(1600)), [open(2)]);

    let mut camera = running();
    lose(&mut camera, Cause::CameraLost, ms(1000));
    assert_eq!(close(&mut camera, ms(1010)), []);
    assert_eq!(camera.deadline(), Some(ms(1100)));
    assert_eq!(camera.on(CameraEvent::Tick, ms(1100)), [open(2)]);
    assert_eq!(camera.on(CameraEvent::Running { generation: 2 }, ms(1200)), [CameraAction::Running]);
}

#[test]
fn delays_grow_to_a_second_and_shrink_again_when_it_ran() {
    let mut camera = running();
    let mut now = ms(0);
    let mut delays = Vec::new();
    for _ in 0..8 {
        lose(&mut camera, Cause::NoCamera, now);
        close(&mut camera, now);
        let at = camera.deadline().unwrap();
        delays.push(at.saturating_sub(now).as_millis());
        now = at;
        camera.on(CameraEvent::Tick, now);
    }
    assert_eq!(delays, [100, 150, 225, 337, 506, 759, 1000, 1000]);
    let generation = camera.generation();
    camera.on(CameraEvent::Running { generation }, now);
    now += ms(5000);
    lose(&mut camera, Cause::CameraLost, now);
    close(&mut camera, now);
    assert_eq!(camera.deadline(), Some(now + ms(100)));
}

#[test]
fn a_new_device_is_tried_at_once() {
    let mut camera = running();
    for n in 0..6 {
        lose(&mut camera, Cause::NoCamera, ms(n * 2000));
        close(&mut camera, ms(n * 2000));
        camera.on(CameraEvent::Tick, ms(n * 2000 + 1000));
    }
    lose(&mut camera, Cause::NoCamera, ms(20_000));
    close(&mut camera, ms(20_000));
    assert_eq!(camera.on(CameraEvent::DevicesChanged, ms(20_010)), [open(8)]);
    // Too early, its node could not be opened yet: soon again.
    lose(&mut camera, Cause::NoCamera, ms(20_020));
    close(&mut camera, ms(20_020));
    assert_eq!(camera.deadline(), Some(ms(20_120)));
}

#[test]
fn a_new_device_during_the_teardown_is_tried_right_after_it() {
    let mut camera = running();
    lose(&mut camera, Cause::CameraLost, ms(0));
    assert_eq!(camera.on(CameraEvent::DevicesChanged, ms(10)), []);
    assert_eq!(close(&mut camera, ms(20)), [open(2)]);
}

#[test]
fn what_cannot_be_had_fails_at_the_first_opening_only() {
    for cause in [Cause::CameraBusy, Cause::CameraFailed, Cause::EncoderFailed] {
        let mut camera = Camera::new();
        camera.on(wanted(1), ms(0));
        let actions = lose(&mut camera, cause, ms(10));
        assert_eq!(actions, [CameraAction::Close { generation: 1 }, CameraAction::Failed(said(cause))]);
        assert_eq!(close(&mut camera, ms(20)), []);
        assert_eq!(camera.deadline(), None, "not tried again");
        assert!(!camera.is_wanted());
        assert_eq!(camera.on(wanted(1), ms(25)), [], "nor for the same holder");
        assert_eq!(camera.on(wanted(2), ms(30)), [open(2)], "but for the next holder");
        assert!(camera.is_wanted());

        let mut camera = running();
        assert!(lose(&mut camera, cause, ms(10)).contains(&CameraAction::Lost(said(cause))), "it ran before");

        let mut camera = Camera::new();
        camera.on(wanted(1), ms(0));
        lose(&mut camera, Cause::NoCamera, ms(10));
        close(&mut camera, ms(10));
        camera.on(CameraEvent::Tick, ms(110));
        assert!(lose(&mut camera, cause, ms(120)).contains(&CameraAction::Lost(said(cause))), "not the first opening");
    }
}

#[test]
fn a_forbidden_camera_may_be_a_new_one_and_fails_only_after_a_moment() {
    let mut camera = Camera::new();
    camera.on(wanted(1), ms(0));
    assert_eq!(
        lose(&mut camera, Cause::CameraForbidden, ms(10)),
        [CameraAction::Close { generation: 1 }],
        "in silence"
    );
    close(&mut camera, ms(10));
    camera.on(CameraEvent::Tick, ms(110));
    assert_eq!(camera.on(CameraEvent::Running { generation: 2 }, ms(200)), [CameraAction::Running], "udev was there");

    let mut camera = Camera::new();
    camera.on(wanted(1), ms(0));
    let mut actions = Vec::new();
    let mut now = ms(10);
    while now < ms(8000) && !actions.contains(&CameraAction::Failed(said(Cause::CameraForbidden))) {
        actions = lose(&mut camera, Cause::CameraForbidden, now);
        assert!(!actions.contains(&CameraAction::Lost(said(Cause::CameraForbidden))));
        actions.extend(close(&mut camera, now));
        now = camera.deadline().unwrap_or(now);
        camera.on(CameraEvent::Tick, now);
    }
    assert!((ms(3000)..ms(4200)).contains(&now), "{now:?}");
    assert_eq!(camera.deadline(), None, "not tried again");
}

#[test]
fn no_camera_yet_is_waited_for() {
    let mut camera = Camera::new();
    camera.on(wanted(1), ms(0));
    assert_eq!(lose(&mut camera, Cause::NoCamera, ms(1))[1], CameraAction::Lost(said(Cause::NoCamera)));
    assert_eq!(camera.state(), CameraState::Lost);
    close(&mut camera, ms(2));
    assert_eq!(camera.on(CameraEvent::Tick, ms(101)), [open(2)]);
}

#[test]
fn it_lingers_and_the_next_holder_finds_the_same_generation() {
    let mut camera = running();
    assert_eq!(camera.on(UNWANTED, ms(1000)), []);
    assert_eq!(camera.deadline(), Some(ms(4000)));
    assert_eq!(camera.on(wanted(2), ms(3999)), [CameraAction::Running]);
    assert_eq!(camera.deadline(), None);
    camera.on(UNWANTED, ms(5000));
    assert_eq!(camera.on(CameraEvent::Tick, ms(8000)), [CameraAction::Close { generation: 1 }]);
    assert_eq!(close(&mut camera, ms(8010)), []);
    assert_eq!(camera.state(), CameraState::Closed);
    assert_eq!(camera.on(wanted(2), ms(9000)), [open(2)]);
}

#[test]
fn without_linger_it_closes_at_once_even_while_it_lingers() {
    let mut camera = running();
    camera.on(UNWANTED, ms(0));
    assert_eq!(camera.on(CLOSED, ms(100)), [CameraAction::Close { generation: 1 }]);
}

#[test]
fn it_is_opened_anew_for_other_settings_and_only_for_these() {
    let other = CaptureSettings { video: VideoSettings { frame_rate: 15, ..SETTINGS.video }, ..SETTINGS };
    let needed =
        |lease, settings| CameraEvent::Needed(Need::Holder(Holder { lease: LeaseId(lease), settings, linger: ms(0) }));
    let mut camera = running();
    assert_eq!(camera.on(needed(2, None), ms(10)), [CameraAction::Running], "content with what is open");
    assert_eq!(camera.on(needed(3, Some(other)), ms(20)), [CameraAction::Close { generation: 1 }]);
    assert_eq!(close(&mut camera, ms(30)), [CameraAction::Open { generation: 2, settings: other }]);
    assert_eq!(camera.on(CameraEvent::Running { generation: 2 }, ms(40)), [CameraAction::Running]);

    let slower = CaptureSettings { video: VideoSettings { bitrate: 500_000, ..other.video }, ..other };
    assert_eq!(camera.on(needed(3, Some(slower)), ms(50)), [], "the encoder is told another bitrate");
    assert_eq!(camera.on(needed(4, Some(slower)), ms(60)), [CameraAction::Running], "which is what is open now");
}

#[test]
fn what_the_next_holder_wants_is_opened_after_the_teardown() {
    let other = CaptureSettings { video: VideoSettings { frame_rate: 15, ..SETTINGS.video }, ..SETTINGS };
    let mut camera = running();
    camera.on(CLOSED, ms(0));
    assert!(camera.is_open());
    let next = Holder { lease: LeaseId(2), settings: Some(other), linger: ms(0) };
    assert_eq!(camera.on(CameraEvent::Needed(Need::Holder(next)), ms(5)), []);
    assert_eq!(close(&mut camera, ms(10)), [CameraAction::Open { generation: 2, settings: other }]);
}

#[test]
fn nobody_is_told_of_a_loss_that_concerns_nobody() {
    let mut camera = running();
    camera.on(UNWANTED, ms(0));
    assert_eq!(lose(&mut camera, Cause::CameraLost, ms(100)), [CameraAction::Close { generation: 1 }]);
    assert_eq!(close(&mut camera, ms(110)), []);
    assert_eq!(camera.deadline(), None);
}

#[test]
fn wanted_again_during_the_teardown_it_opens_when_that_is_done() {
    let mut camera = running();
    camera.on(CLOSED, ms(0));
    assert_eq!(camera.on(wanted(2), ms(10)), []);
    assert_eq!(close(&mut camera, ms(50)), [open(2)]);
}

#[test]
fn a_holder_that_joins_an_outage_learns_of_it() {
    let mut camera = running();
    lose(&mut camera, Cause::CameraStalled, ms(0));
    assert_eq!(camera.on(wanted(2), ms(10)), [CameraAction::Lost(said(Cause::CameraStalled))]);
}

#[test]
fn words_about_older_generations_are_ignored() {
    let mut camera = running();
    lose(&mut camera, Cause::CameraLost, ms(0));
    close(&mut camera, ms(0));
    camera.on(CameraEvent::Tick, ms(100));
    assert_eq!(camera.on(CameraEvent::Lost { generation: 1, failure: said(Cause::CameraLost) }, ms(110)), []);
    assert_eq!(camera.on(CameraEvent::Running { generation: 1 }, ms(110)), []);
    assert_eq!(camera.on(CameraEvent::Closed { generation: 1 }, ms(110)), []);
    assert_eq!(camera.state(), CameraState::Lost, "generation 2 has not run");
}

#[test]
fn a_pipeline_that_closes_without_a_word_is_a_loss() {
    let mut camera = running();
    assert_eq!(close(&mut camera, ms(1000)), [CameraAction::Lost(Cause::Internal.into())]);
    assert_eq!(camera.on(CameraEvent::Tick, ms(1100)), [open(2)]);
}

fn steps() -> impl Strategy<Value = Vec<(CameraEvent, bool, u64)>> {
    let cause = prop::sample::select(vec![Cause::NoCamera, Cause::CameraLost, Cause::CameraBusy, Cause::EncoderFailed]);
    let event = prop_oneof![
        3 => (1u64..4, prop::sample::select(vec![0u64, 100, 3000])).prop_map(|(n, linger)| CameraEvent::Needed(holder(n, linger))),
        1 => Just(UNWANTED),
        1 => Just(CLOSED),
        4 => (0u64..20).prop_map(|generation| CameraEvent::Running { generation }),
        4 => ((0u64..20), cause).prop_map(|(generation, cause)| CameraEvent::Lost { generation, failure: said(cause) }),
        4 => (0u64..20).prop_map(|generation| CameraEvent::Closed { generation }),
        1 => Just(CameraEvent::DevicesChanged),
        3 => Just(CameraEvent::Tick),
    ];
    // The flag: make the generation the current one, where the event has one.
    prop::collection::vec((event, prop::bool::weighted(0.8), prop_oneof![2 => Just(0u64), 2 => 0u64..2000]), 1..150)
}

/// Nothing of what was said is lost; what closed without a word has none.
fn whole(failure: &Failure) -> bool {
    *failure == said(failure.cause) || *failure == Cause::Internal.into()
}

#[derive(Default)]
struct Model {
    open: Option<u64>,
    latest: u64,
    closing: bool,
    running: bool,
    holder: Option<LeaseId>,
    wanted: bool,
}

impl Model {
    /// Before the machine sees the event.
    fn event(&mut self, event: &CameraEvent) {
        match event {
            CameraEvent::Needed(Need::Holder(holder)) => {
                self.wanted |= self.holder != Some(holder.lease);
                self.holder = Some(holder.lease);
            }
            CameraEvent::Needed(_) => (self.holder, self.wanted) = (None, false),
            CameraEvent::Running { generation } if self.open == Some(*generation) && !self.closing => {
                self.running = true;
            }
            CameraEvent::Closed { generation } if self.open == Some(*generation) => {
                self.open = None;
                self.running = false;
            }
            _ => {}
        }
    }

    fn check(&mut self, actions: &[CameraAction], camera: &Camera, now: Time) -> Result<(), TestCaseError> {
        for action in actions {
            match action {
                &CameraAction::Open { generation, .. } => {
                    prop_assert_eq!(self.open, None, "two generations open");
                    prop_assert!(self.wanted);
                    prop_assert_eq!(generation, self.latest + 1);
                    (self.open, self.latest, self.closing, self.running) = (Some(generation), generation, false, false);
                }
                &CameraAction::Close { generation } => {
                    prop_assert_eq!(self.open, Some(generation));
                    prop_assert!(!std::mem::replace(&mut self.closing, true), "closed twice");
                    self.running = false;
                }
                CameraAction::Running => prop_assert!(self.wanted && self.running),
                CameraAction::Lost(failure) => {
                    prop_assert!(self.wanted && !self.running);
                    prop_assert!(whole(failure), "{failure:?}");
                }
                CameraAction::Failed(failure) => {
                    prop_assert!(self.wanted && !self.running);
                    prop_assert!(whole(failure), "{failure:?}");
                    self.wanted = false;
                }
            }
        }
        prop_assert_eq!(camera.state() == CameraState::Running, self.running);
        prop_assert_eq!((camera.is_open(), camera.is_wanted()), (self.open.is_some(), self.wanted));
        prop_assert!(camera.deadline().is_none_or(|at| at > now), "a deadline in the past");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn never_two_generations_and_it_can_always_be_had_and_closed(steps in steps()) {
        let mut camera = Camera::new();
        let mut model = Model::default();
        let mut now = ms(0);
        for (event, current, pause) in steps {
            now += ms(pause);
            let generation = camera.generation();
            let event = match event {
                CameraEvent::Running { .. } if current => CameraEvent::Running { generation },
                CameraEvent::Lost { failure, .. } if current => CameraEvent::Lost { generation, failure },
                CameraEvent::Closed { .. } if current => CameraEvent::Closed { generation },
                other => other,
            };
            let actions = camera.on(CameraEvent::Tick, now);
            model.check(&actions, &camera, now)?;
            model.event(&event);
            let actions = camera.on(event, now);
            model.check(&actions, &camera, now)?;
        }
        // Whoever wants it now has it soon, if the media side does its part.
        model.event(&wanted(9));
        let mut actions = camera.on(wanted(9), now);
        model.check(&actions, &camera, now)?;
        for _ in 0..4 {
            if model.running {
                break;
            }
            let event = match model.open {
                Some(generation) if model.closing => CameraEvent::Closed { generation },
                Some(generation) => CameraEvent::Running { generation },
                None => {
                    now = camera.deadline().expect("wanted, closed, and never to be opened");
                    CameraEvent::Tick
                }
            };
            model.event(&event);
            actions = camera.on(event, now);
            model.check(&actions, &camera, now)?;
        }
        prop_assert!(actions.contains(&CameraAction::Running));
        // And it closes for good.
        model.event(&CLOSED);
        let generation = camera.generation();
        prop_assert_eq!(camera.on(CLOSED, now), [CameraAction::Close { generation }]);
        camera.on(CameraEvent::Closed { generation }, now);
        prop_assert_eq!(camera.state(), CameraState::Closed);
        prop_assert_eq!(camera.deadline(), None);
    }
}
