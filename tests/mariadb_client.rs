//! MariaDB as the tests of all engines use it, by the client of the host.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Command;

use sandboxed_db::{MariaDb, Sandbox, Tcp};

use crate::TestedEngine;

/// Runs statements by the client of the host, which finds the server by this environment.
///
/// # Errors
/// The client's report.
///
/// # Panics
/// If the host has no client.
pub fn mariadb(env: &[(String, String)], sql: &str) -> Result<String, String> {
    let database = env.iter().find(|(name, _)| name == "MYSQL_DATABASE").map(|(_, name)| name.as_str());
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--user=root", "--skip-column-names", "--batch", "--execute", sql]);
    let run = client.args(database).envs(env.iter().cloned()).output().expect("a client");
    match run.status.success() {
        true => Ok(String::from_utf8_lossy(&run.stdout).trim_end().to_owned()),
        false => Err(String::from_utf8_lossy(&run.stderr).into_owned()),
    }
}

fn query(db: &Sandbox<MariaDb>, sql: &str) -> Result<String, String> {
    mariadb(&db.env(), sql)
}

impl TestedEngine for MariaDb {
    fn engine() -> Self {
        Self::new()
    }

    const CLIENT: Option<&str> = Some("mariadb");
    const SEED: &str = "CREATE TABLE store (name VARCHAR(100) PRIMARY KEY, value TEXT);\nINSERT INTO store VALUES ('seed', 'seeded');\n";
    const SEED_NAME: &str = "store.sql";
    const SETTING: (&str, &str) = ("sort_buffer_size", "524288");

    fn answers(db: &Sandbox<Self>) -> bool {
        query(db, "SELECT 1").is_ok()
    }

    fn set(db: &Sandbox<Self>, key: &str, value: &str) -> Result<(), String> {
        query(db, &format!("REPLACE INTO store VALUES ('{key}', '{value}')")).map(drop)
    }

    fn get(db: &Sandbox<Self>, key: &str) -> Result<Option<String>, String> {
        let value = query(db, &format!("SELECT value FROM store WHERE name = '{key}'"))?;
        Ok(Some(value).filter(|value| !value.is_empty()))
    }

    fn setting(db: &Sandbox<Self>, name: &str) -> String {
        query(db, &format!("SELECT @@{name}")).expect("the setting exists")
    }

    fn write_to_disk(db: &Sandbox<Self>, size: usize) -> Result<(), String> {
        // Random text does not compress.
        let sql = format!(
            "CREATE OR REPLACE TABLE loot AS SELECT md5(rand()) AS a, md5(rand()) AS b FROM seq_1_to_{}",
            size / 64
        );
        query(db, &sql).map(drop)
    }

    fn check(db: &Sandbox<Self>) -> Result<(), String> {
        let tables = query(db, "CHECK TABLE store, mysql.global_priv, mysql.innodb_table_stats EXTENDED")?;
        match tables.lines().all(|line| line.ends_with("\tOK")) {
            true => Ok(()),
            false => Err(tables),
        }
    }

    /// The salt of a new connection, and what SQL draws.
    fn draw(db: &Sandbox<Self>) -> Result<Vec<String>, String> {
        // Number, version, id of the connection, and the first part of the salt.
        let mut greeting = [0; 256];
        let socket = Self::socket().below(&db.root());
        let mut stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
        let length = stream.read(&mut greeting).map_err(|error| error.to_string())?;
        let version = 5;
        let end = greeting[version..length].iter().position(|byte| *byte == 0).expect("a version");
        let salt = version + end + 1 + 4;
        let salt = format!("{:?}", &greeting[salt..salt + 8]);
        Ok(vec![salt, query(db, "SELECT uuid()")?, query(db, "SELECT hex(random_bytes(16))")?])
    }

    fn seed_by_tcp(tcp: &Tcp, password: &str) -> Result<String, String> {
        let mut env = tcp.env();
        env.retain(|(name, _)| name != "MYSQL_PWD");
        env.push(("MYSQL_PWD".to_owned(), password.to_owned()));
        mariadb(&env, "SELECT value FROM store WHERE name = 'seed'")
    }
}
