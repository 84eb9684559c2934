//! PostgreSQL's relation cache files, `pg_internal.init`: what each backend needs to know of the
//! catalogues to begin, one file for the shared ones and one a database.
//!
//! A server removes them at each start, since a crash may have left old ones (relcache.c,
//! RelationCacheInitFileRemove), and the first connection to a database makes them anew, which
//! takes longer than all else that it does. A server that was shut down cleanly has left those that
//! are true, so a layer keeps them, and links take their places once the server is ready: it reads
//! through a link, and removes or replaces the link alone.
//!
//! A link must not come after a change of the catalogues. So there are none where the server runs
//! programs that connect by themselves, nor for data that is not a layer's.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::config::setting;
use crate::engine::children;

/// The server's name of such a file.
const FILE: &str = "pg_internal.init";
/// Where a layer keeps them, named by their directories. PostgreSQL's own programs leave out what
/// begins like [`FILE`].
const KEPT: &str = "pg_internal.init.layer";
const SHARED: &str = "global";
/// The settings made by `ALTER SYSTEM`.
const ALTERED: &str = "postgresql.auto.conf";

const AUTOVACUUM: &str = "autovacuum";
const PRELOADED: &str = "shared_preload_libraries";

/// Moves the files of a server that was shut down cleanly to where the layer keeps them, instead of
/// those of its parent.
pub(super) fn keep(data: &Path) -> io::Result<()> {
    let kept = data.join(KEPT);
    match fs::remove_dir_all(&kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let altered = fs::read_to_string(data.join(ALTERED))?;
    let is_wanted = !changes_by_itself(&altered);
    if is_wanted {
        DirBuilder::new().mode(0o700).create(&kept)?;
    }
    let databases = children(&data.join("base"));
    for directory in databases.iter().chain([&data.join(SHARED)]) {
        let (file, name) = (directory.join(FILE), directory.file_name().unwrap_or_default());
        let moved = if is_wanted { fs::rename(&file, kept.join(name)) } else { fs::remove_file(&file) };
        match moved {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The links that lead from their places below the data directory to what the layer keeps.
pub(super) fn links(data: &Path, settings: &[(String, String)]) -> Vec<(PathBuf, PathBuf)> {
    let on = |value: &str| !["off", "false", "no", "0"].iter().any(|off| value.eq_ignore_ascii_case(off));
    let vacuums = setting(settings, AUTOVACUUM).is_some_and(on);
    let preloads = setting(settings, PRELOADED).is_some_and(|libraries| !libraries.is_empty());
    if vacuums || preloads {
        return Vec::new();
    }
    let kept = children(&data.join(KEPT)).into_iter();
    kept.filter_map(|file| {
        let name = file.file_name()?.to_str()?;
        let (place, root) = match name {
            SHARED => (PathBuf::from(SHARED), PathBuf::from("..")),
            database => (Path::new("base").join(database), PathBuf::from("../..")),
        };
        Some((place.join(FILE), root.join(KEPT).join(name)))
    })
    .collect()
}

/// Returns `true` if a configuration file may have the server start programs that connect to
/// databases before any client does.
fn changes_by_itself(configuration: &str) -> bool {
    let lines = configuration.lines().filter(|line| !line.trim_start().starts_with('#'));
    let names = lines.filter_map(|line| line.split([' ', '=']).next());
    let mut known =
        names.filter(|name| [AUTOVACUUM, PRELOADED].iter().any(|of| name.eq_ignore_ascii_case(of)));
    known.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(altered: &str) -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        for directory in ["base/1", "base/5", "global", KEPT] {
            fs::create_dir_all(data.path().join(directory)).unwrap();
        }
        let write = |name: &str, text: &str| fs::write(data.path().join(name), text).unwrap();
        write(ALTERED, altered);
        write("base/5/pg_internal.init", "five");
        write("global/pg_internal.init", "shared");
        write("pg_internal.init.layer/1", "the parent's");
        data
    }

    #[test]
    fn what_the_server_left_is_kept_and_what_its_parent_kept_is_not() {
        let data = data("# autovacuum = on\nwork_mem = '1MB'\n");
        keep(data.path()).unwrap();
        let links = links(data.path(), &[("autovacuum".to_owned(), "OFF".to_owned())]);
        let expected = [
            ("base/5/pg_internal.init", "../../pg_internal.init.layer/5"),
            ("global/pg_internal.init", "../pg_internal.init.layer/global"),
        ];
        assert_eq!(links, expected.map(|(path, target)| (path.into(), target.into())));
        for ((path, target), text) in links.into_iter().zip(["five", "shared"]) {
            let place = data.path().join(path);
            assert!(!place.exists());
            std::os::unix::fs::symlink(target, &place).unwrap();
            assert_eq!(fs::read_to_string(place).unwrap(), text);
        }
    }

    #[test]
    fn no_links_where_the_server_may_change_catalogues_by_itself() {
        for altered in ["autovacuum = 'on'\n", "Shared_Preload_Libraries='a'\n"] {
            let data = data(altered);
            keep(data.path()).unwrap();
            assert_eq!(links(data.path(), &[]), []);
            assert!(!data.path().join("base/5/pg_internal.init").exists());
        }
        let data = data("");
        keep(data.path()).unwrap();
        for (name, value) in [("AutoVacuum", "on"), ("shared_preload_libraries", "pg_cron")] {
            assert_eq!(links(data.path(), &[(name.to_owned(), value.to_owned())]), []);
        }
        assert_eq!(links(data.path(), &[("shared_preload_libraries".to_owned(), String::new())]).len(), 2);
    }
}
