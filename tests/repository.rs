//! The files of this repository, for tests that read them.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories without files of this repository.
const SKIPPED: [&str; 3] = ["target", "node_modules", ".git"];

/// The directory of the workspace.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace")
}

/// Returns the files that `is_wanted`, in the order of their paths.
pub fn repository_files(is_wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![repository().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("directories can be read") {
            let path = entry.expect("entries can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !path.is_symlink() {
                if !SKIPPED.contains(&&*name) {
                    directories.push(path);
                }
            } else if is_wanted(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
