//! Layers: data directories that never change, built once from the steps of a snapshot and found again by digest.

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

pub(crate) use build::{Recipe, obtain};
pub(crate) use published::Layer;
pub(crate) use store::{data_of, find, sealed_again};
pub use upkeep::{Damage, LayerInfo, Layers, Limit};
