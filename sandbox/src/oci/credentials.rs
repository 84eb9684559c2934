//! The user's credentials for registries, where Docker and Podman keep them.

use std::path::PathBuf;
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use serde_json::Value;

use super::credential_helper::{self, Answer};

/// The name under which Docker keeps credentials for its own registry.
const DOCKER: &str = "https://index.docker.io/v1/";

/// The reason against credentials that are no password.
const TOKEN: &str = "an identity token is stored, and only a password can be used";

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
    match found(docker_file(), name) {
        of_docker @ Credentials::Password { .. } => of_docker,
        of_docker => match found(podman_file(), host) {
            of_podman @ Credentials::Password { .. } => of_podman,
            _ => of_docker,
        },
    }
}

/// Returns the credentials for a server in a file: of that server's helper, then those in the file,
/// then of the helper for all.
fn found(file: Option<PathBuf>, server: &str) -> Credentials {
    let Some(text) = file.and_then(|file| fs::read(file).ok()) else { return Credentials::None };
    let Ok(Value::Object(mut settings)) = serde_json::from_slice(&text) else { return Credentials::None };
    // The crate runs helpers without a deadline, so it gets none.
    let helpers = settings.remove("credHelpers");
    let for_all = settings.remove("credsStore");
    let helper = |helper: Option<&Value>| helper?.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    if let Some(helper) = helper(helpers.as_ref().and_then(|helpers| helpers.get(server))) {
        return of_helper(&helper, server);
    }
    let text = Value::Object(settings).to_string();
    match get_credential_from_reader(text.as_bytes(), server) {
        Ok(DockerCredential::UsernamePassword(user, password)) => Credentials::Password { user, password },
        Ok(DockerCredential::IdentityToken(_)) => Credentials::Failed(TOKEN.to_owned()),
        Err(CredentialRetrievalError::NoCredentialConfigured) => {
            helper(for_all.as_ref()).map_or(Credentials::None, |helper| of_helper(&helper, server))
        }
        Err(CredentialRetrievalError::ConfigNotFound | CredentialRetrievalError::ConfigReadError) => {
            Credentials::None
        }
        Err(error) => Credentials::Failed(error.to_string()),
    }
}

fn of_helper(name: &str, server: &str) -> Credentials {
    match credential_helper::ask(name, server) {
        Ok(Answer::Password { user, password }) => Credentials::Password { user, password },
        Ok(Answer::IdentityToken) => Credentials::Failed(TOKEN.to_owned()),
        // A helper without an entry fails, too, so this matters only where access is refused.
        Err(why) => Credentials::Failed(why),
    }
}

fn docker_directory() -> Option<PathBuf> {
    let of_home = || Some(env::home_dir()?.join(".docker"));
    env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(of_home)
}

fn docker_file() -> Option<PathBuf> {
    Some(docker_directory()?.join("config.json"))
}

/// Returns the file of Podman, containers-auth.json(5).
fn podman_file() -> Option<PathBuf> {
    if let Some(named) = env::var_os("REGISTRY_AUTH_FILE") {
        return Some(named.into());
    }
    let file = PathBuf::from(env::var_os("XDG_RUNTIME_DIR")?).join("containers/auth.json");
    if file.is_file() { Some(file) } else { Some(docker_directory()?.join("containers/auth.json")) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_helper_precedes_the_file_and_the_common_one() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("config.json");
        fs::write(
            &file,
            r#"{"auths":{"a.example":{"auth":"dXNlcjp3b3Jk"},"b.example":{"auth":"dXNlcjp3b3Jk"}},
                "credHelpers":{"b.example":"none-of-b"},"credsStore":"none-of-all"}"#,
        )
        .unwrap();
        let found = |server| match found(Some(file.clone()), server) {
            Credentials::Password { user, password } => format!("{user}:{password}"),
            Credentials::Failed(why) => why.split('`').nth(1).unwrap_or_default().to_owned(),
            Credentials::None => String::new(),
        };
        let answers = ["a.example", "b.example", "c.example"].map(found);
        assert_eq!(answers, ["user:word", "docker-credential-none-of-b", "docker-credential-none-of-all"]);
    }
}
