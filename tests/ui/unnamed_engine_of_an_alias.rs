// Only the compiler knows the type. See `missing_file.rs` for `rstest`.
use rstest::fixture as rstest;
use sandboxed_db::{Redis, Sandbox, sandboxed_db};

type Url = String;

#[sandboxed_db(cache(engine = Redis))]
#[rstest]
fn a_test(_: Sandbox, _: Url, cache: String) {
    drop(cache);
}

fn main() {}
