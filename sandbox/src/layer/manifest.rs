//! The manifest of a layer: every file with its size, mode and hash, and how the layer came to be.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::digest::FORMAT;
use super::run;

/// What is known of a layer besides its data; stored as `manifest.json` beside the data.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) engine: String,
    pub(super) version: String,
    /// The digest of the layer that this one was built on.
    pub(super) parent: Option<String>,
    /// The steps that were run on the parent.
    pub(super) steps: Vec<String>,
    /// The test run that built it; empty in layers of versions that did not note it.
    #[serde(default)]
    pub(super) run: String,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// Permission bits.
    pub(super) mode: u32,
    #[serde(flatten)]
    pub(super) kind: Kind,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub(super) enum Kind {
    Directory,
    File { size: u64, blake3: String },
    Symlink { target: PathBuf },
}

impl Manifest {
    /// Reads the tree below `data` and hashes every file.
    pub(super) fn of(
        data: &Path,
        engine: &str,
        version: &str,
        parent: Option<String>,
        steps: Vec<String>,
    ) -> io::Result<Self> {
        let mut entries = Vec::new();
        for entry in WalkDir::new(data).sort_by_file_name() {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let kind = if metadata.is_dir() {
                Kind::Directory
            } else if metadata.is_file() {
                Kind::File { size: metadata.size(), blake3: hash(entry.path())? }
            } else if metadata.is_symlink() {
                Kind::Symlink { target: fs::read_link(entry.path())? }
            } else {
                return Err(io::Error::other(format!(
                    "`{}` is no file, directory or link",
                    entry.path().display()
                )));
            };
            let path = entry.path().strip_prefix(data).map_err(io::Error::other)?.to_owned();
            entries.push(Entry { path, mode: metadata.permissions().mode() & 0o7777, kind });
        }
        let (engine, version) = (engine.to_owned(), version.to_owned());
        Ok(Self { format: FORMAT, engine, version, parent, steps, run: run::id().to_owned(), entries })
    }

    /// What of the tree below `data` is not as listed; empty if all is.
    pub(super) fn differences(&self, data: &Path) -> io::Result<Vec<String>> {
        let found = Self::of(data, &self.engine, &self.version, None, Vec::new())?;
        let found: HashMap<_, _> = found.entries.iter().map(|entry| (&entry.path, entry)).collect();
        let listed: HashMap<_, _> = self.entries.iter().map(|entry| (&entry.path, entry)).collect();
        let mut differences = Vec::new();
        for entry in &self.entries {
            match found.get(&entry.path) {
                None => differences.push(format!("`{}` is missing", entry.path.display())),
                Some(now) if now.kind != entry.kind || now.mode != entry.mode => {
                    differences.push(format!("`{}` has changed", entry.path.display()));
                }
                Some(_) => {}
            }
        }
        let extra = found.keys().filter(|path| !listed.contains_key(*path));
        differences.extend(extra.map(|path| format!("`{}` does not belong there", path.display())));
        Ok(differences)
    }

    /// Replaces the files below `data` that are the same in `parent` by hard links to the parent's.
    ///
    /// A file system that refuses a link costs space, nothing else.
    pub(super) fn share_with(&self, data: &Path, parent: &Self, parent_data: &Path) -> io::Result<u64> {
        let known: HashMap<_, _> = parent.entries.iter().map(|entry| (&entry.path, entry)).collect();
        let mut shared = 0;
        for entry in &self.entries {
            let Kind::File { size, .. } = entry.kind else {
                continue;
            };
            let same =
                known.get(&entry.path).is_some_and(|old| old.mode == entry.mode && old.kind == entry.kind);
            if !same || size == 0 {
                continue;
            }
            let file = data.join(&entry.path);
            let link = file.with_extension("sandboxed-db-link");
            if fs::hard_link(parent_data.join(&entry.path), &link).is_ok() {
                fs::rename(&link, &file)?;
                shared += size;
            }
        }
        Ok(shared)
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;
    use crate::cache::copy_tree;

    #[test]
    fn a_copy_has_the_same_manifest_and_shares_its_files() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        fs::create_dir_all(a.join("x")).unwrap();
        fs::write(a.join("x/file"), "contents").unwrap();
        fs::write(a.join("changed"), "old").unwrap();
        symlink("x/file", a.join("link")).unwrap();
        fs::set_permissions(a.join("x"), fs::Permissions::from_mode(0o700)).unwrap();
        copy_tree(&a, &b, &mut || Ok(())).unwrap();
        let manifest = |data: &Path| Manifest::of(data, "e", "1", None, vec![]).unwrap();
        let json = |manifest: &Manifest| serde_json::to_string(manifest).unwrap();
        assert_eq!(json(&manifest(&a)), json(&manifest(&b)));

        fs::write(b.join("changed"), "new").unwrap();
        let shared = manifest(&b).share_with(&b, &manifest(&a), &a).unwrap();
        assert_eq!(shared, 8);
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(a.join("x/file")), inode(b.join("x/file")));
        assert_ne!(inode(a.join("changed")), inode(b.join("changed")));
        let read: Manifest = serde_json::from_str(&json(&manifest(&b))).unwrap();
        assert_eq!(read.entries.len(), 5);
    }

    proptest! {
        #[test]
        fn damaged_manifests_are_survived(at in any::<prop::sample::Index>(), byte in any::<u8>(), end in any::<prop::sample::Index>()) {
            let entry = |path: &str, kind| Entry { path: path.into(), mode: 0o600, kind };
            let kinds = [Kind::Directory, Kind::File { size: 7, blake3: "00".into() }, Kind::Symlink { target: "x".into() }];
            let manifest = Manifest {
                format: 1,
                engine: "e".into(),
                version: "1".into(),
                parent: None,
                steps: vec!["s".into()],
                run: String::new(),
                entries: kinds.into_iter().map(|kind| entry("a", kind)).collect(),
            };
            let mut bytes = serde_json::to_vec(&manifest).unwrap();
            let length = bytes.len();
            bytes[at.index(length)] = byte;
            bytes.truncate(1 + end.index(length));
            let _ = serde_json::from_slice::<Manifest>(&bytes);
        }
    }
}
