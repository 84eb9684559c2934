//! The user's credentials for registries, where Docker and Podman keep them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential, get_podman_credential};

/// The name under which Docker keeps credentials for its own registry.
const DOCKER: &str = "https://index.docker.io/v1/";

/// A user's credentials, or the reason why there are none.
#[derive(Clone)]
pub(super) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// The message of a helper that failed.
    Failed(String),
    None,
}

/// Credentials are printed nowhere.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Failed(_) => "Failed",
            Self::None => "None",
        })
    }
}

/// Returns the credentials for a host: those of Docker, else those of Podman.
pub(super) fn credentials(host: &str) -> Credentials {
    let name = if host == "docker.io" { DOCKER } else { host };
    let found = match get_credential(name) {
        Ok(found) => Ok(found),
        Err(error) => get_podman_credential(host).map_err(|_| error),
    };
    match found {
        Ok(DockerCredential::UsernamePassword(user, password)) => Credentials::Password { user, password },
        Ok(DockerCredential::IdentityToken(_)) => {
            Credentials::Failed("an identity token is stored, and only a password can be used".to_owned())
        }
        Err(
            CredentialRetrievalError::NoCredentialConfigured
            | CredentialRetrievalError::ConfigNotFound
            | CredentialRetrievalError::ConfigReadError,
        ) => Credentials::None,
        // A helper without an entry fails, too, so this matters only where access is refused.
        Err(error) => Credentials::Failed(error.to_string()),
    }
}

impl Credentials {
    /// Returns the header that holds them.
    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Self::Failed(_) | Self::None => None,
        }
    }

    /// Returns the rest of the sentence that a host refuses access.
    pub(super) fn advice(&self, host: &str) -> String {
        match self {
            Self::Password { user, .. } => format!(" by the user `{user}`: run `docker login {host}`"),
            Self::Failed(why) => format!(", and no credentials are found ({why}): run `docker login {host}`"),
            Self::None => format!(" without credentials, if it exists: run `docker login {host}`"),
        }
    }
}
