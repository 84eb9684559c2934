use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db(fixtures("users", "orders"))]
fn test_with_fixtures(db: Sandbox) {}

#[sandboxed_db(migrator = "crate::MIGRATOR")]
fn test_with_a_migrator(db: Sandbox) {}

#[sandboxed_db(migrations = false)]
fn test_without_migrations(db: Sandbox) {}

fn main() {}
