//! Ends by a decision, or by silence.

use super::*;

#[test]
fn stop_closes_the_publisher_before_the_terminal_report() {
    let mut bench = Bench::streaming(settings());
    let stopping = StreamAction::Report(report(StreamState::Stopping, Some(Cause::Requested)));
    assert_eq!(bench.on(StreamEvent::Stop(Cause::Requested)), [stopping, StreamAction::ClosePublisher { attempt: 1 }]);
    assert_eq!(bench.on(StreamEvent::Stop(Cause::Shutdown)), [], "the first reason counts");
    let end = bench.on(StreamEvent::PublisherClosed { attempt: 1 });
    assert_eq!(end, the_end(StreamState::Stopped, Cause::Requested));
    assert_eq!(bench.on(StreamEvent::Stop(Cause::Shutdown)), []);
    assert_eq!(
        (bench.stream.deadline(), bench.stream.failure().map(|failure| failure.cause)),
        (None, Some(Cause::Requested))
    );
}

#[test]
fn stop_waits_for_the_publisher_at_most_3_s() {
    let mut bench = Bench::streaming(settings());
    bench.on(StreamEvent::Stop(Cause::Shutdown));
    assert_eq!(bench.pass(ms(2999)), []);
    assert_eq!(bench.pass(ms(1)), the_end(StreamState::Stopped, Cause::Shutdown));
}

#[test]
fn stop_between_two_attempts_ends_at_once() {
    let mut bench = Bench::streaming(settings());
    bench.lose(Cause::ConnectionLost);
    let actions = bench.on(StreamEvent::Stop(Cause::Replaced));
    assert_eq!(
        reports(&actions),
        [(StreamState::Stopping, Some(Cause::Replaced)), (StreamState::Stopped, Some(Cause::Replaced))]
    );
    assert_eq!(
        actions.last(),
        Some(&StreamAction::End { state: StreamState::Stopped, failure: Cause::Replaced.into() })
    );
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
        bench.on(StreamEvent::Stop(cause));
        assert_eq!(bench.on(StreamEvent::PublisherClosed { attempt: 1 }), the_end(state, cause));
    }
}

#[test]
fn sixty_seconds_without_keep_alive_end_it() {
    let mut bench = Bench::new(settings());
    bench.pass(ms(50_000));
    bench.on(StreamEvent::CameraRunning);
    bench.on(StreamEvent::PublisherFlowing { attempt: 1 });
    bench.pass(ms(40_000));
    bench.on(StreamEvent::KeepAlive);
    assert_eq!(bench.pass(ms(59_999)), []);
    let actions = bench.pass(ms(1));
    assert_eq!(reports(&actions), [(StreamState::Stopping, Some(Cause::KeepAliveTimeout))]);
    let end = bench.on(StreamEvent::PublisherClosed { attempt: 1 });
    assert_eq!(end, the_end(StreamState::Error, Cause::KeepAliveTimeout));
}

#[test]
fn keep_alives_are_not_missed_while_it_reconnects() {
    let mut bench = Bench::streaming(settings());
    bench.pass(ms(50_000));
    bench.lose(Cause::ConnectionLost);
    for attempt in 2..10 {
        assert!(bench.pass(ms(11_000)).contains(&StreamAction::OpenPublisher { attempt }));
        bench.lose(Cause::ConnectRefused);
    }
    bench.pass(ms(5000));
    bench.on(StreamEvent::PublisherFlowing { attempt: 10 });
    assert_eq!(bench.pass(ms(59_999)), [], "the clock starts at the new publish success");
    assert_eq!(reports(&bench.pass(ms(1))), [(StreamState::Stopping, Some(Cause::KeepAliveTimeout))]);
}

#[test]
fn keep_alives_play_no_part_where_they_are_not_wanted_or_known_to_get_lost() {
    for settings in [
        StreamSettings { keep_alive_timeout: None, ..settings() },
        StreamSettings { stop_on_keep_alive_loss: false, ..settings() },
    ] {
        let mut bench = Bench::streaming(settings);
        assert_eq!(bench.pass(ms(600_000)), []);
    }
}

#[test]
fn a_lost_link_ends_it_after_the_grace_unless_it_comes_back() {
    let mut bench = Bench::streaming(settings());
    bench.pass(ms(15_000));
    bench.on(StreamEvent::LinkDown);
    assert_eq!(bench.pass(ms(119_999)), [], "nor do keep-alives that cannot arrive");
    bench.on(StreamEvent::LinkUp);
    bench.on(StreamEvent::KeepAlive);
    assert_eq!(bench.pass(ms(10_000)), []);
    bench.on(StreamEvent::LinkDown);
    bench.pass(ms(60_000));
    assert_eq!(bench.on(StreamEvent::LinkDown), [], "still the same loss");
    let actions = bench.pass(ms(60_000));
    assert_eq!(reports(&actions), [(StreamState::Stopping, Some(Cause::LinkLost))]);
    let end = bench.on(StreamEvent::PublisherClosed { attempt: 1 });
    assert_eq!(end, the_end(StreamState::Error, Cause::LinkLost));
}

#[test]
fn a_lost_link_stops_at_once_or_plays_no_part_as_configured() {
    let mut bench = Bench::streaming(StreamSettings { link_loss_grace: Some(ms(0)), ..settings() });
    assert_eq!(reports(&bench.on(StreamEvent::LinkDown)), [(StreamState::Stopping, Some(Cause::LinkLost))]);

    let by_hand = StreamSettings { link_loss_grace: None, keep_alive_timeout: None, ..settings() };
    let mut bench = Bench::streaming(by_hand);
    bench.on(StreamEvent::LinkDown);
    assert_eq!(bench.pass(ms(600_000)), []);
}

#[test]
fn the_duration_counts_from_the_first_streaming_outages_included() {
    let mut bench = Bench::new(StreamSettings { duration_limit: Some(ms(30_000)), ..settings() });
    bench.pass(ms(20_000));
    bench.on(StreamEvent::CameraRunning);
    bench.on(StreamEvent::PublisherFlowing { attempt: 1 });
    bench.pass(ms(29_000));
    bench.lose(Cause::ConnectionLost);
    assert!(bench.pass(ms(999)).contains(&StreamAction::OpenPublisher { attempt: 2 }));
    assert_eq!(reports(&bench.pass(ms(1))), [(StreamState::Stopping, Some(Cause::DurationOver))]);
    let end = bench.on(StreamEvent::PublisherClosed { attempt: 2 });
    assert_eq!(end, the_end(StreamState::Stopped, Cause::DurationOver));
}
