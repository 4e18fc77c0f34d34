//! The words of the cloud's control socket: newline JSON like the daemon's ([`crate::protocol::control`]), one request per
//! line, one reply line per request; `watch` gives the whole state, then changes.
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

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Add an app; answered by [`Fresh`].
    AppAdd {
        /// Its package name.
        package: String,
        /// What it may do.
        #[serde(default)]
        permissions: BTreeSet<Permission>,
        /// Where it is started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        webhook_url: Option<String>,
    },
    /// The apps; answered by [`Apps`].
    AppList,
    /// Take an app's key away; answered by [`Done`].
    AppRevoke {
        /// Which.
        package: String,
    },
    /// Start an app for a user; answered by [`AppStarted`] once it is connected.
    AppStart {
        /// Which.
        package: String,
        /// For whom.
        user: String,
    },
    /// Stop an app for a user; answered by [`Done`].
    AppStop {
        /// Which.
        package: String,
        /// For whom.
        user: String,
    },
    /// Add a device; answered by [`Fresh`].
    DeviceAdd {
        /// Its name.
        name: String,
        /// Whose it is.
        user: String,
    },
    /// The devices; answered by [`Devices`].
    DeviceList,
    /// Take a device's token away; answered by [`Done`].
    DeviceRevoke {
        /// Which.
        name: String,
    },
    /// The streams that run; answered by [`Streams`].
    Streams,
    /// Start a managed stream; answered by [`Started`] once it is accepted, not once it is playable.
    Start(Start),
    /// Stop a stream for all who watch it; answered by [`Done`].
    Stop {
        /// Which.
        stream_id: String,
    },
    /// The state and then every change: [`Event`]s, without a reply line before. Nothing more is read from a connection
    /// that watches.
    Watch,
}

/// A managed stream to start by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Whose glasses.
    pub user: String,
    /// 720 or 1080 lines; without it, 720.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
    /// Other servers to send it to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restream: Vec<Destination>,
}

/// Another server to send a stream to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// With the stream key; therefore never printed.
    pub url: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The reply to what has nothing to tell but success.
pub use crate::protocol::control::Done;

/// The reply to `app_add` and `device_add`. Not printed by `{:?}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// The API key or token; told this once.
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
    /// By package name.
    pub apps: Vec<AppInfo>,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppInfo {
    /// Its package name.
    pub package: String,
    /// What it may do.
    pub permissions: BTreeSet<Permission>,
    /// Where it is started.
    pub webhook_url: Option<String>,
    /// Where it is written.
    pub origin: Origin,
    /// The users it was started for.
    pub sessions: Vec<SessionInfo>,
}

/// An app's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The user.
    pub user: String,
    /// The app's socket is up.
    pub connected: bool,
}

/// The reply to `app_start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStarted {
    /// It was connected before.
    pub already: bool,
}

/// The reply to `device_list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// By name.
    pub devices: Vec<DeviceInfo>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// Where it is written.
    pub origin: Origin,
    /// Its link is up.
    pub connected: bool,
}

/// The reply to `streams`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// By id.
    pub streams: Vec<StreamInfo>,
}

/// The reply to `start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The stream, new or joined.
    pub stream: StreamInfo,
}

/// A stream, for people. No key of it is in here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// Its id.
    pub stream_id: String,
    /// Whose glasses.
    pub user: String,
    /// Managed or not.
    pub kind: StreamKind,
    /// As apps are told: `initializing`, `active`, …
    pub status: String,
    /// What there is to say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The apps that have it.
    #[serde(default)]
    pub apps: Vec<String>,
    /// Who watches now.
    #[serde(default)]
    pub viewers: u32,
    /// When it was started, RFC 3339.
    #[serde(default)]
    pub since: String,
    /// The page to watch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch_url: Option<String>,
    /// HLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hls_url: Option<String>,
    /// DASH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dash_url: Option<String>,
    /// WHEP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webrtc_url: Option<String>,
    /// Where it is sent on to.
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
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a watching connection gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// All that is; the first event, and again whenever changes were lost.
    State(Streams),
    /// A stream is new or changed.
    Stream {
        /// The whole of it.
        stream: StreamInfo,
    },
    /// A stream ended.
    Ended {
        /// Which.
        stream_id: String,
        /// As apps are told: `stopped` or `error`.
        status: String,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Something else that a person wants to see: apps and glasses that come and go.
    Note {
        /// One line.
        text: String,
    },
}
