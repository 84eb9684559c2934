//! MariaDB and MySQL as the tests of all engines use them, by their clients.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandboxed_db::{Engine, MariaDb, MySql, Sandbox, Tcp};

use crate::{TestedEngine, connections};

/// Runs statements by MariaDB's client of the host, which finds the server by this environment.
pub fn mariadb(env: &[(String, String)], sql: &str) -> Result<String, String> {
    run("mariadb".as_ref(), env, sql)
}

fn run(client: &Path, env: &[(String, String)], sql: &str) -> Result<String, String> {
    let database = env.iter().find(|(name, _)| name == "MYSQL_DATABASE").map(|(_, name)| name.as_str());
    let mut client = Command::new(client);
    client.args(["--no-defaults", "--user=root", "--skip-column-names", "--batch", "--execute", sql]);
    let run = client.args(database).envs(env.iter().cloned()).output().expect("a client");
    match run.status.success() {
        true => Ok(String::from_utf8_lossy(&run.stdout).trim_end().to_owned()),
        false => Err(String::from_utf8_lossy(&run.stderr).into_owned()),
    }
}

/// The two engines, which differ in the names of their programs.
trait Client: TestedEngine {
    /// Tables of the server itself.
    const TABLES: &str;

    /// The client's program.
    fn client() -> PathBuf;

    fn query(db: &Sandbox<Self>, sql: &str) -> Result<String, String> {
        run(&Self::client(), &db.env(), sql)
    }
}

impl Client for MariaDb {
    const TABLES: &str = "mysql.global_priv, mysql.innodb_table_stats";

    fn client() -> PathBuf {
        "mariadb".into()
    }
}

impl Client for MySql {
    const TABLES: &str = "mysql.user, mysql.innodb_table_stats";

    fn client() -> PathBuf {
        Self::new().locate().expect("MySQL is installed").program("mysql")
    }
}

macro_rules! tested {
    ($engine:ident; $($constant:item)*) => {
        impl TestedEngine for $engine {
            $($constant)*
            const SEED: &str = "CREATE TABLE store (name VARCHAR(100) PRIMARY KEY, value TEXT);\nINSERT INTO store VALUES ('seed', 'seeded');\n";
            const SEED_NAME: &str = "store.sql";
            const SETTING: (&str, &str) = ("sort_buffer_size", "524288");

            fn engine() -> Self {
                Self::new()
            }

            fn answers(db: &Sandbox<Self>) -> bool {
                Self::query(db, "SELECT 1").is_ok()
            }

            fn set(db: &Sandbox<Self>, key: &str, value: &str) -> Result<(), String> {
                Self::query(db, &format!("REPLACE INTO store VALUES ('{key}', '{value}')")).map(drop)
            }

            fn get(db: &Sandbox<Self>, key: &str) -> Result<Option<String>, String> {
                let value = Self::query(db, &format!("SELECT value FROM store WHERE name = '{key}'"))?;
                Ok(Some(value).filter(|value| !value.is_empty()))
            }

            fn setting(db: &Sandbox<Self>, name: &str) -> String {
                Self::query(db, &format!("SELECT @@{name}")).expect("the setting exists")
            }

            fn write_to_disk(db: &Sandbox<Self>, size: usize) -> Result<(), String> {
                Self::query(db, &loot(size)).map(drop)
            }

            fn save(db: &Sandbox<Self>) -> Result<(), String> {
                let sql = "SET GLOBAL innodb_flush_log_at_trx_commit = 1; \
                           REPLACE INTO store VALUES ('saved', '')";
                Self::query(db, sql).map(drop)
            }

            fn check(db: &Sandbox<Self>) -> Result<(), String> {
                let checked = Self::query(db, &format!("CHECK TABLE store, {} EXTENDED", Self::TABLES))?;
                match checked.lines().all(|line| line.ends_with("\tOK")) {
                    true => Ok(()),
                    false => Err(checked),
                }
            }

            fn draw(db: &Sandbox<Self>) -> Result<Vec<String>, String> {
                let drawn = ["SELECT uuid()", "SELECT hex(random_bytes(16))"].map(|sql| Self::query(db, sql));
                let drawn = drawn.into_iter().collect::<Result<Vec<_>, _>>()?;
                Ok([vec![salt(&Self::socket().below(&db.root()))?], drawn].concat())
            }

            fn check_files(db: &Sandbox<Self>, _data: &Path) -> Result<(), String> {
                Self::check(db)
            }

            fn take_memory(db: &Sandbox<Self>) {
                let _ = Self::query(db, &take_memory());
            }

            fn take_processes(db: &Sandbox<Self>) {
                connections(&Self::socket().below(&db.root()));
            }

            fn seed_by_tcp(tcp: &Tcp, password: &str) -> Result<String, String> {
                let mut env = tcp.env();
                env.retain(|(name, _)| name != "MYSQL_PWD");
                env.push(("MYSQL_PWD".to_owned(), password.to_owned()));
                run(&Self::client(), &env, "SELECT value FROM store WHERE name = 'seed'")
            }
        }
    };
}

tested!(MariaDb; const CLIENT: Option<&str> = Some("mariadb"););
tested!(MySql; const IS_RARE: bool = true;);

/// Returns the first part of the salt of a new connection.
fn salt(socket: &Path) -> Result<String, String> {
    // Number, version, id of the connection, and the salt.
    let mut greeting = [0; 256];
    let mut stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
    let length = stream.read(&mut greeting).map_err(|error| error.to_string())?;
    let version = 5;
    let end = greeting[version..length].iter().position(|byte| *byte == 0).expect("a version");
    let salt = version + end + 1 + 4;
    Ok(format!("{:?}", &greeting[salt..salt + 8]))
}

/// Many rows in each server.
const MANY: &str = "information_schema.collations AS one, information_schema.collations AS two, \
                    information_schema.collations AS three";

/// Makes a table of random text, which does not compress.
fn loot(size: usize) -> String {
    format!(
        "DROP TABLE IF EXISTS loot; \
         CREATE TABLE loot AS SELECT md5(rand()) AS a, md5(rand()) AS b FROM {MANY} LIMIT {}",
        size / 64
    )
}

/// Makes a table in memory, with rows of a kilobyte.
fn take_memory() -> String {
    format!(
        "SET SESSION max_heap_table_size = 2147483648; \
         CREATE TABLE heap (a CHAR(250)) CHARACTER SET utf8mb4 ENGINE = MEMORY; \
         INSERT INTO heap SELECT 'x' FROM {MANY} LIMIT 1000000"
    )
}
