//! The files of a layer as a list, and how lists differ. Pure; lists from a registry may be
//! hostile.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::layer::manifest::{FileEntry, Kind};

/// The most entries of a layer, and the most bytes of its files.
const MOST_ENTRIES: usize = 200_000;
const MOST_BYTES: u64 = 32 << 30;
/// How deep directories may lie, and how long a name and a path may be.
const DEEPEST: usize = 64;
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 1024;

/// All entries of a data directory, by their paths. The root has the empty path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents(BTreeMap<PathBuf, FileEntry>);

/// The difference of a layer to its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Difference {
    /// Paths that are removed, each with everything below it.
    #[serde(default)]
    pub(super) removed: Vec<PathBuf>,
    /// Entries that are new or have changed.
    pub(super) entries: Vec<FileEntry>,
}

impl Contents {
    pub(super) fn of(entries: &[FileEntry]) -> Self {
        Self(entries.iter().map(|entry| (entry.path.clone(), entry.clone())).collect())
    }

    /// Returns the entries, each directory before what it holds.
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &FileEntry> {
        self.0.values()
    }

    pub(super) fn get(&self, path: &Path) -> Option<&FileEntry> {
        self.0.get(path)
    }

    /// Returns the hash of all entries, contents included. Equal hashes are equal directories.
    pub(super) fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        for entry in self.entries() {
            field(entry.path.as_os_str().as_encoded_bytes());
            field(&entry.mode.to_le_bytes());
            match &entry.kind {
                Kind::Directory => field(b"directory"),
                Kind::File { size, blake3 } => {
                    field(b"file");
                    field(&size.to_le_bytes());
                    field(blake3.as_bytes());
                }
                Kind::Symlink { target } => {
                    field(b"symlink");
                    field(target.as_os_str().as_encoded_bytes());
                }
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Returns the difference that leads from `parent` to these contents.
    pub(super) fn since(&self, parent: &Self) -> Difference {
        let is_gone = |path: &Path| !self.0.contains_key(path);
        // A whole directory is removed by its own name.
        let is_top = |path: &Path| path.parent().is_some_and(|parent| self.is_directory(parent));
        let removed = parent.0.keys().filter(|path| is_gone(path) && is_top(path)).cloned().collect();
        let is_new = |entry: &&FileEntry| parent.0.get(&entry.path) != Some(entry);
        Difference { removed, entries: self.entries().filter(is_new).cloned().collect() }
    }

    /// Returns the contents to which a difference leads from these, and checks both.
    pub(super) fn with(mut self, difference: &Difference) -> Result<Self, String> {
        for path in &difference.removed {
            if path.as_os_str().is_empty() || self.remove(path) == 0 {
                return Err(format!("it removes `{}`, which is not there", path.escape_debug()));
            }
        }
        for entry in &difference.entries {
            if entry.kind != Kind::Directory {
                self.remove(&entry.path);
            }
            self.0.insert(entry.path.clone(), entry.clone());
            if self.0.len() > MOST_ENTRIES {
                return Err(format!("it has more than {MOST_ENTRIES} entries"));
            }
        }
        self.check()?;
        Ok(self)
    }

    /// Removes a path with everything below it. Returns the number of entries.
    fn remove(&mut self, path: &Path) -> usize {
        let below = self.0.range(path.to_owned()..).take_while(|(below, _)| below.starts_with(path));
        let below: Vec<_> = below.map(|(path, _)| path.clone()).collect();
        below.iter().filter_map(|path| self.0.remove(path)).count()
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.0.get(path).is_some_and(|entry| entry.kind == Kind::Directory)
    }

    /// Checks that the entries describe a data directory, from which no path leads out.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.is_directory(Path::new("")) {
            return Err("it has no data directory".to_owned());
        }
        let mut bytes = 0_u64;
        for entry in self.entries() {
            self.check_entry(entry).map_err(|why| format!("`{}`: {why}", entry.path.escape_debug()))?;
            if let Kind::File { size, .. } = entry.kind {
                bytes = bytes
                    .checked_add(size)
                    .filter(|bytes| *bytes <= MOST_BYTES)
                    .ok_or_else(|| format!("its files have more than {} GiB", MOST_BYTES >> 30))?;
            }
        }
        Ok(())
    }

    fn check_entry(&self, FileEntry { path, mode, kind }: &FileEntry) -> Result<(), &'static str> {
        // The comparison finds what `components` passes over, such as a slash at the end.
        let normal: PathBuf = path.components().collect();
        let is_plain = |part: Component<'_>| match part {
            Component::Normal(name) => {
                let name = name.as_encoded_bytes();
                name.len() <= LONGEST_NAME && !name.contains(&0) && !name.starts_with(b".wh.")
            }
            _ => false,
        };
        let bytes = path.as_os_str().as_encoded_bytes();
        if normal.as_os_str().as_encoded_bytes() != bytes || !path.components().all(is_plain) {
            return Err("such a path is not accepted");
        }
        if bytes.len() > LONGEST_PATH || path.components().count() > DEEPEST {
            return Err("the path is too long");
        }
        if path.parent().is_some_and(|parent| !self.is_directory(parent)) {
            return Err("it lies in no directory");
        }
        match kind {
            // The owner must be able to remove it.
            Kind::Directory if mode & !0o7777 != 0 || mode & 0o700 != 0o700 => {
                Err("its mode is not accepted")
            }
            Kind::File { .. } if mode & !0o777 != 0 || mode & 0o400 == 0 => Err("its mode is not accepted"),
            // Programs outside of sandboxes read and write in data directories.
            Kind::Symlink { target } if leads_out(target) => {
                Err("the link may lead out of the data directory")
            }
            _ => Ok(()),
        }
    }
}

/// Returns `true` for a target that could lead out of the data directory, whatever other links are
/// there.
fn leads_out(target: &Path) -> bool {
    let bytes = target.as_os_str().as_encoded_bytes();
    let only_down = target.components().all(|part| matches!(part, Component::Normal(_)));
    bytes.is_empty() || bytes.len() > LONGEST_PATH || bytes.contains(&0) || !only_down
}

/// A path for a message, without characters that act on a terminal.
trait EscapeDebug {
    fn escape_debug(&self) -> String;
}

impl EscapeDebug for Path {
    fn escape_debug(&self) -> String {
        self.to_string_lossy().escape_debug().to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn entry(path: &str, mode: u32, kind: Kind) -> FileEntry {
        FileEntry { path: path.into(), mode, kind }
    }

    fn file(path: &str, contents: &str) -> FileEntry {
        let blake3 = blake3::hash(contents.as_bytes()).to_hex().to_string();
        entry(path, 0o600, Kind::File { size: contents.len() as u64, blake3 })
    }

    fn directory(path: &str) -> FileEntry {
        entry(path, 0o700, Kind::Directory)
    }

    fn link(path: &str, target: &str) -> FileEntry {
        entry(path, 0o777, Kind::Symlink { target: target.into() })
    }

    #[test]
    fn a_difference_leads_from_the_parent_to_the_layer() {
        let parent = Contents::of(&[
            directory(""),
            directory("a"),
            directory("a/b"),
            file("a/b/c", "1"),
            file("ab", "2"),
            directory("d"),
            file("d/e", "3"),
        ]);
        let own =
            Contents::of(&[directory(""), directory("a"), file("ab", "4"), file("d", "5"), link("l", "a")]);
        let difference = own.since(&parent);
        assert_eq!(difference.removed, [Path::new("a/b")]);
        let changed: Vec<_> = difference.entries.iter().map(|entry| entry.path.to_str().unwrap()).collect();
        assert_eq!(changed, ["ab", "d", "l"]);
        assert_eq!(parent.clone().with(&difference), Ok(own.clone()));
        assert_eq!(own.clone().with(&own.since(&own)), Ok(own.clone()));
        assert_eq!(Contents::default().with(&own.since(&Contents::default())), Ok(own));
    }

    #[test]
    fn a_list_that_leads_out_is_refused() {
        let refused = |entries: &[FileEntry]| {
            let all: Vec<_> = [directory("")].iter().chain(entries).cloned().collect();
            let difference = Difference { removed: Vec::new(), entries: all };
            Contents::default().with(&difference).expect_err("it is hostile")
        };
        for path in ["/etc/passwd", "../x", "a/../b", "./a", "a/", "a//b", ".wh.a", "a\0b", &"x".repeat(300)]
        {
            assert!(refused(&[directory("a"), file(path, "")]).contains("not accepted"), "{path:?}");
        }
        for target in ["/etc", "../x", "a/../../x", "", "./a"] {
            assert!(refused(&[link("l", target)]).contains("lead out"), "{target:?}");
        }
        assert!(refused(&[file("a/b", "")]).contains("no directory"));
        assert!(refused(&[link("a", "b"), file("a/b", "")]).contains("no directory"));
        assert!(refused(&[entry("a", 0o4755, file("", "").kind)]).contains("mode"));
        assert!(refused(&[entry("a", 0o500, Kind::Directory)]).contains("mode"));
        assert!(refused(&[file("\u{1b}[2J", ""), file("\u{1b}[2J/a", "")]).contains("\\u{1b}"));
        let deep: Vec<_> = (1..70).map(|depth| directory(&vec!["d"; depth].join("/"))).collect();
        assert!(refused(&deep).contains("too long"));
        let large =
            |name: &str| entry(name, 0o600, Kind::File { size: MOST_BYTES / 2 + 1, blake3: String::new() });
        assert!(refused(&[large("a"), large("b")]).contains("32 GiB"));
        let removed = Difference { removed: vec!["x".into()], entries: vec![directory("")] };
        assert!(Contents::default().with(&removed).is_err());
        let nothing = Difference { removed: vec!["".into()], entries: Vec::new() };
        assert!(Contents::of(&[directory("")]).with(&nothing).is_err());
    }

    #[test]
    fn every_part_of_an_entry_counts_for_the_hash() {
        let hash = |entry: FileEntry| Contents::of(&[directory(""), entry]).hash();
        let all = [
            file("a", "1"),
            file("a", "2"),
            file("b", "1"),
            entry("a", 0o640, file("a", "1").kind),
            directory("a"),
            link("a", "b"),
            link("a", "c"),
        ];
        let hashes: std::collections::BTreeSet<_> = all.iter().cloned().map(hash).collect();
        assert_eq!(hashes.len(), all.len());
    }

    fn any_contents() -> impl Strategy<Value = Contents> {
        let names = prop::collection::btree_map("[abc]{1,2}(/[abc]{1,2}){0,2}", "[xy]?", 0..8);
        names.prop_map(|names| {
            let mut entries: BTreeMap<PathBuf, FileEntry> = BTreeMap::from([("".into(), directory(""))]);
            for (name, contents) in names {
                let path = Path::new(&name);
                let above: Vec<_> = path.ancestors().skip(1).collect();
                let blocked =
                    above.iter().any(|it| entries.get(*it).is_some_and(|it| it.kind != Kind::Directory));
                if blocked || entries.contains_key(path) {
                    continue;
                }
                for it in above {
                    entries.insert(it.to_owned(), directory(it.to_str().unwrap()));
                }
                entries.insert(path.to_owned(), file(&name, &contents));
            }
            Contents(entries)
        })
    }

    proptest! {
        #[test]
        fn any_difference_leads_to_the_layer(parent in any_contents(), own in any_contents()) {
            prop_assert_eq!(parent.clone().with(&own.since(&parent)), Ok(own.clone()));
            prop_assert_eq!(parent.hash() == own.hash(), parent == own);
        }

        #[test]
        fn no_list_panics(paths in prop::collection::vec("[a./\\x00]{0,6}", 0..6), removed in prop::collection::vec("[a./]{0,4}", 0..3)) {
            let entries = paths.iter().map(|path| directory(path)).collect();
            let removed = removed.iter().map(PathBuf::from).collect();
            if let Ok(contents) = Contents::default().with(&Difference { removed, entries }) {
                prop_assert!(contents.entries().all(|entry| !entry.path.is_absolute()));
            }
        }
    }
}
