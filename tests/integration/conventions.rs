//! Migrations of each tool: run here as the tool runs them, so that the tool finds all of them
//! applied.

use std::fs;
use std::path::{Path, PathBuf};

use diesel::Connection as _;
use diesel_migrations::{FileBasedMigrations, MigrationHarness as _};
use rstest::rstest;
use sandboxed_db::{MigrationTool, Sandbox, Snapshot};
use sandboxed_db_tests::{assert_says, column, connect, directory, fresh, refused, start, value};
use sqlx::Connection as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;

/// The migrations of `tests/data/conventions`.
pub(crate) fn data(tool: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/conventions").join(tool)
}

fn lines(db: &Sandbox, query: &str) -> Vec<String> {
    column(&mut connect(db.url()), query)
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

/// Has sqlx apply migrations, and returns the number of those that it missed.
pub(crate) fn apply_by_sqlx(directory: &Path, db: &Sandbox, search_path: &str) -> usize {
    // sqlx reports no number, so the rows of its table are counted.
    let count = || -> i64 {
        let mut client = connect(db.url());
        client.batch_execute(&format!("set search_path = {search_path}")).unwrap();
        let table = value::<Option<String>>(&mut client, "select to_regclass('_sqlx_migrations')::text");
        table.map_or(0, |table| value(&mut client, &format!("select count(*) from {table} where success")))
    };
    let before = count();
    run_sqlx(directory, db, search_path).unwrap();
    usize::try_from(count() - before).unwrap()
}

fn run_sqlx(directory: &Path, db: &Sandbox, search_path: &str) -> Result<(), MigrateError> {
    let options: PgConnectOptions = db.url().parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let options = options.options([("search_path", search_path)]);
        let mut connection = sqlx::PgConnection::connect_with(&options).await.unwrap();
        Migrator::new(directory).await?.run(&mut connection).await
    })
}

/// Has Diesel apply migrations, and returns the number of those that it missed.
pub(crate) fn apply_by_diesel(directory: &Path, db: &Sandbox) -> usize {
    let source = || FileBasedMigrations::from_path(directory).unwrap();
    let mut connection = diesel::PgConnection::establish(db.url()).unwrap();
    let pending = connection.has_pending_migration(source()).unwrap();
    let applied = connection.run_pending_migrations(source()).unwrap().len();
    assert_eq!(pending, applied > 0);
    applied
}

/// Has refinery apply migrations, and returns the number of those that it missed.
pub(crate) fn apply_by_refinery(directory: &Path, db: &Sandbox) -> usize {
    let migrations = refinery::load_sql_migrations(directory).unwrap();
    let mut connection = connect(db.url());
    refinery::Runner::new(&migrations).run(&mut connection).unwrap().applied_migrations().len()
}

#[rstest]
#[case::sqlx(
    MigrationTool::Sqlx, "sqlx", "_sqlx_migrations", "installed_on,execution_time",
    |directory: &Path, db: &Sandbox| apply_by_sqlx(directory, db, "public"),
)]
#[case::diesel(MigrationTool::Diesel, "diesel", "__diesel_schema_migrations", "run_on", apply_by_diesel)]
#[case::refinery(
    MigrationTool::Refinery, "refinery", "refinery_schema_history", "applied_on", apply_by_refinery
)]
fn a_tool_finds_its_migrations_applied(
    #[case] tool: MigrationTool,
    #[case] name: &str,
    #[case] table: &str,
    #[case] times: &str,
    #[case] apply: fn(&Path, &Sandbox) -> usize,
) {
    let snapshot = match tool {
        MigrationTool::Sqlx => fresh().migrations_of(tool, data(name)),
        _ => fresh().migrations(data(name)),
    };
    let (db, own) = (snapshot.start().unwrap(), start());
    assert_migrated(&db);
    let all = bookkeeping(&db, table, "");
    assert_eq!((apply(&data(name), &db), apply(&data(name), &own)), (0, 3));
    assert_eq!(bookkeeping(&db, table, ""), all);
    assert_eq!(bookkeeping(&db, table, times), bookkeeping(&own, table, times));
}

#[test]
fn sqlx_finds_times_and_checksums() {
    let db = fresh().migrations_of(MigrationTool::Sqlx, data("sqlx")).start().unwrap();
    let measured = "select (min(execution_time) > 0)::text from _sqlx_migrations";
    assert_eq!(lines(&db, measured), ["true"]);
    connect(db.url()).batch_execute("update _sqlx_migrations set checksum = '' where version = 2").unwrap();
    let error = run_sqlx(&data("sqlx"), &db, "public").unwrap_err();
    assert_eq!(error.to_string(), "migration 2 was previously applied but has been modified");
}

#[test]
fn diesel_reverts_its_migrations() {
    let db = fresh().migrations(data("diesel")).start().unwrap();
    let mut connection = diesel::PgConnection::establish(db.url()).unwrap();
    let source = FileBasedMigrations::from_path(data("diesel")).unwrap();
    assert_eq!(connection.revert_all_migrations(source).unwrap().len(), 3);
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
    let plain = fresh().migrations_of(MigrationTool::Plain, directory.path());
    assert_says(&refused(&plain), &["relation \"t\" does not exist"]);
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
fn a_down_in_the_same_file_does_not_run(#[case] contents: &str) {
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
    let hint = "hint: keep it out of the tool's transaction";
    assert_says(&refused(&snapshot), &["up.sql:2`", "cannot run inside a transaction block", hint]);
    // Diesel sends all of the file as one request, which is one transaction.
    fs::write(directory.path().join("1_t/metadata.toml"), "run_in_transaction = false\n").unwrap();
    assert_says(&refused(&snapshot), &["hint: the tool sends all of the file to the server as one request"]);
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
    assert_says(&refused(&fresh().migrations_of(MigrationTool::Sqlx, directory.path())), &[cause]);
    assert!(run_sqlx(directory.path(), &start(), "public").is_err());
}

#[test]
fn an_empty_migration_is_refused_as_by_diesel() {
    let directory = directory(&[("1_t/up.sql", "")]);
    assert_says(&refused(&fresh().migrations(directory.path())), &["cause: it is empty"]);
    let source = FileBasedMigrations::from_path(directory.path()).unwrap();
    let own = start();
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
    let report = refused(&fresh().migrations(directory.path()));
    let file = fs::canonicalize(directory.path().join("1_a.sql")).unwrap();
    let line = 4 + statement.lines().count();
    assert!(report.starts_with(&format!("could not run `{}:{line}`\n", file.display())), "{report}");
    assert_says(&report, &[message, quoted]);
}

#[test]
fn a_failed_commit_is_reported() {
    let sql = "create table a (id int primary key);\n\
               create table b (a int references a deferrable initially deferred);\n\
               insert into b values (1)";
    let directory = directory(&[("V1__a.sql", sql)]);
    let report = refused(&fresh().migrations(directory.path()));
    assert_says(&report, &["V1__a.sql`\n", "violates foreign key constraint"]);
}

#[test]
fn a_bookkeeping_table_out_of_reach_is_reported() {
    let directory = directory(&[("1_a.sql", "select pg_catalog.set_config('search_path', '', false);\n")]);
    let report = refused(&fresh().migrations_of(MigrationTool::Sqlx, directory.path()));
    assert_says(&report, &["1_a.sql`\n", "relation \"_sqlx_migrations\" does not exist"]);
}

const CHOICES: &str = "name the tool: `Snapshot::migrations_of(MigrationTool::…, directory)` (`--tool`); \
    `MigrationTool::Plain` (`--tool plain`) runs every `.sql` file in the order of names";

#[rstest]
#[case::refinery_and_goose(
    None,
    &[("V1__x.sql", "-- +goose Up\n")],
    "`V1__x.sql` is a migration of goose by its line `-- +goose Up` and of refinery by its name",
    CHOICES,
)]
#[case::a_down_in_a_named_directory(
    None,
    &[("1_x/up.sql", "create table x ();\n-- rollback\ndrop table x;\n")],
    "`1_x/up.sql` line 2 may begin a down migration: `-- rollback`",
    "split the file",
)]
#[case::sql_migrate(
    None,
    &[("1_x.sql", "-- +migrate Up\n")],
    "`1_x.sql` line 1 is a mark of sql-migrate: `-- +migrate Up`",
    "run sql-migrate itself in a step, by `Snapshot::run(\"sql-migrate\", [\"up\"])` (`--prepare`), or split the file; \
     `MigrationTool::Plain` (`--tool plain`) runs all of it, the down migration too",
)]
#[case::a_byte_order_mark(
    None,
    &[("1_x.sql", "\u{feff}-- migrate:up\n-- migrate:down\n")],
    "it has no `-- migrate:up`",
    "dbmate wants one",
)]
#[case::a_file_of_the_down_migration(
    None,
    &[("1_x.sql", ""), ("1_x_rollback.sql", "")],
    "`1_x_rollback.sql` may be the down migration of `1_x.sql`",
    "move it to a separate directory",
)]
#[case::directories_of_both_ways(
    None,
    &[("up/1_x.sql", ""), ("down/1_x.sql", "")],
    "the directory `down` may hold the down migrations of `up`",
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
#[case::a_version_too_large(
    Some(MigrationTool::GolangMigrate),
    &[("9223372036854775808_x.up.sql", "")],
    "`9223372036854775808_x.up.sql` has a version that is too large, 9223372036854775808",
    "a version is at most 9223372036854775807",
)]
fn an_undecidable_directory_is_refused(
    #[case] tool: Option<MigrationTool>,
    #[case] files: &[(&str, &str)],
    #[case] cause: &str,
    #[case] hint: &str,
) {
    let directory = directory(files);
    let path = fs::canonicalize(directory.path()).unwrap();
    let path = path.to_str().unwrap();
    let cause = format!("\n  cause: {cause}\n  hint: ");
    assert_says(&refused(&of(tool, path)), &[path, &cause, &hint.replace("DIR", path)]);
}

#[test]
fn a_directory_without_migrations_is_refused() {
    let of_another = directory(&[("1_x.sql", "")]);
    let report = refused(&of(Some(MigrationTool::GolangMigrate), of_another.path()));
    assert_says(&report, &["that of a migration of `MigrationTool::GolangMigrate`"]);
    let below = directory(&[("2024/1_x.sql", "")]);
    let report = refused(&of(None, below.path()));
    assert_says(&report, &["subdirectories are not searched: name one, as in `.migrations(\""]);
}

fn of(tool: Option<MigrationTool>, directory: impl Into<PathBuf>) -> Snapshot {
    let directory = directory.into();
    match tool {
        None => fresh().migrations(directory),
        Some(tool) => fresh().migrations_of(tool, directory),
    }
}

#[test]
fn a_name_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let directory = directory(&[]);
    let name = std::ffi::OsStr::from_bytes(b"1_caf\xe9.sql");
    fs::write(directory.path().join(name), "select 1;").unwrap();
    assert_says(&refused(&fresh().migrations(directory.path())), &["is not UTF-8", "convmv"]);
}
