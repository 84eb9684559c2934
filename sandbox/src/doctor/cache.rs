//! Checks the cache directory: its owner, its file system, its size, and whether it can be written.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use walkdir::WalkDir;

use super::deadline::within;
use super::examination::{Examination, fix_of};
use crate::cache;
use crate::diagnosis::HostFacts;
use crate::fix::Fix;
use crate::machine::mountinfo;
use crate::machine::rlimit::Resource;

/// A network's file system may take long; a slower one is of no use.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes that a fresh server's layer and its build take, and some more.
const LAYER_SIZE: u64 = 200 << 20;

/// The cache directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CacheInfo {
    /// The directory.
    pub directory: PathBuf,
    /// The type of its file system, such as `ext4`.
    pub file_system: String,
    /// The size of the directory on disk, in bytes; 0 if it is not writable and holds no layers.
    pub used: u64,
    /// The free space of the file system, in bytes.
    pub free: u64,
    /// `true` if the directory can be written now.
    pub writable: bool,
    /// `true` if copies in the directory share blocks with their originals, which makes building a
    /// layer on another fast.
    pub reflink: bool,
    /// `true` if the directory holds finished layers.
    pub has_layers: bool,
}

pub(super) fn examine(examination: &mut Examination, facts: &HostFacts) -> Option<CacheInfo> {
    const NAME: &str = "cache";
    let directory = match cache::directory() {
        Ok(directory) => directory,
        Err(error) => {
            examination.fail(NAME, fix_of(&error));
            return None;
        }
    };
    let mounts = facts.mounts.clone();
    let looked = within(LIMIT, "to look at the cache", move || {
        let real = std::fs::canonicalize(&directory).unwrap_or_else(|_| directory.clone());
        let mount = mountinfo::of(&mounts, &real);
        let kind = mount.map_or("unknown", |mount| &mount.kind).to_owned();
        let noexec = mount.is_some_and(|mount| mount.has("noexec"));
        (look(directory, kind), noexec)
    });
    let ((info, trouble), noexec) = match looked {
        Ok(looked) => looked,
        Err(fix) => {
            examination.fail(NAME, Fix { sentence: format!("looking at it: {}", fix.sentence), ..fix });
            return None;
        }
    };
    let sentence = format!(
        "{} on {}, {} used, {} free, {}",
        info.directory.display(),
        info.file_system,
        megabytes(info.used),
        megabytes(info.free),
        if info.reflink { "copies share blocks" } else { "copies are whole (no reflink)" }
    );
    match trouble {
        // Existing layers are used all the same.
        Some(fix) if info.has_layers => {
            let sentence = format!("{}; only the layers in it can be used", fix.sentence);
            examination.warn(NAME, Fix { sentence, ..fix });
        }
        Some(fix) => examination.fail(NAME, fix),
        None if info.free < LAYER_SIZE => examination.warn(
            NAME,
            Fix::run(format!("{sentence}: too little for a layer"), "sandboxed-db prune --size 1GiB"),
        ),
        None if noexec => examination.warn(
            NAME,
            cache::another_directory(format!(
                "{sentence}: mounted noexec, so server programs that are unpacked there do not run"
            )),
        ),
        None => examination.ok(NAME, sentence),
    }
    Some(info)
}

fn look(directory: PathBuf, file_system: String) -> (CacheInfo, Option<Fix>) {
    let written = cache::create(&directory).map_err(|error| fix_of(&error)).and_then(|()| {
        try_writing(&directory).map_err(|error| {
            cache::fix(&directory, &error)
                .unwrap_or_else(|| Fix::none(format!("`{}` cannot be written: {error}", directory.display())))
        })
    });
    let free = rustix::fs::statvfs(&directory).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
    let layers = directory.join("layers").read_dir();
    let has_layers = layers.is_ok_and(|mut layers| layers.next().is_some());
    // A directory that cannot be a cache may be any, such as the root of all files.
    let is_cache = written.is_ok() || has_layers;
    let info = CacheInfo {
        file_system,
        used: if is_cache { used(&directory) } else { 0 },
        free,
        writable: written.is_ok(),
        reflink: written == Ok(true),
        has_layers,
        directory,
    };
    (info, written.err())
}

/// Writes a file without a name, which vanishes when it is closed, and returns whether it can be
/// copied by reflink.
fn try_writing(directory: &Path) -> io::Result<bool> {
    let nameless = || {
        let opened = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).open(directory);
        match opened {
            // Some file systems have no such files.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                tempfile::tempfile_in(directory)
            }
            opened => opened,
        }
    };
    let mut file = nameless()?;
    // The kernel kills a process that exceeds its limit.
    let size = Resource::FileSize.own().soft.unwrap_or(u64::MAX).min(1 << 20);
    file.write_all(&vec![1; size as usize])?;
    let copy = nameless()?;
    Ok(rustix::fs::ioctl_ficlone(&copy, &file).is_ok())
}

/// Returns the bytes in the directory. A file with several names, which layers share, counts once.
fn used(directory: &Path) -> u64 {
    let mut seen = HashSet::new();
    let files = WalkDir::new(directory).into_iter().flatten().filter_map(|entry| entry.metadata().ok());
    files.filter(|file| seen.insert((file.dev(), file.ino()))).map(|file| file.blocks() * 512).sum()
}

fn megabytes(bytes: u64) -> String {
    match bytes >> 20 {
        size @ 0..10_000 => format!("{size} MB"),
        size => format!("{} GB", size >> 10),
    }
}
