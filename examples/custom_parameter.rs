//! Passes the state of an application to its tests.
//!
//! `FromSandbox` for the state's type is one function, written once for all tests.
//!
//! Run it by `cargo test -p sandboxed-db-examples --test custom_parameter`.

use postgres::{Client, NoTls};
use sandboxed_db::{FromSandbox, Sandbox, sandboxed_db};

/// The state of the application.
struct Shop {
    client: Client,
}

impl Shop {
    fn connect(url: &str) -> Result<Self, postgres::Error> {
        Ok(Self { client: Client::connect(url, NoTls)? })
    }

    fn order(&mut self, article: &str) -> Result<i32, postgres::Error> {
        let row =
            self.client.query_one("insert into orders (article) values ($1) returning id", &[&article])?;
        Ok(row.get(0))
    }
}

impl FromSandbox for Shop {
    type Error = postgres::Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
        Self::connect(sandbox.url())
    }
}

#[sandboxed_db(seed = "orders.sql")]
fn orders_are_numbered(mut shop: Shop) -> Result<(), postgres::Error> {
    assert_eq!(shop.order("tea")?, 1);
    assert_eq!(shop.order("milk")?, 2);
    Ok(())
}

/// The parameter `other` has its own database.
#[sandboxed_db(seed = "orders.sql", other(seed = "orders.sql"))]
fn shops_are_independent(mut shop: Shop, mut other: Shop) -> Result<(), postgres::Error> {
    assert_eq!(shop.order("tea")?, 1);
    assert_eq!(other.order("tea")?, 1);
    Ok(())
}
