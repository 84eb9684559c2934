//! MariaDB beside the other ways to a database for each test: the same 40 migrations and query, on
//! this machine in one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sandboxed_db::{Engine, MariaDb, Sandbox, Snapshot};
use sqlx::migrate::Migrator;
use sqlx::testing::{TestArgs, TestFn};
use sqlx::{Connection, Executor, MySqlConnection, MySqlPool, Row};
use tempfile::TempDir;

use crate::Result;
use crate::figures::{Figures, Unit, by_another_process, concurrently, median};
use crate::peers::Settings;

/// The areas of a web shop; each has the migrations of [`STAGES`].
const AREAS: [&str; 8] =
    ["customer", "product", "warehouse", "shipment", "invoice", "payment", "review", "campaign"];
const STAGES: [&str; 5] = [
    "create table {area} (
    id bigint auto_increment primary key,
    name varchar(200) not null,
    {before}_id bigint,
    attributes json not null default '{}',
    created_at datetime not null default now(),
    updated_at datetime not null default now(),
    foreign key ({before}_id) references {before} (id)
) comment 'All of {area}, past and present';
",
    "create unique index {area}_name on {area} (name);
create index {area}_recent on {area} (created_at);
",
    "alter table {area} add column status enum ('draft', 'active', 'closed') not null default 'draft';
alter table {area} add constraint {area}_has_name check (name <> '');
",
    "create table {area}_event (
    {area}_id bigint not null,
    happened_at datetime not null default now(),
    kind varchar(50) not null,
    payload json,
    primary key ({area}_id, happened_at),
    foreign key ({area}_id) references {area} (id) on delete cascade
);
create view {area}_activity as
    select {area}.id, {area}.name, count({area}_event.kind) as events, max(happened_at) as latest
    from {area} left join {area}_event on {area}_event.{area}_id = {area}.id group by {area}.id;
",
    "create trigger {area}_touch before update on {area} for each row set new.updated_at = now();
insert into {area} (name) select concat('{area} ', seq) from seq_1_to_20;
",
];
/// The query of a test.
const QUERY: &str = "select count(*) from customer_activity";
/// A table of about 50 MB, as a dump has it.
const LARGE: &str = "create table large (id int primary key, text varchar(600));
insert into large select seq, repeat(md5(seq), 15) from seq_1_to_100000;
";
const LARGE_QUERY: &str = "select id from large where id = 77777";

/// Measures in another process, whose environment leads sqlx to the server that the others
/// share: by default a sandbox, whose files are in memory and whose settings are those of tests.
pub(crate) fn compare(quick: bool, settings: Settings) -> Result<Figures> {
    let measure = |url: &str| {
        by_another_process(|command| {
            let installed = matches!(settings, Settings::AsInstalled).then_some("--as-installed");
            let quick = quick.then_some("--quick");
            command.arg("--mariadb").args(quick).args(installed).env("DATABASE_URL", url);
        })
    };
    match settings {
        Settings::Fastest => {
            let snapshot = Snapshot::new(MariaDb::new()).disk(8 << 30).setting("max_connections", 500);
            measure(snapshot.start()?.url())
        }
        Settings::AsInstalled => {
            let place = place(settings)?;
            let data = place.path().join("shared");
            prepare(&data, None)?;
            let server = Server::start(&data, settings)?;
            measure(&server.url("test"))
        }
    }
}

pub(crate) fn measure(figures: &mut Figures, quick: bool, settings: Settings) -> Result<()> {
    let url = std::env::var("DATABASE_URL")?;
    let rounds = if quick { 8 } else { 40 };
    let directory = tempfile::tempdir()?;
    let migrations = write_migrations(&directory.path().join("migrations"))?;
    let dump = directory.path().join("dump.sql");
    fs::write(
        &dump,
        dump_of(&Snapshot::new(MariaDb::new()).seed(write(directory.path(), "large.sql", LARGE)?))?,
    )?;
    let contenders = [
        Contender::sandbox("sandbox", Snapshot::new(MariaDb::new()).migrations(&migrations), QUERY),
        Contender::sqlx_test(&migrations)?,
        Contender::replay(&url, &migrations)?,
        Contender::copied_server(&migrations, settings)?,
    ];
    compare_contenders(figures, "40 migrations", &contenders, rounds)?;
    let contenders = [
        Contender::sandbox("sandbox", Snapshot::new(MariaDb::new()).seed(&dump).disk(1 << 30), LARGE_QUERY),
        Contender::restore(&url, &dump),
    ];
    compare_contenders(figures, "dump of 50 MB", &contenders, rounds.div_ceil(4))
}

/// A way to a database for a test, up to the answer to its query.
struct Contender {
    name: &'static str,
    test: Box<dyn Fn() -> Result<()> + Sync>,
}

fn compare_contenders(
    figures: &mut Figures,
    what: &str,
    contenders: &[Contender],
    rounds: usize,
) -> Result<()> {
    for at_a_time in [1, 8] {
        let mut fastest: Option<f64> = None;
        let mut own = 0.0;
        for (index, way) in contenders.iter().enumerate() {
            (way.test)()?;
            let (times, took) = concurrently(rounds.max(at_a_time), at_a_time, || {
                let begin = Instant::now();
                (way.test)()?;
                Ok(begin.elapsed())
            })?;
            let each = median(&times).as_secs_f64();
            let title = format!("mariadb, {what}, {at_a_time} at a time, {}", way.name);
            let rate = times.len() as f64 / took.as_secs_f64();
            figures.distribution(&title, times);
            figures.push(format!("{title}: rate"), rate, Unit::PerSecond);
            match index {
                0 => own = each,
                _ => fastest = Some(fastest.map_or(each, |fastest| fastest.min(each))),
            }
        }
        let ratio = fastest.unwrap_or_default() / own;
        let title = format!("mariadb, {what}, {at_a_time} at a time: fastest other way / sandbox");
        figures.push(title, ratio, Unit::Count);
    }
    Ok(())
}

impl Contender {
    fn sandbox(name: &'static str, snapshot: Snapshot<MariaDb>, query: &'static str) -> Self {
        let test = move || {
            let db = snapshot.start()?;
            block_on(async { ask(&mut MySqlConnection::connect(db.url()).await?, query).await })
        };
        Self { name, test: Box::new(test) }
    }

    /// The calls to which `#[sqlx::test]` expands.
    fn sqlx_test(migrations: &Path) -> Result<Self> {
        let migrator: &'static Migrator =
            Box::leak(Box::new(block_on(async { Ok(Migrator::new(migrations).await?) })?));
        let number = AtomicUsize::new(0);
        let test = move || {
            // sqlx takes names as constants; each leaks a few bytes.
            let path: &'static str =
                Box::leak(format!("bench::t{}", number.fetch_add(1, Ordering::Relaxed)).into());
            let mut arguments = TestArgs::new(path);
            arguments.migrator(migrator);
            let function: fn(MySqlPool) -> _ = query_once;
            Ok(TestFn::run_test(function, arguments)?)
        };
        Ok(Self { name: "#[sqlx::test]", test: Box::new(test) })
    }

    /// Makes a database and runs all files in it.
    fn replay(url: &str, migrations: &Path) -> Result<Self> {
        let (files, databases) = (read(migrations)?, Databases::of(url));
        let test = move || {
            databases.with(|url, _| {
                block_on(async {
                    let mut connection = MySqlConnection::connect(url).await?;
                    for file in &files {
                        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(file.as_str()))).await?;
                    }
                    ask(&mut connection, QUERY).await
                })
            })
        };
        Ok(Self { name: "create a database, run the files", test: Box::new(test) })
    }

    /// Makes a database and runs a dump in it by the client.
    fn restore(url: &str, dump: &Path) -> Self {
        let (dump, databases, socket) = (dump.to_owned(), Databases::of(url), socket_of(url));
        let test = move || {
            databases.with(|url, name| {
                let mut client = Command::new("mariadb");
                client.args(["--no-defaults", "--user=root", &format!("--socket={socket}"), name]);
                succeed(client.stdin(fs::File::open(&dump)?))?;
                block_on(async { ask(&mut MySqlConnection::connect(url).await?, LARGE_QUERY).await })
            })
        };
        Self { name: "mariadb < dump", test: Box::new(test) }
    }

    /// Starts an installed server on a copy of a prepared data directory, as containers do it.
    fn copied_server(migrations: &Path, settings: Settings) -> Result<Self> {
        let place = place(settings)?;
        let prepared = place.path().join("prepared");
        prepare(&prepared, Some(migrations))?;
        let number = AtomicUsize::new(0);
        let test = move || {
            let data = place.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
            succeed(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&prepared).arg(&data))?;
            let server = Server::start(&data, settings)?;
            block_on(async { ask(&mut server.connect("test").await?, QUERY).await })
        };
        Ok(Self { name: "server on a copied directory", test: Box::new(test) })
    }
}

/// Databases of a shared server.
struct Databases {
    url: String,
    number: AtomicUsize,
}

impl Databases {
    fn of(url: &str) -> Self {
        Self { url: url.to_owned(), number: AtomicUsize::new(0) }
    }

    /// Makes a database, and drops it after `work`.
    fn with(&self, work: impl FnOnce(&str, &str) -> Result<()>) -> Result<()> {
        let name = format!("bench_{}", self.number.fetch_add(1, Ordering::Relaxed));
        let run = |sql: String| {
            block_on(async {
                let mut connection = MySqlConnection::connect(&self.url).await?;
                connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await?;
                Ok(())
            })
        };
        run(format!("create database {name}"))?;
        let (begin, parameters) = self.url.split_once("/test?").ok_or("the URL has no database")?;
        work(&format!("{begin}/{name}?{parameters}"), &name)?;
        run(format!("drop database {name}"))
    }
}

/// A server outside of a sandbox.
struct Server {
    process: Child,
    socket: PathBuf,
}

impl Server {
    /// Starts a server: at its fastest with settings for data that nobody will miss.
    fn start(data: &Path, settings: Settings) -> Result<Self> {
        let socket = data.join("socket");
        let mut command = Command::new(MariaDb::new().locate()?.server());
        command.args(["--no-defaults", "--skip-networking", "--user=root", "--skip-grant-tables"]);
        if matches!(settings, Settings::Fastest) {
            command
                .args([
                    "--innodb-flush-log-at-trx-commit=0",
                    "--innodb-doublewrite=0",
                    "--innodb-flush-method=nosync",
                ])
                .args(["--innodb-log-file-size=16M", "--innodb-use-native-aio=0"]);
        }
        command
            .arg("--innodb-fast-shutdown=0")
            .arg("--max-connections=500")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", data.join("pid").display()));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Self { process, socket };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(&server.socket).is_err() {
            if Instant::now() > deadline {
                return Err("the installed server does not start".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(server)
    }

    fn url(&self, database: &str) -> String {
        format!("mysql://root@localhost/{database}?socket={}", self.socket.display())
    }

    async fn connect(&self, database: &str) -> Result<MySqlConnection> {
        Ok(MySqlConnection::connect(&self.url(database)).await?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(data) = self.socket.parent() {
            let _ = fs::remove_dir_all(data);
        }
    }
}

/// Makes a directory for servers outside of sandboxes: in memory if they are to be fast.
fn place(settings: Settings) -> Result<TempDir> {
    Ok(match settings {
        Settings::Fastest => tempfile::tempdir_in("/dev/shm")?,
        Settings::AsInstalled => tempfile::tempdir_in("/var/tmp")?,
    })
}

/// Initialises a data directory with an empty database, and runs the migrations in it.
fn prepare(data: &Path, migrations: Option<&Path>) -> Result<()> {
    let mut install = Command::new("mariadb-install-db");
    install.args(["--no-defaults", "--skip-test-db", "--user=root", "--innodb-log-file-size=16M"]);
    succeed(install.arg(format!("--datadir={}", data.display())).stdout(Stdio::null()))?;
    let copy = data.with_extension("copy");
    fs::rename(data, &copy)?;
    let mut server = Server::start(&copy, Settings::Fastest)?;
    block_on(async {
        let mut connection = server.connect("mysql").await?;
        connection.execute(sqlx::raw_sql("create database test; use test")).await?;
        for file in migrations.map(read).transpose()?.unwrap_or_default() {
            connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(file))).await?;
        }
        connection.execute(sqlx::raw_sql("shutdown")).await?;
        Ok(())
    })?;
    server.process.wait()?;
    fs::rename(&copy, data)?;
    Ok(())
}

/// Dumps a sandbox's database by the database's own program.
fn dump_of(snapshot: &Snapshot<MariaDb>) -> Result<Vec<u8>> {
    let db: Sandbox<MariaDb> = snapshot.clone().disk(1 << 30).start()?;
    let mut dump = Command::new("mariadb-dump");
    dump.args(["--no-defaults", "--user=root", &format!("--socket={}", socket_of(db.url())), "test"]);
    let output = dump.stderr(Stdio::inherit()).output()?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("could not dump the database: {}", output.status).into()),
    }
}

fn socket_of(url: &str) -> String {
    url.split_once("socket=").map(|(_, socket)| socket.replace("%2F", "/")).unwrap_or_default()
}

fn write_migrations(directory: &Path) -> Result<PathBuf> {
    fs::create_dir(directory)?;
    for (index, area) in AREAS.iter().enumerate() {
        let before = AREAS[index.saturating_sub(1)];
        for (stage, sql) in STAGES.iter().enumerate() {
            let sql = sql.replace("{area}", area).replace("{before}", before);
            write(directory, &format!("{:04}_{area}.sql", index * STAGES.len() + stage + 1), &sql)?;
        }
    }
    Ok(directory.to_owned())
}

fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

/// Reads the files of a directory in the order of their names.
fn read(directory: &Path) -> Result<Vec<String>> {
    let mut paths: Vec<_> =
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths.into_iter().map(fs::read_to_string).collect::<Result<_, _>>()?)
}

fn succeed(command: &mut Command) -> Result<()> {
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(format!("could not run `{command:?}`: {status}").into()),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

async fn ask(connection: &mut MySqlConnection, query: &'static str) -> Result<()> {
    match sqlx::query(query).fetch_one(connection).await?.is_empty() {
        false => Ok(()),
        true => Err(format!("`{query}` has no answer").into()),
    }
}

async fn query_once(pool: MySqlPool) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    sqlx::query(QUERY).fetch_one(&mut *connection).await.map(drop)
}
