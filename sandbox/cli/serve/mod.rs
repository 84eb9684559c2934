//! `sandboxed-db serve`: servers for the tests of another language, by lines of JSON.
//!
//! The chapter `serve` of the guide describes the requests.

mod connection;
mod end;
mod hint;
mod problem;
mod request;

use std::error::Error;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clap::Args;
use rustix::fs::Mode;

use self::connection::Connection;
use self::end::End;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// The program still ends when standard input ends.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl ServeArguments {
    /// Serves until the standard input or the parent ends.
    pub(super) fn perform(self) -> Result<ExitCode, Box<dyn Error>> {
        let end = Arc::new(End::default());
        match self.socket {
            None => {
                end::watch(&end).map_err(cannot_watch)?;
                let connection = Connection::new(io::stdout());
                end.add(&connection);
                connection.serve(&mut io::stdin().lock());
            }
            Some(path) => {
                let listener = listen(&path).map_err(|error| {
                    Failure::new(format!("listen on `{}`", path.display())).because(error).hint(
                        "name a path in an existing directory, of at most 107 bytes, at which no server listens",
                    )
                })?;
                end.remove_at_end(path);
                end::watch(&end).map_err(cannot_watch)?;
                accept(listener, &end).map_err(cannot_watch)?;
                let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            }
        }
        end.now()
    }
}

fn cannot_watch(error: io::Error) -> Failure {
    Failure::new("start a thread").because(error)
}

/// Listens on a socket of mode 0600, in place of one that a killed server left.
fn listen(path: &Path) -> io::Result<UnixListener> {
    // No other thread makes files yet.
    let before = rustix::process::umask(Mode::from(0o177));
    let listener = UnixListener::bind(path).or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse if is_left_over(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        _ => Err(error),
    });
    rustix::process::umask(before);
    listener
}

fn is_left_over(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Serves each connection in a thread.
fn accept(listener: UnixListener, end: &Arc<End>) -> io::Result<()> {
    let end = end.clone();
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let Ok(output) = stream.try_clone() else { continue };
            let connection = Connection::new(output);
            end.add(&connection);
            let serve = move || {
                connection.serve(&mut io::BufReader::new(stream));
                connection.close();
            };
            // A client without an answer finds its connection closed.
            let _ = thread::Builder::new().name("sandboxed-db".to_owned()).spawn(serve);
        }
    };
    thread::Builder::new().name("sandboxed-db".to_owned()).spawn(accept).map(drop)
}
