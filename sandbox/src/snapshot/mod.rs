//! The description of a prepared database: an engine and the steps that lead to it.

mod bounds;
mod start;
mod steps;

use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::{Engine, Postgres};
use crate::kept::Keep;
use crate::launch::Limits;
use crate::sandbox::ImageReference;
use crate::step::{Base, Step};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const BUILD_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const DISK: u64 = 1 << 30;

/// A description of a prepared database, from which any number of pristine servers start.
///
/// A description does nothing by itself. The first start runs the steps and stores their outcome as
/// a layer in the cache. Every further start, in this process or another, uses the layer. A layer
/// is found by the contents of all files, so a changed file leads to another layer. A damaged layer
/// is detected before use and rebuilt. `SANDBOXED_DB_REBUILD=1` rebuilds all layers once in a run.
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
    /// so a support crate finds its own files. If that source file no longer exists, they start at
    /// the package under test (`CARGO_MANIFEST_DIR`), else at the working directory. The error for
    /// a missing file names the directory and the reason. [`relative_to`](Self::relative_to) sets
    /// another directory.
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

    /// Returns the advice for a test whose migrations ran a second time, since no bookkeeping table
    /// records the first, as this log of its server shows.
    pub(crate) fn migrated_twice(&self, log: &str) -> Option<String> {
        if !log.lines().any(|line| line.contains("ERROR:") && line.ends_with(" already exists")) {
            return None;
        }
        let directory = self.steps.iter().find_map(|step| step.unrecorded_migrations(&self.engine))?;
        Some(format!(
            "the migrations in `{directory}` ran before the test, but no bookkeeping table records them for a migrator: name their tool, \
             as in `migrations_of(Sqlx, \"{directory}\")`",
            directory = directory.display()
        ))
    }

    fn base(&self, caller: &'static Location<'static>) -> Base {
        self.base.clone().unwrap_or_else(|| Base::of(caller))
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
    /// installed. Packages work on Debian, Ubuntu and their derivatives only.
    ///
    /// At the first start apt-get(8) downloads the package and its dependencies from the machine's
    /// sources and checks them against the signed lists; the library unpacks them into the cache.
    /// No script of a package runs, nothing is installed, and root is not needed. All servers of
    /// the description see the packages as part of the machine's `/usr`, whether the server is
    /// installed or from [packages](crate::environment) too. Until they are pruned, later starts
    /// use the unpacked packages as they are, without a network. Layers depend on the packages'
    /// names, versions and contents.
    ///
    /// With an [image](Self::image) of Debian, Ubuntu or a derivative, the packages come from the
    /// image's sources and are checked by the image's keys. A source that the image marks as
    /// `trusted` is used without a check, as in the image itself.
    ///
    /// `name=version` requests one version. An extension that must be loaded when the server starts
    /// needs its [setting](Self::setting) too, such as `shared_preload_libraries`.
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a package that the
    /// distribution does not have, that is made for another version of the server, or that is to be
    /// used with a server that is not the distribution's or an image without packages;
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

    /// Runs the server of an OCI or Docker image instead of an installed one. Needs the feature
    /// `images`; images of registries need `registries`.
    ///
    /// | reference | place of the image |
    /// |---|---|
    /// | `oci:DIRECTORY[:TAG]` | an image layout, as skopeo, umoci and buildah write it |
    /// | `oci-archive:FILE[:TAG]` | the same in a tar archive |
    /// | `docker-archive:FILE[:NAME:TAG]` | the output of `docker save` or `podman save` |
    /// | `docker.io/library/postgres:17`, `ghcr.io/team/db@sha256:…`, `localhost:5000/db` | a registry; [the guide](crate::guide::images) has credentials and proxies |
    ///
    /// Relative paths start where those of steps start. The first start unpacks the image into the
    /// cache and verifies all digests, without root; later starts use the unpacked image. The root
    /// of each sandbox is the image's, read-only, and the machine's programs are hidden. The server
    /// is found in the image's `PATH` and in the usual directories, and the image's environment
    /// applies. Its entry point, user, ports and volumes do not: the engine initialises and starts
    /// the server itself, so an image needs no shell. Layers depend on the image.
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) without the feature, for an
    /// image that is missing, damaged or made for another architecture, and in process mode;
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

    /// Returns a description that begins with the steps of this one and shares their layers. A
    /// suite can thus have a schema, extend it by the reference data of all tests, and extend that
    /// by the scenario of a few.
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

    /// Sets a setting of the server, by its name in the server's configuration, such as
    /// `postgresql.conf`. If a name is set several times, the last value counts.
    ///
    /// Settings apply while steps run too, so other settings lead to other layers.
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a setting on which the
    /// sandbox depends, such as `data_directory`, `unix_socket_directories` or `port`, and
    /// [`ErrorKind::Exited`](crate::ErrorKind::Exited) for one that the server refuses.
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
    /// Each sandbox has its own certificate and key, for 127.0.0.1, ::1 and `localhost`. Clients
    /// verify it by [`Tcp::root_certificate`](crate::Tcp::root_certificate), and the port refuses
    /// clients that do not encrypt. Connections by the Unix socket, and of steps while a layer is
    /// built, are not encrypted.
    ///
    /// | engine | clients that verify the certificate |
    /// |---|---|
    /// | `Postgres` | by the URL or the environment of [`Tcp`](crate::Tcp): `sslmode=verify-full` |
    /// | `MariaDb`, `MySql` | by the URL, `ssl-mode=VERIFY_IDENTITY` and `ssl-ca`, or by `MYSQL_SSL_CA` |
    /// | `Redis` | by the file in `REDIS_CACERT`; the URL begins with `rediss://` |
    ///
    /// # Errors
    /// None here. [`start`](Self::start) returns
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) without the feature, for an
    /// engine without TLS, and for settings that `tls` sets itself, such as `ssl`, `ssl_cert_file`,
    /// `require_secure_transport` or `tls-port`, and
    /// [`ErrorKind::Exited`](crate::ErrorKind::Exited) for a server that is built without TLS.
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
