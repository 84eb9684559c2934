//! Layers: data directories that never change, built once from the steps of a snapshot and found by
//! digest.

mod build;
mod digest;
mod history;
mod lookup;
mod manifest;
mod published;
#[cfg(feature = "registries")]
mod registry;
#[cfg(not(feature = "registries"))]
#[path = "no_registry.rs"]
mod registry;
mod run;
mod seal;
mod store;
mod upkeep;

pub(crate) use build::{Recipe, name, obtain};
pub(crate) use published::Layer;
#[cfg(feature = "registries")]
pub use registry::Transfer;
pub(crate) use registry::check as check_registry;
pub(crate) use store::{data_of, find, keeping_seal_of};
pub use upkeep::{Damage, LayerInfo, Layers, Limit};
