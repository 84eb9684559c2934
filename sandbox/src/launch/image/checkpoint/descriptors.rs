//! Descriptors: a closed list of kinds, and the calls that make them anew under their numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{major, minor};
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketAddrV4, SocketAddrV6, SocketType, getsockname};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::frozen::Frozen;
use super::locks::Lock;
use super::restless;
use super::scratch::lay_path;
use crate::launch::image::format::IMAGE;
use crate::launch::image::refused;
use crate::sys::call_list::{Calls, StoredLists};
use crate::sys::seize::share_open_file;
use crate::sys::socket::wait_readable;

/// A descriptor between those of the image, for a moment.
const PASSING: [u64; 2] = [IMAGE + 3, IMAGE + 4];

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
    },
    /// A file without a name.
    Unnamed {
        directory: PathBuf,
        contents: Vec<u8>,
        position: u64,
    },
    /// One end of a pipe, by its number.
    Pipe(u64),
    Listener {
        address: Address,
        options: [bool; 2],
    },
    /// signalfd(2), by its signals.
    Signals(u64),
    /// epoll(7): descriptor, events and data of each entry.
    Poll(Vec<(u64, u32, u64)>),
    /// eventfd(2), by its count.
    Counter(u64),
}

#[derive(Debug, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    V4(SocketAddrV4),
    V6(SocketAddrV6),
}

/// The numbers of the descriptors that a process has open at a point of its list.
#[derive(Debug, Clone)]
pub(super) struct Open(BTreeSet<u64>);

impl Open {
    /// Standard input, output and error.
    pub(super) fn standard() -> Self {
        Self((0..3).collect())
    }

    /// The number of the next descriptor.
    pub(super) fn lowest(&self) -> u64 {
        (0..).find(|number| !self.0.contains(number)).expect("there is no end")
    }

    /// Adds a call that makes a descriptor, and gives that its number.
    fn create(
        &mut self,
        number: u64,
        close_on_exec: u64,
        call: libc::c_long,
        arguments: &[u64],
        list: &mut Calls,
    ) {
        let lowest = self.lowest();
        list.call_for(call, arguments, lowest);
        if lowest != number {
            list.call_for(libc::SYS_dup3, &[lowest, number, close_on_exec], number);
            list.call(libc::SYS_close, &[lowest]);
        }
        self.0.insert(number);
    }
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
            if flags & libc::O_ACCMODE as u64 == libc::O_RDONLY as u64 {
                let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
                if rustix::io::ioctl_fionread(&reader)? != 0 {
                    return Err(restless("there is something in one of its pipes"));
                }
            }
            Kind::Pipe(parse(pipe.trim_end_matches(']'), 10)?)
        } else if text.starts_with("socket:[") {
            self.listener(number, &text)?
        } else if text == "anon_inode:[signalfd]" {
            Kind::Signals(parse(value("sigmask")?, 16)?)
        } else if text == "anon_inode:[eventpoll]" {
            Kind::Poll(self.entries(&info)?)
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
                Kind::File { path: link, position }
            } else if flags & UNNAMED == UNNAMED && metadata.len() <= MOST_UNNAMED {
                let directory = link.parent().unwrap_or(Path::new("/")).to_owned();
                Kind::Unnamed { directory, contents: fs::read(&path)?, position }
            } else {
                return Err(refused(&format!("it has `{text}` open, which has no name")));
            }
        } else if metadata.file_type().is_char_device()
            && DEVICES.contains(&(major(metadata.rdev()), minor(metadata.rdev())))
        {
            Kind::File { path: link, position: 0 }
        } else {
            return Err(refused(&format!("it has `{text}` open, whose kind is not understood")));
        };
        Ok(Descriptor { kind, flags, locks })
    }

    /// Recognises a socket that listens, and has no connection waiting.
    fn listener(&self, number: u64, text: &str) -> io::Result<Kind> {
        let unknown = || refused(&format!("it has `{text}` open, which is no listener that is understood"));
        let pidfd = pidfd_open(self.process.pid(), PidfdFlags::empty())?;
        let socket: OwnedFd = pidfd_getfd(&pidfd, number as i32, PidfdGetfdFlags::empty())?;
        if sockopt::socket_type(&socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(&socket)? {
            return Err(unknown());
        }
        if wait_readable(&[std::os::fd::AsFd::as_fd(&socket)], Instant::now())? {
            return Err(restless("a client connects"));
        }
        if sockopt::socket_keepalive(&socket)? || sockopt::socket_linger(&socket)?.is_some() {
            return Err(unknown());
        }
        let name = getsockname(&socket)?;
        let address = match sockopt::socket_domain(&socket)? {
            AddressFamily::UNIX => {
                let unix = SocketAddrUnix::try_from(name)?;
                let path = unix.path().ok_or_else(unknown)?;
                Address::Unix(PathBuf::from(path.to_string_lossy().into_owned()))
            }
            AddressFamily::INET => Address::V4(SocketAddrV4::try_from(name)?),
            AddressFamily::INET6 => Address::V6(SocketAddrV6::try_from(name)?),
            _ => return Err(unknown()),
        };
        let only = matches!(address, Address::V6(_)) && sockopt::ipv6_v6only(&socket)?;
        Ok(Kind::Listener { address, options: [sockopt::socket_reuseaddr(&socket)?, only] })
    }

    /// The entries of an epoll(7), proc_pid_fdinfo(5).
    fn entries(&self, info: &str) -> io::Result<Vec<(u64, u32, u64)>> {
        let unclear = || refused("its epoll is unclear");
        let lines = info.lines().filter(|line| line.starts_with("tfd:"));
        lines
            .map(|line| {
                let words: Vec<_> = line.split([' ', ':']).filter(|word| !word.is_empty()).collect();
                let after = |name: &str, radix| {
                    let at = words.iter().position(|word| *word == name)?;
                    u64::from_str_radix(words.get(at + 1)?, radix).ok()
                };
                let read =
                    || Some((after("tfd", 10)?, after("events", 16)?, after("data", 16)?, after("ino", 16)?));
                let (descriptor, events, data, inode) = read().ok_or_else(unclear)?;
                // The descriptor may have been closed while another process has it open.
                let file = fs::metadata(self.process.proc.join("fd").join(descriptor.to_string()))?;
                if file.ino() != inode {
                    return Err(unclear());
                }
                Ok((descriptor, events as u32, data))
            })
            .collect()
    }

    /// Refuses sockets in the file system that nobody listens to.
    pub(super) fn check_sockets(&self, sockets: &[(PathBuf, u32)]) -> io::Result<()> {
        let paths = self.all.values().filter_map(|descriptor| match &descriptor.kind {
            Kind::Listener { address: Address::Unix(path), .. } => Some(path),
            _ => None,
        });
        let paths: Vec<_> = paths.collect();
        match sockets.iter().find(|(path, _)| !paths.contains(&path)) {
            None => Ok(()),
            Some((path, _)) => Err(refused(&format!("`{}` is not its own socket", path.display()))),
        }
    }

    /// Adds the calls that make all descriptors of the first process.
    pub(super) fn make(
        &self,
        open: &mut Open,
        sockets: &[(PathBuf, u32)],
        lists: &mut StoredLists,
        list: &mut Calls,
    ) -> io::Result<()> {
        for (&number, descriptor) in &self.all {
            if !open.0.contains(&number) {
                self.create(number, descriptor, open, sockets, lists, list)?;
            }
        }
        self.all.iter().for_each(|(&number, descriptor)| descriptor.fill(number, lists, list));
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
                open.0.remove(&number);
            }
        }
        for (&number, descriptor) in self.all.iter().filter(|(number, _)| !kept.contains(number)) {
            let is_refused = match descriptor.kind {
                // Both ends must be new.
                Kind::Pipe(_) => first.all.values().any(|end| end.kind == descriptor.kind),
                Kind::Listener { .. } | Kind::Standard => true,
                _ => false,
            };
            if is_refused {
                return Err(refused("one of its processes has a separate pipe or socket"));
            }
            if open.0.contains(&number) {
                continue;
            }
            self.create(number, descriptor, &mut open, &[], lists, list)?;
        }
        let made = self.all.iter().filter(|(number, _)| !kept.contains(number));
        made.for_each(|(&number, descriptor)| descriptor.fill(number, lists, list));
        self.lock(lists, list);
        Ok(())
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
                open.0.insert(number);
            }
            Kind::File { path, position } => {
                const ONCE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOCTTY;
                const HERE: u64 = libc::AT_FDCWD as u64;
                let path = lay_path(lists, path);
                let flags = flags & !u64::from(ONCE.unsigned_abs());
                open.create(number, exec, libc::SYS_openat, &[HERE, path, flags, 0], list);
                if *position != 0 {
                    list.call_for(libc::SYS_lseek, &[number, *position, 0], *position);
                }
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
            Kind::Pipe(pipe) => self.make_pipe(*pipe, open, lists, list)?,
            Kind::Listener { address, options } => {
                self.listen(number, (exec, block), address, *options, sockets, open, lists, list)?;
            }
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

    /// Makes both ends of a pipe.
    fn make_pipe(
        &self,
        pipe: u64,
        open: &mut Open,
        lists: &mut StoredLists,
        list: &mut Calls,
    ) -> io::Result<()> {
        let ends: Vec<_> =
            self.all.iter().filter(|(_, descriptor)| descriptor.kind == Kind::Pipe(pipe)).collect();
        let is_reader = |flags: u64| flags & libc::O_ACCMODE as u64 == libc::O_RDONLY as u64;
        let (reader, writer) = match ends[..] {
            [one, other] if is_reader(one.1.flags) && !is_reader(other.1.flags) => (one, other),
            [one, other] if is_reader(other.1.flags) && !is_reader(one.1.flags) => (other, one),
            _ => return Err(refused("it has one end of a pipe")),
        };
        let first = open.lowest();
        open.0.insert(first);
        let second = open.lowest();
        open.0.remove(&first);
        let place = lists.lay(&[0; 8]);
        list.call(libc::SYS_pipe2, &[place, CLOEXEC]);
        for (made, passing) in [first, second].into_iter().zip(PASSING) {
            list.call_for(libc::SYS_dup3, &[made, passing, CLOEXEC], passing);
            list.call(libc::SYS_close, &[made]);
        }
        for (passing, (number, descriptor)) in PASSING.into_iter().zip([reader, writer]) {
            list.call_for(libc::SYS_dup3, &[passing, *number, descriptor.flags & CLOEXEC], *number);
            list.call(libc::SYS_close, &[passing]);
            let flags = descriptor.flags & NONBLOCK;
            list.call(libc::SYS_fcntl, &[*number, libc::F_SETFL as u64, flags]);
            open.0.insert(*number);
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of a socket and of its list")]
    fn listen(
        &self,
        number: u64,
        (exec, block): (u64, u64),
        address: &Address,
        options: [bool; 2],
        sockets: &[(PathBuf, u32)],
        open: &mut Open,
        lists: &mut StoredLists,
        list: &mut Calls,
    ) -> io::Result<()> {
        let (family, bytes) = address.bytes();
        let kind = libc::SOCK_STREAM as u64 | exec | block;
        open.create(number, exec, libc::SYS_socket, &[u64::from(family), kind, 0], list);
        let names = [(libc::SOL_SOCKET, libc::SO_REUSEADDR), (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)];
        let on = lists.lay(&1_i32.to_ne_bytes());
        for ((level, name), _) in names.into_iter().zip(options).filter(|(_, on)| *on) {
            list.call(libc::SYS_setsockopt, &[number, level as u64, name as u64, on, 4]);
        }
        let name = lists.lay(&bytes);
        list.call(libc::SYS_bind, &[number, name, bytes.len() as u64]);
        if let Address::Unix(path) = address {
            let mode = sockets.iter().find(|(socket, _)| socket == path).map(|(_, mode)| *mode);
            let mode = mode.ok_or_else(|| refused("its socket is not in /run or /tmp"))?;
            let path = lay_path(lists, path);
            list.call(libc::SYS_chmod, &[path, mode.into()]);
        }
        // The kernel shortens the queue to its limit, net.core.somaxconn; no call tells how long it
        // was.
        list.call(libc::SYS_listen, &[number, i32::MAX as u64]);
        Ok(())
    }
}

impl Descriptor {
    /// Returns `true` for what a child must make for itself.
    fn is_own(&self) -> bool {
        matches!(self.kind, Kind::Signals(_) | Kind::Poll(_))
    }

    /// Adds the entries of an epoll, whose descriptors exist by now.
    fn fill(&self, number: u64, lists: &mut StoredLists, list: &mut Calls) {
        let Kind::Poll(entries) = &self.kind else { return };
        for (descriptor, events, data) in entries {
            // A packed `epoll_event`, epoll_event(3type).
            let event = [&events.to_ne_bytes()[..], &data.to_ne_bytes()[..]].concat();
            let event = lists.lay(&event);
            let add = libc::EPOLL_CTL_ADD as u64;
            list.call(libc::SYS_epoll_ctl, &[number, add, *descriptor, event]);
        }
    }
}

impl Address {
    /// The family and the bytes of a `sockaddr`.
    fn bytes(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Unix(path) => {
                let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
                let family = libc::AF_UNIX as u16;
                (family, [&family.to_ne_bytes()[..], path, b"\0"].concat())
            }
            Self::V4(address) => {
                let family = libc::AF_INET as u16;
                let port = address.port().to_be_bytes();
                (family, [&family.to_ne_bytes()[..], &port, &address.ip().octets(), &[0; 8]].concat())
            }
            Self::V6(address) => {
                let family = libc::AF_INET6 as u16;
                let port = address.port().to_be_bytes();
                let scope = address.scope_id().to_ne_bytes();
                let parts = [&family.to_ne_bytes()[..], &port, &[0; 4], &address.ip().octets(), &scope];
                (family, parts.concat())
            }
        }
    }
}

/// The device and inode of each file that init has open: the log is among them.
fn logs(init: u32) -> io::Result<Vec<(u64, u64)>> {
    let entries = fs::read_dir(Path::new("/proc").join(init.to_string()).join("fd"))?;
    let files = entries.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
    Ok(files.filter(fs::Metadata::is_file).map(|file| (file.dev(), file.ino())).collect())
}
