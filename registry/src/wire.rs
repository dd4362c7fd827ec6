//! A connection that sends pieces of files without taking them into memory (`sendfile`).
//!
//! hyper writes what a body yields, and knows of bytes only. So the body yields placeholders of the right length, and puts
//! the piece of the file that each stands for into the connection's [`Outlet`]. When hyper writes a placeholder, the
//! piece goes out in its place. Placeholders are told by where they are in memory: hyper passes on the buffers of a body as
//! they are to whoever can write several at once. Would it ever copy them, what it writes were no placeholder, and the
//! connection ends instead of sending what nobody meant.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::metrics::Metrics;

/// The longest piece of a file that one placeholder stands for.
pub(crate) const LONGEST: usize = 1 << 20;

/// The shortest one. No answer's head is that long: that tells a placeholder that was copied.
pub(crate) const SHORTEST: usize = 64 << 10;

/// What stands for pieces of files. Nobody reads it, so it takes no memory.
static PLACEHOLDER: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; LONGEST]));

/// A connection over TCP, whose bytes are counted.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    outlet: Outlet,
    metrics: Arc<Metrics>,
}

/// The pieces of files that a connection has to send next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outlet(Arc<Mutex<VecDeque<Piece>>>);

#[derive(Debug)]
struct Piece {
    file: Arc<File>,
    offset: u64,
    length: usize,
}

impl Outlet {
    /// Adds a piece, of [`SHORTEST`] to [`LONGEST`] bytes, and gives the placeholder to write for it.
    pub(crate) fn put(&self, file: &Arc<File>, offset: u64, length: usize) -> Bytes {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = Arc::clone(file);
        let length = length.min(LONGEST);
        pieces.push_back(Piece { file, offset, length });
        PLACEHOLDER.slice(..length)
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

fn is_placeholder(bytes: &[u8]) -> bool {
    PLACEHOLDER.as_ptr_range().contains(&bytes.as_ptr())
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, metrics: Arc<Metrics>) -> Self {
        let outlet = Outlet::default();
        Self {
            stream,
            outlet,
            metrics,
        }
    }

    /// Where bodies put what this connection sends.
    pub(crate) fn outlet(&self) -> Outlet {
        self.outlet.clone()
    }

    /// Sends up to `most` bytes of the next piece.
    fn poll_send(&self, context: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let mut pieces = self.outlet.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(piece) = pieces.front_mut() else {
            return Poll::Ready(Err(io::Error::other("a placeholder stands for nothing")));
        };
        let most = most.min(piece.length);
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            let mut offset = piece.offset;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let sent = rustix::fs::sendfile(&self.stream, &piece.file, Some(&mut offset), most)?;
                Ok(sent)
            });
            match sent {
                // The file is shorter than it was: the client has to see a broken connection.
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(sent) => {
                    piece.offset += sent as u64;
                    piece.length -= sent;
                    if piece.length == 0 {
                        pieces.pop_front();
                    }
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = result {
            self.metrics.sent.add(count);
        }
        result
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.metrics.received.add(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let from = slices
            .iter()
            .position(|slice| !slice.is_empty())
            .unwrap_or(slices.len());
        let slices = slices.get(from..).unwrap_or_default();
        if let Some(first) = slices.first()
            && is_placeholder(first)
        {
            let result = self.poll_send(context, first.len());
            return self.written(result);
        }
        let until = slices.iter().position(|slice| is_placeholder(slice));
        let plain = slices.get(..until.unwrap_or(slices.len())).unwrap_or_default();
        if plain.iter().any(|slice| slice.len() >= SHORTEST) && !self.outlet.is_empty() {
            return Poll::Ready(Err(io::Error::other("a placeholder was copied")));
        }
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, plain);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn pair() -> (Wire, std::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (Wire::new(stream, Arc::default()), client)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pieces_go_out_in_their_places() {
        let (mut wire, mut client) = pair().await;
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..3 * LONGEST).map(|at| (at / 7 % 251) as u8).collect();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all
        });
        let outlet = wire.outlet();
        let mut expected = Vec::new();
        for (offset, length) in [(5, LONGEST), (LONGEST, SHORTEST), (2 * LONGEST, LONGEST)] {
            let body = outlet.put(&file, offset as u64, length);
            let mut head = &b"head"[..];
            let mut rest = &body[..];
            while !head.is_empty() || !rest.is_empty() {
                let slices = [IoSlice::new(head), IoSlice::new(rest)];
                let mut written = wire.write_vectored(&slices).await.unwrap();
                let of_head = written.min(head.len());
                head = &head[of_head..];
                written -= of_head;
                rest = &rest[written..];
            }
            expected.extend_from_slice(b"head");
            expected.extend_from_slice(&content[offset..offset + length]);
        }
        assert!(wire.outlet.is_empty());
        let counted = format!("sent_bytes_total {}\n", expected.len());
        assert!(wire.metrics.text().contains(&counted), "{counted}");
        drop(wire);
        assert!(reader.join().unwrap() == expected);
    }

    #[tokio::test]
    async fn what_stands_for_nothing_is_not_sent() {
        let (mut wire, _client) = pair().await;
        assert!(wire.write(&PLACEHOLDER).await.is_err());
        let file = Arc::new(tempfile::tempfile().unwrap());
        let body = wire.outlet().put(&file, 0, SHORTEST);
        let copy = body.to_vec();
        assert!(wire.write(&copy).await.is_err());
        let error = wire.write(&body).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "the file has no such bytes");
    }
}
