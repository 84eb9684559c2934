//! Tests code that uses several databases.
//!
//! A parameter that the attribute names has its own database, described in the parentheses. All
//! other parameters share one server.
//!
//! Run it by `cargo test -p sandboxed-db-examples --test several_databases`.

use postgres::{Client, Error};
use sandboxed_db::{Sandbox, sandboxed_db};

/// Moves all orders to the archive: the function under test.
fn archive(shop: &mut Client, archive: &mut Client) -> Result<u64, Error> {
    let mut taken = shop.transaction()?;
    let mut kept = archive.transaction()?;
    let orders = taken.query("delete from orders returning id, article", &[])?;
    for order in &orders {
        let (id, article): (i32, &str) = (order.get(0), order.get(1));
        kept.execute("insert into archived values ($1, $2)", &[&id, &article])?;
    }
    kept.commit()?;
    taken.commit()?;
    Ok(orders.len() as u64)
}

#[sandboxed_db(shop(seed = ["orders.sql", "orders.csv"]), archived(seed = "archive.sql"))]
fn orders_go_to_the_archive(mut shop: Client, mut archived: Client) -> Result<(), Error> {
    assert_eq!(archive(&mut shop, &mut archived)?, 2);
    assert_eq!(archive(&mut shop, &mut archived)?, 0);
    let articles: String =
        archived.query_one("select string_agg(article, ', ' order by id) from archived", &[])?.get(0);
    assert_eq!(articles, "tea, milk");
    Ok(())
}

/// Ends one of the servers: no order may be lost.
#[sandboxed_db(seed = ["orders.sql", "orders.csv"], archive_server(seed = "archive.sql"))]
fn orders_stay_if_the_archive_is_down(mut shop: Client, archive_server: Sandbox) {
    let mut archived = Client::connect(archive_server.url(), postgres::NoTls).unwrap();
    drop(archive_server);
    assert!(archive(&mut shop, &mut archived).is_err());
    let left: i64 = shop.query_one("select count(*) from orders", &[]).unwrap().get(0);
    assert_eq!(left, 2);
}
