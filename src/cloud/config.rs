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

#[cfg(test)]
mod tests;
