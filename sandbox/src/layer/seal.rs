//! The seal of a layer: a fingerprint of its files' names, sizes, modes and times, which stays the
//! same while they are not touched. Comparing it takes a millisecond where hashing contents would
//! take many.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};

use super::digest::Digest;
use super::published::{DATA, MANIFEST};

/// The seal of the layer in that directory, as its manifest and its data are now. It holds for that
/// digest only.
pub(super) fn of(digest: Digest, layer: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(digest.to_string().as_bytes());
    add(&mut hasher, &statat(CWD, layer.join(MANIFEST), AtFlags::SYMLINK_NOFOLLOW)?);
    let root = openat(CWD, layer.join(DATA), DIRECTORY, Mode::empty())?;
    add_directory(&mut hasher, root.as_fd())?;
    Ok(hasher.finalize().to_hex().to_string())
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Adds the entries of a directory in the order of their names, each directory followed by its
/// entries.
fn add_directory(hasher: &mut blake3::Hasher, directory: BorrowedFd<'_>) -> io::Result<()> {
    let mut entries: Vec<(CString, Stat)> = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            let stat = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            entries.push((name, stat));
        }
    }
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    for (name, stat) in &entries {
        hasher.update(name.as_bytes_with_nul());
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        add(hasher, stat);
        if is_directory {
            let below = openat(directory, name, DIRECTORY, Mode::empty())?;
            add_directory(hasher, below.as_fd())?;
        }
        // Ends the directory, so that a file cannot pass for one in the directory before it.
        hasher.update(b"/");
    }
    Ok(())
}

/// A directory's size and times depend on the file system, and change with nothing but its entries.
fn add(hasher: &mut blake3::Hasher, stat: &Stat) {
    hasher.update(&stat.st_mode.to_le_bytes());
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let modified = time(stat.st_mtime.into(), stat.st_mtime_nsec.into());
        let changed = time(stat.st_ctime.into(), stat.st_ctime_nsec.into());
        for number in [stat.st_size.into(), modified, changed] {
            hasher.update(&number.to_le_bytes());
        }
    }
}

fn time(seconds: i128, nanoseconds: i128) -> i128 {
    seconds * 1_000_000_000 + nanoseconds
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_change_of_a_file_breaks_the_seal() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join(DATA);
        let manifest = root.path().join(MANIFEST);
        fs::create_dir_all(data.join("a")).unwrap();
        fs::write(data.join("a/file"), "contents").unwrap();
        fs::write(&manifest, "a manifest").unwrap();
        let digest = |byte: u8| blake3::hash(&[byte]).to_hex().as_str().parse().unwrap();
        let seal = || of(digest(1), root.path()).unwrap();
        let first = seal();
        assert_eq!(first, seal());
        assert_ne!(first, of(digest(2), root.path()).unwrap());

        fs::write(data.join("a/file"), "contentz").unwrap();
        let written = seal();
        assert_ne!(first, written);
        fs::write(data.join("extra"), "").unwrap();
        let extra = seal();
        assert_ne!(written, extra);
        fs::rename(data.join("extra"), data.join("a/extra")).unwrap();
        assert_ne!(extra, seal());
        fs::remove_file(data.join("a/file")).unwrap();
        let removed = seal();
        assert_ne!(written, removed);
        fs::write(&manifest, "a man").unwrap();
        assert_ne!(removed, seal());

        fs::rename(&data, root.path().join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", &data).unwrap();
        assert!(of(digest(1), root.path()).is_err());
    }
}
