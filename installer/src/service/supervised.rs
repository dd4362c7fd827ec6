//! Services where systemd does not run the host: each has a supervising process of sealrs, found by its pid file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::file;

use super::{LogMark, Service, Status};
use crate::command::{self, word};
use crate::{files, process};

/// How long a service may take to end before it is killed, and its supervisor a little longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// For longer than this nobody holds the lock who only looks.
const LOOK: Duration = Duration::from_millis(200);

/// What a supervisor says of its program, in files of one number each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct State {
    /// The service's process: in the pid file, which is empty while there is none.
    pub(super) child: Option<i32>,
    /// How often it was started again.
    pub(super) restarts: u64,
}

impl State {
    /// What was last said; `None` when nothing was.
    fn read(pid_file: &Path) -> Option<Self> {
        let number = |path: &Path| fs::read_to_string(path).ok();
        Some(Self {
            restarts: number(&restarts_file(pid_file))?.trim().parse().ok()?,
            child: number(pid_file)?.trim().parse().ok(),
        })
    }

    /// Says how it is.
    pub(super) fn write(self, pid_file: &Path) -> Result<()> {
        let child = self.child.map_or_else(String::new, |child| format!("{child}\n"));
        let restarts = format!("{}\n", self.restarts);
        file::write_disposable(&restarts_file(pid_file), restarts.as_bytes())?;
        file::write_disposable(pid_file, child.as_bytes())
    }

    /// Takes back what was said.
    pub(super) fn remove(pid_file: &Path) -> Result<()> {
        for path in [pid_file, &restarts_file(pid_file)] {
            file::remove_partials(path)?;
            files::remove_file(path)?;
        }
        Ok(())
    }
}

fn restarts_file(pid_file: &Path) -> PathBuf {
    pid_file.with_extension("restarts")
}

fn pid_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.pid"))
}

fn log_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

/// The file that the supervisor locks and writes its id to, and that the service has as standard input: it tells who is
/// left.
pub(super) fn lock_file(pid_file: &Path) -> PathBuf {
    pid_file.with_extension("lock")
}

/// Takes a supervisor's lock, or `None` when one is at work.
fn lock(pid_file: &Path) -> Result<Option<File>> {
    let path = lock_file(pid_file);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .or_io(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).or_io(|| format!("cannot lock {}", path.display())),
    }
}

pub(super) fn start(folder: &Path, program: &Path, service: &Service) -> Result<()> {
    if status(folder, &service.name)?.active {
        return Ok(());
    }
    fs::create_dir_all(folder).or_io(|| format!("cannot make the folder {}", folder.display()))?;
    let pid_file = pid_file(folder, &service.name);
    // A supervisor that waits to start its program again goes on by itself, and its pid file stays its own.
    let Some(lock) = wait_for_lock(&pid_file, LOOK)? else {
        return Ok(());
    };
    State::remove(&pid_file)?;
    drop(lock);
    let before = mark(folder, &service.name);
    let mut argv = vec![
        word(program),
        "node".to_owned(),
        "supervise".to_owned(),
        "--pid-file".to_owned(),
        word(&pid_file),
        "--log-file".to_owned(),
        word(&log_file(folder, &service.name)),
        "--".to_owned(),
    ];
    argv.extend(service.argv.iter().cloned());
    let mut command = command::prepare(&argv, &service.env, &[])?;
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // It makes a session of its own and outlives this process, so nobody waits for it here.
    let mut supervisor = command
        .spawn()
        .map_err(|error| command::cannot_start(&word(program), error))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if State::read(&pid_file).is_some() {
            return Ok(());
        }
        let ended = supervisor
            .try_wait()
            .or_io(|| format!("cannot wait for {}", program.display()))?;
        if let Some(status) = ended {
            let log = log_since(folder, &service.name, before);
            return Err(Error::new(
                ErrorKind::Step,
                format!("service {} could not be started", service.name),
            )
            .because(Error::new(
                ErrorKind::Step,
                format!("its supervisor ended with {status}: {}", command::last_lines(&log, 5)),
            )));
        }
        if Instant::now() >= deadline {
            return Err(Error::new(
                ErrorKind::Step,
                format!(
                    "service {} could not be started: its supervisor does not answer",
                    service.name
                ),
            ));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn stop(folder: &Path, name: &str) -> Result<()> {
    let pid_file = pid_file(folder, name);
    if !lock_file(&pid_file).exists() {
        return Ok(());
    }
    let mut left = Vec::new();
    // Holding the lock means that no supervisor is left, nor can one come.
    let _lock = match wait_for_lock(&pid_file, LOOK)? {
        Some(lock) => lock,
        None => {
            let supervisor = holder(&pid_file)?;
            process::signal(supervisor, Signal::TERM);
            match wait_for_lock(&pid_file, PATIENCE + Duration::from_secs(5))? {
                Some(lock) => lock,
                None => {
                    process::signal(supervisor, Signal::KILL);
                    match wait_for_lock(&pid_file, Duration::from_secs(5))? {
                        Some(lock) => lock,
                        None => return Err(still_running(name, &[supervisor])),
                    }
                }
            }
        }
    };
    left.extend(process::end(&process::readers_of(&lock_file(&pid_file)), PATIENCE));
    if left.is_empty() {
        State::remove(&pid_file)
    } else {
        Err(still_running(name, &left))
    }
}

/// The supervisor that holds the lock.
fn holder(pid_file: &Path) -> Result<i32> {
    let path = lock_file(pid_file);
    let text = fs::read_to_string(&path).or_io(|| format!("cannot read {}", path.display()))?;
    // 0 stands for none, and gets no signals.
    Ok(text.trim().parse().unwrap_or(0))
}

/// Takes a supervisor's lock as soon as it is free; `None` when it is not within `patience`.
pub(super) fn wait_for_lock(pid_file: &Path, patience: Duration) -> Result<Option<File>> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(lock) = lock(pid_file)? {
            return Ok(Some(lock));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn still_running(name: &str, ids: &[i32]) -> Error {
    Error::new(
        ErrorKind::Step,
        format!("service {name} does not end: processes {ids:?}"),
    )
}

pub(super) fn status(folder: &Path, name: &str) -> Result<Status> {
    let pid_file = pid_file(folder, name);
    let supervised = lock_file(&pid_file).exists() && lock(&pid_file)?.is_none();
    let state = State::read(&pid_file).unwrap_or_default();
    Ok(Status {
        active: supervised && state.child.is_some(),
        failed: false,
        restarts: state.restarts,
    })
}

pub(super) fn mark(folder: &Path, name: &str) -> LogMark {
    LogMark(fs::metadata(log_file(folder, name)).map_or(0, |metadata| metadata.len()))
}

pub(super) fn log_since(folder: &Path, name: &str, mark: LogMark) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log_file(folder, name))?;
        // A log that was cut meanwhile is read from its start.
        if mark.0 <= file.metadata()?.len() {
            file.seek(SeekFrom::Start(mark.0))?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    // A service that has logged nothing has no log.
    read().unwrap_or_default()
}

/// The log's end: where the present start begins in it is not told apart.
pub(super) fn log_of_start(folder: &Path, name: &str) -> String {
    const LENGTH: u64 = 1 << 20;
    let LogMark(end) = mark(folder, name);
    log_since(folder, name, LogMark(end.saturating_sub(LENGTH)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::process::Command;

    /// A supervisor whose program has ended and is not started yet again, as far as others can tell.
    fn supervisor_in_back_off(folder: &Path, name: &str) -> std::process::Child {
        let pid_file = pid_file(folder, name);
        let lock_file = lock_file(&pid_file);
        let child = Command::new("sh")
            .args(["-c", r#"exec 9<>"$0"; flock 9; echo $$ >"$0"; exec sleep 60"#])
            .arg(&lock_file)
            .spawn()
            .unwrap();
        while fs::read_to_string(&lock_file).map_or(true, |text| text.trim().is_empty()) {
            thread::sleep(Duration::from_millis(10));
        }
        let state = State {
            child: None,
            restarts: 3,
        };
        state.write(&pid_file).unwrap();
        child
    }

    #[test]
    fn a_supervisor_in_back_off_is_left_alone_by_start_and_found_by_stop() {
        let folder = tempfile::tempdir().unwrap();
        let mut supervisor = supervisor_in_back_off(folder.path(), "x");
        let service = Service {
            name: "x".into(),
            description: String::new(),
            argv: vec!["true".into()],
            env: BTreeMap::new(),
            notifies: false,
            restart_seconds: 1,
            unit_lines: Vec::new(),
        };
        start(folder.path(), Path::new("/bin/false"), &service).unwrap();
        let pid_file = pid_file(folder.path(), "x");
        assert_eq!(State::read(&pid_file).unwrap().restarts, 3);
        // Also without its pid file it is found.
        fs::remove_file(&pid_file).unwrap();
        stop(folder.path(), "x").unwrap();
        assert!(!supervisor.wait().unwrap().success());
        assert!(lock(&pid_file).unwrap().is_some());
    }
}
