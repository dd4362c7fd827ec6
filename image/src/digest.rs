//! Digests: the names of blobs (OCI image specification, descriptor.md, "Digests"), and hashing on the way.
//!
//! Only sha256 is computed: it is what every registry and tool of this field uses.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// A checked sha256 digest, shown as `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 lower-case hex digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            hex.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            hex.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        hex
    }

    /// The first 12 hex digits, for tables.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex().chars().take(12).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(
                ErrorKind::Input,
                format!("`{}` is not a digest: {why}", text.escape_debug()),
            )
            .hint("a digest is `sha256:` and 64 lower-case hex digits")
        };
        let hex = text
            .strip_prefix("sha256:")
            .ok_or_else(|| bad("only sha256 is supported"))?;
        if hex.len() != 64 {
            return Err(bad("it has not 64 hex digits"));
        }
        let mut bytes = [0u8; 32];
        for (slot, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let &[high, low] = pair else { continue };
            let digit = |byte: u8| match byte {
                b'0'..=b'9' => Some(byte - b'0'),
                b'a'..=b'f' => Some(byte - b'a' + 10),
                _ => None,
            };
            match (digit(high), digit(low)) {
                (Some(high), Some(low)) => *slot = high << 4 | low,
                _ => return Err(bad("it has a character that is no lower-case hex digit")),
            }
        }
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// Computes a digest and counts bytes.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256,
    size: u64,
}

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// How many bytes were taken in.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of all bytes taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({} bytes)", self.size)
    }
}

/// Takes in what is written.
impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes what is written through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
        }
    }

    /// The wrapped writer and what was hashed.
    pub fn into_parts(self) -> (W, Hasher) {
        (self.inner, self.hasher)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads a blob and fails, at its end at the latest, when it is not the one that was promised.
///
/// A body that is longer than promised fails as soon as it is; one that ends early fails at its end.
#[derive(Debug)]
pub struct VerifyingReader<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    size: u64,
}

impl<R: Read> VerifyingReader<R> {
    /// Wraps a reader that should yield `size` bytes with digest `expected`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        Self {
            inner,
            hasher: Some(Hasher::new()),
            expected,
            size,
        }
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.hasher.is_none() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        let Some(hasher) = self.hasher.as_mut() else {
            return Ok(0);
        };
        hasher.update(buffer.get(..read).unwrap_or_default());
        if hasher.size() > self.size {
            return Err(Error::new(
                ErrorKind::Integrity,
                format!("blob {} is longer than its {} bytes", self.expected, self.size),
            )
            .into());
        }
        if read == 0 {
            let hasher = self.hasher.take().unwrap_or_default();
            verify(hasher, self.expected, self.size)?;
        }
        Ok(read)
    }
}

/// The cause of a failure: bytes that have another digest than the one that was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongDigest {
    /// What they have.
    pub found: Digest,
}

impl fmt::Display for WrongDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its bytes have the digest {}", self.found)
    }
}

impl std::error::Error for WrongDigest {}

/// Says whether the hashed bytes are the promised blob.
///
/// # Errors
/// [`ErrorKind::Integrity`], naming the blob, when size or digest differ; of the digest, [`WrongDigest`] is the cause.
pub fn verify(hasher: Hasher, expected: Digest, size: u64) -> Result<()> {
    let found_size = hasher.size();
    if found_size != size {
        return Err(Error::new(
            ErrorKind::Integrity,
            format!("blob {expected} has {found_size} bytes where {size} were promised"),
        )
        .hint("the source is truncated or damaged: copy it again from where it came"));
    }
    let found = hasher.finish();
    if found != expected {
        return Err(Error::new(ErrorKind::Integrity, format!("blob {expected} is damaged"))
            .because(WrongDigest { found })
            .hint("the source is damaged: copy it again from where it came"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_what_it_prints_and_nothing_else() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        for bad in [
            "",
            "sha256:",
            "sha512:00",
            &EMPTY[..70],
            &EMPTY.to_uppercase(),
            &format!("{EMPTY}0"),
            "sha256:zzb0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:../../../../../../../../../../../../../../../../../../../../etc",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_verifying_reader_refuses_short_long_and_changed_bytes() {
        let digest = Digest::of(b"hello");
        let read = |bytes: &[u8], size| io::read_to_string(VerifyingReader::new(bytes, digest, size));
        assert_eq!(read(b"hello", 5).unwrap(), "hello");
        assert!(read(b"hell", 5).unwrap_err().to_string().contains("4 bytes"));
        assert!(read(b"hello!", 5).unwrap_err().to_string().contains("longer"));
        assert!(read(b"hellO", 5).unwrap_err().to_string().contains("damaged"));
    }
}
