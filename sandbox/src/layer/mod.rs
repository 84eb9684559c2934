//! Layers: data directories that never change, built once from the steps of a snapshot and found by
//! digest.

mod build;
mod digest;
mod history;
mod lookup;
mod manifest;
mod published;
mod run;
mod seal;
mod store;
mod upkeep;

pub(crate) use build::{Recipe, name, obtain};
pub(crate) use published::Layer;
pub(crate) use store::{data_of, find, keeping_seal_of};
pub use upkeep::{Damage, LayerInfo, Layers, Limit};
