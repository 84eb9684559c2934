//! Tests with tokio-postgres.
//!
//! A test takes a `Client` for each session. A task of the test's runtime drives each connection.
//!
//! Run it by `cargo test -p sandboxed-db-examples --test tokio_postgres`.

use sandboxed_db::sandboxed_db;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, IsolationLevel};

#[sandboxed_db(seed = "orders.sql")]
async fn an_order_is_stored(client: Client) -> Result<(), Error> {
    let insert = "insert into orders (article) values ($1) returning id";
    let id: i32 = client.query_one(insert, &[&"tea"]).await?.get(0);
    let stored = client.query_one("select article from orders where id = $1", &[&id]).await?;
    assert_eq!(stored.get::<_, &str>(0), "tea");
    Ok(())
}

/// Needs real transactions: one of two concurrent sessions must fail.
#[sandboxed_db(seed = "orders.sql")]
async fn one_of_two_conflicting_transactions_fails(mut one: Client, mut other: Client) -> Result<(), Error> {
    const NUMBER: &str = "insert into orders (article) select 'no. ' || count(*) from orders";
    let first = one.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
    let second = other.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
    first.batch_execute(NUMBER).await?;
    second.batch_execute(NUMBER).await?;
    first.commit().await?;
    let lost = second.commit().await.unwrap_err();
    assert_eq!(lost.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
    Ok(())
}
