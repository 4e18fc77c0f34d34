//! Checks the configuration when it is read, and refuses what cannot work.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Config, ConfigError};
use crate::cloud::accounts::{valid_name, valid_user};
use crate::configuration;

impl Config {
    /// Checks what serde cannot, and reads the files that the configuration names.
    pub(super) fn settle(&mut self) -> Result<(), ConfigError> {
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
            return contradiction("rtmp.tls_listen, rtmp.cert and rtmp.key must be set together");
        }
        if self.http.max_connections == 0 || self.http.max_connections_per_address == 0 {
            return contradiction("http.max_connections and http.max_connections_per_address must be at least 1");
        }
        if !(10..=3600).contains(&self.hls.dvr_window_s) {
            return contradiction("hls.dvr_window_s must be from 10 to 3600");
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
                return contradiction("app.package must have 1 to 128 letters, digits, '.', '_' and '-'");
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
                return contradiction("device.name must have 1 to 128 letters, digits, '.', '_' and '-'");
            }
            if !valid_user(&device.user) {
                return contradiction(&format!(
                    "[[device]] {}: user must have 1 to 256 printable characters without spaces",
                    device.name
                ));
            }
            if !names.insert(&device.name) {
                return contradiction(&format!("two [[device]] have the name {}", device.name));
            }
            if !tokens.insert(device.token_sha256.to_hex()) {
                return contradiction(&format!("[[device]] {} has the same token as another", device.name));
            }
        }
        Ok(())
    }
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
        _ => contradiction(&format!("{section}.cert and {section}.key must be set together")),
    }
}
