//! Runtime `k3s` on a host of its own with systemd and no way out, with the stand-in for k3s: to a running pod, through
//! a reboot, and back to a host without a trace.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sealrs_image::spec::Descriptor;
use serde_json::json;
use support::{Place, program, succeeds, text};

/// Programs of the Debian packages that the host and the stand-in need.
const NEEDED: [&str; 9] = [
    "/usr/sbin/sshd",
    "/lib/systemd/systemd",
    "/usr/bin/containerd",
    "/usr/sbin/runc",
    "/usr/lib/cni/bridge",
    "/usr/sbin/iptables",
    "/usr/bin/python3",
    "/usr/bin/umoci",
    "/usr/bin/skopeo",
];

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hello"}, "spec": {"containers": [
  {"name": "one", "image": "busybox:1.35", "command": ["sleep", "3600"]}]}}
"#;

/// Waits until the pod runs.
const RUNS: &str = "for i in $(seq 100); do \
    k3s kubectl get pods | grep -q 'hello.*Running' && exit 0; sleep 0.2; done; k3s kubectl get pods; exit 1";

fn can_run() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let missing = NEEDED.iter().find(|path| !Path::new(path).exists());
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: only root can make test hosts");
        return false;
    }
    if let Some(missing) = missing {
        println!("skipped: {missing} is not installed");
        return false;
    }
    true
}

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(path)
}

/// A host of testdata/hosts.sh, with the test's place and program bound into it.
struct Host {
    place: Place,
    name: String,
}

impl Host {
    fn new(name: &str) -> Self {
        let host = Self {
            place: Place::new(),
            name: name.to_owned(),
        };
        succeeds(&host.hosts(&["down"]));
        succeeds(&host.hosts(&["up", "1"]));
        // The second boot is like all that follow.
        succeeds(&host.hosts(&["stop", "1"]));
        succeeds(&host.hosts(&["start", "1"]));
        host
    }

    fn hosts(&self, words: &[&str]) -> Output {
        let programs = program().parent().unwrap().display().to_string();
        let place = self.place.folder.path().display();
        Command::new(testdata("hosts.sh"))
            .args(words)
            .env("HOSTS_NAME", &self.name)
            .env("HOSTS_CGROUP", "v1")
            .env("HOSTS_SYSCTL", "rw")
            .env("HOSTS_BIND", format!("{programs}:/opt/programs {place}:/opt/place"))
            .output()
            .unwrap()
    }

    fn exec(&self, script: &str) -> Output {
        self.hosts(&["exec", "1", "bash", "-c", script])
    }

    fn run(&self, image: &Descriptor) -> Output {
        self.exec(&format!("/opt/programs/host run /opt/place/images {}", image.digest))
    }

    fn delete(&self) -> Output {
        self.exec("/opt/programs/host delete /var/lib/sealer my-cluster")
    }

    /// Everything on the host that an installation could leave.
    fn state(&self) -> String {
        succeeds(&self.exec(
            "find /etc /usr/local /opt/cni /var/log/pods /var/log/containers /root /home /var/lib -xdev \
               -printf '%p %y %m %s\\n' 2>/dev/null | sort
             find /run -xdev -not -path '/run/systemd*' -not -path '/run/log*' -printf '%p %y\\n' | sort
             awk '{print $5}' /proc/self/mountinfo | sort
             ip -o link | cut -d: -f2 | cut -d@ -f1
             iptables-save | grep -v '^[#*:C]'
             cat /etc/hosts
             systemctl list-units --no-legend --all 'k3s*' 'sealrs*' 'kubepods*'
             ps -eo comm= | grep 'containerd\\|k3s\\|sleep\\|pause\\|host' | sort | uniq -c
             true",
        ))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.hosts(&["down"]);
    }
}

/// A ClusterImage with this program as its k3s, and the images of the pod.
fn image(host: &Host, k3s: &[u8]) -> Descriptor {
    let archive = |kind: &str, name: &str| {
        let path = host.place.path(&format!("{kind}.tar"));
        let made = Command::new(testdata("images/make-image.sh"))
            .args([kind, name])
            .arg(&path)
            .output()
            .unwrap();
        succeeds(&made);
        fs::read(path).unwrap()
    };
    let pause = archive("pause", "docker.io/rancher/mirrored-pause:3.6");
    let busybox = archive("busybox", "docker.io/library/busybox:1.35");
    let files: [(&str, &[u8]); 5] = [
        ("bin/k3s", k3s),
        (
            "etc/k3s/config.yaml",
            b"disable: [coredns, local-storage, metrics-server]\n",
        ),
        ("images/busybox.tar", &busybox),
        ("images/pause.tar", &pause),
        ("manifests/pod.yaml", POD.as_bytes()),
    ];
    let launch = json!({"launch": {"cmds": ["kubectl apply -f manifests/pod.yaml"]}});
    host.place.image("k3s", &files, &launch)
}

#[test]
fn from_an_image_to_a_running_pod_and_back() {
    if !can_run() {
        return;
    }
    let host = Host::new("instk3s");
    let stand_in = host.place.path("k3s");
    succeeds(
        &Command::new(testdata("k3s/make-k3s.sh"))
            .arg(&stand_in)
            .output()
            .unwrap(),
    );
    let image = image(&host, &fs::read(&stand_in).unwrap());
    // A foreign file in the way, and no route: k3s alone would end at once.
    succeeds(&host.exec("echo foreign > /usr/local/bin/k3s; ip route del default; mkdir -p /etc/cni/net.d; echo x > /etc/cni/net.d/99-foreign"));
    let before = host.state();

    let ran = host.run(&image);
    if !ran.status.success() {
        println!(
            "{}",
            text(&host.exec("journalctl --no-pager -u k3s | tail -50; systemctl status k3s"))
        );
    }
    let said = succeeds(&ran);
    assert!(
        said.contains("Installed: ") && said.contains("pod/hello created"),
        "{said}"
    );
    succeeds(&host.exec(RUNS));
    succeeds(&host.exec("grep -q 10.88.0.11 /etc/rancher/k3s/config.yaml"));
    succeeds(&host.exec("KUBECONFIG=/var/lib/sealer/data/my-cluster/kubeconfig k3s kubectl get nodes"));

    // The token is in the files of mode 0600 that hold it, and nowhere else.
    succeeds(&host.exec(
        "set -e; token=$(sed 's/.*://' /etc/rancher/k3s/token); [ ${#token} = 64 ]
         cd /var/lib/sealer/data/my-cluster
         found=$(grep -rl \"$token\" plan.json journal host-manifest environment.json log services 2>/dev/null || true)
         [ -z \"$found\" ] || { echo \"in $found\"; exit 1; }
         ! ps -eo args= | grep -v grep | grep \"$token\"
         ! journalctl --no-pager | grep \"$token\"
         for file in secrets/k3s-token /etc/rancher/k3s/token /etc/rancher/k3s/config.yaml; do
           [ \"$(stat -c %a $file)\" = 600 ] || { echo \"$file is open\"; exit 1; }
         done",
    ));

    // The plug is pulled: everything comes back by itself, and the same command finds it so.
    succeeds(&host.hosts(&["stop", "1"]));
    succeeds(&host.hosts(&["start", "1"]));
    succeeds(&host.exec("ip route del default; true"));
    let again = succeeds(&host.run(&image));
    assert!(again.contains("AlreadyInstalled: 0 steps"), "{again}");
    succeeds(&host.exec(RUNS));

    succeeds(&host.delete());
    assert_eq!(difference(&before, &host.state()), "");
    succeeds(&host.delete());
}

#[test]
fn what_can_not_work_is_told_in_seconds() {
    if !can_run() {
        return;
    }
    let host = Host::new("instbad");
    let image = image(&host, b"\x7fELF for another machine");
    succeeds(&host.exec("mkdir -p /var/lib/rancher/k3s/server/db"));
    let before = host.state();
    let refused = host.run(&image);
    assert_eq!(refused.status.code(), Some(9), "{}", text(&refused));
    assert!(
        text(&refused).contains("/var/lib/rancher/k3s/server"),
        "{}",
        text(&refused)
    );
    assert_eq!(difference(&before, &host.state()), "", "nothing was changed");

    succeeds(&host.exec("rm -r /var/lib/rancher"));
    let before = host.state();
    let begun = std::time::Instant::now();
    let failed = host.run(&image);
    assert_eq!(failed.status.code(), Some(10), "{}", text(&failed));
    assert!(
        text(&failed).contains("is for another architecture"),
        "{}",
        text(&failed)
    );
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    succeeds(&host.delete());
    assert_eq!(difference(&before, &host.state()), "");
}

/// The lines that are in only one of two texts.
fn difference(before: &str, after: &str) -> String {
    let [before, after] = [before, after].map(|text| text.lines().collect::<BTreeSet<_>>());
    let missing = before.difference(&after).map(|line| format!("- {line}\n"));
    let added = after.difference(&before).map(|line| format!("+ {line}\n"));
    missing.chain(added).collect()
}
