//! Running programs of this host: with a time limit, a known environment, and their output kept for the error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};

/// Where programs are looked for besides the operator's own PATH: sudo and cron often leave out half of it.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables of the operator that programs may see. Everything else (credentials, editors, proxies) stays out, so
/// that an installation depends on its image and its options alone.
const INHERITED: [&str; 9] = [
    "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SHELL", "TERM",
];

/// What a program that ended left.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    /// Exit code 0.
    pub(crate) success: bool,
    /// `exit status: 1`, `signal: 9 (SIGKILL)`.
    pub(crate) status: String,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Finished {
    /// Fails unless the program succeeded.
    pub(crate) fn checked(self, what: impl FnOnce() -> String) -> Result<Self> {
        if self.success {
            return Ok(self);
        }
        let said = [self.stderr.trim(), self.stdout.trim()]
            .into_iter()
            .find(|text| !text.is_empty())
            .map_or_else(|| self.status.clone(), |text| last_lines(text, 10));
        Err(Error::new(ErrorKind::Step, what()).because(Error::new(ErrorKind::Step, said)))
    }
}

/// A search path with `folders` in front.
pub(crate) fn search_path(folders: &[PathBuf]) -> OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let mut paths: Vec<PathBuf> = folders.to_vec();
    for path in std::env::split_paths(&own).chain(std::env::split_paths(SYSTEM_PATH)) {
        if path.is_absolute() && !paths.contains(&path) {
            paths.push(path);
        }
    }
    // A folder with a colon in its name can't be in a search path: then it is not.
    std::env::join_paths(&paths).unwrap_or_else(|_| SYSTEM_PATH.into())
}

/// The program that `name` stands for in the search path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    find_in(name, &[])
}

/// Whether there is a program `name` in the search path with `folders` in front.
pub(crate) fn is_installed(name: &str, folders: &[PathBuf]) -> bool {
    find_in(name, folders).is_some()
}

fn find_in(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    std::env::split_paths(&search_path(folders))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

/// A command with the environment that all programs get, plus `env`. `folders` come first in its search path, then those
/// of a `PATH` in `env`, and then the host's: its own programs are always found.
pub(crate) fn prepare(argv: &[String], env: &BTreeMap<String, String>, folders: &[PathBuf]) -> Result<Command> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Error::new(ErrorKind::Internal, "a command without a program"));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let mut first = folders.to_vec();
    first.extend(env.get("PATH").iter().flat_map(std::env::split_paths));
    command.envs(env).env("PATH", search_path(&first));
    Ok(command)
}

/// Runs a program to its end, or kills it when the time is over.
///
/// # Errors
/// [`ErrorKind::Step`] when it can't be started or takes too long. That it failed is for the caller to see.
pub(crate) fn output(mut command: Command, input: Option<&[u8]>, limit: Duration) -> Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that all of it can be ended: a grandchild would hold the pipes open.
        .process_group(0);
    let mut child = command.spawn().map_err(|error| cannot_start(&name, error))?;
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        let stdout = scope.spawn(move || read(stdout));
        let stderr = scope.spawn(move || read(stderr));
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            scope.spawn(move || {
                // A program that does not read its input says why by its exit code.
                let _ = stdin.write_all(input);
            });
        }
        let status = wait(&mut child, limit).or_io(|| format!("cannot wait for `{name}`"))?;
        let stdout = stdout.join().unwrap_or_default();
        let stderr = stderr.join().unwrap_or_default();
        match status {
            Some(status) => Ok(Finished {
                success: status.success(),
                status: status.to_string(),
                stdout,
                stderr,
            }),
            None => Err(Error::new(
                ErrorKind::Step,
                format!("`{name}` did not end within {} seconds", limit.as_secs()),
            )),
        }
    })
}

/// Runs a program with simple arguments.
///
/// # Errors
/// As [`output`].
pub(crate) fn run(argv: &[&str], limit: Duration) -> Result<Finished> {
    let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
    output(prepare(&argv, &BTreeMap::new(), &[])?, None, limit)
}

/// The error for a program that can't be started.
pub(crate) fn cannot_start(name: &str, error: std::io::Error) -> Error {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let failure = Error::new(ErrorKind::Step, format!("cannot start `{name}`")).because(error);
    if missing {
        failure.hint(format!("install `{name}` on this host"))
    } else {
        failure
    }
}

/// Waits for the end of a child; `None` when it was killed because the time was over.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                kill_process_group(group, Signal::KILL)?;
            }
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn read(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        // What was read before a failure is what there is.
        let _ = from.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of a text that say something.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(count);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// A path as an argument.
pub(crate) fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn go(script: &str, input: Option<&[u8]>) -> Result<Finished> {
        let env = BTreeMap::from([("A".to_owned(), "b c".to_owned())]);
        let command = prepare(&sh(script), &env, &[PathBuf::from("/x")])?;
        output(command, input, Duration::from_millis(500))
    }

    #[test]
    fn keeps_output_and_status_and_passes_a_known_environment() {
        let done = go("echo \"$A\"; cat; echo no >&2; exit 3", Some(b"in")).unwrap();
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("b c\nin", "no\n"));
        assert_eq!(done.status, "exit status: 3");
        let error = done.checked(|| "it failed".to_owned()).unwrap_err();
        assert_eq!(error.causes(), ["no"]);
        let done = go("echo \"$PATH\"; env | grep CARGO || true", None).unwrap();
        assert!(done.stdout.starts_with("/x:"), "{}", done.stdout);
        assert_eq!(done.stdout.lines().count(), 1, "{}", done.stdout);
    }

    #[test]
    fn a_program_that_hangs_or_is_missing_is_an_error() {
        let begin = Instant::now();
        let error = go("sleep 30; true", None).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error:?}");
        assert!(begin.elapsed() < Duration::from_secs(10));
        let error = run(&["no-such-program-here"], Duration::from_secs(1)).unwrap_err();
        assert!(error.remedy().unwrap().contains("install"));
    }
}
