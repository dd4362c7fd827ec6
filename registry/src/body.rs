//! The bodies of answers: a small document, or a piece of a file that is read while it is sent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How much of a file one connection holds in memory, in bytes.
const CHUNK: u64 = 128 << 10;

/// A body that is in memory.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// `length` bytes of `file` from `offset` on. If the file ends before that, the body fails, so that the
/// client sees a broken connection and not a short blob.
pub(crate) fn piece(file: File, offset: u64, length: u64) -> Body {
    let chunks = stream::try_unfold((file, offset, length), async |(file, offset, left)| {
        if left == 0 {
            return Ok::<_, io::Error>(None);
        }
        let (file, bytes) = tokio::task::spawn_blocking(move || read(file, offset, left.min(CHUNK)))
            .await
            .map_err(io::Error::other)??;
        let read = bytes.len() as u64;
        Ok(Some((
            Frame::data(Bytes::from(bytes)),
            (file, offset + read, left - read),
        )))
    });
    StreamBody::new(chunks).boxed_unsync()
}

fn read(file: File, offset: u64, length: u64) -> io::Result<(File, Vec<u8>)> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    match file.read_at(&mut bytes, offset)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            bytes.truncate(read);
            Ok((file, bytes))
        }
    }
}
