//! The TCP forwarder carries every byte, between clients and a server of these tests.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use sandboxed_db::engine::{
    Command, Endpoint, Installation, Mode, Ready, Server, Signal, Task, TcpAccess, TcpRequest,
};
use sandboxed_db::{Engine, ErrorKind, Result, Sandbox, Snapshot, Tcp};
use sandboxed_db_tests::{DEADLINE, assert_says, continues_alone, wait_until};

use crate::tcp::{forwarder, is_refused, rest, tcp};

/// The port of `tests/echo.rs`.
const ECHO_PORT: u16 = 7007;

#[derive(Debug, Clone)]
pub(crate) struct Echo {
    pub(crate) by_tcp: bool,
}

impl Engine for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn locate(&self) -> Result<Installation> {
        let program = Path::new(env!("CARGO_BIN_EXE_echo_server"));
        Installation::inspect(program.parent().unwrap(), "echo_server", &[])
    }

    fn server(
        &self,
        installation: &Installation,
        _settings: &[(String, String)],
        _mode: Mode,
    ) -> Result<Server> {
        let command = Command::new(installation.program("echo_server"));
        let ready = Ready::Connect(Endpoint::Tcp(ECHO_PORT));
        Ok(Server::new(command, Signal::Terminate, ready).clean_signal(Signal::Terminate))
    }

    fn url(&self, root: &Path) -> Option<String> {
        Some(root.display().to_string())
    }

    fn tcp(&self, request: &TcpRequest<'_>) -> Option<TcpAccess> {
        let TcpRequest { address, password, .. } = request;
        let script = format!("echo {password} > /run/password");
        let access = TcpAccess::new(ECHO_PORT, format!("echo://{password}@{address}"))
            .task(Task::new(Command::new("/bin/sh"), script))
            .env("ECHO_PORT", address.port().to_string());
        self.by_tcp.then_some(access)
    }
}

fn echo() -> (Sandbox<Echo>, Tcp) {
    let db = Snapshot::new(Echo { by_tcp: true }).start().unwrap_or_else(|error| panic!("{error:?}"));
    let tcp = tcp(&db);
    (db, tcp)
}

fn order(tcp: &Tcp, order: u8) -> TcpStream {
    let mut stream = TcpStream::connect(tcp.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&[order]).unwrap();
    stream
}

/// Bytes without a repeated sequence.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn an_engine_of_ones_own_can_be_reached() {
    let (db, tcp) = echo();
    assert_eq!(tcp.url(), format!("echo://{}@{}", tcp.password(), tcp.address()));
    assert!(tcp.env().contains(&("ECHO_PORT".to_owned(), tcp.port().to_string())));
    let script = std::fs::read_to_string(format!("/proc/{}/root/run/password", db.pid())).unwrap();
    assert_eq!(script.trim(), tcp.password());
    let mut stream = order(&tcp, b'e');
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    drop(db);
    assert_eq!(rest(&mut stream), b"");
    is_refused(tcp.port());
}

#[test]
fn an_engine_without_tcp_is_reported() {
    let db = Snapshot::new(Echo { by_tcp: false }).start().unwrap();
    let error = db.tcp().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let parts = ["could not reach `echo` by TCP", "its engine does not say how", "`Engine::tcp`"];
    assert_says(&format!("{error:?}"), &parts);
}

#[test]
fn a_client_that_has_said_all_gets_its_answer() {
    let (_db, tcp) = echo();
    for length in [0, 1, 5 << 20] {
        let mut stream = order(&tcp, b'c');
        stream.write_all(&bytes(length)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut stream), length.to_string().as_bytes());
    }
}

#[test]
fn a_server_that_has_sent_all_can_still_receive() {
    let (_db, tcp) = echo();
    let mut stream = order(&tcp, b'h');
    assert_eq!(rest(&mut stream), b"goodbye");
    stream.write_all(&bytes(3 << 20)).unwrap();
    drop(stream);
    assert_eq!(rest(&mut order(&tcp, b'n')), (3 << 20).to_string().as_bytes());
}

#[test]
fn what_is_sent_in_both_directions_at_once_arrives() {
    const CLIENTS: usize = 8;
    let (_db, tcp) = echo();
    let sent = bytes(4 << 20);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let mut stream = order(&tcp, b'e');
            let (sent, mut writer) = (&sent, stream.try_clone().unwrap());
            scope.spawn(move || {
                writer.write_all(sent).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || assert!(rest(&mut stream) == *sent, "what came back differs"));
        }
    });
}

#[test]
fn a_server_that_does_not_read_holds_its_client_up() {
    let (_db, tcp) = echo();
    let mut stream = order(&tcp, b's');
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    stream.set_nonblocking(true).unwrap();
    // The kernel's buffers on the way and the forwarder's own hold some megabytes.
    let mut written = 0;
    wait_until(DEADLINE, "nothing more is taken", || {
        let before = written;
        while written < 256 << 20
            && let Ok(count) = stream.write(&[0; 64 << 10])
        {
            written += count;
        }
        written == before
    });
    assert!(written < 64 << 20, "{written} bytes are kept somewhere");
    // The others do not suffer from it.
    let mut other = order(&tcp, b'c');
    other.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut other), b"0");
}

#[test]
fn a_client_that_vanishes_is_noticed() {
    let (db, tcp) = echo();
    let mut stream = order(&tcp, b'f');
    stream.read_exact(&mut [0; 1 << 20]).unwrap();
    // With unread data this is a reset.
    drop(stream);
    let written = String::from_utf8(rest(&mut order(&tcp, b'n'))).unwrap();
    assert!(written.parse::<u64>().unwrap() >= 1 << 20, "{written}");
    let sockets = || {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", forwarder(&db))).unwrap().flatten();
        let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    };
    // Those that listen, and the one that is ready for the next connection.
    wait_until(DEADLINE, "nothing of the connections is kept", || sockets() <= 3);
}

#[test]
fn a_server_that_ends_ends_its_connections() {
    let (_db, tcp) = echo();
    let mut idle = order(&tcp, b'e');
    idle.write_all(b"x").unwrap();
    idle.read_exact(&mut [0]).unwrap();
    assert_eq!(rest(&mut order(&tcp, b'x')), b"");
    assert_eq!(rest(&mut idle), b"");
    assert_eq!(rest(&mut TcpStream::connect(tcp.address()).unwrap()), b"");
}

#[test]
fn five_hundred_connections_are_carried_at_once() {
    if !continues_alone(five_hundred_connections_are_carried_at_once, |_| ()) {
        return;
    }
    let (_db, tcp) = echo();
    let mut streams: Vec<_> = (0..500).map(|_| TcpStream::connect(tcp.address()).unwrap()).collect();
    for (stream, number) in streams.iter_mut().zip(0_u32..) {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&[b"e", &number.to_be_bytes()[..]].concat()).unwrap();
    }
    for (stream, number) in streams.iter_mut().zip(0_u32..) {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(u32::from_be_bytes(answer), number);
    }
}

#[test]
fn without_descriptors_connections_wait_for_their_turn() {
    const CLIENTS: usize = 30;
    let (db, tcp) = echo();
    // For the first the forwarder makes itself ready.
    drop(order(&tcp, b'e'));
    let pid = Pid::from_raw(forwarder(&db).cast_signed());
    let few = Rlimit { current: Some(30), maximum: Some(30) };
    prlimit(pid, Resource::Nofile, few).unwrap();
    let mut streams: Vec<_> = (0..CLIENTS).map(|_| order(&tcp, b'c')).collect();
    for stream in &streams {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    assert!(streams.iter_mut().all(|stream| rest(stream) == b"0"));

    // The same with connections that stay: those that do not fit are served once others go.
    let mut streams: Vec<_> = (0..CLIENTS).map(|_| order(&tcp, b'e')).collect();
    for mut stream in streams.drain(..) {
        stream.write_all(b"?").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
}
