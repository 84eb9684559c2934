//! How do I test with diesel?
//!
//! A test takes a `PgConnection`, by value: it is the test's own, on a server of its own. What it commits is gone with
//! the test, so nothing needs `test_transaction`.
//!
//! Run it with `cargo test -p sandboxed-db-examples --features diesel --test diesel`.

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
fn an_order_is_kept(mut connection: PgConnection) -> QueryResult<()> {
    let placed = place(&mut connection, "tea")?;
    let kept: Vec<Order> = orders::table.load(&mut connection)?;
    assert_eq!(kept, [placed]);
    Ok(())
}

/// A real commit on one connection, seen by the other.
#[sandboxed_db(seed = "orders.sql")]
fn another_session_sees_what_is_committed(
    mut clerk: PgConnection,
    mut customer: PgConnection,
) -> QueryResult<()> {
    clerk.transaction(|clerk| {
        place(clerk, "milk")?;
        assert_eq!(orders::table.count().get_result::<i64>(&mut customer)?, 0);
        QueryResult::Ok(())
    })?;
    assert_eq!(orders::table.count().get_result::<i64>(&mut customer)?, 1);
    clerk.batch_execute("drop table orders")
}
