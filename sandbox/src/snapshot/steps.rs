//! The methods that add steps to a description.

use std::panic::Location;
use std::path::{Path, PathBuf};

use super::Snapshot;
use crate::engine::{Engine, Scripts, Sql};
use crate::migration::MigrationTool;
#[cfg(feature = "tokio")]
use crate::sandbox::Sandbox;
#[cfg(feature = "tokio")]
use crate::step::CodeStep;
use crate::step::{Address, Language, ProgramStep, Step, StepPath};

impl<E: Engine> Snapshot<E> {
    /// Adds migrations: a directory of SQL files, each run by the database's client, such as
    /// psql(1), in its own session.
    ///
    /// The outcome is a layer. Files that are added at the end run on the layer of the earlier
    /// files.
    ///
    /// # Tools
    /// A directory in the layout of exactly one tool runs as that tool runs it, and the tool's
    /// bookkeeping table is filled. So an application that migrates when it starts finds all
    /// migrations applied:
    ///
    /// | in the directory | tool | table |
    /// |---|---|---|
    /// | `<version>_<name>/up.sql` | Diesel | `__diesel_schema_migrations` |
    /// | `<name>/migration.sql` and `migration_lock.toml` | Prisma | `_prisma_migrations` |
    /// | `V<version>__<name>.sql`, `U<version>__<name>.sql` | refinery | `refinery_schema_history` |
    /// | `V1.1__<name>.sql`, `R__<name>.sql`, or `U1__` beside `V1__` | Flyway | none |
    /// | `.sql` files with `-- migrate:up` in each | dbmate | `schema_migrations` |
    /// | `.sql` files with `-- +goose Up` in each | goose | `goose_db_version` |
    /// | `.sql` files with `-- Up Migration` | node-pg-migrate | `pgmigrations` |
    /// | `.sql` files with `---- create above / drop below ----` | tern | `schema_version` |
    /// | `YYYYMMDDHHMMSS_<name>.sql` only, in a package with the dependency sqlx | sqlx | `_sqlx_migrations` |
    ///
    /// In any other directory each `.sql` file runs as a whole: in the order of the numbers if each
    /// name begins with a number and an underscore, else in the order of the names. No table is
    /// made, and no transaction surrounds a file. The down migration of a pair, such as
    /// `x.down.sql` beside `x.up.sql`, is left out; any other file that may hold a down migration
    /// is refused. Other files of sqlx, and those of golang-migrate, look like those of many tools:
    /// name the tool by [`migrations_of`](Self::migrations_of).
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a directory without
    /// migrations, for a mixture of two tools' files, and for files that the tool itself refuses,
    /// such as two migrations of one version.
    #[must_use]
    #[track_caller]
    pub fn migrations(self, directory: impl Into<PathBuf>) -> Self
    where
        E: Sql,
    {
        let directory = self.step_path(directory.into(), Location::caller());
        self.step(Step::Migrations(directory, None, Language::of_sql()))
    }

    /// Adds migrations that are written for a tool, and fills its bookkeeping table under its
    /// default name in the default schema. Files that the tool ignores are ignored.
    ///
    /// The tool itself does not run. A text that the tool sends to the server as one request is
    /// sent as one request here, so a file that the tool cannot run fails here as well. One
    /// difference remains: each file has its own session, so a setting that one file changes does
    /// not reach the next file.
    ///
    /// # Errors
    /// As [`migrations`](Self::migrations).
    ///
    /// # Example
    /// ```no_run
    /// use sandboxed_db::{MigrationTool, Postgres, Snapshot};
    /// # fn main() -> sandboxed_db::Result<()> {
    /// let db = Snapshot::new(Postgres::new()).migrations_of(MigrationTool::Sqlx, "migrations").start()?;
    /// // `sqlx::migrate!().run(…)` on `db.url()` finds nothing to do.
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[track_caller]
    pub fn migrations_of(self, tool: MigrationTool, directory: impl Into<PathBuf>) -> Self
    where
        E: Sql,
    {
        let directory = self.step_path(directory.into(), Location::caller());
        self.step(Step::Migrations(directory, Some(tool), Language::of_sql()))
    }

    /// Adds a seed: a file that fills the database. The outcome is a layer.
    ///
    /// | file | contents | how it is loaded |
    /// |---|---|---|
    /// | `users.csv` | rows of the table `users`; `shop.users.csv` is of `users` in the schema `shop` | into the columns that its first line names, in PostgreSQL by `COPY`, which is required; an unquoted empty value is `NULL`; sequences of serial and identity columns continue after the largest value |
    /// | made by pg_dump(1) in its custom, directory or tar format, whatever its name | objects and rows | by pg_restore(1), which ends at the first error |
    /// | any other | SQL, with everything that the database's client accepts; in PostgreSQL that is psql(1), with `COPY … FROM stdin` and its data, and `\ir` of further files | by the client, in a separate session |
    ///
    /// Files of SQL and of rows may be compressed: `.gz` by gzip(1), `.zst` by zstd(1). Text is
    /// UTF-8 unless the file chooses another client encoding.
    ///
    /// An archive keeps its owners and privileges: an earlier step must create the roles that it
    /// names.
    ///
    /// The outcome is cached until the file changes, so the values of `now()` and `random()` in a
    /// seed stay those of the layer's build; see [`max_age`](Self::max_age).
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a file that cannot be
    /// read, and for a file that the database refuses.
    #[must_use]
    #[track_caller]
    pub fn seed(self, file: impl Into<PathBuf>) -> Self
    where
        E: Scripts,
    {
        let file = self.step_path(file.into(), Location::caller());
        self.step(Step::Seed(file, Language::of_scripts()))
    }

    /// Adds a program that prepares the database from outside, such as a migration tool. The
    /// outcome is a layer.
    ///
    /// The program runs in the directory of the package whose source adds the step, with the
    /// variables of [`Sandbox::env`](crate::Sandbox::env), such as `DATABASE_URL`. Variables of the
    /// user's environment that lead to another server (`PG…`) are removed. The program must succeed
    /// within [`build_timeout`](Self::build_timeout).
    ///
    /// The layer is found by the program's name and arguments. Declare all other inputs by
    /// [`depends_on`](Self::depends_on) before this step; otherwise the library does not notice
    /// their changes.
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) with the end of the program's
    /// output if it fails, and [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if it does not
    /// end.
    ///
    /// # Example
    /// ```no_run
    /// use sandboxed_db::{Postgres, Snapshot};
    /// let db = Snapshot::new(Postgres::new())
    ///     .depends_on(["migrations", "alembic.ini"])
    ///     .run("alembic", ["upgrade", "head"])
    ///     .start();
    /// ```
    #[must_use]
    #[track_caller]
    pub fn run<A: Into<String>>(self, program: impl Into<String>, args: impl IntoIterator<Item = A>) -> Self {
        self.program(program.into(), args, Address::Socket, Location::caller())
    }

    /// Adds a program as [`run`](Self::run) does, but its environment leads to a TCP port of
    /// 127.0.0.1 instead of the Unix socket: for programs that cannot use Unix sockets, such as
    /// those with a JDBC driver.
    ///
    /// The variables are those of [`Tcp::env`](crate::Tcp::env). The superuser has a password while
    /// the program runs, and none afterwards.
    ///
    /// # Errors
    /// As [`run`](Self::run), and as [`Sandbox::tcp`](crate::Sandbox::tcp).
    ///
    /// # Example
    /// ```no_run
    /// use sandboxed_db::{Postgres, Snapshot};
    /// let db = Snapshot::new(Postgres::new())
    ///     .depends_on(["migrations"])
    ///     .run_tcp("sh", ["-c", "goose -dir migrations postgres \"$DATABASE_URL\" up"])
    ///     .start();
    /// ```
    #[must_use]
    #[track_caller]
    pub fn run_tcp<A: Into<String>>(
        self,
        program: impl Into<String>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        self.program(program.into(), args, Address::Tcp, Location::caller())
    }

    /// Declares files and directories on which the steps after this one depend. If a name or a byte
    /// in them changes, those steps run again. [`run`](Self::run) and [`prepare`](Self::prepare)
    /// need this, because the library cannot find their inputs itself.
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a path that cannot be
    /// read.
    #[must_use]
    #[track_caller]
    pub fn depends_on<P: Into<PathBuf>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        let base = self.base(Location::caller());
        let paths = paths.into_iter().map(|path| StepPath::new(path.into(), base.clone()));
        self.step(Step::Inputs(paths.collect()))
    }

    /// Adds Rust code: an `async fn` or closure that prepares the database, such as a call of a
    /// migrator. The outcome is a layer, found by `key`.
    ///
    /// The code runs when the layer is built, on its own thread and tokio runtime, within
    /// [`build_timeout`](Self::build_timeout).
    ///
    /// # The key must change with the code
    /// The library cannot see what the code does. It uses a layer with the same key and the same
    /// earlier steps, even if the code has changed since. Therefore write a version into the key
    /// (`"shop-schema-3"`), or declare the files that matter by [`depends_on`](Self::depends_on),
    /// including the code's own source and Cargo.lock. Different code needs different keys.
    /// `SANDBOXED_DB_REBUILD=1` in CI finds a forgotten change.
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) with the code's error or panic
    /// message, and [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if it does not end.
    ///
    /// # Example
    /// ```no_run
    /// use sandboxed_db::{Postgres, Sandbox, Snapshot};
    /// # mod migrator { pub async fn up(_url: &str) -> Result<(), std::io::Error> { Ok(()) } }
    /// let db = Snapshot::new(Postgres::new())
    ///     .depends_on(["src/migrator", "Cargo.lock"])
    ///     .prepare("shop-schema", async |db: &Sandbox| migrator::up(db.url()).await)
    ///     .start();
    /// ```
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn prepare<F, X>(self, key: impl Into<String>, code: F) -> Self
    where
        F: AsyncFn(&Sandbox<E>) -> Result<(), X> + Send + Sync + 'static,
        X: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.step(Step::Code(CodeStep::new(key.into(), code)))
    }

    /// Adds migrations that the attribute found in the package.
    pub(crate) fn found_migrations(self, directory: &Path) -> Self
    where
        E: Sql,
    {
        let directory = StepPath::found(directory.to_owned(), self.package.clone());
        self.step(Step::Migrations(directory, None, Language::of_sql()))
    }

    fn step(mut self, step: Step<E>) -> Self {
        self.steps.push(step);
        self
    }

    fn program<A: Into<String>>(
        self,
        program: String,
        args: impl IntoIterator<Item = A>,
        address: Address,
        caller: &'static Location<'static>,
    ) -> Self {
        let (args, base) = (args.into_iter().map(Into::into).collect(), self.base(caller));
        self.step(Step::Program(ProgramStep::new(program, args, base, address)))
    }

    fn step_path(&self, path: PathBuf, caller: &'static Location<'static>) -> StepPath {
        StepPath::new(path, self.base(caller))
    }
}
