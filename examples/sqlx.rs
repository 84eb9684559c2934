//! Tests with sqlx: the type of the parameter is all there is to say.
//!
//! Run it with `cargo test -p sandboxed-db-examples --features sqlx --test sqlx`.

use rstest::rstest;
use sandboxed_db::{Sandbox, sandboxed_db};
use sqlx::PgPool;

#[sandboxed_db(seed = "orders.sql")]
async fn an_order_is_kept(pool: PgPool) -> sqlx::Result<()> {
    sqlx::query("insert into orders (article) values ('tea')").execute(&pool).await?;
    let orders: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(&pool).await?;
    assert_eq!(orders, 1);
    Ok(())
}

/// The sandbox beside the pool: what happens when the database goes away?
#[sandboxed_db]
async fn a_lost_database_is_noticed(db: Sandbox, pool: PgPool) -> sandboxed_db::Result<()> {
    db.stop()?;
    assert!(sqlx::query("select 1").execute(&pool).await.is_err());
    Ok(())
}

/// Each case has a server of its own; the attribute stands above rstest's.
#[sandboxed_db(seed = "orders.sql", flavor = "multi_thread")]
#[rstest]
#[case("tea")]
#[case("a cup of 'tea'")]
async fn any_article_can_be_ordered(pool: PgPool, #[case] article: &str) -> sqlx::Result<()> {
    let insert = sqlx::query_scalar("insert into orders (article) values ($1) returning article");
    let kept: String = insert.bind(article).fetch_one(&pool).await?;
    assert_eq!(kept, article);
    Ok(())
}
