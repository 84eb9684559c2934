//! TLS to registries: the authorities of this machine, and those for one registry.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Returns the configuration for a host: it is trusted by the authorities of the machine, which
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` replace, and by those that Docker and Podman trust for it.
pub(super) fn config(host: &str) -> TlsConfig {
    let machine = rustls_native_certs::load_native_certs().certs;
    let machine = machine.iter().map(|certificate| Certificate::from_der(certificate).to_owned());
    let roots: Vec<_> = machine.chain(of_host(host)).collect();
    TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        // Given here, so that the provider of the whole process stays the test's choice.
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

/// The directories in which Docker and Podman look for the authorities of a host,
/// containers-certs.d(5).
fn of_host(host: &str) -> Vec<Certificate<'static>> {
    let user = std::env::home_dir().map(|home| home.join(".config/containers/certs.d"));
    let machine = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    let directories = user.into_iter().chain(machine).map(|directory| directory.join(host));
    let files = directories.filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
    let files = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "crt"));
    files.flat_map(|path| certificates(&fs::read(path).unwrap_or_default())).collect()
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem).filter_map(Result::ok);
    items
        .filter_map(
            |item| if let PemItem::Certificate(certificate) = item { Some(certificate) } else { None },
        )
        .collect()
}
