//! The files of a server's certificate.

use crate::launch::SandboxPath;

/// The certificate of a sandbox, where its server finds it; for
/// [`Engine::tls`](super::Engine::tls).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The server's certificate, in PEM.
    pub certificate: SandboxPath,
    /// The private key of the certificate, in PEM (PKCS #8); only the server can read it.
    pub key: SandboxPath,
}

impl TlsFiles {
    pub(crate) fn new(certificate: impl Into<SandboxPath>, key: impl Into<SandboxPath>) -> Self {
        Self { certificate: certificate.into(), key: key.into() }
    }
}
