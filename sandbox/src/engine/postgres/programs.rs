//! PostgreSQL's programs: named by the user, installed, or unpacked from the distribution's
//! packages.

use std::collections::HashSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::engine::children;
use crate::engine::image::{Image, missing, other_version};
use crate::engine::installation::{Installation, in_path};
use crate::engine::packages::{self, InstallCommands, Selection};
use crate::engine::programs::PACKAGES;
use crate::engine::version::Version;
use crate::environment::POSTGRES;
use crate::error::{Error, ErrorKind, Result};

/// Depends on the server and client packages of the newest version that the distribution offers.
const PACKAGE: &str = "postgresql";
/// The programs without which nothing works.
const PROGRAMS: [&str; 3] = ["initdb", "postgres", "psql"];

const SUPPORTED: RangeInclusive<u32> = 13..=18;

/// The installation to use, of that version if one is asked for.
pub(super) fn locate(version: Option<&str>) -> Result<Installation> {
    let mut found = installed(version)?;
    if found.is_empty() {
        found.push(unpacked()?);
    }
    let found = choose(found, version)?;
    Ok(found.supplied(Some(PACKAGE), Some(POSTGRES.name)))
}

/// The installation of an image to use, of that version if one is asked for.
pub(super) fn locate_in(image: &Image, version: Option<&str>) -> Result<Installation> {
    let has_server = |bin: &PathBuf| image.is_file(&bin.join("postgres"));
    let mut usual = usual_places(|directory| image.children(directory));
    usual.sort_by_key(|bin| std::cmp::Reverse(version_in_path(bin)));
    let bins = image.search_path().into_iter().chain(usual).filter(has_server);
    // PATH often leads to links to the usual directories.
    let bins = bins.filter_map(|bin| Some(image.canonical(&bin.join("postgres"))?.parent()?.to_owned()));
    let mut seen = HashSet::new();
    let bins = bins.filter(|bin| seen.insert(bin.clone()));
    let found = bins.map(|bin| Installation::inspect_in(image, &bin, "postgres", Some("--version")));
    let found = found.collect::<Result<Vec<_>>>()?;
    if found.is_empty() {
        return Err(missing(image, "postgres"));
    }
    let versions: Vec<_> = found.iter().map(|found| found.version().to_owned()).collect();
    let found = choose(found, version).map_err(|error| match error.kind() {
        ErrorKind::NotInstalled => other_version(image, version, &versions),
        _ => error,
    })?;
    Ok(found.supplied(Some(PACKAGE), None))
}

/// The newest of the installed client programs of that name that a sandbox can see.
pub(super) fn newest_client(name: &str) -> Option<PathBuf> {
    let bins =
        usual_directories().into_iter().filter(|bin| bin.starts_with("/usr") && bin.join(name).is_file());
    bins.max_by_key(|bin| version_in_path(bin)).map(|bin| bin.join(name))
}

fn choose(found: Vec<Installation>, version: Option<&str>) -> Result<Installation> {
    let numbers: Vec<_> = found.iter().map(|found| Version(found.version()).number().to_owned()).collect();
    let mut suitable =
        found.into_iter().filter(|found| version.is_none_or(|wanted| Version(found.version()).is(wanted)));
    match suitable.next() {
        Some(installation) if SUPPORTED.contains(&installation.major()) => Ok(installation),
        Some(installation) => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("use PostgreSQL {}", Version(installation.version()).number()),
        )
        .with_hint(format!("versions {} to {} are supported", SUPPORTED.start(), SUPPORTED.end()))),
        None => Err(Error::new(
            ErrorKind::NotInstalled,
            format!("find PostgreSQL {}", version.unwrap_or_default()),
        )
        .with_hint(format!(
            "install it, or set {} to the directory of its programs; found: {}",
            POSTGRES.name,
            numbers.join(", ")
        ))),
    }
}

/// The candidates among the installations of this machine, the preferred first.
fn installed(version: Option<&str>) -> Result<Vec<Installation>> {
    if packages_wanted() {
        return Ok(Vec::new());
    }
    let named = named();
    if !named.is_empty() {
        let wrong = |error: Error| match error.hint() {
            Some(_) => error,
            None => POSTGRES.refused(&POSTGRES.value().unwrap_or_default()).caused_by(error),
        };
        return named.iter().map(|bin| inspect(bin).map_err(wrong)).collect();
    }
    let (mut found, mut broken) = (Vec::new(), None);
    for bin in candidates() {
        match inspect(&bin) {
            Ok(installation) => found.push(installation),
            // A broken installation hides no good one, and is reported if there is none.
            Err(error) => broken = broken.or(Some(error)),
        }
        // The first suffices without a version to look for, and no other program is run.
        if version.is_none() && found.last().is_some_and(|last| SUPPORTED.contains(&last.major())) {
            break;
        }
    }
    match broken {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// The one that [`locate`] uses, if it is among the installed ones.
pub(super) fn used() -> Option<Result<Installation>> {
    match installed(None) {
        Ok(found) if found.is_empty() => None,
        found => Some(found.and_then(|found| choose(found, None))),
    }
}

/// The directories that the user named, the preferred first.
pub(super) fn named() -> Vec<PathBuf> {
    let value = POSTGRES.value().unwrap_or_default();
    let directories = std::env::split_paths(&value).filter(|directory| !directory.as_os_str().is_empty());
    directories
        .map(|directory| if directory.join("postgres").exists() { directory } else { directory.join("bin") })
        .collect()
}

/// Returns `true` if the user chose the distribution's packages, whatever is installed.
pub(super) fn packages_wanted() -> bool {
    POSTGRES.value().is_some_and(|value| value == PACKAGES)
}

/// The directories with a server, each once: those in `PATH`, then the usual ones, the newest
/// first.
pub(super) fn candidates() -> Vec<PathBuf> {
    let mut usual = usual_directories();
    usual.sort_by_key(|bin| std::cmp::Reverse(version_in_path(bin)));
    // PATH often leads to links to the usual directories.
    let real = |bin: PathBuf| Some(fs::canonicalize(bin.join("postgres")).ok()?.parent()?.to_owned());
    let mut seen = HashSet::new();
    let bins = in_path("postgres").into_iter().chain(usual).filter_map(real);
    bins.filter(|bin| seen.insert(bin.clone())).collect()
}

pub(super) fn inspect(bin: &Path) -> Result<Installation> {
    // The server finds its files relative to its program, as at their places when it was built.
    let bin = fs::canonicalize(bin).unwrap_or_else(|_| bin.to_owned());
    let prefix = bin.parent().unwrap_or(&bin);
    // Debian's layout: programs in `lib/postgresql/15/bin`, other files in `share/postgresql/15`.
    let debian = prefix.ancestors().nth(2).filter(|lib| lib.ends_with("lib")).and_then(|lib| {
        let share = lib.with_file_name("share");
        Some(share.join(prefix.strip_prefix(lib).ok()?))
    });
    // The layouts of `make install` with and without the name of the package.
    let made = ["share", "share/postgresql", "share/pgsql"].map(|share| prefix.join(share));
    let extensions: Vec<_> = debian.iter().chain(&made).map(|share| share.join("extension")).collect();
    let installation = Installation::inspect(&bin, "postgres", &extensions)?;
    Ok(debian.into_iter().fold(installation, |installation, share| installation.show(share)))
}

/// The directories into which packages and `make install` put the programs.
fn usual_directories() -> Vec<PathBuf> {
    let bins = usual_places(children).into_iter();
    bins.filter(|bin| bin.join("postgres").is_file()).collect()
}

/// The usual directories, whether they hold a server or not.
fn usual_places(children: impl Fn(&Path) -> Vec<PathBuf>) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    // Debian, SUSE, Alpine, and Red Hat's and PostgreSQL's own packages.
    for parent in ["/usr/lib/postgresql", "/usr/lib", "/usr/libexec", "/usr"] {
        let named = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            parent.ends_with("postgresql") || name.starts_with("postgresql") || name.starts_with("pgsql-")
        };
        directories.extend(children(Path::new(parent)).into_iter().filter(named));
    }
    directories.extend(
        ["/usr/local/pgsql", "/usr/local", "/usr", "/opt/postgresql", "/opt/pgsql"].map(PathBuf::from),
    );
    directories.into_iter().flat_map(|path| [path.join("bin"), path]).collect()
}

/// The version in a directory's name, such as 15 in `/usr/lib/postgresql/15/bin`.
fn version_in_path(bin: &Path) -> Option<u32> {
    Version(&bin.to_string_lossy()).major()
}

/// The distribution's packages, unpacked into the cache.
fn unpacked() -> Result<Installation> {
    let tree = packages::obtain(&Selection {
        names: &[PACKAGE.to_owned()],
        what: "PostgreSQL",
        otherwise: Some(&install_hint(install_command().as_deref())),
        below: None,
    })?;
    let inside = Path::new("/usr/lib/postgresql");
    let bins = children(&tree.on_host(inside)).into_iter().map(|version| version.join("bin"));
    let has_programs = |bin: &PathBuf| PROGRAMS.iter().all(|program| bin.join(program).is_file());
    let bin = bins.filter(has_programs).max_by_key(|bin| version_in_path(bin)).ok_or_else(|| {
        Error::new(ErrorKind::InvalidConfig, format!("find PostgreSQL in the package `{PACKAGE}`"))
            .caused_by("it has no `usr/lib/postgresql/<version>/bin` with `initdb`, `postgres` and `psql`")
            .with_hint(install_hint(install_command().as_deref()))
    })?;
    let bin = Path::new("/").join(bin.strip_prefix(tree.root()).unwrap_or(&bin));
    Installation::inspect_unpacked(&tree, &bin, "postgres", Some("--version"))
}

/// The command that installs PostgreSQL on this machine's distribution, where that is known.
pub(crate) fn install_command() -> Option<String> {
    InstallCommands {
        debian: PACKAGE,
        red_hat: "postgresql-server",
        arch: PACKAGE,
        alpine: PACKAGE,
        suse: "postgresql-server",
    }
    .here()
}

fn install_hint(command: Option<&str>) -> String {
    let install =
        command.map_or("install PostgreSQL".to_owned(), |command| format!("install it: `{command}`"));
    format!("{install}, or set {} to the directory of its programs", POSTGRES.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_has_the_command_that_installs() {
        let hint = install_hint(Some("sudo apt-get install postgresql"));
        let expected = "install it: `sudo apt-get install postgresql`, or set SANDBOXED_DB_POSTGRES to the directory of \
                        its programs";
        assert_eq!(hint, expected);
        assert!(install_hint(None).starts_with("install PostgreSQL, or set "));
    }
}
