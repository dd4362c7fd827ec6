//! What a runtime's containers leave when its service ends: their processes and mounts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount as unmount_path};
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};

use crate::execute::mounts_below;
use crate::files;
use crate::process::{self, Process};

/// Where cgroups of version 1 freeze processes.
const FREEZER: &str = "/sys/fs/cgroup/freezer";

/// Ends the processes of containers: those in the cgroups, and the shims of this containerd with all below them.
pub(super) fn end_processes(cgroups: &[String], socket: &Path) -> Result<Option<String>> {
    let all = process::all();
    let socket_target = fs::canonicalize(socket.parent().unwrap_or(socket))
        .map(|folder| folder.join(socket.file_name().unwrap_or_default()))
        .unwrap_or_else(|_| socket.to_owned());
    let sockets = [socket, &socket_target].map(|path| path.to_string_lossy().into_owned());
    let found = processes_of_containers(&all, std::process::id().cast_signed(), cgroups, &sockets);
    if found.is_empty() {
        remove_shim_sockets(socket.parent().unwrap_or(socket))?;
        return Ok(None);
    }
    thaw(&all, &found, Path::new(FREEZER));
    // Containers are not asked: pods that shut down in good order are for a drain to see to.
    let left = process::end(&found, Duration::from_millis(500));
    if left.is_empty() {
        remove_shim_sockets(socket.parent().unwrap_or(socket))?;
        return Ok(Some(format!("ended {} processes of containers", found.len())));
    }
    Err(Error::new(
        ErrorKind::Step,
        format!("processes of containers do not end: {left:?}"),
    ))
}

/// Lets processes run again that are frozen, for with cgroups of version 1 those can't even be killed: runc freezes a container
/// while it changes its limits, and its own end can come in between.
fn thaw(all: &[Process], found: &[i32], freezer: &Path) {
    for process in all.iter().filter(|process| found.contains(&process.id)) {
        let paths = process.cgroups.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|name| name == "freezer").then_some(path)
        });
        for path in paths {
            // With nothing frozen there, or nothing there at all, there is nothing to be done.
            let _ = fs::write(
                freezer.join(path.trim_start_matches('/')).join("freezer.state"),
                "THAWED",
            );
        }
    }
}

/// Removes the sockets of shims that had no time to do so. They lie among those of every containerd of the host; below
/// this one's folder each task has a file that says where.
fn remove_shim_sockets(state: &Path) -> Result<()> {
    let folders = |path: &Path| {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    for namespace in folders(&state.join("io.containerd.runtime.v2.task")) {
        for task in folders(&namespace) {
            // The one is containerd 1's, the other containerd 2's.
            for file in ["address", "bootstrap.json"] {
                let text = fs::read_to_string(task.join(file)).unwrap_or_default();
                if let Some(path) = shim_socket(&text) {
                    files::remove_file(path)?;
                }
            }
        }
    }
    Ok(())
}

/// The shim's socket in `unix:///run/containerd/s/…` or in JSON with that in it.
fn shim_socket(text: &str) -> Option<&Path> {
    let (_, rest) = text.split_once("unix://")?;
    let path = Path::new(rest.split(['"', '\n']).next()?);
    (path.parent() == Some(Path::new("/run/containerd/s"))).then_some(path)
}

/// Which of `all` belong to containers. This process and those it was started by never do, nor what shares its cgroup:
/// sealrs may itself run in a container.
fn processes_of_containers(all: &[Process], own: i32, cgroups: &[String], sockets: &[String]) -> Vec<i32> {
    let spared = process::with_ancestors(all, own);
    let own_cgroups = all
        .iter()
        .find(|process| process.id == own)
        .map(|process| process.cgroups.as_str());
    let roots: BTreeSet<i32> = all
        .iter()
        .filter(|process| {
            let contained = in_cgroup(process, cgroups) && Some(process.cgroups.as_str()) != own_cgroups;
            (contained || is_shim(process, sockets)) && !spared.contains(&process.id)
        })
        .map(|process| process.id)
        .collect();
    let mut found = process::with_descendants(all, &roots);
    found.retain(|&id| id > 1 && !spared.contains(&id));
    found.into_iter().collect()
}

/// Whether a part of one of the process's cgroup paths has such a name.
pub(crate) fn in_cgroup(process: &Process, names: &[String]) -> bool {
    process
        .cgroups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .flat_map(|path| path.split('/'))
        .any(|part| names.iter().any(|name| name == part))
}

fn is_shim(process: &Process, sockets: &[String]) -> bool {
    process.command.contains("containerd-shim")
        && process
            .command
            .split(' ')
            .any(|argument| sockets.iter().any(|socket| socket == argument))
}

/// Unmounts what was mounted below these folders since, latest first.
pub(super) fn unmount(below: &[PathBuf], kept: &[PathBuf]) -> Result<Option<String>> {
    let mut count = 0;
    for mount in mounts_below(below)?.into_iter().rev() {
        if kept.contains(&mount) {
            continue;
        }
        match unmount_path(&mount, UnmountFlags::DETACH) {
            // It went with another one.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            unmounted => {
                unmounted
                    .map_err(std::io::Error::from)
                    .or_io(|| format!("cannot unmount {}", mount.display()))?;
                count += 1;
            }
        }
    }
    Ok((count > 0).then(|| format!("unmounted {count} file systems of containers")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frozen_is_thawed() {
        let freezer = tempfile::tempdir().unwrap();
        let state = |name: &str| freezer.path().join(name).join("freezer.state");
        for name in ["kubepods/pod", "system.slice/other"] {
            fs::create_dir_all(freezer.path().join(name)).unwrap();
            fs::write(state(name), "FROZEN").unwrap();
        }
        let process = |id: i32, path: &str| Process {
            id,
            parent: 1,
            command: "runc init".to_owned(),
            cgroups: format!("9:cpu,cpuacct:/\n8:freezer:{path}\n0::/x\n"),
        };
        let all = [process(7, "/kubepods/pod"), process(8, "/system.slice/other")];
        thaw(&all, &[7], freezer.path());
        assert_eq!(fs::read_to_string(state("kubepods/pod")).unwrap(), "THAWED");
        assert_eq!(fs::read_to_string(state("system.slice/other")).unwrap(), "FROZEN");
    }

    #[test]
    fn finds_the_sockets_of_shims() {
        let socket = Some(Path::new("/run/containerd/s/0ab1"));
        assert_eq!(shim_socket("unix:///run/containerd/s/0ab1"), socket);
        let json = r#"{"version":3,"address":"unix:///run/containerd/s/0ab1","protocol":"ttrpc"}"#;
        assert_eq!(shim_socket(json), socket);
        for other in [
            "",
            "unix:///run/containerd/s/../x",
            "unix:///etc/passwd",
            "tcp://1.2.3.4:5",
        ] {
            assert_eq!(shim_socket(other), None, "{other}");
        }
    }

    #[test]
    fn tells_containers_from_others() {
        let process = |command: &str, cgroups: &str| Process {
            id: 7,
            parent: 1,
            command: command.into(),
            cgroups: cgroups.into(),
        };
        let cgroups = ["kubepods".to_owned(), "kubepods.slice".to_owned()];
        for (path, inside) in [
            ("0::/kubepods.slice/kubepods-besteffort.slice/cri-1.scope", true),
            ("5:memory:/x\n4:pids:/kubepods/burstable/pod1/2", true),
            ("0::/system.slice/my-kubepods.service", false),
            ("0::/", false),
        ] {
            assert_eq!(in_cgroup(&process("x", path), &cgroups), inside, "{path}");
        }
        let sockets = ["/run/k3s/containerd/containerd.sock".to_owned()];
        let process_at = |id, parent, cgroups: &str| Process {
            id,
            parent,
            ..process("x", cgroups)
        };
        // sealrs (4) in a pod of somebody else, started by 2 beside 5; and pods (7, 8 below it) of its own.
        let all = [
            process_at(2, 1, "0::/kubepods/outer"),
            process_at(3, 2, "0::/kubepods/outer/shell"),
            process_at(4, 3, "0::/kubepods/outer"),
            process_at(5, 1, "0::/kubepods/outer"),
            process_at(7, 1, "0::/kubepods/pod"),
            process_at(8, 7, "0::/elsewhere"),
        ];
        assert_eq!(processes_of_containers(&all, 4, &cgroups, &sockets), [7, 8]);
        let shim = "/x/containerd-shim-runc-v2 -namespace k8s.io -id 1 -address";
        assert!(is_shim(
            &process(&format!("{shim} /run/k3s/containerd/containerd.sock"), ""),
            &sockets
        ));
        assert!(!is_shim(
            &process(&format!("{shim} /run/containerd/containerd.sock"), ""),
            &sockets
        ));
        assert!(!is_shim(
            &process("vi /run/k3s/containerd/containerd.sock", ""),
            &sockets
        ));
    }
}
