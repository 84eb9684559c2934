//! Combines databases with cases, values and fixtures of rstest.
//!
//! The attribute stands above `#[rstest]`. rstest fills the parameters marked by `#[case]`,
//! `#[values]` or `#[from]`; all others are made from the server of the case. A suite of fixtures
//! can also take the database as a fixture, from `sandboxed-db-fixtures` or written in two lines.
//!
//! Run it by `cargo test -p sandboxed-db-examples --test rstest`.

use postgres::{Client, Error};
use rstest::{fixture, rstest};
use sandboxed_db::{Postgres, Sandbox, Snapshot, sandboxed_db};
use sandboxed_db_fixtures::{Connected, FromSnapshot, shop};

// The attribute above `#[rstest]`.

#[sandboxed_db(seed = "orders.sql")]
#[rstest]
#[case::plain("tea")]
#[case::quoted("a cup of 'tea'")]
fn any_article_can_be_ordered(mut client: Client, #[case] article: &str) -> Result<(), Error> {
    let insert = "insert into orders (article) values ($1) returning id, article";
    let row = client.query_one(insert, &[&article])?;
    // Each case starts without orders.
    assert_eq!((row.get(0), row.get(1)), (1, article));
    Ok(())
}

#[sandboxed_db(seed = "orders.sql")]
#[rstest]
fn many_articles_can_be_ordered(mut client: Client, #[values(1, 100, 10_000)] n: i64) -> Result<(), Error> {
    let insert = "insert into orders (article) select 'tea' from generate_series(1, $1::bigint)";
    assert_eq!(client.execute(insert, &[&n])?, n as u64);
    Ok(())
}

// Databases as fixtures.

/// The sample shop. `Sandbox` is the server alone, `Connected` the server and a connection.
#[rstest]
fn the_catalogue_can_be_emptied(mut shop: Connected<Client>) -> Result<(), Error> {
    shop.batch_execute("truncate products cascade")
}

#[fixture]
fn orders<T: FromSnapshot>() -> T {
    T::from_snapshot(&Snapshot::new(Postgres::new()).seed("orders.sql"))
}

#[rstest]
fn a_server_logs_its_version(orders: Sandbox) {
    assert!(orders.log().unwrap().contains("starting PostgreSQL"));
}

#[rstest]
#[case("tea")]
#[case("milk")]
fn orders_are_numbered(mut orders: Connected<Client>, #[case] article: &str) -> Result<(), Error> {
    let insert = "insert into orders (article) values ($1) returning id";
    assert_eq!(orders.query_one(insert, &[&article])?.get::<_, i32>(0), 1);
    Ok(())
}
