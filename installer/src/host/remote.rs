//! A program at the other end of an SSH channel, as a blocking [`Session`].

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::{Buf as _, Bytes};
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use sealrs_image::error::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use super::session::Tail;
use super::{Output, Session};

/// Pieces between the caller's thread and the connection.
const PIECES: usize = 16;
const PIECE: usize = 256 << 10;

/// The session of a program that was just asked for on `channel`.
pub(super) fn session(runtime: &Handle, channel: Channel<Msg>) -> Session {
    let (reader, writer) = channel.split();
    let (to_program, input) = mpsc::channel(PIECES);
    let (output, from_program) = mpsc::channel(PIECES);
    let (sender, end) = sync_channel(1);
    let stderr = Tail::default();
    let stop = Arc::new(Notify::new());
    let over = Arc::new(Notify::new());
    runtime.spawn(write(writer, input, Arc::clone(&over)));
    let (tail, stopped) = (stderr.clone(), Arc::clone(&stop));
    runtime.spawn(async move {
        let result = tokio::select! {
            result = read(reader, output, tail) => Some(result),
            () = stopped.notified() => None,
        };
        // Whoever still feeds the program learns that it ended.
        over.notify_one();
        if let Some(result) = result {
            let _ = sender.send(result);
        }
    });
    Session {
        stdin: Some(Box::new(Input(to_program))),
        stdout: Some(Box::new(Pipe {
            pieces: from_program,
            rest: Bytes::new(),
        })),
        stderr,
        end,
        stop: Arc::new(move || stop.notify_one()),
    }
}

/// Sends what comes, then the end of the file. When the program ended or is to end, the channel is closed.
async fn write(writer: ChannelWriteHalf<Msg>, mut input: mpsc::Receiver<Bytes>, over: Arc<Notify>) {
    let send = async {
        while let Some(piece) = input.recv().await {
            if writer.data_bytes(piece).await.is_err() {
                return;
            }
        }
        let _ = writer.eof().await;
    };
    let ended = over.notified();
    tokio::pin!(ended);
    tokio::select! {
        () = send => ended.await,
        () = &mut ended => {}
    }
    // Older servers know no signals: closing ends what reads or writes.
    let _ = writer.signal(Sig::KILL).await;
    let _ = writer.close().await;
}

async fn read(mut reader: ChannelReadHalf, output: mpsc::Sender<Bytes>, stderr: Tail) -> Result<Output> {
    let mut end = None;
    while let Some(message) = reader.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                // Nobody reads any more: the rest is thrown away, so that others go on.
                let _ = output.send(data).await;
            }
            ChannelMsg::ExtendedData { data, ext: 1 } => stderr.push(&data),
            ChannelMsg::ExitStatus { exit_status } => {
                end = Some(Output {
                    status: Some(exit_status.cast_signed()),
                    ..Output::default()
                });
            }
            ChannelMsg::ExitSignal { signal_name, .. } => {
                end = Some(Output {
                    signal: Some(name(&signal_name)),
                    ..Output::default()
                });
            }
            ChannelMsg::Failure => return Err(Error::new(ErrorKind::Step, "the server does not run programs")),
            _ => {}
        }
    }
    end.ok_or_else(|| {
        Error::new(ErrorKind::Network, "the connection broke before the program ended")
            .hint("whether it did its work is not known; see that the host is up and run again")
    })
}

fn name(signal: &Sig) -> String {
    format!("{signal:?}")
}

/// Standard input of the program.
struct Input(mpsc::Sender<Bytes>);

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

/// Standard output of the program.
struct Pipe {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
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
