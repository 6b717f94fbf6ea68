//! The TLS of all clients in this program: rustls with the system's certificate store.
//! Does not connect.

use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// The configuration; the certificates are read when a client first needs them.
pub fn tls_by_the_system() -> TlsConfig {
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .build()
}
