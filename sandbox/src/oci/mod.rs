//! Images of the Open Container Initiative and of Docker: read, checked, and unpacked once into the
//! cache by an ordinary user.

mod digest;
mod documents;
mod listing;
mod reference;
mod source;
mod store;
mod tree;
mod unpack;

pub(crate) use reference::Reference;
pub(crate) use store::{Images, obtain};
