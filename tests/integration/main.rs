//! The promises, one file each, on the real kernel and with real servers.

mod applications;
mod asking;
mod attribute;
mod conventions;
mod drivers;
mod errors;
mod fixtures;
mod hardening;
mod integrity;
mod isolation;
mod layers;
mod lifecycle;
mod limits;
mod pristine;
mod seeds;
mod steps;
mod upkeep;
