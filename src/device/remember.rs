//! What outlives the daemon: which stream ran, so that its end can be told after a crash or a power cut.

use std::path::PathBuf;

use super::config::Config;
use super::core::Remembered;

fn file(config: &Config) -> Option<PathBuf> {
    config.state.directory.as_ref().map(|folder| folder.join("stream.json"))
}

/// Keeps it, or forgets it. Failing to is logged; a stream does not depend on it.
pub fn keep(config: &Config, remembered: Option<&Remembered>) {
    let Some(file) = file(config) else { return };
    let result = match remembered {
        Some(remembered) => {
            let text = serde_json::to_string(remembered).expect("two strings are always JSON");
            // By way of a second file: a power cut leaves the old or the new one, never half of it.
            let fresh = file.with_extension("new");
            std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &file))
        }
        None => match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    };
    if let Err(error) = result {
        tracing::warn!(file = %file.display(), %error, "cannot keep the stream's state");
    }
}

/// What the daemon before this one left.
pub fn recall(config: &Config) -> Option<Remembered> {
    let text = std::fs::read_to_string(file(config)?).ok()?;
    serde_json::from_str(&text).inspect_err(|error| tracing::warn!(%error, "cannot read the stream's state")).ok()
}
