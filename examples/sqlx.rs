//! Tests with sqlx.
//!
//! A test takes a `PgPool`.
//!
//! Run it by `cargo test -p sandboxed-db-examples --features sqlx --test sqlx`.

use sandboxed_db::{Sandbox, sandboxed_db};
use sqlx::PgPool;

#[sandboxed_db(seed = "orders.sql")]
async fn an_order_is_stored(pool: PgPool) -> sqlx::Result<()> {
    sqlx::query("insert into orders (article) values ('tea')").execute(&pool).await?;
    let orders: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(&pool).await?;
    assert_eq!(orders, 1);
    Ok(())
}

/// Takes the sandbox beside the pool, to stop the server.
#[sandboxed_db]
async fn a_lost_database_is_an_error(db: Sandbox, pool: PgPool) -> sandboxed_db::Result<()> {
    db.stop()?;
    assert!(sqlx::query("select 1").execute(&pool).await.is_err());
    Ok(())
}
