use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db]
#[test]
fn a_test(_: Sandbox) {}

#[sandboxed_db]
#[tokio::test]
async fn another(_: Sandbox) {}

fn main() {}
