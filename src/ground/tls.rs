//! TLS as every client of this program speaks it: by rustls, believing the system's certificate store.
//! Connects to nothing.

use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// The configuration; the certificates are read when a client first needs them.
pub fn tls_by_the_system() -> TlsConfig {
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .build()
}
