//! The supervising process: `sealrs node supervise`. Starts a program, starts it again when it ends, ends it when
//! asked to, and keeps its log short.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{interval, sleep, timeout};

use super::supervised::{PATIENCE, State, lock_file, wait_for_lock};
use crate::process;

/// A log is cut to nothing when it is this long, after its end was kept beside it.
const LOG_LIMIT: u64 = 8 << 20;
/// How much of a log is kept.
const LOG_KEPT: u64 = 1 << 20;
/// The shortest and longest pause before a program is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A program that ran this long had started well.
const STARTED_WELL: Duration = Duration::from_secs(60);

/// What to supervise.
#[derive(Debug, Clone)]
pub struct Supervise {
    /// Where to say which process the program is: its number while it runs, nothing while it does not.
    pub pid_file: PathBuf,
    /// Where the program's output goes.
    pub log_file: PathBuf,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// Supervises a program until it is asked to end by SIGTERM or SIGINT. Ends at once when there is a supervisor.
///
/// # Errors
/// When files can't be written or the program can't be started at all.
pub fn supervise(options: &Supervise) -> Result<()> {
    // Whoever asks how the service is takes the lock for a moment.
    let Some(lock) = wait_for_lock(&options.pid_file, Duration::from_secs(1))? else {
        return Ok(());
    };
    sign(&lock).or_io(|| format!("cannot write {}", lock_file(&options.pid_file).display()))?;
    // Fails only for the leader of a group, which then has a session already.
    let _ = rustix::process::setsid();
    // A predecessor that was killed may have left its program running.
    process::end(&process::readers_of(&lock_file(&options.pid_file)), PATIENCE);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_io(|| "cannot start the supervisor")?;
    let ended = runtime.block_on(Supervisor::new(options).run());
    State::remove(&options.pid_file)?;
    ended
}

/// Writes into the locked file who holds it: it can be found also when the pid file is gone.
fn sign(mut lock: &File) -> std::io::Result<()> {
    lock.set_len(0)?;
    write!(lock, "{}", std::process::id())
}

struct Supervisor<'s> {
    options: &'s Supervise,
    state: State,
    /// Whether the state could be written down.
    is_noted: bool,
    pause: Duration,
}

impl<'s> Supervisor<'s> {
    fn new(options: &'s Supervise) -> Self {
        Self {
            options,
            state: State::default(),
            is_noted: false,
            pause: PAUSES.0,
        }
    }

    async fn run(mut self) -> Result<()> {
        let place = || "cannot wait for signals";
        let mut asked = Asked {
            terminate: signal(SignalKind::terminate()).or_io(place)?,
            interrupt: signal(SignalKind::interrupt()).or_io(place)?,
        };
        loop {
            let begun = Instant::now();
            match self.start() {
                Ok(mut child) => {
                    let noted = self.note(child.id().map(u32::cast_signed));
                    // Whoever starts it waits for this. Later a full disk ends no service.
                    if let Err(error) = noted
                        && self.state.restarts == 0
                    {
                        end(child).await?;
                        self.log(&format!("sealrs: {error:?}"));
                        return Err(error);
                    }
                    if self.watch(&mut child, &mut asked).await? {
                        return end(child).await;
                    }
                }
                Err(error) => {
                    self.log(&format!("sealrs: {error:?}"));
                    // A program that could never be started is the starter's mistake.
                    if self.state.restarts == 0 {
                        return Err(error);
                    }
                }
            }
            self.state.restarts += 1;
            let _ = self.note(None);
            if begun.elapsed() >= STARTED_WELL {
                self.pause = PAUSES.0;
            }
            tokio::select! {
                () = sleep(self.pause) => {}
                () = asked.wait() => return Ok(()),
            }
            self.pause = (self.pause * 2).min(PAUSES.1);
        }
    }

    fn start(&self) -> Result<Child> {
        let Some((program, arguments)) = self.options.command.split_first() else {
            return Err(Error::new(ErrorKind::Input, "there is no program to supervise"));
        };
        let lock_file = lock_file(&self.options.pid_file);
        let place = || format!("cannot open {}", lock_file.display());
        let mut input = File::open(&lock_file).or_io(place)?;
        // What is in it is not for the program.
        input.seek(SeekFrom::End(0)).or_io(place)?;
        let log = open_log(&self.options.log_file)?;
        let errors = log
            .try_clone()
            .or_io(|| format!("cannot open {}", self.options.log_file.display()))?;
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(errors))
            .spawn()
            .map_err(|error| crate::command::cannot_start(&program.to_string_lossy(), error))
    }

    /// Waits for the program's end (false) or for being asked to end it (true), and keeps the log short meanwhile.
    async fn watch(&mut self, child: &mut Child, asked: &mut Asked) -> Result<bool> {
        let mut tick = interval(Duration::from_secs(5));
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status.or_io(|| "cannot wait for the program")?;
                    self.log(&format!("sealrs: the program ended: {status}"));
                    return Ok(false);
                }
                () = asked.wait() => return Ok(true),
                _ = tick.tick() => {
                    let _ = shorten(&self.options.log_file);
                    if !self.is_noted {
                        let _ = self.note(self.state.child);
                    }
                }
            }
        }
    }

    /// Writes down how it is. What was true before is taken back if that fails.
    fn note(&mut self, child: Option<i32>) -> Result<()> {
        self.state.child = child;
        let written = self.state.write(&self.options.pid_file);
        self.is_noted = written.is_ok();
        if !self.is_noted {
            let _ = State::remove(&self.options.pid_file);
        }
        written
    }

    /// Adds a line to the log, if there is room for it.
    fn log(&self, line: &str) {
        if let Ok(mut log) = open_log(&self.options.log_file) {
            let _ = writeln!(log, "{line}");
        }
    }
}

/// The signals that ask to end.
struct Asked {
    terminate: Signal,
    interrupt: Signal,
}

impl Asked {
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ends the program: asks first, kills later.
async fn end(mut child: Child) -> Result<()> {
    if let Some(id) = child.id() {
        process::signal(id.cast_signed(), rustix::process::Signal::TERM);
    }
    let place = || "cannot wait for the program";
    match timeout(PATIENCE, child.wait()).await {
        Ok(ended) => ended.map(drop).or_io(place),
        Err(_) => child.kill().await.or_io(place),
    }
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .or_io(|| format!("cannot open the log {}", path.display()))
}

/// Keeps the end of a long log beside it and empties it. The program goes on writing at its new end.
fn shorten(log: &Path) -> Result<()> {
    let place = || format!("cannot shorten the log {}", log.display());
    let length = fs::metadata(log).or_io(place)?.len();
    if length <= LOG_LIMIT {
        return Ok(());
    }
    let mut file = OpenOptions::new().read(true).write(true).open(log).or_io(place)?;
    file.seek(SeekFrom::Start(length - LOG_KEPT)).or_io(place)?;
    let mut kept = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(log.with_extension("log.1"))
        .or_io(place)?;
    std::io::copy(&mut file, &mut kept).or_io(place)?;
    file.set_len(0).or_io(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_state_that_cannot_be_written_down_ends_no_service() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("x.lock"), "").unwrap();
        // The first program dies, and from then on there is no room for the state.
        let program = "test -e first && exec sleep 60; touch first; sleep 1; rm x.restarts; mkdir -p x.restarts/full";
        let options = Supervise {
            pid_file: path("x.pid"),
            log_file: path("x.log"),
            command: ["sh", "-c", &format!("cd {}; {program}", folder.path().display())]
                .map(Into::into)
                .to_vec(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let watched = async {
                while !path("x.restarts/full").exists() {
                    sleep(Duration::from_millis(20)).await;
                }
                while path("x.pid").exists() {
                    sleep(Duration::from_millis(20)).await;
                }
                fs::remove_dir_all(path("x.restarts")).unwrap();
                loop {
                    let pid = fs::read_to_string(path("x.pid")).unwrap_or_default();
                    if let Ok(pid) = pid.trim().parse() {
                        return pid;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                ended = Supervisor::new(&options).run() => panic!("{ended:?}"),
                pid = timeout(Duration::from_secs(30), watched) => {
                    process::signal(pid.unwrap(), rustix::process::Signal::KILL);
                }
            }
        });
        assert_eq!(fs::read_to_string(path("x.restarts")).unwrap(), "1\n");
    }

    #[test]
    fn a_long_log_is_cut_and_its_end_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("x.log");
        fs::write(&log, "short").unwrap();
        shorten(&log).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "short");
        let mut long = vec![b'a'; usize::try_from(LOG_LIMIT).unwrap()];
        long.extend_from_slice(b"end");
        fs::write(&log, long).unwrap();
        shorten(&log).unwrap();
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
        let kept = folder.path().join("x.log.1");
        let mode = fs::metadata(&kept).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let kept = fs::read(kept).unwrap();
        assert_eq!(kept.len() as u64, LOG_KEPT);
        assert!(kept.ends_with(b"aend"));
    }
}
