//! The list of an unpacked image's files, by which a later look finds what was changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use walkdir::WalkDir;

use super::digest::Hashed;

/// Returns the list: for each file its path and its state, each ended by a NUL.
pub(super) fn of(root: &Path) -> io::Result<Vec<u8>> {
    let mut list = Vec::new();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path().strip_prefix(root).map_err(io::Error::other)?;
        let kind = entry.file_type();
        let state = if kind.is_symlink() {
            [b"-> ", fs::read_link(entry.path())?.as_os_str().as_bytes()].concat()
        } else {
            let mode = entry.metadata().map_err(io::Error::from)?.permissions().mode();
            let contents = match kind.is_file() {
                true => Hashed::new(File::open(entry.path())?).finish()?.to_string(),
                false => String::new(),
            };
            format!("{mode:o} {contents}").into_bytes()
        };
        for field in [path.as_os_str().as_bytes(), &state] {
            list.extend_from_slice(field);
            list.push(0);
        }
    }
    Ok(list)
}

/// Returns a line for each file in which two lists differ.
pub(super) fn differences(expected: &[u8], found: &[u8]) -> Vec<String> {
    let (mut expected, found) = (parse(expected), parse(found));
    let mut differences = Vec::new();
    for (path, state) in found {
        let shown = String::from_utf8_lossy(path);
        match expected.remove(path) {
            Some(expected) if expected == state => {}
            Some(_) => differences.push(format!("`{shown}` was changed")),
            None => differences.push(format!("`{shown}` was added")),
        }
    }
    differences.extend(expected.keys().map(|path| format!("`{}` is missing", String::from_utf8_lossy(path))));
    differences
}

fn parse(list: &[u8]) -> BTreeMap<&[u8], &[u8]> {
    let mut fields = list.split(|byte| *byte == 0);
    std::iter::from_fn(|| Some((fields.next()?, fields.next()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_listed() {
        let root = tempfile::tempdir().unwrap();
        for name in ["same", "changed", "mode", "gone"] {
            fs::write(root.path().join(name), "x").unwrap();
        }
        let before = of(root.path()).unwrap();
        assert_eq!(differences(&before, &of(root.path()).unwrap()), Vec::<String>::new());
        fs::write(root.path().join("changed"), "y").unwrap();
        fs::set_permissions(root.path().join("mode"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::remove_file(root.path().join("gone")).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("new")).unwrap();
        let found = differences(&before, &of(root.path()).unwrap());
        assert_eq!(
            found,
            ["`changed` was changed", "`mode` was changed", "`new` was added", "`gone` is missing"]
        );
    }
}
