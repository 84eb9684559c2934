//! The promises, one file each, on the real kernel and with real servers.

mod admission;
mod applications;
mod attribute;
mod cache_faults;
mod checkouts;
#[cfg(target_arch = "x86_64")]
mod checkpoint;
mod checkpoint_faults;
mod conformance;
#[cfg(feature = "drivers")]
mod connections;
mod contention;
mod conventions;
mod described;
mod discovery;
mod drivers;
mod engines;
mod environment;
mod errors;
mod escape;
mod every_engine;
mod filesystems;
mod fixtures;
mod forwarding;
mod full_disk;
mod hardening;
mod hidden_paths;
mod host_refusals;
#[cfg(feature = "images")]
mod images;
mod integrity;
mod isolation;
mod judged_engine;
mod judges;
mod kept;
mod killed;
#[cfg(feature = "images")]
mod layer_registry;
mod layers;
mod lifecycle;
mod limits;
mod lookups;
mod maintenance;
mod many_sandboxes;
mod mariadb;
mod mariadb_conventions;
mod matrix;
mod migration_tools;
mod mistakes;
#[cfg(feature = "images")]
mod musl;
mod nextest;
mod other_attributes;
mod packages;
#[cfg(feature = "images")]
mod packages_of_images;
mod parameters;
mod paths;
#[cfg(feature = "images")]
mod pinned_images;
mod pool;
mod prelinked;
mod pristine;
mod process_mode;
mod redis;
#[cfg(feature = "images")]
mod registries;
mod relation_cache;
mod report;
mod requests;
mod scarce_resources;
mod seeds;
mod shapes;
mod simulated_host;
mod sqlite;
mod sqlite_conventions;
mod steps;
mod stock;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
