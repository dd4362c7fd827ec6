//! A file system with little room.

use std::process::Command;

use super::{Scratch, outcome, succeed};

/// A tmpfs in the scratch folder; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    pub path: String,
}

impl SmallDisk {
    /// Mounts one of a size (`400k`, `4m`) as `name`; none where that can't be done, with the reason printed.
    pub fn mount(scratch: &Scratch, name: &str, size: &str) -> Option<Self> {
        let path = scratch.path(name);
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={size}");
        let mut mount = scratch.command("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs", &path]);
        if let (Some(0), _) = outcome(&mut mount) {
            return Some(Self { path });
        }
        println!("skipped: no tmpfs can be mounted here");
        None
    }

    /// Mounts a disk of 400 MB with a file system of this kind as `name`; none where that can't be done, with the reason
    /// printed.
    pub fn formatted(scratch: &Scratch, name: &str, kind: &str) -> Option<Self> {
        let path = scratch.path(name);
        let disk = scratch.path(&format!("{name}.disk"));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::File::create(&disk).unwrap().set_len(400 << 20).unwrap();
        succeed(scratch.command(&format!("mkfs.{kind}")).args(["-q", &disk]));
        let mut mount = scratch.command("mount");
        if let (Some(0), _) = outcome(mount.args(["-o", "loop", "-t", kind, &disk, &path])) {
            return Some(Self { path });
        }
        println!("skipped: no {kind} can be mounted here");
        None
    }

    /// Makes room.
    pub fn grow(&self, size: &str) {
        let size = format!("remount,size={size}");
        succeed(Command::new("mount").args(["-o", &size, &self.path]));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.path]).status();
    }
}
