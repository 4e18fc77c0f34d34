//! The daemon's configuration: `/etc/lenscast/lenscastd.toml`, then `lenscastd.d/*.toml` beside it, later files over
//! earlier ones. Every key has a default; an unknown key is an error that names file and line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::media::source::{Fit, Rotation};
use crate::protocol::Secret;

/// Where the configuration is looked for when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/lenscast/lenscastd.toml";

/// All that can be configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[camera]`
    pub camera: Camera,
    /// `[audio]`
    pub audio: Audio,
    /// `[encoder]`
    pub encoder: Encoder,
    /// `[stream]`
    pub stream: Stream,
    /// `[cloud]`
    pub cloud: Cloud,
    /// `[control]`
    pub control: Control,
    /// `[tls]`
    pub tls: Tls,
    /// `[state]`
    pub state: State,
}

/// Which camera.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Camera {
    /// `auto`, `test` (a moving picture; `test:PATTERN` for another of videotestsrc's), a device node, or a stable
    /// identity as `lenscastctl camera list` shows it. Default `auto`.
    pub device: String,
    /// How far the picture is turned clockwise, degrees: 0, 90, 180 or 270. Default 0.
    pub rotation: Rotation,
    /// What becomes of a picture of another shape than asked: `crop` or `letterbox`. Default `crop`.
    pub fit: Fit,
    /// Hand pictures to a hardware encoder without a copy where both sides can. Default true.
    pub zero_copy: bool,
    /// How long the camera stays open after a photo, seconds, so that the next one or a stream is quick. Default 5.
    pub photo_linger_s: u64,
}

impl Default for Camera {
    fn default() -> Self {
        Self {
            device: "auto".into(),
            rotation: Rotation::default(),
            fit: Fit::default(),
            zero_copy: true,
            photo_linger_s: 5,
        }
    }
}

/// Which microphone.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audio {
    /// `auto`, `test` (a tone), `none`, or the name of an ALSA device. Default `auto`.
    pub device: String,
}

impl Default for Audio {
    fn default() -> Self {
        Self { device: "auto".into() }
    }
}

/// Which encoder.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Encoder {
    /// `auto` or the name of an encoder profile. Default `auto`: the first that works, hardware before software.
    pub profile: String,
    /// A folder with profiles of your own, over the built-in ones.
    pub profiles: Option<PathBuf>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { profile: "auto".into(), profiles: None }
    }
}

/// How streams behave.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stream {
    /// Give up so many seconds after media last went through. 0: never. Default 120.
    pub give_up_after_s: u64,
    /// End so many seconds after the last keep-alive, while streaming. Default 60.
    pub keep_alive_timeout_s: u64,
    /// What a missing keep-alive does. `continue` is for links known to fail one way. Default `stop`.
    pub on_keep_alive_loss: OnLoss,
    /// What a lost link to phone or cloud does to the stream it started. Default `continue`.
    pub on_link_loss: OnLoss,
    /// How long a stream continues without its link, seconds. Default 120.
    pub link_loss_grace_s: u64,
    /// How long the connection to the server is kept while the camera is gone, seconds. Default 10.
    pub camera_hold_s: u64,
    /// Whether a managed stream gives way to an unmanaged one. Default true.
    pub managed_yields: bool,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            give_up_after_s: 120,
            keep_alive_timeout_s: 60,
            on_keep_alive_loss: OnLoss::Stop,
            on_link_loss: OnLoss::Continue,
            link_loss_grace_s: 120,
            camera_hold_s: 10,
            managed_yields: true,
        }
    }
}

/// What a loss does to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// It ends.
    Stop,
    /// It goes on.
    Continue,
}

/// The link to phone or cloud. Without a URL there is none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cloud {
    /// For example `wss://cloud.example.org/glasses-ws`.
    pub url: Option<String>,
    /// The bearer token; better in a file.
    pub token: Option<Secret>,
    /// A file that holds the bearer token.
    pub token_file: Option<PathBuf>,
}

/// The control socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Its path. Default `/run/lenscast/control.sock`.
    pub socket: PathBuf,
    /// The group whose members may use it. Default `lenscast`.
    pub group: String,
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: "/run/lenscast/control.sock".into(), group: "lenscast".into() }
    }
}

/// Whom to trust.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with the authorities to trust for `rtmps://`, in place of the system's, and for `wss://`, beside them.
    pub ca_file: Option<PathBuf>,
}

/// What outlives the daemon.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// The folder for it. Default: systemd's `$STATE_DIRECTORY`; without either nothing is kept.
    pub directory: Option<PathBuf>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is not readable.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {source}")]
    Malformed {
        /// The file.
        path: String,
        /// Why, with the line.
        source: Box<toml::de::Error>,
    },
    /// Two keys contradict each other, or a value makes no sense.
    #[error("{0}")]
    Contradiction(String),
}

impl Config {
    /// Reads `path` and the drop-ins beside it. Without a file at [`DEFAULT_PATH`] all defaults hold; a path that was
    /// asked for must exist.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let main = path.unwrap_or(Path::new(DEFAULT_PATH));
        let mut merged = toml::Table::new();
        let mut files = if path.is_none() && !main.exists() { vec![] } else { vec![main.to_owned()] };
        files.extend(drop_ins(main)?);
        for file in files {
            merge(&mut merged, read(&file)?);
        }
        let shown = main.display().to_string();
        let mut config: Self =
            merged.try_into().map_err(|source| ConfigError::Malformed { path: shown, source: Box::new(source) })?;
        config.settle()?;
        Ok(config)
    }

    /// Checks what serde cannot, and reads the files that are named.
    fn settle(&mut self) -> Result<(), ConfigError> {
        let contradiction = |text: &str| Err(ConfigError::Contradiction(text.into()));
        if let Some(url) = &self.cloud.url
            && !(url.starts_with("ws://") || url.starts_with("wss://"))
        {
            return contradiction("cloud.url must begin with ws:// or wss://");
        }
        if self.cloud.url.is_none() && (self.cloud.token.is_some() || self.cloud.token_file.is_some()) {
            return contradiction("cloud.token is of no use without cloud.url");
        }
        if self.stream.keep_alive_timeout_s == 0 {
            return contradiction(
                "stream.keep_alive_timeout_s = 0 would end every stream; see stream.on_keep_alive_loss",
            );
        }
        match (&self.cloud.token, &self.cloud.token_file) {
            (Some(_), Some(_)) => return contradiction("give either cloud.token or cloud.token_file, not both"),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|source| ConfigError::Unreadable { path: file.display().to_string(), source })?;
                self.cloud.token = Some(Secret::new(text.trim()));
            }
            _ => {}
        }
        if let Some(file) = &self.tls.ca_file {
            std::fs::metadata(file)
                .map_err(|source| ConfigError::Unreadable { path: file.display().to_string(), source })?;
        }
        if self.state.directory.is_none() {
            self.state.directory = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
        }
        Ok(())
    }
}

impl Stream {
    /// `give_up_after_s`, with 0 as never.
    pub fn give_up_after(&self) -> Option<Duration> {
        (self.give_up_after_s > 0).then(|| Duration::from_secs(self.give_up_after_s))
    }

    /// How long a stream outlives its link.
    pub fn link_loss_grace(&self) -> Duration {
        match self.on_link_loss {
            OnLoss::Stop => Duration::ZERO,
            OnLoss::Continue => Duration::from_secs(self.link_loss_grace_s),
        }
    }
}

/// Says whether a configuration file, with its drop-ins, can be used.
pub fn check(path: &Path) -> Result<(), ConfigError> {
    Config::load(Some(path)).map(|_| ())
}

/// `lenscastd.d/*.toml` beside `lenscastd.toml`, in the order of their names.
fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = main.with_extension("d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(source) => return Err(ConfigError::Unreadable { path: folder.display().to_string(), source }),
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<toml::Table, ConfigError> {
    let shown = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: shown(), source })?;
    let malformed = |source: toml::de::Error| ConfigError::Malformed { path: shown(), source: Box::new(source) };
    // Each file is read as a whole configuration first: only then does an error know its line.
    toml::from_str::<Config>(&text).map_err(malformed)?;
    toml::from_str(&text).map_err(malformed)
}

fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => merge(base, over),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lenscastd.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path))
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let config = load("").unwrap();
        assert_eq!(config.camera.device, "auto");
        assert_eq!(config.stream.give_up_after(), Some(Duration::from_mins(2)));
        assert_eq!(config.stream.link_loss_grace(), Duration::from_mins(2));
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        let error = load("[camera]\ndevice = \"test\"\nzoom = 3\n").unwrap_err().to_string();
        for part in ["lenscastd.toml", "line 3", "zoom"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn contradictions_are_errors_and_the_token_is_never_shown() {
        let both = "[cloud]\nurl = \"ws://h/glasses-ws\"\ntoken = \"hush\"\ntoken_file = \"/x\"\n";
        let error = load(both).unwrap_err().to_string();
        assert!(error.contains("not both") && !error.contains("hush"), "{error}");
        assert!(load("[cloud]\nurl = \"https://h\"\n").is_err());
        assert!(load("[cloud]\ntoken = \"t\"\n").is_err());
        assert!(load("[stream]\nkeep_alive_timeout_s = 0\n").is_err());
        let config = load("[cloud]\nurl = \"ws://h/glasses-ws\"\ntoken = \"hush\"\n").unwrap();
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn drop_ins_come_over_the_file_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lenscastd.toml");
        std::fs::write(&path, "[camera]\ndevice = \"auto\"\nphoto_linger_s = 9\n").unwrap();
        std::fs::create_dir(folder.path().join("lenscastd.d")).unwrap();
        std::fs::write(folder.path().join("lenscastd.d/20.toml"), "[camera]\ndevice = \"test\"\n").unwrap();
        std::fs::write(folder.path().join("lenscastd.d/10.toml"), "[camera]\ndevice = \"/dev/video3\"\n").unwrap();
        let config = Config::load(Some(&path)).unwrap();
        assert_eq!((config.camera.device.as_str(), config.camera.photo_linger_s), ("test", 9));
    }
}
