//! The end of a program's output, read while the program runs: any output takes little memory and
//! no disk.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::ioctl_fionbio;

/// The bytes that are kept. Programs report an error last.
const LONGEST: usize = 1 << 20;

/// The reading end of a pipe, and the end of the output read from it.
#[derive(Debug)]
pub(super) struct Tail {
    /// `None` at the end of the output.
    pipe: Option<PipeReader>,
    kept: Vec<u8>,
    cut: bool,
}

impl Tail {
    /// Returns the tail, and the pipe's end for the program.
    pub(super) fn new() -> io::Result<(Self, PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        ioctl_fionbio(&reader, true)?;
        Ok((Self { pipe: Some(reader), kept: Vec::new(), cut: false }, writer))
    }

    /// Returns the pipe, to wait for; `None` at the end of the output.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads all available output.
    pub(super) fn take(&mut self) {
        let mut buffer = [0; 16 << 10];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(length @ 1..) => self.keep(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => self.pipe = None,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        // Rarely, since the rest has to be moved.
        if self.kept.len() > 2 * LONGEST {
            self.kept.drain(..self.kept.len() - LONGEST);
            self.cut = true;
        }
    }

    /// Returns the kept output, from the beginning of a line on.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        match text.split_once('\n') {
            Some((_, lines)) if self.cut => lines.to_owned(),
            _ => text.into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn short_output_and_the_end_of_long_output_are_kept() {
        let (mut tail, mut writer) = Tail::new().unwrap();
        tail.take();
        assert_eq!(tail.text(), "");
        writer.write_all("one\ntwö".as_bytes()).unwrap();
        tail.take();
        assert_eq!(tail.text(), "one\ntwö");
        let line = "x".repeat(9_999) + "\n";
        for _ in 0..1_000 {
            writer.write_all(line.as_bytes()).unwrap();
            tail.take();
        }
        writer.write_all(b"the last").unwrap();
        drop(writer);
        tail.take();
        let text = tail.text();
        assert!(text.ends_with("x\nthe last") && (LONGEST - 20_000..3 * LONGEST).contains(&text.len()));
        assert!(text.lines().all(|line| line.len() == 9_999 || line == "the last"));
        assert!(tail.pipe.is_none());
    }
}
