//! PostgreSQL for a machine that has none: the distribution's packages, unpacked without root.
//!
//! The tree is found again by its name alone: it is staged in the cache, so a tree under its final
//! name is whole.

mod apt;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::apt::{Apt, Archive};
use crate::cache::{self, Cache};
use crate::engine::version::Version;
use crate::error::{Error, ErrorKind, Result};

/// How long downloading and unpacking may take together; a slow line needs minutes for 70 MB.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Longer than the holder of the lock may take.
const LOCK_LIMIT: Duration = Duration::from_secs(16 * 60);
/// Depends on the server and client packages of the newest version that the distribution offers.
const PACKAGE: &str = "postgresql";
/// Unpacks the distribution's PostgreSQL into the cache, once; later calls and runs find it there.
/// Returns the tree's root: `<root>/usr/lib/postgresql/<major>/bin` holds the programs.
///
/// Mounted over the machine's `/usr`, the tree needs nothing of it but its libc.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] if the packages are not available, with the output of the package
/// client and the command that installs PostgreSQL; [`ErrorKind::Cache`] if the cache cannot be
/// written or another process keeps it locked.
pub(crate) fn obtain(cache: &Cache, progress: &dyn Fn(&str)) -> Result<PathBuf> {
    // A home directory may be shared by machines, or containers, of several distributions.
    let store = cache.path("packages").join(distribution(&os_release(), std::env::consts::ARCH));
    if let Some(root) = find(&store) {
        return Ok(root);
    }
    let mut reported = false;
    let lock = cache.lock("packages", Instant::now() + LOCK_LIMIT, &mut |_| {
        if !std::mem::replace(&mut reported, true) {
            progress("waiting for another process that fetches PostgreSQL");
        }
    })?;
    let _lock = lock.ok_or_else(|| {
        let path = cache.path("locks/packages");
        let hint = format!("find the process that holds `{}`, as by `fuser`, and end it", path.display());
        Error::new(ErrorKind::Cache, "wait for another process that fetches PostgreSQL").with_hint(hint)
    })?;
    if let Some(root) = find(&store) {
        return Ok(root);
    }
    let downloads = cache.stage("packages")?;
    let deadline = Instant::now() + LIMIT;
    let (archives, files) = fetch(downloads.path(), deadline, progress)?;
    publish(cache, &store, &archives, &files, deadline, progress)
}

/// The one-line fix for a missing PostgreSQL, in the words of this machine's distribution.
pub(crate) fn install_hint() -> String {
    hint_for(&os_release())
}

/// The newest tree in `store`.
fn find(store: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(store).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut trees: Vec<(u32, String)> = names.filter_map(|name| Some((major(&name)?, name))).collect();
    trees.sort_by(|(_, one), (_, other)| Version(one).numbers().cmp(Version(other).numbers()));
    let whole = |(major, name): (u32, String)| Some(store.join(name)).filter(|root| is_whole(root, major));
    trees.into_iter().rev().find_map(whole)
}

/// Returns `true` if the programs are there that everything else needs.
fn is_whole(root: &Path, major: u32) -> bool {
    let bin = root.join(format!("usr/lib/postgresql/{major}/bin"));
    ["initdb", "postgres", "psql"].iter().all(|program| bin.join(program).is_file())
}

/// The `<N>` of `postgresql-<N>_<version>_<architecture>`, with or without `.deb`.
fn major(name: &str) -> Option<u32> {
    name.strip_prefix("postgresql-")?.split_once('_')?.0.parse().ok()
}

/// Downloads the packages below `temp`; returns their files and the directory they are in.
fn fetch(temp: &Path, deadline: Instant, progress: &dyn Fn(&str)) -> Result<(Vec<Archive>, PathBuf)> {
    // The machine's lists may be older than what its mirror has, or lack the package.
    if apt::machine_has_lists()
        && let Ok(fetched) = download(&temp.join("apt"), true, deadline, progress)
    {
        return Ok(fetched);
    }
    download(&temp.join("apt-own-lists"), false, deadline, progress).map_err(|error| {
        Error::new(ErrorKind::InvalidConfig, "get PostgreSQL from the distribution's packages")
            .caused_by(error)
            .with_hint(install_hint())
    })
}

fn download(
    dir: &Path,
    machine_lists: bool,
    deadline: Instant,
    progress: &dyn Fn(&str),
) -> io::Result<(Vec<Archive>, PathBuf)> {
    let mut apt = Apt::new(dir, machine_lists, deadline)?;
    if !machine_lists {
        progress("fetching the distribution's package lists");
        apt.update()?;
    }
    let archives = apt.plan(PACKAGE)?;
    let name = server(&archives).ok_or_else(|| {
        io::Error::other(format!("package `{PACKAGE}` does not lead to a `{PACKAGE}-<version>`"))
    })?;
    let all: u64 = archives.iter().map(|archive| archive.size).sum();
    let on_bytes = |bytes: u64| {
        let [bytes, all] = [bytes, all].map(|bytes| bytes as f64 / 1e6);
        progress(&format!("downloading {name} and its dependencies, {bytes:.1} of {all:.1} MB"));
    };
    on_bytes(0);
    let files = apt.download(PACKAGE, &on_bytes)?;
    Ok((archives, files))
}

/// The tree's name: that of the newest server package.
fn server(archives: &[Archive]) -> Option<&str> {
    let names = archives.iter().filter_map(|archive| archive.file.strip_suffix(".deb"));
    names
        .filter(|name| major(name).is_some())
        .max_by(|one, other| Version(one).numbers().cmp(Version(other).numbers()))
}

/// Unpacks the files into a tree, and publishes it in `store`.
fn publish(
    cache: &Cache,
    store: &Path,
    archives: &[Archive],
    files: &Path,
    deadline: Instant,
    progress: &dyn Fn(&str),
) -> Result<PathBuf> {
    let failed = |error: io::Error| cache::failed("unpack PostgreSQL in", store, error);
    let tree = cache.stage("packages")?;
    let output = files.join("output");
    for (done, archive) in archives.iter().enumerate() {
        progress(&format!("unpacking {} ({}/{})", archive.file, done + 1, archives.len()));
        apt::unpack(&files.join(&archive.file), tree.path(), &output, deadline).map_err(failed)?;
    }
    apt::tidy(tree.path()).map_err(failed)?;
    // The programs are where they are expected, or the name would promise too much.
    let name = server(archives).filter(|name| major(name).is_some_and(|major| is_whole(tree.path(), major)));
    let name = name.ok_or_else(|| {
        let cause =
            format!("they have no `usr/lib/{PACKAGE}/<version>/bin` with `initdb`, `postgres` and `psql`");
        Error::new(ErrorKind::InvalidConfig, "use the distribution's packages of PostgreSQL")
            .caused_by(cause)
            .with_hint(install_hint())
    })?;
    cache::create(store)?;
    let root = store.join(name);
    // A directory in its place can only be a tree that has lost its programs.
    drop(tree.publish(&root, "usr").map_err(failed)?);
    Ok(root)
}

/// The text of os-release(5), empty where there is none.
fn os_release() -> String {
    let places = ["/etc/os-release", "/usr/lib/os-release"];
    places.iter().find_map(|place| fs::read_to_string(place).ok()).unwrap_or_default()
}

/// The value of a field in the text of os-release(5), without its quotes; empty if it is missing.
fn field<'a>(os_release: &'a str, name: &str) -> &'a str {
    let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches(['"', '\''])
}

/// A directory name for the distribution, its release and the architecture, which a tree is made
/// for.
fn distribution(os_release: &str, architecture: &str) -> String {
    let version = ["VERSION_ID", "VERSION_CODENAME"].map(|name| field(os_release, name));
    let version = version.into_iter().find(|version| !version.is_empty()).unwrap_or("rolling");
    let name = format!("{}-{version}-{architecture}", field(os_release, "ID"));
    name.replace(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)), "_")
}

/// The command that installs PostgreSQL on this machine's distribution, where that is known.
pub(crate) fn install_command() -> Option<&'static str> {
    command_for(&os_release())
}

fn command_for(os_release: &str) -> Option<&'static str> {
    let ids = format!("{} {}", field(os_release, "ID"), field(os_release, "ID_LIKE"));
    ids.split_whitespace().find_map(|id| match id {
        "debian" | "ubuntu" => Some("sudo apt-get install postgresql"),
        "fedora" | "rhel" | "centos" => Some("sudo dnf install postgresql-server"),
        "arch" => Some("sudo pacman -S postgresql"),
        "alpine" => Some("sudo apk add postgresql"),
        id if id.contains("suse") => Some("sudo zypper install postgresql-server"),
        _ => None,
    })
}

fn hint_for(os_release: &str) -> String {
    let install = command_for(os_release)
        .map_or("install PostgreSQL".to_owned(), |command| format!("install it: `{command}`"));
    format!("{install}, or set SANDBOXED_DB_POSTGRES to the directory of its programs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(store: &Path, name: &str, major: u32) {
        let bin = store.join(name).join(format!("usr/lib/postgresql/{major}/bin"));
        fs::create_dir_all(&bin).unwrap();
        for program in ["initdb", "postgres", "psql"] {
            fs::write(bin.join(program), "").unwrap();
        }
    }

    fn archive(file: &str) -> Archive {
        Archive { file: file.to_owned(), size: 1 }
    }

    #[test]
    fn the_newest_whole_tree_is_found() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(find(store.path()), None);
        assert_eq!(find(&store.path().join("missing")), None);
        for name in [
            "postgresql-9_9.6.1-1_amd64",
            "postgresql-15_15.9-0+deb12u1_amd64",
            "postgresql-15_15.18-0+deb12u1_amd64",
        ] {
            tree(store.path(), name, major(name).unwrap());
        }
        // Newer by name, but of another package, or without programs.
        tree(store.path(), "postgresql-client-16_16.1-1_amd64", 16);
        fs::create_dir(store.path().join("postgresql-16_16.1-1_amd64")).unwrap();
        assert_eq!(find(store.path()), Some(store.path().join("postgresql-15_15.18-0+deb12u1_amd64")));
    }

    #[test]
    fn the_server_package_names_the_tree() {
        let archives = [
            archive("libllvm14_1%3a14.0.6-12_amd64.deb"),
            archive("postgresql-client-15_15.20-0+deb12u1_amd64.deb"),
            archive("postgresql-15_15.20-0+deb12u1_amd64.deb"),
            archive("postgresql_15+248+deb12u2_all.deb"),
        ];
        assert_eq!(server(&archives), Some("postgresql-15_15.20-0+deb12u1_amd64"));
        assert_eq!(server(&archives[..2]), None);
    }

    #[test]
    fn the_hint_speaks_the_distributions_language() {
        for (os_release, command) in [
            ("ID=debian\nVERSION_ID=\"12\"", "sudo apt-get install postgresql"),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"", "sudo apt-get install postgresql"),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"", "sudo dnf install postgresql-server"),
            ("NAME=Arch\nID=arch", "sudo pacman -S postgresql"),
            ("ID='alpine'", "sudo apk add postgresql"),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"", "sudo zypper install postgresql-server"),
        ] {
            let expected = format!(
                "install it: `{command}`, or set SANDBOXED_DB_POSTGRES to the directory of its programs"
            );
            assert_eq!(hint_for(os_release), expected);
        }
        let generic = "install PostgreSQL, or set SANDBOXED_DB_POSTGRES to the directory of its programs";
        assert_eq!(hint_for(""), generic);
        assert_eq!(hint_for("ID=slackware"), generic);
        assert!(install_hint().ends_with("the directory of its programs"));
    }

    #[test]
    fn distributions_are_told_apart() {
        assert_eq!(distribution("ID=debian\nVERSION_ID=\"12\"\n", "x86_64"), "debian-12-x86_64");
        assert_eq!(distribution("VERSION_CODENAME=forky\nID=debian\n", "aarch64"), "debian-forky-aarch64");
        assert_eq!(distribution("ID=a/b\n", "x86_64"), "a_b-rolling-x86_64");
    }
}
