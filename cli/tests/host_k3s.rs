//! Runtime k3s from end to end, on hosts of their own with systemd and no way out: upstream registries, `build`, `save`,
//! `run`, pods from the bundle and from the private registry, a reboot, what goes wrong, `kill -9`, and `delete`.
//!
//! By default k3s is the stand-in of `testdata/k3s`. The same tests run with a real program:
//!
//! | variable | is |
//! | --- | --- |
//! | `SEALRS_TEST_K3S` | the program that goes into the ClusterImage as `bin/k3s` |
//! | `SEALRS_TEST_K3S_PREPARE` | a program that is called as `PREPARE HOSTS.SH N` when a host has booted, for what that k3s needs there |
//! | `SEALRS_TEST_K3S_LEAVES` | paths that it makes besides those of k3s, separated by blanks; they may be left |
//! | `HOSTS_BIND` | what else the hosts see of this machine, as `testdata/hosts.sh` has it |
//!
//! `cargo test -p sealrs --test host_k3s -- --nocapture --test-threads 1` shows the times.

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
mod support_k3s;

use std::time::{Duration, Instant};

use support::{assert_has, fail, needs, needs_root, outcome};
use support_k3s::bundle::Bundle;
use support_k3s::host::{CLUSTER, Host};
use support_k3s::state::{State, difference};
use support_k3s::upstream::Upstream;

/// Ends the test, with the reason printed, where no host can be made or filled.
macro_rules! needs_hosts {
    () => {
        needs_root!();
        needs!(
            "sshd",
            "mkfs.ext4",
            "containerd",
            "runc",
            "iptables",
            "nft",
            "skopeo",
            "umoci",
            "docker-registry",
            "openssl",
            "gcc",
            "busybox",
            "python3",
        );
    };
}

/// What others have on a host, much like what k3s makes there. And no default route, without which k3s alone would end.
const FOREIGN: &str = "\
    set -e
    ip route del default
    mkdir -p /etc/cni/net.d /opt/cni/bin /root/.kube /var/lib/cni /var/log/containers
    [ -L /opt/cni/bin ] || echo x >/opt/cni/bin/foreign
    echo x >/etc/cni/net.d/99-foreign.conf.off; echo x >/var/log/containers/foreign; echo mine >/root/.kube/config
    echo 10.1.2.3 foreign >>/etc/hosts
    ip netns add cni-foreign; ip netns add foreign
    ip link add foreign0 type bridge
    mkdir -p /sys/fs/cgroup/memory/foreign/empty /sys/fs/cgroup/memory/foreign/kubepods
    iptables -N foreign; iptables -A foreign -p tcp --dport 7 -j DROP; iptables -A INPUT -j foreign
    mkdir -p /etc/containerd; echo 'version = 2' >/etc/containerd/config.toml
    systemctl start containerd
    ctr images import /opt/given/busybox.tar
    ctr run --detach --runc-systemd-cgroup --cgroup system.slice:ctr:foreign docker.io/library/busybox:1.35 foreign sleep 123456
    # systemd hears of a mount a little later.
    for _ in $(seq 100); do
        systemctl list-units --all --plain --no-legend | grep -q 'foreign-rootfs[.]mount' && break
        sleep 0.1
    done";

/// Pods whose images come from the private registry, by tag, by digest and by both, each under its original name.
fn pods(images: &[(&str, &str)]) -> String {
    let pod = |(name, image): &(&str, &str)| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - name: main\n    \
             image: '{image}'\n    command: [sh, -c, 'cat /content; echo; sleep 100000']\n---\n"
        )
    };
    images.iter().map(pod).collect()
}

#[test]
fn a_cluster_without_network_that_survives_a_reboot_and_leaves_nothing() {
    needs_hosts!();
    let host = Host::boot();
    let bundle = Bundle::new(&host);
    let upstream = Upstream::start(&host);
    let one = upstream.push(&bundle.image_with("one"), "docker.io/library/box:one");
    let two = upstream.push(&bundle.image_with("two"), "quay.io/tools/box:two");
    let three = upstream.push(&bundle.image_with("three"), "localhost:5000/team/box:three");
    upstream.push(&bundle.image_with("late"), "localhost:5000/team/box:late");
    bundle.write(
        "rootfs/imageList",
        format!("box:one\nquay.io/tools/box:two\nlocalhost:5000/team/box@{three}\nlocalhost:5000/team/box:late\n"),
    );
    let archive = bundle.save("cluster", Some(&upstream));
    drop(upstream);

    let before = State::of(&host);
    let watch = host.watch_processes();
    let begun = Instant::now();
    let summary = host.run(&archive, &[]);
    println!("seen: run to the end: {:?}", begun.elapsed());
    assert_eq!(summary["outcome"], "installed");
    assert_eq!(summary["kubeconfig"], format!("{CLUSTER}/kubeconfig"));

    // The node is ready, and the image's command has made a pod of an archive in `images/`.
    host.ok(&format!(
        "KUBECONFIG={CLUSTER}/kubeconfig k3s kubectl get nodes --no-headers | grep -w Ready"
    ));
    host.wait_for_pods(&["bundled"]);
    println!("seen: run to the bundled pod: {:?}", begun.elapsed());
    assert_eq!(host.pods()["bundled"].0, "busybox:1.35");

    // Others come from the private registry, by the names that they had at home.
    let images = [
        ("by-tag", "box:one"),
        ("by-digest", &format!("localhost:5000/team/box@{three}")),
        ("by-both", &format!("quay.io/tools/box:two@{two}")),
        ("by-other-digest", &format!("docker.io/library/box@{one}")),
    ];
    let asked = Instant::now();
    host.apply(&pods(&images));
    host.wait_for_pods(&images.map(|(name, _)| name));
    println!("seen: four pods from the registry: {:?}", asked.elapsed());
    for ((name, image), content) in images.iter().zip(["one", "three", "two", "one"]) {
        assert_eq!(host.pods()[*name].0, *image);
        host.wait_until("the pod says what is in its image", || host.logs(name) == content);
    }

    modes_and_secrets(&host, &watch.stop(&host));
    a_second_run_changes_nothing(&host, &archive);

    host.reboot();
    let booted = Instant::now();
    let all = ["bundled", "by-both", "by-digest", "by-other-digest", "by-tag"];
    host.wait_until("all pods run again", || host.running() == all);
    println!("seen: boot to all pods: {:?}", booted.elapsed());
    host.wait_for(
        "the node is ready",
        "k3s kubectl get nodes --no-headers | grep -w Ready",
    );
    host.apply(&pods(&[("late", "localhost:5000/team/box:late")]));
    host.wait_for_pods(&["late"]);
    assert_eq!(host.run(&archive, &[])["outcome"], "already-installed");

    let begun = Instant::now();
    assert_eq!(host.delete(), "deleted");
    println!("seen: delete: {:?}", begun.elapsed());
    assert_eq!(before.difference(&State::of(&host)), "");
    assert_eq!(host.delete(), "absent");
}

/// Files that hold secrets are their owner's alone, and nobody else has seen the token.
fn modes_and_secrets(host: &Host, processes: &str) {
    let listed = host.ok(&format!(
        "stat -c '%a %n' /etc/rancher/k3s/* /root/.kube/config {CLUSTER}/{{kubeconfig,plan.json,environment.json,journal}} \
         {CLUSTER}/{{host-manifest,options.json,secrets/k3s-*,secrets/k3s/*.key,pki/*.key,log/*}} {CLUSTER}/rootfs/certs/*.key"
    ));
    let open: Vec<&str> = listed.lines().filter(|line| !line.starts_with("600 ")).collect();
    assert!(open.is_empty() && listed.lines().count() >= 12, "{listed}");

    // Before it there is the fingerprint of the authority, which is no secret.
    let token = host.ok("sed 's/.*://' /etc/rancher/k3s/token");
    assert_eq!(token.trim().len(), 64);
    let token = token.trim();
    // k3s's own folders are not looked into.
    let holders = host.ok(&format!(
        "grep -rlF '{token}' /etc /root /home /var/lib/sealer /var/log /run /tmp --exclude-dir=k3s; \
         grep -rlF '{token}' /etc/rancher/k3s"
    ));
    let mut holders: Vec<&str> = holders.lines().filter(|path| !path.starts_with("/run/k")).collect();
    holders.sort_unstable();
    assert_eq!(
        holders,
        ["/etc/rancher/k3s/token", &format!("{CLUSTER}/secrets/k3s-token")]
    );
    assert!(!host.ok("journalctl --no-pager -o export").contains(token));
    assert!(processes.lines().count() > 100, "{processes}");
    assert!(!processes.contains(token));
    assert!(processes.contains(" server\n"), "{processes}");
}

fn a_second_run_changes_nothing(host: &Host, archive: &str) {
    let look = format!(
        "systemctl show -P MainPID k3s sealrs-registry-my-cluster; \
         find /etc {CLUSTER} /usr/local /root -path '*/.kube/cache' -prune -o -type f -printf '%p %T@ %s %m\\n' | sort"
    );
    let before = host.ok(&look);
    let begun = Instant::now();
    let summary = host.run(archive, &[]);
    println!("seen: a second run: {:?}", begun.elapsed());
    assert_eq!(summary["outcome"], "already-installed");
    assert_eq!(summary["steps"], 0);
    let after = host.ok(&look);
    assert_eq!(difference(&before.lines().collect(), &after.lines().collect()), "");
}

#[test]
fn what_goes_wrong_is_told_soon_with_cause_and_remedy() {
    needs_hosts!();
    let host = Host::boot();
    let bundle = Bundle::new(&host);
    let archive = bundle.save("good", None);
    let before = State::of(&host);

    // What is in the way, and what is wrong with the settings, is found before anything is changed.
    let taken = host.occupy(6443);
    let (said, took) = host.run_fails(9, &archive, &[]);
    assert_has(&said, &["port 6443", "in use by"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
    taken.stop(&host);
    host.ok("mkdir -p /var/lib/rancher/k3s/server/db");
    let (said, _) = host.run_fails(9, &archive, &[]);
    assert_has(
        &said,
        &["another k3s is or was on this host", "/var/lib/rancher/k3s/server"],
    );
    host.ok("rm -r /var/lib/rancher");
    let (said, _) = host.run_fails(9, &archive, &["--runtime-config", "disabel=traefik"]);
    assert_has(&said, &["k3s has no setting `disabel`", "did you mean `disable`?"]);
    assert_eq!(before.difference(&State::of(&host)), "");

    // k3s ends because of a setting that only it can judge.
    let (said, took) = host.run_fails(10, &archive, &["--runtime-config", "node-label={a b}"]);
    println!("seen: a kubelet that does not start is told after {took:?}");
    assert_has(
        &said,
        &[
            "step `k3s-ready` failed",
            "service k3s",
            "invalid node labels: '{a b}'",
            "delete --all",
        ],
    );
    assert!(took < Duration::from_secs(40), "{took:?}\n{said}");
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");

    // The image's settings have a typing error.
    let good = bundle.read("rootfs/etc/k3s/config.yaml");
    bundle.write("rootfs/etc/k3s/config.yaml", "disabled: [coredns]\n");
    let (said, _) = host.run_fails(2, &bundle.save("typo", None), &[]);
    assert_has(&said, &["k3s has no setting `disabled`", "did you mean `disable`?"]);
    assert_eq!(before.difference(&State::of(&host)), "");
    assert_eq!(host.delete(), "absent");
    bundle.write("rootfs/etc/k3s/config.yaml", good);

    // An archive is cut short: the cluster comes up without its image.
    let whole = bundle.read("rootfs/images/busybox.tar");
    bundle.write("rootfs/images/cut.tar", &whole[..whole.len() / 3]);
    let (said, took) = host.run_fails(10, &bundle.save("cut", None), &[]);
    println!("seen: an archive that can't be imported is told after {took:?}");
    assert_has(&said, &["/agent/images/cut.tar", "unexpected EOF"]);
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");
}

#[test]
fn a_killed_run_is_finished_or_taken_back_and_what_is_others_stays() {
    needs_hosts!();
    let host = Host::boot();
    let bundle = Bundle::new(&host);
    let archive = bundle.save("cluster", None);
    host.scratch
        .write("given/busybox.tar", bundle.read("rootfs/images/busybox.tar"));
    host.ok(FOREIGN);
    let before = State::of(&host);

    host.run_killed(&archive, "k3s-ready");
    let (_, said) = outcome(&mut host.sealrs(&["run", &archive, "--registry-port", "5001"]));
    assert_has(
        &said,
        &["is being installed with other options: --registry-port was 5000 and is now 5001"],
    );
    let summary = host.run(&archive, &[]);
    assert_eq!(summary["outcome"], "installed");
    host.wait_for_pods(&["bundled"]);
    assert_eq!(host.ok("cat /root/.kube/config"), "mine\n");
    assert!(host.ok("ctr tasks ls").contains("RUNNING"));
    // Without a default route, k3s was told the host's address.
    let nodes = host.get("nodes").unwrap();
    assert_has(&nodes["items"][0]["status"]["addresses"].to_string(), &["10.88.0.11"]);
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");

    host.run_killed(&archive, "k3s-ready");
    let said = fail(&mut host.sealrs(&["delete", "--all"]), 2);
    assert_has(&said, &["--force"]);
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");
}
