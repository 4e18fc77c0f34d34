//! The daemon's use of the processor.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::time::timeout;

const CONNECT: Duration = Duration::from_secs(5);
/// `USER_HZ`, the unit of `/proc/PID/stat`: 100 on every Linux that lenscast is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// The daemon's process.
pub struct Processor {
    pid: u32,
    last: (Instant, u64),
}

impl Processor {
    /// The process of the daemon behind this socket, if it is known.
    pub async fn of_daemon(socket: &Path) -> Option<Self> {
        let connection = timeout(CONNECT, UnixStream::connect(socket)).await.ok()?.ok()?;
        let peer = connection.peer_cred().ok()?.pid()?.cast_unsigned();
        // With socket activation, systemd is the peer.
        let pid = if is_daemon(peer) { peer } else { only_daemon()? };
        Some(Self { pid, last: (Instant::now(), ticks(pid)?) })
    }

    /// Per cent of one core since the last look. `None` when the process is gone.
    pub fn percent(&mut self) -> Option<f64> {
        let now = (Instant::now(), ticks(self.pid)?);
        let (then, before) = std::mem::replace(&mut self.last, now);
        let seconds = (now.0 - then).as_secs_f64();
        (seconds > 0.0).then(|| now.1.saturating_sub(before) as f64 / TICKS_PER_SECOND / seconds * 100.0)
    }
}

fn is_daemon(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "lenscastd")
}

/// `None` if there are several.
fn only_daemon() -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut daemons =
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| is_daemon(*pid));
    let only = daemons.next()?;
    daemons.next().is_none().then_some(only)
}

/// Time in user mode and in the kernel (proc(5), fields 14 and 15, after the name in parentheses).
fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut number = || fields.next()?.parse::<u64>().ok();
    Some(number()? + number()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_takes_processor_time() {
        let pid = std::process::id();
        let mut this = Processor { pid, last: (Instant::now(), ticks(pid).unwrap()) };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(200) {
            std::hint::spin_loop();
        }
        let percent = this.percent().unwrap();
        assert!(percent > 1.0, "{percent} %");
        assert_eq!(ticks(u32::MAX), None);
    }
}
