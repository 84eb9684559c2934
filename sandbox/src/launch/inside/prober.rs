//! The process that looks for the sign of a ready server: a fork of init, which ends with success
//! once it has seen the sign.
//!
//! A separate process, so that no server that accepts and stays silent can keep init from its
//! control socket.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::launch::command::ResolvedCommand;
use crate::sys::process::{FreshProcess, reset_signals};
use crate::sys::socket::connect_now;

/// The pause between two looks at the server: at least, and at most.
const SHORTEST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a program may take.
const PROGRAM: Duration = Duration::from_secs(10);
/// An answer without the expected bytes within these is another one.
const LONGEST_ANSWER: usize = 64 << 10;

/// A sign to look for, with the paths of the process that looks.
pub(super) enum Probe {
    Connect(ProbeAddress),
    Answer { at: ProbeAddress, send: Vec<u8>, expect: Vec<u8>, end: Vec<u8> },
    Http { at: ProbeAddress, path: String, status: u16 },
    Command(ResolvedCommand),
}

/// The address of a server.
pub(super) enum ProbeAddress {
    Unix(PathBuf),
    Tcp(Ipv4Addr, u16),
}

/// The life of a prober. Runs in the child just forked from init, and returns once the sign is
/// seen; init, or the kernel with it, ends the process otherwise.
pub(super) fn main(fresh: FreshProcess, probe: &Probe) {
    // Init counts only an exit with success.
    if fresh.keep_only(&[]).is_err() {
        std::process::abort();
    }
    reset_signals();
    // A supervisor is no PID 1, whose end would kill this process.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::thread::set_name(c"prober");
    let begin = Instant::now();
    while !probe.is_seen().unwrap_or(false) {
        sleep((begin.elapsed() / 16).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }
}

impl Probe {
    fn is_seen(&self) -> io::Result<bool> {
        match self {
            Self::Connect(at) => at.connect().map(|_| true),
            Self::Answer { at, send, expect, end } => {
                let mut stream = at.connect()?;
                stream.write_all(send)?;
                let answers = |read: &[u8]| expect.is_empty() || memchr::memmem::find(read, expect).is_some();
                let is_seen = answers(&read_until(&mut stream, answers)?);
                // The server may have closed the connection after its answer.
                let _ = stream.write_all(end);
                Ok(is_seen)
            }
            Self::Http { at, path, status } => {
                let mut stream = at.connect()?;
                let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes())?;
                let read = read_until(&mut stream, |read| read.len() >= 12)?;
                let is_http = read.starts_with(b"HTTP/1.");
                Ok(is_http && read.get(9..12) == Some(status.to_string().as_bytes()))
            }
            Self::Command(command) => run(command),
        }
    }
}

/// Reads until there is enough, or the end of the answer.
fn read_until(stream: &mut dyn Stream, is_enough: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + ANSWER;
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    while !is_enough(&read) && read.len() < LONGEST_ANSWER && Instant::now() < deadline {
        match stream.read(&mut buffer)? {
            0 => break,
            length => read.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(read)
}

/// Runs a program, and returns whether it succeeded in time.
fn run(command: &ResolvedCommand) -> io::Result<bool> {
    let mut child = command.process([Stdio::null(), Stdio::null(), Stdio::null()]).spawn()?;
    let deadline = Instant::now() + PROGRAM;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            child.kill()?;
            return child.wait().map(|_| false);
        }
        sleep(SHORTEST_PAUSE);
    }
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

impl ProbeAddress {
    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(path) => {
                let stream = connect_now(path)?;
                stream.set_read_timeout(Some(ANSWER))?;
                stream.set_write_timeout(Some(ANSWER))?;
                Ok(Box::new(stream))
            }
            Self::Tcp(address, port) => {
                let stream = TcpStream::connect_timeout(&(*address, *port).into(), ANSWER)?;
                stream.set_read_timeout(Some(ANSWER))?;
                stream.set_write_timeout(Some(ANSWER))?;
                Ok(Box::new(stream))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Serves one connection: what it reads must be `request`, and `answer` is sent.
    fn server(request: &'static [u8], answer: &'static [u8]) -> ProbeAddress {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = vec![0; request.len()];
            stream.read_exact(&mut read).unwrap();
            assert_eq!(read, request);
            for part in answer.chunks(3) {
                stream.write_all(part).unwrap();
                stream.flush().unwrap();
            }
        });
        ProbeAddress::Tcp(Ipv4Addr::LOCALHOST, port)
    }

    #[test]
    fn an_answer_has_the_expected_bytes_anywhere() {
        let asked = |answer| {
            let at = server(b"PING\r\n", answer);
            let (send, expect) = (b"PING\r\n".to_vec(), b"PONG".to_vec());
            Probe::Answer { at, send, expect, end: Vec::new() }.is_seen().unwrap()
        };
        assert!(asked(b"hello +PONG\r\n"));
        assert!(!asked(b"-LOADING\r\n"));
    }

    #[test]
    fn http_is_judged_by_its_status() {
        let asked = |answer| {
            let request = b"GET /ok HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let (at, path) = (server(request, answer), "/ok".to_owned());
            Probe::Http { at, path, status: 200 }.is_seen().unwrap()
        };
        assert!(asked(b"HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!asked(b"HTTP/1.1 503 Loading\r\n\r\n"));
        assert!(!asked(b"200 200 200 200 OK\r\n\r\n"));
    }
}
