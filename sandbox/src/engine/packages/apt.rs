//! The package clients of Debian and its kin, `apt-get` and `dpkg-deb`, run without root.
//!
//! apt-get has its state, cache and lock in our directory, and uses the machine's sources, keys,
//! preferences and proxies (`/etc/apt`). Its package status names next to nothing as installed: see
//! [`claims`].

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Error};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The time between two looks at the progress of a program.
const WAIT: Duration = Duration::from_millis(500);
/// Lists that `apt-get update` fetched for the whole machine; images for containers often have
/// none.
const MACHINE_LISTS: &str = "/var/lib/apt/lists";
const MACHINE_STATUS: &str = "/var/lib/dpkg/status";

/// Packages that the server needs only by name: maintainer scripts, service management, the sources
/// of locales (C.UTF-8 is part of libc). They are claimed to be installed, so that neither they nor
/// their dependencies are fetched.
const NOT_NEEDED: [&str; 6] =
    ["debconf", "dpkg", "locales", "postgresql-client-common", "postgresql-common", "ssl-cert"];

/// Read after the machine's own settings, whose hooks write outside our directories when root runs
/// them. It also leaves out index files that are of no use here.
const SETTINGS: &str = r#"
# clear APT::Update;
# clear AptCli;
# clear Acquire::IndexTargets::deb::Contents-deb;
# clear Acquire::IndexTargets::deb::DEP-11;
# clear Acquire::Languages;
Acquire::Languages "none";
Acquire::IndexTargets::deb-src::Sources::DefaultEnabled "false";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
"#;

/// A package file, as apt-get announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    /// Its name, `<package>_<version>_<architecture>.deb`.
    pub(super) file: String,
    pub(super) size: u64,
}

/// apt-get with its directories.
#[derive(Debug)]
pub(super) struct Apt {
    dir: PathBuf,
    lists: PathBuf,
    deadline: Instant,
    /// The output of all calls. Only the output shows that an update failed in part, since its exit
    /// status is then zero.
    output: String,
}

impl Apt {
    /// Uses the machine's package lists, or those that [`update`](Self::update) will fetch.
    pub(super) fn new(dir: &Path, machine_lists: bool, deadline: Instant) -> io::Result<Self> {
        for made in ["state/lists/partial", "cache/archives/partial", "log", "tmp"] {
            fs::create_dir_all(dir.join(made))?;
        }
        // Without a status file there is no apt-get either, and starting that is what shall fail.
        let status = fs::read_to_string(MACHINE_STATUS).unwrap_or_default();
        fs::write(dir.join("status"), claims(&status))?;
        fs::write(dir.join("settings"), SETTINGS)?;
        let lists = if machine_lists { PathBuf::from(MACHINE_LISTS) } else { dir.join("state/lists") };
        Ok(Self { dir: dir.to_owned(), lists, deadline, output: String::new() })
    }

    /// Fetches the package lists.
    pub(super) fn update(&mut self) -> io::Result<()> {
        self.run(&["update"]).map(drop)
    }

    /// The files that make up `package` with its dependencies.
    pub(super) fn plan(&mut self, package: &str) -> io::Result<Vec<Archive>> {
        self.run(&["install", "--yes", "--print-uris", package]).map(|output| archives(&output))
    }

    /// Downloads and verifies what [`plan`](Self::plan) listed, and returns the directory it is in.
    /// Passes the number of bytes so far to `on_bytes`.
    pub(super) fn download(&mut self, package: &str, on_bytes: &dyn Fn(u64)) -> io::Result<PathBuf> {
        let archives = self.dir.join("cache/archives");
        let directories = [archives.join("partial"), archives.clone()];
        let on_wait = || on_bytes(directories.iter().map(|directory| bytes_in(directory)).sum());
        self.run_with(&["install", "--yes", "--download-only", package], &on_wait)?;
        Ok(archives)
    }

    fn run(&mut self, arguments: &[&str]) -> io::Result<String> {
        self.run_with(arguments, &|| {})
    }

    /// Calls `on_wait` now and then.
    fn run_with(&mut self, arguments: &[&str], on_wait: &dyn Fn()) -> io::Result<String> {
        let mut command = Command::new("apt-get");
        command.arg("--quiet").arg("--config-file").arg(self.dir.join("settings"));
        for (option, path) in [
            ("Dir::State", self.dir.join("state")),
            ("Dir::State::Lists", self.lists.clone()),
            ("Dir::State::status", self.dir.join("status")),
            ("Dir::Cache", self.dir.join("cache")),
            ("Dir::Cache::Archives", self.dir.join("cache/archives")),
            ("Dir::Log", self.dir.join("log")),
        ] {
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

/// Unpacks a package file into `tree`, and runs none of its scripts.
pub(super) fn unpack(file: &Path, tree: &Path, scratch: &Path, deadline: Instant) -> io::Result<()> {
    let (done, output) =
        run(Command::new("dpkg-deb").arg("-x").arg(file).arg(tree), scratch, deadline, &|| {})?;
    done.map_err(|why| Error::other(format!("{why}\n{}", complaints(&output))))
}

/// Makes an unpacked tree fit over the `/usr` of a merged-usr system: all is below `usr`, and
/// nothing sets user or group IDs.
pub(super) fn tidy(tree: &Path) -> io::Result<()> {
    merge_usr(tree)?;
    drop_set_id(&tree.join("usr"))
}

/// Moves what packages ship in `/bin`, `/lib`, `/lib64` and `/sbin` below `usr`, where these
/// directories are links to in a merged-usr system, and removes all else beside `usr`.
fn merge_usr(tree: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tree)? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        if name == "usr" {
            continue;
        }
        if name == "bin" || name == "sbin" || name.to_string_lossy().starts_with("lib") {
            merge(&path, &tree.join("usr").join(name))?;
        } else {
            fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path))?;
        }
    }
    Ok(())
}

/// Moves a directory's content into another; directories that both have are united.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.is_dir() {
            merge(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    fs::remove_dir(from)
}

/// Clears the set-user-ID and set-group-ID bits, which a tree unpacked by root has.
fn drop_set_id(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_symlink() {
            continue;
        }
        let mode = metadata.permissions().mode();
        if mode & 0o6000 != 0 {
            fs::set_permissions(entry.path(), Permissions::from_mode(mode & 0o1777))?;
        }
        if metadata.is_dir() {
            drop_set_id(&entry.path())?;
        }
    }
    Ok(())
}

/// Runs a program to its end or to the deadline, and returns its success and its output. The output
/// goes to the file `scratch`, because a pipe that fills up would have to be read meanwhile. Calls
/// `on_wait` now and then.
fn run(
    command: &mut Command,
    scratch: &Path,
    deadline: Instant,
    on_wait: &dyn Fn(),
) -> io::Result<(Result<(), String>, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = File::create(scratch)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    let mut child =
        command.spawn().map_err(|error| Error::new(error.kind(), format!("run `{name}`: {error}")))?;
    let mut last = Instant::now();
    let done = loop {
        match child.try_wait()? {
            Some(status) if status.success() => break Ok(()),
            Some(status) => break Err(format!("`{name}` ended with {status}")),
            None if Instant::now() >= deadline => {
                child.kill()?;
                child.wait()?;
                break Err(format!("`{name}` was killed because it did not end in time"));
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
        if last.elapsed() >= WAIT {
            on_wait();
            last = Instant::now();
        }
    };
    Ok((done, String::from_utf8_lossy(&fs::read(scratch)?).into_owned()))
}

/// A dpkg status that says: this machine has its libc, and what is [`NOT_NEEDED`].
///
/// So the result does not depend on what else happens to be installed: it still works when that is
/// removed, or when another machine of the same distribution shares the store, and PostgreSQL
/// itself is fetched even if installed. It costs some ten megabytes. libc is as installed: programs
/// of the machine run with it too.
fn claims(status: &str) -> String {
    let mut claims = String::new();
    for stanza in status.split("\n\n") {
        let has = |line: &str| stanza.lines().any(|other| other == line);
        if has("Package: libc6") && has("Status: install ok installed") {
            // Without its dependencies, which are not claimed.
            let kept = ["Package:", "Status:", "Architecture:", "Multi-Arch:", "Version:", "Provides:"];
            for line in stanza.lines().filter(|line| kept.iter().any(|field| line.starts_with(field))) {
                claims.push_str(line);
                claims.push('\n');
            }
            claims.push('\n');
        }
    }
    for package in NOT_NEEDED {
        claims.push_str(&format!(
            "Package: {package}\nStatus: install ok installed\nArchitecture: all\nMulti-Arch: foreign\n\
             Version: 99999\n\n"
        ));
    }
    claims
}

/// The files in the output of `apt-get --print-uris`, whose lines are `'<address>' <file> <size>
/// <hash>`.
fn archives(output: &str) -> Vec<Archive> {
    let archive = |line: &str| {
        let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
        let mut words = rest.split(' ');
        let file = words.next().filter(|file| file.ends_with(".deb") && !file.contains('/'))?;
        Some(Archive { file: file.to_owned(), size: words.next()?.parse().ok()? })
    };
    output.lines().filter_map(archive).collect()
}

/// Returns the errors, warnings and unmet dependencies in the output of a package client, or else
/// its end.
fn complaints(output: &str) -> String {
    const LIMIT: usize = 20;
    let lines: Vec<&str> = output.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let is_error = |line: &&str| {
        line.starts_with("E: ") || line.starts_with("W: ") || line.starts_with(' ') && line.contains(" : ")
    };
    let mut errors: Vec<&str> = lines.iter().copied().filter(is_error).collect();
    errors.dedup();
    let shown = if errors.is_empty() { lines } else { errors };
    shown[shown.len().saturating_sub(LIMIT)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn libc_alone_is_claimed_installed_without_its_dependencies() {
        let status = "Package: bash\nStatus: install ok installed\nVersion: 5.2\n\n\
                      Package: libc6\nStatus: install ok installed\nPriority: optional\nArchitecture: amd64\n\
                      Multi-Arch: same\nVersion: 2.36-9\nProvides: libc6-2.36\nDepends: libgcc-s1\n\
                      Conffiles:\n /etc/x 0\n\n\
                      Package: libc6\nStatus: deinstall ok config-files\nArchitecture: i386\nVersion: 2.36-9\n";
        let claims = claims(status);
        assert!(
            claims.starts_with(
                "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\n\
                 Version: 2.36-9\nProvides: libc6-2.36\n\nPackage: debconf\n"
            ),
            "{claims}"
        );
        assert!(
            !claims.contains("bash") && !claims.contains("Depends") && !claims.contains("i386"),
            "{claims}"
        );
        assert_eq!(claims.matches("Package: ").count(), 1 + NOT_NEEDED.len());
    }

    #[test]
    fn archives_are_read_from_the_list_of_addresses_only() {
        let output = "Reading package lists...\nThe following NEW packages will be installed:\n  libpq5 postgresql-15\n\
                      Need to get 61.8 MB of archives.\n\
                      'http://mirror.example/pool/l/libl/libllvm14_14.0.6-12_amd64.deb' libllvm14_1%3a14.0.6-12_amd64.deb 21840232 MD5Sum:1ff0\n\
                      'http://mirror.example/pool/p/p/postgresql-15_15.20-0+deb12u1_amd64.deb' postgresql-15_15.20-0+deb12u1_amd64.deb 17091392 \n\
                      'http://mirror.example/InRelease' mirror.example_InRelease 0 \n\
                      'http://mirror.example/x.deb' ../x.deb 1 \n";
        let found = archives(output);
        let expected = [
            Archive { file: "libllvm14_1%3a14.0.6-12_amd64.deb".into(), size: 21_840_232 },
            Archive { file: "postgresql-15_15.20-0+deb12u1_amd64.deb".into(), size: 17_091_392 },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn complaints_are_what_tells_why() {
        let output = "Err:1 http://mirror.example stable InRelease\n  Temporary failure resolving 'mirror.example'\n\
                      Reading package lists...\nW: Failed to fetch http://mirror.example/InRelease  Temporary failure\n\
                      The following packages have unmet dependencies:\n postgresql : Depends: postgresql-15 but it is missing\n\
                      E: Unable to locate package postgresql\nE: Unable to locate package postgresql\n";
        assert_eq!(
            complaints(output),
            "W: Failed to fetch http://mirror.example/InRelease  Temporary failure\n \
             postgresql : Depends: postgresql-15 but it is missing\nE: Unable to locate package postgresql"
        );
        assert_eq!(complaints("tar: a\n\ntar: b\n"), "tar: a\ntar: b");
        assert_eq!(complaints(&"line\n".repeat(99)).lines().count(), 20);
    }

    #[test]
    fn lists_of_packages_are_told_from_other_files() {
        assert!(is_package_list("mirror_dists_stable_main_binary-amd64_Packages.lz4".as_ref()));
        assert!(!is_package_list("partial".as_ref()));
    }

    #[test]
    fn everything_ends_below_usr_and_without_set_id_bits() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path();
        for dir in ["usr/lib/x", "lib/x", "lib64", "sbin", "etc/default", "usr/bin"] {
            fs::create_dir_all(tree.join(dir)).unwrap();
        }
        for file in
            ["usr/lib/x/a.so", "lib/x/b.so.1", "lib64/ld.so", "sbin/tool", "etc/default/c", "usr/bin/su"]
        {
            fs::write(tree.join(file), file).unwrap();
        }
        std::os::unix::fs::symlink("b.so.1", tree.join("lib/x/b.so")).unwrap();
        fs::set_permissions(tree.join("usr/bin/su"), Permissions::from_mode(0o6755)).unwrap();
        tidy(tree).unwrap();
        let left: Vec<_> = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["usr"]);
        assert_eq!(fs::read_to_string(tree.join("usr/lib/x/b.so")).unwrap(), "lib/x/b.so.1");
        assert!(tree.join("usr/lib/x/a.so").is_file() && tree.join("usr/lib64/ld.so").is_file());
        assert!(tree.join("usr/sbin/tool").is_file());
        assert_eq!(fs::metadata(tree.join("usr/bin/su")).unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_its_output_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo second >&2; exec sleep 600"]);
        let deadline = Instant::now() + Duration::from_millis(300);
        let (done, output) = run(&mut command, &dir.path().join("output"), deadline, &|| {}).unwrap();
        assert_eq!(done.unwrap_err(), "`sh` was killed because it did not end in time");
        assert_eq!(output, "first\nsecond\n");
    }

    #[test]
    fn a_program_that_fails_or_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("output");
        let (done, _) = run(Command::new("sh").args(["-c", "exit 3"]), &scratch, soon(), &|| {}).unwrap();
        assert_eq!(done.unwrap_err(), "`sh` ended with exit status: 3");
        let missing = run(&mut Command::new("no-such-client"), &scratch, soon(), &|| {}).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().starts_with("run `no-such-client`: "), "{missing}");
    }
}
