use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db]
fn of_a_type<T>(db: T) {}

#[sandboxed_db]
fn of_a_lifetime<'a>(db: &'a Sandbox) {}

#[sandboxed_db]
fn of_something(db: impl AsRef<str>) {}

fn main() {}
