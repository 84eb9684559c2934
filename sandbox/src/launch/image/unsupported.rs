//! Architectures without support for images.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Pid;

use crate::launch::command::ResolvedCommand;

pub(in crate::launch) fn capture(
    _command: &ResolvedCommand,
    _into: &mut File,
    _prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(in crate::launch) fn restore(
    _image: &File,
    _command: &ResolvedCommand,
    _stdio: [OwnedFd; 3],
) -> io::Result<Pid> {
    Err(io::ErrorKind::Unsupported.into())
}
