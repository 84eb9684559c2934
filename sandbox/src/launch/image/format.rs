//! The image of a linked program: its memory at its entry point, and the kernel's state of it.
//!
//! A file has a description, regions and pages. Pages that are as in the program's own files are
//! left out.

use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(super) const PAGE: u64 = 4096;

/// The longest description; a file with a longer one is no image.
const LONGEST_DESCRIPTION: u64 = 16 << 20;

/// The most regions: the default number of mappings of a process, vm.max_map_count, proc_sys_vm(5).
const MOST_REGIONS: u64 = 65530;

/// An image without its pages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) files: Vec<MappedFile>,
    /// Stored as numbers instead of text: all of the hundreds are read for each server.
    #[serde(skip)]
    pub(super) regions: Vec<Region>,
    /// The kernel's own mappings: name, beginning and end.
    pub(super) system: Vec<(String, u64, u64)>,
    pub(super) layout: Layout,
    /// Pairs of a type and a value, getauxval(3).
    pub(super) auxiliary: Vec<u64>,
    pub(super) thread: Thread,
    pub(super) entry: EntryPoint,
}

/// A file with mappings in an image, and the state by which a change is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MappedFile {
    pub(super) path: PathBuf,
    state: FileState,
}

/// The state excludes the device, which differs for each mount of an overlay, and the change time,
/// which a hard link changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct FileState {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) end: u64,
    /// PROT_READ and so on, mmap(2).
    pub(super) protection: u64,
    pub(super) source: Source,
}

/// The source of a region's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// One of the image's files, by its number, from an offset on.
    File {
        file: usize,
        offset: u64,
    },
    /// The image's pages, from an offset on.
    Pages {
        offset: u64,
    },
    Zeroes,
    /// The stack. The image's pages hold the part from `used` on.
    Stack {
        used: u64,
        offset: u64,
    },
}

/// The parts of a process's memory that the kernel knows, in the order of PR_SET_MM(2const).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Layout(pub(super) [u64; 11]);

/// The first thread's registrations at the kernel.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Thread {
    /// The thread pointer.
    pub(super) pointer: u64,
    /// The address of the thread's id, set_tid_address(2).
    pub(super) id: u64,
    /// The arguments of set_robust_list(2).
    pub(super) robust: Option<[u64; 2]>,
    /// The arguments of rseq(2).
    pub(super) sequences: Option<[u64; 4]>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct EntryPoint {
    pub(super) instruction: u64,
    pub(super) stack: u64,
    pub(super) at_exit: u64,
    /// The address of the instructions `syscall; ret`.
    pub(super) farewell: u64,
}

impl From<Region> for [u64; 6] {
    fn from(Region { start, end, protection, source }: Region) -> Self {
        let (kind, detail, offset) = match source {
            Source::File { file, offset } => (0, file as u64, offset),
            Source::Pages { offset } => (1, 0, offset),
            Source::Zeroes => (2, 0, 0),
            Source::Stack { used, offset } => (3, used, offset),
        };
        [start, end, protection, kind, detail, offset]
    }
}

impl TryFrom<[u64; 6]> for Region {
    type Error = String;

    fn try_from([start, end, protection, kind, detail, offset]: [u64; 6]) -> Result<Self, String> {
        let source = match kind {
            0 => Source::File { file: detail as usize, offset },
            1 => Source::Pages { offset },
            2 => Source::Zeroes,
            3 => Source::Stack { used: detail, offset },
            other => return Err(format!("no source of memory has the number {other}")),
        };
        Ok(Self { start, end, protection, source })
    }
}

impl Region {
    /// Returns `true` if `next` continues this region in memory and in the same file, and neither
    /// is writable.
    pub(super) fn goes_on_in(&self, next: &Self) -> bool {
        let (Source::File { file, offset }, Source::File { file: of_next, offset: next_offset }) =
            (self.source, next.source)
        else {
            return false;
        };
        let length = self.end - self.start;
        let writable = (self.protection | next.protection) & libc::PROT_WRITE as u64 != 0;
        file == of_next && self.end == next.start && offset + length == next_offset && !writable
    }
}

impl MappedFile {
    pub(super) fn of(path: PathBuf) -> io::Result<Self> {
        let state = FileState::of(&std::fs::metadata(&path)?);
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

impl Image {
    /// Writes an image. `pages` appends the pages to the file.
    pub(super) fn write(
        &self,
        file: &mut File,
        pages: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let description = serde_json::to_vec(self)?;
        let extent = Extent { description: description.len() as u64, regions: self.regions.len() as u64 };
        let regions = self.regions.iter().flat_map(|region| <[u64; 6]>::from(region.clone()));
        let head = [extent.description, extent.regions].into_iter();
        file.write_all(&head.flat_map(u64::to_le_bytes).collect::<Vec<_>>())?;
        file.write_all(&description)?;
        file.write_all(&regions.flat_map(u64::to_le_bytes).collect::<Vec<_>>())?;
        file.seek(SeekFrom::Start(extent.pages()))?;
        pages(file)
    }

    /// Reads an image without its pages. Returns the offset of the pages, too.
    pub(super) fn read(file: &File) -> io::Result<(Self, u64)> {
        // By offsets: all users of the open file share its position.
        let mut head = [0; Extent::HEAD as usize];
        file.read_exact_at(&mut head, 0)?;
        let [description, regions] = words(&head)[..] else { unreachable!("it is two words") };
        if description > LONGEST_DESCRIPTION || regions > MOST_REGIONS {
            return Err(io::Error::other("it is not the image of a program"));
        }
        let extent = Extent { description, regions };
        let mut bytes = vec![0; (description + regions * Extent::REGION) as usize];
        file.read_exact_at(&mut bytes, Extent::HEAD)?;
        let (description, regions) = bytes.split_at(description as usize);
        let mut image: Self = serde_json::from_slice(description)?;
        let regions = words(regions);
        let regions = regions.chunks_exact(6).map(|six| {
            let six: [u64; 6] = six.try_into().expect("chunks are of six");
            Region::try_from(six).map_err(io::Error::other)
        });
        image.regions = regions.collect::<io::Result<_>>()?;
        Ok((image, extent.pages()))
    }
}

/// The lengths of the parts before the pages.
struct Extent {
    description: u64,
    regions: u64,
}

impl Extent {
    const HEAD: u64 = 16;
    const REGION: u64 = 48;

    fn pages(&self) -> u64 {
        (Self::HEAD + self.description + self.regions * Self::REGION).next_multiple_of(PAGE)
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_survives_its_file() {
        let regions = [
            Source::File { file: 1, offset: 8192 },
            Source::Pages { offset: 4096 },
            Source::Zeroes,
            Source::Stack { used: 12288, offset: 0 },
        ];
        let region = |source| Region { start: PAGE, end: 5 * PAGE, protection: 3, source };
        let image = Image {
            files: Vec::new(),
            regions: regions.map(region).to_vec(),
            system: vec![("[vdso]".to_owned(), 1, 2)],
            layout: Layout([7; 11]),
            auxiliary: vec![25, u64::MAX],
            thread: Thread::default(),
            entry: EntryPoint { instruction: 1, stack: 2, at_exit: 3, farewell: 4 },
        };
        let mut file = tempfile::tempfile().unwrap();
        image.write(&mut file, |file| file.write_all(b"pages")).unwrap();
        let (read, pages) = Image::read(&file).unwrap();
        assert_eq!((read.regions, read.auxiliary), (image.regions, image.auxiliary));
        let mut found = [0; 5];
        file.read_exact_at(&mut found, pages).unwrap();
        assert_eq!((&found, pages % PAGE), (b"pages", 0));
        for (word, what) in [(0, "a length"), (8, "a number of regions")] {
            let mut kept = [0; 8];
            file.read_exact_at(&mut kept, word).unwrap();
            file.write_all_at(&u64::MAX.to_le_bytes(), word).unwrap();
            assert!(Image::read(&file).is_err(), "{what} beyond all bounds");
            file.write_all_at(&kept, word).unwrap();
        }
        assert!(Image::read(&file).is_ok());
    }

    #[test]
    fn a_changed_file_is_noticed_and_a_hard_link_is_ignored() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("library.so");
        std::fs::write(&path, "linked").unwrap();
        let file = MappedFile::of(path.clone()).unwrap();
        std::fs::hard_link(&path, place.path().join("link")).unwrap();
        assert!(file.open().is_ok());
        std::fs::write(place.path().join("new"), "linked").unwrap();
        std::fs::rename(place.path().join("new"), &path).unwrap();
        assert!(file.open().is_err(), "another file of the same size");
    }
}
