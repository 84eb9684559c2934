//! The layer that a description led to when its files were last read.
//!
//! A run of many processes asks for the same layers again and again. As long as the file system
//! reports no change, no file is read again, however many and large they are. Each process notes
//! its lookups in the cache:
//!
//! ```text
//! <cache>/lookups/<description>     the layer's digest, a fingerprint, the paths that were read
//! ```
//!
//! The fingerprint covers the description, the digest and the state of the paths. So a note with
//! another digest, or of another description, is a miss like one whose files have changed.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::stat;

use super::digest::Digest;
use crate::cache::Cache;

const LOOKUPS: &str = "lookups";
/// File systems may count time by the second: a file that changed so lately may change again
/// unnoticed.
const SETTLED: Duration = Duration::from_secs(2);

/// The outcome of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    layer: Digest,
    fingerprint: blake3::Hash,
    watched: Vec<PathBuf>,
}

/// The notes that this process has written or read, by their files.
static NOTES: Mutex<Option<HashMap<PathBuf, Note>>> = Mutex::new(None);

/// The layer of the description, if nothing that was read for it has changed since.
pub(super) fn recall(cache: &Cache, description: Digest) -> Option<Digest> {
    let path = path(cache, description);
    let known = notes(|notes| notes.get(&path).cloned());
    let is_known = known.is_some();
    let note = known.or_else(|| Note::parse(&fs::read(&path).ok()?))?;
    let (fingerprint, _) = fingerprint(description, note.layer, &note.watched);
    if note.fingerprint != fingerprint {
        return None;
    }
    let layer = note.layer;
    if !is_known {
        notes(|notes| notes.insert(path, note));
    }
    Some(layer)
}

/// Notes the layer of the description, whose reading began at `began`. Nothing is noted where a
/// file has changed since, or so shortly before that another change might leave no trace.
pub(super) fn note(
    cache: &Cache,
    description: Digest,
    layer: Digest,
    watched: Vec<PathBuf>,
    began: SystemTime,
) {
    let (fingerprint, changed) = fingerprint(description, layer, &watched);
    let settled = began.checked_sub(SETTLED).is_some_and(|settled| changed < settled);
    if !settled {
        return;
    }
    let path = path(cache, description);
    let note = Note { layer, fingerprint, watched };
    // Without the file every process reads the description's files again.
    let _ = cache.write(&path, note.encode());
    notes(|notes| notes.insert(path, note));
}

/// Removes the notes of layers that are gone; not those so young that their layers may still be
/// built.
pub(super) fn prune(cache: &Cache, age: Duration, exists: impl Fn(&str) -> bool) {
    cache.remove_older(LOOKUPS, age, |path| {
        let note = Note::parse(&fs::read(path).unwrap_or_default());
        note.is_some_and(|note| exists(&note.layer.to_string()))
    });
}

fn path(cache: &Cache, description: Digest) -> PathBuf {
    cache.path(LOOKUPS).join(description.to_string())
}

fn notes<T>(work: impl FnOnce(&mut HashMap<PathBuf, Note>) -> T) -> T {
    let mut notes = NOTES.lock().unwrap_or_else(PoisonError::into_inner);
    work(notes.get_or_insert_default())
}

impl Note {
    /// Two lines, and the paths, each with a NUL at its end.
    fn encode(&self) -> Vec<u8> {
        let mut text = format!("{}\n{}\n", self.layer, self.fingerprint.to_hex()).into_bytes();
        for path in &self.watched {
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(0);
        }
        text
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = text.splitn(3, |byte| *byte == b'\n');
        let mut line = || str::from_utf8(lines.next()?).ok();
        let (layer, fingerprint) = (line()?.parse().ok()?, blake3::Hash::from_hex(line()?).ok()?);
        let paths = lines.next()?.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        let watched = paths.map(|path| PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()))).collect();
        Some(Self { layer, fingerprint, watched })
    }
}

/// The fingerprint of a note, and the time of the latest change of its paths.
fn fingerprint(description: Digest, layer: Digest, paths: &[PathBuf]) -> (blake3::Hash, SystemTime) {
    let mut text = format!("{description}{layer}").into_bytes();
    text.reserve(paths.len() * 128);
    let mut latest = UNIX_EPOCH;
    for path in paths {
        text.extend_from_slice(path.as_os_str().as_bytes());
        text.push(0);
        // A path that does not exist may do so later.
        if let Ok(stat) = stat(path) {
            let (seconds, nanoseconds) = (stat.st_ctime.cast_unsigned(), stat.st_ctime_nsec);
            let numbers = [stat.st_dev, stat.st_ino, stat.st_size.cast_unsigned(), seconds, nanoseconds];
            numbers.iter().for_each(|number| text.extend_from_slice(&number.to_le_bytes()));
            latest =
                latest.max(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds));
        }
    }
    (blake3::hash(&text), latest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(byte: u8) -> Digest {
        blake3::hash(&[byte]).to_hex().as_str().parse().unwrap()
    }

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(10)
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path().join("cache"));
        fs::create_dir(cache.root()).unwrap();
        (root, cache)
    }

    /// Forgets the notes, so that they are read as by another process.
    fn forget() {
        notes(HashMap::clear);
    }

    #[test]
    fn a_change_of_any_watched_path_is_noticed() {
        let (root, cache) = cache();
        let (file, missing) = (root.path().join("a\nb"), root.path().join("missing"));
        fs::write(&file, "one").unwrap();
        let watched = || vec![root.path().to_owned(), file.clone(), missing.clone()];
        let note = || note(&cache, digest(1), digest(2), watched(), later());
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(&file, "two").unwrap(),
            &|| fs::rename(&file, root.path().join("other")).and_then(|()| fs::write(&file, "two")).unwrap(),
            &|| fs::write(&missing, "").unwrap(),
            &|| fs::remove_file(&missing).unwrap(),
        ];
        for change in changes {
            note();
            assert_eq!(recall(&cache, digest(1)), Some(digest(2)));
            forget();
            assert_eq!(recall(&cache, digest(1)), Some(digest(2)));
            assert_eq!(recall(&cache, digest(3)), None);
            // Times of old kernels go by ticks.
            std::thread::sleep(Duration::from_millis(20));
            change();
            assert_eq!(recall(&cache, digest(1)), None);
        }
    }

    #[test]
    fn a_file_that_changed_lately_is_not_noted() {
        let (root, cache) = cache();
        let file = root.path().join("a");
        fs::write(&file, "").unwrap();
        note(&cache, digest(4), digest(2), vec![file], SystemTime::now());
        assert_eq!(recall(&cache, digest(4)), None);
    }

    #[test]
    fn a_truncated_note_is_a_miss() {
        let (_root, cache) = cache();
        note(&cache, digest(5), digest(2), vec!["/dev".into(), "/".into()], later());
        forget();
        let path = path(&cache, digest(5));
        let text = fs::read(&path).unwrap();
        for end in 0..text.len() {
            fs::write(&path, &text[..end]).unwrap();
            // Without the last NUL it says the same.
            assert_eq!(recall(&cache, digest(5)).is_some(), end == text.len() - 1, "{end} of {}", text.len());
            forget();
        }
        prune(&cache, Duration::ZERO, |_| true);
        assert!(path.exists());
        prune(&cache, Duration::from_secs(60), |_| false);
        assert!(path.exists());
        prune(&cache, Duration::ZERO, |_| false);
        assert!(!path.exists());
    }

    #[test]
    fn a_note_with_another_digest_or_description_is_a_miss() {
        let (_root, cache) = cache();
        let note = |description| note(&cache, description, digest(2), vec!["/dev".into()], later());
        note(digest(6));
        note(digest(7));
        forget();
        let (one, other) = (path(&cache, digest(6)), path(&cache, digest(7)));
        let text = fs::read_to_string(&one).unwrap();
        fs::write(&one, text.replace(&digest(2).to_string(), &digest(3).to_string())).unwrap();
        fs::write(&other, text).unwrap();
        assert_eq!((recall(&cache, digest(6)), recall(&cache, digest(7))), (None, None));
    }

    proptest! {
        #[test]
        fn a_note_is_read_as_it_was_written(paths in prop::collection::vec(prop::collection::vec(1_u8.., 1..30), 0..9)) {
            let watched = paths.into_iter().map(|path| PathBuf::from(std::ffi::OsString::from_vec(path))).collect();
            let note = Note { layer: digest(1), fingerprint: blake3::hash(b"2"), watched };
            assert_eq!(Note::parse(&note.encode()), Some(note));
        }
    }
}
