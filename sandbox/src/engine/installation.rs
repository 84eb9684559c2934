//! The programs of a server: where they are on the host, and which build they are.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::children;
use crate::cache::Cache;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::memory;

/// The programs of a server, as found on this machine.
#[derive(Debug, Clone)]
pub struct Installation {
    bin: PathBuf,
    on_host: PathBuf,
    usr: Vec<PathBuf>,
    binds: Vec<PathBuf>,
    facts: Facts,
}

/// What only running and reading the server's program tells; kept in the cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Facts {
    version: String,
    build: String,
    notifies: bool,
}

impl Installation {
    /// Inspects the installation in the host directory `bin` by its program `server`.
    ///
    /// Runs `server --version` and hashes the program, once for each build: the outcome is kept in the cache
    /// directory. The files in `extensions`, directories that need not exist, belong to the build by name and size.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the program is missing or does not run.
    pub fn inspect(bin: &Path, server: &str, extensions: &[PathBuf]) -> Result<Self> {
        let bin = fs::canonicalize(bin).map_err(|error| unusable(bin, server).caused_by(error))?;
        let facts = Facts::of(&bin.join(server), extensions, &[])?;
        let mut binds = Vec::new();
        for store in ["/nix/store", "/gnu/store"].map(Path::new) {
            // A path in such a store needs its siblings.
            if bin.starts_with(store) {
                binds.push(store.to_owned());
            }
        }
        if !bin.starts_with("/usr") && binds.is_empty() {
            // Any other installation is complete below its prefix, of which no more is shown than it must be.
            let prefix = bin.parent().unwrap_or(&bin);
            let parts = ["lib", "lib64", "libexec", "share"].map(|part| prefix.join(part));
            binds.extend(parts.into_iter().filter(|part| part.is_dir()).chain([bin.clone()]));
        }
        Ok(Self { on_host: bin.clone(), bin, usr: vec![PathBuf::from("/usr")], binds, facts })
    }

    /// Inspects packages unpacked at `tree`, whose `usr` shows over the host's: `bin` is a path below `/usr`.
    pub(crate) fn inspect_unpacked(tree: &Path, bin: &Path, server: &str) -> Result<Self> {
        let on_host = tree.join(bin.strip_prefix("/").unwrap_or(bin));
        let libraries = fs::read_dir(tree.join("usr/lib")).map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        });
        let libraries: Vec<_> = libraries.into_iter().flatten().chain([tree.join("usr/lib")]).collect();
        let facts = Facts::of(&on_host.join(server), &[], &libraries)?;
        let usr = vec![tree.join("usr"), PathBuf::from("/usr")];
        Ok(Self { bin: bin.to_owned(), on_host, usr, binds: Vec::new(), facts })
    }

    /// The path in a sandbox of the installation's program `name`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Whether the installation has a program `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.on_host.join(name).exists()
    }

    /// The directory of the programs in a sandbox.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// What the server's program prints as its version, such as `postgres (PostgreSQL) 15.18`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.facts.version
    }

    /// The first number in the version, such as 15.
    #[must_use]
    pub fn major(&self) -> u32 {
        major(&self.facts.version)
    }

    /// A hash of the server's program: two builds of one version may differ.
    #[must_use]
    pub fn build(&self) -> &str {
        &self.facts.build
    }

    /// Whether the server's program is linked with libsystemd and thus speaks sd_notify(3).
    #[must_use]
    pub fn notifies(&self) -> bool {
        self.facts.notifies
    }

    pub(crate) fn usr(&self) -> &[PathBuf] {
        &self.usr
    }

    pub(crate) fn binds(&self) -> &[PathBuf] {
        &self.binds
    }
}

/// The first number of a version text.
pub(super) fn major(version: &str) -> u32 {
    let digits = version.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl Facts {
    fn of(program: &Path, extensions: &[PathBuf], libraries: &[PathBuf]) -> Result<Self> {
        let file = fs::metadata(program).map_err(|error| unusable(program, "the server").caused_by(error))?;
        let mut key = DefaultHasher::new();
        (
            program,
            file.dev(),
            file.ino(),
            file.size(),
            file.mtime(),
            file.mtime_nsec(),
            file.ctime(),
            file.ctime_nsec(),
        )
            .hash(&mut key);
        for directory in extensions {
            let changed = fs::metadata(directory)
                .map(|directory| (directory.ino(), directory.mtime(), directory.mtime_nsec()));
            (directory, changed.ok()).hash(&mut key);
        }
        let cache = Cache::open()?;
        let known = cache.path(format!("servers/{:016x}.json", key.finish()));
        if let Some(facts) = fs::read(&known).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(facts);
        }
        let contents = fs::read(program).map_err(|error| unusable(program, "the server").caused_by(error))?;
        let facts = Self {
            version: version(program, libraries)?,
            build: build(&contents, extensions),
            notifies: memchr::memmem::find(&contents, b"libsystemd.so").is_some(),
        };
        // Known facts only save time: a cache that cannot be written is reported where it matters, at the layer.
        if let Err(error) = cache.write(&known, serde_json::to_vec(&facts).unwrap_or_default()) {
            tracing::debug!(?error, "the server's facts are not kept");
        }
        Ok(facts)
    }
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
fn version(program: &Path, libraries: &[PathBuf]) -> Result<String> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let failed = || unusable(program, "the server");
    let mut command = Command::new(program);
    // Not by pipes: a program that goes on, or another that it has started, would keep them open.
    let said = || -> io::Result<_> {
        let file = memory(c"sandboxed-db version", b"")?;
        Ok((file.try_clone()?, file))
    };
    let ((mut stdout, out), (mut stderr, err)) =
        said().and_then(|out| Ok((out, said()?))).map_err(|error| failed().caused_by(error))?;
    command.arg("--version").stdin(Stdio::null()).stdout(out).stderr(err);
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
            return Err(failed().caused_by(format!("`--version` did not end within {TIMEOUT:?}")));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let text = beginning(&mut stdout).lines().next().unwrap_or_default().trim().to_owned();
    if status.success() && major(&text) > 0 {
        return Ok(text);
    }
    let complaint = beginning(&mut stderr);
    Err(failed()
        .caused_by(format!("`--version` ended with {status} and printed `{text}` {}", complaint.trim())))
}

/// The beginning of what a program has printed, which nobody knows the length of.
fn beginning(file: &mut File) -> String {
    const LONGEST: u64 = 4096;
    let mut bytes = Vec::new();
    // Not being able to read it is like its having printed nothing.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_the_first_number() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 15),
            ("postgres (PostgreSQL) 18beta1", 18),
            ("", 0),
        ] {
            assert_eq!(major(text), expected, "{text}");
        }
    }
}
