//! Images of the Open Container Initiative and of Docker: read, checked, and unpacked once into the
//! cache by an ordinary user.

#[cfg(feature = "registries")]
mod challenge;
#[cfg(feature = "registries")]
mod credential_helper;
#[cfg(feature = "registries")]
mod credentials;
mod digest;
mod documents;
#[cfg(test)]
mod hostile_tests;
#[cfg(feature = "registries")]
mod names;
#[cfg(feature = "registries")]
mod pins;
mod reference;
#[cfg(feature = "registries")]
mod registry;
#[cfg(feature = "registries")]
mod repository;
#[cfg(feature = "registries")]
mod requests;
mod source;
mod states;
mod store;
#[cfg(feature = "registries")]
mod tls;
mod tree;
mod unpack;

#[cfg(feature = "registries")]
pub(crate) use digest::{Hashed, HashedWriter, Sha256};
#[cfg(feature = "registries")]
pub(crate) use documents::{LARGEST as LARGEST_DOCUMENT, architecture};
#[cfg(feature = "registries")]
pub(crate) use names::update;
pub(crate) use reference::Reference;
#[cfg(feature = "registries")]
pub(crate) use reference::RegistryReference;
#[cfg(feature = "registries")]
pub(crate) use repository::{Blob, Repository};
pub(crate) use store::{NewNames, images, obtain};
