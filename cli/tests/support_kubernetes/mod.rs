//! A ClusterImage with a real Kubernetes, and hosts that it is installed on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{outcome, succeed};
use crate::support_hosts::Hosts;

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(180);

/// The programs that scripts/kubernetes.sh has built, if it has.
pub fn programs() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from)?;
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let folder = cache.join("sealrs-tests/kubernetes-1.20.2");
    let is_there = ["kubeadm", "etcdctl", "crictl"]
        .iter()
        .all(|name| folder.join(name).exists());
    is_there.then_some(folder)
}

/// Hosts, and what they are installed from.
#[derive(Debug)]
pub struct Kubernetes {
    pub hosts: Hosts,
    programs: PathBuf,
}

impl Kubernetes {
    pub fn new(programs: PathBuf, count: u32) -> Self {
        let kubernetes = Self {
            hosts: Hosts::boot_for_kubelets(count),
            programs,
        };
        kubernetes.make(&[]);
        kubernetes
    }

    fn make(&self, more: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kubernetes/make.sh");
        succeed(
            Command::new(script)
                .arg(self.hosts.scratch.path("sealrs"))
                .arg(&self.programs)
                .arg(self.hosts.scratch.path("image"))
                .args(more),
        );
    }

    /// Builds again with what is in the context now; gives the archive.
    pub fn again(&self, name: &str) -> String {
        self.make(&["again", name]);
        format!("image/{name}.tar")
    }

    pub fn in_context(path: &str) -> String {
        format!("image/context/rootfs/{path}")
    }

    /// `sealrs` of the operator, with the flags by which hosts are reached.
    pub fn sealrs(&self, words: &[&str]) -> Command {
        let access = self.hosts.access();
        let words: Vec<&str> = words.iter().copied().chain(access.iter().map(String::as_str)).collect();
        self.hosts.operator(&words)
    }

    /// Has to succeed; else what the hosts know of it is shown.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        let begun = Instant::now();
        let (code, said) = outcome(&mut self.sealrs(words));
        assert_eq!(code, Some(0), "{words:?}: {said}\n{}", self.explain());
        println!(
            "seen: {} {}: {:?}",
            words[0],
            words.get(2..).unwrap_or_default().join(" "),
            begun.elapsed()
        );
        said
    }

    /// Has to fail with this code; gives what it said and how long that took.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) -> (String, Duration) {
        let begun = Instant::now();
        let (found, said) = outcome(&mut self.sealrs(words));
        assert_eq!(found, Some(code), "{words:?}: {said}");
        (said, begun.elapsed())
    }

    #[track_caller]
    pub fn delete(&self) {
        succeed(&mut self.hosts.operator(&["delete", "--all", "--force"]));
    }

    /// The Kubernetes API's answer, by a host that is a master.
    pub fn get(&self, host: u32, what: &str) -> Option<Value> {
        let done = self
            .hosts
            .bash(host, &format!("kubectl --request-timeout 5s get {what} -o json"))
            .output()
            .unwrap();
        serde_json::from_slice(&done.stdout)
            .ok()
            .filter(|_| done.status.success())
    }

    /// The names of nodes that are ready.
    pub fn ready(&self, host: u32) -> Vec<String> {
        let nodes = self.get(host, "nodes").unwrap_or_default();
        let is_ready = |node: &&Value| {
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
        let name = |node: &Value| node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        nodes.iter().filter(is_ready).map(name).collect()
    }

    #[track_caller]
    pub fn wait_for_pod(&self, host: u32, name: &str) {
        self.wait(&format!("pod {name} runs"), || {
            let pod = self.get(host, &format!("pod {name}")).unwrap_or_default();
            pod["status"]["phase"] == "Running"
        });
    }

    #[track_caller]
    pub fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "waited too long: {what}\n{}", self.explain());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The addresses of the members of etcd.
    pub fn members(&self, host: u32) -> Vec<String> {
        let line = "crictl exec $(crictl ps -q --name '^etcd$') etcdctl --endpoints https://127.0.0.1:2379 \
                    --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt \
                    --key /etc/kubernetes/pki/etcd/healthcheck-client.key member list";
        let printed = self.hosts.ok(host, line);
        let mut names: Vec<String> = printed
            .lines()
            .filter_map(|line| line.split(", ").nth(2))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }

    fn explain(&self) -> String {
        let line = "kubectl get pods,nodes -A -o wide; journalctl --no-pager -o cat -u kubelet -u sealrs-containerd \
                    -u sealrs-apiserver | grep -E '^[EF]|rror' | tail -30";
        outcome(&mut self.hosts.bash(1, line)).1
    }
}
