//! The cost of the daemon while nobody uses it.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::figures::{Row, Section, Unit};
use crate::publishers::{HD, warm_daemon};
use crate::support::{Daemon, Nginx};
use crate::usage::Usage;
use crate::{Extent, progress};

const SOON: Duration = Duration::from_secs(15);
const STREAMS: usize = 10;
const STREAM: Duration = Duration::from_secs(1);
/// CPU time after streams is measured over this fraction of the time before them: it only shows whether it is the
/// same.
const SHORTER: u32 = 10;
/// Megabytes: 12, plus half of one for libgstvideo and the liborc that it loads, which take 0.4.
const IDLE_RSS: f64 = 12.5;
/// Time for background work to end.
const SETTLE: Duration = Duration::from_secs(3);

fn measure(window: Duration, daemons: &mut [Daemon], what: &str) -> Vec<Usage> {
    sleep(SETTLE);
    let pids: Vec<u32> = daemons.iter_mut().map(|daemon| daemon.process().pid()).collect();
    let usage = Usage::over(window, &pids);
    progress(&format!("idle, {what}: {usage:.2?}"));
    usage
}

/// One stream leaves little behind; ten show whether it adds up.
fn stream(daemon: &Daemon, nginx: &Nginx, key: &str) {
    let (mut watch, mut control) = (daemon.watch(), daemon.control());
    for number in 0..STREAMS {
        let key = format!("{key}-{number}");
        control.granted(&HD.request(&nginx.url("live", &key), &key));
        watch.wait_state("streaming", SOON);
        sleep(STREAM);
        control.granted(&json!({"cmd": "stop"}));
        watch.wait_snapshot("the camera to be closed", SOON, |state| state["camera"]["state"] == "closed");
    }
}

fn rows(usage: &[Usage], when: &str) -> [Row; 3] {
    let of = |value: fn(&Usage) -> f64| usage.iter().map(value).collect::<Vec<_>>();
    // The budget is in megabytes, as on a data sheet.
    let megabytes = |value: Vec<f64>| value.into_iter().map(|mib| mib * 1.048_576).collect::<Vec<_>>();
    [
        Row::new(format!("idle {when}, CPU"), Unit::PercentOfCore, of(|u| u.cpu)).budget(0.1),
        Row::new(format!("idle {when}, RSS"), Unit::Megabytes, megabytes(of(|u| u.rss))).budget(IDLE_RSS),
        Row::new(format!("idle {when}, RSS that no file backs"), Unit::Megabytes, megabytes(of(|u| u.anonymous))),
    ]
}

/// Measures it.
pub fn section(extent: &Extent) -> Section {
    // The first start with this list of plugins scans all installed ones, and needs 1.2 MB more for it.
    warm_daemon().finish();
    let mut daemons: Vec<Daemon> = (0..extent.runs).map(|_| warm_daemon()).collect();
    let fresh = measure(extent.idle, &mut daemons, "before the first stream");
    let nginx = Nginx::start();
    for (number, daemon) in daemons.iter().enumerate() {
        stream(daemon, &nginx, &format!("daemon-{number}"));
    }
    let used = measure(extent.idle / SHORTER, &mut daemons, "after ten streams");
    for daemon in daemons {
        daemon.finish();
    }
    let size = fs::metadata(env!("CARGO_BIN_EXE_lenscastd")).expect("the daemon is built").len();
    let mut rows = rows(&fresh, "before the first stream").to_vec();
    rows.extend(self::rows(&used, "after ten streams"));
    rows.push(Row::new("lenscastd, release, stripped", Unit::Megabytes, [size as f64 / 1e6]).budget(5.0));
    Section {
        title: "Idle, and on disk",
        method: format!(
            "The control socket is open and nobody uses the camera, for {} s, or {} s after ten streams of {} s of \
             1280x720 at 30 fps each; {} daemons side by side, of which none is the first after plugins of GStreamer were \
             installed. All of Debian's are.",
            extent.idle.as_secs(),
            (extent.idle / SHORTER).as_secs(),
            STREAM.as_secs(),
            extent.runs
        ),
        rows,
    }
}
