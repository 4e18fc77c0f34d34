//! What outlives the daemon: the running stream, so that the next process can resume it or report its end; and what
//! each network carried, so that the next stream on it begins there.
//!
//! The stream is kept with its URL, key included, in a file that only the daemon's user can read.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::config::Config;
use super::core::{LeftOver, Remembered};
use crate::link::LinkId;
use crate::protocol::command::{Dialect, StartStream};
use crate::protocol::{AudioSettings, StreamKind, StreamUrl, VideoSettings};

/// The file that holds the running stream.
const STREAM: &str = "stream.json";
/// How long the end of the process waits for the disk.
const LAST: Duration = Duration::from_secs(1);
/// Maximum number of networks remembered.
const UPLINKS: usize = 32;

fn file(config: &Config, name: &str) -> Option<PathBuf> {
    config.state.directory.as_ref().map(|folder| folder.join(name))
}

/// Writes through a second file: whenever the process ends, the old or the new file is there, never half of it.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut open = fs::OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?.write_all(text.as_bytes())?;
    fs::rename(&fresh, file)
}

/// The contents of [`STREAM`].
#[derive(Deserialize, Serialize)]
struct Kept {
    /// Wall-clock time of writing, milliseconds since 1970.
    at_ms: u64,
    /// The whole URL, key included.
    url: String,
    stream_id: String,
    app: String,
    kind: StreamKind,
    video: VideoSettings,
    audio: AudioSettings,
    duration_limit: Option<Duration>,
    flash: bool,
    sound: bool,
    link: Option<(LinkId, Dialect)>,
    patience: Duration,
    crashes: u32,
    handed_over: bool,
}

impl Kept {
    fn new(remembered: &Remembered) -> Self {
        let Remembered { start, link, patience, crashes, handed_over } = remembered;
        Self {
            at_ms: wall_clock_ms(),
            url: start.url.expose().to_owned(),
            stream_id: start.stream_id.clone(),
            app: start.app.clone(),
            kind: start.kind,
            video: start.video,
            audio: start.audio,
            duration_limit: start.duration_limit,
            flash: start.flash,
            sound: start.sound,
            link: *link,
            patience: *patience,
            crashes: *crashes,
            handed_over: *handed_over,
        }
    }

    fn left_over(self) -> Option<LeftOver> {
        let start = StartStream {
            url: StreamUrl::parse(&self.url).ok()?,
            stream_id: self.stream_id,
            app: self.app,
            kind: self.kind,
            video: self.video,
            audio: self.audio,
            duration_limit: self.duration_limit,
            flash: self.flash,
            sound: self.sound,
        };
        let (link, patience) = (self.link, self.patience);
        let stream = Remembered { start, link, patience, crashes: self.crashes, handed_over: self.handed_over };
        // A clock that went backwards has lost the time.
        Some(LeftOver { stream, gone_for: wall_clock_ms().checked_sub(self.at_ms).map(Duration::from_millis) })
    }
}

fn wall_clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// Stores the running stream.
///
/// The file is written at once, for a process that ends the next moment. It is synced to disk a little later, since
/// that may take time. Without syncing, a board cut off shortly after going live would have nothing to resume, and one
/// that had just stopped would go live again.
#[derive(Debug)]
pub struct Keeper {
    config: Arc<Config>,
    changed: watch::Sender<()>,
    settling: JoinHandle<()>,
}

impl Keeper {
    /// Stores it where the configuration says.
    pub fn start(config: Arc<Config>) -> Self {
        let (changed, mut kept) = watch::channel(());
        let file = file(&config, STREAM);
        let settling = tokio::spawn(async move {
            while kept.changed().await.is_ok() {
                if let Some(file) = file.clone() {
                    let _ = tokio::task::spawn_blocking(move || settle(&file)).await; // it cannot panic
                }
            }
        });
        Self { config, changed, settling }
    }

    /// Stores this from now on, or nothing.
    pub fn keep(&self, remembered: Option<&Remembered>) {
        keep(&self.config, remembered);
        self.changed.send_replace(());
    }

    /// Waits until the latest state is on disk, but not for a disk that hangs.
    pub async fn end(self) {
        drop(self.changed);
        if tokio::time::timeout(LAST, self.settling).await.is_err() {
            tracing::warn!(limit = ?LAST, "the disk is slow to take the stream's state");
        }
    }
}

/// Syncs a file, or its removal, to disk.
fn settle(file: &Path) {
    let folder = file.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all());
    match fs::File::open(file).and_then(|file| file.sync_all()).and(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %file.display(), %error, "the disk did not take the stream's state");
        }
        _ => {}
    }
}

/// Stores or removes the stream. Failure is logged; a stream does not depend on it.
fn keep(config: &Config, remembered: Option<&Remembered>) {
    let Some(file) = file(config, STREAM) else { return };
    let result = match remembered {
        Some(remembered) => {
            let text = serde_json::to_string(&Kept::new(remembered)).expect("strings and numbers are always JSON");
            write(&file, &text)
        }
        None => match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    };
    if let Err(error) = result {
        tracing::warn!(file = %file.display(), %error, "cannot keep the stream's state");
    }
}

/// What the previous daemon left.
pub fn recall(config: &Config) -> Option<LeftOver> {
    let text = fs::read_to_string(file(config, STREAM)?).ok()?;
    let kept: Result<Kept, _> = serde_json::from_str(&text);
    // Only the position: serde_json's message may quote the contents, and thus the key.
    kept.inspect_err(|error| {
        tracing::warn!(line = error.line(), column = error.column(), "cannot read the stream's state");
    })
    .ok()?
    .left_over()
}

/// What a network last carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Uplink {
    network: String,
    /// Bit/s of video.
    bitrate: u32,
}

fn uplinks(config: &Config) -> Vec<Uplink> {
    let text = file(config, "uplinks.json").and_then(|file| fs::read_to_string(file).ok());
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default() // a bad file is one that knows nothing
}

/// Bit/s of video that `network` last carried, if that was ever too little.
pub fn uplink(config: &Config, network: &str) -> Option<u32> {
    uplinks(config).into_iter().find(|uplink| uplink.network == network).map(|uplink| uplink.bitrate)
}

/// Stores what `network` carried; forgets it if that was enough.
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_stream_is_kept_whole_for_the_next_process_and_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.state.directory = Some(folder.path().to_owned());
        assert!(recall(&config).is_none());
        let remembered = Remembered {
            start: StartStream {
                url: StreamUrl::parse("rtmps://u:p@h:444/app/s3cret?sig=1").unwrap(),
                stream_id: "s-1".into(),
                app: "org.example".into(),
                kind: StreamKind::Managed,
                video: VideoSettings { bitrate: 1_234_567, ..VideoSettings::default() },
                audio: AudioSettings::default(),
                duration_limit: Some(Duration::from_millis(90_500)),
                flash: true,
                sound: false,
            },
            link: Some((LinkId::Uart, Dialect::Rtmp)),
            patience: Duration::from_millis(44_100),
            crashes: 2,
            handed_over: true,
        };
        keep(&config, Some(&remembered));
        let file = folder.path().join("stream.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let left_over = recall(&config).unwrap();
        assert_eq!(left_over.stream, remembered);
        assert!(left_over.gone_for.unwrap() < Duration::from_mins(1));

        let later = fs::read_to_string(&file).unwrap().replacen("\"at_ms\":1", "\"at_ms\":9", 1);
        fs::write(&file, later).unwrap();
        assert_eq!(recall(&config).unwrap().gone_for, None, "a clock that has lost the time");
        fs::write(&file, "{").unwrap();
        assert!(recall(&config).is_none());
        keep(&config, None);
        assert!(!file.exists());
    }

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
        fs::write(folder.path().join("uplinks.json"), "{").unwrap();
        assert_eq!(uplink(&config, "n99"), None);
    }
}
