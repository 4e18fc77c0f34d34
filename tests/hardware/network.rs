//! A bad network, by the kernel's own emulator.

use std::time::Duration;

use crate::live::{LIVE, Live, SIZE};
use crate::support::{Guest, poll_until};

#[test]
fn delay_loss_and_outages_are_neither_an_end_nor_a_frozen_server() {
    let guest = Guest::boot();
    guest.webcam("0001", "--mode yuyv:320x240@30");
    let mut live = Live::begin(&guest, "", SIZE, 500_000);
    guest.shell("tc qdisc add dev vec0 root netem delay 200ms loss 2%");
    let told = live.watch.listen(Duration::from_secs(15));
    let lost: Vec<&str> =
        told.iter().filter(|e| e.report() == Some("reconnecting")).map(crate::support::watch::Event::cause).collect();
    assert!(lost.is_empty(), "a slow network is no outage: {lost:?}");
    for _ in 0..2 {
        guest.shell("tc qdisc change dev vec0 root netem loss 100%; sleep 5; tc qdisc change dev vec0 root netem delay 200ms loss 2%");
        let sent = |live: &Live| live.daemon.control().status()["stream"]["metrics"]["sent_frames"].as_u64();
        let before = sent(&live);
        poll_until("frames to be sent again", LIVE, || (sent(&live) > before.map(|count| count + 60)).then_some(()));
        let queue = live.watch.wait_snapshot("a short queue", Duration::from_secs(15), |state| {
            state["stream"]["metrics"]["queue_ms"].as_u64().is_some_and(|queue| queue < 1_000)
                && state["stream"]["state"] == "streaming"
        });
        assert!(queue["stream"]["cause"].is_null());
    }
    let reports = live.watch.reports();
    assert!(reports.iter().all(|event| event.cause() != "server_frozen"), "no server was frozen");
    assert!(reports.iter().all(|event| event.report() != Some("error")));
    live.finish();
}
