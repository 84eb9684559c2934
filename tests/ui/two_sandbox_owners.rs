use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db]
async fn a_test(one: Sandbox, other: &Sandbox) {}

fn main() {}
