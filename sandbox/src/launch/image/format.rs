//! The file of an image: pages of memory, the lists of system calls that restore them, and a
//! description of what the lists take for granted.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::held::Inheritance;
use crate::sys::call_list::StoredLists;

pub(super) const PAGE: u64 = 4096;

/// The longest description; a file with a longer one is no image.
const LONGEST_DESCRIPTION: u64 = 16 << 20;

/// Descriptors that lists find. Mapped files have the numbers from [`FIRST_FILE`] on.
pub(super) const FIRST_FILE: u64 = 3;
pub(super) const IMAGE: u64 = 240;
pub(super) const LAST_PID: u64 = 242;
pub(super) const SHARED_MEMORY: u64 = 245;

/// The most files of an image, by the numbers above.
const MOST_FILES: usize = (IMAGE - FIRST_FILE) as usize;

/// An image without its pages and lists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) files: Vec<MappedFile>,
    /// The kernel's own mappings: name, beginning and end.
    pub(super) system: Vec<(String, u64, u64)>,
    /// The address of the first list.
    pub(super) entry: u64,
    /// The id of the first process, if it must have a certain one.
    pub(super) id: Option<u32>,
    /// The number of processes.
    pub(super) processes: usize,
    /// Offset and length of the pages that lists find at [`PASSING`], and unmap.
    ///
    /// [`PASSING`]: crate::sys::call_list::PASSING
    pub(super) passing: Option<(u64, u64)>,
    /// Memory that the first process can inherit.
    pub(super) inheritance: Option<Inheritance>,
}

/// A file with mappings in an image, and the state by which a change is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MappedFile {
    pub(super) path: PathBuf,
    state: FileState,
}

/// The state excludes the device, which differs for each mount of an overlay, and the change
/// time, which a hard link changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct FileState {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl MappedFile {
    /// The file of that path, which is now found at `found`.
    pub(super) fn of(path: PathBuf, found: &Path) -> io::Result<Self> {
        let state = FileState::of(&std::fs::metadata(found)?);
        Ok(Self { path, state })
    }

    /// Opens the file if it is unchanged.
    pub(super) fn open(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        if FileState::of(&file.metadata()?) == self.state {
            Ok(file)
        } else {
            Err(io::Error::other("it was changed since the program was linked"))
        }
    }
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// An image that is being written.
#[derive(Debug)]
pub(super) struct ImageWriter<'a> {
    file: &'a File,
    /// The offset of the next pages.
    next: u64,
}

impl<'a> ImageWriter<'a> {
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        file.set_len(0)?;
        Ok(Self { file, next: PAGE })
    }

    /// Adds pages of memory, and returns their offset in the file. Zeroes take no space.
    pub(super) fn add_pages(&mut self, memory: &[u8]) -> io::Result<u64> {
        let offset = self.next;
        for (number, page) in memory.chunks(PAGE as usize).enumerate() {
            if !is_zero(page) {
                self.file.write_all_at(page, offset + number as u64 * PAGE)?;
            }
        }
        self.next += (memory.len() as u64).next_multiple_of(PAGE);
        Ok(offset)
    }

    pub(super) fn finish(self, lists: &StoredLists, description: &Description) -> io::Result<()> {
        if description.files.len() > MOST_FILES {
            return Err(io::Error::other("it maps more files than an image can hold"));
        }
        let lists = lists.bytes()?;
        let text = serde_json::to_vec(description)?;
        self.file.write_all_at(lists, self.next)?;
        let after = self.next + lists.len() as u64;
        self.file.write_all_at(&text, after)?;
        let head = [self.next, lists.len() as u64, text.len() as u64];
        self.file.write_all_at(&head.map(u64::to_le_bytes).concat(), 0)
    }
}

/// Returns `true` if a page, or a part of one, has no other bytes than zeroes.
pub(super) fn is_zero(page: &[u8]) -> bool {
    page == &[0; PAGE as usize][..page.len()]
}

/// An image that was read, but for its pages and lists.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) description: Description,
    /// Offset and length of the lists.
    pub(super) lists: (u64, u64),
}

impl Image {
    pub(super) fn read(file: &File) -> io::Result<Self> {
        // By offsets: all users of the open file share its position.
        let mut head = [0; 24];
        file.read_exact_at(&mut head, 0)?;
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let (offset, length, text) = (word(0), word(8), word(16));
        let size = file.metadata()?.len();
        let after = offset.checked_add(length).filter(|after| after.checked_add(text) == Some(size));
        let after = after.filter(|_| text <= LONGEST_DESCRIPTION && offset % PAGE == 0);
        let after = after.ok_or_else(|| io::Error::other("it is not the image of a program"))?;
        let mut bytes = vec![0; text as usize];
        file.read_exact_at(&mut bytes, after)?;
        Ok(Self { description: serde_json::from_slice(&bytes)?, lists: (offset, length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_survives_its_file() {
        let file = tempfile::tempfile().unwrap();
        let mut writer = ImageWriter::new(&file).unwrap();
        let (zeroes, ones) = ([0; PAGE as usize], [1; PAGE as usize]);
        let first = writer.add_pages(&[zeroes, ones].concat()).unwrap();
        let second = writer.add_pages(&ones[..5]).unwrap();
        assert_eq!((first % PAGE, second), (0, first + 2 * PAGE));
        let mut lists = StoredLists::default();
        lists.lay(b"a list");
        let description = Description {
            files: Vec::new(),
            system: vec![("[vdso]".to_owned(), 1, 2)],
            entry: 7,
            id: Some(2),
            processes: 5,
            passing: None,
            inheritance: None,
        };
        writer.finish(&lists, &description).unwrap();
        let read = Image::read(&file).unwrap();
        assert_eq!((read.description.system, read.description.entry), (description.system, 7));
        let at = |offset| {
            let mut byte = [7];
            file.read_exact_at(&mut byte, offset).unwrap();
            byte[0]
        };
        assert_eq!((at(first), at(first + PAGE), at(second + 4), at(second + 5)), (0, 1, 1, 0));
        assert_eq!((at(read.lists.0), read.lists.1, read.lists.0 % PAGE), (b'a', 6, 0));
        for word in [0, 8, 16] {
            let mut kept = [0; 8];
            file.read_exact_at(&mut kept, word).unwrap();
            file.write_all_at(&u64::MAX.to_le_bytes(), word).unwrap();
            assert!(Image::read(&file).is_err(), "the length at {word} is beyond all bounds");
            file.write_all_at(&kept, word).unwrap();
        }
        assert!(Image::read(&file).is_ok());
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        assert!(Image::read(&file).is_err(), "it is cut short");
    }

    #[test]
    fn a_changed_file_is_noticed_and_a_hard_link_is_ignored() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("library.so");
        std::fs::write(&path, "linked").unwrap();
        let file = MappedFile::of(path.clone(), &path).unwrap();
        std::fs::hard_link(&path, place.path().join("link")).unwrap();
        assert!(file.open().is_ok());
        std::fs::write(place.path().join("new"), "linked").unwrap();
        std::fs::rename(place.path().join("new"), &path).unwrap();
        assert!(file.open().is_err(), "another file of the same size");
    }
}
