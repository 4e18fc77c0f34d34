//! The same fall and return on a bad network: the kernel's own emulator, netem, in a guest of the rig (`hw-fixtures/`), with
//! delay and loss.
//!
//! The daemon runs in the guest, beside netem; the server on the host. Each run has a guest to itself, as one has a single CPU.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::real::{self, HIGH, LOW, Times, VIDEO};
use crate::support::control::start;
use crate::support::{Guest, GuestDaemon, Nginx, monotonic};

/// One emulated CPU, and GStreamer's registry to be looked at.
const LIVE: Duration = Duration::from_mins(1);
/// What netem adds to the way to the server, ms, and drops.
const DELAY_MS: u32 = 200;

/// A queue that lasts about 400 ms at the higher rate, beside what is under way.
const PACKETS: u32 = 100;

#[derive(Clone, Copy)]
pub enum Who {
    Daemon,
    GstLaunch,
}

/// Who runs, and what is lost, percent.
const ALL: [(&str, Who, f64); 3] =
    [("lenscast", Who::Daemon, 0.1), ("gst-launch-1.0", Who::GstLaunch, 0.1), ("lenscast", Who::Daemon, 1.0)];

/// The tables; `phase` is how long each rate lasts.
pub fn section(phase: Duration) -> String {
    let mut text = format!(
        "## A real link with delay and loss\n\nThe same stream from a guest of the rig, by netem: {DELAY_MS} ms of delay, loss, a \
         queue of {PACKETS} packets, 2 → 0.6 → 2 Mbit/s, {} s each; one after the other. *Used* is what left the emulator, \
         headers and what was sent again included, and in parentheses pictures and sound alone. At 1 % loss every \
         hundredth segment sent again is lost again, which is a pause of 600 ms, and cubic takes each loss for a full queue: \
         at this delay it carries about 0.8 Mbit/s whatever the link does.\n",
        phase.as_secs()
    );
    for congestion in ["bbr", "cubic"] {
        let _ = writeln!(text, "\n### {congestion}, {DELAY_MS} ms\n\n{}", real::TABLE);
        for (name, who, loss) in ALL {
            let _ = writeln!(text, "{}", row(name, who, congestion, loss, phase));
        }
    }
    text
}

/// One run, as a line of the table.
pub fn row(name: &str, who: Who, congestion: &str, loss: f64, phase: Duration) -> String {
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
    real::figures(&name, &real::longest(&all), &times, all.len(), Some(left))
}

/// kbit/s that left the emulator in `phase`, from its sixth second on.
fn settled_rate(guest: &Guest, phase: Duration) -> f64 {
    let left = || {
        let statistics = guest.shell("tc -s qdisc show dev vec0");
        let sent = statistics.split_whitespace().skip_while(|word| *word != "Sent").nth(1);
        let bytes: f64 = sent.and_then(|bytes| bytes.parse().ok()).expect("tc says what was sent");
        (bytes, monotonic())
    };
    sleep(real::SETTLED);
    let (bytes, since) = left();
    sleep(phase.saturating_sub(real::SETTLED));
    let (all, now) = left();
    (all - bytes) * 8.0 / 1000.0 / now.saturating_sub(since).as_secs_f64()
}
