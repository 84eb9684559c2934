//! Every driver and client accepts the URL of a sandbox unchanged, and finds the expected database.

use std::path::PathBuf;
use std::process::{Command, Output};

use diesel::sql_types::Text;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use rstest::rstest;
use sandboxed_db::{Postgres, Sandbox, Snapshot};
use sandboxed_db_fixtures::shop_snapshot;
use sandboxed_db_tests::{column, connect, program, skip, start, value, value_at};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

fn shop() -> Sandbox {
    shop_snapshot().start().unwrap()
}

/// Returns the output of a program that must succeed and print no error.
fn printed(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{}: {complaint}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs `psql -c` without the user's configuration.
fn psql(program: &PathBuf, url: &str, query: &str) -> String {
    let output = Command::new(program)
        .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", query, url])
        .output()
        .unwrap();
    printed(&output).trim_end_matches('\n').to_owned()
}

// Names of databases.

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

const CURRENT: &str = "select current_database()::text as name";

#[rstest]
#[case::upper_case("Shop")]
#[case::spaces(" my  shop ")]
#[case::any_script("Größe データ 🐘")]
#[case::escapes(r#"a=b&c?d#e%20/f:g@h"i'j\k;l"#)]
fn all_drivers_reach_a_database_whose_name_has(#[case] name: &str) {
    let db = Snapshot::new(Postgres::new().database(name)).start().unwrap();
    let url = db.url();

    let by_postgres: String = value_at(url, CURRENT);
    assert_eq!(by_postgres, name);

    let mut connection = PgConnection::establish(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    let by_diesel = sql_query(CURRENT).get_result::<Name>(&mut connection).unwrap().name;
    assert_eq!(by_diesel, name);

    let by_sqlx = async {
        let options: PgConnectOptions = url.parse().unwrap();
        let pool = PgPoolOptions::new().connect_with(options).await.unwrap();
        sqlx::query_scalar::<_, String>(CURRENT).fetch_one(&pool).await.unwrap()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(by_sqlx), name);

    if let Some(program) = program(&db, "psql") {
        assert_eq!(psql(&program, url, CURRENT), name);
    }
}

#[test]
fn existing_databases_are_not_overwritten() {
    let error = Snapshot::new(Postgres::new().database("template1")).start().unwrap_err();
    let report = format!("{error:?}");
    assert!(report.contains("database \"template1\" already exists"), "{report}");
}

// PostgreSQL's own programs.

/// The output of pg_dump(1), without the key by which newer versions protect against hostile dumps.
fn dump(program: &PathBuf, url: &str) -> String {
    let output = Command::new(program).args(["--create", url]).output().unwrap();
    let dump = printed(&output);
    let lines =
        dump.lines().filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn pg_dump_prints_the_same_for_all_sandboxes() {
    let (one, other) = (shop(), shop());
    let Some(program) = program(&one, "pg_dump") else { return };
    let first = dump(&program, one.url());
    assert!(first.contains("CREATE TABLE public.customers") && first.len() > 1_000_000, "{}", first.len());
    let same = |dump: &str, what: &str| {
        let different = first.lines().zip(dump.lines()).find(|(one, other)| one != other);
        assert!(first == dump, "{what}: {different:?}");
    };
    same(&dump(&program, one.url()), "the same sandbox again");
    same(&dump(&program, other.url()), "another sandbox");
    // A difference would show.
    connect(other.url()).batch_execute("update customers set last_name = 'X' where id = 1250").unwrap();
    assert!(first != dump(&program, other.url()));
}

#[test]
fn a_dump_can_be_restored_into_another_sandbox() {
    let (from, to) = (shop(), start());
    let (Some(pg_dump), Some(psql)) = (program(&from, "pg_dump"), program(&from, "psql")) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.sql");
    let output =
        Command::new(pg_dump).arg("--create").arg("--file").arg(&file).arg(from.url()).output().unwrap();
    printed(&output);
    let output = Command::new(&psql)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"])
        .arg(&file)
        .arg(to.url())
        .output()
        .unwrap();
    printed(&output);
    let restored = to.url().replace("/postgres?", "/shop?");
    let items: i64 = value_at(&restored, "select count(*) from order_items");
    assert_eq!(items, 6536);
}

#[test]
fn amcheck_finds_no_corruption() {
    let db = shop();
    let mut client = connect(db.url());
    if client.batch_execute("create extension amcheck").is_err() {
        return skip("the extension amcheck is not installed");
    }
    let indexes = client
        .query(
            "select c.oid::regclass::text, bt_index_parent_check(c.oid, true, true)::text
             from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
             where a.amname = 'btree' and i.indisready and i.indisvalid and c.relpersistence = 'p'",
            &[],
        )
        .unwrap();
    assert!(indexes.len() > 150, "only {} indexes", indexes.len());
    // The option exists since version 14.
    if value::<Option<String>>(&mut client, "select to_regproc('verify_heapam')::text").is_none() {
        return;
    }
    let corrupt: Vec<String> = column(
        &mut client,
        "select c.relname::text || ': ' || v.msg from pg_class c, lateral verify_heapam(c.oid) v
         where c.relkind in ('r', 'm', 't') and c.relpersistence = 'p'",
    );
    assert!(corrupt.is_empty(), "{corrupt:?}");
}
