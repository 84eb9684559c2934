//! The promises, one file each, on the real kernel and with real servers.

mod admission;
mod applications;
mod asking;
mod attribute;
mod checkouts;
mod contention;
mod conventions;
mod drivers;
mod errors;
mod escape;
mod filesystems;
mod fixtures;
mod full;
mod hardening;
mod integrity;
mod isolation;
mod kept;
mod killed;
mod layers;
mod lifecycle;
mod limits;
mod lookups;
mod machine;
mod multitude;
#[cfg(feature = "drivers")]
mod parameters;
mod places;
mod pristine;
mod process_mode;
mod refused;
mod scarce;
mod seeds;
mod steps;
mod tcp;
mod timeouts;
mod upkeep;
