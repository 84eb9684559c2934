//! The difference of a layer as a compressed tar archive, written and read.
//!
//! Anybody may have written an archive of a registry, so it is read by the list of what it must
//! hold: its entries give contents to the files of the list, and nothing else. All directories are
//! made here, and links only after all files, so no path leads out of the directory.
//!
//! gzip, since Debian's umoci reads no zstd, at the fastest level, since a test's code may not be
//! optimised.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use super::artifact::{CheckedLink, Packed};
use super::contents::{Contents, Difference};
use crate::layer::manifest::{FileEntry, Kind};
use crate::oci::{Blob, Hashed, HashedWriter};

/// The owner in the archive, as in a sandbox.
const OWNER: u64 = 999;
/// The prefix of the name of a removed file, "layer.md" of the image specification.
const WHITEOUT: &str = ".wh.";
const BLOCK: u64 = 512;
const BUFFER: usize = 1 << 18;

/// Writes the difference of the directory `data` to its parent.
pub(super) fn write(data: &Path, difference: &Difference, file: &Path) -> io::Result<Packed> {
    let file = BufWriter::with_capacity(BUFFER, File::create_new(file)?);
    let compressed = GzEncoder::new(HashedWriter::new(file), Compression::fast());
    let mut archive = tar::Builder::new(HashedWriter::new(compressed));
    for path in &difference.removed {
        let mut name = OsString::from(WHITEOUT);
        name.push(path.file_name().unwrap_or_default());
        let mut header = header(EntryType::Regular, 0o600);
        append(&mut archive, &mut header, &path.with_file_name(name), io::empty())?;
    }
    for FileEntry { path, mode, kind } in &difference.entries {
        match kind {
            Kind::Directory => {
                append(&mut archive, &mut header(EntryType::Directory, *mode), path, io::empty())?;
            }
            Kind::Symlink { target } => {
                let mut header = header(EntryType::Symlink, *mode);
                header.set_link_name_literal(target.as_os_str().as_encoded_bytes())?;
                append(&mut archive, &mut header, path, io::empty())?;
            }
            Kind::File { size, blake3 } => {
                let mut header = header(EntryType::Regular, *mode);
                header.set_size(*size);
                let source = data.join(path);
                let mut source = Checked::new(File::open(&source)?.take(*size));
                append(&mut archive, &mut header, path, &mut source)?;
                source.check(path, *size, blake3)?;
            }
        }
    }
    let (compressed, diff_id, _) = archive.into_inner()?.finish();
    let (file, digest, size) = compressed.finish()?.finish();
    file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(Packed::new(Blob { digest, size }, diff_id))
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(OWNER);
    header.set_gid(OWNER);
    // The same files make the same archive.
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    header: &mut Header,
    path: &Path,
    contents: impl Read,
) -> io::Result<()> {
    // Paths beyond the form of POSIX are refused, so that no extension has to be read.
    header.set_path(if path.as_os_str().is_empty() { Path::new("./") } else { path })?;
    header.set_cksum();
    archive.append(header, contents)
}

/// Makes the data directory of a link: what is as in the directory `below` is shared with it, the
/// rest comes from the archive.
pub(super) fn lay(
    data: &Path,
    link: &CheckedLink,
    below: Option<(&Path, &Contents)>,
    archive: &Path,
) -> io::Result<()> {
    let mut awaited = HashMap::new();
    for entry in link.contents.entries() {
        let path = data.join(&entry.path);
        match &entry.kind {
            Kind::Directory => {
                fs::create_dir(&path)?;
                fs::set_permissions(&path, Permissions::from_mode(0o700))?;
            }
            Kind::File { size, .. } => match below {
                Some((below, listed)) if listed.get(&entry.path) == Some(entry) => {
                    share(&below.join(&entry.path), &path, entry.mode, *size)?;
                }
                _ => drop(awaited.insert(entry.path.as_path(), entry)),
            },
            Kind::Symlink { .. } => {}
        }
    }
    read(archive, link, &mut awaited, data)?;
    if let Some(path) = awaited.keys().next() {
        return Err(wrong(path, "the archive lacks it"));
    }
    for entry in link.contents.entries().rev() {
        match &entry.kind {
            Kind::Symlink { target } => symlink(target, data.join(&entry.path))?,
            Kind::Directory => {
                fs::set_permissions(data.join(&entry.path), Permissions::from_mode(entry.mode))?;
            }
            Kind::File { .. } => {}
        }
    }
    Ok(())
}

/// Gives a file that two layers have a further name; where that is refused, copies it.
fn share(from: &Path, to: &Path, mode: u32, size: u64) -> io::Result<()> {
    // As in a build, empty files are not shared.
    if size == 0 {
        return File::create_new(to)?.set_permissions(Permissions::from_mode(mode));
    }
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

/// Reads an archive whose files are awaited.
fn read(
    archive: &Path,
    link: &CheckedLink,
    awaited: &mut HashMap<&Path, &FileEntry>,
    data: &Path,
) -> io::Result<()> {
    let packed = BufReader::with_capacity(BUFFER, File::open(archive)?);
    let mut unpacked = Hashed::new(MultiGzDecoder::new(packed).take(most(&link.link.difference)));
    let mut entries = tar::Archive::new(&mut unpacked);
    // Without extensions, which would have to be kept in memory.
    for entry in entries.entries()?.raw(true) {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        match entry.header().entry_type() {
            EntryType::Regular if is_whiteout(&path) => {}
            EntryType::Regular => {
                let expected = awaited.remove(path.as_path());
                let expected = expected.ok_or_else(|| wrong(&path, "the archive must not hold it"))?;
                write_file(&mut entry, &data.join(&path), expected)?;
            }
            // The list has them, too.
            EntryType::Directory | EntryType::Symlink => {}
            _ => return Err(wrong(&path, "the archive must not hold such an entry")),
        }
    }
    if unpacked.finish()? != link.archive.diff_id {
        return Err(io::Error::other("the archive has another digest than its configuration says"));
    }
    Ok(())
}

fn is_whiteout(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(WHITEOUT.as_bytes()))
}

/// The most bytes of an archive with that difference: each entry has a header and begins a block.
fn most(difference: &Difference) -> u64 {
    const END: u64 = 20 * BLOCK;
    let of_entry = |entry: &FileEntry| match entry.kind {
        Kind::File { size, .. } => size.next_multiple_of(BLOCK) + BLOCK,
        Kind::Directory | Kind::Symlink { .. } => BLOCK,
    };
    let entries: u64 = difference.entries.iter().map(of_entry).sum();
    entries + difference.removed.len() as u64 * BLOCK + END
}

/// Writes a file as its entry in the list says, with holes where it has pages of zeros.
fn write_file(contents: impl Read, to: &Path, entry: &FileEntry) -> io::Result<()> {
    const PAGE: usize = 4096;
    const ZEROS: [u8; PAGE] = [0; PAGE];
    let Kind::File { size, blake3 } = &entry.kind else { return Err(wrong(to, "it is no file")) };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut contents = Checked::new(contents.take(size.saturating_add(1)));
    let mut buffer = vec![0; 16 * PAGE];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match contents.read(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            break;
        }
        for page in buffer[..filled].chunks(PAGE) {
            if *page == ZEROS[..page.len()] {
                file.seek(SeekFrom::Current(page.len() as i64))?;
            } else {
                file.write_all(page)?;
            }
        }
    }
    contents.check(&entry.path, *size, blake3)?;
    file.set_len(*size)?;
    file.set_permissions(Permissions::from_mode(entry.mode))
}

/// A reader of a file whose length and hash are known.
struct Checked<R> {
    reader: R,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<R> Checked<R> {
    fn new(reader: R) -> Self {
        Self { reader, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    fn check(self, path: &Path, size: u64, blake3: &str) -> io::Result<()> {
        if self.bytes != size || self.hasher.finalize().to_hex().as_str() != blake3 {
            return Err(wrong(path, "its contents are not those of the list"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

fn wrong(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("`{}`: {why}", path.to_string_lossy().escape_debug()))
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
