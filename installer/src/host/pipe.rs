//! Standard input and output of a program, between the caller's threads and the task that drives the program.
//!
//! When the task ends, whoever waits here goes on: writing fails, reading ends.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Pieces on the way.
const PIECES: usize = 16;
const PIECE: usize = 256 << 10;

/// Standard input of the program.
pub(super) struct Input(Sender<Bytes>);

/// Standard output of the program.
pub(super) struct Pipe {
    pieces: Receiver<Bytes>,
    rest: Bytes,
}

/// What the caller writes to, and where the task takes it from.
pub(super) fn input() -> (Input, Receiver<Bytes>) {
    let (sender, receiver) = channel(PIECES);
    (Input(sender), receiver)
}

/// Where the task puts output, and what the caller reads from.
pub(super) fn output() -> (Sender<Bytes>, Pipe) {
    let (sender, pieces) = channel(PIECES);
    let rest = Bytes::new();
    (sender, Pipe { pieces, rest })
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
        self.0
            .blocking_send(Bytes::copy_from_slice(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}
