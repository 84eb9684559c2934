//! The fixtures hand out what they say.

use rstest::rstest;
use sandboxed_db::Sandbox;
use sandboxed_db_fixtures::{postgres, shop, shop_async, shop_schema};
use sandboxed_db_tests::connect;

fn count(db: &Sandbox, table: &str) -> i64 {
    connect(db.url()).query_one(&format!("select count(*) from {table}"), &[]).unwrap().get(0)
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
fn a_fresh_server_has_no_tables(postgres: Sandbox) {
    assert_eq!(count(&postgres, "pg_tables where schemaname = 'public'"), 0);
}

#[rstest]
#[tokio::test]
async fn the_shop_comes_without_blocking(#[future] shop_async: Sandbox) {
    let db = shop_async.await;
    let (client, connection) = tokio_postgres::connect(db.url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let row = client.query_one("select order_total(2)::text", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "419.16");
    drop(client);
    connection.await.unwrap().unwrap();
}
