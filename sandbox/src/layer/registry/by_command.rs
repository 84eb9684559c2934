//! Layers that a command pushes and pulls, whose failures are errors.

use std::error::Error as _;
use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::transfer::LayerRepository;
use super::{key, kind, short};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::Layers;
use crate::layer::digest::Digest;
use crate::oci::RegistryReference;
use crate::progress::Progress;
use crate::report::with_causes;

/// How long another process may build or pull the same layer.
const LOCK_LIMIT: Duration = Duration::from_secs(10 * 60);

/// A layer that [`Layers::push`] or [`Layers::pull`] has moved, or could not or need not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Transfer {
    /// The layer.
    pub digest: String,
    /// `true` if the destination had the layer already.
    pub was_there: bool,
    /// The number of bytes that were sent or received.
    pub bytes: u64,
    /// The reason why the layer cannot be moved.
    pub problem: Option<String>,
}

impl Layers {
    /// Pushes layers to a repository, such as `ghcr.io/team/test-layers`, except those that it has
    /// already. Without a tag all layers are pushed, with one the layer whose digest begins with
    /// the tag.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a reference that is no repository, and for a tag with which
    /// the digest of no layer or of several layers begins; [`ErrorKind::Layer`] for a registry that
    /// cannot be used.
    pub fn push(&self, reference: &str) -> Result<Vec<Transfer>> {
        let (place, tag) = open(reference, "push layers to")?;
        let names = self.store.names()?;
        let digests = names.iter().filter_map(|name| name.parse().ok()).collect();
        let digests =
            chosen(digests, tag.as_deref()).map_err(|why| wrong(reference, "push layers to", why))?;
        let push = |digest| {
            let Some(layer) = self.store.intact(digest)? else { return Ok(None) };
            if place.has(digest).map_err(|error| unusable("push layers to", &place, error))? {
                return Ok(Some((true, 0)));
            }
            let progress = Progress::start(&format!("pushing layer {} to {}", short(digest), place.name()));
            Ok(Some((false, place.push(&self.store, &layer, &progress)?)))
        };
        transfers(digests, push)
    }

    /// Pulls layers from a repository, except those that the cache has already. Without a tag all
    /// layers are pulled, with one the layer whose digest begins with the tag.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn pull(&self, reference: &str) -> Result<Vec<Transfer>> {
        let (place, tag) = open(reference, "pull layers from")?;
        let digests = place.digests().map_err(|error| unusable("pull layers from", &place, error))?;
        let digests =
            chosen(digests, tag.as_deref()).map_err(|why| wrong(reference, "pull layers from", why))?;
        let pull = |digest| {
            let _lock = self.store.lock_build(digest, Instant::now() + LOCK_LIMIT, &mut |_| ())?;
            if self.store.intact(digest)?.is_some() {
                return Ok(Some((true, 0)));
            }
            let found = place.find(digest).map_err(|error| {
                Error::new(ErrorKind::Layer, format!("pull the layer {digest} from {}", place.name()))
                    .caused_by(error)
            })?;
            let Some(artifact) = found else { return Ok(None) };
            let progress = Progress::start(&format!("pulling layer {} from {}", short(digest), place.name()));
            let (_, bytes) = place.pull(&self.store, &artifact, &progress)?;
            Ok(Some((false, bytes)))
        };
        transfers(digests, pull)
    }
}

/// Returns a repository, and the tag that stands for one of its layers.
fn open(reference: &str, verb: &str) -> Result<(LayerRepository, Option<String>)> {
    let parsed: RegistryReference = reference.parse().map_err(|why| wrong(reference, verb, why))?;
    if parsed.digest.is_some() {
        return Err(wrong(reference, verb, "a layer is named by its own digest, as a tag".to_owned()));
    }
    let place =
        LayerRepository::of(&parsed, key()?).map_err(|error| wrong(reference, verb, error.to_string()))?;
    Ok((place, parsed.tag))
}

fn wrong(reference: &str, verb: &str, why: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{verb} `{reference}`")).caused_by(why)
}

fn unusable(verb: &str, place: &LayerRepository, error: io::Error) -> Error {
    Error::new(ErrorKind::Layer, format!("{verb} {}", place.name())).caused_by(error)
}

/// Returns all digests, or the one that begins so.
fn chosen(all: Vec<Digest>, beginning: Option<&str>) -> Result<Vec<Digest>, String> {
    let Some(beginning) = beginning else { return Ok(all) };
    let chosen: Vec<_> = all.into_iter().filter(|it| it.to_string().starts_with(beginning)).collect();
    match &chosen[..] {
        [_] => Ok(chosen),
        [] => Err(format!("no layer has a digest that begins with `{beginning}`")),
        several => Err(format!("{} layers have a digest that begins with `{beginning}`", several.len())),
    }
}

/// Moves layers one by one. A layer that cannot be moved stops no other one, but a registry that
/// cannot be used does.
fn transfers(
    digests: Vec<Digest>,
    transfer: impl Fn(Digest) -> Result<Option<(bool, u64)>>,
) -> Result<Vec<Transfer>> {
    let mut done = Vec::new();
    for digest in digests {
        let (was_there, bytes, problem) = match transfer(digest) {
            // It was removed meanwhile.
            Ok(None) => continue,
            Ok(Some((was_there, bytes))) => (was_there, bytes, None),
            Err(error) if is_of_layer(&error) => (false, 0, Some(with_causes(&error))),
            Err(error) => return Err(error),
        };
        done.push(Transfer { digest: digest.to_string(), was_there, bytes, problem });
    }
    Ok(done)
}

/// Returns `true` if another layer may be moved nevertheless.
fn is_of_layer(error: &Error) -> bool {
    let is_of_registry = matches!(kind(error), io::ErrorKind::NotConnected | io::ErrorKind::PermissionDenied);
    error.kind() == ErrorKind::Layer && !is_of_registry && error.source().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_chosen_by_the_beginning_of_its_digest() {
        let digest = |byte: u8| blake3::hash(&[byte]).to_hex().as_str().parse::<Digest>().unwrap();
        let all = vec![digest(1), digest(2)];
        assert_eq!(chosen(all.clone(), None), Ok(all.clone()));
        assert_eq!(chosen(all.clone(), Some(&short(digest(2)))), Ok(vec![digest(2)]));
        assert!(chosen(all.clone(), Some("zz")).unwrap_err().contains("no layer"));
        assert!(chosen(all, Some("")).unwrap_err().contains("2 layers"));
    }
}
