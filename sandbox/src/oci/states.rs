//! The states of an unpacked image's files, by which a change is seen without reading them.
//!
//! An image has ten times the files of a layer, so its list is compared in place, without a walk
//! and without a hash: directories come first, and their times change with their entries.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, openat, statat};
use walkdir::WalkDir;

use super::digest::Sha256;

/// The bytes of a state.
const SIZE: usize = 4 * 16;
const DIRECTORY: u8 = b'd';
const OTHER: u8 = b'-';

/// The part of an image that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Shows what was added, removed or replaced.
    Directories,
    /// Shows also what was written or given another mode.
    Everything,
}

/// Returns the list: a line with the image's digest and the length of the rest, then for each file
/// its path, a NUL, its kind and its state.
pub(super) fn list(id: Sha256, root: &Path) -> io::Result<Vec<u8>> {
    let (mut directories, mut others) = (Vec::new(), Vec::new());
    for entry in WalkDir::new(root) {
        let entry = entry?;
        let path = entry.path().strip_prefix(root).map_err(io::Error::other)?;
        let (list, kind) = match entry.file_type().is_dir() {
            true => (&mut directories, DIRECTORY),
            false => (&mut others, OTHER),
        };
        list.extend_from_slice(path.as_os_str().as_bytes());
        list.extend_from_slice(&[0, kind]);
        list.extend_from_slice(&state(&statat(CWD, entry.path(), AtFlags::SYMLINK_NOFOLLOW)?));
    }
    directories.append(&mut others);
    Ok([header(id, directories.len()).as_bytes(), &directories].concat())
}

fn header(id: Sha256, length: usize) -> String {
    format!("{id} {length}\n")
}

/// Returns `true` if the files are as a list says. A list that cannot be read says nothing.
pub(super) fn hold(list: &Path, id: Sha256, root: &Path, extent: Extent) -> bool {
    fs::read(list).is_ok_and(|list| compare(&list, id, root, extent).is_some_and(|same| same))
}

fn compare(list: &[u8], id: Sha256, root: &Path, extent: Extent) -> Option<bool> {
    let start = memchr::memchr(b'\n', list)? + 1;
    let (head, mut rest) = list.split_at(start);
    if head != header(id, rest.len()).as_bytes() {
        return None;
    }
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    while !rest.is_empty() {
        let end = memchr::memchr(0, rest)?;
        let (path, after) = (&rest[..end], rest.get(end + 1..)?);
        let (kind, after) = after.split_first()?;
        let (expected, after) = after.split_at_checked(SIZE)?;
        if *kind != DIRECTORY && extent == Extent::Directories {
            break;
        }
        let found = statat(&root, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH);
        if !found.is_ok_and(|found| state(&found) == expected) {
            return Some(false);
        }
        rest = after;
    }
    Some(true)
}

fn state(stat: &Stat) -> [u8; SIZE] {
    let mut state = [0; SIZE];
    let size: i128 = stat.st_size.into();
    let modified = time(stat.st_mtime.into(), stat.st_mtime_nsec.into());
    let changed = time(stat.st_ctime.into(), stat.st_ctime_nsec.into());
    for (place, number) in state.chunks_exact_mut(16).zip([size, modified, changed, stat.st_mode.into()]) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    state
}

fn time(seconds: i128, nanoseconds: i128) -> i128 {
    seconds * 1_000_000_000 + nanoseconds
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn every_change_is_seen_and_additions_by_directories_alone() {
        type Change = fn(&Path);
        let changes: [(Change, bool); 6] = [
            (|root| fs::write(root.join("a/new"), "").unwrap(), true),
            (|root| fs::remove_file(root.join("a/file")).unwrap(), true),
            (|root| fs::rename(root.join("link"), root.join("a/file")).unwrap(), true),
            (|root| fs::create_dir(root.join("new")).unwrap(), true),
            (|root| fs::write(root.join("a/file"), "other").unwrap(), false),
            (
                |root| fs::set_permissions(root.join("a/file"), fs::Permissions::from_mode(0o777)).unwrap(),
                false,
            ),
        ];
        for (change, shows_in_directory) in changes {
            let place = tempfile::tempdir().unwrap();
            let (root, file) = (place.path().join("root"), place.path().join("list"));
            fs::create_dir_all(root.join("a/b")).unwrap();
            fs::write(root.join("a/file"), "text").unwrap();
            symlink("/nowhere", root.join("link")).unwrap();
            let id = Sha256::of(b"x");
            fs::write(&file, list(id, &root).unwrap()).unwrap();
            let holds = |extent| hold(&file, id, &root, extent);
            assert!(holds(Extent::Directories) && holds(Extent::Everything));
            assert!(!hold(&file, Sha256::of(b"y"), &root, Extent::Directories), "the list of another image");
            // Times of the file system have steps of some milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(&root);
            assert!(!holds(Extent::Everything));
            assert_eq!(!holds(Extent::Directories), shows_in_directory);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_list_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let place = tempfile::tempdir().unwrap();
            let id = Sha256::of(b"x");
            let list = [header(id, bytes.len()).as_bytes(), &bytes].concat();
            let _ = compare(&list, id, place.path(), Extent::Everything);
        }
    }

    #[test]
    fn a_damaged_list_says_nothing() {
        let place = tempfile::tempdir().unwrap();
        let (root, file) = (place.path().join("root"), place.path().join("list"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let id = Sha256::of(b"x");
        let whole = list(id, &root).unwrap();
        assert_eq!(compare(&whole, id, &root, Extent::Everything), Some(true));
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            assert!(!hold(&file, id, &root, Extent::Directories), "{length} bytes");
        }
        assert!(!hold(&place.path().join("none"), id, &root, Extent::Everything));
    }
}
