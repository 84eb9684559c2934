//! The manifest of a layer: every file with its size, mode and hash, and how the layer came to be.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::published::{DATA, MANIFEST};
use crate::cache;
use crate::error::Result;

/// The description of a layer, stored as `manifest.json` beside the data.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The layer's name.
    pub(super) digest: String,
    pub(super) engine: String,
    pub(super) version: String,
    /// The digest of the layer that this one was built on.
    pub(super) parent: Option<String>,
    /// The steps that were run on the parent.
    pub(super) steps: Vec<String>,
    /// When the oldest of all steps was run, the parent's included; none for a fresh server.
    pub(super) oldest_step: Option<SystemTime>,
    /// The test run that built the layer, or pulled it.
    pub(super) run: String,
    /// The run of CI that built the layer, of which `run` is a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pipeline: Option<String>,
    /// The place in a registry from which the layer was pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<String>,
    pub(super) entries: Vec<FileEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub(super) path: PathBuf,
    /// Permission bits.
    pub(super) mode: u32,
    #[serde(flatten)]
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub(super) enum Kind {
    Directory,
    File { size: u64, blake3: String },
    Symlink { target: PathBuf },
}

/// Reads the tree below `data` and hashes every file.
pub(super) fn entries(data: &Path) -> io::Result<Vec<FileEntry>> {
    let mut entries = Vec::new();
    for entry in WalkDir::new(data).follow_root_links(false).sort_by_file_name() {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let kind = if metadata.is_dir() {
            Kind::Directory
        } else if metadata.is_file() {
            Kind::File { size: metadata.size(), blake3: hash(entry.path())? }
        } else if metadata.is_symlink() {
            Kind::Symlink { target: fs::read_link(entry.path())? }
        } else {
            let path = entry.path().display();
            return Err(io::Error::other(format!("`{path}` is not a file, a directory or a link")));
        };
        let path = entry.path().strip_prefix(data).map_err(io::Error::other)?.to_owned();
        entries.push(FileEntry { path, mode: metadata.permissions().mode() & 0o7777, kind });
    }
    Ok(entries)
}

impl Manifest {
    /// Reads the manifest of the layer in that directory.
    pub(super) fn read(layer: &Path) -> Result<Self> {
        let path = layer.join(MANIFEST);
        let text = fs::read(&path).map_err(|error| cache::failed("read", &path, error))?;
        serde_json::from_slice(&text).map_err(|error| cache::failed("read", &path, error.into()))
    }

    /// Lists how the tree below `data` differs from the entries; empty if it does not.
    pub(super) fn differences(&self, data: &Path) -> io::Result<Vec<String>> {
        let found = entries(data)?;
        let found: HashMap<_, _> = found.iter().map(|entry| (&entry.path, entry)).collect();
        let listed: HashMap<_, _> = self.entries.iter().map(|entry| (&entry.path, entry)).collect();
        let name = |path: &Path| Path::new(DATA).join(path).display().to_string();
        let mut differences = Vec::new();
        for entry in &self.entries {
            match found.get(&entry.path) {
                None => differences.push(format!("`{}` is missing", name(&entry.path))),
                Some(now) if now.kind != entry.kind || now.mode != entry.mode => {
                    differences.push(format!("`{}` has changed", name(&entry.path)));
                }
                Some(_) => {}
            }
        }
        let extra = found.keys().filter(|path| !listed.contains_key(*path));
        differences.extend(extra.map(|path| format!("`{}` does not belong there", name(path))));
        Ok(differences)
    }

    /// Replaces the files below `data` that are the same in `parent` by hard links to the parent's.
    ///
    /// Where the file system refuses a link, the file stays a copy.
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

#[cfg(test)]
impl Manifest {
    pub(super) fn empty() -> Self {
        Self {
            digest: "00".into(),
            engine: "e".into(),
            version: "1".into(),
            parent: None,
            steps: vec!["s".into()],
            oldest_step: Some(SystemTime::UNIX_EPOCH),
            run: String::new(),
            pipeline: None,
            origin: None,
            entries: Vec::new(),
        }
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
        let manifest = |data: &Path| Manifest { entries: entries(data).unwrap(), ..Manifest::empty() };
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
}
