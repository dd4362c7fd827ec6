//! The digests that a registry keeps content under: sha256 as everybody uses it, and sha512, which clients may ask for.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sealrs_image::digest::{Digest, Hasher};
use sealrs_image::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512};

/// A checked digest, shown as `ALGORITHM:HEX`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum BlobDigest {
    /// `sha256:` and 64 digits.
    Sha256(Digest),
    /// `sha512:` and 128 digits.
    Sha512([u8; 64]),
}

impl BlobDigest {
    /// The algorithm's name, which is also the name of a folder.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// The lower-case hex digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(digest) => digest.hex(),
            Self::Sha512(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// The digest of `bytes` by this digest's algorithm.
    #[must_use]
    pub fn same_of(&self, bytes: &[u8]) -> Self {
        match self {
            Self::Sha256(_) => Digest::of(bytes).into(),
            Self::Sha512(_) => Self::Sha512(Sha512::digest(bytes).into()),
        }
    }

    /// The digest of all that `reader` yields, by this digest's algorithm.
    pub(crate) fn same_of_all(&self, mut reader: impl Read) -> io::Result<Self> {
        match self {
            Self::Sha256(_) => Ok(hashed(reader)?.finish().into()),
            Self::Sha512(_) => {
                let mut state = Sha512::new();
                in_pieces(&mut reader, |piece| state.update(piece))?;
                Ok(Self::Sha512(state.finalize().into()))
            }
        }
    }
}

/// A hasher that has seen all that `reader` yields.
pub(crate) fn hashed(mut reader: impl Read) -> io::Result<Hasher> {
    let mut hasher = Hasher::new();
    in_pieces(&mut reader, |piece| hasher.update(piece))?;
    Ok(hasher)
}

fn in_pieces(reader: &mut impl Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => each(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobDigest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(hex) = text.strip_prefix("sha512:") else {
            return text.parse().map(Self::Sha256);
        };
        let is_lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let bytes: Option<Vec<u8>> = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).ok())
            .map(|pair| u8::from_str_radix(pair?, 16).ok())
            .collect();
        match bytes.and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) if hex.len() == 128 && hex.bytes().all(is_lower_hex) => Ok(Self::Sha512(bytes)),
            _ => Err(
                Error::new(ErrorKind::Input, format!("`{}` is not a digest", text.escape_debug()))
                    .hint("a sha512 digest is `sha512:` and 128 lower-case hex digits"),
            ),
        }
    }
}

impl From<Digest> for BlobDigest {
    fn from(digest: Digest) -> Self {
        Self::Sha256(digest)
    }
}

impl From<&Digest> for BlobDigest {
    fn from(digest: &Digest) -> Self {
        Self::Sha256(*digest)
    }
}

impl From<&BlobDigest> for BlobDigest {
    fn from(digest: &BlobDigest) -> Self {
        *digest
    }
}

impl From<BlobDigest> for String {
    fn from(digest: BlobDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for BlobDigest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_512: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    #[test]
    fn parses_what_it_prints_and_nothing_else() {
        let sha256 = BlobDigest::from(Digest::of(b""));
        let sha512: BlobDigest = EMPTY_512.parse().unwrap();
        for digest in [sha256, sha512] {
            assert_eq!(digest.to_string().parse::<BlobDigest>().unwrap(), digest);
            assert_eq!(digest.same_of(b""), digest);
            assert_eq!(digest.same_of_all(io::empty()).unwrap(), digest);
            assert_eq!(digest.same_of_all(&b"x"[..]).unwrap(), digest.same_of(b"x"));
        }
        for bad in [
            "",
            "sha512:",
            "sha384:00",
            &EMPTY_512[..EMPTY_512.len() - 1],
            &format!("{EMPTY_512}0"),
            &EMPTY_512.replace("cf83", "CF83"),
            &EMPTY_512.replace("cf83", "+f83"),
            &EMPTY_512.replace("cf83", "../."),
            &EMPTY_512.replace("cf8", "ä8"),
        ] {
            assert!(bad.parse::<BlobDigest>().is_err(), "{bad}");
        }
    }
}
