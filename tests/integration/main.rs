//! The promises, one file each, on the real kernel and with real servers.

mod admission;
mod applications;
mod asking;
mod attribute;
mod contention;
mod conventions;
mod drivers;
mod errors;
mod filesystems;
mod fixtures;
mod full;
mod hardening;
mod integrity;
mod isolation;
mod layers;
mod lifecycle;
mod limits;
mod lookups;
mod machine;
mod pristine;
mod refused;
mod scarce;
mod seeds;
mod steps;
mod tcp;
mod upkeep;
