//! The answer to a stream request when no encoder works.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::support::Daemon;

#[test]
fn a_start_without_an_encoder_that_works_says_what_is_wrong_with_each() {
    let folder = TempDir::with_prefix("profiles-").expect("a folder for profiles");
    let mut names = Vec::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines")).expect("the profiles") {
        let path = file.expect("a profile").path();
        let profile = fs::read_to_string(&path).expect("a profile");
        let field = |name: &str| profile.lines().find(|line| line.starts_with(&format!("{name} = "))).expect("a field");
        let name = field("name").split('"').nth(1).expect("a name").to_owned();
        let broken = profile.replace(field("elements"), &format!("elements = [\"missing-{name}\"]"));
        fs::write(folder.path().join(path.file_name().expect("a file")), broken).expect("the folder takes files");
        names.push(name);
    }
    assert!(names.len() > 3, "{names:?}");

    let profiles = folder.path().display();
    let mut daemon = Daemon::start(&format!("[encoder]\nprofile = \"auto\"\nprofiles = \"{profiles}\"\n"));
    let said = Command::new(env!("CARGO_BIN_EXE_lenscastctl"))
        .args(["start", "rtmp://127.0.0.1:1/live/key"])
        .env("LENSCAST_SOCKET", daemon.socket())
        .output()
        .expect("lenscastctl runs");
    let errors = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{errors}");
    assert!(errors.contains("no video encoder works: ") && errors.contains("(encoder_failed)"), "{errors}");
    for name in names {
        assert!(errors.contains(&format!("{name}: no element missing-{name} here")), "{name}: {errors}");
    }
    assert_eq!(daemon.process().exited(), None);
    let end = daemon.control().status()["last_end"].clone();
    assert!(end["detail"].as_str().is_some_and(|detail| detail.contains("missing-x264")), "{end}");
    daemon.finish();
}
