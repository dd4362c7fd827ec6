//! Runtime kubernetes from end to end, with a real kubeadm, kubelet and control plane (1.20.2) on hosts with systemd and no way
//! out: what `scripts/kubernetes.sh` has built.
//!
//! `cargo test -p sealrs --test host_kubernetes -- --nocapture --test-threads 1` shows the times.

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
mod support_kubernetes;

use std::fs;
use std::time::Duration;

use support::{assert_has, fail, needs, needs_root, succeed, text};
use support_kubernetes::{Kubernetes, programs};

/// Ends the test, with the reason printed, where no host can be made or filled.
macro_rules! needs_kubernetes {
    () => {{
        needs_root!();
        needs!(
            "sshd",
            "mkfs.ext4",
            "containerd",
            "runc",
            "iptables",
            "conntrack",
            "nft",
            "skopeo",
            "umoci",
            "docker-registry",
            "openssl",
            "gcc",
            "busybox",
            "python3",
        );
        let Some(programs) = programs() else {
            println!("skipped: this test needs what scripts/kubernetes.sh builds");
            return;
        };
        programs
    }};
}

#[test]
fn one_master_tells_what_is_wrong_comes_up_and_leaves_nothing() {
    let kubernetes = Kubernetes::new(needs_kubernetes!(), 1);
    let hosts = &kubernetes.hosts;
    let scratch = &hosts.scratch;
    // This image brings its own containerd.
    for name in ["containerd", "containerd-shim-runc-v2", "ctr"] {
        fs::copy(
            format!("/usr/bin/{name}"),
            scratch.path(&Kubernetes::in_context(&format!("bin/{name}"))),
        )
        .unwrap();
    }
    let settings = Kubernetes::in_context("etc/kubeadm.yml");
    let good = text(&scratch.read(&settings));
    let before = hosts.states();

    // kubeadm itself would drop the field.
    scratch.write(&settings, good.replace("podSubnet:", "podSubnets:"));
    let archive = kubernetes.again("typo");
    let (said, _) = kubernetes.fails(10, &["run", &archive, "-m", "10.88.0.11"]);
    assert_has(
        &said,
        &["step `kubeadm-check` failed", "kubeadm has no field `podSubnets`"],
    );
    assert!(!hosts.holds(1, "ls /etc/kubernetes/admin.conf"));
    kubernetes.delete();
    hosts.assert_untouched(&before, "a field that does not exist");

    // kubeadm itself would wait for minutes.
    scratch.write(
        &settings,
        good.replace("failSwapOn: false", "failSwapOn: false\ncpuManagerPolicy: nonsense"),
    );
    let archive = kubernetes.again("kubelet");
    let (said, took) = kubernetes.fails(10, &["run", &archive, "-m", "10.88.0.11"]);
    println!("seen: a kubelet that does not start is told after {took:?}");
    assert_has(
        &said,
        &[
            "step `kubeadm-init` failed",
            "the kubelet ends with an error",
            "nonsense",
        ],
    );
    assert!(took < Duration::from_secs(75), "{took:?}\n{said}");
    kubernetes.delete();
    hosts.assert_untouched(&before, "a kubelet that does not start");

    scratch.write(&settings, good);
    let archive = kubernetes.again("good");
    let arguments = ["run", archive.as_str(), "-m", "10.88.0.11"];
    kubernetes.ok(&arguments);
    assert_eq!(kubernetes.ready(1), ["node1"]);
    kubernetes.wait_for_pod(1, "bundled");
    let containerd = hosts.ok(1, "readlink /proc/$(systemctl show -P MainPID sealrs-containerd)/exe");
    assert_eq!(containerd.trim(), hosts.data("bin/containerd"));
    secrets(&kubernetes);
    // From outside, the API has the address of the master.
    let kubeconfig = fs::read_to_string(hosts.data("kubeconfig")).unwrap();
    assert_has(&kubeconfig, &["server: https://10.88.0.11:6443\n"]);

    let pid = hosts.ok(
        1,
        "systemctl show -P MainPID kubelet sealrs-containerd sealrs-apiserver",
    );
    assert_has(&kubernetes.ok(&arguments), &["was installed before"]);
    assert_eq!(
        hosts.ok(
            1,
            "systemctl show -P MainPID kubelet sealrs-containerd sealrs-apiserver"
        ),
        pid
    );

    succeed(&mut hosts.script(&["stop", "1"]));
    succeed(&mut hosts.script(&["start", "1"]));
    kubernetes.wait("the node is ready after a reboot", || {
        kubernetes.ready(1) == ["node1"] && hosts.holds(1, "crictl ps | grep -w main")
    });

    kubernetes.delete();
    hosts.assert_untouched(&before, "deleted");
}

/// Keys and tokens are their owner's alone.
fn secrets(kubernetes: &Kubernetes) {
    let (hosts, data) = (&kubernetes.hosts, kubernetes.hosts.data("kubernetes"));
    let listed = hosts.ok(
        1,
        &format!("stat -c '%a %n' {data}/kubeadm.yaml {data}/pki/*.key {data}/pki/etcd/*.key /root/.kube/config"),
    );
    assert!(
        listed.lines().all(|line| line.starts_with("600 ")) && listed.lines().count() >= 6,
        "{listed}"
    );
    let token = hosts.ok(
        1,
        &format!("sed -n 's/.*\"*token\"*: *\"\\(.*\\)\"/\\1/p' {data}/kubeadm.yaml"),
    );
    let token = token.trim();
    assert_eq!(token.len(), 23, "{token}");
    assert!(!hosts.ok(1, "journalctl --no-pager -o export").contains(token));
    // It was good for a minute, and for nobody.
    kubernetes.wait("the token has gone", || {
        !hosts
            .ok(1, "kubectl get secrets -n kube-system -o name")
            .contains("bootstrap-token")
    });
}

#[test]
fn three_masters_and_two_nodes_lose_one_get_it_back_and_leave_nothing() {
    let kubernetes = Kubernetes::new(needs_kubernetes!(), 5);
    let hosts = &kubernetes.hosts;
    let before = hosts.states();
    let archive = "image/kubernetes.tar";
    kubernetes.ok(&[
        "run",
        archive,
        "-m",
        "10.88.0.11,10.88.0.12,10.88.0.13",
        "-n",
        "10.88.0.14,10.88.0.15",
    ]);
    let all = ["node1", "node2", "node3", "node4", "node5"];
    assert_eq!(kubernetes.ready(2), all);
    assert_eq!(kubernetes.members(1), all[..3]);
    kubernetes.wait_for_pod(3, "bundled");
    // Pods go to nodes, and the host's own containerd has nothing of it.
    let pod = kubernetes.get(1, "pod bundled").unwrap();
    assert!(
        ["node4", "node5"].contains(&pod["spec"]["nodeName"].as_str().unwrap()),
        "{pod}"
    );
    assert!(hosts.holds(4, "! systemctl is-active -q containerd"));
    let secrets = hosts.ok(1, "kubectl get secrets -n kube-system -o name");
    assert!(
        !secrets.contains("bootstrap-token"),
        "nobody can join any more: {secrets}"
    );

    // A node does not care which master is there.
    let asks = "for _ in 1 2 3 4 5 6; do kubectl --cache-dir /tmp/sealrs-test --kubeconfig /etc/kubernetes/kubelet.conf --request-timeout 10s get node node4 || exit 1; done";
    succeed(&mut hosts.script(&["stop", "1"]));
    assert!(hosts.holds(4, asks), "one master is down");
    succeed(&mut hosts.script(&["start", "1"]));
    kubernetes.wait("the first master is back", || kubernetes.ready(1) == all);
    // And a master does not leave while the etcd of another one is down: two of three would be gone.
    let leave = ["delete", "-m", "10.88.0.13", "--force"];
    hosts.ok(2, "mv /etc/kubernetes/manifests/etcd.yaml /root/");
    kubernetes.wait("the second etcd is down", || {
        !hosts.holds(2, "crictl ps -q --name '^etcd$' | grep -q .")
    });
    let said = fail(&mut hosts.operator(&leave), 10);
    assert_has(
        &said,
        &["step `leave-etcd-10.88.0.13", "https://10.88.0.12:2379 is down"],
    );
    assert_eq!(kubernetes.members(1), all[..3]);
    hosts.ok(2, "mv /root/etcd.yaml /etc/kubernetes/manifests/");
    kubernetes.wait("the second master is back", || {
        hosts.holds(2, "crictl ps -q --name '^etcd$' | grep -q .") && kubernetes.ready(2) == all
    });

    // The same command goes on from there.
    let said = succeed(&mut hosts.operator(&leave));
    assert_has(&said, &["it has masters 10.88.0.11, 10.88.0.12, nodes"]);
    assert_eq!(kubernetes.members(1), ["node1", "node2"]);
    assert_eq!(kubernetes.ready(1), ["node1", "node2", "node4", "node5"]);
    assert_eq!(hosts.state(3), before[2], "host 3 is as it was");
    kubernetes.wait("nodes know the masters that are left", || {
        hosts.ok(4, &format!("cat {}", hosts.data("kubernetes/servers"))) == "10.88.0.11\n10.88.0.12\n"
    });

    kubernetes.ok(&["scale-up", archive, "-m", "10.88.0.13"]);
    assert_eq!(kubernetes.ready(3), all);
    assert_eq!(kubernetes.members(3), all[..3]);
    kubernetes.wait("nodes know the new master", || {
        hosts
            .ok(5, &format!("cat {}", hosts.data("kubernetes/servers")))
            .contains("10.88.0.13\n")
    });

    kubernetes.delete();
    hosts.assert_untouched(&before, "deleted");
}
