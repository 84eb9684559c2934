//! Layers in a registry, where the library is built without the feature `registries`.

use super::digest::Digest;
use super::published::Layer;
use super::store::Store;
use crate::environment::{PUSH, REGISTRY, REGISTRY_KEY};
use crate::error::Result;

/// Refuses variables that need the feature.
pub(crate) fn check() -> Result<()> {
    for variable in [REGISTRY, PUSH, REGISTRY_KEY] {
        if let Some(value) = variable.value().filter(|value| value != "0") {
            return Err(variable
                .refused(&value)
                .caused_by("sandboxed-db is built without its feature `registries`")
                .with_hint(
                    "add the feature, as by `cargo add --dev sandboxed-db --features registries`, or unset the variable",
                ));
        }
    }
    Ok(())
}

pub(super) fn is_used() -> bool {
    false
}

/// A layer in a registry, of which there are none.
pub(super) enum Found {}

impl Found {
    pub(super) fn pull(self, _: &Store) -> Option<Layer> {
        match self {}
    }
}

pub(super) fn look(_: &Store, _: Digest) -> Option<Found> {
    None
}

pub(super) fn push(_: &Store, _: &Layer) {}
