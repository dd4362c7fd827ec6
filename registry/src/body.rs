//! The bodies of answers: a small document, or a piece of a file that is read while it is sent.
//!
//! Over plain TCP a file goes from the page cache to the network without coming by here ([`Outlet`]). Of a blob that is
//! still being verified the last bytes are held back until that is done: if it is damaged the connection breaks, and no
//! client takes it for whole.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::spawn_blocking;

use crate::verdict::{Pending, Verdict};
use crate::wire::{LONGEST, Outlet, SHORTEST};

/// How much of a file one connection holds in memory, in bytes.
const CHUNK: u64 = 128 << 10;

/// How much is held back of what may be damaged.
const HELD_BACK: u64 = 64 << 10;

/// So that clients which wait for the rest do not give up, a little of it goes out now and then.
const DRIP: u64 = 1 << 10;
const DRIP_EVERY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    /// One that is in memory.
    Whole(Bytes),
    /// A piece of a file.
    Piece(Piece),
}

/// `length` bytes of `file` from `offset` on, and what has to be waited for before the last of them is sent.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) pending: Option<Pending>,
}

/// A body on its way.
pub(crate) type Sent = UnsyncBoxBody<Bytes, io::Error>;

impl Body {
    /// A body that is in memory.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(bytes.into())
    }

    /// Sends it, through `outlet` if the connection has one.
    pub(crate) fn send(self, outlet: Option<Outlet>) -> Sent {
        match self {
            Self::Whole(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
            Self::Piece(piece) => {
                let frames = stream::try_unfold((piece, outlet), async |(mut piece, outlet)| {
                    let frame = piece.next(outlet.as_ref()).await?;
                    Ok::<_, io::Error>(frame.map(|bytes| (Frame::data(bytes), (piece, outlet))))
                });
                StreamBody::new(frames).boxed_unsync()
            }
        }
    }
}

impl Piece {
    /// The next bytes. If the file ends before its time, or is damaged, this fails, so that the client sees a broken
    /// connection and not a short or wrong blob.
    async fn next(&mut self, outlet: Option<&Outlet>) -> io::Result<Option<Bytes>> {
        if self.length == 0 {
            return Ok(None);
        }
        let most = self.may_be_sent().await?;
        let bytes = match outlet {
            Some(outlet) if most >= SHORTEST as u64 => {
                let length = most.min(LONGEST as u64);
                if !is_in_memory(&self.file, self.offset + length - 1)? {
                    let (file, offset) = (Arc::clone(&self.file), self.offset);
                    spawn_blocking(move || bring_in(&file, offset, length))
                        .await
                        .map_err(io::Error::other)??;
                }
                outlet.put(
                    &self.file,
                    self.offset,
                    usize::try_from(length).map_err(io::Error::other)?,
                )
            }
            _ => {
                let (file, offset) = (Arc::clone(&self.file), self.offset);
                let read = move || read(&file, offset, most.min(CHUNK));
                Bytes::from(spawn_blocking(read).await.map_err(io::Error::other)??)
            }
        };
        self.offset += bytes.len() as u64;
        self.length -= bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// How many bytes may go out. Waits if there is none.
    async fn may_be_sent(&mut self) -> io::Result<u64> {
        let Some(pending) = &mut self.pending else {
            return Ok(self.length);
        };
        let verdict = match pending.now() {
            None if self.length > HELD_BACK => return Ok(self.length - HELD_BACK),
            None => match tokio::time::timeout(DRIP_EVERY, pending.wait()).await {
                Err(_) if self.length > DRIP => return Ok(DRIP),
                Err(_) => pending.wait().await,
                Ok(verdict) => verdict,
            },
            known => known,
        };
        match verdict {
            Some(Verdict::Whole) => {
                self.pending = None;
                Ok(self.length)
            }
            Some(Verdict::Damaged) | None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Whether the byte at `offset` can be read without waiting for the disk.
fn is_in_memory(file: &File, offset: u64) -> io::Result<bool> {
    let mut byte = [0];
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        // Not there, or the file system cannot tell.
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reads part of a file into the page cache.
fn bring_in(file: &File, offset: u64, length: u64) -> io::Result<()> {
    rustix::fs::fadvise(file, offset, NonZeroU64::new(length), Advice::WillNeed)?;
    file.read_exact_at(&mut [0], offset + length - 1)
}

fn read(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    match file.read_at(&mut bytes, offset)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            bytes.truncate(read);
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::sync::watch;

    use super::*;

    const SIZE: u64 = 200_000;

    /// All that comes before it takes `patience`, and how that ended.
    async fn take(piece: &mut Piece, patience: Duration) -> (Vec<u8>, Option<io::Result<()>>) {
        let mut all = Vec::new();
        loop {
            match tokio::time::timeout(patience, piece.next(None)).await {
                Err(_) => return (all, None),
                Ok(Ok(None)) => return (all, Some(Ok(()))),
                Ok(Err(error)) => return (all, Some(Err(error))),
                Ok(Ok(Some(bytes))) => all.extend_from_slice(&bytes),
            }
        }
    }

    #[tokio::test]
    async fn the_last_bytes_wait_for_the_verdict() {
        let content: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        for (told, length) in [
            (Some(Verdict::Whole), SIZE),
            (Some(Verdict::Damaged), SIZE),
            (None, SIZE),
            (Some(Verdict::Whole), 10),
            (Some(Verdict::Damaged), 10),
        ] {
            let (verdict, receiver) = watch::channel(None);
            let mut piece = Piece {
                file: Arc::clone(&file),
                offset: 0,
                length,
                pending: Some(Pending::of(receiver)),
            };
            let (mut got, end) = take(&mut piece, DRIP_EVERY / 4).await;
            assert!(end.is_none());
            assert_eq!(got.len() as u64, length.saturating_sub(HELD_BACK));
            // A little more comes after a while, and never all of it.
            let next = tokio::time::timeout(DRIP_EVERY * 2, piece.next(None)).await;
            match length > DRIP {
                true => {
                    let drip = next.unwrap().unwrap().unwrap();
                    assert_eq!(drip.len() as u64, DRIP);
                    got.extend_from_slice(&drip);
                }
                false => assert!(next.is_err(), "the last byte is not sent"),
            }
            match told {
                Some(told) => _ = verdict.send_replace(Some(told)),
                // It could not be read.
                None => drop(verdict),
            }
            let (rest, end) = take(&mut piece, DRIP_EVERY * 2).await;
            got.extend_from_slice(&rest);
            match told {
                Some(Verdict::Whole) => {
                    assert!(end.unwrap().is_ok());
                    assert!(got == content[..got.len()] && got.len() as u64 == length);
                }
                _ => {
                    assert_eq!(end.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
                    assert!((got.len() as u64) < length);
                }
            }
        }
    }
}
