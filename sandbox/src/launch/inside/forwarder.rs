//! The process that forwards TCP connections from the host to the server on the container's
//! loopback.
//!
//! The listening sockets were made in the host's network namespace and stay in it; sockets made
//! here are in the container's. The process is a fork of init with the server's rights, and dies
//! with init.
//!
//! One thread serves all connections by epoll (edge-triggered, epoll(7)). It forwards each
//! direction until the source has nothing to read or the target no room to write. Data without room
//! is held, and nothing more is read until it is written, so a connection holds at most two
//! buffers.

use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, connect,
    getpeername, recv, send, shutdown, socket_with, sockopt,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

use crate::launch::plan::FORWARDED_FROM;
use crate::sys::process::{FreshProcess, reset_signals};
use crate::sys::socket::bind_address;

const BUFFER: usize = 64 << 10;
/// The buffers that a direction forwards, and the connections accepted, before others have a turn.
const TURN: usize = 16;
/// The pause of accepting when no descriptors are left.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

const NEW: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
/// The event data of listening sockets; those of connections are indexes.
const LISTENER: u64 = u64::MAX;

/// The life of a forwarder to the server at this address. Runs in the child just forked from init.
pub(super) fn main(fresh: FreshProcess, listeners: Vec<OwnedFd>, server: SocketAddr) {
    // Its end closes the port, which is the only way to report a failure from here.
    let _ = keep_only(fresh, &listeners).and_then(|()| {
        // A supervisor is no PID 1, whose end would kill this process.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        raise_limit();
        Forwarder::new(listeners, server)?.run()
    });
}

/// Closes all descriptors of init, above all its control socket. Standard input, output and error
/// are /dev/null.
fn keep_only(fresh: FreshProcess, listeners: &[OwnedFd]) -> Result<(), Errno> {
    for listener in listeners {
        ioctl_fionbio(listener, true)?;
    }
    fresh.keep_only(&listeners.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
    reset_signals();
    // Distinguishes it from init in lists of processes.
    let _ = rustix::thread::set_name(c"tcp forwarder");
    Ok(())
}

/// Raises the limit of descriptors as far as possible: a connection takes two.
fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

struct Forwarder {
    epoll: OwnedFd,
    listeners: Vec<OwnedFd>,
    server: SocketAddr,
    /// A socket for the next connection, made before accepting, so that an accepted connection can
    /// be served.
    spare: Option<OwnedFd>,
    /// `true` if accepting waits for descriptors.
    paused: bool,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Connections whose turn ended before their work.
    unfinished: Vec<usize>,
    buffer: Vec<u8>,
}

impl Forwarder {
    fn new(listeners: Vec<OwnedFd>, server: SocketAddr) -> Result<Self, Errno> {
        let forwarder = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            listeners,
            server,
            spare: None,
            paused: true,
            connections: Vec::new(),
            free: Vec::new(),
            unfinished: Vec::new(),
            buffer: vec![0; BUFFER],
        };
        Ok(forwarder)
    }

    /// Returns only when epoll fails.
    fn run(&mut self) -> Result<(), Errno> {
        self.resume()?;
        let mut events = Vec::with_capacity(256);
        loop {
            let timeout = match (self.unfinished.is_empty(), self.paused) {
                (false, _) => Some(&AT_ONCE),
                (true, true) => Some(&PAUSE),
                (true, false) => None,
            };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            let mut ready = mem::take(&mut self.unfinished);
            let mut knocked = self.paused;
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => knocked = true,
                    place => ready.extend(usize::try_from(place)),
                }
            }
            ready.sort_unstable();
            ready.dedup();
            for place in ready {
                self.serve(place);
            }
            if knocked {
                self.accept()?;
            }
        }
    }

    fn serve(&mut self, place: usize) {
        // Events of a closed connection may arrive late.
        let Some(Some(connection)) = self.connections.get_mut(place) else { return };
        match connection.carry(&mut self.buffer) {
            Turn::Waits => {}
            Turn::Unfinished => self.unfinished.push(place),
            Turn::Ended => {
                self.connections[place] = None;
                self.free.push(place);
            }
        }
    }

    fn accept(&mut self) -> Result<(), Errno> {
        for listener in 0..self.listeners.len() {
            for _ in 0..TURN {
                match self.accept_one(listener) {
                    Ok(()) => {}
                    Err(Errno::AGAIN) => break,
                    Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return self.pause(),
                    // The client or the server has gone; both sockets are closed.
                    Err(_) => {}
                }
            }
        }
        if self.paused { self.resume() } else { Ok(()) }
    }

    fn accept_one(&mut self, listener: usize) -> Result<(), Errno> {
        let spare = match self.spare.take() {
            Some(spare) => spare,
            None => {
                let socket = socket_with(AddressFamily::INET, SocketType::STREAM, NEW, None)?;
                bind_address(&socket, FORWARDED_FROM)?;
                socket
            }
        };
        let client = match accept_with(&self.listeners[listener], NEW) {
            Ok(client) => client,
            Err(errno) => {
                self.spare = Some(spare);
                return Err(errno);
            }
        };
        let server = spare;
        for socket in [&client, &server] {
            // The sender has chosen the size of its pieces.
            sockopt::set_tcp_nodelay(socket, true)?;
        }
        match connect(&server, &self.server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        let place = self.free.pop().unwrap_or(self.connections.len());
        if place == self.connections.len() {
            self.connections.push(None);
        }
        let changes =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let watched = [&client, &server].into_iter().try_for_each(|socket| {
            epoll::add(&self.epoll, socket, epoll::EventData::new_u64(place as u64), changes)
        });
        if watched.is_err() {
            self.free.push(place);
            return watched;
        }
        self.connections[place] = Some(Connection::new(client, server));
        Ok(())
    }

    fn pause(&mut self) -> Result<(), Errno> {
        if !mem::replace(&mut self.paused, true) {
            for listener in &self.listeners {
                epoll::delete(&self.epoll, listener)?;
            }
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Errno> {
        for listener in &self.listeners {
            epoll::add(&self.epoll, listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        }
        self.paused = false;
        Ok(())
    }
}

/// A client's connection and the one to the server.
struct Connection {
    client: OwnedFd,
    server: OwnedFd,
    connected: bool,
    upwards: Flow,
    downwards: Flow,
}

/// The outcome of a connection's turn.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Waits,
    Unfinished,
    Ended,
}

impl Connection {
    fn new(client: OwnedFd, server: OwnedFd) -> Self {
        Self { client, server, connected: false, upwards: Flow::default(), downwards: Flow::default() }
    }

    fn carry(&mut self, buffer: &mut [u8]) -> Turn {
        if !self.connected {
            match self.is_connected() {
                Ok(true) => self.connected = true,
                Ok(false) => return Turn::Waits,
                Err(_) => return Turn::Ended,
            }
        }
        let (client, server) = (self.client.as_fd(), self.server.as_fd());
        let up = self.upwards.carry(client, server, buffer);
        let down = self.downwards.carry(server, client, buffer);
        // After a reset in one direction nothing can be sent in the other.
        if self.upwards.was_reset {
            self.downwards.end();
        }
        if self.downwards.was_reset {
            self.upwards.end();
        }
        match (self.upwards.has_ended() && self.downwards.has_ended(), up && down) {
            (true, _) => Turn::Ended,
            (false, true) => Turn::Waits,
            (false, false) => Turn::Unfinished,
        }
    }

    /// Returns `true` if the server's socket is connected: shutdown(2) before that would cancel it.
    fn is_connected(&self) -> Result<bool, Errno> {
        sockopt::socket_error(&self.server)??;
        match getpeername(&self.server) {
            Ok(_) => Ok(true),
            Err(Errno::NOTCONN) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Flow {
    /// Data that was read and could not be written yet, from `written` on.
    held: Vec<u8>,
    written: usize,
    stage: Stage,
    /// `true` if the source ended by a reset.
    was_reset: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The source has ended, and held data is still to be written.
    Ending,
    Ended,
}

impl Flow {
    fn end(&mut self) {
        (self.held, self.written) = (Vec::new(), 0);
        self.stage = Stage::Ended;
    }

    fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Forwards for one turn. Returns `false` if the turn ended before the work, `true` to wait for
    /// a change of either socket.
    fn carry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
        for _ in 0..TURN {
            let held = &self.held[self.written..];
            if !held.is_empty() {
                match send(to, held, SendFlags::NOSIGNAL) {
                    Ok(count) => self.written += count,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return true,
                    // The target is closed. The other direction is forwarded to its end.
                    Err(_) => self.end(),
                }
                continue;
            }
            // Frees the memory: most connections are idle most of the time.
            (self.held, self.written) = (Vec::new(), 0);
            match self.stage {
                Stage::Ended => return true,
                Stage::Ending => {
                    // The other direction stays open: a client may end its requests before it has
                    // all responses.
                    let _ = shutdown(to, Shutdown::Write);
                    self.end();
                    continue;
                }
                Stage::Open => {}
            }
            match recv(from, &mut *buffer, RecvFlags::empty()) {
                Ok((_, 0)) => self.stage = Stage::Ending,
                Ok((_, count)) => match send(to, &buffer[..count], SendFlags::NOSIGNAL) {
                    Ok(written) => self.held.extend_from_slice(&buffer[written..count]),
                    Err(Errno::AGAIN | Errno::INTR) => self.held.extend_from_slice(&buffer[..count]),
                    Err(_) => self.end(),
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => (self.stage, self.was_reset) = (Stage::Ending, true),
            }
        }
        self.has_ended()
    }
}
