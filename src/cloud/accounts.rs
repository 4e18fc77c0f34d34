//! Apps and devices that may connect, the sessions of apps, and what all of these may be called. At one moment, and wherever
//! they are written: [`super::registry`] keeps them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::credential::KeyHash;

/// What an app may be allowed, in `MentraOS`'s names. Only CAMERA and ALL mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Permission {
    All,
    Microphone,
    Camera,
    Calendar,
    Location,
    BackgroundLocation,
    ReadNotifications,
    PostNotifications,
}

impl Permission {
    const NAMES: [(Self, &'static str); 8] = [
        (Self::All, "ALL"),
        (Self::Microphone, "MICROPHONE"),
        (Self::Camera, "CAMERA"),
        (Self::Calendar, "CALENDAR"),
        (Self::Location, "LOCATION"),
        (Self::BackgroundLocation, "BACKGROUND_LOCATION"),
        (Self::ReadNotifications, "READ_NOTIFICATIONS"),
        (Self::PostNotifications, "POST_NOTIFICATIONS"),
    ];

    /// Its wire name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(permission, _)| *permission == self).map_or("", |(_, name)| name)
    }

    /// By its wire name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(permission, _)| *permission)
    }
}

/// Where an account comes from, which is where it can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration files.
    Config,
    /// The store, by `lenscastctl`.
    Store,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its package name.
    pub package: String,
    /// Of its API key.
    pub key: KeyHash,
    /// What it may do.
    pub permissions: BTreeSet<Permission>,
    /// Where it is started and stopped.
    pub webhook_url: Option<String>,
    /// Where this is written.
    pub origin: Origin,
}

impl App {
    /// Whether it may use the camera: streams and photos.
    pub fn may_stream(&self) -> bool {
        self.permissions.contains(&Permission::Camera) || self.permissions.contains(&Permission::All)
    }
}

/// Glasses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name, unique.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// Of its token.
    pub token: KeyHash,
    /// Where this is written.
    pub origin: Origin,
}

/// An app's session with a user. Its id is made of both, but never taken apart again: either may contain a hyphen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSession {
    /// The user.
    pub user: String,
    /// The app.
    pub package: String,
}

/// All that may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// By package name.
    pub apps: BTreeMap<String, App>,
    /// By name.
    pub devices: BTreeMap<String, Device>,
    /// By session id.
    pub sessions: BTreeMap<String, AppSession>,
}

impl Accounts {
    /// The app of that name, if this is its key.
    pub fn app_with_key(&self, package: &str, key: &str) -> Option<&App> {
        self.apps.get(package).filter(|app| app.key.matches(key))
    }

    /// The device with this token. Takes as long for a wrong one as for any.
    pub fn device_with_token(&self, token: &str) -> Option<&Device> {
        let mut found = None;
        for device in self.devices.values() {
            if device.token.matches(token) {
                found = Some(device);
            }
        }
        found
    }

    /// The session of that id, if it is the app's.
    pub fn session_of(&self, id: &str, package: &str) -> Option<&AppSession> {
        self.sessions.get(id).filter(|session| session.package == package)
    }
}

/// The session id of an app and a user, as the real cloud makes it.
pub fn session_id(user: &str, package: &str) -> String {
    format!("{user}-{package}")
}

/// For packages and device names: letters, digits, `.`, `_`, `-`; 1 to 128.
pub fn valid_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// For users: 1 to 256 printable characters, none of them white space.
pub fn valid_user(user: &str) -> bool {
    (1..=256).contains(&user.chars().count()) && !user.chars().any(|c| c.is_whitespace() || c.is_control())
}
