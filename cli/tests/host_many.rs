//! Many hosts over SSH: an operator who is none of them installs, adds hosts, removes some, and removes all. Real sshd and
//! systemd, with runtime `script`.

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

use support::images::push;
use support::registry::{Registry, Setup};
use support::{assert_has, fail, needs, needs_root, noise, outcome, succeed};
use support_hosts::Hosts;

const INIT: &str = "#!/bin/bash\nset -eu\necho \"init $1 of $MASTER_IPS\" >> /var/lib/calls\n\
    echo 'server: https://127.0.0.1:6443' > \"$KUBECONFIG\"\n";
const JOIN: &str = "#!/bin/bash\nset -eu\necho \"join $1 to $MASTER_IP\" >> /var/lib/calls\n";
const LEAVE: &str = "#!/bin/bash\necho \"leave $1\" >> /var/lib/left\n";
const RESET: &str = "#!/bin/bash\nrm -f /var/lib/calls\n";

macro_rules! needs_hosts {
    () => {
        needs_root!();
        needs!("sshd", "mkfs.ext4", "nft", "iptables", "curl", "strace");
    };
}

/// Builds and saves the image as `x.tar`.
fn image(hosts: &Hosts) {
    let scratch = &hosts.scratch;
    for (name, text) in [("init", INIT), ("join", JOIN), ("leave", LEAVE), ("reset", RESET)] {
        scratch.program(&format!("context/scripts/runtime/{name}.sh"), text);
    }
    scratch.write("context/etc/who.tmpl", "host {{ .HostIP }}");
    scratch.write("context/registry/docker/registry/v2/keep", "");
    let kubefile = "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=script\nCOPY . .\n\
        CMDS [\"echo $HostIP >> /var/lib/calls\"]\n";
    scratch.build("x:1", kubefile, &[]);
    scratch.ok(&["save", "x:1", "-o", "x.tar", "--force"]);
}

/// `sealrs` of the operator, with the flags by which hosts are reached.
fn arguments<'a>(words: &[&'a str], access: &'a [String]) -> Vec<&'a str> {
    words.iter().copied().chain(access.iter().map(String::as_str)).collect()
}

#[test]
fn a_cluster_is_installed_grows_shrinks_and_goes() {
    needs_hosts!();
    let hosts = Hosts::boot(4);
    image(&hosts);
    let before = hosts.states();
    let access = hosts.access();
    let install = ["run", "x.tar", "-m", "10.88.0.11,10.88.0.12", "-n", "10.88.0.13"];

    let plan = succeed(&mut hosts.operator(&arguments(&[&install[..], &["--dry-run"]].concat(), &access)));
    assert_has(&plan, &["masters 10.88.0.11, 10.88.0.12, nodes 10.88.0.13"]);
    assert_has(&plan, &["[runtime-join@10.88.0.13]"]);
    hosts.assert_untouched(&before, "a dry run");

    let said = succeed(&mut hosts.operator(&arguments(&install, &access)));
    assert_has(
        &said,
        &["cluster my-cluster is installed: runtime script on masters 10.88.0.11, 10.88.0.12, nodes 10.88.0.13"],
    );
    for (number, calls) in [
        (1, "init master of 10.88.0.11,10.88.0.12\n10.88.0.11\n"),
        (2, "join master to 10.88.0.11\n"),
        (3, "join node to 10.88.0.11\n"),
    ] {
        assert_eq!(hosts.ok(number, "cat /var/lib/calls"), calls);
        let who = hosts.ok(number, &format!("cat {}", hosts.data("rootfs/etc/who")));
        assert_eq!(who, format!("host 10.88.0.1{number}"));
        let ca = hosts.data("pki/ca.crt");
        hosts.ok(number, &format!("curl -sSf --cacert {ca} https://sea.hub:5000/v2/"));
        // The key of the authority stays with the operator, and that of the registry with its host.
        assert!(!hosts.holds(number, &format!("ls {}", hosts.data("pki/ca.key"))));
        assert_eq!(
            hosts.holds(number, &format!("ls {}", hosts.data("pki/registry.key"))),
            number == 1
        );
        assert!(
            !hosts.holds(number, "ls -a /var/lib /opt /tmp | grep '^[.]sealrs'"),
            "the passing program"
        );
    }
    // From outside, the API has the address of the master.
    let kubeconfig = fs::read_to_string(hosts.data("kubeconfig")).unwrap();
    assert_eq!(kubeconfig, "server: https://10.88.0.11:6443\n");

    let again = succeed(&mut hosts.operator(&arguments(&install, &access)));
    assert_has(&again, &["was installed before"]);
    assert_eq!(
        hosts.ok(2, "wc -l < /var/lib/calls").trim(),
        "1",
        "nothing is done twice"
    );

    let said = succeed(&mut hosts.operator(&arguments(&["scale-up", "x.tar", "-n", "10.88.0.14"], &access)));
    assert_has(&said, &["nodes 10.88.0.13, 10.88.0.14"]);
    assert_eq!(hosts.ok(4, "cat /var/lib/calls"), "join node to 10.88.0.11\n");
    let said = fail(
        &mut hosts.operator(&arguments(&["scale-up", "x.tar", "-n", "10.88.0.14"], &access)),
        2,
    );
    assert_has(&said, &["10.88.0.14 is a host of cluster `my-cluster` already"]);
    let said = fail(&mut hosts.operator(&arguments(&install, &access)), 8);
    assert_has(&said, &["has other hosts by now"]);

    let said = fail(&mut hosts.operator(&["delete", "-m", "10.88.0.11", "--force"]), 8);
    assert_has(&said, &["has the private registry"]);
    let leave = ["delete", "-m", "10.88.0.12", "-n", "10.88.0.13", "--force"];
    let said = succeed(&mut hosts.operator(&leave));
    assert_has(&said, &["it has masters 10.88.0.11, nodes 10.88.0.14"]);
    for (number, left) in [(2, "leave master\n"), (3, "leave node\n")] {
        assert_eq!(hosts.ok(number, "cat /var/lib/left; rm /var/lib/left"), left);
        assert_eq!(
            hosts.state(number),
            before[number as usize - 1],
            "host {number} is as it was"
        );
    }
    // One that left may come again.
    let said = succeed(&mut hosts.operator(&arguments(&["scale-up", "x.tar", "-m", "10.88.0.13"], &access)));
    assert_has(&said, &["masters 10.88.0.11, 10.88.0.13, nodes 10.88.0.14"]);

    succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
    hosts.assert_untouched(&before, "deleted");
    succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
}

#[test]
fn the_registry_is_asked_for_every_image_and_by_every_host() {
    needs_hosts!();
    needs!("docker-registry", "skopeo");
    let hosts = Hosts::boot(2);
    let upstream = Registry::start(&Setup::default());
    push(
        &hosts.scratch,
        &upstream,
        "team/app:v1",
        &["linux/amd64"],
        &[noise(1, 300_000)],
    );
    let list = format!("{}/team/app:v1\n", upstream.host());
    hosts.scratch.write("context/imageList", list);
    image(&hosts);
    drop(upstream);
    let install = ["run", "x.tar", "-m", "10.88.0.11", "-n", "10.88.0.12"];
    succeed(&mut hosts.operator(&arguments(&install, &hosts.access())));
    let verify = || hosts.operator(&["verify", "--cluster", "my-cluster"]);
    let said = succeed(&mut verify());
    assert_has(&said, &["sea.hub:5000: 1 images, 3 whole blobs", "asked by 2 hosts"]);

    let blobs = hosts.data("rootfs/registry/docker/registry/v2/blobs/sha256");
    let large = format!("find {blobs} -size +200k -name data");
    let digest = hosts.ok(1, &format!("basename $(dirname $({large}))"));
    hosts.ok(1, &format!("mv $({large}) /root/away"));
    let said = fail(&mut verify(), 4);
    assert_has(
        &said,
        &[
            "10.88.0.11 can't have sha256:",
            digest.trim(),
            "/team/app:v1, asked for by imageList:1",
        ],
    );
    hosts.ok(1, &format!("mv /root/away {blobs}/{0:.2}/{0}/data", digest.trim()));
    succeed(&mut verify());

    hosts.ok(2, "nft 'add table ip t; add chain ip t o { type filter hook output priority 0; }; add rule ip t o tcp dport 5000 reject'");
    let said = fail(&mut verify(), 4);
    assert_has(&said, &["10.88.0.12 does not reach sea.hub:5000", "no firewall"]);
    hosts.ok(2, "nft delete table ip t");
    succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
}

/// What a Clusterfile can say beside its hosts.
const DOCUMENTS: &str = "
---
apiVersion: sealer.io/v1
kind: Config
metadata: {name: motd}
spec: {path: etc/motd.yaml.tmpl, data: 'of: {{ .HostIP }} {{ .ZONE }}'}
---
apiVersion: sealer.io/v1
kind: Config
metadata: {name: merged}
spec: {path: etc/settings.yaml, strategy: merge, data: 'a: {b: 2}'}
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: of-user}
spec: {type: SHELL, action: post-init-host|pre-clean-host, scope: gpu, data: 'echo \"user $ZONE\" >> /var/lib/calls'}
---
apiVersion: sealer.io/v1
kind: Plugin
metadata: {name: last}
spec: {type: SHELL, action: post-clean-host, scope: gpu, data: 'rm /var/lib/calls /var/lib/left; false'}
";

/// The Clusterfile with these lines of hosts.
fn clusterfile(hosts: &Hosts, lines: &[&str]) -> String {
    let access = hosts.access();
    let after = |flag: &str| access.iter().skip_while(|word| *word != flag).nth(1).unwrap().clone();
    format!(
        "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {{name: my-cluster}}\nspec:\n  image: x.tar\n  env: [ZONE=none]\n  \
         ssh: {{pk: {}}}\n  hostAliases: [{{ip: 10.9.9.9, hostnames: [db, db.plant]}}]\n  hosts:\n{}{DOCUMENTS}",
        after("-i"),
        lines.concat()
    )
}

#[test]
fn a_clusterfile_is_applied_and_what_it_says_is_done() {
    needs_hosts!();
    let hosts = Hosts::boot(3);
    let scratch = &hosts.scratch;
    scratch.write("context/etc/settings.yaml", "a: {b: 1, c: 3}\n");
    scratch.program(
        "context/bin/kubectl",
        "#!/bin/bash\necho \"kubectl $*\" >> /var/lib/calls\n",
    );
    scratch.write(
        "context/plugins/image.yaml",
        "apiVersion: sealer.io/v1\nkind: Plugin\nmetadata: {name: of-image}\nspec: {type: SHELL, action: pre-install, data: \
         'echo image >> /var/lib/calls'}\n",
    );
    image(&hosts);
    let before = hosts.states();
    let access = hosts.access();
    let apply = |more: &[&str]| {
        let words = [&["apply", "-f", "Clusterfile"], more].concat();
        // The key comes from the Clusterfile, the policy for hosts' keys from flags.
        let flags: Vec<String> = access.clone();
        hosts.operator(&arguments(&words, &flags))
    };
    let master = "  - {roles: [master], ips: [10.88.0.11]}\n";
    let node = "  - {roles: [node, gpu], ips: [10.88.0.12], labels: {zone: a}, taints: ['x-y=1:NoSchedule', 'old-'], env: [ZONE=a]}\n";
    scratch.write("Clusterfile", clusterfile(&hosts, &[master, node]));
    let plan = succeed(&mut apply(&["--dry-run"]));
    assert_has(
        &plan,
        &[
            "[hook-pre-install-1@10.88.0.11]",
            "label node",
            "[host-alias-10.9.9.9@10.88.0.12]",
        ],
    );
    hosts.assert_untouched(&before, "a dry run");

    succeed(&mut apply(&[]));
    let name = hosts.ok(2, "hostname").trim().to_owned();
    let calls = hosts.ok(1, "cat /var/lib/calls");
    assert_eq!(
        calls,
        format!(
            "image\ninit master of 10.88.0.11\nkubectl label --overwrite node {name} zone=a node-role.kubernetes.io/node= \
             node-role.kubernetes.io/gpu=\nkubectl taint --overwrite node {name} x-y=1:NoSchedule\nkubectl taint node {name} \
             old-\n10.88.0.11\n"
        )
    );
    assert_eq!(hosts.ok(2, "cat /var/lib/calls"), "join node to 10.88.0.11\nuser a\n");
    let read =
        |number: u32, file: &str| hosts.ok(number, &format!("cat {}", hosts.data(&format!("rootfs/etc/{file}"))));
    assert_eq!(read(1, "motd.yaml"), "of: 10.88.0.11 none");
    assert_eq!(read(2, "motd.yaml"), "of: 10.88.0.12 a");
    assert_has(&read(2, "settings.yaml"), &["b: 2", "c: 3"]);
    assert_has(&hosts.ok(2, "getent hosts db.plant"), &["10.9.9.9"]);
    assert_has(&succeed(&mut apply(&[])), &["was installed before"]);

    let other = "  - {roles: [node], ips: [10.88.0.13]}\n";
    scratch.write("Clusterfile", clusterfile(&hosts, &[master, other]));
    // The scope of the hooks is gone with the host.
    assert_has(&fail(&mut apply(&[]), 2), &["no host has a role of `gpu`"]);
    let other = "  - {roles: [node, gpu], ips: [10.88.0.13]}\n";
    scratch.write("Clusterfile", clusterfile(&hosts, &[master, other]));
    assert_eq!(
        succeed(&mut apply(&["--dry-run"])).trim(),
        "+ node 10.88.0.13\n- 10.88.0.12"
    );
    assert_has(&fail(&mut apply(&[]), 2), &["nobody is there to confirm", "10.88.0.12"]);
    succeed(&mut apply(&["--force"]));
    assert_eq!(
        hosts.ok(3, "cat /var/lib/calls"),
        "join node to 10.88.0.11\nuser none\n"
    );
    assert_has(&read(3, "settings.yaml"), &["b: 2"]);
    assert_eq!(hosts.state(2), before[1], "the host that left is as it was");
    assert_has(&succeed(&mut apply(&[])), &["is as it is wanted"]);

    let text = clusterfile(&hosts, &[master, other]).replace("[node, gpu]", "[node, gpu, x]");
    scratch.write("Clusterfile", &text);
    assert_has(&fail(&mut apply(&[]), 8), &["10.88.0.13 runs with other roles"]);
    let text = clusterfile(&hosts, &[master, other]).replace("ZONE=none", "ZONE=else");
    scratch.write("Clusterfile", &text);
    assert_has(&fail(&mut apply(&[]), 8), &["differs in more than its hosts", "ZONE"]);

    succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
    hosts.assert_untouched(&before, "deleted");
}

#[test]
fn what_stands_against_it_is_told_for_each_host_and_nothing_is_changed() {
    needs_hosts!();
    let hosts = Hosts::boot(3);
    image(&hosts);
    let access = hosts.access();
    let before = hosts.states();
    let install = ["run", "x.tar", "-m", "10.88.0.11", "-n", "10.88.0.12,10.88.0.13"];

    hosts.ok(
        3,
        "hostname node2; systemd-run --quiet --unit=busy python3 -m http.server 5000",
    );
    hosts.ok(1, "systemd-run --quiet --unit=busy python3 -m http.server 5000");
    for number in [1, 3] {
        hosts.wait_for(number, "exec 3<>/dev/tcp/127.0.0.1/5000");
    }
    let said = fail(&mut hosts.operator(&arguments(&install, &access)), 9);
    assert_has(
        &said,
        &["10.88.0.11: port 5000 of the private registry is in use by python3"],
    );
    assert_has(&said, &["10.88.0.13: it has the same name as 10.88.0.12: node2"]);
    assert!(
        !said.contains("10.88.0.13: port"),
        "only one host has the registry: {said}"
    );
    hosts.ok(3, "hostname node3; systemctl stop busy");
    hosts.ok(1, "systemctl stop busy");
    hosts.assert_untouched(&before, "refused by what was found");

    // The key of one host is another one than it was.
    let known = hosts.scratch.path("known_hosts");
    let text = fs::read_to_string(&known).unwrap();
    let key = |host: &str| {
        let line = text.lines().find(|line| line.starts_with(host)).unwrap();
        line.split_once(' ').unwrap().1.to_owned()
    };
    let swapped = text.replace(&key("10.88.0.12"), &key("10.88.0.13"));
    fs::write(&known, swapped).unwrap();
    let said = fail(&mut hosts.operator(&arguments(&install, &access)), 6);
    assert_has(&said, &["10.88.0.12"]);
    fs::write(&known, &text).unwrap();

    succeed(&mut hosts.script(&["stop", "2"]));
    let said = fail(&mut hosts.operator(&arguments(&install, &access)), 5);
    assert_has(&said, &["cannot connect to 10.88.0.12"]);
    succeed(&mut hosts.script(&["start", "2"]));
    hosts.wait_for(2, "systemctl is-system-running | grep -qE 'running|degraded'");
    hosts.assert_untouched(&before, "refused because hosts can't be reached");
}

/// The same end, whoever was killed or cut off on the way to it.
#[test]
fn interrupted_anywhere_it_is_taken_up_and_goes_without_a_trace() {
    needs_hosts!();
    let hosts = Hosts::boot(2);
    image(&hosts);
    let before = hosts.states();
    let access = hosts.access();
    let install = arguments(&["run", "x.tar", "-m", "10.88.0.11", "-n", "10.88.0.12"], &access);
    let journal = hosts.data("journal");
    let calls = |number| hosts.ok(number, "cat /var/lib/calls");
    let files = |number| {
        let list = format!(
            "cd {} && find . -path ./log -prune -o -printf '%p %y %m\\n' | sort",
            hosts.data("")
        );
        hosts
            .ok(number, &list)
            .lines()
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    let end = || {
        (
            (1..=2).map(files).collect::<Vec<_>>(),
            (1..=2).map(calls).collect::<Vec<_>>(),
        )
    };

    succeed(&mut hosts.operator(&install));
    let wanted = end();
    let lines = fs::read_to_string(&journal).unwrap().lines().count();
    succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
    hosts.assert_untouched(&before, "undisturbed");

    // Every line would take minutes; the offset moves, so that over several runs all come.
    let offset = 1 + std::process::id() as usize % 7;
    let mut killed = 0;
    for line in (offset..=lines).step_by(7) {
        let inject = format!("inject=fdatasync:signal=KILL:when={line}");
        let strace = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-P",
            &journal,
            "-e",
            "trace=fdatasync",
            "-e",
            &inject,
        ];
        let (code, said) = outcome(&mut hosts.operator_behind(&strace, &install));
        assert!(matches!(code, None | Some(137 | 0)), "line {line}: {code:?} {said}");
        // strace counts for each thread, and several write.
        if code == Some(0) {
            succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
            break;
        }
        killed += 1;
        if line % 2 == 0 {
            succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
            hosts.assert_untouched(&before, &format!("deleted after line {line}"));
            continue;
        }
        succeed(&mut hosts.operator(&install));
        let (files, calls) = end();
        assert_eq!(files, wanted.0, "line {line}");
        // A script that was killed before its end was noted is run again: at most one was.
        let extra: usize = calls
            .iter()
            .zip(&wanted.1)
            .map(|(now, before)| now.lines().count() - before.lines().count())
            .sum();
        assert!(extra <= 1, "line {line}: {calls:?}");
        succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
        hosts.assert_untouched(&before, &format!("killed at line {line}"));
    }
    assert!(killed > 3, "{killed}");

    // A host whose folder can't be written to.
    let held = format!("mkdir -p {0} && chattr +i {0}", hosts.data(""));
    if hosts.holds(2, &held) {
        let said = fail(&mut hosts.operator(&install), 7);
        assert_has(&said, &["10.88.0.12"]);
        hosts.ok(2, &format!("chattr -i {0} && rmdir -p {0} || true", hosts.data("")));
        succeed(&mut hosts.operator(&install));
        assert_eq!(end().0, wanted.0, "after a folder that could not be written");
        succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
    }
}

#[test]
fn the_operator_sends_an_image_once_and_hosts_pass_it_on() {
    needs_hosts!();
    let hosts = Hosts::boot(5);
    let payload = support::noise(7, 48 << 20);
    hosts.scratch.write("context/payload", &payload);
    image(&hosts);
    let before = hosts.states();
    let access = hosts.access();
    let install = ["run", "x.tar", "-m", "10.88.0.11", "-n", "10.88.0.12-10.88.0.15"];
    // What the operator itself has sent; what hosts send each other only passes by.
    let sent = || -> u64 {
        let line = "ip -s -j link show type bridge";
        let links = succeed(&mut hosts.script(&["exec", "ctl", "bash", "-c", line]));
        let links: serde_json::Value = serde_json::from_str(&links).unwrap();
        links[0]["stats64"]["tx"]["bytes"].as_u64().unwrap()
    };

    // The program itself goes to each host; a dry run sends that alone.
    let begin = sent();
    succeed(&mut hosts.operator(&arguments(&[&install[..], &["--dry-run"]].concat(), &access)));
    let program = sent() - begin;
    let begin = sent();
    succeed(&mut hosts.operator(&arguments(&install, &access)));
    let image = (sent() - begin).saturating_sub(program);
    println!("seen: {} bytes for a payload of {}", image, payload.len());
    assert!(image < payload.len() as u64 * 3 / 2, "{image} bytes were sent");
    for number in 1..=5 {
        let digest = hosts.ok(number, &format!("sha256sum < {}", hosts.data("rootfs/payload")));
        let wanted = succeed(
            std::process::Command::new("sha256sum")
                .stdin(fs::File::open(hosts.scratch.path("context/payload")).unwrap()),
        );
        assert_eq!(digest, wanted);
        assert!(
            !hosts.holds(number, &format!("ls {}", hosts.data("passed-on"))),
            "what was kept for others"
        );
    }
    succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
    hosts.assert_untouched(&before, "deleted");

    // No host reaches another one: the operator sends it to each.
    for (number, from) in [(1, "10.88.0.12,10.88.0.13"), (2, "10.88.0.14,10.88.0.15")] {
        hosts.ok(
            number,
            &format!("iptables -A INPUT -s {from} -p tcp --syn ! --dport 5000 -j DROP"),
        );
    }
    let begin = sent();
    succeed(&mut hosts.operator(&arguments(&install, &access)));
    let image = (sent() - begin).saturating_sub(program);
    assert!(image > payload.len() as u64 * 4, "{image} bytes were sent");
    assert!(hosts.holds(5, &format!("ls {}", hosts.data("rootfs/payload"))));
}
