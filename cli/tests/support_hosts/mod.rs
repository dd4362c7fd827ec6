//! Several hosts of testdata/hosts.sh with systemd, and an operator beside them who is none of them.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Scratch, succeed};

/// Prints what there is on a host.
const STATE: &str = include_str!("../support_runtime/state.sh");

/// The hosts, and the folder where things for them are made.
#[derive(Debug)]
pub struct Hosts {
    pub scratch: Scratch,
    name: String,
    count: u32,
    /// What hosts.sh is told besides.
    settings: Vec<(&'static str, String)>,
}

impl Hosts {
    pub fn boot(count: u32) -> Self {
        Self::boot_with(count, Vec::new())
    }

    /// Hosts that a kubelet runs on.
    pub fn boot_for_kubelets(count: u32) -> Self {
        let settings = [("HOSTS_CGROUP", "v1"), ("HOSTS_SYSCTL", "rw")];
        Self::boot_with(count, settings.map(|(name, value)| (name, value.to_owned())).to_vec())
    }

    /// With settings for hosts.sh.
    pub fn boot_with(count: u32, settings: Vec<(&'static str, String)>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Process ids have at most seven digits; names of hosts.sh at most eight letters.
        let letter = char::from(b'A' + u8::try_from(NEXT.fetch_add(1, Ordering::Relaxed) % 16).unwrap());
        let hosts = Self {
            scratch: Scratch::new(),
            name: format!("{letter}{:x}", std::process::id()),
            count,
            settings,
        };
        // The program stays the same though it be built anew meanwhile.
        let program = hosts.scratch.path("sealrs");
        if fs::hard_link(env!("CARGO_BIN_EXE_sealrs"), &program).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_sealrs"), &program).unwrap();
        }
        succeed(&mut hosts.script(&["up", &count.to_string()]));
        for number in 1..=count {
            hosts.wait_for(number, "systemctl is-system-running | grep -qE 'running|degraded'");
            // As it is after the second boot.
            hosts.ok(number, "chmod 700 /root");
        }
        hosts
    }

    /// `hosts.sh` for these hosts.
    pub fn script(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(hosts_sh());
        self.settings(&mut command).args(arguments);
        command
    }

    /// Tells a program that runs `hosts.sh` which hosts are meant.
    pub fn settings<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("HOSTS_NAME", &self.name)
            .env("HOSTS_STATE", self.scratch.path("hosts"))
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null())
    }

    /// A command line of bash on a host.
    pub fn bash(&self, number: u32, line: &str) -> Command {
        self.script(&["exec", &number.to_string(), "bash", "-c", line])
    }

    /// It has to succeed; gives what it printed.
    #[track_caller]
    pub fn ok(&self, number: u32, line: &str) -> String {
        succeed(&mut self.bash(number, line))
    }

    /// Whether it succeeds.
    pub fn holds(&self, number: u32, line: &str) -> bool {
        self.bash(number, line).output().unwrap().status.success()
    }

    /// Waits until a line of bash succeeds on a host.
    #[track_caller]
    pub fn wait_for(&self, number: u32, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.holds(number, line) {
            assert!(Instant::now() < deadline, "waited too long on host {number}: {line}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// sealrs on the operator's side, behind `before`.
    pub fn operator_behind(&self, before: &[&str], arguments: &[&str]) -> Command {
        let program = self.scratch.path("sealrs");
        let root = self.root();
        let mut words = vec!["exec", "ctl"];
        words.extend(before);
        words.extend([program.as_str(), "--root", &root, "--quiet"]);
        words.extend(arguments);
        let mut command = self.script(&words);
        command.env_remove("SSH_AUTH_SOCK").current_dir(self.scratch.path(""));
        command
    }

    /// sealrs on the operator's side.
    pub fn operator(&self, arguments: &[&str]) -> Command {
        self.operator_behind(&[], arguments)
    }

    /// The operator's root, which is that of the hosts as well.
    pub fn root(&self) -> String {
        "/var/lib/".to_owned() + &self.name
    }

    /// A file of the cluster's folder, on hosts and on the operator's side.
    pub fn data(&self, name: &str) -> String {
        format!("{}/data/my-cluster/{name}", self.root())
    }

    /// The flags by which hosts are reached with their key.
    pub fn access(&self) -> Vec<String> {
        let key = self.scratch.path("hosts/id_ed25519");
        let known = self.scratch.path("known_hosts");
        ["-i", &key, "--known-hosts", &known].map(str::to_owned).to_vec()
    }

    /// Everything on a host that an installation could change.
    pub fn state(&self, number: u32) -> BTreeSet<String> {
        let path = self.scratch.write("state.sh", STATE);
        let mut command = self.script(&["exec", &number.to_string(), "bash", "-s"]);
        let printed = succeed(command.stdin(fs::File::open(path).unwrap()));
        // systemd reaches it once for services that want the network, and never gives it back; PAM writes at each login; and
        // what looks around ends while it looks. All who use iptables share a lock, which nobody can take away safely.
        let others = [
            "unit network-online.target ",
            "path /run/motd.dynamic ",
            "path /run/xtables.lock ",
            "process [",
        ];
        let counts = |line: &&str| !others.iter().any(|other| line.starts_with(other));
        printed.lines().filter(counts).map(str::to_owned).collect()
    }

    /// The states of all hosts.
    pub fn states(&self) -> Vec<BTreeSet<String>> {
        (1..=self.count).map(|number| self.state(number)).collect()
    }

    /// Asserts that all hosts are as they were, and the operator's side is empty.
    #[track_caller]
    pub fn assert_untouched(&self, before: &[BTreeSet<String>], why: &str) {
        for (number, (before, after)) in (1..).zip(before.iter().zip(self.states())) {
            let missing = before.difference(&after).map(|line| format!("- {line}\n"));
            let added = after.difference(before).map(|line| format!("+ {line}\n"));
            let difference: String = missing.chain(added).collect();
            assert!(difference.is_empty(), "{why}: host {number}:\n{difference}");
        }
        assert!(
            !Path::new(&self.data("")).exists(),
            "{why}: the operator keeps something"
        );
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = self.script(&["down"]).output();
        let _ = fs::remove_dir_all(self.root());
    }
}

pub fn hosts_sh() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../testdata/hosts.sh")
        .canonicalize()
        .unwrap()
}
