//! `make flash`: over ssh and adb, with and without dpkg, and with a broken version that is rolled back.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::scene::{SERVICE, UP, disk};
use crate::support::process::run;
use crate::support::{Board, board};

/// The package with another version, whose daemon exits at once.
fn broken(folder: &Path) -> PathBuf {
    let (tree, package) = (folder.join("tree"), folder.join("broken.deb"));
    let (tree, package) = (tree.to_str().expect("UTF-8"), package.to_str().expect("UTF-8"));
    run("dpkg-deb", &["--raw-extract", board::package().to_str().expect("UTF-8"), tree]);
    let daemon = format!("{tree}/usr/bin/lenscastd");
    std::fs::write(&daemon, "#!/bin/sh\necho \"this version is broken\" >&2\nexit 1\n").expect("the tree is ours");
    run("sed", &["-i", "s/^Version: .*/&+broken/", &format!("{tree}/DEBIAN/control")]);
    run("dpkg-deb", &["--root-owner-group", "-Znone", "--build", tree, package]);
    package.into()
}

fn runs(board: &Board, what: &str) {
    board.wait_service(SERVICE, "active", UP);
    let version = board.shell("lenscastd --version");
    assert!(version.starts_with("lenscastd "), "{what}: {version}");
    board.shell("lenscastctl status");
}

#[test]
fn what_is_flashed_runs_and_what_is_broken_is_taken_back() {
    let (_folder, disk) = disk();
    let board = Board::boot(&disk);
    let folder = TempDir::new().expect("a folder for packages");
    let broken = broken(folder.path());
    board.shell("echo '# the user was here' >> /etc/lenscast/lenscastd.toml");

    // A version that does not come up, flashed by a user who is not root.
    let (status, said) = board.flash("dev", &broken);
    println!("{said}");
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("this version is broken") && said.contains("runs again"), "{said}");
    runs(&board, "after a broken package");
    let version = board.shell("dpkg-query --show --showformat='${Version} ${Status}' lenscast");
    assert!(!version.contains("broken") && version.ends_with("install ok installed"), "{version}");
    board.shell("grep -q 'the user was here' /etc/lenscast/lenscastd.toml");

    // The same board without dpkg, by adb.
    board.shell("dpkg --purge lenscast && mount --bind /dev/null /usr/bin/dpkg");
    board.shell("[ ! -e /usr/bin/lenscastd ]");
    let (status, said) = board.flash_by_adb(&broken);
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("there was nothing before"), "{said}");
    board.shell("[ ! -e /usr/bin/lenscastd ] && [ ! -e /usr/share/lenscast/flashed-files ]");
    let (status, said) = board.flash_by_adb(&board::package());
    println!("{said}");
    assert_eq!(status, 0, "{said}");
    runs(&board, "as files");
    assert_eq!(board.shell("systemctl is-enabled lenscastd").trim(), "enabled");
    let (list, file) = ("/usr/share/lenscast/flashed-files", "usr/share/lenscast/only-before");
    board.shell(&format!("touch /{file} && echo {file} >> {list}"));
    let (status, said) = board.flash_by_adb(&broken);
    assert_eq!(status, 3, "{said}");
    runs(&board, "after broken files");
    board.shell(&format!("[ -e /{file} ] && grep -qx {file} {list}"));

    // As from an image: nothing shows that it was flashed.
    board.shell(&format!("rm {list}"));
    let (status, said) = board.flash_by_adb(&broken);
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("runs again"), "{said}");
    runs(&board, "after broken files over an image's");
    assert_eq!(board.shell("systemctl is-enabled lenscastd").trim(), "enabled");
    assert_eq!(board.shell("find /var/tmp -name 'lenscast-flash.*'"), "", "nothing is left lying about");
}

#[test]
fn whoever_cannot_flash_is_told_why() {
    let flash = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/flash.sh"));
        let output = command.args(arguments).envs(environment.iter().copied()).output().expect("bash is there");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, said) = flash(&[], &[]);
    assert_eq!(status, Some(2));
    assert!(said.contains("make flash HOST=user@board"), "{said}");
    let (status, said) = flash(&["root@127.0.0.1"], &[("SSH", "ssh -p 1 -o BatchMode=yes")]);
    assert_eq!(status, Some(1));
    assert!(said.contains("cannot log in") && said.contains("ssh-copy-id"), "{said}");
    let (status, said) = flash(&["--adb"], &[("ADB_COMMAND", "/nonexistent/adb")]);
    assert_eq!(status, Some(1));
    assert!(said.contains("apt-get install adb"), "{said}");
}
