//! Files of the sandbox outside of the data directory, in /tmp, /run and /dev/shm.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::launch::image::refused;
use crate::sys::call_list::{Calls, StoredLists};

/// The directories, which every sandbox has.
const DIRECTORIES: [&str; 3] = ["tmp", "run", "dev/shm"];
/// The most bytes of files together.
const MOST: u64 = 1 << 20;

/// The files that lie there, each directory before its entries.
#[derive(Debug)]
pub(super) struct Scratch {
    directories: Vec<(PathBuf, u32)>,
    files: Vec<(PathBuf, u32, Vec<u8>)>,
    links: Vec<(PathBuf, PathBuf)>,
    /// Sockets, with their permissions.
    pub(super) sockets: Vec<(PathBuf, u32)>,
}

impl Scratch {
    /// Looks below the root of a container. `notify` is the socket of its init.
    pub(super) fn look(root: &Path, notify: &Path) -> io::Result<Self> {
        let mut scratch =
            Self { directories: Vec::new(), files: Vec::new(), links: Vec::new(), sockets: Vec::new() };
        let mut left = MOST;
        for directory in DIRECTORIES {
            let device = fs::metadata(root.join(directory))?.dev();
            for entry in WalkDir::new(root.join(directory)).min_depth(1).same_file_system(true) {
                let entry = entry.map_err(io::Error::from)?;
                let (metadata, kind) = (entry.metadata().map_err(io::Error::from)?, entry.file_type());
                // Programs of the host may be mounted there.
                if metadata.dev() != device {
                    continue;
                }
                let below = entry.path().strip_prefix(root).map_err(io::Error::other)?;
                let (path, mode) = (Path::new("/").join(below), metadata.mode() & 0o7777);
                if kind.is_dir() {
                    scratch.directories.push((path, mode));
                } else if kind.is_file() {
                    left = left
                        .checked_sub(metadata.len())
                        .ok_or_else(|| refused("it has large files in /tmp"))?;
                    scratch.files.push((path, mode, fs::read(entry.path())?));
                } else if kind.is_symlink() {
                    scratch.links.push((path, fs::read_link(entry.path())?));
                } else if kind.is_socket() {
                    if path != notify {
                        scratch.sockets.push((path, mode));
                    }
                } else {
                    return Err(refused(&format!("`{}` is neither a file nor a socket", path.display())));
                }
            }
        }
        Ok(scratch)
    }

    /// Adds the calls that make everything but the sockets, without a umask. A new descriptor gets
    /// the number `free`, and is closed again.
    pub(super) fn make(&self, free: u64, lists: &mut StoredLists, list: &mut Calls) {
        for (directory, mode) in &self.directories {
            let path = lay_path(lists, directory);
            // The plan has made some.
            list.attempt(libc::SYS_mkdir, &[path, (*mode).into()]);
            list.call(libc::SYS_chmod, &[path, (*mode).into()]);
        }
        for (file, mode, contents) in &self.files {
            let path = lay_path(lists, file);
            let flags = libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
            list.call_for(libc::SYS_open, &[path, flags as u64, (*mode).into()], free);
            // Zeroes at the end take no memory.
            let used = contents.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            if used > 0 {
                let bytes = lists.lay(&contents[..used]);
                list.call_for(libc::SYS_write, &[free, bytes, used as u64], used as u64);
            }
            list.call(libc::SYS_ftruncate, &[free, contents.len() as u64]);
            list.call(libc::SYS_close, &[free]);
        }
        for (link, target) in &self.links {
            let (path, target) = (lay_path(lists, link), lay_path(lists, target));
            list.attempt(libc::SYS_unlink, &[path]);
            list.call(libc::SYS_symlink, &[target, path]);
        }
    }
}

/// Lays a path with its end.
pub(super) fn lay_path(lists: &mut StoredLists, path: &Path) -> u64 {
    lists.lay(&[path.as_os_str().as_bytes(), b"\0"].concat())
}
