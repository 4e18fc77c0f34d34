//! The main job on real camera drivers: what `hw-fixtures/run.sh` does, as a test.

use std::process::{Command, Stdio};

use crate::support::heavy;

/// What the script exits with where there is no rig.
const NO_RIG: i32 = 77;

#[test]
fn a_usb_webcam_goes_live_through_the_hardware_encoder_and_is_unplugged() {
    let _turn = heavy::turn();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hw-fixtures/run.sh");
    let output = Command::new(script)
        .env("LENSCASTD", env!("CARGO_BIN_EXE_lenscastd"))
        .stdin(Stdio::null())
        .output()
        .expect("bash is there");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_RIG) && std::env::var_os("CI").is_none_or(|ci| ci != "true") {
        eprintln!("not run: {said}");
        return;
    }
    assert!(output.status.success(), "{}:\n{said}", output.status);
}
