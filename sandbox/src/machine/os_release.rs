//! The distribution of this machine, os-release(5).

use std::path::Path;

/// Reads the file below `root`; empty if none can be read.
pub(crate) fn read(root: &Path) -> String {
    ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|path| std::fs::read_to_string(root.join(path)).ok())
        .unwrap_or_default()
}

/// Returns the value of a field without its quotes; empty if the field is missing.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim().trim_matches(['"', '\''])
}
