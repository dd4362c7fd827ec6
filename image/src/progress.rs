//! What long operations tell while they run. Nothing is drawn here: the command line decides how it looks.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a long operation tells how far it is.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

/// One thing that happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A piece of work began. `total` is in bytes, if known.
    Begin {
        /// Names the piece in later events; unique in the process.
        id: u64,
        /// The piece that it is a part of, whose bytes are counted there as well.
        within: Option<u64>,
        /// What it is, for people: `copying layer 3f2a…`.
        what: &'a str,
        /// Its size in bytes.
        total: Option<u64>,
    },
    /// `bytes` more of the piece are done.
    Advance {
        /// The piece.
        id: u64,
        /// Bytes done since the last event.
        bytes: u64,
    },
    /// The piece ended, well or not.
    End {
        /// The piece.
        id: u64,
    },
    /// A milestone, worth a line in any output.
    Message(&'a str),
    /// Something that a user should know, and that does not stop the work.
    Warning(&'a str),
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// A piece of work under way: ends when it is dropped.
pub struct Task<'p> {
    progress: &'p dyn Progress,
    id: u64,
    within: Option<&'p Task<'p>>,
}

impl std::fmt::Debug for Task<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({})", self.id)
    }
}

impl<'p> Task<'p> {
    /// Begins a piece of work of `total` bytes, if that is known.
    pub fn begin(progress: &'p dyn Progress, what: &str, total: Option<u64>) -> Self {
        Self::new(progress, None, what, total)
    }

    /// Begins a part of this piece: what it tells is told of the whole too.
    #[must_use]
    pub fn part<'t>(&'t self, what: &str, total: u64) -> Task<'t> {
        Task::new(self.progress, Some(self), what, Some(total))
    }

    fn new<'t>(progress: &'t dyn Progress, within: Option<&'t Task<'t>>, what: &str, total: Option<u64>) -> Task<'t> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        progress.event(Event::Begin {
            id,
            within: within.map(|task| task.id),
            what,
            total,
        });
        Task { progress, id, within }
    }

    /// Tells that `bytes` more are done.
    pub fn advance(&self, bytes: u64) {
        self.progress.event(Event::Advance { id: self.id, bytes });
        if let Some(whole) = self.within {
            whole.advance(bytes);
        }
    }

    /// Counts what is read through it.
    pub fn reader<R: Read>(&self, inner: R) -> CountingReader<'_, R> {
        CountingReader { inner, task: self }
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.progress.event(Event::End { id: self.id });
    }
}

/// Tells a [`Task`] about each byte that is read.
#[derive(Debug)]
pub struct CountingReader<'t, R> {
    inner: R,
    task: &'t Task<'t>,
}

impl<R: Read> Read for CountingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.task.advance(read as u64);
        Ok(read)
    }
}
