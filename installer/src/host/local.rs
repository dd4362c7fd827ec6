//! This host.

use std::io::{Read as _, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use sealrs_image::error::{Error, ErrorKind, Result};

use super::session::{Tail, on};
use super::{Command, Host, Output, Session};

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
        let sudo = command.sudo && !geteuid().is_root();
        let prefix = if sudo { ["sudo", "-n", "--"].as_slice() } else { &[] };
        let mut argv = prefix.iter().copied().chain(command.argv.iter().map(String::as_str));
        let failed = |error: std::io::Error| {
            let error = Error::new(ErrorKind::Step, "it cannot be started").because(error);
            on("localhost", command.program(), error)
        };
        let mut child = std::process::Command::new(argv.next().unwrap_or_default())
            .args(argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let group = Pid::from_child(&child);
        let stdin = child.stdin.take().map(|pipe| Box::new(pipe) as Box<dyn Write + Send>);
        let stdout = child.stdout.take().map(|pipe| Box::new(pipe) as _);
        let stderr = Tail::default();
        let errors = child.stderr.take().map(|mut pipe| {
            let tail = stderr.clone();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    tail.push(buffer.get(..count).unwrap_or_default());
                }
            })
        });
        let (sender, end) = sync_channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ended);
        thread::spawn(move || {
            let status = child.wait();
            is_over.store(true, Ordering::SeqCst);
            // What it said last is read before its end is told, unless something it started goes on.
            for _ in 0..100 {
                if errors.as_ref().is_none_or(thread::JoinHandle::is_finished) {
                    break;
                }
                thread::sleep(std::time::Duration::from_millis(5));
            }
            let _ = sender.send(
                status
                    .map(|status| Output {
                        status: status.code(),
                        signal: status.signal().map(|number| number.to_string()),
                        ..Output::default()
                    })
                    .map_err(|error| Error::new(ErrorKind::Step, "its end is not known").because(error)),
            );
        });
        Ok(Session {
            stdin,
            stdout,
            stderr,
            end,
            // The id of a group that is gone may belong to another one.
            stop: Arc::new(move || {
                if !ended.load(Ordering::SeqCst) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn runs_to_the_end_with_input_output_and_status() {
        let script = Command::new("sh").args(["-c", "cat; echo no >&2; exit 3"]).stdin("in");
        let output = Local.run(&script).unwrap();
        assert_eq!((output.status, output.stdout.as_slice()), (Some(3), b"in".as_slice()));
        assert_eq!(output.stderr, "no\n");
    }

    #[test]
    fn what_takes_too_long_is_stopped() {
        let start = Instant::now();
        let sleep = Command::new("sleep").arg("60").limit(Duration::from_millis(200));
        assert!(Local.run(&sleep).is_err());
        assert!(start.elapsed() < Duration::from_secs(20));
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
