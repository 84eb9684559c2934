// Only the compiler knows the type. See `missing_file.rs` for `rstest`.
use rstest::fixture as rstest;
use sandboxed_db::sandboxed_db;
use sqlx::PgPool as Db;

#[sandboxed_db]
#[rstest]
async fn test_of_a_pool(_: Db) {}

fn main() {}
