//! TLS for the cloud's own servers, where no proxy in front does it: certificates from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// An acceptor for this certificate chain and key. They are read once: a renewed certificate needs a restart.
///
/// # Errors What is wrong with the files, in words.
pub fn acceptor(chain: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let said = |path: &Path| {
        let path = path.display().to_string();
        move |error: String| format!("{path}: {error}")
    };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(chain).map_err(|error| said(chain)(error.to_string()))?.collect();
    let certificates = certificates.map_err(|error| said(chain)(error.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| said(key)(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|error| said(chain)(error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
