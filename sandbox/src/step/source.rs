//! The files of steps: their paths, the hashes of their contents, and whether they have changed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use super::compressed;
use crate::engine::Scripts;
use crate::error::{Error, ErrorKind, Result};

/// The number of bytes that are read at a time.
const BLOCK: u64 = 1 << 18;

/// A file or tree as read, with the files that it includes.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Without symbolic links: the sandbox shows the file there.
    pub(crate) path: PathBuf,
    /// Of the contents: of the uncompressed text, or of the bytes of any other file.
    pub(crate) hash: blake3::Hash,
    /// The files that it includes or, for a tree, the files in it.
    pub(crate) included: Vec<SourceFile>,
    /// Paths where an included file was searched and not found.
    missing: Vec<PathBuf>,
    /// The path by which it was found.
    reached: PathBuf,
    /// Its name in the including file.
    pub(crate) called: String,
    /// `None` for a directory: a program may leave files in it.
    identity: Option<FileId>,
}

/// Metadata that changes when a file is written, to notice an edit between reading and running.
#[derive(Debug, PartialEq, Eq)]
struct FileId {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl SourceFile {
    /// Reads a file of SQL and, recursively, the files that it includes.
    pub(super) fn script(path: &Path, engine: &dyn Scripts) -> Result<Arc<Self>> {
        let found = fs::canonicalize(path).map_err(|error| unreadable(path, error))?;
        let top = found.parent().unwrap_or(&found).to_owned();
        let mut seen = HashSet::from([found.clone()]);
        Ok(Arc::new(Self::script_below(path.to_owned(), found, &top, engine, &mut seen)?))
    }

    fn script_below(
        reached: PathBuf,
        path: PathBuf,
        top: &Path,
        engine: &dyn Scripts,
        seen: &mut HashSet<PathBuf>,
    ) -> Result<Self> {
        let mut names = Vec::new();
        let mut file = Self::bare(reached, path, &mut |lines| {
            names.extend(engine.included_files(&String::from_utf8_lossy(lines)));
        })?;
        for name in names {
            // Some commands start at the including file's directory, some at the client's. The
            // client reports a missing file.
            for directory in [file.path.parent().unwrap_or(top), top] {
                let reached = directory.join(&name);
                match fs::canonicalize(&reached) {
                    Ok(found) if seen.insert(found.clone()) => {
                        let mut below = Self::script_below(reached, found, top, engine, seen)?;
                        // The client searches only one of the two.
                        let place = if directory == top { "top" } else { "beside" };
                        below.called = format!("{place} {name}");
                        file.included.push(below);
                    }
                    Ok(_) => {}
                    Err(_) => file.missing.push(reached),
                }
            }
        }
        Ok(file)
    }

    /// Reads a file as bytes, or a tree as the names and bytes of its files.
    ///
    /// `__pycache__` is left out.
    pub(super) fn tree(path: &Path) -> Result<Arc<Self>> {
        let found = fs::canonicalize(path).map_err(|error| unreadable(path, error))?;
        if !found.is_dir() {
            return Self::raw(path.to_owned(), found).map(Arc::new);
        }
        let mut hasher = blake3::Hasher::new();
        let mut included = Vec::new();
        let entries = WalkDir::new(&found).min_depth(1).follow_links(true).sort_by_file_name();
        for entry in entries.into_iter().filter_entry(|entry| entry.file_name() != "__pycache__") {
            let (below, is_directory) = match &entry {
                Ok(entry) => (entry.path().to_owned(), entry.file_type().is_dir()),
                // A dangling or circular link counts by its target.
                Err(error) => match error.path() {
                    Some(link) if link.is_symlink() => (link.to_owned(), false),
                    _ => return Err(unreadable(path, io::Error::other(error.to_string()))),
                },
            };
            let file = match entry {
                Ok(entry) if entry.file_type().is_file() => Self::raw(below.clone(), below)?,
                // Sockets and the like count by their names; a directory is listed to be watched.
                Ok(_) => Self::new(below.clone(), below, blake3::hash(b""), None),
                Err(_) => {
                    let target = fs::read_link(&below).map_err(|error| unreadable(&below, error))?;
                    let hash = blake3::hash(target.as_os_str().as_encoded_bytes());
                    Self::new(below.clone(), below, hash, None)
                }
            };
            if !is_directory {
                let name = file.path.strip_prefix(&found).unwrap_or(&file.path);
                let name = name.as_os_str().as_encoded_bytes();
                hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(file.hash.as_bytes());
            }
            included.push(file);
        }
        let mut tree = Self::new(path.to_owned(), found, hasher.finalize(), None);
        tree.included = included;
        Ok(Arc::new(tree))
    }

    fn new(reached: PathBuf, path: PathBuf, hash: blake3::Hash, identity: Option<FileId>) -> Self {
        Self {
            path,
            hash,
            included: Vec::new(),
            missing: Vec::new(),
            reached,
            called: String::new(),
            identity,
        }
    }

    /// Reads a file as bytes.
    fn raw(reached: PathBuf, path: PathBuf) -> Result<Self> {
        let read = || -> io::Result<Self> {
            let identity = FileId::of(&path)?;
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(&path)?)?;
            Ok(Self::new(reached, path.clone(), hasher.finalize(), Some(identity)))
        };
        read().map_err(|error| unreadable(&path, error))
    }

    /// Reads a file of text, uncompressed, and passes it to `on_lines`, some whole lines at a time.
    fn bare(reached: PathBuf, path: PathBuf, on_lines: &mut dyn FnMut(&[u8])) -> Result<Self> {
        let begin = || -> io::Result<_> {
            let identity = FileId::of(&path)?;
            let mut file = compressed::open(&path)?;
            let mut beginning = Vec::new();
            file.by_ref().take(512).read_to_end(&mut beginning)?;
            Ok((identity, beginning, file))
        };
        let (identity, beginning, file) = begin().map_err(|error| unreadable(&path, error))?;
        if beginning.contains(&0) {
            return Err(no_text(&path, &beginning));
        }
        let hash = read_lines(beginning.as_slice().chain(file), on_lines);
        let hash = hash.map_err(|error| unreadable(&path, error))?;
        Ok(Self::new(reached, path, hash, Some(identity)))
    }

    /// Reads the text again: it is not kept, since seeds may be large.
    pub(super) fn contents(&self) -> Result<String> {
        let mut contents = Vec::new();
        compressed::open(&self.path)
            .and_then(|mut file| file.read_to_end(&mut contents))
            .map_err(|error| unreadable(&self.path, error))?;
        let failed = |kind| Error::new(kind, format!("read `{}`", self.path.display()));
        if blake3::hash(&contents) != self.hash {
            let error = failed(ErrorKind::Layer).caused_by("it changed while it was being read");
            return Err(error.with_hint("run the tests again"));
        }
        String::from_utf8(contents).map_err(|error| {
            let convert = format!("iconv -f LATIN1 -t UTF-8 {}", self.path.display());
            failed(ErrorKind::InvalidConfig).caused_by(error).with_hint(format!(
                "the migration tool reads UTF-8 only: convert the file, as by `{convert}`"
            ))
        })
    }

    /// The file, and all files that it includes.
    pub(crate) fn all(&self) -> Vec<&Self> {
        std::iter::once(self).chain(self.included.iter().flat_map(Self::all)).collect()
    }

    /// The paths of the file and of all that it includes, and those of missing included files.
    pub(super) fn watched(&self) -> impl Iterator<Item = PathBuf> {
        self.all().into_iter().flat_map(|file| [&file.reached].into_iter().chain(&file.missing)).cloned()
    }

    /// Returns `true` if the file has not changed since it was read.
    pub(crate) fn is_unchanged(&self) -> bool {
        let same = |before: &FileId| FileId::of(&self.path).is_ok_and(|now| now == *before);
        self.identity.as_ref().is_none_or(same)
    }
}

/// Hashes all bytes, and passes whole lines on; an unfinished line is passed with the next block.
fn read_lines(mut reader: impl Read, on_lines: &mut dyn FnMut(&[u8])) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut block = Vec::new();
    loop {
        let begin = block.len();
        if reader.by_ref().take(BLOCK).read_to_end(&mut block)? == 0 {
            on_lines(&block);
            return Ok(hasher.finalize());
        }
        hasher.update(&block[begin..]);
        // The rest of the last block holds no line end.
        if let Some(end) = memchr::memrchr(b'\n', &block[begin..]) {
            on_lines(&block[..=begin + end]);
            block.drain(..=begin + end);
        }
    }
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self { inode: file.ino(), size: file.size(), changed: (file.ctime(), file.ctime_nsec()) })
    }
}

/// The error of a file whose beginning has zero bytes, which no script has.
fn no_text(path: &Path, beginning: &[u8]) -> Error {
    let error = Error::new(ErrorKind::InvalidConfig, format!("read `{}`", path.display()));
    if is_utf16(beginning) {
        let convert = format!("iconv -f UTF-16 -t UTF-8 {}", path.display());
        return error.caused_by("it is text in UTF-16").with_hint(format!("convert it, as by `{convert}`"));
    }
    error
        .caused_by("it is neither text nor an archive that the database restores")
        .with_hint("a compressed file of SQL is known by its name: `.sql.gz` or `.sql.zst`")
}

/// Returns `true` if the beginning of a file has the byte order mark of UTF-16, or a zero in every
/// second byte.
fn is_utf16(beginning: &[u8]) -> bool {
    let zeros = |first: usize| beginning.iter().skip(first).step_by(2).filter(|byte| **byte == 0).count();
    let mostly = |count: usize| count * 4 > beginning.len();
    matches!(beginning, [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..]) || (mostly(zeros(0)) != mostly(zeros(1)))
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::io(ErrorKind::InvalidConfig, "read", path, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_wherever_blocks_end() {
        let line = |length: usize| "x".repeat(length) + "\n";
        let block = usize::try_from(BLOCK).unwrap();
        for text in [
            String::new(),
            "no end".to_owned(),
            line(block - 1) + &line(5) + "rest",
            line(block) + &line(3 * block + 7) + &line(0),
        ] {
            let mut parts = Vec::new();
            let hash = read_lines(text.as_bytes(), &mut |lines| parts.push(lines.to_vec())).unwrap();
            assert_eq!(hash, blake3::hash(text.as_bytes()));
            assert_eq!(parts.concat(), text.as_bytes());
            let (_, whole) = parts.split_last().unwrap();
            assert!(whole.iter().all(|part| part.ends_with(b"\n")));
        }
    }

    #[test]
    fn the_hash_of_a_tree_covers_names_and_bytes() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("below")).unwrap();
        fs::write(tree.join("below/a"), "one").unwrap();
        let hash = || SourceFile::tree(&tree).unwrap().hash;
        let first = hash();
        fs::create_dir(tree.join("empty")).unwrap();
        assert_eq!(first, hash());
        fs::rename(tree.join("below/a"), tree.join("below/b")).unwrap();
        let renamed = hash();
        assert_ne!(first, renamed);
        fs::write(tree.join("below/b"), "two").unwrap();
        assert_ne!(renamed, hash());
        let two = hash();
        fs::create_dir(tree.join("__pycache__")).unwrap();
        fs::write(tree.join("__pycache__/b.pyc"), "compiled").unwrap();
        assert_eq!(two, hash());
        // The lock of an editor.
        std::os::unix::fs::symlink("me@host.123", tree.join(".#b")).unwrap();
        assert_ne!(two, hash());
        let watched: Vec<_> = SourceFile::tree(&tree).unwrap().watched().collect();
        assert!(watched.contains(&tree) && watched.contains(&tree.join("empty")), "{watched:?}");
    }
}
