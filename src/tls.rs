//! The one TLS provider of the program: ring. The HTTP client and both brokers' clients use it.

/// Sees to it that there is a provider. To be called before a client is built.
pub(crate) fn provide() {
    // Fails where a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
