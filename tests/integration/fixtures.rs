//! The fixtures return the databases that their names promise.

use rstest::{fixture, rstest};
use sandboxed_db::{ConnectInfo, FromSandbox, Postgres, Sandbox, Snapshot};
use sandboxed_db_fixtures::{
    Connected, FromSnapshot, fresh, shop, shop_async, shop_schema, shop_schema_async,
};
use sandboxed_db_tests::{DEADLINE, alone, assert_says, connect, failed, value_at, wait_until};

use crate::attribute::answer_async;

fn count(db: &Sandbox, table: &str) -> i64 {
    value_at(db.url(), &format!("select count(*) from {table}"))
}

#[rstest]
fn the_shop_has_its_rows(shop: Sandbox) {
    for (table, rows) in
        [("customers", 2500), ("orders", 3000), ("order_items", 6536), ("stock_movements", 9767)]
    {
        assert_eq!(count(&shop, table), rows, "{table}");
    }
}

#[rstest]
#[case::one(1)]
#[case::other(2)]
fn each_case_has_a_shop_of_its_own(shop: Sandbox, #[case] id: i64) {
    connect(shop.url()).execute("delete from reviews where product_id = $1", &[&id]).unwrap();
    let others = count(&shop, &format!("reviews where product_id <> {id}"));
    assert_eq!(count(&shop, "reviews"), others);
    assert_eq!(count(&shop, "orders"), 3000);
}

#[rstest]
fn the_schema_has_no_rows(shop_schema: Sandbox) {
    assert_eq!(count(&shop_schema, "customers"), 0);
}

#[rstest]
fn a_fresh_server_has_no_tables(fresh: Sandbox) {
    assert_eq!(count(&fresh, "pg_tables where schemaname = 'public'"), 0);
}

#[rstest]
#[tokio::test]
async fn the_shop_starts_without_blocking(#[future] shop_async: Sandbox) {
    let db = shop_async.await;
    assert_eq!(answer_async(db.url(), "select order_total(2)::text").await.unwrap(), "419.16");
}

// Connections with their servers. Drivers: `connections.rs`.

#[rstest]
fn the_parameter_type_chooses(shop: Connected<String>, #[from(shop_schema)] other: Connected<ConnectInfo>) {
    assert_eq!(*shop, shop.sandbox().url());
    assert_eq!((&*other.database, &*other.url), ("shop", other.sandbox().url()));
    assert_ne!(shop.sandbox().pid(), other.sandbox().pid());
}

#[rstest]
#[tokio::test]
async fn the_parameter_type_chooses_in_async_tests(#[future(awt)] shop_schema_async: Connected<String>) {
    assert_eq!(*shop_schema_async, shop_schema_async.sandbox().url());
}

/// Checks that the server still runs when this is dropped.
struct Last(String);

impl FromSandbox for Last {
    type Error = std::convert::Infallible;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
        Ok(Self(sandbox.url().to_owned()))
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        drop(connect(&self.0));
    }
}

#[rstest]
fn a_server_ends_after_its_connection(fresh: Connected<Last>) {
    let pid = fresh.sandbox().pid();
    drop(fresh);
    let process = std::path::PathBuf::from(format!("/proc/{pid}"));
    wait_until(DEADLINE, "the sandbox is gone", || !process.exists());
}

// Fixtures of a suite.

#[fixture]
fn notes<T: FromSnapshot>(#[default("one")] seed: &str) -> T {
    let schema = Snapshot::new(Postgres::new()).migrations("data/notes/migrations");
    T::from_snapshot(&schema.seed(format!("data/notes/{seed}.sql")))
}

#[rstest]
fn a_suite_defines_fixtures(notes: Sandbox, #[from(notes)] other: Connected<String>) {
    assert_eq!(count(&notes, "notes where body = 'one'"), 1);
    assert_eq!(count(other.sandbox(), "notes where body = 'one'"), 1);
}

#[rstest]
#[ignore = "fails, run by `a_failing_fixture_reports_the_cause`"]
fn lacks_its_seed(#[with("none")] notes: Sandbox) {
    drop(notes);
}

struct Refuses;

impl FromSandbox for Refuses {
    type Error = std::io::Error;

    async fn from_sandbox(_: &Sandbox) -> Result<Self, Self::Error> {
        Err(std::io::Error::other("it does not want to"))
    }
}

#[rstest]
#[ignore = "fails, run by `a_failing_fixture_reports_the_cause`"]
fn refuses(fresh: Connected<Refuses>) {
    drop(fresh);
}

#[test]
fn a_failing_fixture_reports_the_cause() {
    let text = failed(&mut alone("fixtures::lacks_its_seed"));
    assert_says(&text, &["could not read `", "data/notes/none.sql`"]);
    let text = failed(&mut alone("fixtures::refuses"));
    assert_says(&text, &["`integration::fixtures::Refuses` from the sandbox: it does not want to"]);
}
