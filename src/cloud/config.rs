//! The cloud's configuration: `/etc/lenscast/lenscast-cloud.toml`, then `lenscast-cloud.d/*.toml` beside it; the rules are
//! those of [`crate::configuration`]. Everything listens on loopback unless told otherwise.
#![warn(missing_docs)]

mod check;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::accounts::Permission;
use super::credential::KeyHash;
use crate::configuration;
pub use crate::configuration::ConfigError;
use crate::protocol::Secret;

/// The file that is read when no other is named.
pub const DEFAULT_PATH: &str = "/etc/lenscast/lenscast-cloud.toml";

/// The whole configuration.
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

/// The web server for apps, glasses and viewers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// The URL that apps and viewers are told, for example `https://cloud.example.org`. Default: `listen`, with
    /// `http://`, or `https://` where `cert` is set.
    pub public_url: Option<String>,
    /// A PEM file with the certificate and its chain. Without it, plain HTTP.
    pub cert: Option<PathBuf>,
    /// The PEM file with its private key.
    pub key: Option<PathBuf>,
    /// Whether a proxy is in front. A client's address is then the last one in `X-Forwarded-For`. Default false.
    pub behind_proxy: bool,
    /// The most connections at a time, those of apps and glasses included. Never more than three quarters of the
    /// process's file descriptors. Default 16384.
    pub max_connections: usize,
    /// The most connections of one address at a time (IPv6: of one /64); a player has up to six. Connections from this
    /// machine and through a proxy do not count. Default 1024.
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
    /// The URL that glasses are told, server and application, for example `rtmps://cloud.example.org/live`. The stream
    /// key is appended. Default: `rtmp://`, `listen`, `/live`.
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
    /// The most viewers at a time. The next one gets 503, and the watch page plays HLS instead. Default 500.
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
    /// An address with its own port.
    Socket(SocketAddr),
    /// An address with the port of `listen`.
    Address(IpAddr),
}

/// HLS and DASH to viewers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hls {
    /// How far back a viewer can go, in seconds, 10 to 3600. This much is held in memory, and as much again for viewers
    /// still reading what left the window. So a stream takes twice this time at its bit rate, but at most 2 MiB per
    /// second of it (48 MiB if that is more) for pictures, and as much for sound. Above 8 Mbit/s the window gets
    /// shorter. Default 60.
    pub dvr_window_s: u64,
}

impl Default for Hls {
    fn default() -> Self {
        Self { dvr_window_s: 60 }
    }
}

/// Which stream takes precedence.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streams {
    /// Whether an app's own stream takes the camera from a managed one (true) or is refused while that runs (false).
    /// Default true.
    pub preempt: bool,
}

impl Default for Streams {
    fn default() -> Self {
        Self { preempt: true }
    }
}

/// What survives a restart of the cloud.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The database file. Default `cloud.sqlite` in systemd's `$STATE_DIRECTORY`, or in `/var/lib/lenscast`.
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

/// Metrics for Prometheus, at `/metrics` of `[http]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// A file with the bearer token for `/metrics`, at least 16 bytes. Default none: then only this machine may read
    /// the metrics, and nobody where a proxy is in front.
    pub token_file: Option<PathBuf>,
    /// The token in `token_file`.
    #[serde(skip)]
    pub token: Option<Secret>,
}

/// Phones with the `MentraOS` app on this cloud's `/glasses-ws`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Phone {
    /// A file with the secret that signs the phones' tokens (JWT, HS256, at least 32 bytes). Without it, no phone is
    /// let in.
    pub jwt_secret_file: Option<PathBuf>,
    /// The secret in `jwt_secret_file`.
    #[serde(skip)]
    pub jwt_secret: Option<Secret>,
}

/// Photos for apps.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Photo {
    /// Whether an app may name a URL of its own to which its photos are posted. Default true.
    pub custom_webhooks: bool,
}

impl Default for Photo {
    fn default() -> Self {
        Self { custom_webhooks: true }
    }
}

/// The authorities to trust in outgoing calls: apps' webhooks, restream destinations.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with authorities to trust besides the system's.
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
    /// What the app may do; streams and photos need `CAMERA` or `ALL`. Default none.
    #[serde(default)]
    pub permissions: BTreeSet<Permission>,
    /// The URL that starts and stops the app, for example `http://app.example.org:7010/webhook`. Without it, the cloud
    /// cannot start the app.
    pub webhook_url: Option<String>,
}

/// Glasses that may connect.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// A name for people to read, unique.
    pub name: String,
    /// The user who wears them; often an e-mail address.
    pub user: String,
    /// SHA-256 of their token, 64 hexadecimal digits.
    pub token_sha256: KeyHash,
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Config {
    /// Reads `path` and the drop-ins beside it. A missing file at [`DEFAULT_PATH`] means all defaults; a `path` that is
    /// given must exist.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config: Self = configuration::load(path, Path::new(DEFAULT_PATH))?;
        config.settle()?;
        Ok(config)
    }
}

impl Http {
    /// Whether a proxy is in front: it is configured, or the public URL has TLS that is not done here.
    pub fn is_proxied(&self) -> bool {
        let secure = self.public_url.as_deref().is_some_and(|url| url.starts_with("https://"));
        self.behind_proxy || (secure && self.cert.is_none())
    }

    /// The URL that apps and viewers are told, without a trailing slash.
    pub fn public_url(&self) -> String {
        match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{}://{}", if self.cert.is_some() { "https" } else { "http" }, self.listen),
        }
    }

    /// Where apps connect: `ws://` or `wss://`, `/app-ws`.
    pub fn app_websocket_url(&self) -> String {
        // "http" becomes "ws", "https" becomes "wss"; a checked configuration begins with nothing else.
        format!("ws{}/app-ws", self.public_url().trim_start_matches("http"))
    }
}

impl Rtmp {
    /// The URL that glasses are told, without a trailing slash; a slash and the stream key follow.
    pub fn public_url(&self) -> String {
        match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("rtmp://{}/live", self.listen),
        }
    }
}

impl Webrtc {
    /// The addresses that viewers are told; none if that is `listen` itself.
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
    /// The database file.
    pub fn path(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| {
            let folder = std::env::var_os("STATE_DIRECTORY").unwrap_or_else(|| "/var/lib/lenscast".into());
            Path::new(&folder).join("cloud.sqlite")
        })
    }
}

/// Checks that a configuration file can be used, with its drop-ins.
pub fn check(path: &Path) -> Result<(), ConfigError> {
    Config::load(Some(path)).map(|_| ())
}

#[cfg(test)]
mod tests;
