//! Checks the servers of this machine, and names the one in use.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::deadline::within;
use super::examination::{Examination, fix_of};
use crate::engine::version::Version;
use crate::engine::{Engine, Survey, install_command, survey};
use crate::fix::Fix;
use crate::sandbox::ImageReference;

/// Each program found is run once, for at most ten seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// A server's programs on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The engine's name, such as `postgres`.
    pub engine: String,
    /// Where its programs are.
    pub directory: PathBuf,
    /// Its version, such as `15.18`; absent if it does not run.
    pub version: Option<String>,
    /// Why sandboxes use it; absent for the others.
    pub used: Option<&'static str>,
}

pub(super) fn examine(examination: &mut Examination) -> Vec<ServerInfo> {
    const NAME: &str = "postgres";
    if is_image(examination, NAME, NAME) {
        return Vec::new();
    }
    let Survey { found, used } = match within(LIMIT, "to look for PostgreSQL", survey) {
        Ok(survey) => survey,
        Err(fix) => {
            examination.fail(NAME, fix);
            return Vec::new();
        }
    };
    for found in &found {
        let directory = found.directory.display();
        match (&found.version, found.used) {
            (Ok(version), Some(why)) => {
                examination.ok(NAME, format!("{version} in {directory}, used: {why}"))
            }
            (Ok(version), None) => examination.ok(NAME, format!("{version} in {directory}, not used")),
            // The failure of the one in use is reported below.
            (Err(_), _) if matches!(used, Some(Err(_))) => {}
            (Err(error), _) => examination.warn(NAME, fix_of(error)),
        }
    }
    match used {
        Some(Ok(())) => {}
        Some(Err(error)) => examination.fail(NAME, fix_of(&error)),
        None => examination.warn(NAME, not_installed()),
    }
    let info = |found: crate::engine::Found| ServerInfo {
        engine: NAME.to_owned(),
        directory: found.directory,
        version: found.version.ok(),
        used: found.used,
    };
    found.into_iter().map(info).collect()
}

/// Looks for the server of an engine other than PostgreSQL.
pub(super) fn examine_engine<E: Engine>(examination: &mut Examination, engine: &E) -> Vec<ServerInfo> {
    const NAME: &str = "server";
    let (name, wanted) = (engine.name().to_owned(), engine.clone());
    if is_image(examination, NAME, &name) {
        return Vec::new();
    }
    let located = within(LIMIT, "to look for the server", move || wanted.locate());
    let installation = match located.map(|located| located.map_err(|error| fix_of(&error))) {
        Ok(Ok(installation)) => installation,
        Ok(Err(fix)) | Err(fix) => {
            examination.fail(NAME, fix);
            return Vec::new();
        }
    };
    let version = Version(installation.version()).number().to_owned();
    let directory = installation.bin().to_owned();
    examination.ok(NAME, format!("{name} {version} in {}", directory.display()));
    vec![ServerInfo { engine: name, directory, version: Some(version), used: Some("found first") }]
}

/// Returns `true` if a variable names an image, which the trial that follows uses.
fn is_image(examination: &mut Examination, check: &'static str, engine: &str) -> bool {
    match ImageReference::of_environment(engine) {
        Ok(None) => return false,
        Ok(Some(image)) => examination.ok(check, format!("the image {}", image.written)),
        Err(error) => examination.fail(check, fix_of(&error)),
    }
    true
}

/// A warning only: the trial that follows shows whether the packages can be downloaded.
fn not_installed() -> Fix {
    let sentence = "no installed PostgreSQL is used: the distribution's packages are, downloaded once";
    match install_command() {
        Some(command) => Fix::new(sentence, "to install one, run", command),
        None => Fix::new(
            sentence,
            "name the directory of its programs, as in",
            "export SANDBOXED_DB_POSTGRES=DIRECTORY",
        ),
    }
}
