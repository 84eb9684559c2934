use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db]
fn a_test(db: &mut Sandbox) {}

fn main() {}
