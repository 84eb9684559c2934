//! Files that are read uncompressed; the suffix of a name says how a file is compressed.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::JoinHandle;

use flate2::bufread::MultiGzDecoder;

use crate::zstd::Zstd;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "gz" => Some(Self::Gzip),
            "zst" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The name without the suffix of its compression.
pub(super) fn name_inside(path: &Path) -> &Path {
    let stem = path.file_stem().map(Path::new);
    let inside = if is_compressed(path) { stem } else { path.file_name().map(Path::new) };
    inside.unwrap_or(path)
}

pub(super) fn is_compressed(path: &Path) -> bool {
    Compression::of(path).is_some()
}

/// Opens a file to be read uncompressed.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let file = File::open(path)?;
    Ok(match Compression::of(path) {
        None => Box::new(file),
        Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(BufReader::new(file))),
        Some(Compression::Zstd) => Box::new(Zstd::new(BufReader::new(file))),
    })
}

/// An uncompressed file as the input of a program.
pub(super) struct Feed {
    /// To the program a broken file ends like a whole one, so its outcome decides.
    uncompressing: Option<JoinHandle<io::Result<u64>>>,
}

impl Feed {
    /// Opens a file for a program. A thread uncompresses it, and ends with the file or with its
    /// reader.
    pub(super) fn open(path: &Path) -> io::Result<(Self, OwnedFd)> {
        if !is_compressed(path) {
            return Ok((Self { uncompressing: None }, File::open(path)?.into()));
        }
        let (reader, mut writer) = io::pipe()?;
        let mut contents = open(path)?;
        let thread = std::thread::Builder::new().name("sandboxed-db".to_owned());
        let uncompressing = thread.spawn(move || io::copy(&mut contents, &mut writer))?;
        Ok((Self { uncompressing: Some(uncompressing) }, reader.into()))
    }

    /// Returns an error if the file is broken. The program must have ended; one that ended earlier
    /// reports its error itself.
    pub(super) fn end(self) -> io::Result<()> {
        match self.uncompressing.map(JoinHandle::join) {
            None | Some(Ok(Ok(_))) => Ok(()),
            Some(Ok(Err(error))) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(_)) => Err(io::Error::other("the thread that uncompresses it panicked")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    #[test]
    fn the_suffix_decides_how_a_file_is_read() {
        let root = tempfile::tempdir().unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"select 1;").unwrap();
        let gzip = gzip.finish().unwrap();
        for (name, bytes, inside) in [
            ("a.sql", &b"select 1;"[..], "a.sql"),
            ("b.sql.gz", &gzip, "b.sql"),
            ("c.sql.zst", &zstd(b"select 1;"), "c.sql"),
        ] {
            let path = root.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let mut contents = String::new();
            let (feed, program) = Feed::open(&path).unwrap();
            File::from(program).read_to_string(&mut contents).unwrap();
            feed.end().unwrap();
            assert_eq!((contents.as_str(), name_inside(&path)), ("select 1;", Path::new(inside)));
        }
    }

    #[test]
    fn a_truncated_file_differs_from_a_whole_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("cut.csv.zst");
        let whole = zstd(&b"a row of some table\n".repeat(200_000));
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        let (feed, program) = Feed::open(&path).unwrap();
        let mut contents = Vec::new();
        File::from(program).read_to_end(&mut contents).unwrap();
        assert!(feed.end().is_err());
        // A reader may end before the file does.
        std::fs::write(&path, &whole).unwrap();
        let (feed, program) = Feed::open(&path).unwrap();
        drop(program);
        feed.end().unwrap();
    }
}
