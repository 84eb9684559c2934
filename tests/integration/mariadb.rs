//! MariaDB in a sandbox: isolation, migrations, seeds, settings, ports.

use std::path::{Path, PathBuf};
use std::process::Command;

use sandboxed_db::{Engine, ErrorKind, MariaDb, MySql, Sandbox, ServerStart, Snapshot, sandboxed_db};
use sandboxed_db_tests::{
    DEADLINE, alone, assert_says, children, continues_alone, eventually, is_missing, mariadb, passed,
    printed, skip_without,
};

fn start(snapshot: &Snapshot<MariaDb>) -> Sandbox<MariaDb> {
    snapshot.start().unwrap_or_else(|error| panic!("{error:?}"))
}

fn query(db: &Sandbox<MariaDb>, sql: &str) -> String {
    mariadb(&db.env(), sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Files in a directory that lives as long as the test.
fn files(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        std::fs::write(place.path().join(name), contents).unwrap();
    }
    let path = place.path().to_owned();
    (place, path)
}

fn seeded(path: &Path, name: &str) -> Snapshot<MariaDb> {
    Snapshot::new(MariaDb::new()).seed(path.join(name))
}

#[test]
fn migrations_and_seeds_of_mariadb_run_in_order() {
    skip_without!(MariaDb);
    let (_place, path) = files(&[]);
    let migrations = path.join("migrations");
    std::fs::create_dir(&migrations).unwrap();
    std::fs::write(migrations.join("2_more.sql"), "ALTER TABLE users ADD COLUMN age INT").unwrap();
    let first = "CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20), born DATE);\n\
                 DELIMITER //\nCREATE TRIGGER shout BEFORE INSERT ON users FOR EACH ROW\nBEGIN\n  \
                 -- a comment of the trigger\n  SET NEW.name = UPPER(NEW.name);\nEND//\n";
    std::fs::write(migrations.join("1_users.sql"), first).unwrap();
    let csv =
        "id,name,born\r\n1,\"a, \"\"b\"\"\",2020-02-29\r\n2,,\r\n,\"\",\r\n7,\"two\nlines\",2021-01-01\r\n";
    std::fs::write(path.join("users.csv"), csv).unwrap();
    std::fs::write(path.join("it's; more.sql"), "source below.sql\nUPDATE users SET age = id;\n").unwrap();
    std::fs::write(path.join("below.sql"), "INSERT INTO users (name) VALUES ('grüße')").unwrap();
    let snapshot = Snapshot::new(MariaDb::new().database("my-shop"));
    let db = start(
        &snapshot.migrations(&migrations).seed(path.join("users.csv")).seed(path.join("it's; more.sql")),
    );
    let rows = "1\tA, \"B\"\t2020-02-29\t1\n2\tNULL\tNULL\t2\n3\t\tNULL\t3\n7\tTWO\\nLINES\t2021-01-01\t7\n\
                8\tGRÜSSE\tNULL\t8";
    let rows = rows.replace("GRÜSSE", "GRÜßE");
    assert_eq!(query(&db, "SET NAMES utf8mb4; SELECT * FROM users ORDER BY id"), rows);
    assert_says(&query(&db, "SHOW CREATE TRIGGER shout"), &["a comment of the trigger"]);
    assert_says(&query(&db, "SELECT DATABASE(), @@collation_database"), &["my-shop\tutf8mb4_general_ci"]);
}

#[test]
fn a_dump_of_mariadb_is_a_seed() {
    skip_without!(MariaDb);
    let (_place, path) = files(&[(
        "a.sql",
        "CREATE TABLE a (id INT PRIMARY KEY, b BLOB); INSERT INTO a VALUES (1, X'00275C0D0A1A'), (2, NULL);\n\
         CREATE VIEW v AS SELECT id FROM a; CREATE PROCEDURE p() SELECT 1;\n",
    )]);
    let source = start(&seeded(&path, "a.sql"));
    let mut dump = Command::new("mariadb-dump");
    dump.args(["--no-defaults", "--user=root", "--routines", "test"]).envs(source.env());
    let dump = dump.output().unwrap();
    assert!(dump.status.success());
    std::fs::write(path.join("dump.sql"), &dump.stdout).unwrap();
    let db = start(&seeded(&path, "dump.sql"));
    assert_eq!(
        query(&db, "SELECT hex(b) FROM a JOIN v USING (id) ORDER BY id; CALL p()"),
        "00275C0D0A1A\nNULL\n1"
    );
}

/// Debian's options of clients name the socket of the machine's own server.
#[test]
fn a_client_with_options_of_the_machine_finds_the_sandbox() {
    skip_without!(MariaDb);
    let home = tempfile::tempdir().unwrap();
    let db = start(&Snapshot::new(MariaDb::new().database("my-shop")));
    for (env, expected) in
        [(db.env(), "my-shop\troot@localhost\n"), (db.tcp().unwrap().env(), "my-shop\troot@%\n")]
    {
        let mut client = Command::new("mariadb");
        client.args(["--skip-column-names", "--execute", "SELECT database(), current_user()"]);
        let output = client.envs(env).env("HOME", home.path()).output().unwrap();
        assert_eq!(printed(&output), expected);
    }
}

/// Layers are copies of a data directory with holes, and each sandbox changes its copy.
#[test]
fn mariadb_check_finds_no_fault_in_a_sandbox() {
    skip_without!(MariaDb);
    let (_place, path) = files(&[
        (
            "a.sql",
            "CREATE TABLE a (id INT PRIMARY KEY, t VARCHAR(200), KEY (t));\nCREATE TABLE b LIKE a;\n\
             ALTER TABLE b ENGINE = Aria;\nINSERT INTO a SELECT seq, repeat('x', 100) FROM seq_1_to_20000;\n\
             INSERT INTO b SELECT * FROM a;\n",
        ),
        ("b.sql", "DELETE FROM a WHERE id % 3 = 0;\nUPDATE a SET t = id;\nOPTIMIZE TABLE b;\n"),
    ]);
    let db = start(&seeded(&path, "a.sql").seed(path.join("b.sql")));
    query(&db, "UPDATE a SET t = 'y' WHERE id < 9; DELETE FROM b WHERE id > 10");
    assert_eq!(query(&db, "SELECT count(*) FROM a"), "13334");
    let mut check = Command::new("mariadb-check");
    check.args(["--no-defaults", "--user=root", "--all-databases", "--extended"]).envs(db.env());
    let checked = printed(&check.output().unwrap());
    let tables: Vec<_> = checked.lines().filter(|line| !line.starts_with("note")).collect();
    assert!(tables.len() > 20 && tables.iter().all(|line| line.ends_with(" OK")), "{checked}");
    // Statistics are gathered once, and the work of the layer is done.
    let settled = "SELECT count(*) FROM mysql.innodb_table_stats WHERE table_name = 'a' AND n_rows > 13000";
    assert_eq!(query(&db, settled), "1");
}

#[test]
fn a_file_that_mariadb_refuses_fails_with_its_line() {
    skip_without!(MariaDb);
    let (_place, path) = files(&[
        ("syntax.sql", "CREATE TABLE a (id INT);\n\nSELECT 1,\n  2 FROM FROM a;\nSELECT 3;\n"),
        ("outer.sql", "SELECT 1;\nsource inner.sql\n"),
        ("inner.sql", "SELECT 1;\nSELECT 2;\nINSERT INTO missing VALUES (1);\n"),
        ("gone.sql", "SELECT 1;\nsource nowhere.sql\nSELECT 2;\n"),
        ("open.sql", "CREATE TABLE a (id INT);\nSTART TRANSACTION;\nINSERT INTO a VALUES (1);\n"),
        ("manual.sql", "CREATE TABLE a (id INT);\nSET autocommit = 0;\nINSERT INTO a VALUES (1);\n"),
        ("quote.sql", "SELECT 'a;\n"),
        ("users.csv", "id\n1\n"),
        ("table.sql", "CREATE TABLE users (id INT PRIMARY KEY, n INT)"),
    ]);
    for (name, expected) in [
        ("syntax.sql", &["syntax.sql:4`", "near 'FROM a'", "2 FROM FROM a"][..]),
        ("outer.sql", &["inner.sql:3`", "'test.missing' doesn't exist"]),
        ("gone.sql", &["gone.sql:2`", "Failed to open file 'nowhere.sql'"]),
        ("open.sql", &["open.sql`", "the file ends inside a transaction", "end it with `COMMIT;`"]),
        ("manual.sql", &["the file ends inside a transaction"]),
        ("quote.sql", &["quote.sql:1`", "syntax"]),
        ("users.csv", &["users.csv`", "Table 'test.users' doesn't exist", "named for its table"]),
    ] {
        let error = seeded(&path, name).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}");
        assert_says(&format!("{error:?}"), expected);
    }
    for (rows, expected) in [
        ("id,n\n1,1\n1,2\n", "Duplicate entry '1'"),
        ("id,n\n1,x\n", "Incorrect integer value: 'x'"),
        ("id,n\n1\n", "doesn't contain data for all columns"),
        ("id,n\n1,2,3\n", "more data"),
        ("id,n\n1,\"2\n", "a quote is not closed"),
        ("id,n\n1,2\"3\n4,\"5\"\n", "a quote"),
        ("id,n\r1,2\r", "carriage returns"),
    ] {
        std::fs::write(path.join("users.csv"), rows).unwrap();
        let error = seeded(&path, "table.sql").seed(path.join("users.csv")).start().expect_err(rows);
        assert_says(&format!("{error:?}"), &["users.csv", expected]);
    }
}

#[test]
fn objects_that_a_program_makes_by_tcp_stay_usable() {
    skip_without!(MariaDb);
    let view = "mariadb --no-defaults --user=root test --execute 'CREATE VIEW v AS SELECT 7 AS seven'";
    let db = start(&Snapshot::new(MariaDb::new()).run_tcp("sh", ["-c", view]));
    assert_eq!(query(&db, "SELECT seven FROM v"), "7");
    let locked = "SELECT json_value(priv, '$.account_locked') FROM mysql.global_priv WHERE host = '%'";
    assert_eq!(query(&db, locked), "1");
}

#[test]
fn settings_of_mariadb_name_its_variables() {
    skip_without!(MariaDb);
    let (_place, path) = files(&[("a.sql", "CREATE TABLE Upper (a TEXT)")]);
    let shown = "SELECT @@sql_mode, @@tx_isolation, @@max_allowed_packet, @@collation_database, @@system_time_zone, \
                 @@lower_case_table_names";
    let stock = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION\t\
                 REPEATABLE-READ\t16777216\tutf8mb4_general_ci\tUTC\t0";
    assert_eq!(query(&start(&seeded(&path, "a.sql")), shown), stock);
    let db = start(
        &seeded(&path, "a.sql")
            .setting("sql-mode", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES")
            .setting("collation_server", "latin1_german1_ci")
            .setting("character_set_server", "latin1")
            .setting("default_time_zone", "+02:00")
            .setting("lower_case_table_names", 1),
    );
    let shown = "SELECT @@sql_mode, @@collation_database, @@time_zone, (SELECT count(*) FROM UPPER)";
    assert_eq!(query(&db, shown), "ANSI_QUOTES,NO_BACKSLASH_ESCAPES\tlatin1_german1_ci\t+02:00\t0");
    assert_says(&query(&db, "SHOW CREATE TABLE upper"), &["latin1_german1_ci"]);
    for (name, value) in [("skip-grant-tables", "1"), ("datadir", "/x"), ("no such setting", "1")] {
        let error = Snapshot::new(MariaDb::new()).setting(name, value).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}");
    }
    let error = Snapshot::new(MariaDb::new()).setting("no_such_setting", 1).start().unwrap_err();
    assert_says(&format!("{error:?}"), &["unknown variable 'no_such_setting=1'"]);
}

#[test]
fn a_version_of_mariadb_is_chosen() {
    skip_without!(MariaDb);
    let version = MariaDb::new().locate().unwrap().version().to_owned();
    let number = version.split("Ver ").nth(1).unwrap().split('-').next().unwrap().to_owned();
    let db = start(&Snapshot::new(MariaDb::new()).version(&number));
    assert!(query(&db, "SELECT version()").starts_with(&number));
    let error = Snapshot::new(MariaDb::new()).version("4.1").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
    assert_says(&format!("{error:?}"), &["`mariadbd` of version 4.1", &number, "SANDBOXED_DB_MARIADB"]);
}

/// Many machines have MariaDB's server under MySQL's name.
#[test]
fn a_mysqld_of_mariadb_is_not_mysql() {
    if let Err(error) = MySql::new().locate() {
        assert_eq!(error.kind(), ErrorKind::NotInstalled);
        assert_says(&format!("{error:?}"), &["find `mysqld`", "SANDBOXED_DB_MYSQL"]);
    } else {
        assert!(!MySql::new().locate().unwrap().version().contains("MariaDB"));
    }
}

#[test]
fn names_of_databases_that_cannot_be_are_refused() {
    skip_without!(MariaDb);
    for name in ["", "mysql", "a/b", "a b", "..", "SYS"] {
        let error = Snapshot::new(MariaDb::new().database(name)).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}");
    }
    let lowered = Snapshot::new(MariaDb::new().database("Shop")).setting("lower_case_table_names", "1");
    assert_says(&format!("{:?}", lowered.start().unwrap_err()), &["no capital letters"]);
}

/// An attribute cannot skip a test.
#[test]
fn attributes_start_mariadb() {
    if !is_missing::<MariaDb>() {
        passed(&mut alone("mariadb::an_attribute_names_mariadb"));
    }
}

#[sandboxed_db(engine = MariaDb, migrations = "data/mariadb")]
#[ignore = "needs MariaDB, run by `attributes_start_mariadb`"]
fn an_attribute_names_mariadb(db: Sandbox<MariaDb>, url: String) {
    assert_eq!(query(&db, "SELECT name FROM users"), "ann");
    let socket = MariaDb::socket().below(&db.root());
    assert_eq!(url, format!("mysql://root@localhost/test?socket={}", socket.display()));
}

#[test]
fn resumed_servers_share_memory_until_they_write_to_it() {
    skip_without!(MariaDb);
    let resumes = |process: &mut Command| {
        process.env("SANDBOXED_DB_START", "checkpoint").env("SANDBOXED_DB_POOL", "0");
    };
    if !continues_alone(resumed_servers_share_memory_until_they_write_to_it, resumes) {
        return;
    }
    let snapshot = Snapshot::new(MariaDb::new());
    let is_resumed = |db: &Sandbox<MariaDb>| db.timings().start == ServerStart::Resumed;
    eventually(DEADLINE, "a server is resumed", || is_resumed(&start(&snapshot)).then_some(()));
    // Its launch has the memory read that later ones inherit.
    drop(start(&snapshot));
    let [one, other] = [(); 2].map(|()| start(&snapshot));
    assert!(is_resumed(&one) && is_resumed(&other));
    for db in [&one, &other] {
        let [server] = children(db.pid()).try_into().unwrap();
        let memory = std::fs::read_to_string(format!("/proc/{server}/smaps_rollup")).unwrap();
        // Pages of the image are clean, and pages without siblings are private.
        let shared = memory.lines().find_map(|line| line.strip_prefix("Shared_Dirty:")).unwrap();
        let kilobytes: u64 = shared.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kilobytes > 1024, "{memory}");
    }
    let fill = "CREATE TABLE t (a INT PRIMARY KEY, b TEXT); INSERT INTO t SELECT seq, seq FROM seq_1_to_9999";
    query(&one, fill);
    // The server gives memory back and takes it again.
    for megabytes in [16, 128] {
        query(&one, &format!("SET GLOBAL innodb_buffer_pool_size = {megabytes} << 20; DO SLEEP(0.2)"));
    }
    assert_says(&query(&one, "CHECK TABLE t; SELECT COUNT(*), SUM(b) FROM t"), &["OK", "9999\t49995000"]);
    assert_eq!(query(&other, "SHOW TABLES"), "");
}
