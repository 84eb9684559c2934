// The feature for this version is off. The message is the same where another version's is on. See
// `missing_file.rs` for `rstest`.
use rstest::fixture as rstest;
use sandboxed_db::sandboxed_db;

#[sandboxed_db]
#[rstest]
async fn test_of_a_pool(pool: sqlx::PgPool) {
    let _: i32 = sqlx::query_scalar("select 1").fetch_one(&pool).await.unwrap();
}

#[sandboxed_db]
#[rstest]
async fn test_of_a_connection(_: &sqlx::PgConnection, _: String) {}

fn main() {}
