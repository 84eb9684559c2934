//! Sockets that listen.

use std::io;
use std::net::{SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, getsockname};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::open::Open;
use crate::launch::image::checkpoint::frozen::Frozen;
use crate::launch::image::checkpoint::restless;
use crate::launch::image::checkpoint::scratch::lay_path;
use crate::launch::image::refused;
use crate::sys::call_list::{Calls, StoredLists};
use crate::sys::socket::wait_readable;

/// A socket that listens, and has no connection waiting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listener {
    address: Address,
    /// Level and name of each option that is turned on, setsockopt(2).
    options: Vec<(i32, i32)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    V4(SocketAddrV4),
    V6(SocketAddrV6),
}

impl Listener {
    /// Recognises a descriptor of a process, of which /proc says `text`.
    pub(super) fn look(process: &Frozen, number: u64, text: &str) -> io::Result<Self> {
        let unknown = || refused(&format!("it has `{text}` open, which is no listener that is understood"));
        let pidfd = pidfd_open(process.pid(), PidfdFlags::empty())?;
        let socket: OwnedFd = pidfd_getfd(&pidfd, number as i32, PidfdGetfdFlags::empty())?;
        if sockopt::socket_type(&socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(&socket)? {
            return Err(unknown());
        }
        if wait_readable(&[socket.as_fd()], Instant::now())? {
            return Err(restless("a client connects"));
        }
        if sockopt::socket_linger(&socket)?.is_some() {
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
        let is_tcp = !matches!(address, Address::Unix(_));
        let is_v6 = matches!(address, Address::V6(_));
        let options = [
            ((libc::SOL_SOCKET, libc::SO_REUSEADDR), sockopt::socket_reuseaddr(&socket)?),
            ((libc::SOL_SOCKET, libc::SO_KEEPALIVE), sockopt::socket_keepalive(&socket)?),
            ((libc::SOL_SOCKET, libc::SO_BROADCAST), sockopt::socket_broadcast(&socket)?),
            ((libc::IPPROTO_TCP, libc::TCP_NODELAY), is_tcp && sockopt::tcp_nodelay(&socket)?),
            ((libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), is_v6 && sockopt::ipv6_v6only(&socket)?),
        ];
        let options = options.into_iter().filter_map(|(option, is_on)| is_on.then_some(option)).collect();
        Ok(Self { address, options })
    }

    /// Returns the path of a Unix socket.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.address {
            Address::Unix(path) => Some(path),
            Address::V4(_) | Address::V6(_) => None,
        }
    }

    /// Adds the calls that make it. `flags` are those of open(2), `sockets` have the permissions.
    pub(super) fn make(
        &self,
        (number, flags): (u64, u64),
        sockets: &[(PathBuf, u32)],
        open: &mut Open,
        lists: &mut StoredLists,
        list: &mut Calls,
    ) -> io::Result<()> {
        let (family, bytes) = self.address.bytes();
        let exec = flags & super::CLOEXEC;
        let kind = libc::SOCK_STREAM as u64 | exec | flags & super::NONBLOCK;
        open.create(number, exec, libc::SYS_socket, &[u64::from(family), kind, 0], list);
        let on = lists.lay(&1_i32.to_ne_bytes());
        for (level, name) in &self.options {
            list.call(libc::SYS_setsockopt, &[number, *level as u64, *name as u64, on, 4]);
        }
        let name = lists.lay(&bytes);
        list.call(libc::SYS_bind, &[number, name, bytes.len() as u64]);
        if let Some(path) = self.path() {
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

impl Address {
    /// The family and the bytes of a `sockaddr`.
    fn bytes(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Unix(path) => {
                let path = path.as_os_str().as_bytes();
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
