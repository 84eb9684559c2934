//! Migrations run as the tool runs them that they are written for, and the tool itself finds everything applied.

use std::fs;
use std::path::{Path, PathBuf};

use diesel::Connection as _;
use diesel_migrations::{FileBasedMigrations, MigrationHarness as _};
use postgres::NoTls;
use rstest::rstest;
use sandboxed_db::{ErrorKind, MigrationTool, Postgres, Sandbox, Snapshot};
use sandboxed_db_tests::connect;
use sqlx::Connection as _;
use sqlx::migrate::Migrator;
use tempfile::TempDir;

/// The migrations of `tests/data/conventions`.
fn data(tool: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/conventions").join(tool)
}

fn fresh() -> Snapshot {
    Snapshot::new(Postgres::new())
}

fn lines(db: &Sandbox, query: &str) -> Vec<String> {
    let rows = connect(db.url()).query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// A tool's table as made and as filled, but for times.
fn books(db: &Sandbox, table: &str, times: &str) -> (Vec<String>, Vec<String>) {
    let columns = lines(
        db,
        &format!(
            "select concat_ws(' ', column_name, data_type, character_maximum_length, is_nullable, column_default) \
             from information_schema.columns where table_name = '{table}' order by ordinal_position"
        ),
    );
    let keys = lines(
        db,
        &format!(
            "select conname || pg_get_constraintdef(oid) from pg_constraint where conrelid = '{table}'::regclass"
        ),
    );
    let rows = format!("select (to_jsonb(t) - '{{{times}}}'::text[])::text from {table} t order by version");
    ([columns, keys].concat(), lines(db, &rows))
}

/// All rows, times included.
fn untouched(db: &Sandbox, table: &str) -> Vec<String> {
    lines(db, &format!("select t::text from {table} t order by version"))
}

fn tables(db: &Sandbox) -> Vec<String> {
    lines(db, "select tablename::text from pg_tables where schemaname = 'public' order by 1")
}

/// What the migrations of every tool here are to leave.
#[track_caller]
fn assert_migrated(db: &Sandbox) {
    assert_eq!(lines(db, "select name from authors order by 1"), ["Ada", "Grace"]);
    assert_eq!(
        lines(db, "select indexname::text from pg_indexes where indexname = 'notes_by_text'").len(),
        1
    );
    assert_eq!(lines(db, "select count(*)::text from notes"), ["0"]);
}

#[test]
fn sqlx_finds_everything_applied() {
    const TABLE: &str = "_sqlx_migrations";
    const TIMES: &str = "installed_on,execution_time";
    let db = fresh().migrations_of(MigrationTool::Sqlx, data("sqlx")).start().unwrap();
    assert_migrated(&db);
    let measured = "select (min(execution_time) > 0)::text from _sqlx_migrations";
    assert_eq!(lines(&db, measured), ["true"]);
    let before = untouched(&db, TABLE);
    let own = fresh().start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let migrator = runtime.block_on(Migrator::new(data("sqlx"))).unwrap();
    let connection = |db: &Sandbox| runtime.block_on(sqlx::PgConnection::connect(db.url())).unwrap();
    runtime.block_on(migrator.run(&mut connection(&db))).unwrap();
    assert_eq!(untouched(&db, TABLE), before);
    runtime.block_on(migrator.run(&mut connection(&own))).unwrap();
    assert_eq!(books(&db, TABLE, TIMES), books(&own, TABLE, TIMES));
    // A migration of another content is one that sqlx complains of: it does compare.
    connect(db.url()).batch_execute("update _sqlx_migrations set checksum = '' where version = 2").unwrap();
    let error = runtime.block_on(migrator.run(&mut connection(&db))).unwrap_err();
    assert_eq!(error.to_string(), "migration 2 was previously applied but has been modified");
}

#[test]
fn diesel_finds_everything_applied() {
    const TABLE: &str = "__diesel_schema_migrations";
    let db = fresh().migrations(data("diesel")).start().unwrap();
    assert_migrated(&db);
    let before = untouched(&db, TABLE);
    let own = fresh().start().unwrap();
    let source = || FileBasedMigrations::from_path(data("diesel")).unwrap();
    let mut connection = diesel::PgConnection::establish(db.url()).unwrap();
    assert!(!connection.has_pending_migration(source()).unwrap());
    assert!(connection.run_pending_migrations(source()).unwrap().is_empty());
    let mut judge = diesel::PgConnection::establish(own.url()).unwrap();
    assert_eq!(judge.run_pending_migrations(source()).unwrap().len(), 3);
    assert_eq!(untouched(&db, TABLE), before);
    assert_eq!(books(&db, TABLE, "run_on"), books(&own, TABLE, "run_on"));
    // And can be taken back by it.
    assert_eq!(connection.revert_all_migrations(source()).unwrap().len(), 3);
}

#[test]
fn refinery_finds_everything_applied() {
    const TABLE: &str = "refinery_schema_history";
    let db = fresh().migrations(data("refinery")).start().unwrap();
    assert_migrated(&db);
    let before = untouched(&db, TABLE);
    let own = fresh().start().unwrap();
    let migrations = refinery::load_sql_migrations(data("refinery")).unwrap();
    let runner = refinery::Runner::new(&migrations);
    let mut connection = postgres::Client::connect(db.url(), NoTls).unwrap();
    assert!(runner.run(&mut connection).unwrap().applied_migrations().is_empty());
    assert_eq!(runner.get_applied_migrations(&mut connection).unwrap(), migrations);
    let mut judge = postgres::Client::connect(own.url(), NoTls).unwrap();
    assert_eq!(runner.run(&mut judge).unwrap().applied_migrations().len(), 3);
    assert_eq!(untouched(&db, TABLE), before);
    assert_eq!(books(&db, TABLE, "applied_on"), books(&own, TABLE, "applied_on"));
}

#[test]
fn golang_migrate_has_the_last_version_in_its_table() {
    let db = fresh().migrations_of(MigrationTool::GolangMigrate, data("golang")).start().unwrap();
    assert_eq!(tables(&db), ["authors", "notes", "schema_migrations"]);
    let (table, rows) = books(&db, "schema_migrations", "");
    assert_eq!(
        table,
        ["version bigint NO", "dirty boolean NO", "schema_migrations_pkeyPRIMARY KEY (version)"]
    );
    assert_eq!(rows, [r#"{"dirty": false, "version": 2}"#]);
}

#[test]
fn dbmate_has_all_versions_in_its_table() {
    let db = fresh().migrations(data("dbmate")).start().unwrap();
    assert_migrated(&db);
    let (table, rows) = books(&db, "schema_migrations", "");
    assert_eq!(table, ["version character varying NO", "schema_migrations_pkeyPRIMARY KEY (version)"]);
    let row = |version: &str| format!(r#"{{"version": "{version}"}}"#);
    assert_eq!(rows, [row("20240101000000"), row("20240201000000"), row("20240301000000")]);
}

/// What sqlx and golang-migrate share with many others is run in its order, and nothing is put into the database.
#[test]
fn files_that_could_be_anybodys_leave_no_books() {
    let db = fresh().migrations(data("golang")).start().unwrap();
    assert_eq!(tables(&db), ["authors", "notes"]);
    let directory = directory(&[
        ("1_t.sql", "create table t (x int);"),
        ("2_index.sql", "create index concurrently on t (x);"),
        ("10_drop.up.sql", "alter table t drop column x;"),
        ("10_drop.down.sql", "nonsense;"),
    ]);
    let db = fresh().migrations(directory.path()).start().unwrap();
    assert_eq!(tables(&db), ["t"]);
    // In the order of names `10_drop` would come first.
    let error = fresh().migrations_of(MigrationTool::Plain, directory.path()).start().unwrap_err();
    assert!(format!("{error:?}").contains("relation \"t\" does not exist"), "{error:?}");
}

#[test]
fn a_migration_that_is_added_is_the_only_one_to_run() {
    let directory = directory(&[(
        "1_t.sql",
        "create table t (at timestamptz default now()); insert into t default values;",
    )]);
    let snapshot = fresh().migrations_of(MigrationTool::Sqlx, directory.path());
    let times = "select at::text from t";
    let first = lines(&snapshot.start().unwrap(), times);
    fs::write(directory.path().join("2_u.sql"), "create table u ();").unwrap();
    let db = snapshot.start().unwrap();
    assert_eq!(lines(&db, times), first);
    assert_eq!(lines(&db, "select version::text from _sqlx_migrations order by version"), ["1", "2"]);
}

/// `metadata.toml` is no file that is run, and yet makes another layer.
#[test]
fn what_a_tool_is_told_beside_the_file_counts() {
    let sql = "create table t (x int);\ncreate index concurrently on t (x);\n";
    let directory = directory(&[("1_t/up.sql", sql)]);
    let snapshot = fresh().migrations(directory.path());
    let report = format!("{:?}", snapshot.start().unwrap_err());
    assert!(
        report.contains("up.sql:2`") && report.contains("cannot run inside a transaction block"),
        "{report}"
    );
    assert!(report.contains("hint: `MigrationTool` tells how a migration is kept out"), "{report}");
    fs::write(directory.path().join("1_t/metadata.toml"), "run_in_transaction = false\n").unwrap();
    assert_eq!(tables(&snapshot.start().unwrap()), ["__diesel_schema_migrations", "t"]);
}

#[test]
fn an_error_in_a_section_is_told_with_its_line_in_the_file() {
    let directory = directory(&[(
        "1_a.sql",
        "-- A comment.\n-- migrate:up\n\nselect\n  nosuchcolumn;\n-- migrate:down\n",
    )]);
    let report = format!("{:?}", fresh().migrations(directory.path()).start().unwrap_err());
    let place = fs::canonicalize(directory.path().join("1_a.sql")).unwrap();
    assert!(report.starts_with(&format!("could not run `{}:5`\n", place.display())), "{report}");
    assert!(report.contains("column \"nosuchcolumn\" does not exist"), "{report}");
}

#[test]
fn a_transaction_that_cannot_be_committed_is_told() {
    let sql = "create table a (id int primary key);\n\
               create table b (a int references a deferrable initially deferred);\n\
               insert into b values (1)";
    let directory = directory(&[("V1__a.sql", sql)]);
    let report = format!("{:?}", fresh().migrations(directory.path()).start().unwrap_err());
    assert!(report.contains("V1__a.sql`\n"), "{report}");
    assert!(report.contains("violates foreign key constraint"), "{report}");
}

#[test]
fn books_that_cannot_be_kept_are_told() {
    let directory = directory(&[("1_a.sql", "select pg_catalog.set_config('search_path', '', false);\n")]);
    let snapshot = fresh().migrations_of(MigrationTool::Sqlx, directory.path());
    let report = format!("{:?}", snapshot.start().unwrap_err());
    assert!(report.contains("1_a.sql`\n"), "{report}");
    assert!(report.contains("relation \"_sqlx_migrations\" does not exist"), "{report}");
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    directory
}

#[rstest]
#[case::refinery_and_others(
    None,
    &[("V1__x.sql", ""), ("1_y.sql", "")],
    "could not tell how to run the migrations in `DIR`\n  cause: `V1__x.sql` is refinery's, `1_y.sql` is not\n  hint: CHOOSE"
)]
#[case::diesel_and_others(
    None,
    &[("1_x/up.sql", ""), ("2_y.sql", "")],
    "could not tell how to run the migrations in `DIR`\n  cause: `1_x/up.sql` is Diesel's, `2_y.sql` is not\n  hint: CHOOSE"
)]
#[case::dbmate_and_others(
    None,
    &[("1_x.sql", "-- migrate:up\n"), ("2_y.sql", "")],
    "could not tell how to run the migrations in `DIR`\n  cause: `1_x.sql` is dbmate's, with `-- migrate:up`, `2_y.sql` is not\n  \
     hint: CHOOSE"
)]
#[case::flyway(
    None,
    &[("V1.1__x.sql", "")],
    "could not tell how to run the migrations in `DIR`\n  cause: `V1.1__x.sql` begins as refinery's and Flyway's files do, \
     but refinery cannot read its version\n  hint: refinery's are `V<number>__<name>.sql`; `MigrationTool::Plain` runs all \
     files in the order of names"
)]
#[case::goose(
    None,
    &[("1_x.sql", "-- +goose Up\n")],
    "could not tell how to run the migrations in `DIR`\n  cause: `1_x.sql` holds sections of goose (`-- +goose Up`), of \
     which only a part must be run\n  hint: goose is not supported; `MigrationTool::Plain` runs its files whole, the way \
     back included"
)]
#[case::no_diesel_migration(
    None,
    &[("1_x/up.sql", ""), ("more/x.sql", "")],
    "could not tell how to run the migrations in `DIR`\n  cause: the directory `more` holds no `up.sql`\n  hint: Diesel takes \
     every directory beside its migrations for one"
)]
#[case::a_migration_in_rust(
    None,
    &[("V1__x.sql", ""), ("V2__y.rs", "")],
    "could not tell how to run the migrations in `DIR`\n  cause: `V2__y.rs` is a migration in Rust, which only refinery's \
     own runner can run\n  hint: run it on the URL of a sandbox, or keep such a migration in a directory of its own"
)]
#[case::a_directory_below(
    None,
    &[("V1__x.sql", ""), ("more/V2__y.sql", "")],
    "could not tell how to run the migrations in `DIR`\n  cause: `more/V2__y.sql` lies in a directory below, which only \
     refinery's own runner looks into\n  hint: keep all migrations in one directory"
)]
#[case::one_version_twice(
    Some(MigrationTool::Sqlx),
    &[("1_x.sql", ""), ("01_y.sql", "")],
    "could not tell how to run the migrations in `DIR`\n  cause: `01_y.sql` and `1_x.sql` have the same version, 1\n  hint: \
     give each migration a version of its own"
)]
#[case::a_version_too_large(
    Some(MigrationTool::GolangMigrate),
    &[("9223372036854775808_x.up.sql", "")],
    "could not tell how to run the migrations in `DIR`\n  cause: `9223372036854775808_x.up.sql` has a version that is too \
     large, 9223372036854775808\n  hint: a version is at most 9223372036854775807"
)]
#[case::no_number(
    Some(MigrationTool::Sqlx),
    &[("x_y.sql", "")],
    "could not tell how to run the migrations in `DIR`\n  cause: `x_y.sql` has no number before its first underscore\n  \
     hint: sqlx wants `<number>_<name>.sql`"
)]
#[case::nothing_of_the_tool(
    Some(MigrationTool::GolangMigrate),
    &[("1_x.sql", "")],
    "could not find migrations in `DIR`\n  hint: no name in it is that of a migration of `MigrationTool::GolangMigrate`"
)]
#[case::no_section(
    Some(MigrationTool::Dbmate),
    &[("1_x.sql", "select 1;\n")],
    "could not run `DIR/1_x.sql`\n  cause: it has no `-- migrate:up`\n  hint: dbmate wants one `-- migrate:up`, before any \
     statement, and `-- migrate:down` after it"
)]
#[case::metadata_that_says_nothing(
    None,
    &[("1_x/up.sql", ""), ("1_x/metadata.toml", "run_in_transaction = 0\n")],
    "could not run `DIR/1_x/up.sql`\n  cause: `run_in_transaction` is `0` in its `metadata.toml`\n  hint: it is `true` or \
     `false`"
)]
fn what_cannot_be_told_is_refused(
    #[case] tool: Option<MigrationTool>,
    #[case] files: &[(&str, &str)],
    #[case] report: &str,
) {
    let directory = directory(files);
    let path = fs::canonicalize(directory.path()).unwrap();
    let snapshot = match tool {
        None => fresh().migrations(&path),
        Some(tool) => fresh().migrations_of(tool, &path),
    };
    let error = snapshot.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let choose = "name the tool whose files they are: `Snapshot::migrations_of(MigrationTool::…, directory)`; \
                  `MigrationTool::Plain` runs every `.sql` file in the order of names";
    let report = report.replace("DIR", path.to_str().unwrap()).replace("CHOOSE", choose);
    assert_eq!(format!("{error:?}").trim_end(), report);
}
