//! Migration tools: how each names, orders and runs its migrations, and the table in which it keeps what it has applied.
//! From the names in a directory to an ordered list, or to a refusal; one file per tool.

mod dbmate;
mod diesel;
mod golang_migrate;
mod order;
mod plain;
mod recognise;
mod refinery;
mod sqlx;
mod tool;

pub(crate) use order::in_order;
pub(crate) use recognise::{by_names, by_sections, mark};
pub use tool::MigrationTool;
pub(crate) use tool::{Listing, Manner, Migration, Refusal};
