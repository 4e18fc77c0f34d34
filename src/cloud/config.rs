//! The cloud's configuration: `/etc/lenscast/lenscast-cloud.toml`, then `lenscast-cloud.d/*.toml` beside it; the rules are
//! those of [`crate::configuration`]. Everything listens on loopback unless told otherwise.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::accounts::{Permission, valid_name, valid_user};
use super::credential::KeyHash;
use crate::configuration;
pub use crate::configuration::ConfigError;
use crate::protocol::Secret;

/// Where the configuration is looked for when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/lenscast/lenscast-cloud.toml";

/// All that can be configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[http]`
    pub http: Http,
    /// `[rtmp]`
    pub rtmp: Rtmp,
    /// `[webrtc]`
    pub webrtc: Webrtc,
    /// `[hls]`
    pub hls: Hls,
    /// `[store]`
    pub store: Store,
    /// `[control]`
    pub control: Control,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[phone]`
    pub phone: Phone,
    /// `[photo]`
    pub photo: Photo,
    /// `[streams]`
    pub streams: Streams,
    /// `[tls]`
    pub tls: Tls,
    /// `[[app]]`
    pub app: Vec<App>,
    /// `[[device]]`
    pub device: Vec<Device>,
}

/// Web: apps, glasses, viewers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// What apps and viewers are told, for example `https://cloud.example.org`. Default: `listen`, with `http://`, or
    /// `https://` where `cert` is set.
    pub public_url: Option<String>,
    /// A PEM file with the certificate and what leads up to its authority; without it, plain HTTP.
    pub cert: Option<PathBuf>,
    /// The PEM file with its private key.
    pub key: Option<PathBuf>,
    /// A proxy is in front: a client's address is the last one in `X-Forwarded-For`. Default false.
    pub behind_proxy: bool,
    /// Connections at a time, apps and glasses included; three quarters of the process's descriptors at most. Default
    /// 16384.
    pub max_connections: usize,
    /// Connections of one address at a time (IPv6: of one /64), a player having up to six. Not counted are those of this
    /// machine, nor any behind a proxy. Default 1024.
    pub max_connections_per_address: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            public_url: None,
            cert: None,
            key: None,
            behind_proxy: false,
            max_connections: 16 * 1024,
            max_connections_per_address: 1024,
        }
    }
}

/// RTMP from glasses and other publishers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rtmp {
    /// Address and port for `rtmp://`. Default `127.0.0.1:1935`.
    pub listen: SocketAddr,
    /// What glasses are told, server and application, for example `rtmps://cloud.example.org/live`; the stream key is
    /// put behind. Default: `rtmp://`, `listen`, `/live`.
    pub public_url: Option<String>,
    /// Address and port for `rtmps://`; needs `cert` and `key`. Default none.
    pub tls_listen: Option<SocketAddr>,
    /// A PEM file with the certificate.
    pub cert: Option<PathBuf>,
    /// The PEM file with its private key.
    pub key: Option<PathBuf>,
}

impl Default for Rtmp {
    fn default() -> Self {
        Self { listen: loopback(1935), public_url: None, tls_listen: None, cert: None, key: None }
    }
}

/// WebRTC to viewers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webrtc {
    /// UDP address and port. Default `127.0.0.1:8189`.
    pub listen: SocketAddr,
    /// Addresses at which viewers reach `listen`, with a port where it differs. Default: `listen` itself.
    pub advertise: Vec<Advertised>,
    /// Viewers at a time; one more is told to come back later (503), and the watch page plays HLS. Default 500.
    pub viewers: usize,
}

impl Default for Webrtc {
    fn default() -> Self {
        Self { listen: loopback(8189), advertise: vec![], viewers: 500 }
    }
}

/// An address seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Advertised {
    /// With its own port.
    Socket(SocketAddr),
    /// With the port that is listened on.
    Address(IpAddr),
}

/// HLS and DASH to viewers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hls {
    /// How far back a viewer can go, seconds, from 10 to 3600. Held in memory, and as long again for who has just read what
    /// is there: each stream takes twice this time at its bit rate, but no more than 2 MiB for each second (48 MiB at least)
    /// of pictures, and of sound. Above 8 Mbit/s the time gets shorter instead. Default 60.
    pub dvr_window_s: u64,
}

impl Default for Hls {
    fn default() -> Self {
        Self { dvr_window_s: 60 }
    }
}

/// Which stream goes before which.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streams {
    /// Whether an app's own stream takes the camera from a managed one, or is refused while that runs. Default true.
    pub preempt: bool,
}

impl Default for Streams {
    fn default() -> Self {
        Self { preempt: true }
    }
}

/// What outlives the cloud.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The database's file. Default `cloud.sqlite` in systemd's `$STATE_DIRECTORY`, or in `/var/lib/lenscast`.
    pub path: Option<PathBuf>,
}

/// The control socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Its path. Default `/run/lenscast/cloud.sock`.
    pub socket: PathBuf,
    /// The group whose members may use it. Default `lenscast`.
    pub group: String,
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: "/run/lenscast/cloud.sock".into(), group: "lenscast".into() }
    }
}

/// Numbers for Prometheus, at `/metrics` of `[http]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// A file with the bearer token that whoever reads them must show, at least 16 bytes. Default none: only this machine
    /// may read them, and nobody where a proxy is in front.
    pub token_file: Option<PathBuf>,
    /// What that file holds.
    #[serde(skip)]
    pub token: Option<Secret>,
}

/// Phones with the `MentraOS` app on this cloud's `/glasses-ws`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Phone {
    /// A file with the secret of their tokens (JWT, HS256, at least 32 bytes); without it, no phone is let in.
    pub jwt_secret_file: Option<PathBuf>,
    /// What that file holds.
    #[serde(skip)]
    pub jwt_secret: Option<Secret>,
}

/// Photos for apps.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Photo {
    /// Whether an app may name a URL of its own choice that its photos are posted to. Default true.
    pub custom_webhooks: bool,
}

impl Default for Photo {
    fn default() -> Self {
        Self { custom_webhooks: true }
    }
}

/// Whom to trust when calling out: apps' webhooks, restream destinations.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// An app that may connect.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Its package name, for example `org.example.livestream`.
    pub package: String,
    /// SHA-256 of its API key, 64 hexadecimal digits.
    pub api_key_sha256: KeyHash,
    /// What it may do; streaming and photos need `CAMERA` or `ALL`. Default none.
    #[serde(default)]
    pub permissions: BTreeSet<Permission>,
    /// Where it is started and stopped, for example `http://app.example.org:7010/webhook`. Without it, the app cannot be
    /// started from here.
    pub webhook_url: Option<String>,
}

/// Glasses that may connect.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// A name for people, unique.
    pub name: String,
    /// Whose they are; often an e-mail address.
    pub user: String,
    /// SHA-256 of their token, 64 hexadecimal digits.
    pub token_sha256: KeyHash,
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Config {
    /// Reads `path` and the drop-ins beside it. Without a file at [`DEFAULT_PATH`] all defaults hold; a path that was
    /// asked for must exist.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config: Self = configuration::load(path, Path::new(DEFAULT_PATH))?;
        config.settle()?;
        Ok(config)
    }

    /// Checks what serde cannot, and reads the files that are named.
    fn settle(&mut self) -> Result<(), ConfigError> {
        let schemes = [
            ("http.public_url", &self.http.public_url, ["http://", "https://"]),
            ("rtmp.public_url", &self.rtmp.public_url, ["rtmp://", "rtmps://"]),
        ];
        for (name, url, schemes) in schemes {
            check_url(name, url.as_deref(), schemes)?;
        }
        check_pair("http", self.http.cert.as_deref(), self.http.key.as_deref())?;
        check_pair("rtmp", self.rtmp.cert.as_deref(), self.rtmp.key.as_deref())?;
        if self.rtmp.tls_listen.is_some() != self.rtmp.cert.is_some() {
            return contradiction("rtmp.tls_listen needs rtmp.cert and rtmp.key, and they need it");
        }
        if self.http.max_connections == 0 || self.http.max_connections_per_address == 0 {
            return contradiction("http.max_connections and http.max_connections_per_address are 1 or more");
        }
        if !(10..=3600).contains(&self.hls.dvr_window_s) {
            return contradiction("hls.dvr_window_s is from 10 to 3600");
        }
        if let Some(file) = &self.tls.ca_file {
            configuration::must_exist(file)?;
        }
        if let Some(file) = &self.phone.jwt_secret_file {
            let secret = configuration::read_secret(file)?;
            if secret.expose().len() < 32 {
                return contradiction("the secret in phone.jwt_secret_file is shorter than 32 bytes");
            }
            self.phone.jwt_secret = Some(secret);
        }
        if let Some(file) = &self.metrics.token_file {
            let token = configuration::read_secret(file)?;
            if token.expose().len() < 16 {
                return contradiction("the token in metrics.token_file is shorter than 16 bytes");
            }
            self.metrics.token = Some(token);
        }
        self.check_accounts()
    }

    fn check_accounts(&self) -> Result<(), ConfigError> {
        let mut packages = BTreeSet::new();
        for app in &self.app {
            if !valid_name(&app.package) {
                return contradiction("app.package has letters, digits, '.', '_' and '-' only, 128 at most");
            }
            if !packages.insert(&app.package) {
                return contradiction(&format!("two [[app]] have the package {}", app.package));
            }
            check_url("app.webhook_url", app.webhook_url.as_deref(), ["http://", "https://"])?;
        }
        let mut names = BTreeSet::new();
        let mut tokens = BTreeSet::new();
        for device in &self.device {
            if !valid_name(&device.name) {
                return contradiction("device.name has letters, digits, '.', '_' and '-' only, 128 at most");
            }
            if !valid_user(&device.user) {
                return contradiction(&format!("[[device]] {}: user is 1 to 256 printable characters", device.name));
            }
            if !names.insert(&device.name) {
                return contradiction(&format!("two [[device]] have the name {}", device.name));
            }
            if !tokens.insert(device.token_sha256.to_hex()) {
                return contradiction(&format!("[[device]] {} has the token of another", device.name));
            }
        }
        Ok(())
    }
}

impl Http {
    /// Whether a proxy is in front: it is said so, or must be, as viewers are told of TLS that is not done here.
    pub fn is_proxied(&self) -> bool {
        let secure = self.public_url.as_deref().is_some_and(|url| url.starts_with("https://"));
        self.behind_proxy || (secure && self.cert.is_none())
    }

    /// What apps and viewers are told, without a last slash.
    pub fn public_url(&self) -> String {
        match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{}://{}", if self.cert.is_some() { "https" } else { "http" }, self.listen),
        }
    }

    /// Where apps connect: `ws://` or `wss://`, `/app-ws`.
    pub fn app_websocket_url(&self) -> String {
        // "http" becomes "ws", "https" becomes "wss"; settled configurations begin with nothing else.
        format!("ws{}/app-ws", self.public_url().trim_start_matches("http"))
    }
}

impl Rtmp {
    /// What glasses are told, without a last slash; a slash and the stream key follow.
    pub fn public_url(&self) -> String {
        match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("rtmp://{}/live", self.listen),
        }
    }
}

impl Webrtc {
    /// The addresses viewers are told; none if it is `listen` itself.
    pub fn candidates(&self) -> Vec<SocketAddr> {
        let port = self.listen.port();
        let with_port = |advertised: &Advertised| match *advertised {
            Advertised::Socket(address) => address,
            Advertised::Address(address) => (address, port).into(),
        };
        self.advertise.iter().map(with_port).collect()
    }
}

impl Hls {
    /// How far back a viewer can go.
    pub fn dvr_window(&self) -> Duration {
        Duration::from_secs(self.dvr_window_s)
    }
}

impl Store {
    /// The database's file.
    pub fn path(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| {
            let folder = std::env::var_os("STATE_DIRECTORY").unwrap_or_else(|| "/var/lib/lenscast".into());
            Path::new(&folder).join("cloud.sqlite")
        })
    }
}

/// Says whether a configuration file, with its drop-ins, can be used.
pub fn check(path: &Path) -> Result<(), ConfigError> {
    Config::load(Some(path)).map(|_| ())
}

fn contradiction<T>(text: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Contradiction(text.into()))
}

fn check_url(name: &str, url: Option<&str>, schemes: [&str; 2]) -> Result<(), ConfigError> {
    let Some(url) = url else { return Ok(()) };
    let has_host =
        |scheme: &&str| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if schemes.iter().any(has_host) && !url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    contradiction(&format!("{name} must begin with {} or {} and a host", schemes[0], schemes[1]))
}

fn check_pair(section: &str, cert: Option<&Path>, key: Option<&Path>) -> Result<(), ConfigError> {
    match (cert, key) {
        (None, None) => Ok(()),
        (Some(cert), Some(key)) => configuration::must_exist(cert).and_then(|()| configuration::must_exist(key)),
        _ => contradiction(&format!("{section}.cert and {section}.key belong together")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lenscast-cloud.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path))
    }

    #[test]
    fn an_empty_file_listens_on_loopback_and_tells_urls_that_work_there() {
        let config = load("").unwrap();
        for address in [config.http.listen, config.rtmp.listen, config.webrtc.listen] {
            assert!(address.ip().is_loopback(), "{address}");
        }
        assert_eq!(config.http.public_url(), "http://127.0.0.1:8080");
        assert_eq!(config.http.app_websocket_url(), "ws://127.0.0.1:8080/app-ws");
        assert_eq!(config.rtmp.public_url(), "rtmp://127.0.0.1:1935/live");
        assert!(config.webrtc.candidates().is_empty(), "viewers are told where it listens");
    }

    #[test]
    fn what_others_are_told_is_configured() {
        let config = load(
            "[http]\npublic_url = \"https://c.example.org/\"\n[rtmp]\npublic_url = \"rtmps://c.example.org/live\"\n\
             [webrtc]\nlisten = \"0.0.0.0:9000\"\nadvertise = [\"203.0.113.7\", \"[2001:db8::1]:9001\"]\n",
        )
        .unwrap();
        assert_eq!(config.http.app_websocket_url(), "wss://c.example.org/app-ws");
        let told: Vec<_> = config.webrtc.candidates().iter().map(ToString::to_string).collect();
        assert_eq!(told, ["203.0.113.7:9000", "[2001:db8::1]:9001"]);
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        let error = load("[http]\nlisten = \"127.0.0.1:0\"\npubic_url = \"x\"\n").unwrap_err().to_string();
        for part in ["lenscast-cloud.toml", "line 3", "pubic_url"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn apps_and_devices_add_up_over_the_drop_ins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lenscast-cloud.toml");
        let app = |name: &str| {
            format!("[[app]]\npackage = \"{name}\"\napi_key_sha256 = \"{HASH}\"\npermissions = [\"CAMERA\"]\n")
        };
        std::fs::write(&path, app("org.one")).unwrap();
        std::fs::create_dir(folder.path().join("lenscast-cloud.d")).unwrap();
        std::fs::write(folder.path().join("lenscast-cloud.d/two.toml"), app("org.two")).unwrap();
        let config = Config::load(Some(&path)).unwrap();
        let packages: Vec<_> = config.app.iter().map(|app| app.package.as_str()).collect();
        assert_eq!(packages, ["org.one", "org.two"]);
    }

    #[test]
    fn what_cannot_work_is_refused_and_no_secret_is_repeated() {
        let app = format!("[[app]]\npackage = \"org.one\"\napi_key_sha256 = \"{HASH}\"\n");
        let device = format!("[[device]]\nname = \"live\"\nuser = \"u@e.com\"\ntoken_sha256 = \"{HASH}\"\n");
        assert!(load(&format!("{app}{device}")).is_ok());
        for wrong in [
            "[http]\npublic_url = \"ftp://h\"\n".to_owned(),
            "[http]\npublic_url = \"https://\"\n".to_owned(),
            "[http]\ncert = \"/x\"\n".to_owned(),
            "[http]\nmax_connections = 0\n".to_owned(),
            "[rtmp]\ntls_listen = \"127.0.0.1:1936\"\n".to_owned(),
            "[hls]\ndvr_window_s = 5\n".to_owned(),
            "[phone]\njwt_secret_file = \"/nonexistent\"\n".to_owned(),
            format!("{app}{app}"),
            format!("{app}webhook_url = \"app:7010\"\n"),
            format!("{app}permissions = [\"CAMREA\"]\n"),
            app.replace("org.one", "org one"),
            format!("{device}{}", device.replace("live", "other")),
            device.replace("u@e.com", ""),
        ] {
            assert!(load(&wrong).is_err(), "{wrong}");
        }
        let plain = load("[[app]]\npackage = \"p\"\napi_key_sha256 = \"hush-hush\"\n").unwrap_err();
        let text = plain.to_string();
        assert!(text.contains("sha256sum") && !text.contains("hush"), "{text}");
    }
}
