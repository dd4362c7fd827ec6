//! The host's end of a connection: does what the operator wants, one request after the other. When the operator is gone,
//! it ends at once, as if it were killed: every step can be done again.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use sealrs_image::error::{Error, ErrorKind, Result, ResultExt as _};
use sealrs_image::progress::{Event, Progress};
use sealrs_image::source::Source;
use sealrs_image::spec::Descriptor;
use serde::Serialize;

use super::failure::Failure;
use super::wire::{Frame, Reply, Request};
use super::{Here, Node as _};

/// So many frames wait in memory.
const WAITING: usize = 8;

/// Serves the operator who sends requests by `input` and reads replies from `output`, until `input` ends.
///
/// # Errors
/// [`ErrorKind::Network`] when the connection breaks or somebody else talks.
pub fn serve(input: impl Read + Send + 'static, output: impl Write + Send) -> Result<()> {
    let line = Line {
        frames: Mutex::new(receive(input)),
        output: Mutex::new(output),
    };
    let mut here = Here::alone();
    while let Some(frame) = line.next() {
        let Frame::Message(bytes) = frame else {
            return Err(Error::new(ErrorKind::Network, "a request was expected"));
        };
        let request = serde_json::from_slice(&bytes).or_fail(ErrorKind::Network, || "a request can't be read")?;
        let reply = match answer(&mut here, request, &line) {
            Ok(answer) => Reply::Answer(answer),
            Err(error) => Reply::Failed(Failure::from(&error)),
        };
        line.say(&reply)?;
    }
    Ok(())
}

fn answer<W: Write + Send>(here: &mut Here, request: Request, line: &Line<W>) -> Result<serde_json::Value> {
    match request {
        Request::Facts(interest) => json(&here.facts(&interest)?),
        Request::Begin(begin) => json(&here.begin(&begin, &[])?),
        Request::Unpack(image) => json(&here.unpack(line, &image, line)?),
        Request::Rootfs => json(&here.rootfs()?),
        Request::Execute(order) => json(&here.execute(&order, line)?),
        Request::Read(path) => json(&here.read(&path)?),
        Request::Audit(question) => json(&here.audit(&question, line)?),
        Request::Delete { root, cluster } => json(&here.delete(&root, &cluster, line)?),
    }
}

fn json(value: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).or_fail(ErrorKind::Internal, || "cannot write an answer")
}

/// Reads frames in a thread of its own, which notices the end of the connection whatever else goes on.
fn receive(mut input: impl Read + Send + 'static) -> Receiver<Frame> {
    let (sender, receiver) = sync_channel(WAITING);
    thread::spawn(move || {
        while let Ok(Some(frame)) = Frame::read(&mut input) {
            if sender.send(frame).is_err() {
                return;
            }
        }
        end();
    });
    receiver
}

/// Nobody is there any more who could be told anything.
#[allow(clippy::exit, reason = "a step that is under way can't be ended in another way")]
fn end() -> ! {
    std::process::exit(0)
}

/// The connection.
struct Line<W> {
    frames: Mutex<Receiver<Frame>>,
    output: Mutex<W>,
}

impl<W: Write + Send> Line<W> {
    fn next(&self) -> Option<Frame> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }

    fn say(&self, reply: &Reply) -> Result<()> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        Frame::json(reply)
            .and_then(|frame| frame.write(&mut *output))
            .or_fail(ErrorKind::Network, || "the connection to the operator broke")
    }
}

impl<W: Write + Send> Progress for Line<W> {
    fn event(&self, event: Event<'_>) {
        let reply = match event {
            Event::Message(text) => Reply::Message(text.to_owned()),
            Event::Warning(text) => Reply::Warning(text.to_owned()),
            // How far it is, the operator sees by what was sent.
            Event::Begin { .. } | Event::Advance { .. } | Event::End { .. } => return,
        };
        let _ = self.say(&reply);
    }
}

impl<W: Write + Send> Source for Line<W> {
    fn origin(&self) -> String {
        "the operator".to_owned()
    }

    /// One blob at a time comes over the connection.
    fn is_sequential(&self) -> bool {
        true
    }

    fn open<'a>(&'a self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        self.say(&Reply::Want {
            blob: blob.clone(),
            offset,
        })?;
        Ok(Box::new(Blob {
            line: self,
            piece: Vec::new(),
            read: 0,
            ended: false,
        }))
    }
}

/// A blob that comes over the connection.
struct Blob<'l, W: Write + Send> {
    line: &'l Line<W>,
    piece: Vec<u8>,
    read: usize,
    ended: bool,
}

impl<W: Write + Send> Blob<'_, W> {
    fn next(&mut self) -> io::Result<()> {
        match self.line.next() {
            Some(Frame::Bytes(bytes)) => {
                self.piece = bytes;
                self.read = 0;
                Ok(())
            }
            Some(Frame::End) => {
                self.ended = true;
                Ok(())
            }
            _ => {
                self.ended = true;
                Err(io::Error::new(
                    io::ErrorKind::BrokenPipe,
                    "the operator could not send all of it",
                ))
            }
        }
    }
}

impl<W: Write + Send> Read for Blob<'_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = self.piece.get(self.read..).unwrap_or_default();
            if !rest.is_empty() {
                let count = rest.len().min(buffer.len());
                if let (Some(from), Some(to)) = (rest.get(..count), buffer.get_mut(..count)) {
                    to.copy_from_slice(from);
                }
                self.read += count;
                return Ok(count);
            }
            if self.ended {
                return Ok(0);
            }
            self.next()?;
        }
    }
}

/// What comes of a blob that nobody wants any more has to be read over.
impl<W: Write + Send> Drop for Blob<'_, W> {
    fn drop(&mut self) {
        while !self.ended && self.next().is_ok() {}
    }
}
