//! Tests with diesel.
//!
//! A test takes a `PgConnection` by value, a connection to its own server. Commits vanish with the
//! server, so that `test_transaction` is not needed.
//!
//! Run it by `cargo test -p sandboxed-db-examples --features diesel --test diesel`.

use diesel::connection::{Connection as _, SimpleConnection as _};
use diesel::prelude::*;
use sandboxed_db::sandboxed_db;
use schema::orders;

mod schema {
    diesel::table! {
        orders (id) {
            id -> Integer,
            article -> Text,
        }
    }
}

#[derive(Debug, PartialEq, Queryable, Selectable)]
struct Order {
    id: i32,
    article: String,
}

fn place(connection: &mut PgConnection, article: &str) -> QueryResult<Order> {
    diesel::insert_into(orders::table)
        .values(orders::article.eq(article))
        .returning(Order::as_returning())
        .get_result(connection)
}

#[sandboxed_db(seed = "orders.sql")]
fn an_order_is_stored(mut connection: PgConnection) -> QueryResult<()> {
    let placed = place(&mut connection, "tea")?;
    let stored: Vec<Order> = orders::table.load(&mut connection)?;
    assert_eq!(stored, [placed]);
    Ok(())
}

/// Commits on one connection and reads on the other.
#[sandboxed_db(seed = "orders.sql")]
fn another_session_sees_commits(mut clerk: PgConnection, mut customer: PgConnection) -> QueryResult<()> {
    clerk.transaction(|clerk| {
        place(clerk, "milk")?;
        assert_eq!(orders::table.count().get_result::<i64>(&mut customer)?, 0);
        QueryResult::Ok(())
    })?;
    assert_eq!(orders::table.count().get_result::<i64>(&mut customer)?, 1);
    clerk.batch_execute("drop table orders")
}
