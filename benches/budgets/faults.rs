//! The cost of a dying server: how long until it is noticed, and until the picture is back.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::figures::{Figure, Row, Section, Unit};
use crate::publishers::{HD, Picture, SMALL, warm_daemon};
use crate::support::recordings::Recording;
use crate::support::{Control, Daemon, Namespace, Nginx, Watch, monotonic};
use crate::{Extent, milliseconds, progress};

const SOON: Duration = Duration::from_secs(15);
/// After more than ten losses in a minute, or a loss within 5 s of streaming, the daemon rightly waits longer before
/// it tries again; that would measure its patience.
const BETWEEN_KILLS: Duration = Duration::from_millis(6200);
/// Long enough for the window and the queue to reach their usual size.
const BEFORE_FAULT: Duration = Duration::from_secs(6);

/// The daemon is killed and restarted at once, as systemd does; it resumes its stream.
pub fn crash(extent: &Extent) -> Section {
    let nginx = Nginx::start();
    let (recordings, mut daemon) = (nginx.recordings(), warm_daemon());
    daemon.control().granted(&HD.request(&nginx.url("live", "key"), "stream-1"));
    let (mut until_live, mut publications) = (Vec::new(), 1);
    for kill in 0..extent.kills {
        // After a minute of streaming each crash would count as the first; a new stream has the same effect.
        if kill % 3 == 2 {
            daemon.control().granted(&json!({"cmd": "stop"}));
            daemon.control().granted(&HD.request(&nginx.url("live", "key"), "stream-1"));
            publications += 1;
        }
        recordings.wait_frames(publications - 1, 60, SOON);
        let killed = monotonic();
        daemon.restart(Signal::SIGKILL);
        let live = recordings.wait_first_frame(publications, SOON).at;
        until_live.push(milliseconds(live.saturating_sub(killed)));
        publications += 1;
    }
    daemon.finish();
    progress(&format!("live again after kill -9: {until_live:.0?} ms"));
    let what = "live again after kill -9 of the daemon";
    Section {
        title: "A stream in the next process",
        method:
            "From `kill -9` of the daemon, which is started again at once, to the first picture at the server that the \
                 next process sent, 1280x720 at 30 fps. Under systemd `RestartSec=` (100 ms) comes on top."
                .into(),
        rows: vec![
            Row::new(what, Unit::Milliseconds, until_live.clone()),
            Row::new(what, Unit::Milliseconds, until_live).figure(Figure::P95).budget(3000.0),
        ],
    }
}

/// The server is killed and restarted at once.
pub fn outage(extent: &Extent) -> Section {
    let mut nginx = Nginx::start();
    let (recordings, daemon) = (nginx.recordings(), warm_daemon());
    daemon.control().granted(&HD.request(&nginx.url("live", "key"), "stream-1"));
    let mut restarts = Vec::new();
    for kill in 0..extent.kills {
        let first = recordings.wait_first_frame(kill, SOON);
        sleep((first.at + BETWEEN_KILLS).saturating_sub(monotonic()));
        let killed = monotonic();
        nginx.kill();
        nginx.launch();
        restarts.push(milliseconds(monotonic().saturating_sub(killed)));
    }
    recordings.wait_frames(extent.kills, 30, SOON);
    daemon.finish();
    let all = recordings.finish();
    let gap = |pair: &[Recording]| {
        let (old, new) = (pair[0].frames(), pair[1].frames());
        milliseconds(new[0].at.saturating_sub(old[old.len() - 1].at))
    };
    let outages: Vec<f64> = all.windows(2).map(gap).collect();
    progress(&format!("outages: {outages:.0?} ms, of which the server's restart: {restarts:.0?} ms"));
    let what = "outage after kill -9 of the server";
    Section {
        title: "Outage after the server was killed and came back at once",
        method: format!(
            "From the last picture of one recording to the first of the next, 1280x720 at 30 fps. The server is killed \
             {} s after its first picture: more than ten losses in a minute, or one within 5 s of streaming, would let \
             the daemon wait longer on purpose.",
            BETWEEN_KILLS.as_secs_f64()
        ),
        rows: vec![
            Row::new(what, Unit::Milliseconds, outages.clone()),
            Row::new(what, Unit::Milliseconds, outages).figure(Figure::P95).budget(500.0),
            Row::new("the server's own restart", Unit::Milliseconds, restarts),
        ],
    }
}

#[derive(Clone, Copy)]
enum Fault {
    Killed,
    BlackHole,
    Frozen,
}

struct Scene {
    namespace: Option<Namespace>,
    nginx: Nginx,
    daemon: Daemon,
    watch: Watch,
    control: Control,
}

impl Fault {
    /// All faults with their budgets, milliseconds.
    const ALL: [(Self, f64); 3] = [(Self::Killed, 100.0), (Self::BlackHole, 3000.0), (Self::Frozen, 3000.0)];

    fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed (kill -9)",
            Self::BlackHole => "black hole (nftables drops everything)",
            Self::Frozen => "frozen (SIGSTOP)",
        }
    }

    fn cause(self) -> &'static str {
        match self {
            Self::Killed => "connection_lost",
            Self::BlackHole => "network_stalled",
            Self::Frozen => "server_frozen",
        }
    }

    fn scene(self) -> Scene {
        let namespace = matches!(self, Self::BlackHole).then(Namespace::new);
        let nginx = namespace.as_ref().map_or_else(Nginx::start, Nginx::start_in);
        let daemon = warm_daemon();
        let (watch, control) = (daemon.watch(), daemon.control());
        Scene { namespace, nginx, daemon, watch, control }
    }

    fn happen(self, scene: &mut Scene) {
        match (self, &scene.namespace) {
            (Self::Killed, _) => scene.nginx.kill(),
            (Self::BlackHole, Some(namespace)) => namespace.cut(),
            (Self::BlackHole, None) => unreachable!("made with one"),
            (Self::Frozen, _) => scene.nginx.freeze(),
        }
    }

    fn heal(self, scene: &mut Scene) {
        match (self, &scene.namespace) {
            (Self::Killed, _) => scene.nginx.launch(),
            (Self::BlackHole, Some(namespace)) => namespace.mend(),
            (Self::BlackHole, None) => unreachable!("made with one"),
            (Self::Frozen, _) => scene.nginx.thaw(),
        }
    }
}

/// Time from each fault until the daemon reports that it reconnects, and the cause; milliseconds.
fn noticed(extent: &Extent, fault: Fault, picture: Picture) -> Vec<f64> {
    let mut scene = fault.scene();
    let run = |run: usize| {
        let id = format!("stream-{run}");
        scene.control.granted(&picture.request(&scene.nginx.url("live", &id), &id));
        scene.watch.wait_state("streaming", SOON);
        sleep(BEFORE_FAULT + Duration::from_millis(fastrand::u64(0..500)));
        let since = monotonic();
        fault.happen(&mut scene);
        let event = scene.watch.wait_state("reconnecting", Duration::from_secs(40));
        assert_eq!(event.cause(), fault.cause(), "noticed as something else");
        scene.control.granted(&json!({"cmd": "stop"}));
        fault.heal(&mut scene);
        milliseconds(event.at.saturating_sub(since))
    };
    let taken: Vec<f64> = (0..extent.runs).map(run).collect();
    progress(&format!("{} at {} kbit/s: noticed after {taken:.1?} ms", fault.name(), picture.bitrate / 1000));
    scene.daemon.finish();
    taken
}

/// How long a dead server goes unnoticed.
pub fn dead_server(extent: &Extent) -> Section {
    let mut rows = Vec::new();
    for (fault, budget) in Fault::ALL {
        for (picture, rate) in [(HD, "2 Mbit/s"), (SMALL, "300 kbit/s")] {
            let what = format!("noticed: {}, {rate}", fault.name());
            rows.push(Row::new(what, Unit::Milliseconds, noticed(extent, fault, picture)).budget(budget));
        }
    }
    Section {
        title: "A dead server is noticed",
        method: format!(
            "From just before the fault, {} to {} s into the stream, to the report `reconnecting` with the right cause \
             on the control socket.",
            BEFORE_FAULT.as_secs(),
            BEFORE_FAULT.as_secs_f64() + 0.5
        ),
        rows,
    }
}
