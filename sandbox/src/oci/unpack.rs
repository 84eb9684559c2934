//! Layers of an image, flattened into one directory by one user.
//!
//! | in a layer | in the directory |
//! |---|---|
//! | owner and group | the user |
//! | mode | the same, and the owner may always read, and enter directories; no setuid, setgid, sticky bit |
//! | whiteout, opaque directory | what the layers below have there is removed |
//! | device, pipe | left out |
//! | extended attributes, capabilities | left out |
//!
//! Archives may be hostile: [`tree`](super::tree) keeps them inside the directory, and entries,
//! bytes and the memory for names are limited.

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Mode, fchmod};

use super::tree::{Cleared, Tree, TreePath};

/// The most bytes of files.
pub(super) const MOST_BYTES: u64 = 32 << 30;
/// The most entries of all layers together.
const MOST_ENTRIES: u64 = 2_000_000;
/// The most bytes of a layer's names, which are held in memory.
const MOST_OF_NAMES: usize = 256 << 20;
/// The most bytes between the contents of two entries: headers, long names, extended attributes.
const MOST_OF_HEADERS: u64 = 1 << 20;

/// A directory into which layers are unpacked, the lowest first.
#[derive(Debug)]
pub(super) struct Unpacking {
    tree: Tree,
    bytes_left: u64,
    entries_left: u64,
}

/// The paths that a layer itself holds. Its whiteouts spare them, in whatever order they come.
#[derive(Debug, Default)]
struct Own {
    entries: HashSet<TreePath>,
    /// The directories above them.
    above: HashSet<TreePath>,
    /// The bytes of all.
    size: usize,
}

impl Own {
    fn insert(&mut self, path: TreePath) -> io::Result<()> {
        self.size += path.size();
        let mut above = path.parent();
        while self.above.insert(above.clone()) && above.name().is_some() {
            self.size += above.size();
            above = above.parent();
        }
        self.entries.insert(path);
        if self.size > MOST_OF_NAMES {
            return Err(io::Error::other(format!("its names have more than {} MiB", MOST_OF_NAMES >> 20)));
        }
        Ok(())
    }

    fn spares(&self, path: &TreePath) -> bool {
        self.entries.contains(path) || self.above.contains(path)
    }
}

impl Unpacking {
    pub(super) fn into(root: &Path, most_bytes: u64) -> io::Result<Self> {
        Ok(Self { tree: Tree::open(root)?, bytes_left: most_bytes, entries_left: MOST_ENTRIES })
    }

    /// Unpacks the uncompressed archive of a layer.
    pub(super) fn layer(&mut self, reader: impl Read) -> io::Result<()> {
        let allowance = Cell::new(MOST_OF_HEADERS);
        let mut archive = tar::Archive::new(Metered { reader, allowance: &allowance });
        let (mut own, mut cleared) = (Own::default(), Cleared::default());
        let mut entries = archive.entries()?;
        loop {
            allowance.set(MOST_OF_HEADERS);
            let Some(mut entry) = entries.next().transpose()? else { return Ok(()) };
            allowance.set(u64::MAX);
            self.entries_left = self
                .entries_left
                .checked_sub(1)
                .ok_or_else(|| io::Error::other(format!("it has more than {MOST_ENTRIES} entries")))?;
            // Also what is skipped has to be read.
            self.bytes_left = self.bytes_left.checked_sub(entry.size()).ok_or_else(|| {
                io::Error::other(format!("it unpacks into more than {} GiB", MOST_BYTES >> 30))
            })?;
            let path = entry.path()?.into_owned();
            self.entry(&mut entry, &path, &mut own, &mut cleared)
                .map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display())))?;
            io::copy(&mut entry, &mut io::sink())?;
        }
    }

    fn entry(
        &self,
        entry: &mut tar::Entry<'_, impl Read>,
        path: &Path,
        own: &mut Own,
        cleared: &mut Cleared,
    ) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        refuse_pax_sparse(entry)?;
        let path = TreePath::new(path).ok_or_else(|| io::Error::other("the path leads out of the image"))?;
        let Some(name) = path.name() else { return Ok(()) };
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return self.whiteout(&path, OsStr::from_bytes(hidden), own, cleared);
        }
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o777) | Mode::RUSR;
        if kind.is_dir() {
            let place = self.tree.make(&path)?;
            self.tree.make_directory(&place, mode)?;
        } else if kind.is_symlink() {
            let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link without a target"))?;
            let place = self.tree.make(&path)?;
            place.make_symlink(&target)?;
        } else if kind.is_hard_link() {
            let target = entry.link_name()?.and_then(|target| TreePath::new(&target));
            let target = target.ok_or_else(|| io::Error::other("a hard link leads out of the image"))?;
            let source = self.tree.find(&target)?;
            let source = source.ok_or_else(|| io::Error::other("a hard link leads to no file"))?;
            let place = self.tree.make(&path)?;
            place.make_link(&source)?;
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let place = self.tree.make(&path)?;
            let mut file = place.make_file()?;
            let modified = UNIX_EPOCH.checked_add(Duration::from_secs(entry.header().mtime().unwrap_or(0)));
            write(entry, &mut file)?;
            fchmod(&file, mode)?;
            // Programs compare times; one that the file system cannot hold is left out.
            let _ = modified.map(|modified| file.set_modified(modified));
        } else if kind.is_block_special() || kind.is_character_special() || kind.is_fifo() {
            // It hides what is below it all the same.
            if let Some(place) = self.tree.find(&path)? {
                place.remove()?;
            }
            return Ok(());
        } else {
            return Err(io::Error::other(format!(
                "an entry of unknown kind `{}`",
                kind.as_byte().escape_ascii()
            )));
        }
        own.insert(path)
    }

    /// Removes what the layers below have, "layer.md" of the image specification.
    fn whiteout(&self, path: &TreePath, hidden: &OsStr, own: &Own, cleared: &mut Cleared) -> io::Result<()> {
        if hidden == ".wh..opq" {
            return self.tree.clear(&path.parent(), &|path| own.spares(path), cleared);
        }
        // Notes of aufs.
        if hidden.as_bytes().starts_with(b".wh.") {
            return Ok(());
        }
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(io::Error::other("a whiteout of no file"));
        }
        let target = path.parent().join(hidden);
        if own.above.contains(&target) {
            return self.tree.clear(&target, &|path| own.spares(path), cleared);
        }
        match self.tree.find(&target)? {
            Some(place) if !own.entries.contains(&target) => place.remove(),
            _ => Ok(()),
        }
    }
}

/// Refuses sparse files in the form of POSIX archives, which the reader takes for ordinary ones.
/// Programs that build images write none; GNU's older form is read.
fn refuse_pax_sparse(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        if extension?.key_bytes().starts_with(b"GNU.sparse.") {
            return Err(io::Error::other("a sparse file in the form of POSIX archives is not supported"));
        }
    }
    Ok(())
}

/// Writes a file, with holes where it has pages of zeros.
fn write(mut reader: impl Read, file: &mut File) -> io::Result<()> {
    const PAGE: usize = 4096;
    let mut buffer = vec![0; 64 * PAGE];
    let mut length = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match reader.read(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            break file.set_len(length);
        }
        length += filled as u64;
        for page in buffer[..filled].chunks(PAGE) {
            if page.iter().all(|byte| *byte == 0) {
                file.seek(SeekFrom::Current(page.len() as i64))?;
            } else {
                file.write_all(page)?;
            }
        }
    }
}

/// A reader that ends with an error when more is read than allowed.
pub(super) struct Metered<'a, R> {
    pub(super) reader: R,
    pub(super) allowance: &'a Cell<u64>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let left = self.allowance.get().checked_sub(read as u64);
        self.allowance.set(left.ok_or_else(|| io::Error::other("the header of an entry is too long"))?);
        Ok(read)
    }
}

impl<R: Seek> Seek for Metered<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
