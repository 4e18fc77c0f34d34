//! Metrics of this process from the kernel, under the names that Prometheus's own libraries use.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};

use super::Exposition;

/// The unit of times in `/proc/PID/stat`. Linux shows programs 100 per second on all machines of today.
const TICKS_PER_SECOND: u64 = 100;

/// Writes the process's metrics. Those that cannot be read are left out.
pub fn process(text: &mut Exposition) {
    let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| Stat::parse(&stat));
    if let Some(stat) = &stat {
        text.counter("process_cpu_seconds_total", "Time that the process used the CPU.", stat.cpu);
        if let Some(booted) = boot_time() {
            text.gauge("process_start_time_seconds", "When the process began, since 1970.", booted + stat.started);
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kibibytes) = field(&status, "VmRSS:") {
        text.gauge("process_resident_memory_bytes", "Memory that the process has in RAM.", kibibytes * 1024);
    }
    if let Some(kibibytes) = field(&status, "VmSize:") {
        text.gauge("process_virtual_memory_bytes", "Memory that the process has reserved.", kibibytes * 1024);
    }
    if let Some(threads) = field(&status, "Threads:") {
        text.gauge("process_threads", "Threads of the process.", threads);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the folder that is being read.
        text.gauge("process_open_fds", "Files and sockets that the process has open.", open.count().saturating_sub(1));
    }
    if let Ok((most, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        text.gauge("process_max_fds", "Files and sockets that it may have open.", most);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu: Duration,
    /// Time from the start of the machine to the start of the process.
    started: Duration,
}

impl Stat {
    fn parse(stat: &str) -> Option<Self> {
        // The program's name, in parentheses, may contain spaces and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
        let time = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND));
        // Fields 14, 15 and 22 of proc_pid_stat(5), which counts from 1; the name is the second.
        Some(Self { cpu: time(ticks(11)? + ticks(12)?), started: time(ticks(19)?) })
    }
}

/// Computed from the clocks, since a service with `ProcSubset=pid` cannot read `/proc/stat`, which has it too. A
/// change of it is taken for a restart, so the result is the same each time unless somebody sets the clock.
fn boot_time() -> Option<Duration> {
    static KNOWN: Mutex<Duration> = Mutex::new(Duration::ZERO);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let booted = now.checked_sub(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?.into())?;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.abs_diff(booted) > Duration::from_secs(1) {
        *known = booted;
    }
    Some(*known)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 25 0 0 20 0 3 0 1200 8000000 500 1 2";
        let wanted = Stat { cpu: Duration::from_millis(1750), started: Duration::from_secs(12) };
        assert_eq!(Stat::parse(stat), Some(wanted));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let mut text = Exposition::default();
        process(&mut text);
        let text = text.finish();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!((3.0..value("process_max_fds")).contains(&value("process_open_fds")));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age} s old");
        assert_eq!(boot_time(), boot_time());
    }
}
