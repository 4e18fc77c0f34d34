//! The peer falls silent without a word: its process, or the network.
//!
//! The two look alike to an RTMP client and must not be confused with a link that is merely slow.

use std::thread::sleep;
use std::time::Duration;

use crate::support::recordings::Recordings;
use crate::support::{Daemon, Namespace, Nginx, Watch, heavy, monotonic};
use crate::traffic::{HEAVY, LIGHT, NOISE, Traffic};

const SOON: Duration = Duration::from_secs(10);
/// A dead peer must be noticed within this time.
const NOTICED: Duration = Duration::from_secs(4);

struct Scene {
    daemon: Daemon,
    watch: Watch,
    recordings: Recordings,
}

/// A stream with media flowing.
fn streaming(nginx: &Nginx, traffic: Traffic) -> Scene {
    streaming_as(NOISE, nginx, traffic)
}

fn streaming_as(config: &str, nginx: &Nginx, traffic: Traffic) -> Scene {
    let recordings = nginx.recordings();
    let daemon = Daemon::start(config);
    let mut watch = daemon.watch();
    daemon.control().granted(&traffic.request(&nginx.url("live", "key")));
    watch.wait_state("streaming", SOON);
    traffic.wait_flowing(&recordings);
    Scene { daemon, watch, recordings }
}

impl Scene {
    /// Silences the peer and expects that to be noticed in time with the right cause; then ends the silence, and
    /// expects the very next attempt to succeed.
    fn silence(mut self, cause: &str, cut: impl FnOnce(), mend: impl FnOnce()) {
        let silent_since = monotonic();
        cut();
        let noticed = self.watch.wait_state("reconnecting", 3 * NOTICED);
        assert_eq!(noticed.cause(), cause);
        let after = noticed.at.saturating_sub(silent_since);
        assert!(after <= NOTICED, "noticed after {after:?}");
        // At least one attempt falls into the silence.
        self.watch.wait("another attempt", Duration::from_secs(20), |event| {
            event.report() == Some("reconnecting") && event.json["attempt"].as_u64() >= Some(2)
        });
        mend();
        let mended = monotonic();
        let back = self.watch.wait_state("streaming", Duration::from_secs(20));
        let between = |at: Duration| at > mended && at < back.at;
        let failed: Vec<_> =
            self.watch.reports().into_iter().filter(|e| between(e.at) && e.report() == Some("reconnecting")).collect();
        // One may have been under way when the peer came back.
        assert!(failed.len() <= 1, "attempts failed after the peer answered again: {failed:?}");
        self.recordings.wait_first_frame(1, SOON);
        self.daemon.finish();
    }
}

fn frozen(traffic: Traffic) {
    let _turn = heavy::turn();
    let nginx = Nginx::start();
    let scene = streaming(&nginx, traffic);
    scene.silence("server_frozen", || nginx.freeze(), || nginx.thaw());
}

fn black_hole(traffic: Traffic) {
    let _turn = heavy::turn();
    let namespace = Namespace::new();
    let nginx = Nginx::start_in(&namespace);
    let scene = streaming(&nginx, traffic);
    scene.silence("network_stalled", || namespace.cut(), || namespace.mend());
}

#[test]
fn a_frozen_server_is_noticed_at_2_mbit() {
    frozen(HEAVY);
}

#[test]
fn a_frozen_server_is_noticed_at_300_kbit() {
    frozen(LIGHT);
}

#[test]
fn a_black_hole_is_noticed_at_2_mbit() {
    black_hole(HEAVY);
}

#[test]
fn a_black_hole_is_noticed_at_300_kbit() {
    black_hole(LIGHT);
}

#[test]
fn a_link_at_70_percent_of_the_rate_is_slow_but_not_dead() {
    let _turn = heavy::turn();
    let namespace = Namespace::new();
    let nginx = Nginx::start_in(&namespace);
    // An adaptive bitrate would leave nothing to drop.
    let mut scene = streaming_as(&format!("{NOISE}[stream]\nadaptive = false\n"), &nginx, HEAVY);
    namespace.limit(HEAVY.bitrate() * 7 / 10 / 1000);
    sleep(Duration::from_secs(20));
    let states: Vec<String> = scene.watch.reports().iter().filter_map(|e| e.report().map(str::to_owned)).collect();
    assert!(!states.iter().any(|state| state == "reconnecting"), "{states:?}");
    let metrics = scene.daemon.control().status()["stream"]["metrics"].clone();
    assert!(metrics["dropped_frames"].as_u64() > Some(0), "the link was too slow for all of it: {metrics}");
    assert_eq!(scene.recordings.count(), 1);
    let arriving = scene.recordings.video_bitrate(0, Duration::from_secs(8), SOON);
    assert!(arriving >= 0.4 * f64::from(HEAVY.bitrate()), "only {arriving:.0} bit/s arrive");
    namespace.unlimit();
    scene.daemon.finish();
}
