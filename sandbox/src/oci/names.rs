//! Names of images in registries: from a tag to a digest, which the lock file records.
//!
//! A recorded name is never asked for again. Another is asked for once, under a lock, and recorded.
//! Where there is no lock file, or none can be written, a note in the cache has its place.

use std::fs;
use std::path::{Path, PathBuf};

use super::digest::Sha256;
use super::pins::{NAME, Pins};
use super::reference::{Reference, RegistryReference};
use super::registry::Remote;
use super::store::{NewNames, unusable};
use crate::cache::Cache;
use crate::environment::LOCKED;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::notice;

/// The directory of notes to which digests the names in registries led.
const NOTES: &str = "image-digests";

/// A name with its digest, and the image if it had to be asked for.
pub(super) struct Resolved {
    pub(super) reference: RegistryReference,
    pub(super) remote: Option<Remote>,
}

impl Resolved {
    fn known(name: &RegistryReference, digest: Sha256) -> Self {
        Self { reference: with_digest(name, digest), remote: None }
    }

    fn asked(name: &RegistryReference, remote: Remote) -> Self {
        Self { reference: with_digest(name, remote.digest()), remote: Some(remote) }
    }
}

/// Returns the name with the digest for which it stands in a directory.
pub(super) fn resolve(
    cache: &Cache,
    name: &RegistryReference,
    directory: &Path,
    new: NewNames,
) -> Result<Resolved> {
    if name.digest.is_some() {
        return Ok(Resolved { reference: name.clone(), remote: None });
    }
    let pinned = |digest| Resolved::known(name, digest);
    let key = name.to_string();
    let pins = Pins::of(directory);
    if let Some(pins) = &pins
        && let Some(digest) = pins.read()?.remove(&key)
    {
        return Ok(pinned(digest));
    }
    if new == NewNames::Refused {
        return Err(not_recorded(name, pins.as_ref(), directory));
    }
    let writable = pins.as_ref().filter(|pins| pins.is_writable());
    let Some(pins) = writable else {
        if let Some(digest) = noted(cache, &key) {
            return Ok(pinned(digest));
        }
        let remote = ask(cache, name)?;
        if let Some(pins) = &pins {
            let (path, digest) = (pins.path().display(), remote.digest());
            notice(&format!("`{path}` cannot be written: it does not record that `{name}` is {digest}"));
        }
        return Ok(Resolved::asked(name, remote));
    };
    let _lock = pins.lock(cache)?;
    let mut digests = pins.read()?;
    // Another process may have been faster.
    if let Some(digest) = digests.get(&key) {
        return Ok(pinned(*digest));
    }
    let remote = match ask(cache, name) {
        // An image that was used before needs no network; the next use asks again.
        Err(error) if error.kind() == ErrorKind::NotInstalled => {
            return noted(cache, &key).map(pinned).ok_or(error);
        }
        remote => remote?,
    };
    digests.insert(key, remote.digest());
    match pins.write(&digests) {
        Ok(()) => notice(&format!("`{name}` is recorded in `{}`: commit it", pins.path().display())),
        Err(error) => notice(&format!("the digest of `{name}` is not recorded: {error}")),
    }
    Ok(Resolved::asked(name, remote))
}

fn with_digest(name: &RegistryReference, digest: Sha256) -> RegistryReference {
    RegistryReference { digest: Some(digest), ..name.clone() }
}

/// Asks the registry, and notes the answer.
fn ask(cache: &Cache, name: &RegistryReference) -> Result<Remote> {
    let remote = Remote::open(name).map_err(|error| unusable(&Reference::Registry(name.clone()), error))?;
    // Without the note it is asked again.
    let _ = cache.write(&note(cache, &name.to_string()), remote.digest().to_string());
    Ok(remote)
}

fn noted(cache: &Cache, name: &str) -> Option<Sha256> {
    fs::read_to_string(note(cache, name)).ok()?.parse().ok()
}

fn note(cache: &Cache, name: &str) -> PathBuf {
    cache.path(NOTES).join(blake3::hash(name.as_bytes()).to_hex().as_str())
}

fn not_recorded(name: &RegistryReference, pins: Option<&Pins>, directory: &Path) -> Error {
    let cause = match pins {
        Some(pins) if pins.path().exists() => format!("`{}` does not record it", pins.path().display()),
        Some(pins) => format!("there is no `{}`", pins.path().display()),
        None => format!("there is no `{NAME}` in `{}` or above", directory.display()),
    };
    Error::new(ErrorKind::InvalidConfig, format!("use the image `{name}`"))
        .caused_by(format!("{cause}, and {}=1 or `--locked` allows recorded names only", LOCKED.name))
        .with_hint(format!("record it, and commit the file: `sandboxed-db update {name}`"))
}

/// The change of a recorded name.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) name: String,
    pub(crate) before: Option<Sha256>,
    pub(crate) after: Sha256,
}

/// Asks registries again for names, or for all that are recorded. Returns the file and the
/// changes, which are written only if every name is found.
pub(crate) fn update(directory: &Path, names: &[String]) -> Result<(PathBuf, Vec<Update>)> {
    let cache = Cache::open()?;
    let failed = |name: &str, cause: String| {
        Error::new(ErrorKind::InvalidConfig, format!("update the image `{name}`")).caused_by(cause)
    };
    let pins = Pins::of(directory).ok_or_else(|| {
        let sentence = format!("find the `{NAME}` of `{}`", directory.display());
        Error::new(ErrorKind::InvalidConfig, sentence)
            .caused_by("the directory is in no repository, and there is no Cargo.lock")
            .with_hint(format!("go to the repository, or make an empty file: `touch {NAME}`"))
    })?;
    let _lock = pins.lock(&cache)?;
    let mut digests = pins.read()?;
    let names = if names.is_empty() { digests.keys().cloned().collect() } else { names.to_vec() };
    let mut updates = Vec::new();
    for name in &names {
        let name = match name.parse().map_err(|why| failed(name, why))? {
            Reference::Registry(reference) if reference.digest.is_none() => reference,
            Reference::Registry(_) => return Err(failed(name, "it names its digest".to_owned())),
            _ => return Err(failed(name, "it is no name in a registry, so it is not recorded".to_owned())),
        };
        let after = ask(&cache, &name)?.digest();
        let name = name.to_string();
        let before = digests.insert(name.clone(), after);
        updates.push(Update { name, before, after });
    }
    if updates.iter().any(|update| update.before != Some(update.after)) {
        pins.write(&digests)?;
    }
    Ok((pins.path().to_owned(), updates))
}
