//! The uplink falls to less than a third and comes back: what viewers see.
//!
//! The limits are three times the promised ones: the machine may be busy.

use std::thread::sleep;
use std::time::Duration;

use crate::support::control::start;
use crate::support::{Daemon, Namespace, Nginx, Viewing, heavy, monotonic};
use crate::traffic::NOISE;

const SOON: Duration = Duration::from_secs(15);
/// The link's capacity at first and at last, kbit/s.
const HIGH: u32 = 2000;
const LOW: u32 = 600;

#[test]
fn an_uplink_that_falls_and_returns_is_followed_under_bbr() {
    followed("bbr");
}

#[test]
fn an_uplink_that_falls_and_returns_is_followed_under_cubic() {
    followed("cubic");
}

fn followed(congestion: &str) {
    let _turn = heavy::turn();
    let namespace = Namespace::new();
    namespace.congestion_control(congestion);
    let nginx = Nginx::start_in(&namespace);
    namespace.limit(HIGH);
    let recordings = nginx.recordings();
    let daemon = Daemon::start(NOISE);
    let mut watch = daemon.watch();
    // Requests more than the link carries.
    let request = start(&nginx.url("live", "key"), "org.example.app", "stream-1", (640, 360), 30, 2_500_000);
    daemon.control().granted(&request);
    watch.wait_state("streaming", SOON);
    recordings.wait_first_frame(0, SOON);
    sleep(Duration::from_secs(12));
    let fell = monotonic();
    namespace.limit(LOW);
    sleep(Duration::from_secs(14));
    let rose = monotonic();
    namespace.limit(HIGH);
    sleep(Duration::from_secs(16));
    let end = monotonic();
    let states: Vec<_> = watch.reports().iter().filter_map(|e| e.report().map(str::to_owned)).collect();
    assert!(!states.iter().any(|state| state == "reconnecting"), "{states:?}");
    daemon.finish();
    let all = recordings.finish();
    assert_eq!(all.len(), 1, "one publication");
    let whole = Viewing::of(&all[0]);
    let second = Duration::from_secs(1);
    let before = whole.between(fell.saturating_sub(5 * second), fell);
    let fallen = whole.between(fell + second, rose);
    let settled = whole.between(fell + 6 * second, rose);
    let after = whole.between(rose, end);
    let recovered = whole.between(rose, end).reached(0.9 * before.rate(), rose);
    eprintln!(
        "{congestion}, before: {before}\nfallen: {fallen}\nsettled: {settled}\nafter: {after}, 90 % after {recovered:?}"
    );
    assert!(before.rate() >= 0.7 * f64::from(HIGH), "{before}");
    for seen in [&before, &settled, &after] {
        assert!(seen.wait_p95() <= 3 * second, "{seen}");
        assert!(seen.longest_gap() <= Duration::from_millis(1500), "{seen}");
    }
    assert!(fallen.wait_p95() <= 3 * second, "{fallen}");
    assert!(settled.rate() >= 0.6 * f64::from(LOW), "{settled}");
    assert!(recovered.is_some(), "never back: {after}");
}
