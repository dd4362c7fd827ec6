//! This host.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use sealrs_image::error::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::session::{HELD_OPEN, Tail, held_open, on, runtime};
use super::{Command, Host, Output, Session, pipe};

/// A program that is to end is asked first and killed then.
const BETWEEN_SIGNALS: Duration = Duration::from_secs(1);

/// This host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Local;

impl Local {
    /// This host.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Host for Local {
    fn name(&self) -> &'static str {
        "localhost"
    }

    fn start(&self, command: &Command) -> Result<Session> {
        let runtime = runtime()?;
        let mut child = {
            let _context = runtime.enter();
            spawn(command).map_err(|error| {
                let error = Error::new(ErrorKind::Step, "it cannot be started").because(error);
                on("localhost", command.program(), error)
            })?
        };
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (stdin, to_program) = pipe::input();
        let (output, stdout) = pipe::output();
        let (sender, end) = sync_channel(1);
        let stderr = Tail::default();
        let stop = Arc::new(Notify::new());
        let is_over = Arc::new(AtomicBool::new(false));
        let was_asked = Arc::new(AtomicBool::new(false));
        let (tail, stopped) = (stderr.clone(), Arc::clone(&stop));
        let (over, asked) = (Arc::clone(&is_over), Arc::clone(&was_asked));
        runtime.spawn(async move {
            let end = tokio::select! {
                end = drive(&mut child, to_program, output, tail, &over) => Some(end),
                () = stopped.notified() => None,
            };
            if let Some(end) = end {
                let _ = sender.send(end);
            } else if asked.load(Ordering::SeqCst) {
                let _ = timeout(BETWEEN_SIGNALS, child.wait()).await;
                // All of the group, also when the first of it has ended.
                signal(group, Signal::KILL);
                let _ = child.wait().await;
                over.store(true, Ordering::SeqCst);
            }
        });
        Ok(Session {
            stdin: Some(Box::new(stdin)),
            stdout: Some(Box::new(stdout)),
            stderr,
            end,
            stop: Arc::new(move || {
                // Not by the task: this process may be about to end. The id of a group that is gone may be another's.
                if !is_over.load(Ordering::SeqCst) {
                    was_asked.store(true, Ordering::SeqCst);
                    signal(group, Signal::TERM);
                }
                stop.notify_one();
            }),
        })
    }
}

/// In a process group of its own, so that what it starts can be ended with it.
fn spawn(command: &Command) -> io::Result<Child> {
    let sudo = command.sudo && !geteuid().is_root();
    let prefix = if sudo { ["sudo", "-n", "--"].as_slice() } else { &[] };
    let mut argv = prefix.iter().copied().chain(command.argv.iter().map(String::as_str));
    tokio::process::Command::new(argv.next().unwrap_or_default())
        .args(argv)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
}

/// Feeds and reads the program until it ended and nobody can write to its output any more.
async fn drive(
    child: &mut Child,
    input: Receiver<Bytes>,
    output: Sender<Bytes>,
    tail: Tail,
    is_over: &AtomicBool,
) -> Result<Output> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (ended, has_ended) = watch::channel(false);
    let wait = async {
        let status = child.wait().await;
        is_over.store(true, Ordering::SeqCst);
        ended.send_replace(true);
        status
    };
    let out = read(stdout, has_ended.clone(), Taker::Reader(output));
    let err = read(stderr, has_ended, Taker::Tail(tail));
    let mut feed = std::pin::pin!(write(stdin, input));
    let mut all = std::pin::pin!(async { tokio::join!(wait, out, err) });
    let mut is_fed = false;
    let (status, out, err) = loop {
        tokio::select! {
            all = &mut all => break all,
            () = &mut feed, if !is_fed => is_fed = true,
        }
    };
    let status = status.map_err(|error| Error::new(ErrorKind::Step, "its end is not known").because(error))?;
    out.and(err)?;
    Ok(Output {
        status: status.code(),
        signal: name(status),
        ..Output::default()
    })
}

/// Where output goes.
enum Taker {
    Reader(Sender<Bytes>),
    Tail(Tail),
}

impl Taker {
    async fn take(&self, piece: Bytes) {
        match self {
            // When nobody reads any more, the rest is thrown away.
            Self::Reader(reader) => drop(reader.send(piece).await),
            Self::Tail(tail) => tail.push(&piece),
        }
    }
}

async fn write(pipe: Option<ChildStdin>, mut input: Receiver<Bytes>) {
    let Some(mut pipe) = pipe else { return };
    while let Some(piece) = input.recv().await {
        if pipe.write_all(&piece).await.is_err() {
            return;
        }
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, mut has_ended: watch::Receiver<bool>, taker: Taker) -> Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(64 << 10);
        let quiet = async {
            let _ = has_ended.wait_for(|&has_ended| has_ended).await;
            sleep(HELD_OPEN).await;
        };
        let read = tokio::select! {
            read = pipe.read_buf(&mut buffer) => read,
            () = quiet => return Err(held_open()),
        };
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => taker.take(buffer.split().freeze()).await,
            Err(error) => return Err(Error::new(ErrorKind::Step, "cannot read its output").because(error)),
        }
    }
}

/// The name of the signal that ended the program, as SSH has it.
fn name(status: ExitStatus) -> Option<String> {
    let number = status.signal()?;
    let names = [
        (Signal::ABORT, "ABRT"),
        (Signal::ALARM, "ALRM"),
        (Signal::FPE, "FPE"),
        (Signal::HUP, "HUP"),
        (Signal::ILL, "ILL"),
        (Signal::INT, "INT"),
        (Signal::KILL, "KILL"),
        (Signal::PIPE, "PIPE"),
        (Signal::QUIT, "QUIT"),
        (Signal::SEGV, "SEGV"),
        (Signal::TERM, "TERM"),
        (Signal::USR1, "USR1"),
    ];
    let known = names.iter().find(|(signal, _)| signal.as_raw() == number);
    Some(known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn sh(script: &str) -> Command {
        Command::new("sh").args(["-c", script])
    }

    #[test]
    fn runs_to_the_end_with_input_output_and_status() {
        let output = Local.run(&sh("cat; echo no >&2; exit 3").stdin("in")).unwrap();
        assert_eq!((output.status, output.stdout.as_slice()), (Some(3), b"in".as_slice()));
        assert_eq!(output.stderr, "no\n");
        let output = Local.run(&sh("kill -TERM $$")).unwrap();
        assert_eq!((output.status, output.signal.as_deref()), (None, Some("TERM")));
        let error = Local.run(&Command::new("/no/such program")).unwrap_err();
        assert_eq!(error.to_string(), "cannot run /no/such program on localhost");
    }

    #[test]
    fn what_takes_too_long_is_stopped_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alive");
        // The second one does not listen to the first request to end.
        let script = format!(
            "(trap '' TERM; while :; do touch '{}'; sleep 0.1; done) & sleep 60",
            file.display()
        );
        let start = Instant::now();
        let error = Local.run(&sh(&script).limit(Duration::from_millis(500))).unwrap_err();
        assert!(
            error.causes().concat().contains("did not end within 500ms"),
            "{error:?}"
        );
        assert!(start.elapsed() < Duration::from_secs(10));
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            std::fs::remove_file(&file).unwrap_or_default();
            std::thread::sleep(Duration::from_millis(500));
            if !file.exists() {
                break;
            }
            assert!(Instant::now() < deadline, "it still runs");
        }
    }

    #[test]
    fn nothing_that_was_left_behind_holds_up() {
        // It has left the group, holds all that it was given, and reads nothing.
        let script = "setsid sleep 30 & exit 0";
        let start = Instant::now();
        let much = vec![0; 4 << 20];
        let error = Local.run(&sh(script).stdin(much)).unwrap_err();
        assert!(error.causes().concat().contains("holds its output open"), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
        let quiet = Local.run(&sh("setsid sleep 1 <&- >&- 2>&- & exit 0")).unwrap();
        assert!(quiet.success());
    }

    #[test]
    fn a_limit_holds_for_one_that_neither_reads_nor_ends() {
        let start = Instant::now();
        let limit = Duration::from_millis(300);
        let much = vec![0; 4 << 20];
        let left = sh("setsid sleep 30 & wait").limit(limit).stdin(much);
        Local.run(&left).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn much_output_is_an_error_and_the_rest_is_not_kept() {
        let error = Local.run(&sh("head -c 20000000 /dev/zero")).unwrap_err();
        assert!(error.causes().concat().contains("more than 16 MiB"), "{error:?}");
    }

    #[test]
    fn an_upload_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a file");
        let path = path.to_str().unwrap();
        assert!(Local.upload(path, 0o600, &mut b"abc".as_slice(), 4, false).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        Local.upload(path, 0o640, &mut b"abcd".as_slice(), 4, false).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"abcd");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_facts_name_a_folder_that_works() {
        let facts = Local.facts(false).unwrap();
        assert_eq!(facts.machine, std::env::consts::ARCH);
        assert!(facts.folder.is_some());
    }
}
