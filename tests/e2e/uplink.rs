//! The uplink falls to less than a third and comes back: what those who watch see of it.
//!
//! Every picture of the test source carries its number and the time at which it was encoded, so what it waited on its way is
//! known to the millisecond or so. The limits are three times what is promised: the machine may be busy.

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use crate::support::control::start;
use crate::support::recordings::Frame;
use crate::support::{Daemon, Namespace, Nginx, heavy, monotonic};
use crate::traffic::NOISE;

const SOON: Duration = Duration::from_secs(15);
/// kbit/s: what the link carries at first and at last, and between.
const HIGH: u32 = 2000;
const LOW: u32 = 600;

/// What a viewer has of a stretch of a stream.
struct Seen(Vec<Frame>);

impl Seen {
    fn between(frames: &[Frame], from: Duration, until: Duration) -> Self {
        Self(frames.iter().copied().filter(|frame| (from..until).contains(&frame.at)).collect())
    }

    /// 95th percentile of encoder to server.
    fn wait_p95(&self) -> Duration {
        let wait = |frame: &Frame| {
            let encoded = frame.stamp.expect("the test source stamps every frame").encoded_us;
            frame.at.saturating_sub(Duration::from_micros(encoded))
        };
        let mut waits: Vec<Duration> = self.0.iter().map(wait).collect();
        waits.sort_unstable();
        waits.get(waits.len() * 95 / 100).copied().unwrap_or(Duration::MAX)
    }

    /// The longest time without a new picture.
    fn longest_gap(&self) -> Duration {
        self.0.windows(2).map(|pair| pair[1].at.saturating_sub(pair[0].at)).max().unwrap_or(Duration::MAX)
    }

    /// kbit/s of video.
    fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return 0.0 };
        let bytes: usize = self.0.iter().map(|frame| frame.bytes).sum();
        bytes as f64 * 8.0 / 1000.0 / last.at.saturating_sub(first.at).as_secs_f64().max(0.1)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wait, gap) = (self.wait_p95().as_millis(), self.longest_gap().as_millis());
        write!(f, "{:.0} kbit/s, waits p95 {wait} ms, longest gap {gap} ms", self.rate())
    }
}

/// When, after `from`, video first ran at `rate` kbit/s over a second.
fn reached(frames: &[Frame], from: Duration, until: Duration, rate: f64) -> Option<Duration> {
    let second = Duration::from_secs(1);
    let mut end = from + second;
    while end <= until {
        let bytes: usize =
            frames.iter().filter(|f| f.at > end.saturating_sub(second) && f.at <= end).map(|f| f.bytes).sum();
        if bytes as f64 * 8.0 / 1000.0 >= rate {
            return Some(end.saturating_sub(from));
        }
        end += Duration::from_millis(100);
    }
    None
}

#[test]
fn an_uplink_that_falls_and_returns_is_followed() {
    let _turn = heavy::turn();
    let namespace = Namespace::new();
    let nginx = Nginx::start_in(&namespace);
    namespace.limit(HIGH);
    let recordings = nginx.recordings();
    let daemon = Daemon::start(NOISE);
    let mut watch = daemon.watch();
    // Asks for more than there is: the link decides.
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
    let log = daemon.log();
    daemon.finish();
    let all = recordings.finish();
    assert_eq!(all.len(), 1, "one publication");
    let frames = all[0].frames();

    let second = Duration::from_secs(1);
    let before = Seen::between(&frames, fell.saturating_sub(5 * second), fell);
    let fallen = Seen::between(&frames, fell + second, rose);
    let settled = Seen::between(&frames, fell + 6 * second, rose);
    let after = Seen::between(&frames, rose, end);
    let recovered = reached(&frames, rose, end, 0.9 * before.rate());
    eprintln!("before: {before}\nfallen: {fallen}\nsettled: {settled}\nafter: {after}, 90 % after {recovered:?}");
    if std::env::var_os("LENSCAST_SHOW").is_some() {
        log.lines().filter(|line| line.contains("bitrate changed")).for_each(|line| eprintln!("{line}"));
    }
    assert!(before.rate() >= 0.7 * f64::from(HIGH), "{before}");
    for seen in [&before, &settled, &after] {
        assert!(seen.wait_p95() <= 3 * second, "{seen}");
        assert!(seen.longest_gap() <= Duration::from_millis(1500), "{seen}");
    }
    assert!(fallen.wait_p95() <= 3 * second, "{fallen}");
    assert!(settled.rate() >= 0.6 * f64::from(LOW), "{settled}");
    assert!(recovered.is_some(), "never back: {after}");
}
