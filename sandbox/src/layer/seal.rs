//! The seal of a layer: a fingerprint of its files' names, sizes, modes and times, which stays the
//! same while they are not touched. Comparing it takes a millisecond where hashing contents would
//! take many.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, statat};

use super::digest::Digest;
use super::published::{DATA, MANIFEST};
use crate::cache::{add_state, add_states};

/// The seal of the layer in that directory, as its manifest and its data are now. It holds for that
/// digest only.
pub(super) fn of(digest: Digest, layer: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(digest.to_string().as_bytes());
    add_state(&mut hasher, &statat(CWD, layer.join(MANIFEST), AtFlags::SYMLINK_NOFOLLOW)?);
    add_states(&mut hasher, &layer.join(DATA))?;
    Ok(hasher.finalize().to_hex().to_string())
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
