//! What outlives the daemon: which stream ran, so that its end can be told after a crash or a power cut; and what each
//! network carried, so that the next stream on it begins there.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::core::Remembered;

/// Networks that are kept in mind.
const UPLINKS: usize = 32;

fn file(config: &Config, name: &str) -> Option<PathBuf> {
    config.state.directory.as_ref().map(|folder| folder.join(name))
}

/// By way of a second file: a power cut leaves the old or the new one, never half of it.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, file))
}

/// Keeps it, or forgets it. Failing to is logged; a stream does not depend on it.
pub fn keep(config: &Config, remembered: Option<&Remembered>) {
    let Some(file) = file(config, "stream.json") else { return };
    let result = match remembered {
        Some(remembered) => {
            let text = serde_json::to_string(remembered).expect("two strings are always JSON");
            write(&file, &text)
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
    let text = std::fs::read_to_string(file(config, "stream.json")?).ok()?;
    serde_json::from_str(&text).inspect_err(|error| tracing::warn!(%error, "cannot read the stream's state")).ok()
}

/// What a network carried last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Uplink {
    network: String,
    /// Bit/s of video.
    bitrate: u32,
}

fn uplinks(config: &Config) -> Vec<Uplink> {
    let text = file(config, "uplinks.json").and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default() // a bad file is one that knows nothing
}

/// Bit/s of video that `network` carried last, if it was ever too little.
pub fn uplink(config: &Config, network: &str) -> Option<u32> {
    uplinks(config).into_iter().find(|uplink| uplink.network == network).map(|uplink| uplink.bitrate)
}

/// Keeps what `network` carried in mind; forgets it where it was enough.
pub fn keep_uplink(config: &Config, network: String, bitrate: Option<u32>) {
    let Some(file) = file(config, "uplinks.json") else { return };
    let before = uplinks(config);
    let mut after = before.clone();
    after.retain(|uplink| uplink.network != network);
    after.extend(bitrate.map(|bitrate| Uplink { network, bitrate }));
    after.drain(..after.len().saturating_sub(UPLINKS)); // the oldest come first
    if after != before
        && let Err(error) = write(&file, &serde_json::to_string(&after).expect("strings and numbers are always JSON"))
    {
        tracing::warn!(file = %file.display(), %error, "cannot keep what the network carried");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_networks_carried_is_kept_for_the_latest_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.state.directory = Some(folder.path().to_owned());
        assert_eq!(uplink(&config, "home"), None);
        keep_uplink(&config, "home".into(), Some(800_000));
        keep_uplink(&config, "train".into(), Some(300_000));
        keep_uplink(&config, "home".into(), Some(900_000));
        assert_eq!((uplink(&config, "home"), uplink(&config, "train")), (Some(900_000), Some(300_000)));
        keep_uplink(&config, "home".into(), None);
        assert_eq!(uplink(&config, "home"), None, "it is enough now");
        for number in 0..100 {
            keep_uplink(&config, format!("n{number}"), Some(number));
        }
        assert_eq!(uplinks(&config).len(), UPLINKS);
        assert_eq!((uplink(&config, "train"), uplink(&config, "n99")), (None, Some(99)));
        std::fs::write(folder.path().join("uplinks.json"), "{").unwrap();
        assert_eq!(uplink(&config, "n99"), None);
    }
}
