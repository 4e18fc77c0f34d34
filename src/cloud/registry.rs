//! Who may connect: apps and devices, from the configuration and from the store, and the sessions that apps were asked
//! to open. The current state is published as one immutable [`Accounts`]. Connections watch it, so that a revocation
//! ends them at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use super::accounts::{Accounts, App, AppSession, Device, Origin, Permission, session_id, valid_name, valid_user};
use super::config::Config;
use super::credential::{self, KeyHash};
use super::store::{AppRow, AppSessionRow, DeviceRow, Store, StoreError};
use crate::protocol::Secret;

/// Why an account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(String),
    /// The name is unknown.
    #[error("{0} is unknown")]
    Unknown(String),
    /// The account is in the configuration, so it cannot be changed here.
    #[error("{0} is in the configuration; remove it there and restart lenscast-cloud")]
    Configured(String),
    /// The name or URL is not valid.
    #[error("{0}")]
    Invalid(&'static str),
    /// Two pairs of user and package have the same session id.
    #[error("the session id {0} belongs to another user and app")]
    Ambiguous(String),
    /// The system has no random bytes.
    #[error("the system has no random bytes")]
    NoRandomness,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The current accounts, and the changes to them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    store: Store,
    accounts: watch::Sender<Arc<Accounts>>,
    /// Makes changes go one after the other, so that what is published is what is stored.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Registry {
    /// Reads the stored accounts and adds the configured ones, which take precedence.
    pub async fn open(config: &Config, store: Store) -> Result<Self, StoreError> {
        let stored = store.accounts().await?;
        let mut accounts = Accounts::default();
        for row in stored.apps {
            match app_of(row) {
                Ok(app) => drop(accounts.apps.insert(app.package.clone(), app)),
                Err(package) => warn!(package, "store: an invalid app is ignored"),
            }
        }
        for row in stored.devices {
            let Some(token) = KeyHash::from_hex(&row.token_sha256) else {
                warn!(name = row.name, "store: an invalid device is ignored");
                continue;
            };
            let device = Device { name: row.name, user: row.user, token, origin: Origin::Store };
            accounts.devices.insert(device.name.clone(), device);
        }
        for app in &config.app {
            let app = App {
                package: app.package.clone(),
                key: app.api_key_sha256.clone(),
                permissions: app.permissions.clone(),
                webhook_url: app.webhook_url.clone(),
                origin: Origin::Config,
            };
            if accounts.apps.insert(app.package.clone(), app.clone()).is_some() {
                warn!(package = app.package, "the configuration's app hides the one added by lenscastctl");
            }
        }
        for device in &config.device {
            let device = Device {
                name: device.name.clone(),
                user: device.user.clone(),
                token: device.token_sha256.clone(),
                origin: Origin::Config,
            };
            if accounts.devices.insert(device.name.clone(), device.clone()).is_some() {
                warn!(name = device.name, "the configuration's device hides the one added by lenscastctl");
            }
        }
        for row in stored.sessions {
            if accounts.apps.contains_key(&row.package) {
                accounts.sessions.insert(row.id, AppSession { user: row.user, package: row.package });
            }
        }
        let changing = Arc::default();
        Ok(Self { store, accounts: watch::Sender::new(Arc::new(accounts)), changing })
    }

    /// The current accounts.
    pub fn accounts(&self) -> Arc<Accounts> {
        Arc::clone(&self.accounts.borrow())
    }

    /// The current accounts and all later ones.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Accounts>> {
        self.accounts.subscribe()
    }

    /// Adds an app. Returns its API key, which cannot be read again.
    pub async fn add_app(
        &self,
        package: &str,
        permissions: BTreeSet<Permission>,
        webhook_url: Option<String>,
    ) -> Result<Secret, RegistryError> {
        if !valid_name(package) {
            return Err(RegistryError::Invalid("a package must have 1 to 128 letters, digits, '.', '_' and '-'"));
        }
        if let Some(url) = &webhook_url
            && !["http://", "https://"].iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme))
        {
            return Err(RegistryError::Invalid("a webhook URL must begin with http:// or https://"));
        }
        let _changing = self.changing.lock().await;
        if self.accounts().apps.contains_key(package) {
            return Err(RegistryError::Exists(package.into()));
        }
        let key = credential::fresh().ok_or(RegistryError::NoRandomness)?;
        let app = App {
            package: package.into(),
            key: KeyHash::of(key.expose()),
            permissions,
            webhook_url,
            origin: Origin::Store,
        };
        self.store.add_app(row_of(&app)).await?;
        self.publish(|accounts| drop(accounts.apps.insert(app.package.clone(), app)));
        Ok(key)
    }

    /// Removes an app's key and sessions; its sockets are closed.
    pub async fn revoke_app(&self, package: &str) -> Result<(), RegistryError> {
        let _changing = self.changing.lock().await;
        match self.accounts().apps.get(package).map(|app| app.origin) {
            None => return Err(RegistryError::Unknown(package.into())),
            Some(Origin::Config) => return Err(RegistryError::Configured(package.into())),
            Some(Origin::Store) => {}
        }
        self.store.remove_app(package).await?;
        self.publish(|accounts| {
            accounts.apps.remove(package);
            accounts.sessions.retain(|_, session| session.package != package);
        });
        Ok(())
    }

    /// Adds a device. Returns its token, which cannot be read again.
    pub async fn add_device(&self, name: &str, user: &str) -> Result<Secret, RegistryError> {
        if !valid_name(name) {
            return Err(RegistryError::Invalid("a device's name must have 1 to 128 letters, digits, '.', '_' and '-'"));
        }
        if !valid_user(user) {
            return Err(RegistryError::Invalid("a user must have 1 to 256 printable characters without spaces"));
        }
        let _changing = self.changing.lock().await;
        if self.accounts().devices.contains_key(name) {
            return Err(RegistryError::Exists(name.into()));
        }
        let token = credential::fresh().ok_or(RegistryError::NoRandomness)?;
        let device =
            Device { name: name.into(), user: user.into(), token: KeyHash::of(token.expose()), origin: Origin::Store };
        let row = DeviceRow { name: name.into(), user: user.into(), token_sha256: device.token.to_hex() };
        self.store.add_device(row).await?;
        self.publish(|accounts| drop(accounts.devices.insert(device.name.clone(), device)));
        Ok(token)
    }

    /// Removes a device's token; its link is closed.
    pub async fn revoke_device(&self, name: &str) -> Result<(), RegistryError> {
        let _changing = self.changing.lock().await;
        match self.accounts().devices.get(name).map(|device| device.origin) {
            None => return Err(RegistryError::Unknown(name.into())),
            Some(Origin::Config) => return Err(RegistryError::Configured(name.into())),
            Some(Origin::Store) => {}
        }
        self.store.remove_device(name).await?;
        self.publish(|accounts| drop(accounts.devices.remove(name)));
        Ok(())
    }

    /// Lets the app connect for that user. Returns the session's id, and whether the session is new.
    pub async fn add_session(&self, user: &str, package: &str) -> Result<(String, bool), RegistryError> {
        if !valid_user(user) {
            return Err(RegistryError::Invalid("a user must have 1 to 256 printable characters without spaces"));
        }
        let _changing = self.changing.lock().await;
        let accounts = self.accounts();
        if !accounts.apps.contains_key(package) {
            return Err(RegistryError::Unknown(package.into()));
        }
        let id = session_id(user, package);
        let session = AppSession { user: user.into(), package: package.into() };
        match accounts.sessions.get(&id) {
            Some(known) if *known == session => return Ok((id, false)),
            Some(_) => return Err(RegistryError::Ambiguous(id)),
            None => {}
        }
        let row = AppSessionRow { id: id.clone(), user: user.into(), package: package.into() };
        self.store.add_app_session(row).await?;
        self.publish(|accounts| drop(accounts.sessions.insert(id.clone(), session)));
        Ok((id, true))
    }

    /// Stops the app from connecting for that user; its socket is closed. False if there was no session.
    pub async fn remove_session(&self, user: &str, package: &str) -> Result<bool, RegistryError> {
        let _changing = self.changing.lock().await;
        let id = session_id(user, package);
        if self.accounts().session_of(&id, package).is_none_or(|session| session.user != user) {
            return Ok(false);
        }
        self.store.remove_app_session(&id).await?;
        self.publish(|accounts| drop(accounts.sessions.remove(&id)));
        Ok(true)
    }

    fn publish(&self, change: impl FnOnce(&mut Accounts)) {
        self.accounts.send_modify(|accounts| change(Arc::make_mut(accounts)));
    }
}

fn app_of(row: AppRow) -> Result<App, String> {
    let Some(key) = KeyHash::from_hex(&row.key_sha256) else { return Err(row.package) };
    // A permission that only a later version knows is ignored.
    let permissions = row.permissions.split_whitespace().filter_map(Permission::by_name).collect();
    Ok(App { package: row.package, key, permissions, webhook_url: row.webhook_url, origin: Origin::Store })
}

fn row_of(app: &App) -> AppRow {
    let permissions: Vec<_> = app.permissions.iter().map(|permission| permission.name()).collect();
    AppRow {
        package: app.package.clone(),
        key_sha256: app.key.to_hex(),
        permissions: permissions.join(" "),
        webhook_url: app.webhook_url.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn registry(folder: &tempfile::TempDir, config: &str) -> Registry {
        let config: Config = toml::from_str(config).unwrap();
        Registry::open(&config, Store::open(&folder.path().join("cloud.sqlite")).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn an_added_app_gets_in_with_its_key_until_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&folder, "").await;
        let key = registry.add_app("org.one", [Permission::Camera].into(), None).await.unwrap();
        let accounts = registry.accounts();
        assert!(accounts.app_with_key("org.one", key.expose()).unwrap().may_stream());
        assert!(accounts.app_with_key("org.one", "other").is_none());
        assert!(accounts.app_with_key("org.two", key.expose()).is_none());
        assert!(matches!(registry.add_app("org.one", [].into(), None).await, Err(RegistryError::Exists(_))));
        registry.add_session("u-1@e.com", "org.one").await.unwrap();
        registry.revoke_app("org.one").await.unwrap();
        assert_eq!(*registry.accounts(), Accounts::default());
        assert!(matches!(registry.revoke_app("org.one").await, Err(RegistryError::Unknown(_))));
    }

    #[tokio::test]
    async fn what_is_stored_and_what_is_configured_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "[[app]]\npackage = \"org.fixed\"\napi_key_sha256 = \"{}\"\npermissions = [\"ALL\"]\n\
             [[device]]\nname = \"fixed\"\nuser = \"u\"\ntoken_sha256 = \"{}\"\n",
            KeyHash::of("key").to_hex(),
            KeyHash::of("token").to_hex()
        );
        let before = registry(&folder, &config).await;
        let token = before.add_device("live", "u@e.com").await.unwrap();
        before
            .add_app("org.one", [Permission::Camera, Permission::Microphone].into(), Some("http://h/w".into()))
            .await
            .unwrap();
        before.add_session("u", "org.fixed").await.unwrap();
        assert!(matches!(before.revoke_app("org.fixed").await, Err(RegistryError::Configured(_))));
        assert!(matches!(before.revoke_device("fixed").await, Err(RegistryError::Configured(_))));
        before.store.close().await;
        let after = registry(&folder, &config).await;
        assert_eq!(after.accounts(), before.accounts());
        let accounts = after.accounts();
        assert_eq!(accounts.device_with_token(token.expose()).unwrap().user, "u@e.com");
        assert_eq!(accounts.device_with_token("token").unwrap().name, "fixed");
        assert!(accounts.device_with_token("").is_none());
        assert!(accounts.app_with_key("org.fixed", "key").unwrap().may_stream());
    }

    #[tokio::test]
    async fn a_session_is_looked_up_whole_and_never_split_at_its_hyphens() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&folder, "").await;
        for package in ["app", "b-app"] {
            registry.add_app(package, [].into(), None).await.unwrap();
        }
        let (id, new) = registry.add_session("a-b", "app").await.unwrap();
        assert!(new && !registry.add_session("a-b", "app").await.unwrap().1);
        let accounts = registry.accounts();
        assert_eq!(accounts.session_of(&id, "app").unwrap().user, "a-b");
        assert!(accounts.session_of(&id, "b-app").is_none());
        assert!(matches!(registry.add_session("a", "b-app").await, Err(RegistryError::Ambiguous(_))));
        assert!(!registry.remove_session("a", "b-app").await.unwrap());
        assert!(registry.remove_session("a-b", "app").await.unwrap());
        assert!(matches!(registry.add_session("a", "org.none").await, Err(RegistryError::Unknown(_))));
    }
}
