//! The TLS provider of the program: ring. The HTTP client and the clients of both brokers use it.

/// Installs the provider. Must be called before a client is built.
pub(crate) fn provide() {
    // Fails if a provider is already installed, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
