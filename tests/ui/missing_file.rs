// Files are looked for within the test, which only a test program has: so this is what rstest
// finds, by a name for an attribute that leaves it in any program.
use rstest::fixture as rstest;
use sandboxed_db::{Sandbox, sandboxed_db};

#[sandboxed_db(migrations = "source/migrations", seed = ["src/lib.rs", "Cargo.tml"])]
#[rstest]
fn a_test(_: Sandbox) {}

#[sandboxed_db(own(migrations_of(Sqlx, "Cargo.toml")), depends_on = "nowhere")]
#[rstest]
fn another(own: &Sandbox, _: Sandbox) -> sandboxed_db::Result<()> {
    own.log().map(drop)
}

#[sandboxed_db(seed = "nowhere.sql")]
#[rstest]
#[cfg(any())]
fn configured_away(_: Sandbox) {}

fn main() {}
