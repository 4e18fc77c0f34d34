//! What is fuzzed: a function for each parser of what comes by a wire or out of a file. It takes any bytes and asserts,
//! beside not panicking, what must hold of all that was read.
//!
//! `fuzz/` drives these by libFuzzer (`make fuzz`); the test below replays its corpora, and with them every input that was
//! ever found to fail. A target for what is private lies beside it (`ingest::fuzz`), so nothing is made public for it;
//! such a target imports only [`Input`] from here.

mod files;
mod urls;
mod words;

use crate::protocol::k900;
use crate::{cloud, ingest, link, playback, whep};

/// Takes an input. Panics where it finds something wrong.
pub type Target = fn(&[u8]);

/// All targets; `fuzz/targets/NAME.rs` and `fuzz/corpus/NAME` go by their names.
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
/// # Panics
/// Where the target finds something wrong, and for an unknown name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(data);
}

/// Stands for a stream key or token in inputs: what is printed for people must not hold it.
pub(crate) const SECRET: &str = "s3cr3t-k3y";

/// Panics if the secret is in what is printed.
pub(crate) fn assert_hidden(printed: &str) {
    assert!(!printed.contains(SECRET), "{printed}");
}

/// Bytes taken one after another, so that a small change of the input is a small change of what is done. Zeros follow the end.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// Big endian.
    pub fn number(&mut self, bytes: usize) -> u32 {
        self.take(bytes).iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
    }

    /// So many bytes, or what is left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The inputs of a corpus are few and small; together they take seconds.
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
