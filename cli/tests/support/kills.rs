//! `kill -9` at a chosen moment: at the n-th call of a system call; and what a run wrote.

use super::{Scratch, outcome, succeed};

/// Runs sealrs, killed when one of its threads enters `call` for the `number`th time. Gives false when it came to its
/// end before that.
///
/// On one core it works with one thread, so that the calls come in the same order each time.
#[track_caller]
pub fn killed_at(scratch: &Scratch, call: &str, number: usize, arguments: &[&str]) -> bool {
    let (trace, inject) = (
        format!("trace={call}"),
        format!("inject={call}:signal=KILL:when={number}"),
    );
    let mut command = scratch.command("taskset");
    command
        .args([
            "-c",
            "0",
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &trace,
            "-e",
            &inject,
        ])
        .arg(env!("CARGO_BIN_EXE_sealrs"))
        .args(arguments);
    match outcome(&mut command) {
        (Some(0), _) => false,
        // strace dies of the signal that its child died of.
        (None | Some(137), _) => true,
        (code, said) => panic!("{call} {number}: {code:?} {said}"),
    }
}

/// Runs sealrs, which has to succeed; gives how many bytes it wrote to files, pipes and terminals.
#[track_caller]
pub fn written_by(scratch: &Scratch, arguments: &[&str]) -> u64 {
    let log = scratch.path("writes.log");
    let mut command = scratch.command("strace");
    command
        .args(["-f", "-qq", "-s", "0", "-e", "trace=write,pwrite64,writev", "-o", &log])
        .arg(env!("CARGO_BIN_EXE_sealrs"))
        .args(arguments);
    succeed(&mut command);
    // `PID write(3, ""..., 4096) = 4096`; failed calls end in words.
    let log = super::text(&scratch.read("writes.log"));
    let results = log
        .lines()
        .filter_map(|line| line.rsplit_once(" = ")?.1.parse::<u64>().ok());
    results.sum()
}

/// How files get their names: by one of these calls.
pub const RENAMES: [&str; 2] = ["rename", "renameat"];
