//! The server's log: an unnamed file on the container's tmpfs. Held open here, it outlives the
//! container.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The server's standard output and error.
#[derive(Debug)]
pub(crate) struct Log(File);

impl Log {
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }

    /// Returns the whole log. Bytes that are not UTF-8 are replaced.
    pub(crate) fn read(&self) -> io::Result<String> {
        self.read_from(0)
    }

    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// Returns the last `lines` lines.
    pub(crate) fn tail(&self, lines: usize) -> io::Result<String> {
        self.tail_after(0, lines)
    }

    /// Returns the last `lines` lines of what follows the first `begin` bytes.
    pub(crate) fn tail_after(&self, begin: u64, lines: usize) -> io::Result<String> {
        // A guess at the longest line: a flooded log is not read whole.
        const LINE: u64 = 1 << 10;
        let text = self.read_from(begin.max(self.len()?.saturating_sub(lines as u64 * LINE)))?;
        let skipped = text.lines().count().saturating_sub(lines);
        Ok(text.lines().skip(skipped).flat_map(|line| [line, "\n"]).collect())
    }

    fn read_from(&self, start: u64) -> io::Result<String> {
        let length = self.0.metadata()?.len().saturating_sub(start);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.0.read_at(&mut bytes[filled..], start + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_tail_is_the_last_lines() {
        let mut file = tempfile::tempfile().unwrap();
        for number in 0..1000 {
            writeln!(file, "line {number}").unwrap();
        }
        let log = Log::new(file);
        assert_eq!(log.tail(2).unwrap(), "line 998\nline 999\n");
        assert_eq!(log.tail_after(log.len().unwrap() - 9, 2).unwrap(), "line 999\n");
        assert_eq!(log.read().unwrap().lines().count(), 1000);
    }
}
