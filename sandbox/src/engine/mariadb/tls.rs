//! TLS for clients at the port. Those at the Unix socket stay without.

use std::path::Path;

use super::config::{Product, setting};
use crate::engine::url::encode_path;
use crate::engine::{Server, TlsFiles};
use crate::error::{Error, ErrorKind, Result};

/// Settings that this sets.
const SET: &[&str] = &["ssl", "skip_ssl", "ssl_cert", "ssl_key", "require_secure_transport"];

/// Adds the certificate to a server, which then refuses clients at the port that do not encrypt.
pub(super) fn turn_on(
    product: Product,
    mut server: Server,
    settings: &[(String, String)],
    files: &TlsFiles,
) -> Result<Server> {
    if let Some(name) = SET.iter().find(|name| setting(settings, name).is_some()) {
        return Err(Error::new(ErrorKind::InvalidConfig, format!("set the server's setting `{name}`"))
            .caused_by("`tls` sets it, to the certificate of the sandbox")
            .with_hint("leave out the setting, or `tls`"));
    }
    server.command = server
        .command
        // MySQL has no such option, and needs none.
        .args((product == Product::MariaDb).then_some("--ssl"))
        .prefixed_path_arg("--ssl-cert=", files.certificate.clone())
        .prefixed_path_arg("--ssl-key=", files.key.clone())
        .arg("--require-secure-transport=1");
    Ok(server)
}

/// Returns the options of a URL by which clients check the certificate, as sqlx has them.
pub(super) fn url_options(root_certificate: Option<&Path>) -> String {
    let options = |path: &Path| {
        format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={}", encode_path(&path.display().to_string()))
    };
    root_certificate.map(options).unwrap_or_default()
}

/// Returns the options of a URL of Java's driver.
pub(super) fn jdbc_options(product: Product, root_certificate: Option<&Path>) -> String {
    match (product, root_certificate) {
        (Product::MariaDb, None) => "sslMode=disable".to_owned(),
        (Product::MariaDb, Some(path)) => {
            format!("sslMode=verify-full&serverSslCert={}", encode_path(&path.display().to_string()))
        }
        // The driver asks the server for the key that encrypts the password.
        (Product::MySql, None) => "allowPublicKeyRetrieval=true".to_owned(),
        // It reads certificates from Java's key stores.
        (Product::MySql, Some(_)) => "sslMode=REQUIRED".to_owned(),
    }
}
