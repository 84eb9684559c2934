//! Holes in files that are mostly zeros: a sandbox that writes to such a file copies the rest only.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Overlayfs skips holes by pieces of this size.
const PIECE: usize = 1 << 20;

/// Makes holes of the pieces of a file that are all zeros. A missing file has none, and a file
/// system without holes keeps the zeros.
pub(super) fn dig(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let mut piece = Vec::with_capacity(PIECE);
    for number in 0.. {
        piece.clear();
        let length = (&file).take(PIECE as u64).read_to_end(&mut piece)?;
        if length == 0 {
            break;
        }
        if piece.iter().all(|&byte| byte == 0) {
            match fallocate(&file, flags, number * PIECE as u64, length as u64) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
                done => done?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeros_become_holes_and_contents_stay() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let mut contents = vec![0; 3 * PIECE + 77];
        contents[PIECE + 5] = 1;
        std::fs::write(&path, &contents).unwrap();
        let held = || std::fs::File::open(&path).unwrap().metadata().unwrap().blocks() * 512;
        let before = held();
        dig(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), contents);
        assert!(held() < before || before == 0, "{} of {before} bytes are left", held());
        dig(&place.path().join("missing")).unwrap();
    }
}
