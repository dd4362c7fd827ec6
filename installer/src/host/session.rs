//! A running program of a host.

use std::fmt;
use std::io::{ErrorKind as IoKind, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use sealrs_image::error::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Runtime};

/// More output than this fails; what is larger is read from a [`Session`].
const LARGEST_OUTPUT: u64 = 16 << 20;
/// So much of standard error is kept: its end.
const LARGEST_STDERR: usize = 64 << 10;
/// How long something may hold the output of a program that ended, and write nothing.
pub(super) const HELD_OPEN: Duration = Duration::from_secs(10);

/// What a program that ended left.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// The exit code, unless a signal ended it.
    pub status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<String>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// The end of standard error.
    pub stderr: String,
}

impl Output {
    /// Exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == Some(0)
    }

    /// Fails unless the program succeeded; `what` did not work then.
    pub fn checked(self, what: &str) -> Result<Self> {
        if self.success() {
            return Ok(self);
        }
        let end = match (&self.status, &self.signal) {
            (Some(status), _) => format!("exit status {status}"),
            (None, signal) => format!("ended by signal {}", signal.as_deref().unwrap_or("(unknown)")),
        };
        let cause = format!("{end}: {}", self.stderr.trim_end());
        Err(Error::new(ErrorKind::Step, what).because(cause))
    }
}

/// Standard error as it comes; only its end is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let over = kept.len().saturating_sub(LARGEST_STDERR);
        kept.drain(..over);
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// A program that runs on a host. Dropping it ends the program.
///
/// All sessions of a host share one connection: read what a program writes, or the others wait.
pub struct Session {
    pub(super) stdin: Option<Box<dyn Write + Send>>,
    pub(super) stdout: Option<Box<dyn Read + Send>>,
    pub(super) stderr: Tail,
    pub(super) end: Receiver<Result<Output>>,
    pub(super) stop: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// The program's standard input, once. Dropping it is the end of the file.
    pub fn take_stdin(&mut self) -> Option<Box<dyn Write + Send>> {
        self.stdin.take()
    }

    /// The program's standard output, once.
    pub fn take_stdout(&mut self) -> Option<Box<dyn Read + Send>> {
        self.stdout.take()
    }

    /// What ends the program, from any thread: it is asked to, and killed a second later.
    #[must_use]
    pub fn stop(&self) -> Arc<dyn Fn() + Send + Sync> {
        Arc::clone(&self.stop)
    }

    /// Waits for the program's end, which has to come within `limit`. Nothing is in `stdout`; what nobody took of it
    /// is thrown away.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        self.stdin = None;
        self.stdout = None;
        self.wait_for(limit)
    }

    fn wait_for(&self, limit: Duration) -> Result<Output> {
        match self.end.recv_timeout(limit) {
            Ok(end) => end.map(|output| Output {
                stderr: self.stderr.text(),
                ..output
            }),
            Err(RecvTimeoutError::Timeout) => {
                (self.stop)();
                Err(Error::new(
                    ErrorKind::Step,
                    format!("it did not end within {limit:?} and was stopped"),
                ))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::new(ErrorKind::Network, "it was stopped")),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        (self.stop)();
    }
}

/// One runtime for the programs of all hosts.
pub(super) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .thread_name("hosts")
        .build()
        .map_err(|error| Error::new(ErrorKind::Internal, "cannot start threads").because(error))?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

/// Feeds a program, reads it and waits for its end. Stopping the session ends feeding and reading.
pub(super) fn run(mut session: Session, limit: Duration, input: &mut (dyn Read + Send)) -> Result<Output> {
    let (stdin, stdout) = (session.take_stdin(), session.take_stdout());
    thread::scope(|scope| {
        let fed = scope.spawn(move || stdin.map_or(Ok(()), |stdin| feed(stdin, input)));
        let read = scope.spawn(move || stdout.map_or(Ok(Vec::new()), read_all));
        let end = session.wait_for(limit);
        (session.stop)();
        let panicked = |_| Error::new(ErrorKind::Internal, "a thread that moves its data panicked");
        let (fed, read) = (fed.join().map_err(panicked), read.join().map_err(panicked));
        let output = end?;
        fed??;
        Ok(Output {
            stdout: read??,
            ..output
        })
    })
}

/// A program may end without having read everything. That is told by its exit code; a failure to read is ours.
fn feed(mut stdin: Box<dyn Write + Send>, input: &mut (dyn Read + Send)) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == IoKind::Interrupted => continue,
            Err(error) => return Err(Error::new(ErrorKind::Disk, "cannot read what is to be sent").because(error)),
        };
        if stdin.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
            return Ok(());
        }
    }
}

fn read_all(stdout: Box<dyn Read + Send>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut bounded = stdout.take(LARGEST_OUTPUT + 1);
    bounded
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(ErrorKind::Network, "cannot read its output").because(error))?;
    if bytes.len() as u64 > LARGEST_OUTPUT {
        return Err(Error::new(
            ErrorKind::Step,
            format!("it printed more than {} MiB", LARGEST_OUTPUT >> 20),
        ));
    }
    Ok(bytes)
}

pub(super) fn held_open() -> Error {
    Error::new(
        ErrorKind::Step,
        "it ended, but something it started holds its output open",
    )
    .hint("what goes on in the background needs an output of its own: `>/dev/null 2>&1 </dev/null`")
}

/// The failure with the program and the host it is of.
pub(super) fn on(host: &str, program: &str, error: Error) -> Error {
    Error::new(error.kind(), format!("cannot run {program} on {host}")).because(error)
}
