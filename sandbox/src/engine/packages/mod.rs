//! Packages of the distribution, unpacked into the cache without root: a server for a machine that
//! has none, and packages on top of a server.
//!
//! ```text
//! <cache>/packages/<distribution>/<names>.<hash>/usr            shows over the machine's /usr
//! <cache>/packages/<distribution>/<names>.<hash>/packages.json  its contents
//! <cache>/packages/<distribution>/<names>.<hash>/files, used    as of an image
//! ```
//!
//! A tree is staged in the cache, so a tree under its final name is whole. It stays as it is until
//! it is pruned: removing it makes the next start fetch the newest packages. It is locked shared
//! until a process that uses it ends.

mod alternatives;
mod apt;
mod claims;
mod client;
mod distribution;
mod of_image;
mod on_top;
mod sources;
mod tree;
mod trouble;
mod unpack;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use self::apt::{Apt, Archive};
use self::tree::{CONTENTS, Contents, TREES, keep_locked, listed};
use super::image::Image;
use crate::cache::{self, Cache};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;

pub(crate) use distribution::InstallCommands;
pub(crate) use on_top::{Below, on_top};
pub(crate) use tree::{Tree, trees};

/// How long downloading and unpacking may take together; a slow line needs minutes for 70 MB.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Longer than the holder of the lock may take.
const LOCK_LIMIT: Duration = Duration::from_secs(16 * 60);
/// Enters the name of a tree, so that a tree of another form is never used.
const FORMAT: u32 = 2;
const MACHINE_STATUS: &str = "/var/lib/dpkg/status";

/// Packages that are unpacked together.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    /// Their names, as apt-get(8) takes them.
    pub(crate) names: &'a [String],
    /// A name for them in messages.
    pub(crate) what: &'a str,
    /// Another way to get that, for messages.
    pub(crate) otherwise: Option<&'a str>,
    /// The server below them, if they are on top of one.
    pub(crate) below: Option<&'a Below<'a>>,
}

impl Selection<'_> {
    /// The name of the tree.
    fn key(&self) -> String {
        const LONGEST: usize = 100;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&FORMAT.to_le_bytes());
        for name in self.names {
            hasher.update(name.as_bytes()).update(b"\0");
        }
        if let Some(below) = self.below {
            hasher.update(&below.key());
        }
        let names: String = self.names.join("_").chars().take(LONGEST).collect();
        format!("{names}.{}", &hasher.finalize().to_hex()[..16])
    }

    /// The image to which the packages are added; none for this machine.
    fn image(&self) -> Option<&Image> {
        self.below?.image
    }

    fn step(&self) -> String {
        match self.image() {
            None => format!("get {} from the distribution's packages", self.what),
            Some(image) => format!("get {} from the packages of the image {}", self.what, image.id()),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        let sources = self.image().map_or("/etc/apt", |_| "/etc/apt of the image");
        trouble::explained(self.step(), error, sources, self.otherwise)
    }
}

/// Returns `true` if this machine has the programs that fetch and unpack packages.
pub(crate) fn possible() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |program| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    has("apt-get") && has("dpkg-deb")
}

/// Returns the names of the distribution's packages that begin with `prefix`; `None` if the machine
/// has no package lists.
pub(crate) fn names(prefix: &str) -> Option<Vec<String>> {
    const LIMIT: Duration = Duration::from_secs(20);
    let scratch = tempfile::tempdir().ok()?;
    let mut list = Command::new("apt-cache");
    list.args(["pkgnames", prefix]);
    let (done, output) =
        client::run(&mut list, &scratch.path().join("output"), Instant::now() + LIMIT, &|| {}).ok()?;
    let names: Vec<_> = output.lines().map(str::to_owned).collect();
    (done.is_ok() && !names.is_empty()).then_some(names)
}

/// Returns the directory of the trees for the distribution of an image, or of this machine.
fn store(cache: &Cache, image: Option<&Image>) -> PathBuf {
    // A home directory may be shared by machines, or containers, of several distributions.
    cache.path(TREES).join(distribution::directory(image))
}

/// Returns the number of this distribution's trees in the cache.
pub(crate) fn unpacked() -> usize {
    let trees = Cache::open().ok().and_then(|cache| fs::read_dir(store(&cache, None)).ok());
    trees.into_iter().flatten().flatten().filter(|tree| tree.path().join(CONTENTS).is_file()).count()
}

/// Unpacks the packages into the cache, once; later calls and runs find them there.
///
/// A server's tree needs nothing of the machine but its libc and essential packages.
///
/// # Errors
/// [`ErrorKind::NotInstalled`] if the packages cannot be fetched, [`ErrorKind::InvalidConfig`] if
/// there are none of that name, each with the output of the package client;
/// [`ErrorKind::Cache`] if the cache cannot be written or another process keeps it locked.
pub(crate) fn obtain(selection: &Selection<'_>) -> Result<Tree> {
    let cache = Cache::open()?;
    let root = store(&cache, selection.image()).join(selection.key());
    if let Some(tree) = Tree::find(&cache, &root) {
        return Ok(tree);
    }
    selection.names.iter().try_for_each(|name| check(name))?;
    let progress = Progress::start(&format!("getting {}", selection.what));
    let lock = cache.lock("packages", Instant::now() + LOCK_LIMIT, &mut |_| {
        progress.step("waiting for another process that fetches packages");
    })?;
    let _lock = lock.ok_or_else(|| {
        let path = cache.path("locks/packages");
        let hint = format!("find the process that holds `{}`, as by `fuser`, and end it", path.display());
        Error::new(ErrorKind::Cache, "wait for another process that fetches packages").with_hint(hint)
    })?;
    if let Some(tree) = Tree::find(&cache, &root) {
        return Ok(tree);
    }
    let downloads = cache.stage("packages")?;
    let deadline = Instant::now() + LIMIT;
    let (archives, files) = fetch(selection, downloads.path(), deadline, &progress)?;
    publish(&cache, selection, &root, &archives, &files, deadline, &progress)
}

/// Refuses names that apt-get reads as options or requests to remove.
fn check(name: &str) -> Result<()> {
    let (package, version) = name.split_once('=').unwrap_or((name, "0"));
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_name = package.len() > 1
        && package.starts_with(lower)
        && !package.ends_with('-')
        && package.chars().all(|c| lower(c) || "+-.".contains(c));
    let is_version =
        !version.is_empty() && version.chars().all(|c| c.is_ascii_alphanumeric() || ".+-:~".contains(c));
    if is_name && is_version {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidConfig, format!("use `{name}` as a package of the distribution"))
        .with_hint("a package is `name` or `name=version`, such as `postgresql-15-postgis-3`, in lower case"))
}

/// Downloads the packages below `temp`; returns their files and the directory they are in.
fn fetch(
    selection: &Selection<'_>,
    temp: &Path,
    deadline: Instant,
    progress: &Progress,
) -> Result<(Vec<Archive>, PathBuf)> {
    // Without a status file there is no apt-get either, and starting that is what shall fail.
    let of_machine = || fs::read_to_string(MACHINE_STATUS).unwrap_or_default();
    let system = match selection.image() {
        None => of_machine(),
        Some(image) => of_image::status(image).ok_or_else(|| on_top::without_packages(selection, image))?,
    };
    let below = match selection.below {
        Some(below) => below.status(selection, &system, temp, deadline)?,
        None => String::new(),
    };
    let status = claims::claims(&system, &below, selection.names);
    let get = |apt: &mut Apt| -> io::Result<Result<_>> {
        let archives = apt.plan(selection.names)?;
        if let Some(error) = selection.below.and_then(|server| server.misfit(selection, &archives)) {
            return Ok(Err(error));
        }
        let all: u64 = archives.iter().map(|archive| archive.size).sum();
        let packages = match archives.len() {
            1 => "1 package".to_owned(),
            count => format!("{count} packages"),
        };
        let on_bytes = |bytes: u64| {
            let [bytes, all] = [bytes, all].map(|bytes| bytes as f64 / 1e6);
            progress.step(&format!("downloading {packages}, {bytes:.1} of {all:.1} MB"));
        };
        on_bytes(0);
        let files = apt.download(selection.names, &on_bytes)?;
        Ok(Ok((archives, files)))
    };
    // The machine's lists may be older than what its mirror has, or lack the package.
    if selection.image().is_none()
        && apt::machine_has_lists()
        && let Ok(fetched) =
            Apt::new(&temp.join("apt"), true, &status, deadline).and_then(|mut apt| get(&mut apt))
    {
        return fetched;
    }
    let own_lists = || {
        let mut apt = Apt::new(&temp.join("apt-own-lists"), false, &status, deadline)?;
        if let Some(image) = selection.image() {
            let architecture = claims::architecture(&system).ok_or(io::ErrorKind::InvalidData)?;
            apt = apt.of_system(architecture, of_image::configure(image, &temp.join("apt-of-image"))?)?;
        }
        progress.step("fetching the distribution's package lists");
        apt.update()?;
        get(&mut apt)
    };
    own_lists().map_err(|error| {
        let unmet = selection.below.and_then(|server| server.unmet(selection, &error.to_string(), &below));
        unmet.unwrap_or_else(|| selection.failed(error))
    })?
}

/// Unpacks the files into a tree, and publishes it at `root`.
fn publish(
    cache: &Cache,
    selection: &Selection<'_>,
    root: &Path,
    archives: &[Archive],
    downloads: &Path,
    deadline: Instant,
    progress: &Progress,
) -> Result<Tree> {
    let tree = cache.stage("packages")?;
    let mut contents = Contents { archives: Vec::new(), status: String::new() };
    let mut links = Vec::new();
    for (done, archive) in archives.iter().enumerate() {
        progress.step(&format!("unpacking {} ({}/{})", archive.file, done + 1, archives.len()));
        let unpacked = || -> io::Result<_> {
            let file = archive.path(downloads);
            let hash = blake3::Hasher::new().update_reader(fs::File::open(&file)?)?.finalize();
            let unpacked = unpack::unpack(&file, tree.path(), downloads, deadline)?;
            Ok((hash.to_hex().to_string(), unpacked))
        };
        let (hash, (control, alternatives)) = unpacked().map_err(|error| selection.failed(error))?;
        contents.archives.push((archive.file.clone(), hash));
        contents.status.push_str(&claims::claim(&control));
        links.extend(alternatives);
    }
    contents.archives.sort();
    let finish = || -> io::Result<()> {
        unpack::tidy(tree.path())?;
        alternatives::make(tree.path(), links)?;
        listed(tree.path().to_owned()).write()?;
        fs::write(tree.path().join(CONTENTS), serde_json::to_vec(&contents)?)
    };
    finish().map_err(|error| cache::failed("unpack packages in", root, error))?;
    root.parent().map_or(Ok(()), cache::create)?;
    // A directory in its place is no whole tree.
    let published =
        tree.publish(root, CONTENTS).map_err(|error| cache::failed("unpack packages in", root, error))?;
    keep_locked(published);
    Ok(Tree::new(root, contents))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(names: &[String]) -> Selection<'_> {
        Selection { names, what: "it", otherwise: None, below: None }
    }

    #[test]
    fn a_tree_is_named_for_what_was_asked_for() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let key = |list: &[&str]| selection(&names(list)).key();
        assert!(key(&["a1", "b1"]).starts_with("a1_b1."));
        assert_ne!(key(&["a1", "b1"]), key(&["a1_b1"]));
        let long = "x".repeat(300);
        assert!(key(&[&long]).len() < 128);
        assert_ne!(key(&[&long]), key(&[&long, "y1"]));
    }

    #[test]
    fn only_names_of_packages_reach_the_client() {
        for name in ["postgresql-15-cron", "libstdc++6", "g++", "redis-server=5:7.0.15-1~deb12u1", "0ad"] {
            check(name).unwrap();
        }
        for name in
            ["", "a", "-y", "--option=x", "redis-server-", "Redis", "a b", "x.deb/", "redis=", "x=a b", "./x"]
        {
            assert_eq!(check(name).unwrap_err().kind(), ErrorKind::InvalidConfig, "{name}");
        }
    }
}
