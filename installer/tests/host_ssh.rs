//! Hosts over SSH, on real ones with systemd and PAM: passwords, sudo, a host that is down, a cable that is pulled.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support_ssh;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::{Duration, Instant};

use sealrs_image::error::{Error, ErrorKind};
use sealrs_installer::host::{Command, Host as _, Ssh, SshOptions};
use support_ssh::{Agent, keygen, needs, wait_until};

const PASSWORD: &str = "sealrs";

/// Hosts of testdata/hosts.sh. Gone when dropped.
struct Hosts {
    name: String,
    state: PathBuf,
}

impl Hosts {
    fn boot(count: u32) -> Self {
        let name = format!("s{:x}", std::process::id());
        let state = PathBuf::from(format!("/var/tmp/test-hosts-{name}"));
        let hosts = Self { name, state };
        hosts.sh(&["up", &count.to_string()]);
        hosts
    }

    fn command(&self, words: &[&str]) -> Process {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/hosts.sh");
        let mut command = Process::new(script);
        command
            .args(words)
            .env("HOSTS_NAME", &self.name)
            .env("HOSTS_STATE", &self.state);
        command
    }

    #[track_caller]
    fn sh(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A line of bash on a host.
    #[track_caller]
    fn on(&self, number: u32, line: &str) -> String {
        self.sh(&["exec", &number.to_string(), "bash", "-c", line])
    }

    /// Does something in the network of the hosts. Connections are made by the thread that asks for them.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let network = fs::File::open(format!("/run/netns/{}-ctl", self.name)).unwrap();
        std::thread::scope(|scope| {
            let work = scope.spawn(move || {
                use std::os::fd::AsFd as _;
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(network.as_fd(), Some(kind)).unwrap();
                work()
            });
            work.join().unwrap()
        })
    }

    /// The other account by its password.
    fn options(&self, number: u32) -> SshOptions {
        let mut options = SshOptions::new(format!("10.88.0.{}", 10 + number));
        options.user = "ops".to_owned();
        options.password = Some(PASSWORD.to_owned());
        options.agent = None;
        options.known_hosts = self.state.join("known_hosts_of_test");
        options.connect_limit = Duration::from_secs(5);
        options
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = self.command(&["down"]).output();
    }
}

fn whole(error: &Error) -> String {
    format!("{error}: {}", error.causes().join(": "))
}

fn sh(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

#[test]
fn passwords_sudo_and_hosts_that_fail() {
    needs!(
        "/usr/sbin/sshd",
        "/lib/systemd/systemd",
        "/usr/sbin/nft",
        "/usr/bin/sudo",
        "/usr/bin/ssh-agent"
    );
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: only root can make test hosts");
        return;
    }
    let hosts = Hosts::boot(2);
    let asks = "printf 'PasswordAuthentication no\\nKbdInteractiveAuthentication yes\\n' \
                >/etc/ssh/sshd_config.d/000.conf; systemctl reload ssh";
    hosts.on(2, asks);
    logins(&hosts);
    free_sudo(&hosts);
    sudo_with_a_password(&hosts);
    no_sudo(&hosts);
    folders(&hosts);
    cables(&hosts);
}

fn logins(hosts: &Hosts) {
    for number in [1, 2] {
        let output = hosts.inside(|| Ssh::new(hosts.options(number)).run(&sh("id -un; hostname")));
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        assert_eq!(text, format!("ops\nnode{number}\n"));
        let mut options = hosts.options(number);
        options.password = Some("not it".to_owned());
        let error = hosts.inside(|| Ssh::new(options).connect()).unwrap_err();
        let text = whole(&error);
        assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
        let tried = ["password", "keyboard-interactive"][number as usize - 1];
        for word in ["does not let ops in", tried, "it takes: publickey"] {
            assert!(text.contains(word), "{word} is not in: {text}");
        }
        assert!(!text.contains("not it"), "{text}");
    }
    // Keys that are not let in leave tries for the password.
    let agent = Agent::start();
    for number in 0..8 {
        let key = hosts.state.join(format!("stranger{number}"));
        keygen(&key, &["ed25519"], "");
        agent.add(&key, "");
    }
    let mut options = hosts.options(1);
    options.agent = Some(agent.socket());
    hosts.inside(|| Ssh::new(options).connect()).unwrap();
}

fn free_sudo(hosts: &Hosts) {
    hosts.on(1, "echo 'ops ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/ops");
    let mut options = hosts.options(1);
    options.password = None;
    options.identities = vec![hosts.state.join("id_ed25519")];
    let host = Ssh::new(options);
    hosts.inside(|| {
        assert_ne!(host.facts(false).unwrap().uid, 0);
        let facts = host.facts(true).unwrap();
        assert_eq!((facts.uid, facts.folder.as_deref()), (0, Some("/var/lib")));
        host.upload("/root/free", 0o600, &mut b"of all".as_slice(), 6, true)
            .unwrap();
    });
    assert_eq!(
        hosts.on(1, "stat -c '%a %U' /root/free; cat /root/free"),
        "600 root\nof all"
    );
}

fn sudo_with_a_password(hosts: &Hosts) {
    // Some programs need none: they must not get it as their input.
    hosts.on(
        1,
        "echo 'ops ALL=(ALL) ALL, NOPASSWD: /usr/bin/cat, /usr/bin/true' >/etc/sudoers.d/ops",
    );
    let host = Ssh::new(hosts.options(1));
    hosts.inside(|| {
        assert_eq!(host.facts(true).unwrap().uid, 0);
        for _ in 0..2 {
            let output = host.run(&Command::new("cat").stdin("given").sudo()).unwrap();
            assert_eq!(output.stdout, b"given");
        }
        host.upload("/root/asked", 0o600, &mut b"of all".as_slice(), 6, true)
            .unwrap();
        let output = host.run(&sh("exit 7").sudo()).unwrap();
        assert_eq!(output.status, Some(7));
        // It runs as root, so that no signal of the user's reaches it.
        let stubborn = sh("trap '' TERM HUP; while :; do touch /root/alive; sleep 0.1; done");
        host.run(&stubborn.sudo().limit(Duration::from_secs(1))).unwrap_err();
    });
    wait_until("the program of root is gone", || {
        hosts
            .on(1, "rm -f /root/alive; sleep 0.5; ls /root")
            .lines()
            .all(|name| name != "alive")
    });
    assert_eq!(hosts.on(1, "cat /root/asked"), "of all");
    // What sudo remembers changes nothing, and nobody sees the password.
    hosts.inside(|| {
        let mut session = host.start(&sh("cat >/dev/null").sudo()).unwrap();
        let seen = hosts.on(1, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'");
        assert!(seen.contains("SEALRS_SESSION="), "{seen}");
        assert!(seen.lines().all(|line| !line.ends_with(PASSWORD)), "{seen}");
        drop(session.take_stdin());
        assert!(session.wait(Duration::from_secs(10)).unwrap().success());
    });
    let mut options = hosts.options(1);
    options.sudo_password = Some("not it".to_owned());
    let error = hosts.inside(|| Ssh::new(options).facts(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
    assert!(
        whole(&error).contains("ops may not use sudo on 10.88.0.11"),
        "{error:?}"
    );
    assert!(!format!("{error:?}").contains("not it"), "{error:?}");
    let mut options = hosts.options(1);
    options.password = None;
    options.identities = vec![hosts.state.join("id_ed25519")];
    let error = hosts.inside(|| Ssh::new(options).facts(true)).unwrap_err();
    assert!(error.remedy().unwrap().contains("give sudo's password"), "{error:?}");
}

fn no_sudo(hosts: &Hosts) {
    hosts.on(1, "rm /etc/sudoers.d/ops");
    let error = hosts.inside(|| Ssh::new(hosts.options(1)).facts(true)).unwrap_err();
    assert!(whole(&error).contains("may not use sudo"), "{error:?}");
    hosts.on(1, "mount --bind /dev/null /usr/bin/sudo");
    let error = hosts.inside(|| Ssh::new(hosts.options(1)).facts(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
    hosts.on(1, "umount /usr/bin/sudo");
}

/// Where a program can be put without root's rights.
fn folders(hosts: &Hosts) {
    let host = Ssh::new(hosts.options(1));
    let folder = || hosts.inside(|| host.facts(false).unwrap().folder);
    assert_eq!(folder().as_deref(), Some("/home/ops"));
    hosts.on(1, "chmod 500 /home/ops; mount -t tmpfs -o noexec,mode=1777 none /tmp");
    assert_eq!(folder().as_deref(), Some("/var/tmp"));
    hosts.on(1, "mount -t tmpfs -o noexec,mode=1777 none /var/tmp");
    assert_eq!(folder(), None);
    hosts.on(
        1,
        "umount /var/tmp /tmp; chmod 700 /home/ops; ls -A /home/ops /tmp | grep sealrs && exit 1; true",
    );
}

fn cables(hosts: &Hosts) {
    let mut options = hosts.options(1);
    options.keep_alive = Duration::from_secs(1);
    let host = Ssh::new(options);
    hosts.inside(|| {
        host.connect().unwrap();
        let start = Instant::now();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| host.run(&sh("sleep 60")).unwrap_err());
            let upload = scope.spawn(|| {
                let mut zeros = std::io::repeat(0);
                host.upload("/home/ops/file", 0o600, &mut zeros, 1 << 40, false)
                    .unwrap_err()
            });
            std::thread::sleep(Duration::from_millis(500));
            hosts.sh(&["net", "1", "down"]);
            for error in [run.join().unwrap(), upload.join().unwrap()] {
                assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
            }
        });
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        let error = host.run(&sh("true")).unwrap_err();
        assert!(whole(&error).contains("cannot connect to 10.88.0.11"), "{error:?}");
        hosts.sh(&["net", "1", "up"]);
        wait_until("the host is back", || host.run(&sh("true")).is_ok());
        hosts.sh(&["stop", "2"]);
        let error = Ssh::new(hosts.options(2)).connect().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
        // The same host by way of another, which sees it as little.
        let mut options = hosts.options(2);
        options.jumps = vec![hosts.options(1)];
        let error = Ssh::new(options).connect().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
        hosts.sh(&["start", "2"]);
        let mut options = hosts.options(2);
        options.jumps = vec![hosts.options(1)];
        let host = Ssh::new(options);
        // The other host has to notice that it is back, too: what it remembers of its cable is asked again in time.
        hosts.on(1, "ip neigh flush all");
        wait_until("the way is open", || host.connect().is_ok());
        let way = host.run(&sh("echo $SSH_CONNECTION")).unwrap();
        assert!(way.stdout.starts_with(b"10.88.0.11 "), "{way:?}");
    });
}
