//! A server for tests of the TCP forwarder. It listens on 127.0.0.1, and the first byte of each
//! connection selects an answer. `echo_server --version` prints a version, as the programs of
//! servers do.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::exit;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// The port of the server.
const PORT: u16 = 7007;

/// Counts from connections that could not answer any more.
type Notes = (Sender<u64>, Arc<Mutex<Receiver<u64>>>);

#[expect(clippy::print_stdout, reason = "the caller reads it")]
#[expect(clippy::disallowed_methods, reason = "a client commands it")]
fn main() -> io::Result<()> {
    if std::env::args().any(|arg| arg == "--version") {
        println!("echo_server 1.0");
        return Ok(());
    }
    let (sender, receiver) = channel();
    let notes: Notes = (sender, Arc::new(Mutex::new(receiver)));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    loop {
        let (mut stream, _) = listener.accept()?;
        let notes = notes.clone();
        std::thread::spawn(move || {
            let mut order = [0];
            if stream.read_exact(&mut order).is_ok() {
                if order == *b"x" {
                    exit(0);
                }
                serve(order[0], &mut stream, &notes);
            }
        });
    }
}

fn serve(order: u8, stream: &mut TcpStream, (sender, receiver): &Notes) {
    match order {
        // Echo.
        b'e' => drop(io::copy(&mut stream.try_clone().expect("a descriptor is free"), stream)),
        // Count to the end, then answer.
        b'c' => {
            let count = io::copy(stream, &mut io::sink()).unwrap_or(0);
            let _ = write!(stream, "{count}");
        }
        // Write once and shut down; count to the end, and note the count.
        b'h' => {
            let _ = stream.write_all(b"goodbye");
            let _ = stream.shutdown(Shutdown::Write);
            let _ = sender.send(io::copy(stream, &mut io::sink()).unwrap_or(0));
        }
        // Write until the client is gone, and note the count.
        b'f' => {
            let mut written = 0;
            while let Ok(count) = stream.write(&[0; 4096]) {
                written += count as u64;
            }
            let _ = sender.send(written);
        }
        // Never read.
        b's' => {
            let _ = stream.write_all(b"not now");
            std::thread::park();
        }
        // Answer with the next note.
        b'n' => {
            let note = receiver.lock().map(|receiver| receiver.recv());
            let _ = write!(stream, "{}", note.expect("no thread panics").unwrap_or(0));
        }
        other => panic!("unknown order {other}"),
    }
}
