//! The test process's launcher.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command as Process};
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

use super::error::{LaunchError, Result};
use super::lock;
use super::log::Log;
use crate::launch::protocol::{Failure, LaunchStep, LauncherRequest, MARKER, encode};

use crate::error::{Error, ErrorKind};
use crate::machine::rlimit::{LEAST_FILE_SIZE, Resource};
use crate::sys::process::is_in_main_program;
use crate::sys::socket;

static LAUNCHER: Mutex<Option<Arc<Launcher>>> = Mutex::new(None);

/// The launcher of this process.
#[derive(Debug)]
pub(super) struct Launcher {
    socket: OwnedFd,
    child: Mutex<Child>,
    /// The standard error of the launcher and its inits: nothing, unless they panic.
    complaints: Log,
    /// The process that started it: a fork of the test process must not share its launcher.
    owner: u32,
}

impl Launcher {
    /// Returns the launcher of this process, started at the first call and again if it has died.
    pub(super) fn get() -> Result<Arc<Self>> {
        let mut slot = lock(&LAUNCHER);
        match &*slot {
            Some(launcher) if launcher.owner == std::process::id() && launcher.is_alive() => {
                Ok(launcher.clone())
            }
            _ => {
                let launcher = Arc::new(Self::start()?);
                *slot = Some(launcher.clone());
                Ok(launcher)
            }
        }
    }

    fn start() -> Result<Self> {
        let failed = |error: io::Error| LaunchError::from(Failure::io(LaunchStep::Launcher, "", &error));
        if !is_in_main_program().map_err(failed)? {
            return Err(Error::new(ErrorKind::Launch, "start the launcher")
                .with_hint(
                    "the launcher is this program executed again, but sandboxed-db is part of a shared library here: link it \
                     into the program itself",
                )
                .into());
        }
        // A write beyond it kills a process without a message.
        if Resource::FileSize.own().soft.is_some_and(|limit| limit < LEAST_FILE_SIZE) {
            return Err(Failure::new(LaunchStep::Launcher, "RLIMIT_FSIZE", Errno::FBIG).into());
        }
        let (ours, theirs) = socket::pair().map_err(|errno| failed(errno.into()))?;
        let null = File::options().write(true).open("/dev/null");
        let null = null.map_err(|error| Failure::io(LaunchStep::Launcher, "/dev/null", &error))?;
        let complaints = memory(c"sandboxed-db launcher", b"").map_err(|errno| failed(errno.into()))?;
        let child = Process::new("/proc/self/exe")
            .arg0("sandboxed-db-launcher")
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_for_programs(name)))
            .env(MARKER, "1")
            .current_dir("/")
            .stdin(theirs)
            .stdout(null)
            .stderr(complaints.try_clone().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        tracing::debug!(pid = child.id(), "launcher started");
        Ok(Self {
            socket: ours,
            child: Mutex::new(child),
            complaints: Log::new(complaints),
            owner: std::process::id(),
        })
    }

    fn is_alive(&self) -> bool {
        matches!(lock(&self.child).try_wait(), Ok(None))
    }

    /// Sends a request with one end of a control socket and a file or two.
    pub(super) fn request(
        &self,
        request: &LauncherRequest,
        control: &OwnedFd,
        file: &File,
        image: Option<&File>,
    ) -> Result<(), Errno> {
        let message = encode(request).expect("numbers can be encoded");
        let fds = [Some(control.as_fd()), Some(file.as_fd()), image.map(AsFd::as_fd)];
        let fds: Vec<_> = fds.into_iter().flatten().collect();
        socket::send(self.socket.as_fd(), &message, &fds)
    }

    /// Waits for the end of a launcher that has closed its socket.
    pub(super) fn reap(&self) {
        let _ = lock(&self.child).wait();
    }

    /// Returns the error for a launcher or an init that ended without a report.
    pub(super) fn ended(&self, process: &str) -> Error {
        let error =
            Error::new(ErrorKind::Launch, format!("launch the sandbox: {process} ended unexpectedly"));
        match self.complaints.read().unwrap_or_default() {
            text if text.is_empty() => error.with_hint(
                "it was killed, by the out-of-memory killer or by hand; look into `dmesg`. The next start uses a new one",
            ),
            text => error.caused_by(text),
        }
    }
}

/// Returns `true` if a variable is needed to run the program again. All others may be secrets, and
/// a server could read them in /proc/1/environ.
fn is_for_programs(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("LD_") || name == "LLVM_PROFILE_FILE" || name.ends_with("SAN_OPTIONS")
}

/// Returns a file in memory with these contents, positioned at its beginning.
pub(crate) fn memory(name: &CStr, contents: &[u8]) -> Result<File, Errno> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(contents)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(file)
}
