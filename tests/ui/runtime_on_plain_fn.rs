use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db(flavor = "multi_thread")]
fn a_test(db: Sandbox) {}

#[sandboxed_db(worker_threads = 4)]
async fn another_test(db: Sandbox) {}

fn main() {}
