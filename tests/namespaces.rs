//! Tests that mount something, each in a mount namespace that ends with it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{alone, skip};

/// Names the directory to mount in to the test in the namespace.
const DIRECTORY: &str = "SANDBOXED_DB_TESTS_DIRECTORY";
/// Names the task of the test in the namespace.
const TASK: &str = "SANDBOXED_DB_TESTS_TASK";

/// The user that mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountUser {
    /// Root, of the machine or of a container that may mount.
    Root,
    /// Root of a user namespace.
    User,
}

impl MountUser {
    /// Root, if this process is.
    #[must_use]
    pub fn best() -> Self {
        if rustix::process::geteuid().is_root() { Self::Root } else { Self::User }
    }

    fn unshare(self) -> Command {
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if self == Self::User {
            command.args(["--user", "--map-root-user"]);
        }
        command
    }
}

/// Runs one `#[ignore]`d test of the calling program in a new mount namespace. The test gets its
/// task, and a directory to mount in, from [`mount_task`]. Skips it if no such namespace can be
/// created.
pub fn in_mount_namespace(mounter: MountUser, test: &str, trial: &str) {
    if !mounter.unshare().arg("true").output().is_ok_and(|output| output.status.success()) {
        return skip(&format!("unshare(1) cannot make the namespaces of {mounter:?} here"));
    }
    // Created and removed outside of the namespace, where nothing is mounted on it.
    let directory = TempDir::new().expect("a temporary directory");
    let run = alone(test);
    let output = mounter
        .unshare()
        .arg(run.get_program())
        .args(run.get_args())
        .envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env(DIRECTORY, directory.path())
        .env(TASK, trial)
        .output()
        .expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{trial} by {mounter:?}: {text}");
}

/// The directory to mount in and the task, in a test that [`in_mount_namespace`] runs.
#[must_use]
pub fn mount_task() -> Option<(PathBuf, String)> {
    Some((std::env::var_os(DIRECTORY)?.into(), std::env::var(TASK).ok()?))
}

/// Runs mount(8), or a program that prepares for it.
#[track_caller]
pub fn run_checked(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).env("PATH", with_sbin()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns `true` if a program of that name is installed, perhaps for root only.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    with_sbin().split(':').any(|directory| Path::new(directory).join(program).exists())
}

/// Programs that create file systems are not always on the path.
fn with_sbin() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// Returns `true` if two directories are on different file systems.
#[must_use]
pub fn on_different_file_systems(one: &Path, other: &Path) -> bool {
    let device = |path| fs::metadata(path).expect("it exists").dev();
    device(one) != device(other)
}
