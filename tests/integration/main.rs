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
mod integrity;
mod isolation;
mod layers;
mod lifecycle;
mod lookups;
mod machine;
#[cfg(feature = "drivers")]
mod parameters;
mod pristine;
mod refused;
mod scarce;
mod seeds;
mod steps;
mod tcp;
mod upkeep;
