//! Unix sockets that keep message boundaries and carry descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with, socketpair,
};

use super::last_errno;

/// The most descriptors one message carries.
const MOST_FDS: usize = 8;

/// Returns a connected pair of `SOCK_SEQPACKET` sockets, close-on-exec.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one message with descriptors.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return result.map(drop),
        }
    }
}

/// Receives one message, of at most `buffer`'s length, with its descriptors. `None` at end of file.
///
/// A longer message is `EMSGSIZE`: a part of one is never returned.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<Received>, Errno> {
    receive_or(socket, buffer, |_| ())
}

/// A message's length, and the descriptors that came with it.
pub(crate) type Received = (usize, Vec<OwnedFd>);

/// Receives one message. `complain` is called if it cannot be received whole, before its
/// descriptors are closed, whose other ends the sender may watch.
pub(crate) fn receive_or(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    complain: impl FnOnce(Errno),
) -> Result<Option<Received>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let failure = if received.flags.contains(rustix::net::ReturnFlags::TRUNC) {
        Some(Errno::MSGSIZE)
    } else if received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        // The process has no room for the descriptors that came: some were lost.
        Some(Errno::MFILE)
    } else {
        None
    };
    if let Some(errno) = failure {
        complain(errno);
        return Err(errno);
    }
    Ok((received.bytes > 0).then_some((received.bytes, fds)))
}

/// Connects to a stream socket without waiting: it fails if the server does not accept.
pub(crate) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Sets a TCP socket's source address, and leaves its port to connect(2), which can reuse one that
/// bind(2) cannot.
///
/// # References
/// ip(7), `IP_BIND_ADDRESS_NO_PORT`
pub(crate) fn bind_address(socket: &OwnedFd, address: Ipv4Addr) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open while it is borrowed; the kernel reads `optlen` bytes at
    // `optval`, which are those of `on`, and keeps no pointer.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if done != 0 {
        return Err(last_errno());
    }
    rustix::net::bind(socket, &SocketAddrV4::new(address, 0))
}

/// Waits until one of `fds` is readable or at its end. `false` when `deadline` comes first.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], deadline: Instant) -> Result<bool, Errno> {
    let mut fds: Vec<_> = fds.iter().map(|&fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut fds, Some(&timespec(left))) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
