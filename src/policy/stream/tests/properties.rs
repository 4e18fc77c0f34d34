//! Properties that hold for any events in any order.

use proptest::prelude::*;

use super::*;

/// `attempt` and `generation` numbers relative to the latest: 0 is the current one.
fn steps() -> impl Strategy<Value = Vec<(StreamEvent, u64)>> {
    let network = prop::sample::select(vec![
        Cause::ConnectionLost,
        Cause::ConnectRefused,
        Cause::ServerFrozen,
        Cause::StreamExists,
        Cause::PublishRejected,
        Cause::Internal,
        Cause::CameraLost,
    ]);
    let rare = prop::sample::select(vec![Cause::InvalidUrl, Cause::TlsCertificateRejected]);
    let camera = prop::sample::select(vec![Cause::CameraLost, Cause::NoCamera, Cause::CameraStalled]);
    let stop = prop::sample::select(vec![Cause::Requested, Cause::Replaced, Cause::LinkLost, Cause::Internal]);
    let attempt = prop_oneof![9 => Just(0u32), 1 => 1u32..4];
    let event = prop_oneof![
        60 => Just(StreamEvent::CameraRunning),
        40 => camera.prop_map(|cause| StreamEvent::CameraLost(said(cause))),
        1 => Just(StreamEvent::CameraFailed(said(Cause::CameraBusy))),
        120 => attempt.clone().prop_map(|attempt| StreamEvent::PublisherFlowing { attempt }),
        80 => (attempt.clone(), network).prop_map(|(attempt, cause)| StreamEvent::PublisherLost { attempt, failure: said(cause) }),
        1 => (attempt.clone(), rare).prop_map(|(attempt, cause)| StreamEvent::PublisherLost { attempt, failure: said(cause) }),
        80 => attempt.prop_map(|attempt| StreamEvent::PublisherClosed { attempt }),
        30 => Just(StreamEvent::KeepAlive),
        5 => Just(StreamEvent::LinkUp),
        5 => Just(StreamEvent::LinkDown),
        2 => stop.prop_map(StreamEvent::Stop),
        120 => Just(StreamEvent::Tick),
    ];
    prop::collection::vec((event, prop_oneof![8 => Just(0u64), 8 => 0u64..3000, 1 => 0u64..50_000]), 1..200)
}

fn any_settings() -> impl Strategy<Value = StreamSettings> {
    let time = |times: &'static [u64]| prop::sample::select(times).prop_map(ms);
    (
        prop::option::of(time(&[0, 1000, 20_000, 120_000])),
        prop::option::of(time(&[0, 3000, 60_000])),
        any::<bool>(),
        prop::option::of(time(&[0, 5000, 120_000])),
        time(&[0, 2000, 10_000]),
        prop::option::of(time(&[0, 10_000, 100_000])),
        any::<u64>(),
    )
        .prop_map(
            |(give_up_after, keep_alive_timeout, stop, link_loss_grace, camera_hold, duration_limit, seed)| {
                let stop_on_keep_alive_loss = stop;
                StreamSettings {
                    give_up_after,
                    keep_alive_timeout,
                    stop_on_keep_alive_loss,
                    link_loss_grace,
                    camera_hold,
                    duration_limit,
                    seed,
                    resumed: false,
                }
            },
        )
}

/// No detail of a reported failure is lost; an end by decision, or without a report, has no detail.
fn whole(failure: &Failure) -> bool {
    *failure == said(failure.cause) || *failure == failure.cause.into()
}

/// What an observer of events and actions can tell.
struct Model {
    camera_running: bool,
    /// The latest publisher, unless it was closed, or was lost or asked to close at least 2 s ago.
    open: Option<u32>,
    /// When `open` was lost or asked to close.
    leaving: Option<Time>,
    flowing: bool,
    latest: u32,
    last_report: Option<StreamReport>,
    ended: bool,
}

impl Model {
    fn event(&mut self, event: &StreamEvent, now: Time) {
        match *event {
            StreamEvent::CameraRunning => self.camera_running = true,
            StreamEvent::CameraLost(_) => (self.camera_running, self.flowing) = (false, false),
            StreamEvent::PublisherFlowing { attempt } if self.open == Some(attempt) && self.leaving.is_none() => {
                self.flowing = true;
            }
            StreamEvent::PublisherLost { attempt, .. } if self.open == Some(attempt) => {
                self.flowing = false;
                self.leaving.get_or_insert(now);
            }
            StreamEvent::PublisherClosed { attempt } if self.open == Some(attempt) => {
                (self.open, self.flowing, self.leaving) = (None, false, None);
            }
            _ => {}
        }
    }

    fn check(&mut self, actions: &[StreamAction], stream: &Stream, now: Time) -> Result<(), TestCaseError> {
        for action in actions {
            prop_assert!(!self.ended, "{action:?} after the end");
            match action {
                StreamAction::OpenPublisher { attempt } => {
                    let gone = self.leaving.is_some_and(|since| now >= since + CLOSE_PATIENCE);
                    prop_assert!(self.open.is_none() || gone, "two publishers open");
                    prop_assert_eq!(*attempt, self.latest + 1);
                    self.latest = *attempt;
                    (self.open, self.leaving, self.flowing) = (Some(*attempt), None, false);
                }
                StreamAction::ClosePublisher { attempt } => {
                    prop_assert_eq!(Some(*attempt), self.open);
                    prop_assert_eq!(self.leaving, None, "closed twice, or after it was lost");
                    (self.leaving, self.flowing) = (Some(now), false);
                }
                StreamAction::Report(report) => {
                    prop_assert_ne!(Some(report), self.last_report.as_ref(), "nothing new in it");
                    let last_state = self.last_report.as_ref().map(|report| report.state);
                    prop_assert!(!last_state.is_some_and(StreamState::is_terminal));
                    if last_state == Some(StreamState::Stopping) {
                        prop_assert!(report.state.is_terminal(), "{report:?} while stopping");
                    }
                    if report.state == StreamState::Streaming {
                        prop_assert!(self.camera_running && self.flowing, "streaming is not true");
                    }
                    let explained = !matches!(
                        report.state,
                        StreamState::Initializing | StreamState::Connecting | StreamState::Streaming
                    );
                    prop_assert_eq!(report.failure.is_some(), explained);
                    prop_assert!(report.failure.as_ref().is_none_or(whole), "{report:?}");
                    match report.state {
                        StreamState::Reconnecting => prop_assert!(report.attempt > 0),
                        // The retries it took; none for a camera that came back.
                        StreamState::Streaming if report.reconnected => {}
                        _ => prop_assert_eq!(report.attempt, 0),
                    }
                    prop_assert!(report.max_attempts.is_none_or(|most| most >= report.attempt));
                    self.last_report = Some(report.clone());
                }
                StreamAction::End { state, failure } => {
                    let last = self.last_report.as_ref().unwrap();
                    prop_assert_eq!((last.state, last.failure.as_ref()), (*state, Some(failure)));
                    prop_assert!(state.is_terminal());
                    let gone = self.leaving.is_some_and(|since| now >= since + CLOSE_PATIENCE);
                    prop_assert!(self.open.is_none() || gone, "ended with an open publisher");
                    self.ended = true;
                }
            }
        }
        prop_assert!(stream.deadline().is_none_or(|at| at > now), "a deadline in the past");
        prop_assert_eq!(self.last_report.as_ref().map(|report| report.state), Some(stream.state()));
        if stream.state() == StreamState::Streaming && !matches!(stream.life, Life::Ending { .. }) {
            prop_assert!(self.camera_running && self.flowing, "still said to stream");
        }
        prop_assert!(!self.ended || stream.deadline().is_none());
        Ok(())
    }
}

fn current(event: StreamEvent, latest: u32) -> StreamEvent {
    let number = |back: u32| latest.saturating_sub(back);
    match event {
        StreamEvent::PublisherFlowing { attempt } => StreamEvent::PublisherFlowing { attempt: number(attempt) },
        StreamEvent::PublisherLost { attempt, failure } => {
            StreamEvent::PublisherLost { attempt: number(attempt), failure }
        }
        StreamEvent::PublisherClosed { attempt } => StreamEvent::PublisherClosed { attempt: number(attempt) },
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn its_word_is_true_and_it_ends_once(settings in any_settings(), steps in steps(), by_time in any::<bool>()) {
        let mut now = ms(1000);
        let (mut stream, actions) = Stream::new(settings, now);
        let mut model = Model {
            camera_running: false,
            open: None,
            leaving: None,
            flowing: false,
            latest: 0,
            last_report: None,
            ended: false,
        };
        model.check(&actions, &stream, now)?;
        for (event, pause) in steps {
            now += ms(pause);
            let actions = stream.on(StreamEvent::Tick, now);
            model.check(&actions, &stream, now)?;
            let event = current(event, model.latest);
            model.event(&event, now);
            let actions = stream.on(event, now);
            model.check(&actions, &stream, now)?;
        }
        // In any state a stop ends it: when the publisher reports that it is closed, or after a while without.
        let actions = stream.on(StreamEvent::Stop(Cause::Requested), now);
        model.check(&actions, &stream, now)?;
        let event = if by_time {
            now += END_PATIENCE;
            StreamEvent::Tick
        } else {
            StreamEvent::PublisherClosed { attempt: model.latest }
        };
        model.event(&event, now);
        let actions = stream.on(event, now);
        model.check(&actions, &stream, now)?;
        prop_assert!(model.ended);
        prop_assert!(stream.state().is_terminal() && stream.failure().is_some());
    }

    /// Left alone with a server that always fails, the stream ends by itself, in few steps.
    #[test]
    fn it_gives_up_by_itself(settings in any_settings(), give_up in 0u64..200_000, camera in any::<bool>()) {
        let settings = StreamSettings { give_up_after: Some(ms(give_up)), ..settings };
        let (mut stream, mut actions) = Stream::new(settings, ms(0));
        if camera {
            actions.extend(stream.on(StreamEvent::CameraRunning, ms(0)));
        }
        let mut steps = 0;
        while !matches!(actions.last(), Some(StreamAction::End { .. })) {
            steps += 1;
            prop_assert!(steps < 300, "a busy loop");
            let now = stream.deadline().expect("alive, and nothing to wait for");
            actions = stream.on(StreamEvent::Tick, now);
            if let Some(StreamAction::OpenPublisher { attempt }) = actions.first().cloned() {
                actions.extend(stream.on(StreamEvent::PublisherLost { attempt, failure: said(Cause::ConnectRefused) }, now));
            }
        }
    }
}
