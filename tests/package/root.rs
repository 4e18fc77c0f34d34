//! A root file system to install a package on: a cached one, with an overlay for writes that is thrown away
//! afterwards.
//!
//! It is mounted in its own mount namespace, which ends with the process that holds it; nothing stays mounted,
//! whatever ends the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::deb::Architecture;
use crate::support::Process;
use crate::support::clock::poll_until;

pub struct Root {
    dir: TempDir,
    holder: Process,
}

impl Root {
    /// A new one with no more than the package's dependencies.
    pub fn new(architecture: Architecture) -> Self {
        let base = architecture.base();
        let dir = TempDir::with_prefix("lenscast-root-").expect("a folder");
        for folder in ["upper", "work", "root"] {
            fs::create_dir(dir.path().join(folder)).expect("a folder");
        }
        let script = format!(
            "set -e; cd {dir}; \
             mount -t overlay overlay -o lowerdir={base},upperdir=upper,workdir=work root; \
             mount -t proc proc root/proc; mount --rbind /dev root/dev; \
             touch ready; exec sleep infinity",
            dir = dir.path().display(),
            base = base.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let mut holder = Process::spawn(command.stdin(Stdio::null()));
        let ready = dir.path().join("ready");
        poll_until("a root file system", Duration::from_secs(30), || {
            assert_eq!(holder.exited(), None, "it cannot be mounted; these tests need root and overlayfs");
            ready.exists().then_some(())
        });
        Self { dir, holder }
    }

    /// A program inside it, as started by `chroot`.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.enter();
        command.args(["chroot".as_ref(), self.dir.path().join("root").as_os_str()]).args(words);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program to its end, which must be successful, and returns its output.
    pub fn run(&self, words: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(words).output().expect("chroot can be started");
        let (said, complaints) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{words:?} ended with {status}:\n{said}{complaints}");
        said.into_owned()
    }

    /// `dpkg` without questions, as apt calls it.
    pub fn dpkg(&self, words: &[&str]) -> String {
        let all = ["env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-confdef", "--force-confold"];
        self.run(&[&all[..], words].concat())
    }

    /// Copies a file of this machine into it, and returns its path there.
    pub fn put(&self, file: &Path) -> &'static str {
        const PLACE: &str = "/tmp/put.deb";
        fs::copy(file, self.path(PLACE)).expect("a file can be copied into the root file system");
        PLACE
    }

    /// Where this machine sees this path of it.
    pub fn path(&self, path: &str) -> PathBuf {
        let root = self.dir.path().join("root");
        PathBuf::from(format!("/proc/{}/root{}{path}", self.holder.pid(), root.display()))
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Whether this path exists, even as a dangling link.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// All paths in it.
    pub fn files(&self) -> BTreeSet<String> {
        let mut command = self.enter();
        command.arg("find").arg(self.dir.path().join("root")).args(["-xdev", "-printf", "/%P\n"]);
        let output = command.stdin(Stdio::null()).output().expect("find can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.pid().to_string(), "--mount", "--"]);
        command
    }
}
