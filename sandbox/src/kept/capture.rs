//! Copies a sandbox's data directory out of it, as far as it differs from the layer's.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use crate::cache::copy_tree_by;

/// The number of bytes that are copied between two looks at the clock.
const CHUNK: u64 = 16 << 20;

/// The bounds of a copy.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) deadline: Instant,
    /// The largest number of copied bytes; links cost none.
    pub(super) size: u64,
}

/// Copies the tree below `from` to `to`, which must not exist. Files that are equal to the layer's
/// become hard links to these, where the file system has such. Returns the number of copied bytes.
pub(super) fn capture(from: &Path, to: &Path, layer: &Path, bounds: &Bounds) -> io::Result<u64> {
    let mut copied = 0;
    copy_tree_by(from, to, &mut || bounds.check_time(), &mut |path, source, target| {
        let original = layer.join(path);
        // Sockets and pipes hold no state.
        let is_file = fs::symlink_metadata(source)?.is_file();
        if is_file && (!is_same(source, &original)? || fs::hard_link(&original, target).is_err()) {
            copied += copy(source, target, bounds.size - copied, bounds)?;
        }
        Ok(())
    })?;
    Ok(copied)
}

/// Returns `true` if two files have the same contents and the same mode.
///
/// A file that an overlay shows from its lower has the inode number and the times of that. A file
/// that was merely opened for writing was copied up, and each file of a server in process mode is a
/// copy: these are compared.
fn is_same(file: &Path, original: &Path) -> io::Result<bool> {
    let Ok(old) = fs::symlink_metadata(original) else { return Ok(false) };
    let new = fs::metadata(file)?;
    if !old.is_file() || new.size() != old.size() || new.mode() != old.mode() {
        return Ok(false);
    }
    let times = |file: &fs::Metadata| (file.ino(), file.mtime(), file.mtime_nsec());
    Ok(times(&new) == times(&old) || same_contents(file, original)?)
}

fn same_contents(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        match other.read_exact(&mut right[..length]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}

fn copy(from: &Path, to: &Path, room: u64, bounds: &Bounds) -> io::Result<u64> {
    let (source, mut target) = (File::open(from)?, File::create_new(to)?);
    let mut copied = 0;
    loop {
        let count = io::copy(&mut (&source).take(CHUNK), &mut target)?;
        copied += count;
        if copied > room {
            return Err(io::Error::other(format!(
                "it differs from its layer by more than {} MB",
                bounds.size >> 20
            )));
        }
        if count < CHUNK {
            break;
        }
        bounds.check_time()?;
    }
    target.set_permissions(source.metadata()?.permissions())?;
    Ok(copied)
}

impl Bounds {
    fn check_time(&self) -> io::Result<()> {
        match Instant::now() < self.deadline {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    fn bounds() -> Bounds {
        Bounds { deadline: Instant::now() + Duration::from_secs(60), size: 1 << 20 }
    }

    /// A layer and a copy of it.
    fn trees() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (layer, data) = (root.path().join("layer"), root.path().join("data"));
        for tree in [&layer, &data] {
            fs::create_dir_all(tree.join("base")).unwrap();
            fs::write(tree.join("base/same"), "as it was").unwrap();
            fs::write(tree.join("base/changed"), "old").unwrap();
            fs::write(tree.join("mode"), "as it was").unwrap();
        }
        fs::write(layer.join("removed"), "").unwrap();
        fs::write(data.join("base/changed"), "new").unwrap();
        fs::write(data.join("added"), "a longer one").unwrap();
        fs::set_permissions(data.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("added", data.join("link")).unwrap();
        (root, layer, data)
    }

    #[test]
    fn files_of_the_layer_are_linked_and_others_copied() {
        let (root, layer, data) = trees();
        let to = root.path().join("kept");
        assert_eq!(capture(&data, &to, &layer, &bounds()).unwrap(), 3 + 12 + 9);
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(to.join("base/same")), inode(layer.join("base/same")));
        assert_eq!(fs::read_to_string(to.join("base/changed")).unwrap(), "new");
        assert_eq!(fs::read_to_string(to.join("link")).unwrap(), "a longer one");
        assert!(!to.join("removed").exists());
        assert_ne!(inode(to.join("mode")), inode(layer.join("mode")));
        assert_eq!(fs::metadata(to.join("mode")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(layer.join("base/changed")).unwrap(), "old");
    }

    #[test]
    fn a_copy_ends_at_its_bounds() {
        let (root, layer, data) = trees();
        let capture = |name, bounds| capture(&data, &root.path().join(name), &layer, &bounds).unwrap_err();
        let large = capture("large", Bounds { size: 10, ..bounds() });
        assert!(large.to_string().contains("by more than 0 MB"), "{large}");
        let late = capture("late", Bounds { deadline: Instant::now(), ..bounds() });
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
