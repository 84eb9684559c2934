//! Compares this library with its peers: the same tests on the same machine with the same
//! PostgreSQL, in one run.
//!
//! The conductor (this process) starts a test process for each contestant, and a server for
//! contestants that share one. The contestants then run blocks of tests in turn, so that changes of
//! the machine affect all of them.

mod bubblewrap;
mod conductor;
mod contestant;
mod directories;
#[cfg(feature = "embedded")]
mod embedded;
mod initdb;
mod leftovers;
mod machine;
mod meter;
mod pgtemp;
mod plots;
mod process;
mod promises;
mod report;
mod sandboxed;
mod server;
mod sqlx_test;
mod table;
mod template;
mod worker;
mod workload;

pub(crate) use conductor::{Options, allow_descriptors, measure};
pub(crate) use meter::{Accounting, Meter};
pub(crate) use plots::draw;
pub(crate) use report::Report;
pub(crate) use server::Settings;
pub(crate) use worker::serve;
