//! `sealrs check` on real hosts: what is wrong with them is made wrong for real, and nothing is changed by looking.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod support;
mod support_hosts;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;
use support::{assert_has, fail, needs, needs_root, outcome, succeed};
use support_hosts::Hosts;

macro_rules! needs_hosts {
    () => {
        needs_root!();
        needs!("sshd", "mkfs.ext4", "nft", "gcc", "python3");
    };
}

/// Programs of a host whose clock is ahead have this in front of the C library.
const AHEAD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int end = real(id, now);
    if (id == CLOCK_REALTIME) now->tv_sec += 90;
    return end;
}
"#;

fn image(hosts: &Hosts) {
    hosts.scratch.program("context/bin/k3s", "#!/bin/sh\n");
    let kubefile = "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=k3s\nCOPY . .\n";
    hosts.scratch.build("x:1", kubefile, &[]);
    hosts.scratch.ok(&["save", "x:1", "-o", "x.tar", "--force"]);
}

/// Sets the clock of a host ahead.
fn set_ahead(hosts: &Hosts, number: u32) {
    let source = hosts.scratch.write("ahead.c", AHEAD);
    let library = hosts.scratch.path("ahead.so");
    succeed(
        Command::new("gcc")
            .args(["-shared", "-fPIC", "-o", &library])
            .arg(source)
            .arg("-ldl"),
    );
    let mut receive = hosts.script(&["exec", &number.to_string(), "sh", "-c", "cat > /var/lib/ahead.so"]);
    succeed(receive.stdin(fs::File::open(library).unwrap()));
    hosts.ok(
        number,
        "chmod 755 /var/lib/ahead.so; echo /var/lib/ahead.so > /etc/ld.so.preload",
    );
}

#[test]
fn all_that_stands_against_a_cluster_is_told_at_once() {
    needs_hosts!();
    let hosts = Hosts::boot(5);
    image(&hosts);
    let access = hosts.access();
    let named = |words: &[&str], masters: &str, nodes: &str| {
        let mut all: Vec<&str> = words.to_vec();
        all.extend(["-m", masters, "-n", nodes]);
        all.extend(access.iter().map(String::as_str));
        hosts.operator(&all)
    };
    let before = hosts.states();

    // Hosts that are as they should be.
    let said = succeed(&mut named(&["check", "x.tar"], "10.88.0.11", "10.88.0.12-10.88.0.15"));
    assert_has(&said, &["10.88.0.11  master  node1", "10.88.0.15  node    node5"]);
    assert!(!said.contains("error"), "{said}");
    hosts.assert_untouched(&before, "a check");

    set_ahead(&hosts, 2);
    hosts.ok(
        2,
        "mkdir -p /etc/kubernetes /etc/ufw; touch /etc/kubernetes/admin.conf; echo ENABLED=yes > /etc/ufw/ufw.conf; \
         ip link add cni0 type bridge; echo nameserver 127.0.0.1 > /etc/resolv.conf; \
         systemd-run --quiet --unit=busy python3 -m http.server 10250",
    );
    hosts.ok(
        3,
        "hostname Node1; mount --bind /var/lib /var/lib; mount -o remount,bind,noexec /var/lib",
    );
    let id = hosts.ok(1, "cat /etc/machine-id").trim().to_owned();
    hosts.ok(3, &format!("chmod 644 /etc/machine-id; echo {id} > /etc/machine-id"));
    hosts.ok(5, "mv /root/.ssh/authorized_keys /root/.ssh/none");
    hosts.wait_for(2, "exec 3<>/dev/tcp/127.0.0.1/10250");
    succeed(&mut hosts.script(&["stop", "4"]));
    let before = hosts.state(1);

    let mut command = named(
        &["check", "x.tar", "--output", "json"],
        "10.88.0.11",
        "10.88.0.12-10.88.0.15",
    );
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(9),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_has(&String::from_utf8_lossy(&output.stderr), &["\"code\":\"preflight\""]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let of = |host: &str| -> BTreeSet<String> {
        let of_host = findings.iter().filter(|finding| finding["host"] == host);
        let word = |finding: &Value| {
            let mark = if finding["fatal"] == true { "!" } else { "" };
            assert!(!finding["remedy"].as_str().unwrap().is_empty(), "{finding}");
            format!("{}{mark}", finding["check"].as_str().unwrap())
        };
        // These are of the machine that the hosts are on.
        let of_machine = [
            "time-service",
            "disk-speed",
            "open-files",
            "inotify",
            "swap",
            "kernel-options",
        ];
        of_host
            .map(word)
            .filter(|word| !of_machine.contains(&word.as_str()))
            .collect()
    };
    let set = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(of("10.88.0.11"), set(&[]));
    assert_eq!(
        of("10.88.0.12"),
        set(&["clock!", "leftovers!", "firewall", "resolv-conf", "runtime-port!"])
    );
    assert_eq!(of("10.88.0.13"), set(&["hostname!", "machine-id", "noexec!"]));
    assert_eq!(of("10.88.0.14"), set(&["connection!"]));
    assert_eq!(of("10.88.0.15"), set(&["login!"]));
    let text = report.to_string();
    assert_has(
        &text,
        &[
            " s ahead of most others",
            "another kubernetes is or was on this host: /etc/kubernetes/admin.conf",
            "the network of another cluster is or was on this host: cni0",
            "port 10250, which k3s needs, is in use by python3",
            "it has the same name as 10.88.0.11: node1",
            "programs can't be started below /var/lib",
        ],
    );
    assert_eq!(
        report["errors"].as_u64().unwrap(),
        findings.iter().filter(|f| f["fatal"] == true).count() as u64
    );
    assert_eq!(report["hosts"][0]["machine"]["hostname"], "node1");
    assert_eq!(report["hosts"][3]["machine"], Value::Null);

    // The same for people, and for a runtime without an image.
    let (code, said) = outcome(&mut named(
        &["check", "--runtime", "k0s"],
        "10.88.0.11",
        "10.88.0.12-10.88.0.15",
    ));
    assert_eq!(code, Some(9));
    assert_has(
        &said,
        &["10.88.0.14  node    -", "connection", "→ remove it first", "10.88.0.15"],
    );
    assert_has(
        &fail(
            &mut named(&["check", "--runtime", "nomad"], "10.88.0.11", "10.88.0.12"),
            2,
        ),
        &["there is no cluster runtime `nomad`", "k0s, k3s, kubernetes, script"],
    );

    // A run looks at the same, and stops before anything is changed.
    let said = fail(&mut named(&["run", "x.tar"], "10.88.0.11", "10.88.0.12,10.88.0.13"), 9);
    assert_has(
        &said,
        &[
            "10.88.0.12: its clock is ",
            "10.88.0.12: another kubernetes",
            "10.88.0.13: programs can't",
        ],
    );
    assert_eq!(hosts.state(1), before, "looking changes nothing");
    assert!(!fs::exists(hosts.data("")).unwrap(), "the operator keeps nothing");

    // Put right, they can be used.
    hosts.ok(
        2,
        "rm -r /etc/ld.so.preload /etc/kubernetes /etc/ufw/ufw.conf; ip link del cni0; : > /etc/resolv.conf; systemctl stop busy",
    );
    let said = succeed(&mut named(&["check", "x.tar"], "10.88.0.11", "10.88.0.12"));
    assert!(!said.contains("error"), "{said}");
}
