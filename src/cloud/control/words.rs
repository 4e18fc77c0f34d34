//! The protocol of the cloud's control socket: newline JSON like the daemon's ([`crate::protocol::control`]), one
//! request per line, one reply line per request. `watch` gives the whole state, then changes.
//!
//! ```text
//! > {"cmd":"device_add","name":"live","user":"u@example.com"}
//! < {"ok":true,"secret":"5f0c…"}           or {"ok":false,"error":{"cause":"invalid_request","message":"..."}}
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cloud::accounts::{Origin, Permission};
use crate::protocol::StreamKind;

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Add an app; answered by [`Fresh`].
    AppAdd {
        /// The package name.
        package: String,
        /// What the app may do.
        #[serde(default)]
        permissions: BTreeSet<Permission>,
        /// The URL that starts and stops it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        webhook_url: Option<String>,
    },
    /// The apps; answered by [`Apps`].
    AppList,
    /// Remove an app's key; answered by [`Done`].
    AppRevoke {
        /// The app's package name.
        package: String,
    },
    /// Start an app for a user; answered by [`AppStarted`] once it is connected.
    AppStart {
        /// The app's package name.
        package: String,
        /// The user to start it for.
        user: String,
    },
    /// Stop an app for a user; answered by [`Done`].
    AppStop {
        /// The app's package name.
        package: String,
        /// The user to stop it for.
        user: String,
    },
    /// Add a device; answered by [`Fresh`].
    DeviceAdd {
        /// The name, unique among all devices.
        name: String,
        /// The user who owns it.
        user: String,
    },
    /// The devices; answered by [`Devices`].
    DeviceList,
    /// Remove a device's token; answered by [`Done`].
    DeviceRevoke {
        /// The device's name.
        name: String,
    },
    /// The running streams; answered by [`Streams`].
    Streams,
    /// Start a managed stream; answered by [`Started`] once it is accepted, not once it is playable.
    Start(Start),
    /// Stop a stream for everybody; answered by [`Done`].
    Stop {
        /// The stream's id.
        stream_id: String,
    },
    /// The state and then every change, as [`Event`]s without a reply line before them. A connection that watches can
    /// send no other request.
    Watch,
}

/// A managed stream for a person to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The user whose glasses stream.
    pub user: String,
    /// Height of the picture: 720 (default) or 1080 lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
    /// Other servers to send the stream to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restream: Vec<Destination>,
}

/// Another server to send a stream to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The URL with the stream key; therefore never printed.
    pub url: String,
    /// A name for people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The reply to a request that has no result but success.
pub use crate::protocol::control::Done;

/// The reply to `app_add` and `device_add`. `{:?}` does not print the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// The API key or token; shown only this once.
    pub secret: String,
}

impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fresh(***)")
    }
}

/// The reply to `app_list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apps {
    pub apps: Vec<AppInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppInfo {
    pub package: String,
    /// What the app may do.
    pub permissions: BTreeSet<Permission>,
    /// The URL that starts and stops it.
    pub webhook_url: Option<String>,
    /// Where the account is written.
    pub origin: Origin,
    /// The sessions of users it was started for.
    pub sessions: Vec<SessionInfo>,
}

/// An app's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    pub user: String,
    /// Whether the app's socket is up.
    pub connected: bool,
}

/// The reply to `app_start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStarted {
    /// Whether it was connected before.
    pub already: bool,
}

/// The reply to `device_list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    pub devices: Vec<DeviceInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    pub name: String,
    /// The user who owns it.
    pub user: String,
    /// Where the account is written.
    pub origin: Origin,
    /// Whether its link is up.
    pub connected: bool,
}

/// The reply to `streams`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    pub streams: Vec<StreamInfo>,
}

/// The reply to `start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The stream, new or joined.
    pub stream: StreamInfo,
}

/// A stream, for people. Contains no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamInfo {
    pub stream_id: String,
    /// The user whose glasses stream.
    pub user: String,
    pub kind: StreamKind,
    /// As apps are told: `initializing`, `active`, …
    pub status: String,
    /// A message about the status, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The package names of the apps that share it.
    #[serde(default)]
    pub apps: Vec<String>,
    /// How many people watch now.
    #[serde(default)]
    pub viewers: u32,
    /// When it was started, in RFC 3339.
    #[serde(default)]
    pub since: String,
    /// URL of the page to watch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch_url: Option<String>,
    /// URL of the HLS playlist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hls_url: Option<String>,
    /// URL of the DASH manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dash_url: Option<String>,
    /// URL of the WHEP endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webrtc_url: Option<String>,
    /// The other servers it is sent to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputInfo>,
}

/// Another server that a stream is sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputInfo {
    /// The name that was given, or the URL without its key.
    pub name: String,
    /// `active`, `error` or `stopped`.
    pub status: String,
    /// What is wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An event for a connection that watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The whole state: the first event, and again whenever changes were lost.
    State(Streams),
    /// A stream is new or has changed.
    Stream {
        /// The whole of it.
        stream: StreamInfo,
    },
    /// A stream ended.
    Ended {
        /// The stream's id.
        stream_id: String,
        /// As apps are told: `stopped` or `error`.
        status: String,
        /// The reason, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Something else that a person wants to see, such as apps and glasses that come and go.
    Note {
        /// One line.
        text: String,
    },
}
