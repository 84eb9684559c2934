//! The seal of an image: its hash, and a fingerprint that changes when the file does.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// Written beside an image when the image is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    hash: String,
    pub(super) fingerprint: Fingerprint,
}

/// A change of the contents changes the times, the second of which no program can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seal {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        // Before the contents are read: a later change then breaks the seal.
        let fingerprint = Fingerprint::of(file)?;
        Ok(Self { hash: hash(file)?, fingerprint })
    }

    /// Returns the seal of a file with other times, such as a copy, if its contents are the sealed
    /// ones.
    pub(super) fn renewed(self, file: &File) -> io::Result<Option<Self>> {
        let fingerprint = Fingerprint::of(file)?;
        Ok(self.fits(file)?.then_some(Self { fingerprint, ..self }))
    }

    /// Returns `true` if a file has the contents that were sealed, all of which are read.
    pub(super) fn fits(&self, file: &File) -> io::Result<bool> {
        Ok(hash(file)? == self.hash)
    }
}

impl Fingerprint {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn hash(mut file: &File) -> io::Result<String> {
    file.rewind()?;
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut file, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_flipped_byte_breaks_the_seal() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"an image").unwrap();
        let seal = Seal::of(&file).unwrap();
        assert_eq!(seal.clone().renewed(&file).unwrap(), Some(seal.clone()));
        assert!(seal.fits(&file).unwrap() && Fingerprint::of(&file).unwrap() == seal.fingerprint);
        // The clock of file times has ticks of some milliseconds.
        while Fingerprint::of(&file).unwrap() == seal.fingerprint {
            file.write_all_at(b"A", 0).unwrap();
        }
        assert!(!seal.fits(&file).unwrap());
        assert_eq!(seal.renewed(&file).unwrap(), None);
    }
}
