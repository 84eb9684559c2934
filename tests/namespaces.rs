//! Tests that mount something: in a mount namespace of their own, which ends with them, however they end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{alone, skip};

/// A directory for what is mounted, named to the test that runs in the namespace.
const PLACE: &str = "SANDBOXED_DB_TESTS_PLACE";
/// What it is to do there.
const TRIAL: &str = "SANDBOXED_DB_TESTS_TRIAL";

/// Who mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountUser {
    /// Root, of the machine or of a container that may mount.
    Root,
    /// Root of a user namespace, which anybody may be.
    User,
}

impl MountUser {
    /// The most that this process can be.
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

/// Runs one `#[ignore]`d test of the calling program in a mount namespace of its own. It gets what it is to do, and a
/// directory to mount in, by [`trial`].
///
/// Nothing is done, and the reason told, where no such namespace can be made.
///
/// # Panics
/// When the test fails.
pub fn in_mount_namespace(mounter: MountUser, test: &str, trial: &str) {
    if !mounter.unshare().arg("true").output().is_ok_and(|output| output.status.success()) {
        return skip(&format!("unshare(1) cannot make the namespaces of {mounter:?} here"));
    }
    // Made and removed outside, where nothing is mounted on it.
    let place = TempDir::new().expect("a temporary directory");
    let run = alone(test);
    let output = mounter
        .unshare()
        .arg(run.get_program())
        .args(run.get_args())
        .envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env(PLACE, place.path())
        .env(TRIAL, trial)
        .output()
        .expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{trial} by {mounter:?}: {text}");
}

/// The directory to mount in and what is to be done, in a test run by [`mounting`].
#[must_use]
pub fn mount_task() -> Option<(PathBuf, String)> {
    Some((std::env::var_os(PLACE)?.into(), std::env::var(TRIAL).ok()?))
}

/// Runs mount(8), or a program that prepares for it.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn run_checked(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).env("PATH", with_sbin()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether there is a program of that name, for root.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    with_sbin().split(':').any(|directory| Path::new(directory).join(program).exists())
}

/// What makes file systems is not always on the path.
fn with_sbin() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// Whether two directories are on file systems of their own.
///
/// # Panics
/// When one is not there.
#[must_use]
pub fn on_different_file_systems(one: &Path, other: &Path) -> bool {
    let device = |path| fs::metadata(path).expect("it exists").dev();
    device(one) != device(other)
}
