//! SHA-256, by which images name their contents.

use std::fmt;
#[cfg(feature = "registries")]
use std::io::Write;
use std::io::{self, Read};
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A digest in the form `sha256:<64 hexadecimal digits>`, the only one that registries use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sha256([u8; 32]);

impl Sha256 {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(bytes);
        Self::finish(context)
    }

    fn finish(context: Context) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Self(digest)
    }

    /// Returns the digits alone, as in the names of files.
    pub(crate) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is no digest of the form `sha256:<64 hexadecimal digits>`");
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != 64 || !hex.bytes().all(is_digit) {
            return Err(wrong());
        }
        let mut digest = [0; 32];
        for (index, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(digest))
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A reader that hashes what passes through it.
pub(crate) struct Hashed<R> {
    reader: R,
    context: Context,
    pub(super) bytes: u64,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, context: Context::new(&SHA256), bytes: 0 }
    }

    /// Reads the rest, and returns the digest of all.
    pub(crate) fn finish(mut self) -> io::Result<Sha256> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Sha256::finish(self.context))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.context.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// A writer that hashes what passes through it.
#[cfg(feature = "registries")]
pub(crate) struct HashedWriter<W> {
    writer: W,
    context: Context,
    bytes: u64,
}

#[cfg(feature = "registries")]
impl<W: Write> HashedWriter<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self { writer, context: Context::new(&SHA256), bytes: 0 }
    }

    /// Returns the writer, with the digest and the number of all bytes.
    pub(crate) fn finish(self) -> (W, Sha256, u64) {
        (self.writer, Sha256::finish(self.context), self.bytes)
    }
}

#[cfg(feature = "registries")]
impl<W: Write> Write for HashedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_digest_is_written_as_it_is_read() {
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Sha256::of(b"abc").to_string(), text);
        assert_eq!(text.parse(), Ok(Sha256::of(b"abc")));
        let mut hashed = Hashed::new(&b"abc"[..]);
        hashed.read_exact(&mut [0]).unwrap();
        assert_eq!(hashed.finish().unwrap(), Sha256::of(b"abc"));
        for other in [&text[7..], &text[..70], &text.to_uppercase(), "sha512:00", "sha256:../../x", ""] {
            assert!(other.parse::<Sha256>().is_err(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(sha256:)?\\PC{0,70}") {
            let parsed = text.parse::<Sha256>();
            prop_assert!(parsed.is_err() || parsed.unwrap().to_string() == text);
        }
    }
}
