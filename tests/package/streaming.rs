//! The packaged daemon goes live from its installed location.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::root::Root;
use crate::support::clock::poll_until;
use crate::support::control::{Control, small};
use crate::support::{Nginx, Process, Watch, heavy, probe};

/// Limit for emulated programs: all GStreamer plugins are scanned first.
const SLOWLY: Duration = Duration::from_mins(2);

#[test]
fn the_package_streams_with_no_more_than_it_depends_on() {
    let architecture = crate::ARCHITECTURE;
    let deb = architecture.deb();
    let _turn = heavy::turn();
    let root = Root::new(architecture);
    root.dpkg(&["--install", root.put(deb)]);
    root.run(&["systemd-tmpfiles", "--create", "lenscast.conf"]);
    root.write("/etc/lenscast/lenscastd.d/test.toml", "[camera]\ndevice = \"test\"\n[audio]\ndevice = \"test\"\n");

    let log = root.path("/tmp/lenscastd.log");
    let mut command = root.command(&["lenscastd"]);
    command.env("XDG_CACHE_HOME", "/tmp").env("STATE_DIRECTORY", "/tmp").env("NO_COLOR", "1");
    let mut daemon = Process::spawn(command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()));
    let socket = root.path("/run/lenscast/control.sock");
    poll_until("the daemon's control socket", SLOWLY, || {
        if let Some(status) = daemon.exited() {
            panic!("the daemon ended with {status}:\n{}", root.read("/tmp/lenscastd.log"));
        }
        UnixStream::connect(&socket).ok()
    });

    // Ask first which encoder works.
    let findings = root.run(&["lenscastctl", "doctor", "--json"]);
    assert!(findings.contains("\"encoder\"") && !findings.contains("\"fail\""), "{findings}");

    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let mut watch = Watch::begin(&socket);
    let mut control = Control::connect(&socket);
    control.granted(&small(&nginx.url("live", "key"), "org.example.app", "stream-1"));
    watch.wait_state("streaming", SLOWLY);
    recordings.wait_frames(0, 60, SLOWLY);
    control.granted(&json!({"cmd": "stop"}));
    assert_eq!(watch.wait_state("stopped", SLOWLY).cause(), "requested");
    recordings.wait_closed(0, SLOWLY);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait(SLOWLY).success(), "{}", root.read("/tmp/lenscastd.log"));

    let all = recordings.finish();
    assert_eq!(all.len(), 1, "one publication");
    let frames = all[0].frames();
    assert!(frames[0].key && frames.is_sorted_by(|a, b| a.dts_ms < b.dts_ms));
    let probe = probe::probe(&all[0].path);
    assert_eq!((&probe.codecs[..], probe.size), (&["h264".to_owned(), "aac".to_owned()][..], (320, 240)));
    assert_eq!(probe.frames, frames.len() as u64, "every frame can be decoded");
}
