#![doc = include_str!("../../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cache;
mod engine;
mod error;
#[doc(hidden)]
pub mod harness;
mod launch;
mod layer;
mod sandbox;
mod snapshot;
mod step;
#[expect(unsafe_code, reason = "system calls that no safe library offers")]
mod sys;

pub use engine::{Engine, Installation, Postgres, ScriptError, Server};
pub use error::{Error, ErrorKind, Result};
pub use launch::Command;
pub use sandbox::{Sandbox, Timings};
pub use snapshot::Snapshot;

#[cfg(feature = "macros")]
pub use sandboxed_db_macros::sandboxed_db;
