//! This library beside its peers: the same tests, on the same machine and PostgreSQL, in one run, in turn.
//!
//! The conductor (this process) gives each contestant a test process of its own, and a server where it needs one to share.
//! It then goes round: a block of tests by each, and again, so that what changes on the machine meanwhile meets them all.

mod account;
mod bubblewrap;
mod conductor;
mod contestant;
#[cfg(feature = "embedded")]
mod embedded;
mod initdb;
mod killed;
mod machine;
mod pgtemp;
mod place;
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

pub(crate) use conductor::{Options, measure};
pub(crate) use plots::draw;
pub(crate) use report::Report;
pub(crate) use server::Settings;
pub(crate) use worker::serve;
