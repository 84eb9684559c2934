//! The file `sandboxed-db.lock`: the digests to which names of images in registries led.
//!
//! ```toml
//! version = 1
//!
//! [images]
//! "docker.io/library/postgres:17" = "sha256:…"
//! ```
//!
//! The digest is that of the document to which the name leads: of an index for several platforms,
//! so that one line holds for all machines.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};
use serde::Deserialize;

use super::digest::Sha256;
use crate::cache::{Cache, LockFile};
use crate::error::{Error, ErrorKind, Result};

pub(crate) const NAME: &str = "sandboxed-db.lock";
/// The version of the format.
const VERSION: u32 = 1;
const HEADER: &str = "\
# Images of this repository, written by sandboxed-db: commit this file.
# `sandboxed-db update` asks the registries again.
";
/// How long another process may ask registries for what it records.
const LOCK_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The recorded digests, by the name of an image.
pub(crate) type Digests = BTreeMap<String, Sha256>;

/// The place of a lock file, which may not exist yet.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Option<u32>,
    #[serde(default)]
    images: Digests,
}

impl Pins {
    /// Finds the lock file of the descriptions in a directory: in the closest directory from there
    /// on that has one, else beside the closest `Cargo.lock`, else at the top of the repository.
    /// None outside of repositories and packages.
    pub(crate) fn of(directory: &Path) -> Option<Self> {
        let mut within = Vec::new();
        for above in directory.ancestors().filter(|above| above.is_absolute()) {
            within.push(above);
            if above.join(".git").exists() {
                break;
            }
        }
        let with = |name: &str| within.iter().find(|above| above.join(name).exists());
        let place = with(NAME).or_else(|| with("Cargo.lock")).or_else(|| with(".git"))?;
        Some(Self { path: place.join(NAME) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns all recorded digests; none without a file.
    pub(crate) fn read(&self) -> Result<Digests> {
        let broken = |cause: String| {
            Error::new(ErrorKind::InvalidConfig, format!("read `{}`", self.path.display())).caused_by(cause)
        };
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Digests::new()),
            text => text.map_err(|error| broken(error.to_string()))?,
        };
        let document: Document = toml::from_str(&text).map_err(|error| {
            broken(error.to_string().trim_end().to_owned())
                .with_hint("merge it by hand, or delete it and run `sandboxed-db update NAME…`")
        })?;
        match document.version {
            None | Some(VERSION) => Ok(document.images),
            Some(other) => Err(broken(format!("its version is {other}, and {VERSION} is known"))
                .with_hint("use a newer sandboxed-db")),
        }
    }

    /// Returns `true` if the file can be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.path.parent().is_some_and(|parent| access(parent, Access::WRITE_OK).is_ok())
    }

    /// Waits until no other process of this cache asks for what the file lacks.
    pub(crate) fn lock(&self, cache: &Cache) -> Result<LockFile> {
        let name = format!("pins-{}", blake3::hash(self.path.as_os_str().as_encoded_bytes()).to_hex());
        cache.lock(&name, Instant::now() + LOCK_LIMIT, &mut |_| ())?.ok_or_else(|| {
            Error::new(
                ErrorKind::Cache,
                format!("wait for another process that writes `{}`", self.path.display()),
            )
            .with_hint("that process does not finish: inspect it, and end it")
        })
    }

    /// Replaces the file, while [`lock`](Self::lock) is held. A reader finds the old one or the
    /// new.
    pub(crate) fn write(&self, digests: &Digests) -> Result<()> {
        let write = || -> io::Result<()> {
            let directory = self.path.parent().ok_or(io::ErrorKind::NotFound)?;
            let mut builder = tempfile::Builder::new();
            // As the user's umask says: others of the repository's group may read it.
            let all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
            let mut file = builder.prefix(".sandboxed-db.").permissions(all).tempfile_in(directory)?;
            file.write_all(text(digests).as_bytes())?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|error| Error::io(ErrorKind::InvalidConfig, "write", &self.path, error))
    }
}

/// Names and digests have no character that needs to be escaped.
fn text(digests: &Digests) -> String {
    let lines = digests.iter().map(|(name, digest)| format!("\"{name}\" = \"{digest}\"\n"));
    format!("{HEADER}version = {VERSION}\n\n[images]\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_beside_cargo_lock_or_where_it_is() {
        let place = tempfile::tempdir().unwrap();
        let member = place.path().join("repository/crates/one");
        fs::create_dir_all(&member).unwrap();
        let found = || {
            let pins = Pins::of(&member)?;
            pins.path().strip_prefix(place.path()).ok().map(Path::to_owned)
        };
        fs::create_dir(place.path().join("repository/.git")).unwrap();
        assert_eq!(found().unwrap(), Path::new("repository/sandboxed-db.lock"));
        fs::write(place.path().join("repository/crates/Cargo.lock"), "").unwrap();
        assert_eq!(found().unwrap(), Path::new("repository/crates/sandboxed-db.lock"));
        fs::write(member.join(NAME), "").unwrap();
        assert_eq!(found().unwrap(), Path::new("repository/crates/one/sandboxed-db.lock"));
        // One outside of the repository belongs to another.
        fs::write(place.path().join(NAME), "").unwrap();
        fs::remove_file(member.join(NAME)).unwrap();
        fs::remove_file(place.path().join("repository/crates/Cargo.lock")).unwrap();
        assert_eq!(found().unwrap(), Path::new("repository/sandboxed-db.lock"));
        assert!(Pins::of(Path::new("")).is_none() && Pins::of(Path::new("relative")).is_none());
    }

    #[test]
    fn digests_are_read_as_they_are_written() {
        let place = tempfile::tempdir().unwrap();
        let pins = Pins { path: place.path().join(NAME) };
        assert_eq!(pins.read().unwrap(), Digests::new());
        let digests = Digests::from(
            ["localhost:5000/a/b_c:1.2-x", "[::1]:5/a:b"]
                .map(|name| (name.to_owned(), Sha256::of(name.as_bytes()))),
        );
        pins.write(&digests).unwrap();
        assert_eq!(pins.read().unwrap(), digests);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_file_is_refused_with_the_line() {
        let place = tempfile::tempdir().unwrap();
        let pins = Pins { path: place.path().join(NAME) };
        for (text, expected) in [
            ("version = 2\n", "its version is 2, and 1 is known"),
            ("[images]\n<<<<<<< main\n", "line 2"),
            ("[images]\n\"a\" = \"sha256:12\"\n", "is no digest"),
            ("[image]\n", "unknown field `image`"),
        ] {
            fs::write(pins.path(), text).unwrap();
            let error = format!("{:?}", pins.read().unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        fs::write(pins.path(), "").unwrap();
        assert_eq!(pins.read().unwrap(), Digests::new());
    }
}
