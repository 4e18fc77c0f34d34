//! Which certificates a `wss://` link, and the cloud's outgoing calls, trust; and the socket option beneath the link.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_tungstenite::{Connector, MaybeTlsStream};
use tracing::{debug, warn};

/// Trusts the system's certificate authorities and those in `ca_file`. Reads files on a separate thread.
pub(super) async fn connector(ca_file: Option<PathBuf>) -> Result<Connector, String> {
    let config = tokio::task::spawn_blocking(move || client_config(ca_file.as_deref()));
    let config = config.await.map_err(|_| "reading the certificates failed")??;
    Ok(Connector::Rustls(Arc::new(config)))
}

/// The configuration for TLS clients. Blocks: it reads files.
pub(crate) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in native.errors {
        debug!(%error, "one of the system's certificates cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        let unreadable = |error: &dyn std::fmt::Display| format!("ca_file {}: {error}", path.display());
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
            roots.add(certificate.map_err(|e| unreadable(&e))?).map_err(|e| unreadable(&e))?;
        }
        if roots.len() == before {
            return Err(unreadable(&"holds no certificate"));
        }
    }
    if roots.is_empty() {
        return Err(
            "this system has no certificate authorities (package ca-certificates), and no ca_file is set".into()
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Makes the kernel give up a connection whose other end acknowledges nothing. Pings alone do not notice a cut cable
/// on a link that never received anything, and the kernel's own limit is about a quarter of an hour.
pub(super) fn bound_unacknowledged(stream: &MaybeTlsStream<TcpStream>, limit: Duration) {
    let tcp = match stream {
        MaybeTlsStream::Plain(tcp) => tcp,
        MaybeTlsStream::Rustls(tls) => tls.get_ref().0,
        _ => return,
    };
    if let Err(errno) = setsockopt(tcp, sockopt::TcpUserTimeout, &(limit.as_millis() as u32)) {
        warn!(%errno, "cloud link: TCP_USER_TIMEOUT cannot be set");
    }
}
