//! Files that people write. Only their text is parsed here; no file that they name is opened.

use serde::de::DeserializeOwned;

use crate::media::profile::Profile;
use crate::{cloud, configuration, device};

/// A configuration file and, after a form feed, a drop-in; or an encoder profile.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (main, drop_in) = text.split_once('\u{c}').unwrap_or((text, ""));
    if let Some(config) = merged::<device::config::Config>(main, drop_in) {
        let _ = (config.stream.give_up_after(), config.stream.link_loss_grace());
        assert!(config.cloud.token.is_none_or(|token| format!("{token:?}") == "***"));
    }
    if let Some(config) = merged::<cloud::config::Config>(main, drop_in) {
        assert!(!config.http.public_url().ends_with('/') && !config.rtmp.public_url().ends_with('/'));
        assert!(config.http.app_websocket_url().ends_with("/app-ws"));
        assert_eq!(config.webrtc.candidates().len(), config.webrtc.advertise.len());
        let _ = config.hls.dvr_window();
    }
    let _ = toml::from_str::<Profile>(main);
}

/// Two files that are each valid are valid together.
fn merged<T: DeserializeOwned>(main: &str, drop_in: &str) -> Option<T> {
    toml::from_str::<T>(main).and(toml::from_str::<T>(drop_in)).ok()?;
    let (mut base, over) = (toml::from_str(main).ok()?, toml::from_str(drop_in).ok()?);
    configuration::merge(&mut base, over);
    Some(base.try_into().expect("right together"))
}
