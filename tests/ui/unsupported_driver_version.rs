// The feature for this version is off. One test reports it for all.
use sandboxed_db::sandboxed_db;
use sqlx::PgPool;

#[sandboxed_db]
async fn test_of_a_pool(pool: PgPool) {
    let _: i32 = sqlx::query_scalar("select 1").fetch_one(&pool).await.unwrap();
}

#[sandboxed_db]
async fn test_of_a_connection(_: &sqlx::PgConnection, _: String) {}

fn main() {}
