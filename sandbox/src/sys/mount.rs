//! mount_setattr(2), and the mount API in the shape that a sandbox's root is built with.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::last_errno;

/// A failed mount: the errno, and the kernel's message in the file system context's log, which is
/// often empty.
#[derive(Debug)]
pub(crate) struct MountError {
    pub(crate) errno: Errno,
    pub(crate) message: String,
}

impl From<Errno> for MountError {
    fn from(errno: Errno) -> Self {
        Self { errno, message: String::new() }
    }
}

/// An option of a file system, as fsconfig(2) takes it.
#[derive(Debug)]
pub(crate) enum MountOption<'a> {
    Flag(&'a str),
    Text(&'a str, &'a str),
    /// A text that is omitted where the kernel refuses it.
    Wish(&'a str, &'a str),
    Fd(&'a str, BorrowedFd<'a>),
}

/// Makes a detached mount of a new file system instance.
///
/// # References
/// fsopen(2), fsconfig(2), fsmount(2)
pub(crate) fn create(
    kind: &str,
    options: &[MountOption<'_>],
    flags: MountAttrFlags,
) -> Result<OwnedFd, MountError> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configured = options
        .iter()
        .try_for_each(|option| match *option {
            MountOption::Flag(key) => fsconfig_set_flag(context.as_fd(), key),
            MountOption::Text(key, value) => fsconfig_set_string(context.as_fd(), key, value),
            MountOption::Wish(key, value) => {
                let _ = fsconfig_set_string(context.as_fd(), key, value);
                Ok(())
            }
            MountOption::Fd(key, fd) => fsconfig_set_fd(context.as_fd(), key, fd),
        })
        .and_then(|()| fsconfig_create(context.as_fd()))
        .and_then(|()| fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags));
    configured.map_err(|errno| MountError { errno, message: context_log(context.as_fd()) })
}

/// Returns the kernel's messages about a failed fsconfig(2), of which each read returns one.
fn context_log(context: BorrowedFd<'_>) -> String {
    let mut log = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        if !log.is_empty() {
            log.extend_from_slice(b"; ");
        }
        // Each message begins with its class, such as "e ".
        log.extend_from_slice(buffer[..length].strip_prefix(b"e ").unwrap_or(&buffer[..length]).trim_ascii());
    }
    String::from_utf8_lossy(&log).into_owned()
}

/// Makes a detached copy of the mounts at `path` and below, with `attributes` set on all of them.
///
/// # References
/// open_tree(2), mount_setattr(2)
pub(crate) fn clone_tree(path: &str, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags)?;
    if !attributes.is_empty() {
        set_attributes(tree.as_fd(), c"", attributes, libc::AT_RECURSIVE | libc::AT_EMPTY_PATH)?;
    }
    Ok(tree)
}

/// Attaches a detached mount at `target`.
///
/// # References
/// move_mount(2)
pub(crate) fn attach(mount: BorrowedFd<'_>, target: &str) -> Result<(), Errno> {
    move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Makes the mount at `path` read-only, without those below it.
pub(crate) fn make_read_only(path: &CStr) -> Result<(), Errno> {
    set_attributes(CWD, path, MountAttrFlags::MOUNT_ATTR_RDONLY, 0)
}

/// Opens a directory below a mount, attached or not.
pub(crate) fn open_directory(parent: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    use rustix::fs::OFlags;
    rustix::fs::openat(parent, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// mount_setattr(2), Linux 5.12.
fn set_attributes(
    dir: BorrowedFd<'_>,
    path: &CStr,
    attributes: MountAttrFlags,
    flags: i32,
) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: u64::from(attributes.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `path` is NUL-terminated and `attr` a fully initialised struct of the size passed;
    // both outlive the call, which only reads them. `dir` is open for its duration.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
