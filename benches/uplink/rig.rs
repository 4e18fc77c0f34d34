//! The same fall and return on a bad network: the kernel's own emulator, netem, in a guest of the rig
//! (`hw-fixtures/`), with delay and loss.
//!
//! The daemon runs in the guest, beside netem; the server on the host. Each run has its own guest, since a guest has a
//! single CPU.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::figures::{Figures, TABLE};
use crate::phases::{HIGH, LOW, SETTLED, Times};
use crate::real::{self, VIDEO};
use crate::support::control::start;
use crate::support::{Guest, GuestDaemon, Nginx, monotonic};

/// Limit for going live: one emulated CPU, and GStreamer's plugins to scan.
const LIVE: Duration = Duration::from_mins(1);
/// Delay that netem adds on the way to the server, ms.
const DELAY_MS: u32 = 200;

/// A queue that lasts about 400 ms at the higher rate, in addition to what is in flight.
const PACKETS: u32 = 100;

#[derive(Clone, Copy)]
pub enum Who {
    Daemon,
    GstLaunch,
}

/// Contestant, loss in percent, and number of runs: a handful of losses is a matter of luck.
const ALL: [(&str, Who, f64, usize); 3] =
    [("lenscast", Who::Daemon, 0.1, 3), ("gst-launch-1.0", Who::GstLaunch, 0.1, 1), ("lenscast", Who::Daemon, 1.0, 1)];

/// The tables; `phase` is the duration of each rate.
pub fn section(phase: Duration) -> String {
    let mut text = format!(
        "## A real link with delay and loss\n\nThe same stream from a guest of the rig, by netem: {DELAY_MS} ms of delay, loss, a \
         queue of {PACKETS} packets, 2 → 0.6 → 2 Mbit/s, {} s each; one after the other; at \
         0.1 % the medians of three runs, and the longest gap of all three. *Used* is what left the emulator, \
         headers and what was sent again included, and in parentheses pictures and sound alone. A lost segment alone is a \
         gap of 250 ms and what is queued before it is sent again. At 1 % every hundredth segment sent again is lost again, \
         and cubic takes each loss for a full queue: at this delay it carries some 2 Mbit/s at 0.1 %, about 0.8 at 1 %, \
         whatever the link does.\n",
        phase.as_secs()
    );
    for congestion in ["bbr", "cubic"] {
        let _ = writeln!(text, "\n### {congestion}, {DELAY_MS} ms\n\n{TABLE}");
        for (name, who, loss, times) in ALL {
            let runs: Vec<Figures> = (0..times).map(|_| run(name, who, congestion, loss, phase)).collect();
            for one in &runs {
                eprintln!("{one}");
            }
            let _ = writeln!(text, "{}", Figures::of_all(&runs));
        }
    }
    text
}

/// One run.
pub fn run(name: &str, who: Who, congestion: &str, loss: f64, phase: Duration) -> Figures {
    let name = format!("{name}, {loss} % loss");
    let guest = Guest::boot_alone();
    guest.write("/proc/sys/net/ipv4/tcp_congestion_control", congestion);
    let nginx = Nginx::start_at(guest.host());
    let recordings = nginx.recordings();
    let url = nginx.url("live", "key");
    let limit = |verb: &str, kbit: u32| {
        let what = format!("netem rate {kbit}kbit delay {DELAY_MS}ms loss {loss}% limit {PACKETS}");
        guest.shell(&format!("tc qdisc {verb} dev vec0 root {what}"));
        monotonic()
    };
    let (mut daemon, mut other) = (None, None);
    match who {
        Who::Daemon => {
            let more = "[camera]\ndevice = \"test:snow\"\n[audio]\ndevice = \"test\"\n";
            let running = GuestDaemon::start(&guest, more);
            limit("add", HIGH);
            let (size, rate) = ((VIDEO.width, VIDEO.height), VIDEO.frame_rate);
            running.control().granted(&start(&url, "org.example.bench", "s", size, rate, VIDEO.bitrate));
            daemon = Some(running);
        }
        Who::GstLaunch => {
            limit("add", HIGH);
            let line = format!("exec gst-launch-1.0 --quiet {} > /dev/null 2>&1", real::gst_pipeline(&url));
            other = Some(guest.start(&["bash", "-c", &line.replace('!', "\\!")], &[]));
        }
    }
    recordings.wait_first_frame(0, LIVE);
    let begun = monotonic();
    let before = settled_rate(&guest, phase);
    let fell = limit("change", LOW);
    let low = settled_rate(&guest, phase);
    let rose = limit("change", HIGH);
    let after = settled_rate(&guest, phase);
    let times = Times { begun, fell, rose, end: monotonic() };
    drop(daemon);
    if let Some(program) = other {
        program.signal(Signal::SIGKILL);
    }
    drop(guest);
    let all = recordings.finish();
    let left = [before / f64::from(HIGH), low / f64::from(LOW), after / f64::from(HIGH)];
    Figures::of(&name, &all, &times, Some(left))
}

/// kbit/s that left the emulator in `phase`, from its sixth second on.
fn settled_rate(guest: &Guest, phase: Duration) -> f64 {
    let left = || {
        let statistics = guest.shell("tc -s qdisc show dev vec0");
        let sent = statistics.split_whitespace().skip_while(|word| *word != "Sent").nth(1);
        let bytes: f64 = sent.and_then(|bytes| bytes.parse().ok()).expect("tc says what was sent");
        (bytes, monotonic())
    };
    sleep(SETTLED);
    let (bytes, since) = left();
    sleep(phase.saturating_sub(SETTLED));
    let (all, now) = left();
    (all - bytes) * 8.0 / 1000.0 / now.saturating_sub(since).as_secs_f64()
}
