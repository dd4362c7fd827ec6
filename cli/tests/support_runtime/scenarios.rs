//! What every runtime has to go through on one host.

use std::time::Instant;

use super::bundle::Bundle;
use super::host::{CLUSTER, Host};
use super::product::Product;
use super::state::{State, difference};
use super::upstream::Upstream;
use crate::support::{assert_has, fail, outcome};

/// Ends the test, with the reason printed, where no host can be made or filled.
macro_rules! needs_hosts {
    () => {
        $crate::support::needs_root!();
        $crate::support::needs!(
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
pub(crate) use needs_hosts;

/// What others have on a host, much like what a runtime makes there. And no default route, without which k3s alone would end.
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

/// A cluster without network that survives a reboot and leaves nothing.
pub fn lives_and_goes(product: &'static Product) {
    let host = Host::boot(product);
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
        "KUBECONFIG={CLUSTER}/kubeconfig {} kubectl get nodes --no-headers | grep -w Ready",
        product.name
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
        &format!("{} kubectl get nodes --no-headers | grep -w Ready", product.name),
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

/// Files that hold secrets are their owner's alone, and nobody else has seen the secret.
fn modes_and_secrets(host: &Host, processes: &str) {
    let listed = host.ok(&format!(
        "stat -c '%a %n' {} /root/.kube/config {CLUSTER}/{{kubeconfig,plan.json,environment.json,journal}} \
         {CLUSTER}/{{host-manifest,options.json,pki/*.key,log/*}} $(find {CLUSTER}/secrets -type f ! -name '*.crt' ! -name '*.pub') \
         {CLUSTER}/rootfs/certs/*.key",
        host.product.secret_files
    ));
    let open: Vec<&str> = listed.lines().filter(|line| !line.starts_with("600 ")).collect();
    assert!(open.is_empty() && listed.lines().count() >= 12, "{listed}");

    let (print, wanted) = host.product.secret;
    let secret = host.ok(print);
    let secret = secret.trim();
    assert!(secret.len() >= 40, "{secret}");
    let holders = host.ok(&format!(
        "grep -rlF '{secret}' /etc /root /home /var/lib/sealer /var/log /run /tmp || true"
    ));
    let mut holders: Vec<&str> = holders.lines().filter(|path| !path.starts_with("/run/k")).collect();
    holders.sort_unstable();
    assert_eq!(holders, wanted);
    assert!(!host.ok("journalctl --no-pager -o export").contains(secret));
    assert!(processes.lines().count() > 100, "{processes}");
    assert!(!processes.contains(secret));
    let started = host.ok(&format!(
        "ps -o args= -p $(systemctl show -P MainPID {})",
        host.product.service
    ));
    assert!(processes.contains(started.trim()), "{started} is not in:\n{processes}");
}

fn a_second_run_changes_nothing(host: &Host, archive: &str) {
    let look = format!(
        "systemctl show -P MainPID {} sealrs-registry-my-cluster; \
         find /etc {CLUSTER} /usr/local /root -path '*/.kube/cache' -prune -o -type f -printf '%p %T@ %s %m\\n' | sort",
        host.product.service
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

/// A killed run is finished or taken back, and what is others' stays.
pub fn is_killed(product: &'static Product) {
    let host = Host::boot(product);
    let ready = &format!("{}-ready", product.name);
    let bundle = Bundle::new(&host);
    let archive = bundle.save("cluster", None);
    host.scratch
        .write("given/busybox.tar", bundle.read("rootfs/images/busybox.tar"));
    host.ok(FOREIGN);
    let before = State::of(&host);

    host.run_killed(&archive, ready);
    let (_, said) = outcome(
        host.sealrs(&["run", &archive, "--registry-port", "5001"])
            .args(product.flags),
    );
    assert_has(
        &said,
        &["is being installed with other options: --registry-port was 5000 and is now 5001"],
    );
    let summary = host.run(&archive, &[]);
    assert_eq!(summary["outcome"], "installed");
    host.wait_for_pods(&["bundled"]);
    assert_eq!(host.ok("cat /root/.kube/config"), "mine\n");
    assert!(host.ok("ctr tasks ls").contains("RUNNING"));
    // Without a default route, it was told the host's address.
    let nodes = host.get("nodes").unwrap();
    assert_has(&nodes["items"][0]["status"]["addresses"].to_string(), &["10.88.0.11"]);
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");

    host.run_killed(&archive, ready);
    let said = fail(&mut host.sealrs(&["delete", "--all"]), 2);
    assert_has(&said, &["--force"]);
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");
}
