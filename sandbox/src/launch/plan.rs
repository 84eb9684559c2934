//! What a container is made of, decided in the test process and carried out by init: plain data, no effects.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use serde::{Deserialize, Serialize};

use super::limits::Limits;

/// The user and group id that everything in a sandbox has: the one that is mapped to the user outside.
///
/// Not zero, since database servers refuse to run as root; 999 is what the official images of most databases use.
pub(crate) const INNER_ID: u32 = 999;

/// Everything init needs to know to build a container's root and to start the server in it.
///
/// Paths of the host are absolute and exist; sizes are checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Host directories that show through at `/usr`, the first on top. Usually just `/usr` itself.
    pub(crate) usr: Vec<PathBuf>,
    /// Further files and trees of the host.
    pub(crate) binds: Vec<Bind>,
    /// Directories of the host that are not shown, though they lie in what is: an empty one is in their place.
    pub(crate) hidden: Vec<PathBuf>,
    /// Symbolic links, made before everything else.
    pub(crate) symlinks: Vec<Symlink>,
    /// Directories to make.
    pub(crate) directories: Vec<Directory>,
    /// Files to make.
    pub(crate) files: Vec<File>,
    /// Where the server's data directory comes from, and where it is mounted.
    pub(crate) data: Data,
    /// Where the data directory is mounted.
    pub(crate) data_dir: PathBuf,
    /// Size limit of /tmp, /run and the server's log together, in bytes.
    pub(crate) scratch_size: u64,
    /// Size limit of /dev/shm, in bytes.
    pub(crate) shm_size: u64,
    /// What all processes together may take.
    pub(crate) limits: Limits,
    /// Whether the rings of io_uring(7) stay open to the server; no filter sees what is asked through them.
    pub(crate) io_uring: bool,
    /// The server, started as soon as the root is ready. Absent while a base layer is built.
    pub(crate) server: Option<Command>,
    /// Symbolic links, made when the server first says that it is ready, before the test process is told. Where something is
    /// by then, it stays.
    pub(crate) when_ready: Vec<Symlink>,
    /// How its process comes to be.
    pub(crate) birth: Birth,
    /// Present where there is to be no container: the server is a process of the host then.
    pub(crate) on_host: Option<OnHost>,
}

/// Source address of connections that the forwarder makes to the server, by which the server tells them from
/// connections of programs in the sandbox.
pub(crate) const FORWARDED_FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// How a server's process comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Birth {
    /// By execve(2); the dynamic linker then links it.
    Execute,
    /// From the image that comes with the plan, of a server that has been linked; by execve(2) should that fail.
    Restore,
    /// Not at all: it is run until it has been linked, and its image is written to the file that comes with the plan.
    Capture,
}

/// What replaces a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OnHost {
    /// Where its private directory may be made; the first that can be written counts.
    pub(crate) places: Vec<PathBuf>,
    /// Where a link to it may be made if its path is too long for sockets.
    pub(crate) short: Vec<PathBuf>,
    /// Ends the server at once, by number.
    pub(crate) end_signal: i32,
    /// An address of the host's loopback for the server alone.
    pub(crate) loopback: Ipv4Addr,
    /// Whether it listens there.
    pub(crate) listens: bool,
}

/// A part of the host's file system at a place in the sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
}

/// A symbolic link `path` that points to `target`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Symlink {
    pub(crate) path: PathBuf,
    pub(crate) target: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) contents: String,
}

/// What provides the data directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Data {
    /// An overlay over a layer; writes go to a tmpfs of at most `upper_size` bytes.
    Overlay { lower: PathBuf, upper_size: u64 },
    /// A directory of the host itself, written in place: how layers are built.
    Writable { source: PathBuf },
}

/// A program to execute in a container: arguments without the program's own name, the whole environment, and the
/// directory it starts in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) current_dir: PathBuf,
}

impl Command {
    /// A command that runs `program`, an absolute path in the sandbox, with an empty environment, in `/`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new(), current_dir: PathBuf::from("/") }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment, which is otherwise empty.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the directory the program starts in, an absolute path in the sandbox.
    #[must_use]
    pub fn current_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.current_dir = path.into();
        self
    }

    /// The same for the standard library, with these as standard input, output and error.
    pub(super) fn process(&self, [stdin, stdout, stderr]: [Stdio; 3]) -> Process {
        let mut process = Process::new(&self.program);
        process
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.current_dir)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        process
    }

    /// The program's file name, for messages.
    pub(crate) fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Has OpenSSL make random numbers by a hash, NIST SP 800-90A, "Hash_DRBG". By default it does by a cipher, for which it first
/// constructs all ciphers that it knows: half a millisecond of each server's start. fips_config(5), config(5).
const RANDOM: &str = "\
openssl_conf = openssl
[openssl]
random = random
[random]
random = HASH-DRBG
digest = SHA2-256
";

/// The part of a plan that is the same for every server: programs of the host, devices' places, a few files of /etc.
pub(crate) fn root(usr: Vec<PathBuf>, data: Data, data_dir: PathBuf) -> Plan {
    let mut plan = Plan {
        usr,
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
        when_ready: Vec::new(),
        birth: Birth::Execute,
        on_host: None,
    };
    // On merged systems these are links into /usr; elsewhere directories of their own.
    for name in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
        let path = PathBuf::from(name);
        match std::fs::read_link(&path) {
            Ok(target) => plan.symlinks.push(Symlink { path, target }),
            Err(_) if path.is_dir() => plan.bind(&path),
            Err(_) => {}
        }
    }
    // Without its cache the dynamic linker looks for each library in a dozen directories; on Debian some libraries and
    // programs are links that lead through alternatives.
    for path in ["/etc/ld.so.cache", "/etc/alternatives"] {
        plan.bind_if_present(Path::new(path));
    }
    for (path, contents) in [
        ("/etc/passwd", format!("postgres:x:{INNER_ID}:{INNER_ID}::/run:/bin/sh\n")),
        ("/etc/group", format!("postgres:x:{INNER_ID}:\n")),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n".to_owned()),
        ("/etc/ssl/openssl.cnf", RANDOM.to_owned()),
    ] {
        plan.files.push(File { path: path.into(), mode: 0o644, contents });
    }
    plan
}

impl Plan {
    /// How many bytes of memory files may take.
    pub(crate) fn files_size(&self) -> u64 {
        let data = match self.data {
            Data::Overlay { upper_size, .. } => upper_size,
            Data::Writable { .. } => 0,
        };
        data.saturating_add(self.scratch_size).saturating_add(self.shm_size)
    }

    /// Hides a directory of the host, if it would show and holds anything.
    pub(crate) fn hide(&mut self, path: &Path) {
        // A mount covers what a link leads to, not the link.
        let Ok(path) = path.canonicalize() else { return };
        let path = path.as_path();
        let shown = path.starts_with("/usr") && path.components().count() > 2 && !self.is_hidden(path);
        // Some users' homes are among the programs, and nobody's working directory hides those.
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

    /// Shows a file or tree of the host, read-only, at its own path, unless /usr, which is there already, shows it.
    pub(crate) fn bind(&mut self, path: &Path) {
        let shown = path.starts_with("/usr") && !self.is_hidden(path);
        if !shown && !self.binds.iter().any(|bind| path.starts_with(&bind.target)) {
            self.binds.push(Bind { source: path.to_owned(), target: path.to_owned() });
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
            root(vec!["/usr".into()], Data::Writable { source: "/srv/data".into() }, "/data".into());
        for path in ["/usr", "/usr/bin", "/usr/lib", "/usr/share/doc", "/usr/local", "/home", "/tmp"] {
            plan.hide(Path::new(path));
        }
        assert!(plan.hidden.is_empty(), "{:?}", plan.hidden);
    }

    #[test]
    fn a_path_below_usr_or_below_another_bind_is_not_bound_twice() {
        let data = Data::Writable { source: "/srv/data".into() };
        let mut plan = root(vec!["/usr".into()], data, "/data".into());
        plan.binds.clear();
        plan.bind(Path::new("/usr/lib/postgresql/15"));
        plan.bind(Path::new("/opt/pg"));
        plan.bind(Path::new("/opt/pg/bin"));
        let targets: Vec<_> = plan.binds.iter().map(|bind| bind.target.clone()).collect();
        assert_eq!(targets, [PathBuf::from("/opt/pg")]);
    }
}
