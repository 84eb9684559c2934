//! Directories of files that do not change, with a list by which a later look finds what was
//! changed: unpacked images, and unpacked packages.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use walkdir::WalkDir;

use super::directory::{Cache, failed, is_younger};
use super::entry::DirectoryLock;
use crate::error::Result;

/// The list of the files.
const FILES: &str = "files";
/// Its modification time is that of the last use, to the hour.
const USED: &str = "used";

/// A directory of the cache with files below one of its directories, and their list beside that.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) path: PathBuf,
    /// The directory of the files in it.
    pub(crate) files: &'static str,
    /// The file without which it is incomplete.
    pub(crate) mark: &'static str,
}

impl Listed {
    /// Lists the files of a staged directory.
    pub(crate) fn write(&self) -> io::Result<()> {
        fs::write(self.path.join(FILES), list(&self.path.join(self.files))?)?;
        fs::write(self.path.join(USED), "")
    }

    /// Returns when it was last used, or else made.
    pub(crate) fn last_used(&self) -> SystemTime {
        let time = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
        time(&self.path.join(USED)).or_else(|_| time(&self.path)).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Notes its use, where the cache can be written.
    pub(crate) fn note_use(&self, cache: &Cache) {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        let used = self.path.join(USED);
        if !is_younger(&used, HOUR) {
            let _ = cache.write(&used, "");
        }
    }

    /// Compares all files with their list, contents included.
    pub(crate) fn differences(&self) -> Result<Vec<String>> {
        let compare = || -> io::Result<_> {
            let expected = fs::read(self.path.join(FILES))?;
            Ok(differences(&expected, &list(&self.path.join(self.files))?))
        };
        match compare() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec!["a file is missing".to_owned()]),
            differences => differences.map_err(|error| failed("verify", &self.path, error)),
        }
    }

    /// Compares all files with their list, and sets a damaged directory aside. Returns the
    /// differences.
    pub(crate) fn verify(&self, cache: &Cache) -> Result<Vec<String>> {
        let lock = match DirectoryLock::shared(&self.path) {
            // A file in its place is removed when it is made again.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
            lock => lock.map_err(|error| failed("lock", &self.path, error))?,
        };
        let Some(lock) = lock else { return Ok(Vec::new()) };
        let differences = self.differences()?;
        // Another process may have removed it meanwhile.
        if !lock.exists() || differences.is_empty() {
            return Ok(Vec::new());
        }
        cache.set_aside(&lock, self.mark)?;
        Ok(differences)
    }

    /// Removes it, unless it is in use.
    pub(crate) fn remove(&self, cache: &Cache) -> Result<bool> {
        cache.remove(&self.path, self.mark)
    }
}

/// Returns the list: for each file its path and its state, each ended by a NUL.
fn list(root: &Path) -> io::Result<Vec<u8>> {
    let mut list = Vec::new();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path().strip_prefix(root).map_err(io::Error::other)?;
        let kind = entry.file_type();
        let state = if kind.is_symlink() {
            [b"-> ", fs::read_link(entry.path())?.as_os_str().as_bytes()].concat()
        } else {
            let mode = entry.metadata().map_err(io::Error::from)?.permissions().mode();
            let contents = match kind.is_file() {
                true => {
                    blake3::Hasher::new().update_reader(File::open(entry.path())?)?.finalize().to_string()
                }
                false => String::new(),
            };
            format!("{mode:o} {contents}").into_bytes()
        };
        for field in [path.as_os_str().as_bytes(), &state] {
            list.extend_from_slice(field);
            list.push(0);
        }
    }
    Ok(list)
}

/// Returns a line for each file in which two lists differ.
fn differences(expected: &[u8], found: &[u8]) -> Vec<String> {
    let (mut expected, found) = (parse(expected), parse(found));
    let mut differences = Vec::new();
    for (path, state) in found {
        let shown = String::from_utf8_lossy(path);
        match expected.remove(path) {
            Some(expected) if expected == state => {}
            Some(_) => differences.push(format!("`{shown}` was changed")),
            None => differences.push(format!("`{shown}` was added")),
        }
    }
    differences.extend(expected.keys().map(|path| format!("`{}` is missing", String::from_utf8_lossy(path))));
    differences
}

fn parse(list: &[u8]) -> BTreeMap<&[u8], &[u8]> {
    let mut fields = list.split(|byte| *byte == 0);
    std::iter::from_fn(|| Some((fields.next()?, fields.next()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_listed() {
        let root = tempfile::tempdir().unwrap();
        for name in ["same", "changed", "mode", "gone"] {
            fs::write(root.path().join(name), "x").unwrap();
        }
        let before = list(root.path()).unwrap();
        assert_eq!(differences(&before, &list(root.path()).unwrap()), Vec::<String>::new());
        fs::write(root.path().join("changed"), "y").unwrap();
        fs::set_permissions(root.path().join("mode"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::remove_file(root.path().join("gone")).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("new")).unwrap();
        let found = differences(&before, &list(root.path()).unwrap());
        assert_eq!(
            found,
            ["`changed` was changed", "`mode` was changed", "`new` was added", "`gone` is missing"]
        );
    }

    #[test]
    fn a_damaged_directory_is_set_aside() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::at(place.path());
        let listed = Listed { path: place.path().join("x"), files: "usr", mark: "mark" };
        fs::create_dir_all(listed.path.join("usr")).unwrap();
        fs::write(listed.path.join("usr/file"), "x").unwrap();
        listed.write().unwrap();
        // Beside the files anything may change.
        fs::write(listed.path.join("mark"), "").unwrap();
        assert_eq!(listed.verify(&cache).unwrap(), Vec::<String>::new());
        assert!(listed.last_used().elapsed().unwrap() < Duration::from_secs(60));
        fs::write(listed.path.join("usr/file"), "y").unwrap();
        assert_eq!(listed.verify(&cache).unwrap(), ["`file` was changed"]);
        assert!(!listed.path.exists());
        assert_eq!(listed.verify(&cache).unwrap(), Vec::<String>::new());
    }
}
