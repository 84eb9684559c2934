//! A test that fails, for the recording of its diff.
//!
//! ```sh
//! SANDBOXED_DB_KEEP=on_failure cargo test --test shop
//! sandboxed-db diff a_cancelled_order
//! ```

use postgres::Client;
use sandboxed_db::sandboxed_db;

/// Cancels an order and returns its goods. A join is missing, so that all products get them.
fn cancel(client: &mut Client, order: i32) -> Result<(), postgres::Error> {
    client.execute("update orders set status = 'cancelled' where id = $1", &[&order])?;
    let goods = "update products set stock = stock + quantity from orders where orders.id = $1";
    client.execute(goods, &[&order])?;
    Ok(())
}

#[sandboxed_db(seed = "recordings/shop.sql")]
fn a_cancelled_order_returns_its_goods(mut client: Client) -> Result<(), postgres::Error> {
    cancel(&mut client, 1)?;
    let stock: i64 = client.query_one("select sum(stock) from products", &[])?.get(0);
    assert_eq!(stock, 63 + 3, "the shelves hold the returned goods");
    Ok(())
}
