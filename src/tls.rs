//! The TLS provider of the program: ring. The HTTP client and the clients of both brokers use it.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, crypto};
use rustls_platform_verifier::Verifier;

/// Installs the provider. Must be called before a client is built.
pub(crate) fn provide() {
    // Fails if a provider is already installed, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Returns how to connect: with the roots of the platform and those of `roots`, and with a certificate of
/// this side and its key, if there is one. All are PEM.
///
/// # Errors
///
/// A description of what is wrong with the certificates or the key.
pub(crate) fn client(
    roots: Option<&str>,
    identity: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, String> {
    let certificates = |pem: &[u8]| {
        CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("a certificate cannot be read: {error}"))
    };
    let provider = Arc::new(crypto::ring::default_provider());
    let roots = certificates(roots.unwrap_or_default().as_bytes())?;
    let failed = |error: rustls::Error| format!("TLS cannot be set up: {error}");
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider)).map_err(failed)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some((chain, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("the key cannot be read: {error}"))?;
    builder
        .with_client_auth_cert(certificates(chain)?, key)
        .map_err(failed)
}
