//! How do I test what works on several databases?
//!
//! A parameter that the attribute names has a database of its own, described in its parentheses. All parameters without
//! are made from one common server.
//!
//! Run it with `cargo test -p sandboxed-db-examples --test several_databases`.

use postgres::{Client, Error};
use sandboxed_db::{Sandbox, sandboxed_db};

/// The function under test: moves all orders to where they are archived.
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

/// One of the servers is gone: nothing may be lost. `shop` and `db` are made from the same server.
#[sandboxed_db(seed = ["orders.sql", "orders.csv"], archive_server(seed = "archive.sql"))]
fn orders_stay_where_the_archive_is_gone(mut shop: Client, archive_server: Sandbox) {
    let mut archived = Client::connect(archive_server.url(), postgres::NoTls).unwrap();
    drop(archive_server);
    assert!(archive(&mut shop, &mut archived).is_err());
    let left: i64 = shop.query_one("select count(*) from orders", &[]).unwrap().get(0);
    assert_eq!(left, 2);
}
