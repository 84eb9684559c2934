//! The directories of a run, and the user that runs the servers.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandboxed_db::engine::Installation;
use sandboxed_db::{Engine, Postgres};
use tempfile::TempDir;

use super::contestant::Contestant;
use super::server::Settings;
use crate::Result;

/// A user other than root, which PostgreSQL refuses.
#[derive(Debug, Clone)]
struct User {
    uid: u32,
    gid: u32,
}

/// Directories that are removed at the end of the run, and the programs in use.
#[derive(Debug)]
pub(crate) struct RunDirectories {
    disk: TempDir,
    memory: TempDir,
    /// On a file system whose files can share blocks.
    reflinks: Option<TempDir>,
    user: Option<User>,
    /// A copy of this program that the user can execute.
    program: PathBuf,
    pub(crate) postgres: Installation,
}

impl RunDirectories {
    /// Creates the directories. `user` runs the contestants if this process is root. `reflinks` is
    /// on a file system whose files can share blocks.
    pub(crate) fn new(user: &str, reflinks: Option<&Path>) -> Result<Self> {
        let user = if rustix::process::getuid().is_root() { Some(User::of(user)?) } else { None };
        let named = |parent: &Path| tempfile::Builder::new().prefix("sandboxed-db-bench.").tempdir_in(parent);
        let disk = named(&std::env::temp_dir())?;
        let memory = named(Path::new("/dev/shm"))?;
        let reflinks = reflinks.map(named).transpose()?;
        let program = disk.path().join("sandboxed-db-bench");
        fs::copy("/proc/self/exe", &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let place = Self { disk, memory, reflinks, user, program, postgres: Postgres::new().locate()? };
        place.give(place.disk.path())?;
        place.give(place.memory.path())?;
        place.reflinks.iter().try_for_each(|reflinks| place.give(reflinks.path()))?;
        Ok(place)
    }

    pub(crate) fn has_reflinks(&self) -> bool {
        self.reflinks.is_some()
    }

    /// Creates a directory of the user, in memory or on disk as contestant and settings need.
    pub(crate) fn directory(
        &self,
        contestant: Contestant,
        settings: Settings,
        name: &str,
    ) -> io::Result<PathBuf> {
        let parent = match (contestant, &self.reflinks, settings) {
            (Contestant::TemplateClone, Some(reflinks), _) => reflinks,
            (_, _, Settings::Fastest) => &self.memory,
            (_, _, Settings::AsInstalled) => &self.disk,
        };
        let directory = parent.path().join(name);
        fs::create_dir_all(&directory)?;
        self.give(&directory)?;
        Ok(directory)
    }

    pub(crate) fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// Returns a command of the user. Its environment has `PATH` and this library's variables only.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("HOME", self.disk.path()).current_dir(self.disk.path());
        let own = std::env::vars_os().filter(|(name, _)| {
            name == "PATH" || name.to_str().is_some_and(|name| name.starts_with("SANDBOXED_DB_"))
        });
        command.envs(own).env("SANDBOXED_DB_CACHE", self.disk.path().join("cache"));
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Returns a command that executes this program again.
    pub(crate) fn this_program(&self) -> Command {
        self.command(&self.program)
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.user {
            Some(User { uid, gid }) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

impl User {
    fn of(name: &str) -> Result<Self> {
        let output = Command::new("getent").args(["passwd", name]).output()?;
        let line = String::from_utf8(output.stdout)?;
        // passwd(5)
        let mut fields = line.split(':').skip(2);
        let mut id = || fields.next().and_then(|field| field.parse().ok());
        match (id(), id()) {
            (Some(uid), Some(gid)) if uid != 0 => Ok(Self { uid, gid }),
            _ => Err(format!(
                "could not run the contestants: PostgreSQL refuses root, and no user `{name}` exists; name one by --user"
            )
            .into()),
        }
    }
}
