// See `missing_file.rs` for `rstest`.
use rstest::fixture as rstest;
use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db(migrations_of(sqlx, "."))]
#[rstest]
fn test_of_a_tool(_: Sandbox) {}

#[sandboxed_db(migrations_of = (Alembic, "."))]
#[rstest]
fn test_of_a_tool_of_python(_: Sandbox) {}

fn main() {}
