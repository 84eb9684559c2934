use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db(orders(migrations = "orders"), audt(migrations = "audit"), setings(jit = false))]
fn a_test(orders: Sandbox, audit: Sandbox) {}

fn main() {}
