//! A process of the tests that is killed right after a change that it made.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

const AFTER: &str = "SEALRS_TEST_KILL_AFTER";
const DIR: &str = "SEALRS_TEST_KILL_DIR";

/// Called after every change of a directory.
pub(super) fn step() {
    static DONE: AtomicU64 = AtomicU64::new(0);
    let Some(after) = std::env::var_os(AFTER) else { return };
    let done = DONE.fetch_add(1, Ordering::Relaxed) + 1;
    if after.to_str() == Some(done.to_string().as_str()) {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
}

/// The directory that this process is to change, if it is one of those that are killed.
pub(super) fn dir() -> Option<std::path::PathBuf> {
    std::env::var_os(DIR).map(Into::into)
}

/// Runs the test `name` in a process that is killed after so many changes. Says whether it came to its end before.
pub(super) fn runs_through(name: &str, dir: &Path, after: u64) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(AFTER, after.to_string())
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(
        status.success() || std::os::unix::process::ExitStatusExt::signal(&status) == Some(9),
        "{name}: {status}"
    );
    status.success()
}
