//! Layers that machines share by a registry: looked for before a build, pushed after one.
//!
//! Tests never fail for a registry. A failure of it is one line for the user, and the layer is
//! built as if there were none.

mod archive;
mod artifact;
mod by_command;
mod contents;
mod signature;
mod transfer;

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use artifact::Artifact;
pub use by_command::Transfer;
use signature::Key;
use transfer::LayerRepository;

use super::digest::Digest;
use super::published::Layer;
use super::run;
use super::store::Store;
use super::upkeep::REGISTRIES;
use crate::cache;
use crate::environment::{PUSH, REGISTRY, REGISTRY_KEY};
use crate::error::{Error, ErrorKind, Result};
use crate::oci::RegistryReference;
use crate::progress::{Progress, notice};
use crate::report::with_causes;

/// How long a registry that cannot be used is left alone, by all processes with the same cache.
const AWAY: Duration = Duration::from_secs(60);
/// How long a layer counts as missing after it was looked for.
const MISSING: Duration = Duration::from_secs(10);

/// The registry of the environment, as this process has found it.
#[derive(Debug)]
struct Shared {
    place: LayerRepository,
    state: Mutex<Observed>,
}

#[derive(Debug, Default)]
struct Observed {
    is_unreadable: bool,
    is_unwritable: bool,
    /// When layers were looked for in vain.
    missing: HashMap<Digest, Instant>,
    /// Layers that are there and cannot be used.
    unusable: HashSet<Digest>,
}

/// Refuses values of the variables that cannot be used.
pub(crate) fn check() -> Result<()> {
    let reference = wanted()?;
    key()?;
    match (reference, PUSH.value()) {
        (None, Some(value)) if value != "0" => Err(PUSH
            .refused(&value)
            .caused_by(format!("{} is not set", REGISTRY.name))
            .with_hint(format!("set {} to {}", REGISTRY.name, REGISTRY.accepted()))),
        _ => Ok(()),
    }
}

/// Returns the repository that the environment names.
fn wanted() -> Result<Option<RegistryReference>> {
    let Some(value) = REGISTRY.value() else { return Ok(None) };
    let reference = value.to_str().ok_or_else(|| "it is no text".to_owned()).and_then(repository);
    reference.map(Some).map_err(|why| REGISTRY.refused(&value).caused_by(why))
}

/// Returns the key that the environment names, with which layers must be signed.
fn key() -> Result<Option<Key>> {
    let Some(value) = REGISTRY_KEY.value() else { return Ok(None) };
    Key::read(value.as_ref()).map(Some).map_err(|error| REGISTRY_KEY.refused(&value).caused_by(error))
}

/// Reads a repository, which has no tag.
fn repository(text: &str) -> Result<RegistryReference, String> {
    let reference: RegistryReference = text.parse()?;
    match (&reference.tag, &reference.digest) {
        (None, None) => Ok(reference),
        _ => Err("it has a tag or a digest, and each layer has a separate tag".to_owned()),
    }
}

/// Returns `true` if layers are pushed.
fn pushes() -> bool {
    matches!(PUSH.word(), Ok(Some("1")))
}

fn shared() -> Option<&'static Shared> {
    static SHARED: OnceLock<Option<Shared>> = OnceLock::new();
    let open = || {
        // Wrong values are refused at the beginning of each start.
        let (reference, key) = (wanted().ok()??, key().ok()?);
        match LayerRepository::of(&reference, key) {
            Ok(place) => Some(Shared { place, state: Mutex::default() }),
            Err(error) => {
                notice(&format!("{} cannot be used, and layers are built: {error}", REGISTRY.name));
                None
            }
        }
    };
    SHARED.get_or_init(open).as_ref()
}

/// Returns `true` if layers are looked for in a registry.
pub(super) fn is_used() -> bool {
    shared().is_some()
}

/// A layer in a registry, whose documents are checked.
#[derive(Debug)]
pub(super) struct Found {
    shared: &'static Shared,
    artifact: Artifact,
    digest: Digest,
}

/// Looks for a layer in the registry; `None` if it is not there, or may not or cannot be used.
pub(super) fn look(store: &Store, digest: Digest) -> Option<Found> {
    let shared = shared()?;
    if !shared.is_readable(store) || shared.is_missing(digest) {
        return None;
    }
    match shared.place.find(digest) {
        Ok(Some(artifact)) if is_new_enough(store, &artifact) => Some(Found { shared, artifact, digest }),
        Ok(_) => {
            shared.state().missing.insert(digest, Instant::now());
            None
        }
        // Many registries hide a repository that the first push will make.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && pushes() => {
            tracing::debug!(%error, "the registry may have no such repository yet");
            shared.state().missing.insert(digest, Instant::now());
            None
        }
        Err(error) => {
            shared.failed_to_read(store, digest, &error.to_string(), error.kind());
            None
        }
    }
}

/// Returns `true` if no step is older than it may be, and the layer was not built by an earlier run
/// where all layers are rebuilt.
fn is_new_enough(store: &Store, artifact: &Artifact) -> bool {
    let Some(link) = artifact.links.last().map(|last| &last.link) else { return false };
    let is_of_this_run = !run::rebuilds() || run::is_of_pipeline(link.pipeline.as_deref());
    is_of_this_run && store.accepts_age(link.oldest_step())
}

impl Found {
    /// Brings the layer into the store, whose lock for its build is held; `None` if that fails.
    pub(super) fn pull(self, store: &Store) -> Option<Layer> {
        let Self { shared, artifact, digest } = self;
        let progress =
            Progress::start(&format!("pulling layer {} from {}", short(digest), shared.place.name()));
        match shared.place.pull(store, &artifact, &progress) {
            Ok((layer, bytes)) => {
                tracing::info!(%digest, bytes, "pulled");
                Some(layer)
            }
            Err(error) => {
                drop(progress);
                shared.failed_to_read(store, digest, &why(&error), kind(&error));
                None
            }
        }
    }
}

/// Pushes a layer that was built, where that is wanted.
pub(super) fn push(store: &Store, layer: &Layer) {
    let Some(shared) = shared() else { return };
    if !pushes() || shared.state().is_unwritable || !shared.is_readable(store) {
        return;
    }
    let digest = layer.digest();
    // The layer that is there may be too old, or unusable.
    let replaces = run::rebuilds() || store.limits_age() || shared.state().unusable.contains(&digest);
    let progress = Progress::start(&format!("pushing layer {} to {}", short(digest), shared.place.name()));
    let pushed = match shared.place.has(digest) {
        Ok(true) if !replaces => return,
        Ok(_) => shared.place.push(store, layer, &progress).map_err(|error| why(&error)),
        Err(error) => Err(error.to_string()),
    };
    drop(progress);
    match pushed {
        Ok(bytes) => tracing::info!(%digest, bytes, "pushed"),
        Err(why) => {
            shared.state().is_unwritable = true;
            notice(&format!("layers are not pushed to {}: {why}", shared.place.name()));
        }
    }
}

/// The digits of a digest that `sandboxed-db layers` shows.
fn short(digest: Digest) -> String {
    digest.to_string().chars().take(12).collect()
}

/// Returns the cause of an error, whose operation the notice has already named.
fn why(error: &Error) -> String {
    let cause = error.source().filter(|_| error.kind() == ErrorKind::Layer);
    cause.map_or_else(|| with_causes(error), ToString::to_string)
}

/// Returns the kind of the failed operation below an error.
fn kind(error: &Error) -> io::ErrorKind {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.map_or(io::ErrorKind::Other, io::Error::kind)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Observed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_missing(&self, digest: Digest) -> bool {
        self.state().missing.get(&digest).is_some_and(|since| since.elapsed() < MISSING)
    }

    fn is_readable(&self, store: &Store) -> bool {
        if !self.state().is_unreadable && cache::is_younger(&self.note(store), AWAY) {
            tracing::debug!(registry = self.place.name(), "another process has found it out of use");
            return false;
        }
        !self.state().is_unreadable
    }

    /// Reports a registry or a layer that cannot be used.
    fn failed_to_read(&self, store: &Store, digest: Digest, why: &str, kind: io::ErrorKind) {
        let name = self.place.name();
        match kind {
            io::ErrorKind::NotConnected | io::ErrorKind::PermissionDenied => {
                // Each test may be a process, and none should wait for what another has waited for.
                let _ = store.cache().write(&self.note(store), why);
                if !std::mem::replace(&mut self.state().is_unreadable, true) {
                    notice(&format!("{name} cannot be used, and layers are built: {why}"));
                }
            }
            _ => {
                let mut state = self.state();
                state.missing.insert(digest, Instant::now());
                if state.unusable.insert(digest) {
                    notice(&format!("layer {} of {name} cannot be used, and is built: {why}", short(digest)));
                }
            }
        }
    }

    fn note(&self, store: &Store) -> PathBuf {
        store.cache().path(REGISTRIES).join(blake3::hash(self.place.name().as_bytes()).to_hex().as_str())
    }
}
