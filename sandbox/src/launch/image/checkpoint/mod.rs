//! Checkpoints: the image of a ready server at rest, of all its processes.
//!
//! A process of the launcher, outside of the container, stops the server's processes for ever,
//! looks at everything that the kernel knows of them, and writes the calls that make them anew.
//! State that it does not know refuses the server: each file of this folder has a closed list.

mod descriptors;
mod frame;
mod frozen;
mod locks;
mod memory;
mod random;
mod rest;
mod runs;
mod scratch;
mod segments;
mod start;
mod status;
mod thread;
mod threads;
mod tree;

use std::fs::File;
use std::io;

/// Writes the checkpoint of the server that is the only child of a container's init. The server
/// has ended when the calling process has.
///
/// # Errors
/// The reason why the server has no checkpoint.
pub(in crate::launch) fn take(init: u32, into: &File) -> io::Result<()> {
    let server = rest::wait(init)?;
    let tree = tree::Tree::stop(init, server)?;
    tree.write(into)
}

/// The refusal of a server that is not at rest, but may be so later.
fn restless(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, why.into())
}
