//! Links that packages make by update-alternatives(1) when they are configured, such as the control
//! file of PostGIS and the name by which programs find a library.
//!
//! No script of a package is run. Its calls of update-alternatives are read instead, with the
//! variables that the script sets to plain text before.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

/// A link that a package asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alternative {
    link: PathBuf,
    target: PathBuf,
    priority: i64,
}

/// Reads the links in a package's script.
pub(super) fn read(script: &str) -> Vec<Alternative> {
    let script = script.replace("\\\n", " ");
    let mut variables = HashMap::new();
    let mut alternatives = Vec::new();
    for line in script.lines() {
        let line = line.trim();
        if let Some((name, value)) = assignment(line, &variables) {
            variables.insert(name.to_owned(), value);
        } else if let Some((_, arguments)) = line.split_once("update-alternatives ") {
            alternatives.extend(call(arguments, &variables));
        }
    }
    alternatives
}

/// Makes those links in a tree whose targets are in it, unless a file is there. Of several packages
/// that ask for one link, the highest priority wins.
pub(super) fn make(tree: &Path, mut alternatives: Vec<Alternative>) -> io::Result<()> {
    alternatives.sort_by_key(|alternative| std::cmp::Reverse(alternative.priority));
    let tree = fs::canonicalize(tree)?;
    for Alternative { link, target, .. } in alternatives {
        let (Some(link), Some(target)) = (below_usr(&link), below_usr(&target)) else { continue };
        let Some(parent) = link.parent() else { continue };
        let place = tree.join(&link);
        if !tree.join(&target).exists() || place.symlink_metadata().is_ok() {
            continue;
        }
        fs::create_dir_all(tree.join(parent))?;
        // A directory of the package may be a link to a place outside.
        if fs::canonicalize(tree.join(parent))?.starts_with(&tree) {
            let up: PathBuf = parent.components().map(|_| "..").collect();
            symlink(up.join(target), place)?;
        }
    }
    Ok(())
}

/// The path in a tree of an absolute one, if it belongs to `/usr` in a merged system.
fn below_usr(path: &Path) -> Option<PathBuf> {
    let path = path.strip_prefix("/").ok()?;
    let is_plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    let first = path.iter().next()?.to_str()?;
    match first {
        _ if !is_plain => None,
        "usr" => Some(path.to_owned()),
        _ if first == "bin" || first == "sbin" || first.starts_with("lib") => {
            Some(Path::new("usr").join(path))
        }
        _ => None,
    }
}

/// Reads `NAME=value`.
fn assignment<'a>(line: &'a str, variables: &HashMap<String, String>) -> Option<(&'a str, String)> {
    let (name, value) = line.split_once('=')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    Some((name, word(value, variables)?))
}

/// Reads `--install link name target priority`, and `--slave link name target` after it. An
/// argument that is no plain text makes that link unknown.
fn call(arguments: &str, variables: &HashMap<String, String>) -> Vec<Alternative> {
    let words: Vec<_> = arguments.split_ascii_whitespace().map(|text| word(text, variables)).collect();
    let Some(at) = words.iter().position(|word| word.as_deref() == Some("--install")) else {
        return Vec::new();
    };
    let path = |at: usize| Some(PathBuf::from(words.get(at)?.as_ref()?));
    let Some(priority) = words.get(at + 4).and_then(|word| word.as_ref()?.parse().ok()) else {
        return Vec::new();
    };
    let is_slave = |at: &usize| words[*at].as_deref() == Some("--slave");
    let slaves = (at + 5..words.len()).filter(is_slave);
    let links = [at].into_iter().chain(slaves);
    links
        .filter_map(|at| Some(Alternative { link: path(at + 1)?, target: path(at + 3)?, priority }))
        .collect()
}

/// Returns a word without quotes and with its variables' values; `None` if it is anything else.
fn word(text: &str, variables: &HashMap<String, String>) -> Option<String> {
    let text = text.trim_end_matches(';').replace(['"', '\''], "");
    let mut parts = text.split('$');
    let mut word = parts.next()?.to_owned();
    for part in parts {
        let (name, rest) = match part.strip_prefix('{') {
            Some(braced) => braced.split_once('}')?,
            None => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                part.split_at(part.find(|c| !is_name(c)).unwrap_or(part.len()))
            }
        };
        word.push_str(variables.get(name)?);
        word.push_str(rest);
    }
    let is_plain = |c: char| !c.is_whitespace() && !"`\\*?|&<>(){}".contains(c);
    word.chars().all(is_plain).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alternative(link: &str, target: &str, priority: i64) -> Alternative {
        Alternative { link: link.into(), target: target.into(), priority }
    }

    #[test]
    fn calls_are_read_with_their_variables() {
        let script = "#!/bin/sh\nset -eu\nMAJOR=\"3\"\nPG=15\nDIR=\"/usr/share/postgresql/$PG/extension\"\n\
                      case $1 in\n  configure)\n    # install our alternatives\n    update-alternatives \\\n    \
                      --install $DIR/postgis.control postgresql-$PG-postgis.control $DIR/postgis-$MAJOR.control ${MAJOR}0 \\\n      \
                      --slave $DIR/raster.control raster $DIR/raster-$MAJOR.control\n    ;;\nesac\n";
        let directory = "/usr/share/postgresql/15/extension";
        let expected = ["postgis", "raster"].map(|name| {
            alternative(&format!("{directory}/{name}.control"), &format!("{directory}/{name}-3.control"), 30)
        });
        assert_eq!(read(script), expected);
    }

    #[test]
    fn calls_with_unknown_parts_are_left_out() {
        for script in [
            "update-alternatives --install /usr/bin/x x $(which y) 10",
            "update-alternatives --install /usr/bin/x x /usr/bin/$UNKNOWN 10",
            "update-alternatives --install /usr/bin/x x /usr/bin/y $PRIORITY",
            "update-alternatives --remove x /usr/bin/y",
            "update-alternatives --install /usr/bin/x",
            "X=$(dirname /a/b)\nupdate-alternatives --install /usr/bin/x x $X/y 10",
        ] {
            assert_eq!(read(script), [], "{script}");
        }
    }

    #[test]
    fn links_stay_in_the_tree_and_lead_to_its_files() {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        let outside = place.path().join("outside");
        for directory in ["usr/lib/blas", "usr/lib/fast"] {
            fs::create_dir_all(tree.join(directory)).unwrap();
            fs::write(tree.join(directory).join("libblas.so.3"), directory).unwrap();
        }
        fs::create_dir(&outside).unwrap();
        symlink(&outside, tree.join("usr/share")).unwrap();
        make(
            &tree,
            vec![
                alternative("/lib/libblas.so.3", "/usr/lib/blas/libblas.so.3", 10),
                alternative("/usr/lib/libblas.so.3", "/lib/fast/libblas.so.3", 20),
                alternative("/usr/bin/new", "/usr/lib/blas/libblas.so.3", 1),
                alternative("/usr/bin/dangling", "/usr/lib/none", 1),
                alternative("/etc/x", "/usr/lib/blas/libblas.so.3", 1),
                alternative("/usr/../../x", "/usr/lib/blas/libblas.so.3", 1),
                alternative("/usr/share/x", "/usr/lib/blas/libblas.so.3", 1),
            ],
        )
        .unwrap();
        assert_eq!(fs::read_to_string(tree.join("usr/lib/libblas.so.3")).unwrap(), "usr/lib/fast");
        assert_eq!(fs::read_to_string(tree.join("usr/bin/new")).unwrap(), "usr/lib/blas");
        assert!(tree.join("usr/bin/dangling").symlink_metadata().is_err());
        assert!(!tree.join("etc").exists() && fs::read_dir(&outside).unwrap().next().is_none());
    }
}
