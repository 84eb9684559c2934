//! The difference between a data directory and the layer below it, as a lower of an overlay.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use walkdir::WalkDir;

/// Writes to `into` what makes the layer `lower` equal to `data`: changed files, and a device of
/// the number zero for a removed one (Documentation/filesystems/overlayfs.rst, "whiteouts").
///
/// # Errors
/// The data has more than files, directories and links, or differs by more than `most` bytes.
pub(super) fn write(data: &Path, lower: &Path, into: &Path, most: u64) -> io::Result<()> {
    let mut left = most;
    DirBuilder::new().mode(fs::metadata(data)?.mode() & 0o7777).create(into)?;
    for entry in WalkDir::new(data).min_depth(1) {
        let entry = entry?;
        let below = entry.path().strip_prefix(data).map_err(io::Error::other)?;
        let (old, target) = (lower.join(below), into.join(below));
        let new = entry.metadata()?;
        let kind = entry.file_type();
        if kind.is_dir() {
            if !old.is_dir() {
                parent(data, into, &below.join("entry"))?;
            }
        } else if kind.is_symlink() {
            let points_to = fs::read_link(entry.path())?;
            if fs::read_link(&old).ok().as_ref() != Some(&points_to) {
                parent(data, into, below)?;
                symlink(points_to, target)?;
            }
        } else if !kind.is_file() {
            return Err(io::Error::other(format!("`{}` is no file", below.display())));
        } else if !is_same(entry.path(), &new, &old)? {
            parent(data, into, below)?;
            left = left.checked_sub(new.len()).ok_or_else(|| {
                io::Error::other(format!("its data differs from the layer by more than {} MB", most >> 20))
            })?;
            copy_without_zeroes(&File::open(entry.path())?, &File::create_new(&target)?)?;
            fs::set_permissions(&target, Permissions::from_mode(new.mode() & 0o7777))?;
        }
    }
    let mut removed = WalkDir::new(lower).min_depth(1).into_iter();
    while let Some(entry) = removed.next() {
        let entry = entry?;
        let below = entry.path().strip_prefix(lower).map_err(io::Error::other)?;
        let is_there = fs::symlink_metadata(data.join(below));
        match is_there {
            Ok(now) if now.is_dir() == entry.file_type().is_dir() => {}
            Ok(now) if now.is_dir() => {
                return Err(io::Error::other(format!("`{}` has become a directory", below.display())));
            }
            // A file covers the directory that was in its place.
            Ok(_) => removed.skip_current_dir(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                parent(data, into, below)?;
                mknodat(CWD, into.join(below), FileType::CharacterDevice, Mode::empty(), 0)?;
                if entry.file_type().is_dir() {
                    removed.skip_current_dir();
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies a file. Zeroes become holes, which the kernel does not copy again for a server that opens
/// the file for writing.
fn copy_without_zeroes(from: &File, to: &File) -> io::Result<()> {
    const PIECE: usize = 64 << 10;
    let (mut piece, mut offset) = (vec![0; PIECE], 0);
    loop {
        let length = from.read_at(&mut piece, offset)?;
        if length == 0 {
            return to.set_len(offset);
        }
        for (page, number) in piece[..length].chunks(4 << 10).zip(0_u64..) {
            if page.iter().any(|&byte| byte != 0) {
                to.write_all_at(page, offset + number * (4 << 10))?;
            }
        }
        offset += length as u64;
    }
}

/// Makes the directories above a path, as they are in the data.
fn parent(data: &Path, into: &Path, below: &Path) -> io::Result<()> {
    let Some(parent) = below.parent() else { return Ok(()) };
    let mut path = std::path::PathBuf::new();
    for part in parent.components() {
        path.push(part);
        if !into.join(&path).exists() {
            let mode = fs::metadata(data.join(&path))?.mode() & 0o7777;
            DirBuilder::new().mode(mode).create(into.join(&path))?;
        }
    }
    Ok(())
}

/// Returns `true` if a file is as in the layer. One that was only opened for writing is a copy.
fn is_same(file: &Path, new: &fs::Metadata, old_path: &Path) -> io::Result<bool> {
    let Ok(old) = fs::symlink_metadata(old_path) else { return Ok(false) };
    if !old.is_file() || new.size() != old.size() || new.mode() != old.mode() {
        return Ok(false);
    }
    let times = |file: &fs::Metadata| (file.ino(), file.mtime(), file.mtime_nsec());
    Ok(times(new) == times(&old) || fs::read(file)? == fs::read(old_path)?)
}

/// Returns a hash of a difference: of names, modes and contents; or, without contents, of what
/// changes with them.
pub(super) fn hash(difference: &Path, with_contents: bool) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    for entry in WalkDir::new(difference).sort_by_file_name() {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let path = entry.path().strip_prefix(difference).map_err(io::Error::other)?;
        hasher.update(path.as_os_str().as_encoded_bytes());
        hasher.update(&[0]);
        hasher.update(&metadata.mode().to_le_bytes());
        let kind = entry.file_type();
        if kind.is_symlink() {
            hasher.update(fs::read_link(entry.path())?.as_os_str().as_encoded_bytes());
        } else if kind.is_file() && with_contents {
            hasher.update_reader(File::open(entry.path())?)?;
        }
        if !with_contents && !kind.is_dir() {
            let (changed, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            for number in [metadata.ino().cast_signed(), changed, nanoseconds, modified.0, modified.1] {
                hasher.update(&number.to_le_bytes());
            }
        }
        hasher.update(&metadata.size().to_le_bytes()[..if kind.is_dir() { 0 } else { 8 }]);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A layer and changed data.
    fn trees() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (lower, data) = (root.path().join("lower"), root.path().join("data"));
        for tree in [&lower, &data] {
            fs::create_dir_all(tree.join("base/1")).unwrap();
            fs::write(tree.join("base/1/same"), "as it was").unwrap();
            fs::write(tree.join("base/changed"), "old").unwrap();
        }
        fs::create_dir(lower.join("gone")).unwrap();
        fs::write(lower.join("gone/file"), "").unwrap();
        fs::write(lower.join("base/removed"), "").unwrap();
        fs::write(data.join("base/changed"), "new").unwrap();
        fs::create_dir(data.join("empty")).unwrap();
        symlink("base", data.join("link")).unwrap();
        (root, lower, data)
    }

    #[test]
    fn a_difference_holds_changes_and_marks_removals() {
        let (root, lower, data) = trees();
        let into = root.path().join("difference");
        write(&data, &lower, &into, 1 << 20).unwrap();
        assert_eq!(fs::read_to_string(into.join("base/changed")).unwrap(), "new");
        assert!(!into.join("base/1").exists() && into.join("empty").is_dir());
        assert_eq!(fs::read_link(into.join("link")).unwrap(), Path::new("base"));
        for removed in ["gone", "base/removed"] {
            let mark = fs::symlink_metadata(into.join(removed)).unwrap();
            assert_eq!((mark.mode() & libc::S_IFMT, mark.rdev()), (libc::S_IFCHR, 0), "{removed}");
        }
        let few = write(&data, &lower, &root.path().join("other"), 2).unwrap_err();
        assert!(few.to_string().contains("more than 0 MB"), "{few}");
    }

    #[test]
    fn a_changed_byte_changes_both_hashes() {
        let (_root, lower, _) = trees();
        let both = || [true, false].map(|with_contents| hash(&lower, with_contents).unwrap());
        let before = both();
        assert_eq!(before, both());
        fs::write(lower.join("base/changed"), "odd").unwrap();
        let after = both();
        assert!(before[0] != after[0] && before[1] != after[1]);
    }
}
