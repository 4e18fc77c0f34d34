//! A package's life: installed, used, upgraded, removed, purged.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use crate::deb::earlier;
use crate::root::Root;
use crate::support::heavy;

const CONFIG: &str = "/etc/lenscast/lenscastd.toml";

#[test]
fn the_package_comes_and_goes_without_leftovers() {
    let architecture = crate::ARCHITECTURE;
    let deb = architecture.deb();
    let _turn = heavy::turn();
    let root = Root::new(architecture);
    let before = root.files();
    let (_folder, old) = earlier(deb);
    root.dpkg(&["--install", root.put(&old)]);
    installed(&root);

    // Not changed by the user: the new version replaces it.
    assert!(root.read(CONFIG).contains("as it was"));
    root.dpkg(&["--install", root.put(deb)]);
    assert!(!root.read(CONFIG).contains("as it was"));
    installed(&root);

    // Changed by the user: it stays, although the other version brings a new one.
    root.write(CONFIG, "[camera]\ndevice = \"test\"\n");
    for package in [&old, deb] {
        root.dpkg(&["--install", root.put(package)]);
        assert_eq!(root.read(CONFIG), "[camera]\ndevice = \"test\"\n");
    }
    installed(&root);

    // Files that the user and the daemon have put there.
    for file in
        ["/etc/lenscast/lenscastd.d/10.toml", "/etc/lenscast/pipelines/mine.toml", "/var/lib/lenscast/stream.json"]
    {
        root.write(file, "");
    }
    root.write("/var/cache/lenscast/gstreamer-1.0/registry.bin", "");
    root.dpkg(&["--remove", "lenscast"]);
    assert!(!root.has("/usr/bin/lenscastd") && !root.has("/usr/share/lenscast"));
    assert_eq!(
        root.read(CONFIG),
        "[camera]\ndevice = \"test\"\n",
        "a package that was removed keeps its configuration"
    );
    assert!(root.has("/var/lib/lenscast/stream.json"));
    root.dpkg(&["--purge", "lenscast"]);
    std::fs::remove_file(root.path("/tmp/put.deb")).unwrap();

    // The system user stays, as is Debian's policy; its programs keep a log, and a backup of what they have changed.
    let debians = |path: &&String| {
        let kept =
            ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock", "/var/log/dpkg.log"];
        kept.contains(&path.as_str())
            || path.starts_with("/run/systemd")
            || path.starts_with("/var/lib/dpkg/") && !path.contains("lenscast")
    };
    let after = root.files();
    let left: BTreeSet<_> = after.difference(&before).filter(|path| !debians(path)).collect();
    assert!(left.is_empty(), "left behind: {left:#?}");
    let gone: BTreeSet<_> = before.difference(&after).filter(|path| !debians(path)).collect();
    assert!(gone.is_empty(), "taken along: {gone:#?}");
}

/// Checks what must hold after each installation.
fn installed(root: &Root) {
    assert_eq!(root.run(&["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", "lenscast"]), "ii ");
    assert_eq!(root.dpkg(&["--audit"]), "");
    for program in ["lenscastd", "lenscastctl"] {
        assert_eq!(root.run(&[program, "--version"]).trim(), format!("{program} {}", env!("CARGO_PKG_VERSION")));
    }
    // The daemon's user may read its configuration, which is valid.
    root.run(&["runuser", "-u", "lenscast", "--", "lenscastd", "--check-config"]);
    root.run(&["runuser", "-u", "lenscast", "--", "lenscastctl", "check-config", CONFIG]);
    let groups = root.run(&["id", "--name", "--groups", "lenscast"]);
    let groups: BTreeSet<_> = groups.split_whitespace().collect();
    assert_eq!(groups, BTreeSet::from(["lenscast", "video", "audio", "render", "dialout"]));

    // Starts at boot, with or without a camera.
    for link in [
        "multi-user.target.wants/lenscastd.service",
        "sockets.target.wants/lenscastd.socket",
        "sockets.target.wants/lenscast-holders.socket",
    ] {
        assert!(root.has(&format!("/etc/systemd/system/{link}")), "{link} is not enabled");
    }
    root.run(&["systemd-analyze", "verify", "--man=no", "/lib/systemd/system/lenscastd.service"]);
    root.run(&["systemd-tmpfiles", "--create", "lenscast.conf"]);
    let uid = root.run(&["id", "--user", "lenscast"]);
    assert_eq!(root.path("/run/lenscast").metadata().unwrap().uid().to_string(), uid.trim());
}
