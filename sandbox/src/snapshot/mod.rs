//! The description of a prepared database: an engine and the steps that lead to it.

mod bounds;
mod start;

use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::{Engine, Postgres, Scripts, Sql};
use crate::kept::Keep;
use crate::launch::Limits;
use crate::migration::MigrationTool;
use crate::sandbox::ImageReference;
#[cfg(feature = "tokio")]
use crate::sandbox::Sandbox;
#[cfg(feature = "tokio")]
use crate::step::CodeStep;
use crate::step::{Address, Base, Language, ProgramStep, Step, StepPath};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const BUILD_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const DISK: u64 = 1 << 30;

/// A description of a prepared database, from which any number of pristine servers start.
///
/// A description does nothing by itself. The first start runs the steps and stores the outcome as a
/// layer in the cache. Every further start, in this process or another, uses the layer. A layer is
/// found by the contents of all files, so a changed file makes another layer. A damaged layer is
/// detected before use and rebuilt. `SANDBOXED_DB_REBUILD=1` rebuilds all layers once a run.
///
/// The cache directory is `SANDBOXED_DB_CACHE`, else `sandboxed-db` in `XDG_CACHE_HOME`, else
/// `~/.cache/sandboxed-db`.
///
/// # Example
/// ```no_run
/// use sandboxed_db::{Postgres, Snapshot};
/// # fn main() -> sandboxed_db::Result<()> {
/// let shop = Snapshot::new(Postgres::new()).migrations("migrations").seed("seeds/shop.sql");
/// let one = shop.start()?;
/// let other = shop.start()?;
/// assert_ne!(one.url(), other.url());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Snapshot<E: Engine = Postgres> {
    engine: E,
    version: Option<String>,
    packages: Vec<String>,
    image: Option<ImageReference>,
    locked: bool,
    steps: Vec<Step<E>>,
    settings: Vec<(String, String)>,
    tls: bool,
    /// Where relative paths start; none for the package whose source holds the call.
    base: Option<Base>,
    /// The package under test.
    package: PathBuf,
    start_timeout: Duration,
    build_timeout: Duration,
    max_age: Option<Duration>,
    disk: u64,
    limits: Limits,
    keep: Keep,
    keep_as: Option<String>,
}

impl<E: Engine> Snapshot<E> {
    /// Describes a fresh server of the engine, without steps.
    ///
    /// Relative paths of a step start at the directory of the package whose source adds the step,
    /// so a support crate finds its own files. Where that source file is not found any more they
    /// start at the package under test (`CARGO_MANIFEST_DIR`), else at the working directory. The
    /// error of a missing file names the directory and the reason.
    /// [`relative_to`](Self::relative_to) sets another directory.
    #[must_use]
    pub fn new(engine: E) -> Self {
        Self {
            engine,
            version: None,
            packages: Vec::new(),
            image: None,
            locked: false,
            steps: Vec::new(),
            settings: Vec::new(),
            tls: false,
            base: None,
            package: std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default(),
            start_timeout: START_TIMEOUT,
            build_timeout: BUILD_TIMEOUT,
            max_age: None,
            disk: DISK,
            limits: Limits::default(),
            keep: Keep::default(),
            keep_as: None,
        }
    }

    /// Sets the directory at which relative paths of the steps added from here on start. Default:
    /// the directory of the package whose source adds the step.
    #[must_use]
    pub fn relative_to(mut self, directory: impl Into<PathBuf>) -> Self {
        self.base = Some(Base::given(directory.into()));
        self
    }

    /// Extends the description for a test of the package that was compiled in this directory.
    pub(crate) fn for_package(mut self, compiled_in: &Path) -> Self {
        // Cargo and nextest know where the package is now.
        if self.package.as_os_str().is_empty() {
            self.package = compiled_in.to_owned();
        }
        let package = self.package.clone();
        self.relative_to(package)
    }

    /// Returns the directory of the package under test.
    pub(crate) fn package_directory(&self) -> &Path {
        &self.package
    }

    /// Adds migrations that the attribute found in the package.
    pub(crate) fn found_migrations(self, directory: &Path) -> Self
    where
        E: Sql,
    {
        let directory = StepPath::found(directory.to_owned(), self.package.clone());
        self.step(Step::Migrations(directory, None, Language::of_sql()))
    }

    /// Returns the advice for a test whose migrations ran a second time, since no bookkeeping table
    /// records the first, as this log of its server shows.
    pub(crate) fn migrated_twice(&self, log: &str) -> Option<String> {
        if !log.lines().any(|line| line.contains("ERROR:") && line.ends_with(" already exists")) {
            return None;
        }
        let directory = self.steps.iter().find_map(|step| step.unrecorded_migrations(&self.engine))?;
        Some(format!(
            "the migrations in `{directory}` ran before the test, and no bookkeeping table tells a migrator: name their tool, \
             as in `migrations_of(Sqlx, \"{directory}\")`",
            directory = directory.display()
        ))
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

    fn base(&self, caller: &'static Location<'static>) -> Base {
        self.base.clone().unwrap_or_else(|| Base::of(caller))
    }

    fn step_path(&self, path: PathBuf, caller: &'static Location<'static>) -> StepPath {
        StepPath::new(path, self.base(caller))
    }

    /// Requests a version of the server, such as `15` or `15.18`. Default: the engine's choice.
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::NotInstalled`](crate::ErrorKind::NotInstalled) for a version that is not
    /// installed, and [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for an engine
    /// without versions.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Adds a package of the distribution on top of the server, such as an extension that is not
    /// installed. Only on Debian, Ubuntu and their kin.
    ///
    /// The first start has apt-get(8) download the package and its dependencies from the machine's
    /// sources and check them against their signed lists, and unpacks them into the cache. No
    /// script of a package runs, nothing is installed, and root is not needed. All servers of the
    /// description see the packages over the machine's `/usr`, with an installed server as with one
    /// from [packages](crate::environment). Later starts use the unpacked packages as they are,
    /// without a network. Layers depend on the packages' names, versions and contents.
    ///
    /// `name=version` asks for one version. An extension that must be loaded when the server starts
    /// needs its [setting](Self::setting) too, such as `shared_preload_libraries`.
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a package that the
    /// distribution does not have, that is made for another version of the server, or that is to be
    /// used with a server that is not the distribution's;
    /// [`ErrorKind::NotInstalled`](crate::ErrorKind::NotInstalled) if it cannot be downloaded.
    ///
    /// # Example
    /// ```no_run
    /// use sandboxed_db::{Postgres, Snapshot};
    /// let db = Snapshot::new(Postgres::new().version("15"))
    ///     .package("postgresql-15-postgis-3")
    ///     .migrations("migrations")
    ///     .start();
    /// ```
    #[must_use]
    pub fn package(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.packages.contains(&name) {
            self.packages.push(name);
        }
        self
    }

    /// Adds several packages, as [`package`](Self::package) does.
    #[must_use]
    pub fn packages<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        names.into_iter().fold(self, Self::package)
    }

    /// Runs the server of an OCI or Docker image, in place of one of the machine. Needs the feature
    /// `images`, and `registries` for those of registries.
    ///
    /// | reference | place of the image |
    /// |---|---|
    /// | `oci:DIRECTORY[:TAG]` | an image layout, as skopeo, umoci and buildah write it |
    /// | `oci-archive:FILE[:TAG]` | the same in a tar archive |
    /// | `docker-archive:FILE[:NAME:TAG]` | the output of `docker save` or `podman save` |
    /// | `docker.io/library/postgres:17`, `ghcr.io/team/db@sha256:…`, `localhost:5000/db` | a registry; [the guide](crate::guide::images) has credentials and proxies |
    ///
    /// Relative paths start where those of steps start. The first start unpacks the image into the
    /// cache, checks all digests, and needs no root; later starts use it as it is. The root of each
    /// sandbox is then the image's, read-only, and nothing of the machine's programs shows. The
    /// server is found in the image's `PATH` and in the usual directories, and the image's
    /// environment applies. Its entry point, user, ports and volumes do not: the engine initialises
    /// and starts the server itself, so an image needs no shell. Layers depend on the image.
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) without the feature, for an
    /// image that is missing, damaged or made for another architecture, in process mode, and
    /// together with [packages](Self::package), and
    /// [`ErrorKind::NotInstalled`](crate::ErrorKind::NotInstalled) for an image without the server,
    /// and for a registry that cannot be reached.
    ///
    /// # Example
    /// ```no_run
    /// use sandboxed_db::{Postgres, Snapshot};
    /// // Made by `skopeo copy docker://postgres:17 oci:images/postgres:17`.
    /// let db = Snapshot::new(Postgres::new()).image("oci:images/postgres:17").start();
    /// ```
    #[must_use]
    #[track_caller]
    pub fn image(mut self, reference: impl Into<String>) -> Self {
        let base = self.base(Location::caller()).directory;
        self.image = Some(ImageReference { written: reference.into(), base });
        self
    }

    /// Refuses an image whose name `sandboxed-db.lock` does not record, as `SANDBOXED_DB_LOCKED=1`
    /// does for all tests of a run; see [the guide](crate::guide::images#pinned-names).
    #[must_use]
    pub fn locked(mut self) -> Self {
        self.locked = true;
        self
    }

    /// Adds migrations: a directory of SQL files, each run by the database's client, such as
    /// psql(1), in its own session.
    ///
    /// The outcome is a layer. Files that are added at the end run on the layer of the others.
    ///
    /// # Tools
    /// A directory that only one tool uses runs as with that tool, and the tool's bookkeeping table
    /// is filled. So an application that migrates when it starts finds all migrations applied:
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
    /// In any other directory whole `.sql` files run, in the order of their numbers if each name
    /// begins with one and an underscore, else in the order of their names. No table is made, and
    /// no transaction is put around them. The way back of a pair, such as `x.down.sql` beside
    /// `x.up.sql`, is left out; any other file that may hold a way back is refused. Other
    /// files of sqlx, and those of golang-migrate, look like those of many tools: name them by
    /// [`migrations_of`](Self::migrations_of).
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
    /// The tool itself does not run. A text that it sends to the server as one request is sent as
    /// one request here, so a file that it cannot run fails here too. One thing differs: each file
    /// has its own session, so a setting that one changes does not reach the next.
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
    /// UTF-8 unless it says otherwise.
    ///
    /// An archive keeps its owners and privileges: an earlier step must create the roles that it
    /// names.
    ///
    /// The outcome is cached until the file changes: the values of `now()` and `random()` in a seed
    /// stay those of the day when the layer was built.
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
    /// variables of [`Sandbox::env`](crate::Sandbox::env), `DATABASE_URL` among them. Variables of
    /// the user's that name another server (`PG…`) are removed. The program must succeed within
    /// [`build_timeout`](Self::build_timeout).
    ///
    /// The layer is found by the program's name and arguments. Declare all other inputs by
    /// [`depends_on`](Self::depends_on) before it, or a change of them goes unnoticed.
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

    /// Adds a command as [`run`](Self::run) does, whose environment leads to a TCP port of
    /// 127.0.0.1 instead of the Unix socket: for programs that know no sockets, such as those with
    /// a JDBC driver.
    ///
    /// The variables are those of [`Tcp::env`](crate::Tcp::env). The superuser has a password while
    /// the command runs, and none after it.
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

    /// Declares files and directories on which the steps after this one depend. A changed name or
    /// byte in them runs those steps again. For [`run`](Self::run) and [`prepare`](Self::prepare),
    /// whose inputs are not known otherwise.
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
    /// The library cannot see what the code does: it uses a layer of the same key and the same
    /// steps before it, even if the code has changed since. So write a version into the key
    /// (`"shop-schema-3"`), or declare the files that count by [`depends_on`](Self::depends_on),
    /// the code's own source and Cargo.lock among them. Different code needs different keys.
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

    /// Returns a description that begins with the steps of this one and shares their layers: a
    /// schema, then the reference data of all tests, then the scenario of a few.
    ///
    /// Settings apply from the first step on, so a snapshot with other settings shares only the
    /// fresh server.
    ///
    /// # Example
    /// ```no_run
    /// use sandboxed_db::{Postgres, Snapshot};
    /// let schema = Snapshot::new(Postgres::new()).migrations("migrations");
    /// let reference = schema.extend().seed("seeds/currencies.csv");
    /// let (order, refund) = (reference.extend().seed("order.sql"), reference.extend().seed("refund.sql"));
    /// ```
    #[must_use]
    pub fn extend(&self) -> Self {
        self.clone()
    }

    /// Sets a setting of the server, by its name in `postgresql.conf`. The last value of a name
    /// counts.
    ///
    /// Settings apply while steps run too, so other settings make other layers. Settings on which
    /// the sandbox depends (`data_directory`, `unix_socket_directories`, `port`) cannot be set.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// Sets several settings, as [`setting`](Self::setting) does.
    #[must_use]
    pub fn settings<N: Into<String>, V: ToString>(self, settings: impl IntoIterator<Item = (N, V)>) -> Self {
        settings.into_iter().fold(self, |snapshot, (name, value)| snapshot.setting(name, value))
    }

    /// Turns TLS on, for clients that connect by [`Sandbox::tcp`](crate::Sandbox::tcp). Needs the
    /// feature `tls`.
    ///
    /// Each sandbox gets a certificate for 127.0.0.1, ::1 and `localhost`, with a key that no other
    /// one has. The URL and the environment of [`Tcp`](crate::Tcp) make clients check it
    /// (`sslmode=verify-full`) by [`Tcp::root_certificate`](crate::Tcp::root_certificate), and the
    /// server refuses clients at the port that do not encrypt. Connections by the Unix socket and
    /// within the sandbox stay as they are, and so do those of steps while a layer is built.
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) without the feature, for an
    /// engine without TLS, and for settings that `tls` sets itself (`ssl`, `ssl_cert_file`,
    /// `ssl_key_file`), and [`ErrorKind::Exited`](crate::ErrorKind::Exited) for a server that is
    /// built without OpenSSL.
    ///
    /// # Example
    /// ```no_run
    /// use sandboxed_db::{Postgres, Snapshot};
    /// # fn main() -> sandboxed_db::Result<()> {
    /// let db = Snapshot::new(Postgres::new()).tls().start()?;
    /// println!("psql '{}' -c '\\conninfo'", db.tcp()?.url());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }
}
