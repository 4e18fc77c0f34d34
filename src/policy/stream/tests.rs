mod ends;
mod properties;

use super::*;
use crate::protocol::{Owner, OwnerKind};

fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// A failure with the details that a stage reports.
fn said(cause: Cause) -> Failure {
    Failure::new(cause, format!("words about {cause}"))
}

/// A report outside of outages, of a decision.
fn report(state: StreamState, cause: Option<Cause>) -> StreamReport {
    StreamReport::new(state, cause.map(Into::into))
}

fn settings() -> StreamSettings {
    StreamSettings {
        give_up_after: Some(ms(120_000)),
        keep_alive_timeout: Some(ms(60_000)),
        stop_on_keep_alive_loss: true,
        link_loss_grace: Some(ms(120_000)),
        camera_hold: ms(10_000),
        duration_limit: None,
        seed: 7,
        resumed: false,
    }
}

/// A stream with its own time, which tests advance.
struct Bench {
    stream: Stream,
    now: Time,
}

impl Bench {
    fn new(settings: StreamSettings) -> Self {
        let (stream, actions) = Stream::new(settings, ms(0));
        let reports =
            [StreamAction::Report(report(StreamState::Initializing, None)), StreamAction::OpenPublisher { attempt: 1 }];
        assert_eq!(actions, reports, "camera and server are worked on at the same time");
        Self { stream, now: ms(0) }
    }

    /// Streams since time zero.
    fn streaming(settings: StreamSettings) -> Self {
        let mut bench = Self::new(settings);
        bench.on(StreamEvent::CameraRunning);
        bench.on(StreamEvent::PublisherFlowing { attempt: 1 });
        assert_eq!(bench.stream.state(), StreamState::Streaming);
        bench
    }

    fn on(&mut self, event: StreamEvent) -> Vec<StreamAction> {
        self.stream.on(event, self.now)
    }

    /// Ticks like the owner, whenever due, for this long.
    fn pass(&mut self, time: Time) -> Vec<StreamAction> {
        let until = self.now + time;
        let mut actions = Vec::new();
        while let Some(at) = self.stream.deadline().filter(|&at| at <= until) {
            self.now = at;
            actions.extend(self.on(StreamEvent::Tick));
        }
        self.now = until;
        actions
    }

    /// The current publisher fails and is closed.
    fn lose(&mut self, cause: Cause) -> Vec<StreamAction> {
        let attempt = self.stream.attempt;
        let mut actions = self.on(StreamEvent::PublisherLost { attempt, failure: said(cause) });
        actions.extend(self.on(StreamEvent::PublisherClosed { attempt }));
        actions
    }

    /// Fails every attempt with this cause until the stream ends; returns when that was.
    fn fail_until_the_end(&mut self, cause: Cause) -> (Time, StreamState, Cause) {
        let mut actions = self.lose(cause);
        loop {
            if let Some(StreamAction::End { state, failure }) = actions.last() {
                assert_eq!(*failure, said(failure.cause));
                return (self.now, *state, failure.cause);
            }
            self.now = self.stream.deadline().expect("alive, and nothing to wait for");
            actions = self.on(StreamEvent::Tick);
            if actions.iter().any(|action| matches!(action, StreamAction::OpenPublisher { .. })) {
                actions.extend(self.lose(cause));
            }
        }
    }
}

fn reports(actions: &[StreamAction]) -> Vec<(StreamState, Option<Cause>)> {
    let report = |action: &StreamAction| match action {
        StreamAction::Report(report) => Some((report.state, report.cause())),
        _ => None,
    };
    actions.iter().filter_map(report).collect()
}

#[track_caller]
fn only_report(actions: &[StreamAction]) -> StreamReport {
    match actions {
        [StreamAction::Report(report)] => report.clone(),
        other => panic!("not a lone report: {other:?}"),
    }
}

/// The actions that end a stream when nothing is open.
fn the_end(state: StreamState, failure: impl Into<Failure>) -> [StreamAction; 2] {
    let failure = failure.into();
    [StreamAction::Report(StreamReport::new(state, Some(failure.clone()))), StreamAction::End { state, failure }]
}

#[test]
fn what_a_former_process_streamed_begins_with_an_outage_and_ends_like_one() {
    let resumed = StreamSettings { resumed: true, duration_limit: Some(ms(5000)), ..settings() };
    let (stream, actions) = Stream::new(resumed, ms(0));
    let StreamAction::Report(first) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!((first.state, first.cause()), (StreamState::Reconnecting, Some(Cause::DaemonRestarted)));
    let mut bench = Bench { stream, now: ms(0) };
    bench.on(StreamEvent::LinkDown);
    bench.on(StreamEvent::CameraRunning);
    let actions = bench.on(StreamEvent::PublisherFlowing { attempt: 1 });
    assert!(matches!(
        &actions[..],
        [StreamAction::Report(StreamReport { state: StreamState::Streaming, reconnected: true, .. })]
    ));
    let actions = bench.pass(ms(5000));
    let ends = actions
        .iter()
        .any(|a| matches!(a, StreamAction::Report(report) if report.cause() == Some(Cause::DurationOver)));
    assert!(ends, "what is left of its duration counts from now: {actions:?}");
}

#[test]
fn streaming_needs_camera_and_server_in_either_order() {
    let mut bench = Bench::new(settings());
    assert_eq!(reports(&bench.on(StreamEvent::CameraRunning)), [(StreamState::Connecting, None)]);
    assert_eq!(reports(&bench.on(StreamEvent::PublisherFlowing { attempt: 1 })), [(StreamState::Streaming, None)]);

    let mut bench = Bench::new(settings());
    assert_eq!(bench.on(StreamEvent::PublisherFlowing { attempt: 1 }), []);
    let streaming = only_report(&bench.on(StreamEvent::CameraRunning));
    assert_eq!(streaming, report(StreamState::Streaming, None));
    assert_eq!(bench.on(StreamEvent::CameraRunning), [], "nothing new to say");
}

#[test]
fn a_lost_server_is_reported_with_attempt_limit_delay_and_cause_and_tried_again() {
    let mut bench = Bench::streaming(settings());
    bench.pass(ms(6000));
    bench.on(StreamEvent::KeepAlive);
    let actions = bench.on(StreamEvent::PublisherLost { attempt: 1, failure: said(Cause::ConnectionLost) });
    let lost = only_report(&actions);
    assert_eq!((lost.state, lost.cause(), lost.attempt), (StreamState::Reconnecting, Some(Cause::ConnectionLost), 1));
    let delay = lost.retry_in.unwrap();
    assert!((ms(200)..=ms(250)).contains(&delay), "{delay:?}");
    assert!((20..=40).contains(&lost.max_attempts.unwrap()), "{lost:?}");
    bench.on(StreamEvent::PublisherClosed { attempt: 1 });
    assert_eq!(bench.pass(delay), [StreamAction::OpenPublisher { attempt: 2 }]);

    let second =
        only_report(&bench.on(StreamEvent::PublisherLost { attempt: 2, failure: said(Cause::ConnectRefused) }));
    assert_eq!((second.cause(), second.attempt), (Some(Cause::ConnectRefused), 2));
    assert!(second.retry_in.unwrap() > delay);
    assert_eq!(bench.stream.attempt(), 2);
    bench.on(StreamEvent::PublisherClosed { attempt: 2 });
    bench.pass(ms(1000));

    let back = only_report(&bench.on(StreamEvent::PublisherFlowing { attempt: 3 }));
    assert_eq!((back.state, back.attempt, back.reconnected), (StreamState::Streaming, 2, true));
    assert_eq!(bench.stream.attempt(), 0);
    assert_eq!(bench.stream.failure().map(|failure| failure.cause), None);
}

#[test]
fn the_first_streaming_is_no_reconnection_even_after_retries() {
    let mut bench = Bench::new(settings());
    bench.on(StreamEvent::CameraRunning);
    bench.lose(Cause::ConnectRefused);
    bench.pass(ms(250));
    let first = only_report(&bench.on(StreamEvent::PublisherFlowing { attempt: 2 }));
    assert_eq!(first, report(StreamState::Streaming, None));
}

#[test]
fn the_next_publisher_waits_for_the_former_one_but_not_longer_than_2_s() {
    let mut bench = Bench::streaming(settings());
    bench.on(StreamEvent::PublisherLost { attempt: 1, failure: said(Cause::ServerFrozen) });
    assert_eq!(bench.pass(ms(1900)), []);
    assert_eq!(bench.on(StreamEvent::PublisherClosed { attempt: 1 }), [StreamAction::OpenPublisher { attempt: 2 }]);

    bench.on(StreamEvent::PublisherLost { attempt: 2, failure: said(Cause::ServerFrozen) });
    assert_eq!(bench.pass(ms(2000)), [StreamAction::OpenPublisher { attempt: 3 }]);
}

#[test]
fn words_of_older_publishers_are_ignored() {
    let mut bench = Bench::streaming(settings());
    bench.lose(Cause::ConnectionLost);
    bench.pass(ms(250));
    assert_eq!(bench.on(StreamEvent::PublisherFlowing { attempt: 1 }), []);
    assert_eq!(bench.on(StreamEvent::PublisherLost { attempt: 1, failure: said(Cause::InvalidUrl) }), []);
    assert_eq!(bench.on(StreamEvent::PublisherClosed { attempt: 1 }), []);
    assert_eq!(bench.stream.state(), StreamState::Reconnecting);
}

#[test]
fn a_publisher_that_closes_without_a_word_is_a_loss() {
    let mut bench = Bench::streaming(settings());
    let actions = bench.on(StreamEvent::PublisherClosed { attempt: 1 });
    assert_eq!(reports(&actions), [(StreamState::Reconnecting, Some(Cause::Internal))]);
    assert_eq!(bench.pass(ms(250)), [StreamAction::OpenPublisher { attempt: 2 }]);
}

#[test]
fn it_gives_up_120_s_after_media_last_went_through_with_the_last_cause() {
    let mut bench = Bench::streaming(settings());
    for _ in 0..4 {
        bench.on(StreamEvent::KeepAlive);
        bench.pass(ms(50_000));
    }
    let (at, state, cause) = bench.fail_until_the_end(Cause::ConnectRefused);
    assert_eq!((at, state, cause), (ms(320_000), StreamState::Error, Cause::ConnectRefused));
}

#[test]
fn it_gives_up_120_s_after_the_start_if_media_never_went_through() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.fail_until_the_end(Cause::DnsFailed), (ms(120_000), StreamState::Error, Cause::DnsFailed));

    // No event ever comes: the stream still ends, and with a cause.
    let mut bench = Bench::new(settings());
    bench.on(StreamEvent::CameraRunning);
    assert_eq!(bench.pass(ms(120_000)), [StreamAction::ClosePublisher { attempt: 1 }]);
    let end = bench.on(StreamEvent::PublisherClosed { attempt: 1 });
    assert_eq!(end, the_end(StreamState::Error, Cause::HandshakeTimeout));
}

#[test]
fn it_never_gives_up_if_so_configured() {
    let mut bench = Bench::new(StreamSettings { give_up_after: None, ..settings() });
    for _ in 0..1000 {
        let lost = bench.lose(Cause::NetworkUnreachable);
        assert_eq!(only_report(&lost).max_attempts, None);
        assert!(bench.pass(ms(5000)).iter().any(|action| matches!(action, StreamAction::OpenPublisher { .. })));
    }
}

#[test]
fn stream_exists_has_its_own_budget_of_3_minutes_at_2_s() {
    for give_up_after in [Some(ms(20_000)), Some(ms(120_000)), None] {
        let mut bench = Bench::new(StreamSettings { give_up_after, ..settings() });
        bench.pass(ms(1000));
        let lost = only_report(&bench.lose(Cause::StreamExists));
        assert_eq!((lost.retry_in, lost.max_attempts), (Some(ms(2000)), Some(90)));
        bench.pass(ms(2000));
        let (at, state, cause) = bench.fail_until_the_end(Cause::StreamExists);
        assert_eq!((at, state, cause), (ms(181_000), StreamState::Error, Cause::StreamExists));
    }
}

#[test]
fn the_budget_of_stream_exists_is_whole_again_after_media_went_through() {
    let mut bench = Bench::new(settings());
    bench.on(StreamEvent::CameraRunning);
    bench.lose(Cause::StreamExists);
    bench.pass(ms(2000));
    bench.on(StreamEvent::PublisherFlowing { attempt: 2 });
    bench.pass(ms(10_000));
    let (at, ..) = bench.fail_until_the_end(Cause::StreamExists);
    assert_eq!(at, ms(192_000));
}

#[test]
fn a_rejected_key_is_tried_once_more_after_1_s() {
    let mut bench = Bench::new(settings());
    let lost = only_report(&bench.lose(Cause::PublishRejected));
    assert_eq!((lost.retry_in, lost.max_attempts), (Some(ms(1000)), Some(1)));
    assert_eq!(bench.pass(ms(1000)), [StreamAction::OpenPublisher { attempt: 2 }]);
    assert_eq!(bench.lose(Cause::PublishRejected), the_end(StreamState::Error, said(Cause::PublishRejected)));
}

#[test]
fn a_key_rejected_again_after_media_went_through_is_tried_again() {
    let mut bench = Bench::new(settings());
    bench.on(StreamEvent::CameraRunning);
    bench.lose(Cause::PublishRejected);
    bench.pass(ms(1000));
    bench.on(StreamEvent::PublisherFlowing { attempt: 2 });
    bench.pass(ms(10_000));
    let lost = only_report(&bench.lose(Cause::PublishRejected));
    assert_eq!(lost.state, StreamState::Reconnecting);
}

#[test]
fn what_cannot_heal_ends_at_once() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.lose(Cause::InvalidUrl), the_end(StreamState::Error, said(Cause::InvalidUrl)));

    let mut bench = Bench::new(settings());
    let actions = bench.on(StreamEvent::CameraFailed(said(Cause::CameraBusy)));
    assert_eq!(actions, [StreamAction::ClosePublisher { attempt: 1 }]);
    let end = bench.on(StreamEvent::PublisherClosed { attempt: 1 });
    assert_eq!(end, the_end(StreamState::Error, said(Cause::CameraBusy)));
}

#[test]
fn a_lost_camera_keeps_the_connection_and_streaming_needs_a_new_flow() {
    let mut bench = Bench::streaming(settings());
    let lost = only_report(&bench.on(StreamEvent::CameraLost(said(Cause::CameraLost))));
    assert_eq!((lost.state, lost.cause()), (StreamState::Reconnecting, Some(Cause::CameraLost)));
    assert_eq!(bench.on(StreamEvent::CameraLost(said(Cause::CameraLost))), [], "said once");
    let changed = bench.on(StreamEvent::CameraLost(said(Cause::NoCamera)));
    assert_eq!(reports(&changed), [(StreamState::Reconnecting, Some(Cause::NoCamera))]);
    assert_eq!(bench.pass(ms(9000)), []);
    assert_eq!(bench.on(StreamEvent::CameraRunning), [], "no proof yet that media goes through");
    let back = only_report(&bench.on(StreamEvent::PublisherFlowing { attempt: 1 }));
    assert_eq!((back.state, back.attempt, back.reconnected), (StreamState::Streaming, 0, true));
}

#[test]
fn a_loss_is_told_whole_and_the_same_in_other_words_is_no_news() {
    let mut bench = Bench::streaming(settings());
    let owner = Owner { kind: OwnerKind::Foreign, name: "zoom".into(), pid: Some(812), for_s: None };
    let busy = Failure { owner: Some(owner.clone()), ..said(Cause::CameraBusy) };
    let lost = only_report(&bench.on(StreamEvent::CameraLost(busy.clone())));
    assert_eq!(lost.failure, Some(busy.clone()));
    assert_eq!(bench.on(StreamEvent::CameraLost(Failure { detail: "at the 2nd try".into(), ..busy.clone() })), []);
    let another = Failure { owner: Some(Owner { pid: Some(813), ..owner }), ..busy };
    assert_eq!(only_report(&bench.on(StreamEvent::CameraLost(another.clone()))).failure, Some(another));
}

#[test]
fn a_camera_gone_for_longer_costs_the_connection() {
    let mut bench = Bench::streaming(settings());
    bench.on(StreamEvent::CameraLost(said(Cause::CameraStalled)));
    assert_eq!(bench.pass(ms(10_000)), [StreamAction::ClosePublisher { attempt: 1 }]);
    assert_eq!(bench.on(StreamEvent::PublisherClosed { attempt: 1 }), []);
    assert_eq!(bench.pass(ms(5000)), []);
    assert_eq!(bench.on(StreamEvent::CameraRunning), [StreamAction::OpenPublisher { attempt: 2 }]);
    let back = bench.on(StreamEvent::PublisherFlowing { attempt: 2 });
    assert_eq!(reports(&back), [(StreamState::Streaming, None)]);

    let mut bench = Bench::streaming(StreamSettings { camera_hold: ms(0), ..settings() });
    assert!(
        bench
            .on(StreamEvent::CameraLost(said(Cause::CameraLost)))
            .contains(&StreamAction::ClosePublisher { attempt: 1 })
    );
}

#[test]
fn a_camera_that_never_comes_back_ends_the_stream_with_its_cause() {
    let mut bench = Bench::streaming(settings());
    bench.on(StreamEvent::CameraLost(said(Cause::CameraLost)));
    bench.pass(ms(10_000));
    bench.on(StreamEvent::PublisherClosed { attempt: 1 });
    assert_eq!(bench.pass(ms(110_000)), the_end(StreamState::Error, said(Cause::CameraLost)));
}

#[test]
fn no_connection_is_tried_while_the_camera_is_gone() {
    let mut bench = Bench::streaming(settings());
    bench.on(StreamEvent::CameraLost(said(Cause::CameraLost)));
    assert_eq!(bench.lose(Cause::ConnectionLost), [], "the camera is what it waits for");
    assert_eq!(bench.pass(ms(20_000)), []);
    assert_eq!(bench.on(StreamEvent::CameraRunning), [StreamAction::OpenPublisher { attempt: 2 }]);
}

#[test]
fn frames_that_overtake_the_word_of_the_camera_count() {
    let mut bench = Bench::streaming(settings());
    bench.on(StreamEvent::CameraLost(said(Cause::CameraStalled)));
    assert_eq!(bench.on(StreamEvent::PublisherFlowing { attempt: 1 }), []);
    assert_eq!(reports(&bench.on(StreamEvent::CameraRunning)), [(StreamState::Streaming, None)]);
}

#[test]
fn a_server_that_keeps_falling_over_is_not_hammered() {
    let mut bench = Bench::streaming(StreamSettings { keep_alive_timeout: None, ..settings() });
    let mut last = None;
    for attempt in 2..14 {
        bench.pass(ms(5000));
        last = only_report(&bench.lose(Cause::ConnectionLost)).retry_in;
        assert!(bench.pass(ms(250)).contains(&StreamAction::OpenPublisher { attempt }) || last == Some(ms(5000)));
        if last == Some(ms(5000)) {
            break;
        }
        bench.on(StreamEvent::PublisherFlowing { attempt });
    }
    assert_eq!(last, Some(ms(5000)), "more than 10 losses in a minute");
}
