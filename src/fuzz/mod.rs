//! The fuzz targets: a function for each parser of data from a network or a file. A target takes any bytes. Besides not
//! panicking, it asserts what must hold for all that it parsed.
//!
//! `fuzz/` runs the targets with libFuzzer (`make fuzz`). The test below replays the corpora, with every input that was
//! ever found to fail. A target for private code is beside that code (`ingest::fuzz`), so nothing is made public for
//! it. It uses [`crate::fuzz_input`] and nothing from here.

mod files;
mod urls;
mod words;

use crate::protocol::k900;
use crate::{cloud, ingest, link, playback, whep};

/// Takes an input. Panics if it finds a fault.
pub type Target = fn(&[u8]);

/// All targets, under the names of `fuzz/targets/NAME.rs` and `fuzz/corpus/NAME`.
pub const TARGETS: [(&str, Target); 20] = [
    ("amf0", ingest::fuzz::amf0),
    ("app_request", words::app_request),
    ("chunk", ingest::fuzz::chunk),
    ("cloud_request", cloud::control::fuzz::request),
    ("command", words::command),
    ("config", files::config),
    ("control_request", words::control_request),
    ("control_socket", link::control::fuzz::socket),
    ("glasses", words::glasses),
    ("jwt", cloud::gateway::fuzz::jwt),
    ("k900", k900::fuzz::line),
    ("packager", playback::fuzz::packager),
    ("photo_frame", words::photo_frame),
    ("playlist_request", playback::fuzz::request),
    ("publication", ingest::fuzz::publication),
    ("redact", urls::redact),
    ("session", ingest::fuzz::session),
    ("stream_url", urls::stream_url),
    ("whep_datagram", whep::fuzz::datagram),
    ("whep_offer", whep::fuzz::offer),
];

/// Runs a target.
///
/// # Panics If the target finds a fault, or for an unknown name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(data);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The corpora are few and small; together they take seconds.
    #[test]
    fn all_corpora_replay() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let mut inputs = 0;
            for entry in std::fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")) {
                let file = entry.unwrap().path();
                let data = std::fs::read(&file).unwrap();
                let outcome = std::panic::catch_unwind(|| target(&data));
                assert!(outcome.is_ok(), "cargo fuzz run {name} {}", file.display());
                inputs += 1;
            }
            assert!(inputs > 0, "no corpus of {name}");
        }
    }

    #[test]
    fn each_target_has_its_program() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            let program = std::fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).unwrap();
            assert!(program.contains(&format!("run(\"{name}\", data)")), "{name}");
            assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
        }
        assert_eq!(std::fs::read_dir(fuzz.join("targets")).unwrap().count(), TARGETS.len());
    }
}
