//! Processes of this host: who has a file as standard input, who belongs to a cgroup, and ending them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: i32,
    pub(crate) parent: i32,
    /// Its arguments, separated by blanks.
    pub(crate) command: String,
    /// Its cgroups: the lines of /proc/PID/cgroup.
    pub(crate) cgroups: String,
}

/// All processes that can be seen. Those that end meanwhile are left out.
pub(crate) fn all() -> Vec<Process> {
    ids().into_iter().filter_map(look).collect()
}

fn ids() -> Vec<i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn look(id: i32) -> Option<Process> {
    let folder = PathBuf::from(format!("/proc/{id}"));
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // `pid (name) state parent …`: the name may hold anything, its closing bracket is the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let command = fs::read(folder.join("cmdline")).ok()?;
    Some(Process {
        id,
        parent,
        command: String::from_utf8_lossy(&command)
            .trim_end_matches('\0')
            .replace('\0', " "),
        cgroups: fs::read_to_string(folder.join("cgroup")).unwrap_or_default(),
    })
}

/// The processes that have `file` as standard input. What sealrs starts has a file of its own there, so that what a
/// killed run left behind can be found.
pub(crate) fn readers_of(file: &Path) -> Vec<i32> {
    let Ok(file) = fs::canonicalize(file) else {
        return Vec::new();
    };
    let own = std::process::id().cast_signed();
    ids()
        .into_iter()
        .filter(|&id| id != own)
        .filter(|id| fs::read_link(format!("/proc/{id}/fd/0")).is_ok_and(|input| input == file))
        .collect()
}

/// The processes of `all` below those in `roots`, and these.
pub(crate) fn with_descendants(all: &[Process], roots: &BTreeSet<i32>) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process.id);
    }
    let mut found = BTreeSet::new();
    let mut open: Vec<i32> = roots.iter().copied().collect();
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(children.get(&id).into_iter().flatten());
        }
    }
    found
}

/// A process of `all` and those above it.
pub(crate) fn with_ancestors(all: &[Process], id: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut next = Some(id);
    while let Some(id) = next.filter(|&id| found.insert(id)) {
        next = all
            .iter()
            .find(|process| process.id == id)
            .map(|process| process.parent);
    }
    found
}

/// Whether a process is there.
pub(crate) fn is_alive(id: i32) -> bool {
    look(id).is_some()
}

/// Sends a signal; a process that is gone needs none.
pub(crate) fn signal(id: i32, signal: Signal) {
    // 0 and below would mean groups or everybody.
    if let Some(pid) = Pid::from_raw(id).filter(|_| id > 1) {
        let _ = kill_process(pid, signal);
    }
}

/// Asks processes to end, kills what has not ended after `patience`, and says which are still there then.
pub(crate) fn end(ids: &[i32], patience: Duration) -> Vec<i32> {
    for &id in ids {
        signal(id, Signal::TERM);
    }
    let left = wait_for_end(ids, patience);
    for &id in &left {
        signal(id, Signal::KILL);
    }
    wait_for_end(&left, Duration::from_secs(5))
}

fn wait_for_end(ids: &[i32], patience: Duration) -> Vec<i32> {
    let deadline = Instant::now() + patience;
    loop {
        let left: Vec<i32> = ids.iter().copied().filter(|&id| is_alive(id)).collect();
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::process::{Command, Stdio};

    #[test]
    fn finds_who_reads_a_file_and_ends_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; while :; do sleep 1; done"])
            .stdin(Stdio::from(File::open(file.path()).unwrap()))
            .spawn()
            .unwrap();
        let id = child.id().cast_signed();
        assert!(readers_of(file.path()).contains(&id));
        // The sleep below it is a reader as well; asked to end, the shell stays.
        let waiter = thread::spawn(move || child.wait());
        let left = end(&readers_of(file.path()), Duration::from_millis(100));
        assert!(left.is_empty(), "{left:?}");
        waiter.join().unwrap().unwrap();
        assert!(!is_alive(id));
    }

    #[test]
    fn finds_all_below() {
        let process = |id, parent| Process {
            id,
            parent,
            command: String::new(),
            cgroups: String::new(),
        };
        let all = [process(2, 1), process(3, 2), process(4, 3), process(5, 1)];
        let found = with_descendants(&all, &BTreeSet::from([2]));
        assert_eq!(found, BTreeSet::from([2, 3, 4]));
        let own = std::process::id().cast_signed();
        assert!(super::all().iter().any(|process| process.id == own));
    }
}
