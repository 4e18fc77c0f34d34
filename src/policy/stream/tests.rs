use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn settings() -> Settings {
    Settings {
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

/// A stream with its time, which tests move forward.
struct Bench {
    stream: Stream,
    now: Time,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let (stream, actions) = Stream::new(settings, ms(0));
        let reports = [Action::Report(report(StreamState::Initializing, None)), Action::OpenPublisher { attempt: 1 }];
        assert_eq!(actions, reports, "camera and server are worked on at the same time");
        Self { stream, now: ms(0) }
    }

    /// Streams since time zero.
    fn streaming(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.on(Event::CameraRunning);
        bench.on(Event::PublisherFlowing { attempt: 1 });
        assert_eq!(bench.stream.state(), StreamState::Streaming);
        bench
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.stream.on(event, self.now)
    }

    /// Ticks as its owner does, whenever due, for that long.
    fn pass(&mut self, time: Time) -> Vec<Action> {
        let until = self.now + time;
        let mut actions = Vec::new();
        while let Some(at) = self.stream.deadline().filter(|&at| at <= until) {
            self.now = at;
            actions.extend(self.on(Event::Tick));
        }
        self.now = until;
        actions
    }

    /// The current publisher fails and is closed.
    fn lose(&mut self, cause: Cause) -> Vec<Action> {
        let attempt = self.stream.attempt;
        let mut actions = self.on(Event::PublisherLost { attempt, cause });
        actions.extend(self.on(Event::PublisherClosed { attempt }));
        actions
    }

    /// Lets every attempt fail with this cause until the stream ends; when that was.
    fn fail_until_the_end(&mut self, cause: Cause) -> (Time, StreamState, Cause) {
        let mut actions = self.lose(cause);
        loop {
            if let Some(Action::End { state, cause }) = actions.last() {
                return (self.now, *state, *cause);
            }
            self.now = self.stream.deadline().expect("alive, and nothing to wait for");
            actions = self.on(Event::Tick);
            if actions.iter().any(|action| matches!(action, Action::OpenPublisher { .. })) {
                actions.extend(self.lose(cause));
            }
        }
    }
}

fn reports(actions: &[Action]) -> Vec<(StreamState, Option<Cause>)> {
    let report = |action: &Action| match action {
        Action::Report(report) => Some((report.state, report.cause)),
        _ => None,
    };
    actions.iter().filter_map(report).collect()
}

#[track_caller]
fn only_report(actions: &[Action]) -> StreamReport {
    match actions {
        [Action::Report(report)] => report.clone(),
        other => panic!("not a lone report: {other:?}"),
    }
}

/// The actions that end a stream when nothing is open.
fn the_end(state: StreamState, cause: Cause) -> [Action; 2] {
    [Action::Report(report(state, Some(cause))), Action::End { state, cause }]
}

#[test]
fn what_a_former_process_streamed_begins_with_an_outage_and_ends_like_one() {
    let resumed = Settings { resumed: true, duration_limit: Some(ms(5000)), ..settings() };
    let (stream, actions) = Stream::new(resumed, ms(0));
    let Action::Report(first) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!((first.state, first.cause), (StreamState::Reconnecting, Some(Cause::DaemonRestarted)));
    let mut bench = Bench { stream, now: ms(0) };
    bench.on(Event::LinkDown);
    bench.on(Event::CameraRunning);
    let actions = bench.on(Event::PublisherFlowing { attempt: 1 });
    assert!(matches!(
        &actions[..],
        [Action::Report(StreamReport { state: StreamState::Streaming, reconnected: true, .. })]
    ));
    let actions = bench.pass(ms(5000));
    let ends = actions.iter().any(|a| matches!(a, Action::Report(report) if report.cause == Some(Cause::DurationOver)));
    assert!(ends, "what is left of its duration counts from now: {actions:?}");
}

#[test]
fn streaming_needs_camera_and_server_in_either_order() {
    let mut bench = Bench::new(settings());
    assert_eq!(reports(&bench.on(Event::CameraRunning)), [(StreamState::Connecting, None)]);
    assert_eq!(reports(&bench.on(Event::PublisherFlowing { attempt: 1 })), [(StreamState::Streaming, None)]);

    let mut bench = Bench::new(settings());
    assert_eq!(bench.on(Event::PublisherFlowing { attempt: 1 }), []);
    let streaming = only_report(&bench.on(Event::CameraRunning));
    assert_eq!(streaming, report(StreamState::Streaming, None));
    assert_eq!(bench.on(Event::CameraRunning), [], "nothing new to say");
}

#[test]
fn a_lost_server_is_reported_with_attempt_limit_delay_and_cause_and_tried_again() {
    let mut bench = Bench::streaming(settings());
    bench.pass(ms(6000));
    bench.on(Event::KeepAlive);
    let actions = bench.on(Event::PublisherLost { attempt: 1, cause: Cause::ConnectionLost });
    let lost = only_report(&actions);
    assert_eq!((lost.state, lost.cause, lost.attempt), (StreamState::Reconnecting, Some(Cause::ConnectionLost), 1));
    let delay = lost.retry_in.unwrap();
    assert!((ms(200)..=ms(250)).contains(&delay), "{delay:?}");
    assert!((20..=40).contains(&lost.max_attempts.unwrap()), "{lost:?}");
    bench.on(Event::PublisherClosed { attempt: 1 });
    assert_eq!(bench.pass(delay), [Action::OpenPublisher { attempt: 2 }]);

    let second = only_report(&bench.on(Event::PublisherLost { attempt: 2, cause: Cause::ConnectRefused }));
    assert_eq!((second.cause, second.attempt), (Some(Cause::ConnectRefused), 2));
    assert!(second.retry_in.unwrap() > delay);
    assert_eq!(bench.stream.attempt(), 2);
    bench.on(Event::PublisherClosed { attempt: 2 });
    bench.pass(ms(1000));

    let back = only_report(&bench.on(Event::PublisherFlowing { attempt: 3 }));
    assert_eq!((back.state, back.attempt, back.reconnected), (StreamState::Streaming, 2, true));
    assert_eq!(bench.stream.attempt(), 0);
    assert_eq!(bench.stream.cause(), None);
}

#[test]
fn the_first_streaming_is_no_reconnection_even_after_retries() {
    let mut bench = Bench::new(settings());
    bench.on(Event::CameraRunning);
    bench.lose(Cause::ConnectRefused);
    bench.pass(ms(250));
    let first = only_report(&bench.on(Event::PublisherFlowing { attempt: 2 }));
    assert_eq!(first, report(StreamState::Streaming, None));
}

#[test]
fn the_next_publisher_waits_for_the_former_one_but_not_longer_than_2_s() {
    let mut bench = Bench::streaming(settings());
    bench.on(Event::PublisherLost { attempt: 1, cause: Cause::ServerFrozen });
    assert_eq!(bench.pass(ms(1900)), []);
    assert_eq!(bench.on(Event::PublisherClosed { attempt: 1 }), [Action::OpenPublisher { attempt: 2 }]);

    bench.on(Event::PublisherLost { attempt: 2, cause: Cause::ServerFrozen });
    assert_eq!(bench.pass(ms(2000)), [Action::OpenPublisher { attempt: 3 }]);
}

#[test]
fn words_of_older_publishers_are_ignored() {
    let mut bench = Bench::streaming(settings());
    bench.lose(Cause::ConnectionLost);
    bench.pass(ms(250));
    assert_eq!(bench.on(Event::PublisherFlowing { attempt: 1 }), []);
    assert_eq!(bench.on(Event::PublisherLost { attempt: 1, cause: Cause::InvalidUrl }), []);
    assert_eq!(bench.on(Event::PublisherClosed { attempt: 1 }), []);
    assert_eq!(bench.stream.state(), StreamState::Reconnecting);
}

#[test]
fn a_publisher_that_closes_without_a_word_is_a_loss() {
    let mut bench = Bench::streaming(settings());
    let actions = bench.on(Event::PublisherClosed { attempt: 1 });
    assert_eq!(reports(&actions), [(StreamState::Reconnecting, Some(Cause::Internal))]);
    assert_eq!(bench.pass(ms(250)), [Action::OpenPublisher { attempt: 2 }]);
}

#[test]
fn it_gives_up_120_s_after_media_last_went_through_with_the_last_cause() {
    let mut bench = Bench::streaming(settings());
    for _ in 0..4 {
        bench.on(Event::KeepAlive);
        bench.pass(ms(50_000));
    }
    let (at, state, cause) = bench.fail_until_the_end(Cause::ConnectRefused);
    assert_eq!((at, state, cause), (ms(320_000), StreamState::Error, Cause::ConnectRefused));
}

#[test]
fn it_gives_up_120_s_after_the_start_if_media_never_went_through() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.fail_until_the_end(Cause::DnsFailed), (ms(120_000), StreamState::Error, Cause::DnsFailed));

    // Nobody ever says anything: still it ends, and with a cause.
    let mut bench = Bench::new(settings());
    bench.on(Event::CameraRunning);
    assert_eq!(bench.pass(ms(120_000)), [Action::ClosePublisher { attempt: 1 }]);
    let end = bench.on(Event::PublisherClosed { attempt: 1 });
    assert_eq!(end, the_end(StreamState::Error, Cause::HandshakeTimeout));
}

#[test]
fn it_never_gives_up_if_so_configured() {
    let mut bench = Bench::new(Settings { give_up_after: None, ..settings() });
    for _ in 0..1000 {
        let lost = bench.lose(Cause::NetworkUnreachable);
        assert_eq!(only_report(&lost).max_attempts, None);
        assert!(bench.pass(ms(5000)).iter().any(|action| matches!(action, Action::OpenPublisher { .. })));
    }
}

#[test]
fn stream_exists_has_its_own_budget_of_3_minutes_at_2_s() {
    for give_up_after in [Some(ms(20_000)), Some(ms(120_000)), None] {
        let mut bench = Bench::new(Settings { give_up_after, ..settings() });
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
    bench.on(Event::CameraRunning);
    bench.lose(Cause::StreamExists);
    bench.pass(ms(2000));
    bench.on(Event::PublisherFlowing { attempt: 2 });
    bench.pass(ms(10_000));
    let (at, ..) = bench.fail_until_the_end(Cause::StreamExists);
    assert_eq!(at, ms(192_000));
}

#[test]
fn a_rejected_key_is_tried_once_more_after_1_s() {
    let mut bench = Bench::new(settings());
    let lost = only_report(&bench.lose(Cause::PublishRejected));
    assert_eq!((lost.retry_in, lost.max_attempts), (Some(ms(1000)), Some(1)));
    assert_eq!(bench.pass(ms(1000)), [Action::OpenPublisher { attempt: 2 }]);
    assert_eq!(bench.lose(Cause::PublishRejected), the_end(StreamState::Error, Cause::PublishRejected));
}

#[test]
fn a_key_rejected_again_after_media_went_through_is_tried_again() {
    let mut bench = Bench::new(settings());
    bench.on(Event::CameraRunning);
    bench.lose(Cause::PublishRejected);
    bench.pass(ms(1000));
    bench.on(Event::PublisherFlowing { attempt: 2 });
    bench.pass(ms(10_000));
    let lost = only_report(&bench.lose(Cause::PublishRejected));
    assert_eq!(lost.state, StreamState::Reconnecting);
}

#[test]
fn what_cannot_heal_ends_at_once() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.lose(Cause::InvalidUrl), the_end(StreamState::Error, Cause::InvalidUrl));

    let mut bench = Bench::new(settings());
    let actions = bench.on(Event::CameraFailed(Cause::CameraBusy));
    assert_eq!(actions, [Action::ClosePublisher { attempt: 1 }]);
    let end = bench.on(Event::PublisherClosed { attempt: 1 });
    assert_eq!(end, the_end(StreamState::Error, Cause::CameraBusy));
}

#[test]
fn a_lost_camera_keeps_the_connection_and_streaming_needs_a_new_flow() {
    let mut bench = Bench::streaming(settings());
    let lost = only_report(&bench.on(Event::CameraLost(Cause::CameraLost)));
    assert_eq!((lost.state, lost.cause), (StreamState::Reconnecting, Some(Cause::CameraLost)));
    assert_eq!(bench.on(Event::CameraLost(Cause::CameraLost)), [], "said once");
    let changed = bench.on(Event::CameraLost(Cause::NoCamera));
    assert_eq!(reports(&changed), [(StreamState::Reconnecting, Some(Cause::NoCamera))]);
    assert_eq!(bench.pass(ms(9000)), []);
    assert_eq!(bench.on(Event::CameraRunning), [], "no proof yet that media goes through");
    let back = only_report(&bench.on(Event::PublisherFlowing { attempt: 1 }));
    assert_eq!((back.state, back.attempt, back.reconnected), (StreamState::Streaming, 0, true));
}

#[test]
fn a_camera_gone_for_longer_costs_the_connection() {
    let mut bench = Bench::streaming(settings());
    bench.on(Event::CameraLost(Cause::CameraStalled));
    assert_eq!(bench.pass(ms(10_000)), [Action::ClosePublisher { attempt: 1 }]);
    assert_eq!(bench.on(Event::PublisherClosed { attempt: 1 }), []);
    assert_eq!(bench.pass(ms(5000)), []);
    assert_eq!(bench.on(Event::CameraRunning), [Action::OpenPublisher { attempt: 2 }]);
    let back = bench.on(Event::PublisherFlowing { attempt: 2 });
    assert_eq!(reports(&back), [(StreamState::Streaming, None)]);

    let mut bench = Bench::streaming(Settings { camera_hold: ms(0), ..settings() });
    assert!(bench.on(Event::CameraLost(Cause::CameraLost)).contains(&Action::ClosePublisher { attempt: 1 }));
}

#[test]
fn a_camera_that_never_comes_back_ends_the_stream_with_its_cause() {
    let mut bench = Bench::streaming(settings());
    bench.on(Event::CameraLost(Cause::CameraLost));
    bench.pass(ms(10_000));
    bench.on(Event::PublisherClosed { attempt: 1 });
    assert_eq!(bench.pass(ms(110_000)), the_end(StreamState::Error, Cause::CameraLost));
}

#[test]
fn no_connection_is_tried_while_the_camera_is_gone() {
    let mut bench = Bench::streaming(settings());
    bench.on(Event::CameraLost(Cause::CameraLost));
    assert_eq!(bench.lose(Cause::ConnectionLost), [], "the camera is what it waits for");
    assert_eq!(bench.pass(ms(20_000)), []);
    assert_eq!(bench.on(Event::CameraRunning), [Action::OpenPublisher { attempt: 2 }]);
}

#[test]
fn frames_that_overtake_the_word_of_the_camera_count() {
    let mut bench = Bench::streaming(settings());
    bench.on(Event::CameraLost(Cause::CameraStalled));
    assert_eq!(bench.on(Event::PublisherFlowing { attempt: 1 }), []);
    assert_eq!(reports(&bench.on(Event::CameraRunning)), [(StreamState::Streaming, None)]);
}

#[test]
fn stop_closes_the_publisher_before_the_terminal_report() {
    let mut bench = Bench::streaming(settings());
    let stopping = Action::Report(report(StreamState::Stopping, Some(Cause::Requested)));
    assert_eq!(bench.on(Event::Stop(Cause::Requested)), [stopping, Action::ClosePublisher { attempt: 1 }]);
    assert_eq!(bench.on(Event::Stop(Cause::Shutdown)), [], "the first reason counts");
    let end = bench.on(Event::PublisherClosed { attempt: 1 });
    assert_eq!(end, the_end(StreamState::Stopped, Cause::Requested));
    assert_eq!(bench.on(Event::Stop(Cause::Shutdown)), []);
    assert_eq!((bench.stream.deadline(), bench.stream.cause()), (None, Some(Cause::Requested)));
}

#[test]
fn stop_waits_for_the_publisher_at_most_3_s() {
    let mut bench = Bench::streaming(settings());
    bench.on(Event::Stop(Cause::Shutdown));
    assert_eq!(bench.pass(ms(2999)), []);
    assert_eq!(bench.pass(ms(1)), the_end(StreamState::Stopped, Cause::Shutdown));
}

#[test]
fn stop_between_two_attempts_ends_at_once() {
    let mut bench = Bench::streaming(settings());
    bench.lose(Cause::ConnectionLost);
    let actions = bench.on(Event::Stop(Cause::Replaced));
    assert_eq!(
        reports(&actions),
        [(StreamState::Stopping, Some(Cause::Replaced)), (StreamState::Stopped, Some(Cause::Replaced))]
    );
    assert_eq!(actions.last(), Some(&Action::End { state: StreamState::Stopped, cause: Cause::Replaced }));
}

#[test]
fn what_somebody_decided_is_stopped_and_what_was_missed_is_error() {
    for (cause, state) in [
        (Cause::Requested, StreamState::Stopped),
        (Cause::Replaced, StreamState::Stopped),
        (Cause::Preempted, StreamState::Stopped),
        (Cause::DurationOver, StreamState::Stopped),
        (Cause::Shutdown, StreamState::Stopped),
        (Cause::HolderGone, StreamState::Stopped),
        (Cause::KeepAliveTimeout, StreamState::Error),
        (Cause::LinkLost, StreamState::Error),
    ] {
        let mut bench = Bench::streaming(settings());
        bench.on(Event::Stop(cause));
        assert_eq!(bench.on(Event::PublisherClosed { attempt: 1 }), the_end(state, cause));
    }
}

#[test]
fn sixty_seconds_without_keep_alive_end_it() {
    let mut bench = Bench::new(settings());
    bench.pass(ms(50_000));
    bench.on(Event::CameraRunning);
    bench.on(Event::PublisherFlowing { attempt: 1 });
    bench.pass(ms(40_000));
    bench.on(Event::KeepAlive);
    assert_eq!(bench.pass(ms(59_999)), []);
    let actions = bench.pass(ms(1));
    assert_eq!(reports(&actions), [(StreamState::Stopping, Some(Cause::KeepAliveTimeout))]);
    let end = bench.on(Event::PublisherClosed { attempt: 1 });
    assert_eq!(end, the_end(StreamState::Error, Cause::KeepAliveTimeout));
}

#[test]
fn keep_alives_are_not_missed_while_it_reconnects() {
    let mut bench = Bench::streaming(settings());
    bench.pass(ms(50_000));
    bench.lose(Cause::ConnectionLost);
    for attempt in 2..10 {
        assert!(bench.pass(ms(11_000)).contains(&Action::OpenPublisher { attempt }));
        bench.lose(Cause::ConnectRefused);
    }
    bench.pass(ms(5000));
    bench.on(Event::PublisherFlowing { attempt: 10 });
    assert_eq!(bench.pass(ms(59_999)), [], "the clock starts at the new publish success");
    assert_eq!(reports(&bench.pass(ms(1))), [(StreamState::Stopping, Some(Cause::KeepAliveTimeout))]);
}

#[test]
fn keep_alives_play_no_part_where_they_are_not_wanted_or_known_to_get_lost() {
    for settings in
        [Settings { keep_alive_timeout: None, ..settings() }, Settings { stop_on_keep_alive_loss: false, ..settings() }]
    {
        let mut bench = Bench::streaming(settings);
        assert_eq!(bench.pass(ms(600_000)), []);
    }
}

#[test]
fn a_lost_link_ends_it_after_the_grace_unless_it_comes_back() {
    let mut bench = Bench::streaming(settings());
    bench.pass(ms(15_000));
    bench.on(Event::LinkDown);
    assert_eq!(bench.pass(ms(119_999)), [], "nor do keep-alives that cannot arrive");
    bench.on(Event::LinkUp);
    bench.on(Event::KeepAlive);
    assert_eq!(bench.pass(ms(10_000)), []);
    bench.on(Event::LinkDown);
    bench.pass(ms(60_000));
    assert_eq!(bench.on(Event::LinkDown), [], "still the same loss");
    let actions = bench.pass(ms(60_000));
    assert_eq!(reports(&actions), [(StreamState::Stopping, Some(Cause::LinkLost))]);
    let end = bench.on(Event::PublisherClosed { attempt: 1 });
    assert_eq!(end, the_end(StreamState::Error, Cause::LinkLost));
}

#[test]
fn a_lost_link_stops_at_once_or_plays_no_part_as_configured() {
    let mut bench = Bench::streaming(Settings { link_loss_grace: Some(ms(0)), ..settings() });
    assert_eq!(reports(&bench.on(Event::LinkDown)), [(StreamState::Stopping, Some(Cause::LinkLost))]);

    let by_hand = Settings { link_loss_grace: None, keep_alive_timeout: None, ..settings() };
    let mut bench = Bench::streaming(by_hand);
    bench.on(Event::LinkDown);
    assert_eq!(bench.pass(ms(600_000)), []);
}

#[test]
fn the_duration_counts_from_the_first_streaming_outages_included() {
    let mut bench = Bench::new(Settings { duration_limit: Some(ms(30_000)), ..settings() });
    bench.pass(ms(20_000));
    bench.on(Event::CameraRunning);
    bench.on(Event::PublisherFlowing { attempt: 1 });
    bench.pass(ms(29_000));
    bench.lose(Cause::ConnectionLost);
    assert!(bench.pass(ms(999)).contains(&Action::OpenPublisher { attempt: 2 }));
    assert_eq!(reports(&bench.pass(ms(1))), [(StreamState::Stopping, Some(Cause::DurationOver))]);
    let end = bench.on(Event::PublisherClosed { attempt: 2 });
    assert_eq!(end, the_end(StreamState::Stopped, Cause::DurationOver));
}

#[test]
fn a_server_that_keeps_falling_over_is_not_hammered() {
    let mut bench = Bench::streaming(Settings { keep_alive_timeout: None, ..settings() });
    let mut last = None;
    for attempt in 2..14 {
        bench.pass(ms(5000));
        last = only_report(&bench.lose(Cause::ConnectionLost)).retry_in;
        assert!(bench.pass(ms(250)).contains(&Action::OpenPublisher { attempt }) || last == Some(ms(5000)));
        if last == Some(ms(5000)) {
            break;
        }
        bench.on(Event::PublisherFlowing { attempt });
    }
    assert_eq!(last, Some(ms(5000)), "more than 10 losses in a minute");
}

// Properties.

/// `attempt` and `generation` numbers relative to the latest: 0 is the current one.
fn steps() -> impl Strategy<Value = Vec<(Event, u64)>> {
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
        60 => Just(Event::CameraRunning),
        40 => camera.prop_map(Event::CameraLost),
        1 => Just(Event::CameraFailed(Cause::CameraBusy)),
        120 => attempt.clone().prop_map(|attempt| Event::PublisherFlowing { attempt }),
        80 => (attempt.clone(), network).prop_map(|(attempt, cause)| Event::PublisherLost { attempt, cause }),
        1 => (attempt.clone(), rare).prop_map(|(attempt, cause)| Event::PublisherLost { attempt, cause }),
        80 => attempt.prop_map(|attempt| Event::PublisherClosed { attempt }),
        30 => Just(Event::KeepAlive),
        5 => Just(Event::LinkUp),
        5 => Just(Event::LinkDown),
        2 => stop.prop_map(Event::Stop),
        120 => Just(Event::Tick),
    ];
    prop::collection::vec((event, prop_oneof![8 => Just(0u64), 8 => 0u64..3000, 1 => 0u64..50_000]), 1..200)
}

fn any_settings() -> impl Strategy<Value = Settings> {
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
                Settings {
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

/// What an observer of events and actions knows.
struct Model {
    camera_running: bool,
    /// The latest publisher, if it was neither closed, nor lost or asked to close 2 s ago or more.
    open: Option<u32>,
    /// When that one was lost or asked to close.
    leaving: Option<Time>,
    flowing: bool,
    latest: u32,
    last_report: Option<StreamReport>,
    ended: bool,
}

impl Model {
    fn event(&mut self, event: Event, now: Time) {
        match event {
            Event::CameraRunning => self.camera_running = true,
            Event::CameraLost(_) => (self.camera_running, self.flowing) = (false, false),
            Event::PublisherFlowing { attempt } if self.open == Some(attempt) && self.leaving.is_none() => {
                self.flowing = true;
            }
            Event::PublisherLost { attempt, .. } if self.open == Some(attempt) => {
                self.flowing = false;
                self.leaving.get_or_insert(now);
            }
            Event::PublisherClosed { attempt } if self.open == Some(attempt) => {
                (self.open, self.flowing, self.leaving) = (None, false, None);
            }
            _ => {}
        }
    }

    fn check(&mut self, actions: &[Action], stream: &Stream, now: Time) -> Result<(), TestCaseError> {
        for action in actions {
            prop_assert!(!self.ended, "{action:?} after the end");
            match action {
                Action::OpenPublisher { attempt } => {
                    let gone = self.leaving.is_some_and(|since| now >= since + CLOSE_PATIENCE);
                    prop_assert!(self.open.is_none() || gone, "two publishers open");
                    prop_assert_eq!(*attempt, self.latest + 1);
                    self.latest = *attempt;
                    (self.open, self.leaving, self.flowing) = (Some(*attempt), None, false);
                }
                Action::ClosePublisher { attempt } => {
                    prop_assert_eq!(Some(*attempt), self.open);
                    prop_assert_eq!(self.leaving, None, "closed twice, or after it was lost");
                    (self.leaving, self.flowing) = (Some(now), false);
                }
                Action::Report(report) => {
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
                    prop_assert_eq!(report.cause.is_some(), explained);
                    match report.state {
                        StreamState::Reconnecting => prop_assert!(report.attempt > 0),
                        // How many it took; none of a camera that came back.
                        StreamState::Streaming if report.reconnected => {}
                        _ => prop_assert_eq!(report.attempt, 0),
                    }
                    prop_assert!(report.max_attempts.is_none_or(|most| most >= report.attempt));
                    self.last_report = Some(report.clone());
                }
                Action::End { state, cause } => {
                    let last = self.last_report.as_ref().unwrap();
                    prop_assert_eq!((last.state, last.cause), (*state, Some(*cause)));
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

fn current(event: Event, latest: u32) -> Event {
    let number = |back: u32| latest.saturating_sub(back);
    match event {
        Event::PublisherFlowing { attempt } => Event::PublisherFlowing { attempt: number(attempt) },
        Event::PublisherLost { attempt, cause } => Event::PublisherLost { attempt: number(attempt), cause },
        Event::PublisherClosed { attempt } => Event::PublisherClosed { attempt: number(attempt) },
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
            let actions = stream.on(Event::Tick, now);
            model.check(&actions, &stream, now)?;
            let event = current(event, model.latest);
            model.event(event, now);
            let actions = stream.on(event, now);
            model.check(&actions, &stream, now)?;
        }
        // However it stands, a stop ends it: when the publisher says that it is closed, or after a while without.
        let actions = stream.on(Event::Stop(Cause::Requested), now);
        model.check(&actions, &stream, now)?;
        let event = if by_time {
            now += END_PATIENCE;
            Event::Tick
        } else {
            Event::PublisherClosed { attempt: model.latest }
        };
        model.event(event, now);
        let actions = stream.on(event, now);
        model.check(&actions, &stream, now)?;
        prop_assert!(model.ended);
        prop_assert!(stream.state().is_terminal() && stream.cause().is_some());
    }

    /// Left alone with a server that always fails, it ends by itself, in few steps.
    #[test]
    fn it_gives_up_by_itself(settings in any_settings(), give_up in 0u64..200_000, camera in any::<bool>()) {
        let settings = Settings { give_up_after: Some(ms(give_up)), ..settings };
        let (mut stream, mut actions) = Stream::new(settings, ms(0));
        if camera {
            actions.extend(stream.on(Event::CameraRunning, ms(0)));
        }
        let mut steps = 0;
        while !matches!(actions.last(), Some(Action::End { .. })) {
            steps += 1;
            prop_assert!(steps < 300, "a busy loop");
            let now = stream.deadline().expect("alive, and nothing to wait for");
            actions = stream.on(Event::Tick, now);
            if let Some(Action::OpenPublisher { attempt }) = actions.first().cloned() {
                actions.extend(stream.on(Event::PublisherLost { attempt, cause: Cause::ConnectRefused }, now));
            }
        }
    }
}
