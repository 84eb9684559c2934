//! Reads zstd(1)'s files by a decoder that needs no C compiler.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// All frames of a file in sequence, as zstd(1) reads them.
pub(crate) struct Zstd<R> {
    reader: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    pub(crate) fn new(reader: R) -> Self {
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
}
