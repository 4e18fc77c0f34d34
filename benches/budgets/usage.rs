//! The cost of a process.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::support::monotonic;

/// A process's CPU time over a window, and its memory at the end.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time of all its threads, % of one core.
    pub cpu: f64,
    /// Resident set, MiB.
    pub rss: f64,
    /// The part of it that is not backed by a file: heap, stacks.
    pub anonymous: f64,
    /// Largest resident set so far, MiB.
    pub peak_rss: f64,
}

impl Usage {
    /// The usage of these processes side by side, over `window`.
    pub fn over(window: Duration, pids: &[u32]) -> Vec<Self> {
        let before: Vec<_> = pids.iter().map(|pid| (monotonic(), cpu_time(*pid))).collect();
        sleep(window);
        let of = |(pid, (then, cpu_then)): (&u32, (Duration, Duration))| {
            let cpu = cpu_time(*pid).saturating_sub(cpu_then).as_secs_f64();
            let wall = monotonic().saturating_sub(then).as_secs_f64();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it still runs");
            Self {
                cpu: 100.0 * cpu / wall,
                rss: mebibytes(&status, "VmRSS:"),
                anonymous: mebibytes(&status, "RssAnon:"),
                peak_rss: mebibytes(&status, "VmHWM:"),
            }
        };
        pids.iter().zip(before).map(of).collect()
    }
}

/// The kernel's own count, in nanoseconds; includes threads that have ended.
fn cpu_time(pid: u32) -> Duration {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid is a positive i32"));
    let clock = clock_getcpuclockid(pid).expect("it still runs");
    Duration::from(clock_gettime(clock).expect("it still runs"))
}

/// User and system time of a process and its living descendants.
pub fn family_cpu_time(ancestor: u32) -> Duration {
    let parent_of = |pid: u32| -> Option<u32> {
        // The name, in parentheses, may contain spaces; the parent follows the state (proc(5)).
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()?
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    };
    let all = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let pids: Vec<u32> = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let descends = |pid: &u32| std::iter::successors(Some(*pid), |pid| parent_of(*pid)).any(|pid| pid == ancestor);
    pids.iter().filter(|pid| descends(pid)).map(|pid| cpu_time(*pid)).sum()
}

fn mebibytes(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux shows it of every process");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kib / 1024.0
}
