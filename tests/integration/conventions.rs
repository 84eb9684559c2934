//! Migrations of each tool: run here as the tool runs them, so that the tool finds all of them
//! applied.

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
pub(crate) fn data(tool: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/conventions").join(tool)
}

pub(crate) fn fresh() -> Snapshot {
    Snapshot::new(Postgres::new())
}

fn lines(db: &Sandbox, query: &str) -> Vec<String> {
    let rows = connect(db.url()).query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// The definition of a bookkeeping table, and its rows without times.
pub(crate) fn bookkeeping(db: &Sandbox, table: &str, times: &str) -> (Vec<String>, Vec<String>) {
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
    let rows = format!("select (to_jsonb(t) - '{{{times}}}'::text[])::text from {table} t order by 1");
    ([columns, keys].concat(), lines(db, &rows))
}

/// All rows with their times.
fn rows(db: &Sandbox, table: &str) -> Vec<String> {
    lines(db, &format!("select t::text from {table} t order by version"))
}

pub(crate) fn tables(db: &Sandbox) -> Vec<String> {
    lines(db, "select tablename::text from pg_tables where schemaname = 'public' order by 1")
}

/// Asserts what the migrations of every tool in `tests/data/conventions` leave.
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
fn sqlx_finds_its_migrations_applied() {
    const TABLE: &str = "_sqlx_migrations";
    const TIMES: &str = "installed_on,execution_time";
    let db = fresh().migrations_of(MigrationTool::Sqlx, data("sqlx")).start().unwrap();
    assert_migrated(&db);
    let measured = "select (min(execution_time) > 0)::text from _sqlx_migrations";
    assert_eq!(lines(&db, measured), ["true"]);
    let before = rows(&db, TABLE);
    let own = fresh().start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let migrator = runtime.block_on(Migrator::new(data("sqlx"))).unwrap();
    let connection = |db: &Sandbox| runtime.block_on(sqlx::PgConnection::connect(db.url())).unwrap();
    runtime.block_on(migrator.run(&mut connection(&db))).unwrap();
    assert_eq!(rows(&db, TABLE), before);
    runtime.block_on(migrator.run(&mut connection(&own))).unwrap();
    assert_eq!(bookkeeping(&db, TABLE, TIMES), bookkeeping(&own, TABLE, TIMES));
    // sqlx compares contents: it notices another checksum.
    connect(db.url()).batch_execute("update _sqlx_migrations set checksum = '' where version = 2").unwrap();
    let error = runtime.block_on(migrator.run(&mut connection(&db))).unwrap_err();
    assert_eq!(error.to_string(), "migration 2 was previously applied but has been modified");
}

#[test]
fn diesel_finds_its_migrations_applied() {
    const TABLE: &str = "__diesel_schema_migrations";
    let db = fresh().migrations(data("diesel")).start().unwrap();
    assert_migrated(&db);
    let before = rows(&db, TABLE);
    let own = fresh().start().unwrap();
    let source = || FileBasedMigrations::from_path(data("diesel")).unwrap();
    let mut connection = diesel::PgConnection::establish(db.url()).unwrap();
    assert!(!connection.has_pending_migration(source()).unwrap());
    assert!(connection.run_pending_migrations(source()).unwrap().is_empty());
    let mut judge = diesel::PgConnection::establish(own.url()).unwrap();
    assert_eq!(judge.run_pending_migrations(source()).unwrap().len(), 3);
    assert_eq!(rows(&db, TABLE), before);
    assert_eq!(bookkeeping(&db, TABLE, "run_on"), bookkeeping(&own, TABLE, "run_on"));
    assert_eq!(connection.revert_all_migrations(source()).unwrap().len(), 3);
}

#[test]
fn refinery_finds_its_migrations_applied() {
    const TABLE: &str = "refinery_schema_history";
    let db = fresh().migrations(data("refinery")).start().unwrap();
    assert_migrated(&db);
    let before = rows(&db, TABLE);
    let own = fresh().start().unwrap();
    let migrations = refinery::load_sql_migrations(data("refinery")).unwrap();
    let runner = refinery::Runner::new(&migrations);
    let mut connection = postgres::Client::connect(db.url(), NoTls).unwrap();
    assert!(runner.run(&mut connection).unwrap().applied_migrations().is_empty());
    assert_eq!(runner.get_applied_migrations(&mut connection).unwrap(), migrations);
    let mut judge = postgres::Client::connect(own.url(), NoTls).unwrap();
    assert_eq!(runner.run(&mut judge).unwrap().applied_migrations().len(), 3);
    assert_eq!(rows(&db, TABLE), before);
    assert_eq!(bookkeeping(&db, TABLE, "applied_on"), bookkeeping(&own, TABLE, "applied_on"));
}

#[test]
fn golang_migrate_has_the_last_version_in_its_table() {
    let db = fresh().migrations_of(MigrationTool::GolangMigrate, data("golang")).start().unwrap();
    assert_eq!(tables(&db), ["authors", "notes", "schema_migrations"]);
    let (table, rows) = bookkeeping(&db, "schema_migrations", "");
    assert_eq!(
        table,
        ["version bigint NO", "dirty boolean NO", "schema_migrations_pkeyPRIMARY KEY (version)"]
    );
    assert_eq!(rows, [r#"{"dirty": false, "version": 2}"#]);
}

/// These rows were compared with those of the tools, see `migration_tools.rs`; for goose, tern and
/// Prisma with their sources.
#[rstest]
#[case::dbmate(
    "dbmate",
    "schema_migrations",
    &["version character varying NO", "schema_migrations_pkeyPRIMARY KEY (version)"],
    &[
        r#"{"version": "20240101000000"}"#,
        r#"{"version": "20240201000000"}"#,
        r#"{"version": "20240301000000"}"#,
    ],
)]
#[case::goose(
    "goose",
    "goose_db_version",
    &[
        "id integer NO",
        "version_id bigint NO",
        "is_applied boolean NO",
        "tstamp timestamp without time zone NO now()",
        "goose_db_version_pkeyPRIMARY KEY (id)",
    ],
    &[
        r#"{"id": 1, "is_applied": true, "version_id": 0}"#,
        r#"{"id": 2, "is_applied": true, "version_id": 1}"#,
        r#"{"id": 3, "is_applied": true, "version_id": 2}"#,
        r#"{"id": 4, "is_applied": true, "version_id": 10}"#,
    ],
)]
#[case::node_pg_migrate(
    "node-pg-migrate",
    "pgmigrations",
    &[
        "id integer NO nextval('pgmigrations_id_seq'::regclass)",
        "name character varying 255 NO",
        "run_on timestamp without time zone NO",
        "pgmigrations_pkeyPRIMARY KEY (id)",
    ],
    &[
        r#"{"id": 1, "name": "1700000000000_notes"}"#,
        r#"{"id": 2, "name": "20240101000000000_index"}"#,
        r#"{"id": 3, "name": "1800000000000_authors"}"#,
    ],
)]
#[case::tern("tern", "schema_version", &["version integer NO"], &[r#"{"version": 3}"#])]
fn a_recognised_tool_finds_its_rows(
    #[case] directory: &str,
    #[case] table: &str,
    #[case] definition: &[&str],
    #[case] rows: &[&str],
) {
    let db = fresh().migrations(data(directory)).start().unwrap();
    assert_migrated(&db);
    let (made, filled) = bookkeeping(&db, table, "tstamp,run_on");
    assert_eq!(made, definition);
    assert_eq!(filled, rows);
}

#[test]
fn prisma_finds_checksums_of_its_directories() {
    let db = fresh().migrations(data("prisma")).start().unwrap();
    assert_migrated(&db);
    let rows = "select concat_ws(' ', migration_name, applied_steps_count, finished_at >= started_at, \
                checksum = encode(sha256(convert_to(E'-- CreateIndex\\ncreate index concurrently notes_by_text \
                on notes (text);\\n', 'utf8')), 'hex')) from _prisma_migrations order by 1";
    assert_eq!(
        lines(&db, rows),
        ["20240101000000_notes 1 t f", "20240201000000_index 1 t t", "20240301000000_authors 1 t f"]
    );
}

#[test]
fn flyway_order_compares_versions_by_their_parts() {
    let db = fresh().migrations(data("flyway")).start().unwrap();
    assert_migrated(&db);
    assert_eq!(tables(&db), ["authors", "notes"]);
}

/// sqlx and golang-migrate share their names with other tools.
#[test]
fn files_of_no_particular_tool_leave_no_bookkeeping() {
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
    // In the order of names, `10_drop` comes first.
    let error = fresh().migrations_of(MigrationTool::Plain, directory.path()).start().unwrap_err();
    assert!(format!("{error:?}").contains("relation \"t\" does not exist"), "{error:?}");
}

#[test]
fn directories_of_no_particular_tool_run_by_name() {
    let directory = directory(&[
        ("0001_u/migration.sql", "create table u ();\n--> statement-breakpoint\ncreate index on u ((1));"),
        ("0000_t/migration.sql", "create table t ();"),
        ("0000_t/snapshot.json", "{}"),
    ]);
    assert_eq!(tables(&fresh().migrations(directory.path()).start().unwrap()), ["t", "u"]);
}

#[rstest]
#[case::usual("-- Up Migration\ncreate table k ();\n-- Down Migration\ndrop table k;\n")]
#[case::other_case_and_dashes(
    "--- UP MIGRATION ---\ncreate table k ();\n----down migration\ndrop table k;\n"
)]
#[case::tern("create table k ();\n---- create above / drop below ----\ndrop table k;\n")]
#[case::goose("-- +goose up\ncreate table k ();\n-- +goose down\ndrop table k;\n")]
fn a_way_back_in_the_same_file_does_not_run(#[case] contents: &str) {
    let directory = directory(&[("1_k.sql", contents)]);
    assert!(tables(&fresh().migrations(directory.path()).start().unwrap()).contains(&"k".to_owned()));
}

#[test]
fn only_an_added_migration_runs() {
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

/// `metadata.toml` does not run, and yet makes another layer.
#[test]
fn a_file_that_configures_a_migration_counts() {
    let sql = "create table t (x int);\ncreate index concurrently on t (x);\n";
    let directory = directory(&[("1_t/up.sql", sql)]);
    let snapshot = fresh().migrations(directory.path());
    let report = format!("{:?}", snapshot.start().unwrap_err());
    assert!(
        report.contains("up.sql:2`") && report.contains("cannot run inside a transaction block"),
        "{report}"
    );
    assert!(report.contains("hint: keep it out of the tool's transaction"), "{report}");
    // Diesel sends all of the file as one request, which is one transaction.
    fs::write(directory.path().join("1_t/metadata.toml"), "run_in_transaction = false\n").unwrap();
    let report = format!("{:?}", snapshot.start().unwrap_err());
    assert!(report.contains("hint: the tool sends all of the file to the server as one request"), "{report}");
    fs::create_dir(directory.path().join("2_index")).unwrap();
    fs::copy(directory.path().join("1_t/metadata.toml"), directory.path().join("2_index/metadata.toml"))
        .unwrap();
    fs::write(directory.path().join("1_t/up.sql"), "create table t (x int);").unwrap();
    fs::write(directory.path().join("2_index/up.sql"), "create index concurrently on t (x);").unwrap();
    assert_eq!(tables(&snapshot.start().unwrap()), ["__diesel_schema_migrations", "t"]);
}

#[rstest]
#[case::byte_order_mark("\u{feff}create table t ();\n", "it begins with a byte order mark")]
#[case::two_statements(
    "-- no-transaction\ncreate table t (x int);\ncreate index concurrently on t (x);\n",
    "cannot run inside a transaction block"
)]
#[case::rows("create table t (x int);\ncopy t from stdin;\n1\n\\.\n", "line 2 is `copy t from stdin;`")]
#[case::psql_command("create table t (x int);\n\\d t\n", "commands with a backslash are psql's")]
fn a_file_that_sqlx_refuses_is_refused(#[case] contents: &str, #[case] cause: &str) {
    let directory = directory(&[("1_t.sql", contents)]);
    let error = fresh().migrations_of(MigrationTool::Sqlx, directory.path()).start().unwrap_err();
    assert!(format!("{error:?}").contains(cause), "{error:?}");
    let own = fresh().start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let migrator = Migrator::new(directory.path()).await.unwrap();
        let mut connection = sqlx::PgConnection::connect(own.url()).await.unwrap();
        assert!(migrator.run(&mut connection).await.is_err());
    });
}

#[test]
fn an_empty_migration_is_refused_as_by_diesel() {
    let directory = directory(&[("1_t/up.sql", "")]);
    let error = fresh().migrations(directory.path()).start().unwrap_err();
    assert!(format!("{error:?}").contains("cause: it is empty"), "{error:?}");
    let own = fresh().start().unwrap();
    let source = FileBasedMigrations::from_path(directory.path()).unwrap();
    let mut judge = diesel::PgConnection::establish(own.url()).unwrap();
    assert!(judge.run_pending_migrations(source).is_err());
}

#[rstest]
#[case::while_running("select 1 / 0\n", "division by zero", "select 1 / 0")]
#[case::while_parsing("select\n  nosuchcolumn;\n", "column \"nosuchcolumn\" does not exist", "nosuchcolumn")]
fn an_error_in_a_section_names_its_line_in_the_file(
    #[case] statement: &str,
    #[case] message: &str,
    #[case] quoted: &str,
) {
    let contents = format!("-- A comment.\n-- migrate:up\nselect 1;\n\n{statement}-- migrate:down\n");
    let directory = directory(&[("1_a.sql", &contents)]);
    let report = format!("{:?}", fresh().migrations(directory.path()).start().unwrap_err());
    let place = fs::canonicalize(directory.path().join("1_a.sql")).unwrap();
    let line = 4 + statement.lines().count();
    assert!(report.starts_with(&format!("could not run `{}:{line}`\n", place.display())), "{report}");
    assert!(report.contains(message) && report.contains(quoted), "{report}");
}

#[test]
fn a_failed_commit_is_reported() {
    let sql = "create table a (id int primary key);\n\
               create table b (a int references a deferrable initially deferred);\n\
               insert into b values (1)";
    let directory = directory(&[("V1__a.sql", sql)]);
    let report = format!("{:?}", fresh().migrations(directory.path()).start().unwrap_err());
    assert!(report.contains("V1__a.sql`\n"), "{report}");
    assert!(report.contains("violates foreign key constraint"), "{report}");
}

#[test]
fn a_bookkeeping_table_out_of_reach_is_reported() {
    let directory = directory(&[("1_a.sql", "select pg_catalog.set_config('search_path', '', false);\n")]);
    let snapshot = fresh().migrations_of(MigrationTool::Sqlx, directory.path());
    let report = format!("{:?}", snapshot.start().unwrap_err());
    assert!(report.contains("1_a.sql`\n"), "{report}");
    assert!(report.contains("relation \"_sqlx_migrations\" does not exist"), "{report}");
}

pub(crate) fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    directory
}

const CHOICES: &str = "name the tool: `Snapshot::migrations_of(MigrationTool::…, directory)` (`--tool`); \
    `MigrationTool::Plain` (`--tool plain`) runs every `.sql` file in the order of names";

#[rstest]
#[case::refinery_and_others(
    None,
    &[("V1__x.sql", ""), ("1_y.sql", "")],
    "`V1__x.sql` is a migration of refinery, `1_y.sql` is not",
    CHOICES,
)]
#[case::diesel_and_others(
    None,
    &[("1_x/up.sql", ""), ("2_y.sql", "")],
    "`1_x/up.sql` is a migration of Diesel, `2_y.sql` is not",
    CHOICES,
)]
#[case::dbmate_and_others(
    None,
    &[("1_x.sql", "-- migrate:up\n"), ("2_y.sql", "")],
    "`1_x.sql` is a migration of dbmate by its line `-- migrate:up`, `2_y.sql` is not",
    CHOICES,
)]
#[case::refinery_and_goose(
    None,
    &[("V1__x.sql", "-- +goose Up\n")],
    "`V1__x.sql` is a migration of goose by its line `-- +goose Up` and of refinery by its name",
    CHOICES,
)]
#[case::an_unknown_way_back(
    None,
    &[("1_x.sql", "create table x ();\n\n-- === DOWN ===\ndrop table x;\n")],
    "`1_x.sql` line 3 may begin a way back: `-- === DOWN ===`",
    "name the tool that runs such files, by `Snapshot::migrations_of(MigrationTool::…, directory)` (`--tool`), run it in a \
     step, by `Snapshot::run` (`--run`), or split the file; `MigrationTool::Plain` (`--tool plain`) runs all of it",
)]
#[case::a_way_back_in_a_named_directory(
    None,
    &[("1_x/up.sql", "create table x ();\n-- rollback\ndrop table x;\n")],
    "`1_x/up.sql` line 2 may begin a way back: `-- rollback`",
    "split the file",
)]
#[case::sql_migrate(
    None,
    &[("1_x.sql", "-- +migrate Up\n")],
    "`1_x.sql` line 1 is a mark of sql-migrate: `-- +migrate Up`",
    "run sql-migrate itself in a step, by `Snapshot::run(\"sql-migrate\", [\"up\"])` (`--run`), or split the file; \
     `MigrationTool::Plain` (`--tool plain`) runs all of it, the way back too",
)]
#[case::a_byte_order_mark(
    None,
    &[("1_x.sql", "\u{feff}-- migrate:up\n-- migrate:down\n")],
    "it has no `-- migrate:up`",
    "dbmate wants one",
)]
#[case::a_file_of_the_way_back(
    None,
    &[("1_x.sql", ""), ("1_x_rollback.sql", "")],
    "`1_x_rollback.sql` may be the way back of `1_x.sql`",
    "move it to a directory of its own",
)]
#[case::directories_of_both_ways(
    None,
    &[("up/1_x.sql", ""), ("down/1_x.sql", "")],
    "the directory `down` may hold the way back of `up`",
    "name the directory `up` itself",
)]
#[case::a_subdirectory(
    None,
    &[("1_x.sql", ""), ("more/2_y.sql", "")],
    "`more/2_y.sql` is in a subdirectory, which is not searched",
    "add `.migrations(\"DIR/more\")` (`--migrations DIR/more`)",
)]
#[case::a_version_of_flyway(
    Some(MigrationTool::Refinery),
    &[("V1.1__x.sql", "")],
    "`V1.1__x.sql` begins as Flyway's files do, and refinery cannot read its version",
    "refinery's are `V<number>__<name>.sql`; for Flyway's choose `MigrationTool::Flyway` (`--tool flyway`)",
)]
#[case::no_diesel_migration(
    None,
    &[("1_x/up.sql", ""), ("more/x.sql", "")],
    "the directory `more` holds no `up.sql`",
    "Diesel takes each directory beside its migrations for one: move it elsewhere",
)]
#[case::a_migration_in_rust(
    None,
    &[("V1__x.sql", ""), ("V2__y.rs", "")],
    "`V2__y.rs` is a migration in Rust, which only refinery's own runner can run",
    "run refinery's runner in a step, by `Snapshot::prepare` or `Snapshot::run`",
)]
#[case::one_version_twice(
    Some(MigrationTool::Sqlx),
    &[("1_x.sql", ""), ("01_y.sql", "")],
    "`01_y.sql` and `1_x.sql` have the same version, 1",
    "give each migration another version",
)]
#[case::a_version_too_large(
    Some(MigrationTool::GolangMigrate),
    &[("9223372036854775808_x.up.sql", "")],
    "`9223372036854775808_x.up.sql` has a version that is too large, 9223372036854775808",
    "a version is at most 9223372036854775807",
)]
#[case::no_number(
    Some(MigrationTool::Sqlx),
    &[("x_y.sql", "")],
    "`x_y.sql` has no number before its first underscore",
    "sqlx wants `<number>_<name>.sql`",
)]
#[case::a_gap(
    Some(MigrationTool::Tern),
    &[("1_x.sql", ""), ("3_y.sql", "")],
    "there is no migration 2 before `3_y.sql`",
    "tern wants numbers from 1 without gaps",
)]
#[case::no_section(
    Some(MigrationTool::Dbmate),
    &[("1_x.sql", "select 1;\n")],
    "it has no `-- migrate:up`",
    "dbmate wants one `-- migrate:up`, before any statement, and `-- migrate:down` after it",
)]
#[case::metadata_without_a_value(
    None,
    &[("1_x/up.sql", "-- x"), ("1_x/metadata.toml", "run_in_transaction = 0\n")],
    "`run_in_transaction` is `0` in its `metadata.toml`",
    "it is `true` or `false`",
)]
fn an_undecidable_directory_is_refused(
    #[case] tool: Option<MigrationTool>,
    #[case] files: &[(&str, &str)],
    #[case] cause: &str,
    #[case] hint: &str,
) {
    let directory = directory(files);
    let path = fs::canonicalize(directory.path()).unwrap();
    let snapshot = match tool {
        None => fresh().migrations(&path),
        Some(tool) => fresh().migrations_of(tool, &path),
    };
    let error = snapshot.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let report = format!("{error:?}");
    let hint = hint.replace("DIR", path.to_str().unwrap());
    assert!(report.contains(path.to_str().unwrap()), "{report}");
    assert!(report.contains(&format!("\n  cause: {cause}\n  hint: ")), "{report}");
    assert!(report.contains(&hint), "{report}");
}

#[test]
fn a_directory_without_migrations_is_refused() {
    let report = |tool, files: &[(&str, &str)]| {
        let directory = directory(files);
        let snapshot = match tool {
            None => fresh().migrations(directory.path()),
            Some(tool) => fresh().migrations_of(tool, directory.path()),
        };
        format!("{:?}", snapshot.start().unwrap_err())
    };
    let of_another = report(Some(MigrationTool::GolangMigrate), &[("1_x.sql", "")]);
    assert!(of_another.contains("that of a migration of `MigrationTool::GolangMigrate`"), "{of_another}");
    let below = report(None, &[("2024/1_x.sql", "")]);
    assert!(below.contains("subdirectories are not searched: name one, as in `.migrations(\""), "{below}");
}

#[test]
fn a_name_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let directory = directory(&[]);
    let name = std::ffi::OsStr::from_bytes(b"1_caf\xe9.sql");
    fs::write(directory.path().join(name), "select 1;").unwrap();
    let report = format!("{:?}", fresh().migrations(directory.path()).start().unwrap_err());
    assert!(report.contains("is not UTF-8") && report.contains("convmv"), "{report}");
}
