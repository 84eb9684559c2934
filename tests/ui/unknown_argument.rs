use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db(migration = "migrations")]
fn a_test(_: Sandbox) {}

#[sandboxed_db(password = "postgres")]
async fn another(_: Sandbox) {}

fn main() {}
