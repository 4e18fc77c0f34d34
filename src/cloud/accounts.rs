//! The apps and devices that may connect, the sessions of apps, and the rules for their names. `Accounts` is a
//! snapshot, wherever its parts are written; [`super::registry`] keeps the current one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::credential::KeyHash;

/// A permission of an app, by `MentraOS`'s names. Only CAMERA and ALL have a meaning here.
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

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(permission, _)| *permission == self).map_or("", |(_, name)| name)
    }

    /// The permission of that name on the wire.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(permission, _)| *permission)
    }
}

/// Where an account is written, which is the only place where it can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration files.
    Config,
    /// The store, by `lenscastctl`.
    Store,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// The package name.
    pub package: String,
    /// The hash of the API key.
    pub key: KeyHash,
    pub permissions: BTreeSet<Permission>,
    /// The URL that starts and stops the app.
    pub webhook_url: Option<String>,
    /// Where the account is written.
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
    /// The name, unique among all devices.
    pub name: String,
    /// The user who owns it.
    pub user: String,
    /// The hash of the token.
    pub token: KeyHash,
    /// Where the account is written.
    pub origin: Origin,
}

/// An app's session with a user. Its id is made of both names. The id is never split again: either name may contain a
/// hyphen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSession {
    pub user: String,
    /// The app's package name.
    pub package: String,
}

/// All accounts and sessions.
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
    /// The app of that name, if `key` is its key.
    pub fn app_with_key(&self, package: &str, key: &str) -> Option<&App> {
        self.apps.get(package).filter(|app| app.key.matches(key))
    }

    /// The device with this token. The time it takes does not depend on the token.
    pub fn device_with_token(&self, token: &str) -> Option<&Device> {
        let mut found = None;
        for device in self.devices.values() {
            if device.token.matches(token) {
                found = Some(device);
            }
        }
        found
    }

    /// The session with this id, if it belongs to that app.
    pub fn session_of(&self, id: &str, package: &str) -> Option<&AppSession> {
        self.sessions.get(id).filter(|session| session.package == package)
    }
}

/// The session id of an app and a user, made as the real cloud makes it.
pub fn session_id(user: &str, package: &str) -> String {
    format!("{user}-{package}")
}

/// Whether this can name an app or a device: 1 to 128 letters, digits, `.`, `_` and `-`.
pub fn valid_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether this can name a user: 1 to 256 printable characters without white space.
pub fn valid_user(user: &str) -> bool {
    (1..=256).contains(&user.chars().count()) && !user.chars().any(|c| c.is_whitespace() || c.is_control())
}
