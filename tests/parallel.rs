//! Tests in parallel, each of which changes as much of its database server as it can.

use std::error::Error;
use std::process::Command;

use postgres::NoTls;
use sandboxed_db::{Sandbox, sandboxed_db};
use sandboxed_db_tests::{DEADLINE, connect, is_exhaustive, wait_until};

/// Everything that another test could have left, in one line.
const STATE: &str = "
    select concat_ws('; ',
        (select count(*) from customers) || ' customers',
        (select count(*) from order_items) || ' order items',
        (select count(*) from stock_movements) || ' stock movements',
        (select count(*) from orders where note = 'ruined') || ' ruined orders',
        (select count(*) from pg_tables where schemaname = 'public') || ' tables',
        'loot: ' || coalesce(to_regclass('public.loot')::text, 'none'),
        'roles: ' || (select string_agg(rolname, ' ' order by rolname) from pg_roles where rolname !~ '^pg_'),
        'databases: ' || (select string_agg(datname, ' ' order by datname) from pg_database),
        (select count(*) from pg_largeobject_metadata) || ' large objects',
        (select count(*) from pg_locks where locktype = 'advisory') || ' advisory locks',
        'work_mem ' || current_setting('work_mem'))";

const PRISTINE: &str = "2500 customers; 6536 order items; 9767 stock movements; 0 ruined orders; 22 tables; loot: none; \
    roles: postgres; databases: postgres template0 template1; 0 large objects; 0 advisory locks; work_mem 4MB";

/// One statement each, since some cannot share a transaction.
const RUIN: [&str; 10] = [
    "delete from order_items",
    "update orders set note = 'ruined'",
    "drop table reviews, shipments cascade",
    "create table loot as select i, md5(i::text) from generate_series(1, 1000) i",
    "create role intruder superuser",
    "create database loot",
    "select lo_create(4711)",
    "select pg_advisory_lock(4711)",
    "alter system set work_mem = '1MB'",
    "select pg_reload_conf()",
];

const RUINED: &str = "2500 customers; 0 order items; 9767 stock movements; 3000 ruined orders; 21 tables; loot: loot; \
    roles: intruder postgres; databases: loot postgres template0 template1; 1 large objects; 1 advisory locks; \
    work_mem 1MB";

/// Expects the pristine database, and ruins it. The second state proves that ruins would be found.
fn ruin(url: &str) -> Result<(), postgres::Error> {
    let mut client = connect(url);
    let mut state = || -> Result<String, postgres::Error> { Ok(client.query_one(STATE, &[])?.get(0)) };
    assert_eq!(state()?, PRISTINE);
    for statement in RUIN {
        client.batch_execute(statement)?;
    }
    // The server reloads asynchronously.
    wait_until(DEADLINE, "the new setting holds", || {
        let row = client.query_one("show work_mem", &[]).unwrap();
        row.get::<_, &str>(0) == "1MB"
    });
    let state: String = client.query_one(STATE, &[])?.get(0);
    assert_eq!(state, RUINED);
    Ok(())
}

async fn ruin_async(url: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let state: String = client.query_one(STATE, &[]).await?.get(0);
    assert_eq!(state, PRISTINE);
    for statement in RUIN {
        client.batch_execute(statement).await?;
    }
    let reloaded = async {
        while client.query_one("show work_mem", &[]).await.unwrap().get::<_, &str>(0) != "1MB" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, reloaded).await.expect("the new setting holds");
    let state: String = client.query_one(STATE, &[]).await?.get(0);
    assert_eq!(state, RUINED);
    drop(client);
    connection.await.expect("the connection's task does not panic")
}

macro_rules! tests {
    ($(#[$attribute:meta])*) => {
        #[sandboxed_db(migrations = "../fixtures/sql/shop/migrations", seed = "../fixtures/sql/shop/seed.sql")]
        $(#[$attribute])*
        fn a_test_that_owns_its_sandbox_has_it_alone(db: Sandbox) {
            ruin(db.url()).unwrap();
        }

        #[sandboxed_db(migrations = "../fixtures/sql/shop/migrations", seed = "../fixtures/sql/shop/seed.sql")]
        $(#[$attribute])*
        fn a_test_that_borrows_its_sandbox_has_it_alone(db: &Sandbox) {
            ruin(db.url()).unwrap();
        }

        #[sandboxed_db(migrations = "../fixtures/sql/shop/migrations", seed = "../fixtures/sql/shop/seed.sql")]
        $(#[$attribute])*
        fn a_test_that_takes_the_url_has_its_server_alone(url: String) {
            ruin(&url).unwrap();
        }

        #[sandboxed_db(migrations = "../fixtures/sql/shop/migrations", seed = "../fixtures/sql/shop/seed.sql")]
        $(#[$attribute])*
        fn a_test_that_stops_its_server_stops_no_other(db: Sandbox) -> Result<(), Box<dyn Error>> {
            ruin(db.url())?;
            Ok(db.stop()?)
        }

        #[sandboxed_db(migrations = "../fixtures/sql/shop/migrations", seed = "../fixtures/sql/shop/seed.sql")]
        $(#[$attribute])*
        async fn an_async_test_that_owns_its_sandbox_has_it_alone(db: Sandbox) {
            ruin_async(db.url()).await.unwrap();
        }

        #[sandboxed_db(migrations = "../fixtures/sql/shop/migrations", seed = "../fixtures/sql/shop/seed.sql")]
        $(#[$attribute])*
        async fn an_async_test_that_borrows_its_sandbox_has_it_alone(
            db: &Sandbox,
        ) -> Result<(), tokio_postgres::Error> {
            ruin_async(db.url()).await
        }

        #[sandboxed_db(migrations = "../fixtures/sql/shop/migrations", seed = "../fixtures/sql/shop/seed.sql")]
        $(#[$attribute])*
        async fn an_async_test_that_takes_the_url_has_its_server_alone(url: String) {
            ruin_async(&url).await.unwrap();
        }

        #[sandboxed_db(migrations = "../fixtures/sql/shop/migrations", seed = "../fixtures/sql/shop/seed.sql")]
        $(#[$attribute])*
        async fn an_async_test_that_stops_its_server_stops_no_other(db: Sandbox) -> Result<(), Box<dyn Error>> {
            ruin_async(db.url()).await?;
            Ok(db.stop()?)
        }
    };
}

macro_rules! groups {
    ($tests:tt $($group:ident)*) => {$(
        mod $group {
            use super::*;
            tests! $tests
        }
    )*};
}

groups! { {} a b c }

/// With the groups above there are two hundred tests.
mod many {
    use super::*;

    groups! { {#[ignore = "run by `all_groups_run_in_parallel`"]} d e f g h i j k l m n o p q r s t u v w x y }
}

#[test]
fn all_groups_run_in_parallel() {
    if !is_exhaustive("runs 176 tests") {
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--ignored", "many::"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("176 passed"), "{text}");
}
