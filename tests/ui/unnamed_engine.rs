// PostgreSQL is the default, except where it would be a guess.
use sandboxed_db::{Redis, Sandbox, Tcp, sandboxed_db};

#[sandboxed_db(cache(engine = Redis))]
fn of_the_common_database(url: String, cache: Sandbox<Redis>) {}

#[sandboxed_db(tcp(seed = "server_lists.rs"), cache(engine = Redis::new()))]
fn of_a_list(tcp: &Tcp, cache: String) {}

fn main() {}
