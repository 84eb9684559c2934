//! The package client of Debian and its kin, apt-get(8), run without root.
//!
//! It has its state, cache and lock in our directory, and uses the machine's sources, keys,
//! preferences and proxies (`/etc/apt`), or for an image only its proxies. Its package status is
//! made for it: see [`claims`](super::claims).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Error};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::client::{complaints, run};

/// Lists that `apt-get update` fetched for the whole machine; images for containers often have
/// none.
const MACHINE_LISTS: &str = "/var/lib/apt/lists";

/// Read after the machine's own settings, whose hooks write outside our directories when root runs
/// them. It also leaves out index files that are of no use here, and patterns in names.
const SETTINGS: &str = r#"
# clear APT::Update;
# clear AptCli;
# clear Acquire::IndexTargets::deb::Contents-deb;
# clear Acquire::IndexTargets::deb::DEP-11;
# clear Acquire::Languages;
Acquire::Languages "none";
Acquire::IndexTargets::deb-src::Sources::DefaultEnabled "false";
APT::Cmd::Pattern-Only "true";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
"#;

/// A package file, as apt-get announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    /// Its name, `<package>_<version>_<architecture>.deb`.
    pub(super) file: String,
    pub(super) size: u64,
    /// Its path, where the source is a directory of this machine. apt-get leaves it there.
    local: Option<PathBuf>,
}

impl Archive {
    pub(super) fn package(&self) -> &str {
        self.file.split('_').next().unwrap_or_default()
    }

    /// The downloaded file.
    pub(super) fn path(&self, downloads: &Path) -> PathBuf {
        let downloaded = downloads.join(&self.file);
        self.local.clone().filter(|_| !downloaded.exists()).unwrap_or(downloaded)
    }
}

/// apt-get with its directories.
#[derive(Debug)]
pub(super) struct Apt {
    dir: PathBuf,
    lists: PathBuf,
    /// Options for the files of another system, in place of `/etc/apt`.
    options: Vec<(&'static str, PathBuf)>,
    deadline: Instant,
    /// The output of all calls. Only the output shows that an update failed in part, since its exit
    /// status is then zero.
    output: String,
}

impl Apt {
    /// Uses the machine's package lists, or those that [`update`](Self::update) will fetch, and the
    /// packages that `status` claims to be installed.
    pub(super) fn new(dir: &Path, machine_lists: bool, status: &str, deadline: Instant) -> io::Result<Self> {
        for made in ["state/lists/partial", "cache/archives/partial", "log", "tmp"] {
            fs::create_dir_all(dir.join(made))?;
        }
        fs::write(dir.join("status"), status)?;
        fs::write(dir.join("settings"), SETTINGS)?;
        let lists = if machine_lists { PathBuf::from(MACHINE_LISTS) } else { dir.join("state/lists") };
        Ok(Self { dir: dir.to_owned(), lists, options: Vec::new(), deadline, output: String::new() })
    }

    /// Uses the sources, keys and preferences of another system.
    pub(super) fn of_system(
        mut self,
        architecture: &str,
        options: Vec<(&'static str, PathBuf)>,
    ) -> io::Result<Self> {
        let settings = format!(
            "{SETTINGS}# clear APT::Default-Release;\n# clear APT::Architectures;\n\
             APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n"
        );
        fs::write(self.dir.join("settings"), settings)?;
        self.options = options;
        Ok(self)
    }

    /// Fetches the package lists.
    pub(super) fn update(&mut self) -> io::Result<()> {
        self.run(&["update"], &|| {}).map(drop)
    }

    /// The files that make up the packages with their dependencies.
    pub(super) fn plan(&mut self, packages: &[String]) -> io::Result<Vec<Archive>> {
        let output = self.run(&install("--print-uris", packages), &|| {})?;
        Ok(archives(&output))
    }

    /// Downloads and verifies what [`plan`](Self::plan) listed, and returns the directory it is in.
    /// Passes the number of bytes so far to `on_bytes`.
    pub(super) fn download(&mut self, packages: &[String], on_bytes: &dyn Fn(u64)) -> io::Result<PathBuf> {
        let archives = self.dir.join("cache/archives");
        let directories = [archives.join("partial"), archives.clone()];
        let on_wait = || on_bytes(directories.iter().map(|directory| bytes_in(directory)).sum());
        self.run(&install("--download-only", packages), &on_wait)?;
        Ok(archives)
    }

    /// Calls `on_wait` now and then.
    fn run(&mut self, arguments: &[&str], on_wait: &dyn Fn()) -> io::Result<String> {
        let mut command = Command::new("apt-get");
        command.arg("--quiet").arg("--config-file").arg(self.dir.join("settings"));
        let own = [
            ("Dir::State", self.dir.join("state")),
            ("Dir::State::Lists", self.lists.clone()),
            ("Dir::State::status", self.dir.join("status")),
            ("Dir::Cache", self.dir.join("cache")),
            ("Dir::Cache::Archives", self.dir.join("cache/archives")),
            ("Dir::Log", self.dir.join("log")),
        ];
        for (option, path) in own.iter().chain(&self.options) {
            let mut value = OsString::from(format!("{option}="));
            value.push(path);
            command.arg("-o").arg(value);
        }
        // It verifies signatures in temporary files.
        command.args(arguments).env("TMPDIR", self.dir.join("tmp"));
        let (done, output) = run(&mut command, &self.dir.join("output"), self.deadline, on_wait)?;
        self.output.push_str(&output);
        match done {
            Ok(()) => Ok(output),
            Err(why) => Err(Error::other(format!("{why}\n{}", complaints(&self.output)))),
        }
    }
}

fn install<'a>(how: &'a str, packages: &'a [String]) -> Vec<&'a str> {
    ["install", "--yes", how].into_iter().chain(packages.iter().map(String::as_str)).collect()
}

/// Returns the size of the files in a directory.
fn bytes_in(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}

/// Returns `true` if the machine has package lists.
pub(super) fn machine_has_lists() -> bool {
    fs::read_dir(MACHINE_LISTS)
        .is_ok_and(|mut lists| lists.any(|list| list.is_ok_and(|list| is_package_list(&list.file_name()))))
}

fn is_package_list(name: &OsStr) -> bool {
    name.to_string_lossy().contains("_Packages")
}

/// The files in the output of `apt-get --print-uris`, whose lines are `'<address>' <file> <size>
/// <hash>`.
pub(super) fn archives(output: &str) -> Vec<Archive> {
    let archive = |line: &str| {
        let (address, rest) = line.strip_prefix('\'')?.split_once("' ")?;
        let mut words = rest.split(' ');
        let file = words.next().filter(|file| file.ends_with(".deb") && !file.contains('/'))?;
        let local = address.strip_prefix("file:").map(PathBuf::from);
        Some(Archive { file: file.to_owned(), size: words.next()?.parse().ok()?, local })
    };
    output.lines().filter_map(archive).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_read_from_the_list_of_addresses_only() {
        let output = "Reading package lists...\nThe following NEW packages will be installed:\n  libpq5 postgresql-15\n\
                      Need to get 61.8 MB of archives.\n\
                      'http://mirror.example/pool/l/libl/libllvm14_14.0.6-12_amd64.deb' libllvm14_1%3a14.0.6-12_amd64.deb 21840232 MD5Sum:1ff0\n\
                      'file:/srv/p/postgresql-15_15.20-0+deb12u1_amd64.deb' postgresql-15_15.20-0+deb12u1_amd64.deb 17091392 \n\
                      'http://mirror.example/InRelease' mirror.example_InRelease 0 \n\
                      'http://mirror.example/x.deb' ../x.deb 1 \n";
        let found = archives(output);
        let server = "postgresql-15_15.20-0+deb12u1_amd64.deb";
        let local = Some(Path::new("/srv/p").join(server));
        let expected = [
            Archive { file: "libllvm14_1%3a14.0.6-12_amd64.deb".into(), size: 21_840_232, local: None },
            Archive { file: server.into(), size: 17_091_392, local },
        ];
        assert_eq!(found, expected);
        assert_eq!(found[0].package(), "libllvm14");
        let downloads = Path::new("/none");
        assert_eq!(found[0].path(downloads), downloads.join("libllvm14_1%3a14.0.6-12_amd64.deb"));
        assert_eq!(found[1].path(downloads), Path::new("/srv/p").join(server));
    }

    #[test]
    fn lists_of_packages_differ_from_other_files() {
        assert!(is_package_list("mirror_dists_stable_main_binary-amd64_Packages.lz4".as_ref()));
        assert!(!is_package_list("partial".as_ref()));
    }
}
