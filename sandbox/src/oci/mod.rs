//! Images of the Open Container Initiative and of Docker: read, checked, and unpacked once into the
//! cache by an ordinary user.

#[cfg(feature = "registries")]
mod credentials;
mod digest;
mod documents;
mod listing;
mod reference;
#[cfg(feature = "registries")]
mod registry;
mod source;
mod store;
#[cfg(feature = "registries")]
mod tls;
mod tree;
mod unpack;

pub(crate) use reference::Reference;
pub(crate) use store::{Images, obtain};
