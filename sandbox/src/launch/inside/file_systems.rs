//! The file systems that a container gets: overlays and tmpfs, not attached yet.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};

use super::mounts::{STAGE, refused};
use crate::launch::protocol::{Failure, LaunchStep};
use crate::sys::mount::{MountError, MountOption, attach, create, open_directory};

/// Makes an overlay of `lowers`, the first on top, writable if there is a tmpfs for its upper.
///
/// `userxattr` lets an unprivileged overlay mark a directory opaque. `volatile` makes fsync(2) a
/// no-op, since the upper dies with the sandbox (Documentation/filesystems/overlayfs.rst).
pub(super) fn overlay(
    lowers: &[OwnedFd],
    upper: Option<&OwnedFd>,
    flags: MountAttrFlags,
) -> Result<OwnedFd, MountError> {
    let mut options = vec![MountOption::Flag("userxattr")];
    options.extend(lowers.iter().map(|lower| MountOption::Fd("lowerdir+", lower.as_fd())));
    let directories = upper.map(upper_directories).transpose()?;
    if let Some((upper, work)) = &directories {
        options.extend([
            MountOption::Fd("upperdir", upper.as_fd()),
            MountOption::Fd("workdir", work.as_fd()),
            MountOption::Flag("volatile"),
        ]);
    }
    match create("overlay", &options, flags) {
        // Before Linux 6.13 layers are given by path.
        Err(MountError { errno: Errno::INVAL | Errno::BADF | Errno::OPNOTSUPP, .. }) => {
            overlay_by_path(lowers, upper, flags)
        }
        result => result,
    }
}

/// Makes the directories of an overlay. The overlay's root has the upper's mode, and servers refuse
/// a data directory that others may enter.
fn upper_directories(upper: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Errno> {
    for name in ["upper", "work"] {
        rustix::fs::mkdirat(upper, name, rustix::fs::Mode::RWXU)?;
    }
    Ok((open_directory(upper.as_fd(), "upper")?, open_directory(upper.as_fd(), "work")?))
}

/// Makes an overlay by paths, which /proc makes short and free of the option's separators.
fn overlay_by_path(
    lowers: &[OwnedFd],
    upper: Option<&OwnedFd>,
    flags: MountAttrFlags,
) -> Result<OwnedFd, MountError> {
    let path = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lowerdir = lowers.iter().map(|lower| path(lower.as_fd())).collect::<Vec<_>>().join(":");
    let mut options = vec![MountOption::Flag("userxattr"), MountOption::Text("lowerdir", &lowerdir)];
    let Some(upper) = upper else {
        return create("overlay", &options, flags);
    };
    let (upperdir, workdir) =
        (format!("{}/upper", path(upper.as_fd())), format!("{}/work", path(upper.as_fd())));
    options.extend([
        MountOption::Text("upperdir", &upperdir),
        MountOption::Text("workdir", &workdir),
        MountOption::Flag("volatile"),
    ]);
    // These kernels take an upper from an attached mount only; the overlay keeps it when it is
    // detached again.
    attach(upper.as_fd(), STAGE)?;
    let overlay = create("overlay", &options, flags);
    unmount(STAGE, UnmountFlags::DETACH)?;
    overlay
}

/// Returns the number of files that a tmpfs may hold: a page for each, and room for a copied schema
/// in the smallest.
fn inodes(size: u64) -> u64 {
    (size / 4096).max(16 << 10)
}

/// Large pages for copied-up files, never beyond a file's end: a large table is copied and read in
/// half the time, since Linux 6.14. tmpfs(5).
pub(super) const LARGE_PAGES: MountOption<'_> = MountOption::Wish("huge", "within_size");

pub(super) fn tmpfs(bytes: u64, mode: &str, flags: MountAttrFlags) -> Result<OwnedFd, Failure> {
    tmpfs_with(bytes, mode, flags, None)
}

pub(super) fn tmpfs_with(
    bytes: u64,
    mode: &str,
    flags: MountAttrFlags,
    further: Option<MountOption<'_>>,
) -> Result<OwnedFd, Failure> {
    let size = bytes.to_string();
    // Empty files take no pages, but memory of the kernel.
    let files = inodes(bytes).to_string();
    let mut options = vec![
        MountOption::Text("size", &size),
        MountOption::Text("nr_inodes", &files),
        MountOption::Text("mode", mode),
    ];
    options.extend(further);
    create("tmpfs", &options, flags)
        .map_err(|error| refused(LaunchStep::Scratch, &format!("of {size} bytes"), error))
}
