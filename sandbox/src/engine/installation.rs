//! The programs of a server: their places on the host, and their build.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::children;
use super::image::Image;
use super::packages::{Below, Tree, on_top};
use super::version::Version;
use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::memory;

/// The programs of a server, as found on this machine.
#[derive(Debug, Clone)]
pub struct Installation {
    server: String,
    /// Directories of programs, that of the server first.
    directories: Vec<Directory>,
    usr: Vec<PathBuf>,
    binds: Vec<PathBuf>,
    build_info: BuildInfo,
    supply: Supply,
    /// The image that holds it, in place of the host.
    image: Option<Image>,
}

/// How the distribution has the server.
#[derive(Debug, Clone, Default)]
struct Supply {
    /// The name of its package, such as `postgresql`.
    package: Option<String>,
    /// The environment variable that chooses the server.
    variable: Option<String>,
    /// The unpacked packages that the server is from.
    tree: Option<Tree>,
}

/// A directory of programs, in a sandbox and on the host.
#[derive(Debug, Clone)]
struct Directory {
    inside: PathBuf,
    on_host: PathBuf,
}

/// Properties of a server's program that take running and reading it to find; kept in the cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct BuildInfo {
    version: String,
    build: String,
    notifies: bool,
}

impl Installation {
    /// Inspects the installation in the host directory `bin` by its program `server`.
    ///
    /// Runs `server --version` and hashes the program, once for each build: the cache directory
    /// keeps the outcome. The files in `extensions`, directories that need not exist, belong to the
    /// build by name and size.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the program is missing or does not run.
    pub fn inspect(bin: &Path, server: &str, extensions: &[PathBuf]) -> Result<Self> {
        Self::inspect_by(bin, server, extensions, Some("--version"))
    }

    /// Inspects an installation as [`inspect`](Self::inspect) does, by a server that prints its
    /// version on another request, or on none: its version is then empty.
    pub(super) fn inspect_by(
        bin: &Path,
        server: &str,
        extensions: &[PathBuf],
        version_arg: Option<&str>,
    ) -> Result<Self> {
        let bin = fs::canonicalize(bin).map_err(|error| unusable(bin, server).caused_by(error))?;
        let build_info = BuildInfo::of(&bin.join(server), extensions, &[], version_arg)?;
        let mut binds = Vec::new();
        for store in ["/nix/store", "/gnu/store"].map(Path::new) {
            // A path in such a store needs its siblings.
            if bin.starts_with(store) {
                binds.push(store.to_owned());
            }
        }
        if !bin.starts_with("/usr") && binds.is_empty() {
            // Of another prefix than /usr the sandbox sees only the parts that servers use.
            let prefix = bin.parent().unwrap_or(&bin);
            let parts = ["lib", "lib64", "libexec", "share"].map(|part| prefix.join(part));
            binds.extend(parts.into_iter().filter(|part| part.is_dir()).chain([bin.clone()]));
        }
        let directories = vec![Directory { inside: bin.clone(), on_host: bin }];
        Ok(Self {
            server: server.to_owned(),
            directories,
            usr: vec![PathBuf::from("/usr")],
            binds,
            build_info,
            supply: Supply::default(),
            image: None,
        })
    }

    /// Inspects the installation in the directory `bin` of an image, by its program `server`.
    /// `version_arg` is the argument for which it prints its version.
    ///
    /// Runs the program once for each image, in a container: the cache directory keeps the outcome.
    /// The whole image belongs to the build.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the program is missing or does not run.
    pub fn inspect_in(image: &Image, bin: &Path, server: &str, version_arg: Option<&str>) -> Result<Self> {
        let unusable = || {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("use `{}` of the image {}", bin.join(server).display(), image.id()),
            )
        };
        let bin = image.canonical(bin).ok_or_else(unusable)?;
        Ok(Self {
            server: server.to_owned(),
            build_info: BuildInfo::in_image(image, &bin.join(server), version_arg, unusable)?,
            directories: vec![Directory { inside: bin.clone(), on_host: bin }],
            usr: Vec::new(),
            binds: Vec::new(),
            supply: Supply::default(),
            image: Some(image.clone()),
        })
    }

    /// Adds a directory of further programs of the installation.
    #[must_use]
    pub fn with_programs(self, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let mut shown = self.show(directory.clone());
        shown.directories.push(Directory { inside: directory.clone(), on_host: directory });
        shown
    }

    /// Adds a directory of further programs in the same image.
    pub(super) fn with_programs_in_image(mut self, directory: PathBuf) -> Self {
        self.directories.push(Directory { inside: directory.clone(), on_host: directory });
        self
    }

    /// Shows sandboxes a further directory of the installation, if the directory exists outside of
    /// `/usr`.
    #[must_use]
    pub(crate) fn show(mut self, directory: PathBuf) -> Self {
        if self.image.is_none() && directory.is_dir() && !directory.starts_with("/usr") {
            self.binds.push(directory);
        }
        self
    }

    /// Inspects a server in unpacked packages, whose `usr` shows over the host's: `bin` is a path
    /// below `/usr`.
    pub(super) fn inspect_unpacked(
        tree: &Tree,
        bin: &Path,
        server: &str,
        version_arg: Option<&str>,
    ) -> Result<Self> {
        let on_host = tree.on_host(bin);
        let libraries = fs::read_dir(tree.root().join("usr/lib")).map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        });
        let libraries: Vec<_> =
            libraries.into_iter().flatten().chain([tree.root().join("usr/lib")]).collect();
        let build_info = BuildInfo::of(&on_host.join(server), &[], &libraries, version_arg)?;
        let directories = vec![Directory { inside: bin.to_owned(), on_host }];
        let found = Self {
            server: server.to_owned(),
            directories,
            usr: vec![PathBuf::from("/usr")],
            binds: Vec::new(),
            build_info,
            supply: Supply { tree: Some(tree.clone()), ..Supply::default() },
            image: None,
        };
        Ok(found.below(tree))
    }

    /// Adds a directory of further programs in the server's unpacked packages.
    pub(super) fn with_unpacked_programs(mut self, tree: &Tree, directory: &Path) -> Self {
        let (inside, on_host) = (directory.to_owned(), tree.on_host(directory));
        self.directories.push(Directory { inside, on_host });
        self
    }

    /// Notes how the distribution has the server, for packages on top of it.
    pub(super) fn supplied(mut self, package: Option<&str>, variable: Option<&str>) -> Self {
        self.supply.package = package.map(str::to_owned);
        self.supply.variable = variable.map(str::to_owned);
        self
    }

    /// Adds packages of the distribution, which are fetched and unpacked if the cache lacks them.
    ///
    /// # Errors
    /// As [`Snapshot::package`](crate::Snapshot::package).
    pub(crate) fn with_packages(self, names: &[String]) -> Result<Self> {
        if names.is_empty() {
            return Ok(self);
        }
        let tree = on_top(
            names,
            &Below {
                server: &self.server(),
                version: self.version(),
                package: self.supply.package.as_deref(),
                variable: self.supply.variable.as_deref(),
                tree: self.supply.tree.as_ref(),
                image: self.image.as_ref(),
            },
        )?;
        Ok(self.below(&tree))
    }

    /// Shows a tree of packages over all else, which then belongs to the build.
    fn below(mut self, tree: &Tree) -> Self {
        self.usr.insert(0, tree.root().join("usr"));
        let build = [self.build_info.build.as_str(), &tree.identity()].concat();
        self.build_info.build = blake3::hash(build.as_bytes()).to_hex().to_string();
        self
    }

    /// Returns the path of the server's program in a sandbox.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.directories[0].inside.join(&self.server)
    }

    /// Returns the path of the installation's program `name` in a sandbox.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        let with_it = self.directories.iter().find(|directory| self.is_in(directory, name));
        with_it.unwrap_or(&self.directories[0]).inside.join(name)
    }

    /// Returns `true` if the installation has a program `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.directories.iter().any(|directory| self.is_in(directory, name))
    }

    fn is_in(&self, directory: &Directory, name: &str) -> bool {
        match &self.image {
            Some(image) => image.is_file(&directory.inside.join(name)),
            None => directory.on_host.join(name).exists(),
        }
    }

    /// The image that holds it, if it is not the host's.
    pub(crate) fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    /// Returns the directory of the server's program in a sandbox.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.directories[0].inside
    }

    /// Returns the version as the server's program prints it, such as `postgres (PostgreSQL)
    /// 15.18`; an empty text for a server that prints none.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.build_info.version
    }

    /// Returns the first number in the version, such as 15.
    #[must_use]
    pub fn major(&self) -> u32 {
        Version(&self.build_info.version).major().unwrap_or(0)
    }

    /// Returns a hash of the server's program: two builds of one version may differ.
    #[must_use]
    pub fn build(&self) -> &str {
        &self.build_info.build
    }

    /// Returns `true` if the server's program is linked with libsystemd and thus speaks
    /// sd_notify(3).
    #[must_use]
    pub fn notifies(&self) -> bool {
        self.build_info.notifies
    }

    pub(crate) fn usr(&self) -> &[PathBuf] {
        &self.usr
    }

    pub(crate) fn binds(&self) -> &[PathBuf] {
        &self.binds
    }
}

impl BuildInfo {
    fn of(
        program: &Path,
        extensions: &[PathBuf],
        libraries: &[PathBuf],
        version_arg: Option<&str>,
    ) -> Result<Self> {
        let file = fs::metadata(program).map_err(|error| unusable(program, "the server").caused_by(error))?;
        let mut key = blake3::Hasher::new();
        key.update(program.as_os_str().as_encoded_bytes());
        key.update(version_arg.unwrap_or_default().as_bytes());
        for number in [file.dev(), file.ino(), file.size()] {
            key.update(&number.to_le_bytes());
        }
        for time in [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()] {
            key.update(&time.to_le_bytes());
        }
        for directory in extensions {
            key.update(directory.as_os_str().as_encoded_bytes());
            if let Ok(state) = fs::metadata(directory) {
                key.update(&state.ino().to_le_bytes());
                key.update(&state.mtime().to_le_bytes()).update(&state.mtime_nsec().to_le_bytes());
            }
        }
        let cache = Cache::open()?;
        let known = cache.path(format!("servers/{}.json", key.finalize().to_hex()));
        if let Some(build_info) = fs::read(&known).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(build_info);
        }
        let contents = fs::read(program).map_err(|error| unusable(program, "the server").caused_by(error))?;
        let build_info = Self {
            version: version_arg.map_or_else(|| Ok(String::new()), |arg| version(program, libraries, arg))?,
            build: build(&contents, extensions),
            notifies: speaks_notify(&contents),
        };
        build_info.note(&cache, &known);
        Ok(build_info)
    }

    fn in_image(
        image: &Image,
        program: &Path,
        version_arg: Option<&str>,
        unusable: impl Fn() -> Error,
    ) -> Result<Self> {
        let mut key = blake3::Hasher::new();
        for field in [image.id(), &program.to_string_lossy(), version_arg.unwrap_or_default()] {
            key.update(field.as_bytes()).update(&[0]);
        }
        let cache = Cache::open()?;
        let known = cache.path(format!("servers/{}.json", key.finalize().to_hex()));
        if let Some(build_info) = fs::read(&known).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(build_info);
        }
        let contents = image.read(program).map_err(|error| unusable().caused_by(error))?;
        let version = match version_arg {
            None => String::new(),
            Some(arg) => {
                let version = image.ask(program, arg).map_err(|error| unusable().caused_by(error))?;
                if Version(&version).major().is_none() {
                    return Err(unusable().caused_by(format!("`{arg}` printed `{version}`")));
                }
                version
            }
        };
        let build_info = Self {
            version,
            build: blake3::hash(image.id().as_bytes()).to_hex().to_string(),
            notifies: speaks_notify(&contents),
        };
        build_info.note(&cache, &known);
        Ok(build_info)
    }

    /// Keeps what was found. This only saves time: a cache that cannot be written is reported when
    /// a layer is built.
    fn note(&self, cache: &Cache, known: &Path) {
        if let Err(error) = cache.write(known, serde_json::to_vec(self).unwrap_or_default()) {
            tracing::debug!(?error, "the build of the server is not kept");
        }
    }
}

/// Returns `true` for a program that is linked with libsystemd.
fn speaks_notify(program: &[u8]) -> bool {
    memchr::memmem::find(program, b"libsystemd.so").is_some()
}

/// A hash of the program, and of the names and sizes of its extensions' files.
fn build(program: &[u8], extensions: &[PathBuf]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(program);
    for file in extensions.iter().flat_map(|directory| children(directory)) {
        let size = fs::metadata(&file).map_or(0, |file| file.size());
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        hasher.update(name.as_bytes()).update(&size.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The first line that `program --version` prints.
fn version(program: &Path, libraries: &[PathBuf], arg: &str) -> Result<String> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let failed = || unusable(program, "the server");
    let mut command = Command::new(program);
    // Files and no pipes, which a program that goes on, or its child, would keep open.
    let output = || -> io::Result<_> {
        let file = memory(c"sandboxed-db version", b"")?;
        Ok((file.try_clone()?, file))
    };
    let ((mut stdout, out), (mut stderr, err)) =
        output().and_then(|out| Ok((out, output()?))).map_err(|error| failed().caused_by(error))?;
    command.arg(arg).stdin(Stdio::null()).stdout(out).stderr(err);
    if let Ok(path) = std::env::join_paths(libraries)
        && !libraries.is_empty()
    {
        command.env("LD_LIBRARY_PATH", path);
    }
    let mut child = command.spawn().map_err(|error| failed().caused_by(error))?;
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| failed().caused_by(error))? {
            break status;
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed().caused_by(format!("`{arg}` did not end within {TIMEOUT:?}")));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let text = beginning(&mut stdout).lines().next().unwrap_or_default().trim().to_owned();
    // Some servers print the path by which they were called, which is no part of the version.
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let text = text.replace(&*program.to_string_lossy(), &name);
    if status.success() && Version(&text).major().is_some() {
        return Ok(text);
    }
    let complaint = beginning(&mut stderr);
    Err(failed().caused_by(format!("`{arg}` ended with {status} and printed `{text}` {}", complaint.trim())))
}

/// The beginning of a program's output, which may be of any length.
fn beginning(file: &mut File) -> String {
    const LONGEST: u64 = 4096;
    let mut bytes = Vec::new();
    // Output that cannot be read counts as none.
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(LONGEST).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn unusable(path: &Path, server: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("use `{}` as {server}", path.display()))
}

/// The directories in `PATH` that hold `program`.
pub(super) fn in_path(program: impl AsRef<OsStr>) -> Vec<PathBuf> {
    let program = program.as_ref();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute() && directory.join(program).is_file())
        .collect()
}
