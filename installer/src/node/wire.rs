//! What operator and host say to each other: frames, each a kind, a length and bytes. Messages are JSON; between them come
//! the bytes of blobs that the host has asked for.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::spec::Descriptor;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::{Begin, Order};
use crate::audit::Question;
use crate::facts::Interest;

/// So many bytes of a blob are sent at once.
pub(super) const PIECE: usize = 256 << 10;
/// The longest frame: plans and lists of files are long, but not endless.
const LONGEST: usize = 64 << 20;

/// What the operator wants.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    Facts(Interest),
    Begin(Box<Begin>),
    Unpack(Box<ClusterImage>),
    Rootfs,
    Execute(Box<Order>),
    Read(PathBuf),
    Audit(Box<Question>),
    Delete { root: PathBuf, cluster: String },
}

/// What the host says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reply {
    /// A line for people.
    Message(String),
    /// A warning.
    Warning(String),
    /// It needs the bytes of a blob from an offset on.
    Want { blob: Descriptor, offset: u64 },
    /// What was asked for is done.
    Answer(serde_json::Value),
    /// It is not.
    Failed(Failure),
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// JSON.
    Message(Vec<u8>),
    /// Bytes of a blob.
    Bytes(Vec<u8>),
    /// The end of a blob.
    End,
    /// A blob can't be read on.
    Broken,
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Message(_) => 0,
            Self::Bytes(_) => 1,
            Self::End => 2,
            Self::Broken => 3,
        }
    }

    pub(super) fn json(message: &impl Serialize) -> io::Result<Self> {
        Ok(Self::Message(serde_json::to_vec(message)?))
    }

    pub(super) fn write(&self, into: &mut impl Write) -> io::Result<()> {
        let bytes = match self {
            Self::Message(bytes) | Self::Bytes(bytes) => bytes.as_slice(),
            Self::End | Self::Broken => &[],
        };
        write(into, self.kind(), bytes)
    }

    /// The next frame; none at the end.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0; 1];
        loop {
            match from.read(&mut kind) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if length > LONGEST {
            return wrong("a message is too long");
        }
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        match kind {
            [0] => Ok(Some(Self::Message(bytes))),
            [1] => Ok(Some(Self::Bytes(bytes))),
            [2] => Ok(Some(Self::End)),
            [3] => Ok(Some(Self::Broken)),
            _ => wrong("something else than sealrs is talking"),
        }
    }
}

/// Writes a piece of a blob without a copy of it.
pub(super) fn write_bytes(into: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write(into, 1, bytes)
}

fn write(into: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let [a, b, c, d] = length.to_be_bytes();
    into.write_all(&[kind, a, b, c, d])?;
    into.write_all(bytes)?;
    into.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let frames = [
            Frame::json(&Reply::Message("hello".into())).unwrap(),
            Frame::Bytes(vec![7; 1000]),
            Frame::End,
            Frame::Broken,
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.write(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        for frame in frames {
            assert_eq!(Frame::read(&mut rest).unwrap(), Some(frame));
        }
        assert_eq!(Frame::read(&mut rest).unwrap(), None);
        for bad in [&[0, 255, 0, 0, 0][..], b"Last login: today", &[0, 0, 0, 0, 9, 1], &[1]] {
            assert!(Frame::read(&mut &*bad).is_err(), "{bad:?}");
        }
    }
}
