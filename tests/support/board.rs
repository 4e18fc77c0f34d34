//! The emulated aarch64 board of `hw-fixtures/board/`: U-Boot, Debian's kernel, systemd, on a disk that keeps what is
//! written to it. What a [`Guest`] can do, it can do too.
//!
//! It boots in 15 seconds on two cores of its own, so it has the machine to itself.

use std::fs;
use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::NamedTempFile;

use super::clock::poll_until;
use super::guest::Guest;
use super::heavy::{self, Turn};
use super::process::Process;

/// The board ends after this, whatever happens.
const LIMIT: Duration = Duration::from_mins(12);
/// How long an orderly end of all services may take.
const POWER_OFF: Duration = Duration::from_mins(1);
/// How long it may take to flash one.
const FLASH: Duration = Duration::from_mins(4);

/// Makes the board if it is not there, which takes minutes.
fn prepare() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hw-fixtures/board/make-board.sh");
    let output = Command::new(script).stdin(Stdio::null()).output().expect("bash is there");
    assert!(output.status.success(), "the board cannot be had: {}", String::from_utf8_lossy(&output.stderr));
}

/// The board.
pub struct Board {
    guest: Guest,
    place: Value,
}

impl Deref for Board {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl Board {
    /// Boots one from this disk, which is made as the board comes if it is not there.
    pub fn boot(disk: &Path) -> Self {
        prepare();
        Self::boot_in(heavy::alone(), disk)
    }

    fn boot_in(turn: Turn, disk: &Path) -> Self {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hw-fixtures/board/run-board.py"));
        command.args(["--limit", &LIMIT.as_secs().to_string(), "--disk"]).arg(disk);
        let (guest, place) = Guest::launch(command, turn);
        Self { guest, place }
    }

    /// Its battery is empty: nothing is written any more, and nobody is told.
    pub fn cut(&mut self) {
        self.guest.tell("cut");
        let ended = self.guest.hear();
        assert!(ended["ended"].is_null(), "it ended by itself: {ended}");
    }

    /// Boots it again.
    pub fn boot_again(&mut self) {
        self.guest.tell("boot");
        self.place = self.guest.hear();
        self.guest.settle(&self.place);
    }

    /// Boots it again without any network; returns at once.
    pub fn boot_without_network(&mut self) {
        self.guest.tell("boot none");
        self.place = self.guest.hear();
    }

    /// Ends it as its switch does, with all that is on its disk.
    pub fn power_off(&mut self) {
        // The agent's answer may or may not make it.
        let _off = self.guest.start(&["systemctl", "poweroff"], &[]);
        self.wait_off(POWER_OFF);
    }

    /// Waits for it to power itself off.
    pub fn wait_off(&mut self, within: Duration) {
        let begun = Instant::now();
        let ended = self.guest.hear();
        assert_eq!(ended["ended"], 0, "QEMU's status: {ended}");
        assert!(begun.elapsed() < within, "it took {:?} to power off", begun.elapsed());
    }

    /// The ssh that reaches it, with its options.
    pub fn ssh(&self) -> String {
        let text = |name: &str| self.place[name].as_str().expect("the runner gives it").to_owned();
        format!(
            "ssh -p {} -i {} -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile={} -o StrictHostKeyChecking=yes",
            self.place["ssh"],
            text("key"),
            text("known_hosts")
        )
    }

    /// Runs `scripts/flash.sh` for it as this user; gives its status and what it said.
    pub fn flash(&self, user: &str, package: &Path) -> (i32, String) {
        let mut command = flash_command(package);
        command.arg(format!("{user}@{}", self.place["guest"].as_str().expect("an address"))).env("SSH", self.ssh());
        finish(command)
    }

    /// The same with `--adb`, by a stand-in for adb that runs its words on the board by ssh.
    pub fn flash_by_adb(&self, package: &Path) -> (i32, String) {
        let mut command = flash_command(package);
        let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/board/adb.sh");
        let host = format!("root@{}", self.place["guest"].as_str().expect("an address"));
        command.arg("--adb").env("ADB_COMMAND", stand_in).env("ADB_SSH", format!("{} {host}", self.ssh()));
        finish(command)
    }

    /// Waits until one of its services is in this state.
    pub fn wait_service(&self, unit: &str, state: &str, within: Duration) {
        poll_until(&format!("{unit} to be {state}"), within, || {
            (self.property(unit, "ActiveState") == state).then_some(())
        });
    }

    /// A property that systemd gives of a unit.
    pub fn property(&self, unit: &str, property: &str) -> String {
        self.shell(&format!("systemctl show --property={property} --value {unit}")).trim().to_owned()
    }
}

fn flash_command(package: &Path) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/flash.sh"));
    command.env("PACKAGE", package);
    command
}

fn finish(mut command: Command) -> (i32, String) {
    let output = NamedTempFile::new().expect("a file for what it says");
    let both = output.reopen().expect("it is there");
    command.stdin(Stdio::null()).stdout(both.try_clone().expect("a descriptor to spare")).stderr(both);
    let status = Process::spawn(&mut command).wait(FLASH);
    let mut said = String::new();
    output.reopen().and_then(|mut file| file.read_to_string(&mut said)).expect("its words are UTF-8");
    (status.code().unwrap_or(-1), said)
}

/// The package that `make deb TARGET=aarch64-unknown-linux-gnu` made: the file that `LENSCAST_BOARD_PACKAGE` names, or the
/// newest where it puts them.
pub fn package() -> PathBuf {
    if let Some(package) = std::env::var_os("LENSCAST_BOARD_PACKAGE") {
        return package.into();
    }
    // CARGO_TARGET_TMPDIR is tmp/ in the target folder.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../aarch64-unknown-linux-gnu/debian");
    let packages = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = packages
        .filter(|path| path.to_string_lossy().ends_with("_arm64.deb"))
        .max_by_key(|path| path.metadata().and_then(|file| file.modified()).ok());
    newest.unwrap_or_else(|| {
        panic!("no package in {}: run `make deb TARGET=aarch64-unknown-linux-gnu`", folder.display())
    })
}
