use sandboxed_db::sandboxed_db;

#[sandboxed_db]
fn a_test() {}

fn main() {}
