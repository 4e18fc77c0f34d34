//! A bad network, emulated by the kernel.

use std::time::Duration;

use crate::live::{LIVE, Live, SIZE};
use crate::support::Guest;
use crate::support::clock::monotonic;
use crate::support::recordings::{Frame, Recording};
use crate::support::watch::Event;

/// Delay that the emulator adds on the way to the server.
const DELAY: Duration = Duration::from_millis(200);
/// A picture that takes longer than this is late.
const LATE: Duration = Duration::from_secs(1);
/// Time after an outage until no picture is late. Measured 1.6 to 4.25 s after 29 outages of 5 to 6.8 s: up to a
/// second until the next SYN, 1.4 s for the seven round trips to the first picture, and about a second for each packet
/// lost on the way.
const BACK: Duration = Duration::from_secs(5);
/// The same when several such packets were lost.
const BACK_AT_WORST: Duration = Duration::from_secs(10);

#[test]
fn delay_loss_and_outages_are_neither_an_end_nor_a_frozen_server() {
    let guest = Guest::boot();
    guest.webcam("0001", "--mode yuyv:320x240@30");
    let mut live = Live::begin(&guest, "", SIZE, 500_000);
    guest.shell("tc qdisc add dev vec0 root netem delay 200ms loss 2%");
    let told = live.watch.listen(Duration::from_secs(15));
    let lost: Vec<&str> = told.iter().filter(|e| e.report() == Some("reconnecting")).map(Event::cause).collect();
    assert!(lost.is_empty(), "a slow network is no outage: {lost:?}");
    let mut all_back = Vec::new();
    for seconds in outages() {
        let begin = monotonic();
        guest.shell(&format!(
            "tc qdisc change dev vec0 root netem loss 100%; sleep {seconds}; \
             tc qdisc change dev vec0 root netem delay 200ms loss 2%"
        ));
        let over = begin + Duration::from_secs_f64(seconds); // rather than when the answer is here, on the same network
        live.watch.listen(BACK_AT_WORST);
        let (pictures, count) = live.recordings.wait("pictures", LIVE, |all| Some((pictures(all), all.len())));
        let back = back_in_time(&pictures, over).map(|at| at.saturating_sub(over));
        println!("pictures in time {back:?} after {seconds} s without a network, in publication {count}");
        all_back.push(back.unwrap_or_else(|| panic!("pictures are late: {pictures:?}")));
    }
    all_back.sort();
    assert!(all_back[all_back.len() / 2] <= BACK, "pictures were in time only {all_back:?} after the outages");
    let reports = live.watch.reports();
    assert!(reports.iter().all(|event| event.cause() != "server_frozen"), "no server was frozen");
    assert!(reports.iter().all(|event| event.report() != Some("error")));
    live.finish();
}

/// Duration of each outage, seconds; `LENSCAST_OUTAGES` of them, each a little longer, to see how retries fall.
fn outages() -> Vec<f64> {
    let count = std::env::var("LENSCAST_OUTAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(3);
    (0..count).map(|index| 5.0 + 0.3 * f64::from(index)).collect()
}

/// When each picture arrived, and how long it took. The fastest of each publication is taken to have been delayed by
/// the emulator only.
fn pictures(recordings: &[Recording]) -> Vec<(Duration, Duration)> {
    let of_one = |recording: &Recording| {
        let frames = recording.frames();
        let since_start = |frame: &Frame| frame.at.saturating_sub(Duration::from_millis(frame.dts_ms.into()));
        let fastest = frames.iter().map(since_start).min().unwrap_or_default();
        frames
            .into_iter()
            .map(move |frame| (frame.at, since_start(&frame).saturating_sub(fastest) + DELAY))
            .collect::<Vec<_>>()
    };
    recordings.iter().flat_map(of_one).collect()
}

/// When the first second after `over` began in which pictures arrived and none was late.
fn back_in_time(pictures: &[(Duration, Duration)], over: Duration) -> Option<Duration> {
    let mut since = None;
    for (at, latency) in pictures.iter().filter(|(at, _)| *at > over) {
        if *latency >= LATE {
            since = None;
        } else if at.saturating_sub(*since.get_or_insert(*at)) >= Duration::from_secs(1) {
            return since;
        }
    }
    None
}
