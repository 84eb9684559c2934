use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db(start_timeout = "soon")]
fn a_word(_: Sandbox) {}

#[sandboxed_db(start_timeout = 30s)]
fn without_quotes(_: Sandbox) {}

#[sandboxed_db(start_timeout = 0)]
fn zero(_: Sandbox) {}

fn main() {}
