//! How do I test with tokio-postgres?
//!
//! A test takes as many `Client`s as it has sessions to play. Each is connected, and driven by a task of the test's.
//!
//! Run it with `cargo test -p sandboxed-db-examples --test tokio_postgres`.

use sandboxed_db::sandboxed_db;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, IsolationLevel};

#[sandboxed_db(seed = "orders.sql")]
async fn an_order_is_kept(client: Client) -> Result<(), Error> {
    let insert = "insert into orders (article) values ($1) returning id";
    let id: i32 = client.query_one(insert, &[&"tea"]).await?.get(0);
    let kept = client.query_one("select article from orders where id = $1", &[&id]).await?;
    assert_eq!(kept.get::<_, &str>(0), "tea");
    Ok(())
}

/// What only shows where transactions are real: of two sessions one must lose.
#[sandboxed_db(seed = "orders.sql")]
async fn of_two_who_number_orders_one_must_try_again(
    mut one: Client,
    mut other: Client,
) -> Result<(), Error> {
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
