//! Who has a device open: the kernel's EBUSY carries no name, but /proc has it.
//!
//! Processes are found by the device number behind those of their descriptors that lead into `/dev` or to a name like
//! `video0`, so `/dev/v4l/by-id` links and containers' own nodes hide nobody. Another user's processes are readable
//! only with `CAP_SYS_PTRACE`, and systemd's `ProtectProc=invisible` hides them altogether: no holder found does not mean
//! that there is none.
//!
//! A sandboxed daemon therefore asks a process that may look, which systemd starts for each question
//! (`lenscast-holders.socket`): the device's number in a line, then a line `PID NAME` for each holder.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The socket of that process.
const HELPER: &str = "/run/lenscast-holders.sock";
/// Limit of each step of a question.
const HELPER_LIMIT: Duration = Duration::from_secs(1);
/// The most bytes of a question, and of an answer.
const QUESTION_LIMIT: u64 = 32;
const ANSWER_LIMIT: u64 = 16 * 1024;

/// A process that has a device open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name as the kernel has it (`comm`, at most 15 bytes).
    pub program: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

/// The processes other than this one that have `node` open, by ascending pid. They need not stream from it. May take a
/// second.
pub fn holders(node: &Path) -> Vec<Holder> {
    let Ok(metadata) = fs::metadata(node) else { return Vec::new() };
    let seen = holders_in(Path::new("/proc"), metadata.rdev(), std::process::id());
    let helper = Path::new(HELPER);
    if seen.is_empty() && helper.exists() {
        return ask(helper, metadata.rdev()).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot ask who holds the camera");
            Vec::new()
        });
    }
    seen
}

/// Whether this process itself has `node` open.
pub fn is_open_here(node: &Path) -> bool {
    fs::metadata(node).is_ok_and(|metadata| has_open(Path::new("/proc/self"), metadata.rdev()))
}

/// Asks the process at `helper`.
fn ask(helper: &Path, device: u64) -> io::Result<Vec<Holder>> {
    let mut stream = UnixStream::connect(helper)?;
    stream.set_write_timeout(Some(HELPER_LIMIT))?;
    stream.set_read_timeout(Some(HELPER_LIMIT))?;
    writeln!(stream, "{device}")?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.take(ANSWER_LIMIT).read_to_string(&mut text)?;
    let holder = |line: &str| {
        let (pid, program) = line.split_once(' ')?;
        Some(Holder { pid: pid.parse().ok()?, program: program.to_owned() })
    };
    Ok(text.lines().filter_map(holder).filter(|holder| holder.pid != std::process::id()).collect())
}

/// Answers one question, in that process.
pub fn answer(question: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(question.take(QUESTION_LIMIT)).read_line(&mut line)?;
    let device = line.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no device number"))?;
    for Holder { pid, program } in holders_in(Path::new("/proc"), device, std::process::id()) {
        writeln!(to, "{pid} {program}")?;
    }
    Ok(())
}

fn holders_in(proc: &Path, device: u64, own_pid: u32) -> Vec<Holder> {
    let mut found: Vec<Holder> = fs::read_dir(proc)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own_pid)
        .filter_map(|pid: u32| {
            let process = proc.join(pid.to_string());
            has_open(&process, device).then(|| Holder { pid, program: program(&process) })
        })
        .collect();
    found.sort_by_key(|holder| holder.pid);
    found
}

fn has_open(process: &Path, device: u64) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors.map(|entry| entry.path()).any(|link| may_be_video(&link) && leads_to(&link, device))
}

/// Looks only at the link's text, because following a link to a dead network file system would never return. A deleted
/// node does not count: its device is gone, and another device may have the number now.
fn may_be_video(link: &Path) -> bool {
    fs::read_link(link).is_ok_and(|target| {
        let deleted = target.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
        let named = target.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"video"));
        !deleted && (named || target.starts_with("/dev"))
    })
}

fn leads_to(link: &Path, device: u64) -> bool {
    use nix::sys::stat::SFlag;
    fs::metadata(link).is_ok_and(|metadata| {
        SFlag::from_bits_truncate(metadata.mode()).intersection(SFlag::S_IFMT) == SFlag::S_IFCHR
            && metadata.rdev() == device
    })
}

fn program(process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    if name.trim().is_empty() { "unknown program".to_owned() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    /// A process in a made-up /proc, with these targets behind its descriptors.
    fn process(proc: &Path, pid: u32, name: Option<&str>, targets: &[&str]) {
        let folder = proc.join(pid.to_string());
        fs::create_dir_all(folder.join("fd")).unwrap();
        for (number, target) in targets.iter().enumerate() {
            symlink(target, folder.join("fd").join(number.to_string())).unwrap();
        }
        if let Some(name) = name {
            fs::write(folder.join("comm"), format!("{name}\n")).unwrap();
        }
    }

    fn number(node: &str) -> u64 {
        fs::metadata(node).unwrap().rdev()
    }

    #[test]
    fn every_process_with_the_device_open_is_named_except_our_own() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 20, Some("ffmpeg"), &["/dev/zero", "/dev/null"]);
        process(proc.path(), 3, None, &["/dev/null"]);
        process(proc.path(), 77, Some("us"), &["/dev/null"]);
        process(proc.path(), 5, Some("other"), &["/dev/zero", "socket:[1]", "/etc/passwd"]);
        fs::create_dir(proc.path().join("sys")).unwrap();
        let found: Vec<_> = holders_in(proc.path(), number("/dev/null"), 77).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["unknown program (pid 3)", "ffmpeg (pid 20)"]);
    }

    #[test]
    fn who_still_holds_a_node_that_was_unplugged_is_not_blamed_for_the_next_camera() {
        let proc = tempfile::tempdir().unwrap();
        // A link through a folder of this name leads to the device all the same, as the kernel's own link would.
        let gone = proc.path().join("video0 (deleted)");
        symlink("/dev/null", &gone).unwrap();
        let there = proc.path().join("video0");
        symlink("/dev/null", &there).unwrap();
        process(proc.path(), 9, Some("stale"), &[gone.to_str().unwrap()]);
        process(proc.path(), 10, Some("live"), &[there.to_str().unwrap()]);
        let found = holders_in(proc.path(), number("/dev/null"), 1);
        assert_eq!(found, [Holder { pid: 10, program: "live".to_owned() }]);
    }

    #[test]
    fn a_real_process_is_found_in_the_real_proc() {
        let node = Path::new("/dev/full");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(fs::File::open(node).unwrap())
            .spawn()
            .expect("sleep is there");
        let found = holders(node);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.iter().any(|holder| holder.pid == child.id()), "{found:?}");
    }

    #[test]
    fn who_may_not_look_is_told_by_who_may() {
        let node = Path::new("/dev/full");
        let mut child =
            std::process::Command::new("sleep").arg("60").stdin(fs::File::open(node).unwrap()).spawn().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let helper = std::thread::spawn(move || {
            for _ in 0..2 {
                let (stream, _) = listener.accept().unwrap();
                let _ = answer(&stream, &stream); // the second question is none
            }
        });
        let found = ask(&path, number("/dev/full"));
        UnixStream::connect(&path).unwrap().write_all(b"/dev/full\n").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        helper.join().unwrap();
        assert!(found.unwrap().contains(&Holder { pid: child.id(), program: "sleep".into() }));
        assert!(ask(&path, number("/dev/full")).is_err(), "nobody answers any more");
    }

    #[test]
    fn what_we_have_open_ourselves_is_seen_until_it_is_closed() {
        let pty = nix::pty::openpty(None, None).unwrap(); // no other test has this one open
        let node = fs::read_link(format!("/proc/self/fd/{}", pty.slave.as_raw_fd())).unwrap();
        assert!(is_open_here(&node));
        drop(pty.slave);
        assert!(!is_open_here(&node));
        assert!(!is_open_here(Path::new("/dev/there is no such node")));
    }

    #[test]
    fn a_missing_node_is_held_by_nobody() {
        assert_eq!(holders(Path::new("/dev/there is no such node")), []);
    }
}
