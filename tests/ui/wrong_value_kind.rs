use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db(migrations, seed = 5, settings = "none")]
fn a_test(_: Sandbox) {}

#[sandboxed_db(seed = [], settings(work_mem = 64MB))]
fn another(_: Sandbox) {}

fn main() {}
