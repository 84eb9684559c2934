//! Descriptors: a closed list of kinds, and the calls that make them anew under their numbers.

mod contents;
mod listener;
mod open;
mod pipe;
mod poll;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use self::contents::Contents;
use self::listener::Listener;
pub(super) use self::open::Open;
use self::pipe::Pipe;
use self::poll::Poll;
use super::frozen::Frozen;
use super::locks::Lock;
use super::restless;
use super::scratch::lay_path;
use crate::launch::image::format::IMAGE;
use crate::launch::image::refused;
use crate::sys::call_list::{Calls, StoredLists};
use crate::sys::seize::share_open_file;

/// Devices that processes may have open, by major and minor number: null, zero, full, random,
/// urandom.
const DEVICES: [(u32, u32); 5] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9)];

const CLOEXEC: u64 = libc::O_CLOEXEC as u64;
const NONBLOCK: u64 = libc::O_NONBLOCK as u64;
/// A file that has never had a name.
const UNNAMED: u64 = libc::O_TMPFILE as u64;
/// The most bytes of such a file.
const MOST_UNNAMED: u64 = 64 << 10;

/// The descriptors of a process.
#[derive(Debug)]
pub(super) struct Table<'a> {
    process: &'a Frozen,
    all: BTreeMap<u64, Descriptor>,
}

#[derive(Debug)]
struct Descriptor {
    kind: Kind,
    /// As of open(2).
    flags: u64,
    locks: Vec<Lock>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The same open file as a lower descriptor.
    Copy(u64),
    /// Null, or the log.
    Standard,
    File {
        path: PathBuf,
        position: u64,
        /// Written when it is opened.
        contents: Option<Contents>,
    },
    /// A file without a name.
    Unnamed {
        directory: PathBuf,
        contents: Vec<u8>,
        position: u64,
    },
    /// One end of a pipe.
    Pipe(Pipe),
    Listener(Listener),
    /// signalfd(2), by its signals.
    Signals(u64),
    /// epoll(7).
    Poll(Poll),
    /// eventfd(2), by its count.
    Counter(u64),
}

impl<'a> Table<'a> {
    pub(super) fn look(process: &'a Frozen, init: u32) -> io::Result<Self> {
        let mut all = BTreeMap::new();
        let logs = logs(init)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(process.proc.join("fd"))? {
            let name = entry?.file_name();
            numbers.push(name.to_string_lossy().parse().map_err(|_| refused("/proc has no numbers"))?);
        }
        numbers.sort_unstable();
        if numbers.get(..3) != Some(&[0, 1, 2]) || numbers.last().is_some_and(|&last| last >= IMAGE) {
            return Err(refused("its descriptors have unusual numbers"));
        }
        let mut table = Self { process, all: BTreeMap::new() };
        for number in numbers {
            let descriptor = table.descriptor(number, &all, &logs)?;
            all.insert(number, descriptor);
        }
        table.all = all;
        Ok(table)
    }

    fn descriptor(
        &self,
        number: u64,
        lower: &BTreeMap<u64, Descriptor>,
        logs: &[(u64, u64)],
    ) -> io::Result<Descriptor> {
        let path = self.process.proc.join("fd").join(number.to_string());
        let link = fs::read_link(&path)?;
        let text = link.to_string_lossy().into_owned();
        let info = fs::read_to_string(self.process.proc.join("fdinfo").join(number.to_string()))?;
        let value = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).ok_or_else(|| refused(&format!("descriptor {number} has no {name}")))
        };
        let parse = |text: &str, radix| {
            u64::from_str_radix(text, radix).map_err(|_| refused(&format!("descriptor {number} is unclear")))
        };
        let flags = parse(value("flags")?, 8)?;
        let locks = Lock::parse_all(&info)?;
        let metadata = fs::metadata(&path)?;
        let identity = (metadata.dev(), metadata.ino());
        if number < 3 {
            let is_null = metadata.file_type().is_char_device()
                && (major(metadata.rdev()), minor(metadata.rdev())) == DEVICES[0];
            if !(if number == 0 { is_null } else { logs.contains(&identity) }) {
                return Err(refused("its standard input, output or error is not that of a server"));
            }
            return Ok(Descriptor { kind: Kind::Standard, flags, locks });
        }
        let pid = self.process.pid();
        for (&other, descriptor) in lower {
            if !matches!(descriptor.kind, Kind::Copy(_))
                && share_open_file((pid, number as i32), (pid, other as i32))?
            {
                return Ok(Descriptor { kind: Kind::Copy(other), flags, locks });
            }
        }
        let kind = if let Some(pipe) = text.strip_prefix("pipe:[") {
            Kind::Pipe(Pipe::look(&path, flags, parse(pipe.trim_end_matches(']'), 10)?)?)
        } else if text.starts_with("socket:[") {
            Kind::Listener(Listener::look(self.process, number, &text)?)
        } else if text == "anon_inode:[signalfd]" {
            Kind::Signals(parse(value("sigmask")?, 16)?)
        } else if text == "anon_inode:[eventpoll]" {
            Kind::Poll(Poll::look(self.process, &info)?)
        } else if text == "anon_inode:[eventfd]" {
            if value("eventfd-semaphore").is_ok_and(|semaphore| semaphore != "0") {
                return Err(refused("it has a semaphore"));
            }
            Kind::Counter(parse(value("eventfd-count")?, 16)?)
        } else if (metadata.is_file() || metadata.is_dir()) && link.is_absolute() {
            let below = self.process.proc.join("root").join(link.strip_prefix("/").unwrap_or(&link));
            let named = fs::symlink_metadata(below).map(|file| (file.dev(), file.ino())).ok();
            let position = parse(value("pos")?, 10)?;
            if metadata.is_dir() && position != 0 {
                return Err(restless("it reads a directory"));
            } else if named == Some(identity) {
                let is_first = !lower.values().any(|other| other.kind.is_file_at(&link));
                let contents = if is_first { Contents::look(&path, &metadata, flags)? } else { None };
                Kind::File { path: link, position, contents }
            } else if flags & UNNAMED == UNNAMED && metadata.len() <= MOST_UNNAMED {
                let directory = link.parent().unwrap_or(Path::new("/")).to_owned();
                Kind::Unnamed { directory, contents: fs::read(&path)?, position }
            } else {
                return Err(refused(&format!("it has `{text}` open, which has no name")));
            }
        } else if metadata.file_type().is_char_device()
            && DEVICES.contains(&(major(metadata.rdev()), minor(metadata.rdev())))
        {
            Kind::File { path: link, position: 0, contents: None }
        } else {
            return Err(refused(&format!("it has `{text}` open, whose kind is not understood")));
        };
        Ok(Descriptor { kind, flags, locks })
    }

    /// Refuses sockets in the file system that nobody listens to.
    pub(super) fn check_sockets(&self, sockets: &[(PathBuf, u32)]) -> io::Result<()> {
        let paths = self.all.values().filter_map(|descriptor| match &descriptor.kind {
            Kind::Listener(listener) => listener.path(),
            _ => None,
        });
        let paths: Vec<_> = paths.collect();
        match sockets.iter().find(|(path, _)| !paths.contains(&path.as_path())) {
            None => Ok(()),
            Some((path, _)) => Err(refused(&format!("`{}` is not its own socket", path.display()))),
        }
    }

    /// Adds the calls that make all descriptors of the first process.
    pub(super) fn make(
        &self,
        open: &mut Open,
        sockets: &[(PathBuf, u32)],
        passing: &mut Vec<u8>,
        lists: &mut StoredLists,
        list: &mut Calls,
    ) -> io::Result<()> {
        for (&number, descriptor) in &self.all {
            if open.has(number) {
                continue;
            }
            match &descriptor.kind {
                Kind::File { path, position, contents: Some(contents) } => {
                    let flags = descriptor.flags | libc::O_TRUNC as u64;
                    open_file(number, (path, *position), flags, open, lists, list);
                    contents.write(number, passing, lists, list);
                }
                _ => self.create(number, descriptor, open, sockets, lists, list)?,
            }
        }
        self.fill(|_| true, lists, list);
        self.lock(lists, list);
        Ok(())
    }

    /// Adds the calls that turn a copy of the first process's descriptors into these.
    pub(super) fn turn_from(
        &self,
        first: &Self,
        mut open: Open,
        lists: &mut StoredLists,
        list: &mut Calls,
    ) -> io::Result<()> {
        let (pid, of_first) = (self.process.pid(), first.process.pid());
        let mut kept = BTreeSet::new();
        for (&number, descriptor) in &first.all {
            let has = self.all.get(&number);
            // Signals and events belong to the process that asks for them.
            let is_shared = has.is_some_and(|own| !own.is_own())
                && share_open_file((pid, number as i32), (of_first, number as i32))?;
            if is_shared {
                kept.insert(number);
                // Each copy of a descriptor closes on execve(2) or not.
                let exec = |of: &Descriptor| of.flags & CLOEXEC;
                if has.is_some_and(|own| exec(own) != exec(descriptor)) {
                    let flag = if exec(descriptor) == 0 { libc::FD_CLOEXEC as u64 } else { 0 };
                    list.call(libc::SYS_fcntl, &[number, libc::F_SETFD as u64, flag]);
                }
            } else if number < 3 {
                return Err(refused("its processes have different standard input, output or error"));
            } else {
                list.call(libc::SYS_close, &[number]);
                open.remove(number);
            }
        }
        for (&number, descriptor) in self.all.iter().filter(|(number, _)| !kept.contains(number)) {
            let is_refused = match descriptor.kind {
                // Both ends must be new.
                Kind::Pipe(_) => first.all.values().any(|end| end.kind == descriptor.kind),
                Kind::Listener(_) | Kind::Standard => true,
                _ => false,
            };
            if is_refused {
                return Err(refused("one of its processes has a separate pipe or socket"));
            }
            if open.has(number) {
                continue;
            }
            self.create(number, descriptor, &mut open, &[], lists, list)?;
        }
        self.fill(|number| !kept.contains(&number), lists, list);
        self.lock(lists, list);
        Ok(())
    }

    /// Adds the entries of each epoll that is made.
    fn fill(&self, is_made: impl Fn(u64) -> bool, lists: &mut StoredLists, list: &mut Calls) {
        for (&number, descriptor) in &self.all {
            if let Kind::Poll(poll) = &descriptor.kind
                && is_made(number)
            {
                poll.fill(number, lists, list);
            }
        }
    }

    /// Takes the locks, which no process inherits.
    fn lock(&self, lists: &mut StoredLists, list: &mut Calls) {
        for (&number, descriptor) in &self.all {
            descriptor.locks.iter().for_each(|lock| lock.take(number, lists, list));
        }
    }

    fn create(
        &self,
        number: u64,
        descriptor: &Descriptor,
        open: &mut Open,
        sockets: &[(PathBuf, u32)],
        lists: &mut StoredLists,
        list: &mut Calls,
    ) -> io::Result<()> {
        let flags = descriptor.flags;
        let (exec, block) = (flags & CLOEXEC, flags & NONBLOCK);
        match &descriptor.kind {
            Kind::Standard => {}
            Kind::Copy(of) => {
                list.call_for(libc::SYS_dup3, &[*of, number, exec], number);
                open.add(number);
            }
            Kind::File { path, position, .. } => {
                let flags = flags & !(libc::O_TRUNC as u64);
                open_file(number, (path, *position), flags, open, lists, list);
            }
            Kind::Unnamed { directory, contents, position } => {
                const HERE: u64 = libc::AT_FDCWD as u64;
                const OWNER: u64 = 0o600;
                let directory = lay_path(lists, directory);
                open.create(number, exec, libc::SYS_openat, &[HERE, directory, flags, OWNER], list);
                if !contents.is_empty() {
                    let (bytes, length) = (lists.lay(contents), contents.len() as u64);
                    list.call_for(libc::SYS_pwrite64, &[number, bytes, length, 0], length);
                }
                if *position != 0 {
                    list.call_for(libc::SYS_lseek, &[number, *position, 0], *position);
                }
            }
            Kind::Pipe(pipe) => pipe.make(&self.all, open, lists, list)?,
            Kind::Listener(listener) => listener.make((number, flags), sockets, open, lists, list)?,
            Kind::Signals(mask) => {
                let mask = lists.lay(&mask.to_ne_bytes());
                let arguments = [u64::MAX, mask, 8, exec | block];
                open.create(number, exec, libc::SYS_signalfd4, &arguments, list);
            }
            Kind::Poll(_) => open.create(number, exec, libc::SYS_epoll_create1, &[exec], list),
            Kind::Counter(count) => {
                let count = u32::try_from(*count).map_err(|_| refused("it has a large eventfd"))?;
                open.create(number, exec, libc::SYS_eventfd2, &[count.into(), exec | block], list);
            }
        }
        Ok(())
    }
}

/// Adds the calls that open a file that exists, at a position.
fn open_file(
    number: u64,
    (path, position): (&Path, u64),
    flags: u64,
    open: &mut Open,
    lists: &mut StoredLists,
    list: &mut Calls,
) {
    const ONCE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY;
    const HERE: u64 = libc::AT_FDCWD as u64;
    let path = lay_path(lists, path);
    let arguments = [HERE, path, flags & !u64::from(ONCE.unsigned_abs()), 0];
    open.create(number, flags & CLOEXEC, libc::SYS_openat, &arguments, list);
    if position != 0 {
        list.call_for(libc::SYS_lseek, &[number, position, 0], position);
    }
}

impl Kind {
    fn is_file_at(&self, wanted: &Path) -> bool {
        matches!(self, Self::File { path, .. } if path == wanted)
    }
}

impl Descriptor {
    /// Returns `true` for what a child must make for itself.
    fn is_own(&self) -> bool {
        matches!(self.kind, Kind::Signals(_) | Kind::Poll(_))
    }
}

/// The device and inode of each file that init has open: the log is among them.
fn logs(init: u32) -> io::Result<Vec<(u64, u64)>> {
    let entries = fs::read_dir(Path::new("/proc").join(init.to_string()).join("fd"))?;
    let files = entries.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
    Ok(files.filter(fs::Metadata::is_file).map(|file| (file.dev(), file.ino())).collect())
}
