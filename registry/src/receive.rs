//! Taking in the body of a request, at the pace of the disk.
//!
//! While one piece is hashed and written the next one comes in. A connection holds two pieces in memory at most, and
//! what came in before it broke is kept.

use std::time::Duration;

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use sealrs_image::error::{ErrorKind, IoResultExt as _, Result, ResultExt as _};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::directory::Upload;
use crate::turns::Turn;

/// About how many bytes make a piece.
const PIECE: usize = 256 << 10;

/// How many bytes go to the kernel before it is asked to write them out, so that the sync at the end is short.
const FLUSH_EVERY: u64 = 32 << 20;

/// A client that sends nothing for so long is given up. What it sent is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// A small body has to be there within this time: it waits in memory.
const SMALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// It is complete.
    Whole,
    /// The client vanished, or stopped sending.
    Cut,
    /// It is longer than it may be. The rest was not read.
    TooLong,
    /// Another request goes on with the upload.
    TakenOver,
}

/// Adds a body to an upload, at most `limit` bytes of it.
///
/// # Errors
/// What writing to the disk may meet. What came in before is kept.
pub(crate) async fn receive(
    mut upload: Upload,
    body: &mut Incoming,
    limit: Option<u64>,
    turn: &mut Turn,
) -> Result<(Upload, BodyEnd)> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut flusher = Flusher::default();
    let (mut piece, mut end) = gather(body, &mut left, turn).await;
    loop {
        let size: usize = piece.iter().map(Bytes::len).sum();
        let writing = spawn_blocking(move || {
            let written = piece.iter().try_for_each(|bytes| upload.append(bytes));
            written.map(|()| upload)
        });
        // What broke off or came to its end still has its last piece to write.
        let next = async {
            match end {
                None => gather(body, &mut left, turn).await,
                Some(_) => (Vec::new(), end),
            }
        };
        let (written, next) = tokio::join!(writing, next);
        upload = written.or_fail(ErrorKind::Internal, || "the thread that writes an upload died")??;
        let is_last = end.is_some();
        (piece, end) = next;
        match end {
            Some(end) if is_last => {
                flusher.join().await?;
                return Ok((upload, end));
            }
            _ => flusher.written(&upload, size as u64).await?,
        }
    }
}

/// The next piece of a body: what is there, and at least something. With it, how the body ended, if it did.
async fn gather(body: &mut Incoming, left: &mut u64, turn: &mut Turn) -> (Vec<Bytes>, Option<BodyEnd>) {
    let mut piece = Vec::new();
    let mut size = 0;
    loop {
        let frame = if size == 0 {
            tokio::select! {
                () = turn.is_over() => return (piece, Some(BodyEnd::TakenOver)),
                frame = tokio::time::timeout(IDLE_TIMEOUT, body.frame()) => match frame {
                    Ok(frame) => frame,
                    Err(_) => return (piece, Some(BodyEnd::Cut)),
                },
            }
        } else if size >= PIECE {
            return (piece, None);
        } else {
            match body.frame().now_or_never() {
                Some(frame) => frame,
                None => return (piece, None),
            }
        };
        let Some(frame) = frame else {
            return (piece, Some(BodyEnd::Whole));
        };
        let Ok(frame) = frame else {
            return (piece, Some(BodyEnd::Cut));
        };
        let Ok(mut bytes) = frame.into_data() else { continue };
        let length = bytes.len() as u64;
        if length > *left {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left = 0;
            piece.push(bytes);
            return (piece, Some(BodyEnd::TooLong));
        }
        *left -= length;
        size += bytes.len();
        piece.push(bytes);
    }
}

/// Syncs a file while more is written to it.
#[derive(Default)]
struct Flusher {
    unflushed: u64,
    task: Option<JoinHandle<std::io::Result<()>>>,
}

impl Flusher {
    async fn written(&mut self, upload: &Upload, bytes: u64) -> Result<()> {
        self.unflushed += bytes;
        let is_idle = self.task.as_ref().is_none_or(JoinHandle::is_finished);
        if self.unflushed >= FLUSH_EVERY && is_idle {
            self.join().await?;
            self.unflushed = 0;
            let file = upload.file();
            self.task = Some(spawn_blocking(move || file.sync_data()));
        }
        Ok(())
    }

    /// An error of the disk is told once, to whoever syncs first: it must not be lost.
    async fn join(&mut self) -> Result<()> {
        match self.task.take() {
            Some(task) => task
                .await
                .or_fail(ErrorKind::Internal, || "the thread that syncs an upload died")?
                .or_io(|| "cannot write an upload to the disk"),
            None => Ok(()),
        }
    }
}

/// A body of at most `most` bytes, in memory.
pub(crate) async fn small(body: &mut Incoming, most: usize) -> std::result::Result<Vec<u8>, BodyEnd> {
    let read = async {
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| BodyEnd::Cut)?;
            let bytes = frame.into_data().unwrap_or_default();
            if whole.len() + bytes.len() > most {
                return Err(BodyEnd::TooLong);
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    };
    tokio::time::timeout(SMALL_TIMEOUT, read)
        .await
        .unwrap_or(Err(BodyEnd::Cut))
}

/// Reads a little of a body that nobody wants, so that its client comes to read why.
pub(crate) async fn drain(body: &mut Incoming) {
    const MOST: usize = 1 << 20;
    const TIMEOUT: Duration = Duration::from_secs(2);
    let mut read = 0;
    let reading = async {
        while read < MOST
            && let Some(Ok(frame)) = body.frame().await
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = tokio::time::timeout(TIMEOUT, reading).await;
}
