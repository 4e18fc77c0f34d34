//! The HTTP client that calls apps.

use std::path::PathBuf;
use std::time::Duration;

use crate::link::cloud::tls;

/// Time limit for DNS, TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(5);

/// Trusts the system's authorities and those in `ca_file`. Follows no redirect: an app's server must not choose where a
/// photo or a token goes.
pub async fn client(ca_file: Option<PathBuf>) -> Result<reqwest::Client, String> {
    let config = tokio::task::spawn_blocking(move || tls::client_config(ca_file.as_deref()));
    let config = config.await.map_err(|_| "reading the certificates failed")??;
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .user_agent(concat!("lenscast-cloud/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())
}

/// What went wrong, in words. The URL is left out, as it may contain a token.
pub(super) fn explain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}
