//! Files that are read uncompressed; the suffix of a name says how a file is compressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::JoinHandle;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

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

/// All frames of a file in sequence, as zstd(1) reads them.
struct Zstd<R> {
    reader: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(reader: R) -> Self {
        Self { reader, decoder: FrameDecoder::new(), in_frame: false }
    }

    fn read_frame(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { reader, decoder, .. } = self;
        while decoder.can_collect() < buffer.len() && !decoder.is_finished() {
            let wanted = buffer.len() - decoder.can_collect();
            decoder.decode_blocks(&mut *reader, BlockDecodingStrategy::UptoBytes(wanted)).map_err(broken)?;
        }
        let read = decoder.read(buffer)?;
        let checksum = decoder.get_checksum_from_data().filter(|_| read == 0 && !buffer.is_empty());
        match checksum {
            Some(checksum) if decoder.get_calculated_checksum() != Some(checksum) => {
                Err(broken("its checksum is wrong"))
            }
            _ => Ok(read),
        }
    }

    /// Goes to the next frame, past skippable ones. Returns `false` at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.reader.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.reader) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut self.reader.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.in_frame {
                let read = self.read_frame(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
            }
            self.in_frame = self.next_frame()?;
            if !self.in_frame {
                return Ok(0);
            }
        }
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
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

    fn unzstd(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        Zstd::new(bytes).read_to_end(&mut contents).map(|_| contents)
    }

    #[test]
    fn every_frame_is_read() {
        let long = b"create table a ();\n".repeat(40_000);
        let skipped = [&0x184D_2A50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"xyz"].concat();
        let file = [zstd(&long), skipped, zstd(b""), zstd(b"end")].concat();
        assert!(unzstd(&file).unwrap() == [&long[..], b"end"].concat());
        assert_eq!(unzstd(b"").unwrap(), b"");
    }

    #[test]
    fn truncated_data_and_other_data_are_errors() {
        let file = zstd(&b"some text ".repeat(1000));
        for end in 1..file.len() {
            assert!(unzstd(&file[..end]).is_err(), "cut at {end} of {}", file.len());
        }
        assert!(unzstd(b"select 1;").is_err());
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
