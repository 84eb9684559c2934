use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db(seed = "a.sql", seed = "b.sql")]
fn a_test(_: Sandbox) {}

#[sandboxed_db(settings(work_mem = "1MB", work_mem = "2MB"))]
fn another(_: Sandbox) {}

fn main() {}
