//! All decisions about a container, made in the test process and carried out by init: plain data,
//! no effects.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::limits::Limits;
use super::path::SandboxPath;
use super::ready::Ready;
use super::signal::Signal;

/// The user and group id of every process in a sandbox, mapped to the user outside.
///
/// Not zero, since database servers refuse to run as root; 999 is the id in the official images of
/// most databases.
pub(crate) const INNER_ID: u32 = 999;

/// The socket for readiness by sd_notify(3).
pub(super) const NOTIFY_SOCKET: &str = "/run/notify";

/// Everything init needs to build a container's root and to start the server in it.
///
/// Paths of the host are absolute and exist; sizes are checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The root file system of an image, in place of the host's programs.
    pub(crate) image: Option<PathBuf>,
    /// Variables of an image, for all programs. Those of a command win, except for `PATH`.
    pub(crate) env: Vec<(String, String)>,
    /// Host directories that show at `/usr`, the first on top. Usually `/usr` itself; with an image
    /// usually none.
    pub(crate) usr: Vec<PathBuf>,
    /// Further files and trees of the host.
    pub(crate) binds: Vec<Bind>,
    /// Directories of the host that lie in a shown tree and are covered by an empty one.
    pub(crate) hidden: Vec<PathBuf>,
    /// Symbolic links, made before everything else.
    pub(crate) symlinks: Vec<Symlink>,
    /// Directories to make.
    pub(crate) directories: Vec<Directory>,
    /// Files to make.
    pub(crate) files: Vec<File>,
    /// The source of the server's data directory.
    pub(crate) data: Data,
    /// The mount point of the data directory.
    pub(crate) data_dir: SandboxPath,
    /// Size limit of /tmp, /run and the server's log together, in bytes.
    pub(crate) scratch_size: u64,
    /// Size limit of /dev/shm, in bytes.
    pub(crate) shm_size: u64,
    /// Limits of all processes together.
    pub(crate) limits: Limits,
    /// `true` if the server may use io_uring(7), whose requests no filter sees.
    pub(crate) io_uring: bool,
    /// The server, started as soon as the root is ready. Absent while a base layer is built.
    pub(crate) server: Option<Command>,
    /// The sign by which the server counts as ready.
    pub(crate) ready: Ready,
    /// Symbolic links, made when the server reports readiness by sd_notify(3), before the test
    /// process learns of it. Existing files stay.
    pub(crate) when_ready: Vec<Symlink>,
    /// `true` if the server may be restored from a prelinked image.
    pub(crate) prelink: bool,
    /// Present in process mode, where the server is a process of the host instead of a container's.
    pub(crate) process_mode: Option<ProcessMode>,
}

/// The source address of the forwarder's connections to the server, which distinguishes them from
/// connections of programs in the sandbox.
pub(crate) const FORWARDED_FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The replacement of a container in process mode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProcessMode {
    /// Candidates for the parent of the private directory; the first writable one is used.
    pub(crate) parents: Vec<PathBuf>,
    /// Candidates for the parent of a link to the private directory, made if its path is too long
    /// for sockets.
    pub(crate) short_parents: Vec<PathBuf>,
    /// Ends the server at once.
    pub(crate) end_signal: Signal,
    /// The server's address on the host's loopback.
    pub(crate) loopback: Ipv4Addr,
    /// `true` if the server listens there.
    pub(crate) listens: bool,
}

/// A part of the host's file system that shows in the sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: SandboxPath,
}

/// A symbolic link at `path` with the text `target`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Symlink {
    pub(crate) path: SandboxPath,
    pub(crate) target: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Directory {
    pub(crate) path: SandboxPath,
    pub(crate) mode: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct File {
    pub(crate) path: SandboxPath,
    pub(crate) mode: u32,
    pub(crate) contents: Contents,
}

/// The contents of a file: most are text, which takes a third of the space in a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Contents {
    Text(String),
    Bytes(Vec<u8>),
}

impl Contents {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Contents {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }
}

/// The source of the data directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Data {
    /// An overlay over a layer; writes go to a tmpfs of at most `upper_size` bytes. `changes`
    /// is what a checkpoint's server had changed of the layer, and lies between.
    Overlay { lower: PathBuf, changes: Option<PathBuf>, upper_size: u64 },
    /// A directory of the host, written in place: the way layers are built.
    Writable { source: PathBuf },
}

/// Selects OpenSSL's random generator on a hash, NIST SP 800-90A, "Hash_DRBG". The default one uses
/// a cipher, for which OpenSSL constructs all ciphers: half a millisecond of each server's start.
/// fips_config(5), config(5).
const OPENSSL_CONFIGURATION: &str = "\
openssl_conf = openssl
[openssl]
random = random
[random]
random = HASH-DRBG
digest = SHA2-256
";

/// Returns the part of a plan that is the same for every server: programs of the host and the files
/// of /etc. `account` is the name of the one user.
pub(crate) fn root(usr: Vec<PathBuf>, data: Data, data_dir: SandboxPath, account: &str) -> Plan {
    let mut plan = bare(data, data_dir);
    plan.usr = usr;
    // Merged systems have links into /usr here, others directories.
    for name in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
        let path = Path::new(name);
        match std::fs::read_link(path) {
            Ok(target) => plan.symlinks.push(Symlink { path: path.into(), target }),
            Err(_) if path.is_dir() => plan.bind(path),
            Err(_) => {}
        }
    }
    // Without its cache the dynamic linker looks for each library in a dozen directories. Some of
    // Debian's libraries and programs are links that lead through alternatives.
    for path in ["/etc/ld.so.cache", "/etc/alternatives"] {
        plan.bind_if_present(Path::new(path));
    }
    plan.add_etc(account, |path| path.exists());
    plan
}

/// Returns the part of a plan that is the same for every server of an image.
pub(crate) fn image_root(
    image: &Path,
    env: Vec<(String, String)>,
    data: Data,
    data_dir: SandboxPath,
    account: &str,
) -> Plan {
    let mut plan = Plan { image: Some(image.to_owned()), env, ..bare(data, data_dir) };
    plan.add_etc(account, |path| image.join(path.strip_prefix("/").unwrap_or(path)).exists());
    plan
}

fn bare(data: Data, data_dir: SandboxPath) -> Plan {
    Plan {
        image: None,
        env: Vec::new(),
        usr: Vec::new(),
        binds: Vec::new(),
        hidden: Vec::new(),
        symlinks: Vec::new(),
        directories: Vec::new(),
        files: Vec::new(),
        data,
        data_dir,
        scratch_size: 64 << 20,
        shm_size: 512 << 20,
        limits: Limits::default(),
        io_uring: false,
        server: None,
        ready: Ready::Notify,
        when_ready: Vec::new(),
        prelink: false,
        process_mode: None,
    }
}

impl Plan {
    /// Adds the generated files of /etc. `exists` looks for a file of the programs' root.
    fn add_etc(&mut self, account: &str, exists: impl Fn(&Path) -> bool) {
        // Debian's zone `localtime` is a link to this one, and a directory of zones with a broken
        // link makes `pg_timezone_names` fail. A link out of /usr would break it again.
        let zone = ["Etc/UTC", "UTC"].map(|zone| Path::new("/usr/share/zoneinfo").join(zone));
        if let Some(target) = zone.into_iter().find(|zone| exists(zone)) {
            self.symlinks.push(Symlink { path: "/etc/localtime".into(), target });
        }
        for (path, contents) in [
            ("/etc/passwd", format!("{account}:x:{INNER_ID}:{INNER_ID}::/run:/bin/sh\n")),
            ("/etc/group", format!("{account}:x:{INNER_ID}:\n")),
            ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n".to_owned()),
            ("/etc/ssl/openssl.cnf", OPENSSL_CONFIGURATION.to_owned()),
        ] {
            self.files.push(File { path: path.into(), mode: 0o644, contents: Contents::Text(contents) });
        }
    }

    /// Returns the bytes of memory that files may take.
    pub(crate) fn files_size(&self) -> u64 {
        let data = match self.data {
            Data::Overlay { upper_size, .. } => upper_size,
            Data::Writable { .. } => 0,
        };
        data.saturating_add(self.scratch_size).saturating_add(self.shm_size)
    }

    /// Hides a directory of the host, if it would show and is not empty.
    pub(crate) fn hide(&mut self, path: &Path) {
        if self.image.is_some() {
            return;
        }
        // A mount covers the target of a link, not the link.
        let Ok(path) = path.canonicalize() else { return };
        let path = path.as_path();
        let shown = path.starts_with("/usr") && path.components().count() > 2 && !self.is_hidden(path);
        // Some users' homes lie among the programs, and a working directory must not hide those.
        let programs = ["bin", "sbin", "lib", "lib64", "libexec", "share"];
        let programs = programs.iter().any(|name| {
            ["/usr", "/usr/local"].iter().any(|prefix| path.starts_with(Path::new(prefix).join(name)))
        }) || path == Path::new("/usr/local");
        if shown && !programs && path.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            self.hidden.push(path.to_owned());
        }
    }

    fn is_hidden(&self, path: &Path) -> bool {
        self.hidden.iter().any(|hidden| path.starts_with(hidden))
    }

    /// Shows a file or tree of the host, read-only, at its own path, unless /usr shows it already.
    pub(crate) fn bind(&mut self, path: &Path) {
        let shown = self.image.is_none() && path.starts_with("/usr") && !self.is_hidden(path);
        if !shown && !self.binds.iter().any(|bind| path.starts_with(bind.target.as_path())) {
            self.binds.push(Bind { source: path.to_owned(), target: path.into() });
        }
    }

    pub(crate) fn bind_if_present(&mut self, path: &Path) {
        if path.exists() {
            self.bind(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_not_hidden() {
        let mut plan =
            root(vec!["/usr".into()], Data::Writable { source: "/srv/data".into() }, "/data".into(), "x");
        for path in ["/usr", "/usr/bin", "/usr/lib", "/usr/share/doc", "/usr/local", "/home", "/tmp"] {
            plan.hide(Path::new(path));
        }
        assert!(plan.hidden.is_empty(), "{:?}", plan.hidden);
    }

    #[test]
    fn a_path_below_usr_or_another_bind_is_not_bound_twice() {
        let data = Data::Writable { source: "/srv/data".into() };
        let mut plan = root(vec!["/usr".into()], data, "/data".into(), "x");
        plan.binds.clear();
        plan.bind(Path::new("/usr/lib/postgresql/15"));
        plan.bind(Path::new("/opt/pg"));
        plan.bind(Path::new("/opt/pg/bin"));
        let targets: Vec<_> = plan.binds.iter().map(|bind| bind.target.clone()).collect();
        assert_eq!(targets, [SandboxPath::new("/opt/pg")]);
    }
}
