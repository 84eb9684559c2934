//! Migration tools: how each names, orders and runs its migrations, and its bookkeeping table. From
//! the names in a directory to an ordered list, or to a refusal; one file per tool. Pure.

mod dbmate;
mod diesel;
mod down;
mod flyway;
mod golang_migrate;
mod goose;
mod node_pg_migrate;
mod order;
mod plain;
mod prisma;
mod recognise;
mod refinery;
mod script;
mod sqlx;
mod tern;
mod tool;

pub(crate) use order::in_order;
pub(crate) use recognise::{by_contents, by_names};
pub(crate) use sqlx::{are_named_by_time, is_dependency as is_sqlx_a_dependency};
pub use tool::MigrationTool;
pub(crate) use tool::{Applied, Listing, Migration, Refusal, Request};
