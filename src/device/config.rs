//! The daemon's configuration: `/etc/lenscast/lenscastd.toml`, then `lenscastd.d/*.toml` beside it; later files
//! override earlier ones. Every key has a default; an unknown key is an error that names file and line.
#![warn(missing_docs)]

mod board;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use board::{Battery, Board, Heat, PrivacyLed};
use serde::Deserialize;

use crate::configuration;
pub use crate::configuration::ConfigError;
use crate::link::uart::{self, UartConfig};
use crate::media::source::{Fit, Rotation};
use crate::protocol::Secret;
use crate::protocol::k900::LengthOrder;

/// Where the configuration is read from by default.
pub const DEFAULT_PATH: &str = "/etc/lenscast/lenscastd.toml";
/// The name of the systemd credential that holds the cloud's bearer token.
const CLOUD_TOKEN: &str = "lenscast.cloud-token";

/// Where encoder profiles are read from by default: the package's, then the user's own.
const PROFILES: [&str; 2] = ["/usr/share/lenscast/pipelines", "/etc/lenscast/pipelines"];

/// The whole configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[camera]`: the camera.
    pub camera: Camera,
    /// `[audio]`: the microphone.
    pub audio: Audio,
    /// `[speaker]`: the loudspeaker.
    pub speaker: Speaker,
    /// `[encoder]`: the encoder.
    pub encoder: Encoder,
    /// `[stream]`: how streams behave.
    pub stream: Stream,
    /// `[cloud]`: the link to the cloud.
    pub cloud: Cloud,
    /// `[link]`: other links.
    pub link: Link,
    /// `[control]`: the control socket.
    pub control: Control,
    /// `[metrics]`: metrics for Prometheus.
    pub metrics: Metrics,
    /// `[tls]`: trusted certificate authorities.
    pub tls: Tls,
    /// `[state]`: state that outlives the daemon.
    pub state: State,
    /// `[board]`: how the board is read.
    pub board: Board,
    /// `[heat]`: limits of temperature.
    pub heat: Heat,
    /// `[battery]`: limits of charge.
    pub battery: Battery,
    /// `[privacy_led]`: the privacy light.
    pub privacy_led: PrivacyLed,
}

/// Camera settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Camera {
    /// `auto`, `test` (a moving picture; `test:PATTERN` for another pattern of videotestsrc), a device node, or a
    /// stable identity as shown by `lenscastctl camera list`. Default `auto`.
    pub device: String,
    /// Clockwise rotation of the picture, degrees: 0, 90, 180 or 270. Default 0.
    pub rotation: Rotation,
    /// How a picture of another shape is fitted: `crop` or `letterbox`. Default `crop`.
    pub fit: Fit,
    /// Whether pictures go to a hardware encoder without a copy where both sides can. Default true.
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

/// Microphone settings.
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

/// Loudspeaker settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Speaker {
    /// `none`, or an ALSA device that plays short tones for the wearer when a stream is live, when it ends, and when
    /// the battery forbids it. A stream request can switch them off. Default `none`.
    pub device: String,
}

impl Default for Speaker {
    fn default() -> Self {
        Self { device: "none".into() }
    }
}

/// Encoder settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Encoder {
    /// `auto` or the name of an encoder profile. Default `auto`: the first that works, hardware before software.
    pub profile: String,
    /// Folder with your own profiles. They override those in `/usr/share/lenscast/pipelines`, which override the
    /// built-in ones. Default `/etc/lenscast/pipelines`, if it exists.
    pub profiles: Option<PathBuf>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { profile: "auto".into(), profiles: None }
    }
}

impl Encoder {
    /// The folders with profiles; later ones override earlier ones.
    pub fn folders(&self) -> Vec<PathBuf> {
        let [installed, own] = PROFILES.map(|folder| Some(PathBuf::from(folder)).filter(|folder| folder.exists()));
        // An explicitly configured folder must exist.
        installed.into_iter().chain(self.profiles.clone().or(own)).collect()
    }
}

/// How streams behave.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stream {
    /// Give up this many seconds after media last went through. 0: never. Default 120.
    pub give_up_after_s: u64,
    /// While streaming, end this many seconds after the last keep-alive. Default 60.
    pub keep_alive_timeout_s: u64,
    /// What a missing keep-alive does. `continue` is for links known to fail one way. Default `stop`.
    pub on_keep_alive_loss: OnLoss,
    /// What losing the link to phone or cloud does to the stream it started. Default `continue`.
    pub on_link_loss: OnLoss,
    /// How long a stream continues without its link, seconds. Default 120.
    pub link_loss_grace_s: u64,
    /// How long the server connection is kept while the camera is gone, seconds. Default 10.
    pub camera_hold_s: u64,
    /// Whether the bitrate follows the uplink; the requested bitrate is then the maximum. Default true.
    pub adaptive: bool,
    /// Below this video bitrate, pictures are left out instead of made coarser; kbit/s. Default 150.
    pub floor_kbps: u32,
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
            adaptive: true,
            floor_kbps: 150,
            managed_yields: true,
        }
    }
}

/// What a loss does to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// The stream ends.
    Stop,
    /// The stream continues.
    Continue,
}

/// The link to phone or cloud. Without a URL there is none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cloud {
    /// The cloud's URL, for example `wss://cloud.example.org/glasses-ws`.
    pub url: Option<String>,
    /// The bearer token; better in a file.
    pub token: Option<Secret>,
    /// A file that holds the bearer token. Without `token` and `token_file`, systemd's credential
    /// `lenscast.cloud-token` is used if it exists.
    pub token_file: Option<PathBuf>,
}

/// Links other than the cloud's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// `[link.uart]`. Default none.
    pub uart: Option<Uart>,
}

/// The serial line to the phone, through the Bluetooth chip.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uart {
    /// The device node, for example `/dev/ttyS1`.
    pub device: PathBuf,
    /// Speed, bit/s. Default 460800.
    #[serde(default = "default_baud")]
    pub baud: u32,
    /// Which byte of a frame's length is sent first: `big`, as the chips expect it, or `little`. Both are read.
    /// Default `big`.
    #[serde(default)]
    pub length_order: LengthOrder,
}

fn default_baud() -> u32 {
    460_800
}

impl Uart {
    /// The settings for the link.
    pub fn line(&self) -> UartConfig {
        UartConfig { device: self.device.clone(), baud: self.baud, length_order: self.length_order }
    }
}

/// The control socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// The socket's path. Default `/run/lenscast/control.sock`.
    pub socket: PathBuf,
    /// The group whose members may use the socket. Default `lenscast`.
    pub group: String,
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: "/run/lenscast/control.sock".into(), group: "lenscast".into() }
    }
}

/// Metrics for Prometheus.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address and port that answers `GET /metrics`, for example `127.0.0.1:9101`. Anyone who reaches it can read it.
    /// Default none.
    pub listen: Option<SocketAddr>,
}

/// Trusted certificate authorities.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file of authorities to trust: for `rtmps://` instead of the system's, for `wss://` in addition to them.
    pub ca_file: Option<PathBuf>,
}

/// State that outlives the daemon.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// The state folder. Default: systemd's `$STATE_DIRECTORY`; without either nothing is kept.
    pub directory: Option<PathBuf>,
}

impl Config {
    /// Reads `path` and the drop-ins beside it. Without a file at [`DEFAULT_PATH`] all defaults apply; an explicit
    /// path must exist.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config: Self = configuration::load(path, Path::new(DEFAULT_PATH))?;
        config.settle()?;
        Ok(config)
    }

    /// Checks what serde cannot, and reads the files that the configuration names.
    fn settle(&mut self) -> Result<(), ConfigError> {
        let contradiction = |text: &str| Err(ConfigError::Contradiction(text.into()));
        if let Some(url) = &self.cloud.url
            && !(url.starts_with("ws://") || url.starts_with("wss://"))
        {
            return contradiction("cloud.url must begin with ws:// or wss://");
        }
        if self.cloud.url.is_none() && (self.cloud.token.is_some() || self.cloud.token_file.is_some()) {
            return contradiction("cloud.token and cloud.token_file need cloud.url");
        }
        if self.stream.keep_alive_timeout_s == 0 {
            return contradiction(
                "stream.keep_alive_timeout_s = 0 would end every stream; see stream.on_keep_alive_loss",
            );
        }
        if !(50..=10_000).contains(&self.stream.floor_kbps) {
            return contradiction("stream.floor_kbps must be 50 to 10000");
        }
        if self.link.uart.as_ref().is_some_and(|uart| !uart::is_baud(uart.baud)) {
            return contradiction("link.uart.baud must be a speed of serial lines, such as 115200, 460800 or 1152000");
        }
        if let Some(text) = self.board_contradiction() {
            return contradiction(text);
        }
        match (&self.cloud.token, &self.cloud.token_file) {
            (Some(_), Some(_)) => return contradiction("give either cloud.token or cloud.token_file, not both"),
            (None, Some(file)) => self.cloud.token = Some(configuration::read_secret(file)?),
            (None, None) if self.cloud.url.is_some() => {
                // systemd's LoadCredential=, if the unit has a credential with this name.
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                let file = folder.map(|folder| folder.join(CLOUD_TOKEN)).filter(|file| file.exists());
                self.cloud.token = file.map(|file| configuration::read_secret(&file)).transpose()?;
            }
            _ => {}
        }
        if let Some(file) = &self.tls.ca_file {
            configuration::must_exist(file)?;
        }
        if self.state.directory.is_none() {
            self.state.directory = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
        }
        Ok(())
    }
}

impl Stream {
    /// `give_up_after_s` as a duration; `None` means never.
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

/// Checks whether a configuration file, with its drop-ins, is usable.
pub fn check(path: &Path) -> Result<(), ConfigError> {
    Config::load(Some(path)).map(|_| ())
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
        assert!(load("[stream]\nfloor_kbps = 0\n").is_err());
        assert!(load("[board]\npoll_ms = 1\n").is_err());
        assert!(load("[link.uart]\ndevice = \"/dev/ttyS1\"\nbaud = 460801\n").is_err());
        assert!(load("[link.uart]\nbaud = 460800\n").is_err());
        assert!(load("[heat]\nthrottle_c = 80\nend_c = 70\n").is_err());
        assert!(load("[privacy_led]\nrequire = true\n").is_err());
        assert!(load("[privacy_led]\nname = \"../x\"\n").is_err());
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

    /// The configuration file that packages install.
    const INSTALLED: &str = include_str!("../../packaging/lenscastd.toml");

    /// A line without the `#` before a key or table; with `examples`, also without `# `.
    fn uncommented(line: &str, examples: bool) -> &str {
        let is_key = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let is_setting =
            |text: &str| text.starts_with('[') || text.split_once(" = ").is_some_and(|(key, _)| is_key(key));
        let text = line.strip_prefix(if examples { "# " } else { "#" });
        text.filter(|text| is_setting(text)).unwrap_or(line)
    }

    #[test]
    fn what_packages_install_changes_nothing_and_shows_the_defaults() {
        let shown = |text: &str| format!("{:?}", load(text).unwrap());
        let lines = || INSTALLED.lines().map(|line| uncommented(line, false));
        assert!(lines().zip(INSTALLED.lines()).filter(|(with, without)| with != without).count() > 20);
        assert_eq!(shown(INSTALLED), shown(""));
        assert_eq!(shown(&lines().collect::<Vec<_>>().join("\n")), shown(""));
    }

    /// Every key, taken from the code: the error for an unknown key lists those it expects.
    #[test]
    fn what_packages_install_names_every_key_and_no_other() {
        let expected = |table: &str| {
            let error = toml::from_str::<Config>(&format!("{table}\nno_such_key = 1\n")).unwrap_err().to_string();
            let (_, keys) = error.split_once("expected").unwrap_or_else(|| panic!("{error}"));
            keys.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        };
        let examples: Vec<_> = INSTALLED.lines().map(|line| uncommented(uncommented(line, true), false)).collect();
        let all: toml::Table = toml::from_str(&examples.join("\n")).unwrap();
        let sorted = |mut keys: Vec<String>| {
            keys.sort();
            keys
        };
        assert_eq!(sorted(expected("")), sorted(all.keys().cloned().collect()));
        for (name, table) in &all {
            // `[link]` holds only `[link.uart]`, which requires a device.
            let (name, table) = match name.as_str() {
                "link" => ("link.uart".to_owned(), &table["uart"]),
                name => (name.to_owned(), table),
            };
            let there = table.as_table().unwrap().keys().cloned().collect();
            assert_eq!(sorted(expected(&format!("[{name}]"))), sorted(there), "{name}");
        }
        let _: Config = all.try_into().unwrap();
    }
}
