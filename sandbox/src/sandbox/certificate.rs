//! The certificate of one sandbox's server, made at its start. Its key is in no layer, and no two
//! sandboxes share one.

use std::path::PathBuf;

#[cfg(feature = "tls")]
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use crate::engine::TlsFiles;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::plan::{File, Plan};
use crate::launch::{Container, SandboxPath};

const CERTIFICATE: &str = "/etc/tls/server.crt";
const KEY: &str = "/etc/tls/server.key";
const ROOT: &str = "/etc/tls/root.crt";

/// A certificate with its key, in PEM.
struct Certificate {
    /// The certificate of the authority that signed it. The authority's key is gone.
    root: String,
    certificate: String,
    key: String,
}

pub(super) fn files() -> TlsFiles {
    TlsFiles::new(CERTIFICATE, KEY)
}

/// Returns the host's path of the certificate by which clients check the server's.
pub(super) fn root(container: &Container) -> PathBuf {
    SandboxPath::new(ROOT).below(&container.root())
}

/// Returns the plan of one sandbox, with a certificate.
pub(super) fn add_to(plan: &Plan) -> Result<Plan> {
    let Certificate { root, certificate, key } = make()?;
    let mut plan = plan.clone();
    for (path, mode, contents) in [(CERTIFICATE, 0o644, certificate), (KEY, 0o600, key), (ROOT, 0o644, root)]
    {
        plan.files.push(File { path: path.into(), mode, contents: contents.into_bytes().into() });
    }
    Ok(plan)
}

/// Refuses TLS in a build without the feature.
pub(crate) fn is_possible() -> Result<()> {
    if cfg!(feature = "tls") { Ok(()) } else { Err(without_feature()) }
}

fn without_feature() -> Error {
    Error::new(ErrorKind::InvalidConfig, "set `tls`")
        .caused_by("sandboxed-db is built without its feature `tls`")
        .with_hint("add the feature, as by `cargo add --dev sandboxed-db --features tls`")
}

#[cfg(not(feature = "tls"))]
fn make() -> Result<Certificate> {
    Err(without_feature())
}

#[cfg(feature = "tls")]
fn make() -> Result<Certificate> {
    sign().map_err(|error| Error::new(ErrorKind::Launch, "make a certificate for TLS").caused_by(error))
}

#[cfg(feature = "tls")]
fn sign() -> std::result::Result<Certificate, rcgen::Error> {
    let named = |name| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut authority = named("sandboxed-db root");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut server = named("sandboxed-db server");
    server.subject_alt_names = vec![
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into()),
        SanType::DnsName("localhost".try_into()?),
        // libpq before version 15 compares addresses with names only.
        SanType::DnsName("127.0.0.1".try_into()?),
    ];
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?.pem();
    Ok(Certificate { root: authority.pem(), certificate, key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(feature = "tls"))]
    fn a_build_without_the_feature_refuses_tls() {
        let error = crate::Snapshot::new(crate::Postgres::new()).tls().start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let report = format!("{error:?}");
        assert!(
            report.contains("without its feature `tls`") && report.contains("--features tls"),
            "{report}"
        );
    }

    #[test]
    #[cfg(feature = "tls")]
    fn two_certificates_share_no_key_and_no_authority() {
        let (one, other) = (make().unwrap(), make().unwrap());
        assert!(one.key.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert!(one.key != other.key && one.root != other.root && one.root != one.certificate);
    }
}
