mod conformance;

use super::*;
use crate::facts::tests::server;
use crate::runtime;
use crate::runtime::tests::{cluster_image, runtime_image};
use crate::service::Manager;
use sealrs_image::cluster_image::{ContainerImage, name};

fn rootfs(files: &[&str]) -> RootfsFacts {
    RootfsFacts {
        files: files.iter().map(|&path| (path.to_owned(), 1 << 20)).collect(),
        texts: std::collections::BTreeMap::new(),
    }
}

fn decide(image: &ClusterImage, facts: &HostFacts, rootfs: &RootfsFacts, options: &Options) -> Result<Plan> {
    let files = ClusterFiles::new(&options.root, &options.cluster);
    let context = Context {
        facts,
        rootfs,
        image,
        options,
        files: &files,
        host: host_address(facts, options)?,
        role: Role::Master,
        here: true,
        peers: &[Peer {
            address: host_address(facts, options)?,
            role: Role::Master,
            hostname: facts.hostname.clone(),
        }],
    };
    Plan::decide(&[context], runtime::of(image)?)
}

fn image(runtime: &str) -> ClusterImage {
    let mut image = match runtime {
        "k0s" => cluster_image(&[(name::RUNTIME_TYPE, "k0s"), (name::RUNTIME_VERSION, "v1.36.3+k0s.2")]),
        "kubernetes" => cluster_image(&[(name::RUNTIME_TYPE, "kubernetes"), (name::RUNTIME_VERSION, "v1.34.1")]),
        other => runtime_image(other),
    };
    image.extension.launch.cmds = vec!["kubectl apply -f manifests".into()];
    let control = ["kube-apiserver:v1.34.1", "pause:3.10.1"].map(|name| format!("registry.k8s.io/{name}"));
    let control = control.into_iter().filter(|_| runtime == "kubernetes");
    image.container_images = ["docker.io/library/nginx:1", "quay.io:5001/a/b:1"]
        .map(str::to_owned)
        .into_iter()
        .chain(control)
        .map(|image| ContainerImage {
            image,
            app_name: String::new(),
            platform: None,
        })
        .collect();
    image
}

#[test]
fn script_for_a_user_without_rights() {
    let mut facts = server();
    facts.root = false;
    facts.hosts_writable = false;
    facts.services = Manager::Supervised;
    let options = Options {
        registry_domain: "localhost".into(),
        root: "/home/me/sealer".into(),
        ..Options::default()
    };
    let rootfs = rootfs(&["scripts/runtime/init.sh", "scripts/runtime/reset.sh"]);
    let plan = decide(&image("script"), &facts, &rootfs, &options).unwrap();
    insta::assert_json_snapshot!("script_user", plan);
    insta::assert_snapshot!("script_user_text", plan);
}

#[test]
fn script_with_the_images_own_registry_beside_containerd_and_docker() {
    let mut facts = server();
    facts.programs.extend(["containerd", "docker"].map(str::to_owned));
    let rootfs = rootfs(&[
        "scripts/init-registry.sh",
        "scripts/uninstall-registry.sh",
        "scripts/runtime/init.sh",
    ]);
    let plan = decide(&image("script"), &facts, &rootfs, &Options::default()).unwrap();
    insta::assert_json_snapshot!("script_root", plan);
}

/// What an image of runtime kubernetes brings.
const KUBERNETES: [&str; 7] = [
    "bin/cni/bridge",
    "bin/containerd",
    "bin/crictl",
    "bin/kubeadm",
    "bin/kubectl",
    "bin/kubelet",
    "bin/runc",
];

#[test]
fn a_plan_is_stored_and_only_that_plan_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    let rootfs = rootfs(&["bin/k3s"]);
    let plan = decide(&image("k3s"), &server(), &rootfs, &Options::default()).unwrap();
    plan.store(&path).unwrap();
    let digest = plan.digest().unwrap();
    assert_eq!(Plan::load(&path, digest).unwrap(), plan);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("/usr/local/bin", "/usr/bin")).unwrap();
    let error = Plan::load(&path, digest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

#[test]
fn an_address_that_is_not_ours_is_refused() {
    let mut options = Options {
        host_ip: Some("10.88.0.12".parse().unwrap()),
        ..Options::default()
    };
    let error = host_address(&server(), &options).unwrap_err();
    assert!(error.remedy().unwrap().contains("10.88.0.11"));
    options.host_ip = None;
    let mut facts = server();
    facts.default_address = None;
    facts.addresses.clear();
    assert!(host_address(&facts, &options).unwrap().is_loopback());
}

/// Hosts of a cluster, as they were found.
struct Hosts {
    facts: Vec<HostFacts>,
    peers: Vec<Peer>,
}

impl Hosts {
    fn new(roles: &[Role]) -> Self {
        let found = roles.iter().zip(1u8..).map(|(&role, number)| {
            let mut facts = server();
            let address: IpAddr = [10, 88, 0, 10 + number].into();
            facts.hostname = format!("node{number}");
            facts.addresses[0].ip = address;
            let peer = Peer {
                address,
                role,
                hostname: facts.hostname.clone(),
            };
            (facts, peer)
        });
        let (facts, peers) = found.unzip();
        Self { facts, peers }
    }

    fn contexts<'c>(
        &'c self,
        image: &'c ClusterImage,
        rootfs: &'c RootfsFacts,
        options: &'c Options,
        files: &'c ClusterFiles,
    ) -> Vec<Context<'c>> {
        let hosts = self.facts.iter().zip(&self.peers);
        let context = |(facts, peer): (&'c HostFacts, &Peer)| Context {
            facts,
            rootfs,
            image,
            options,
            files,
            host: peer.address,
            role: peer.role,
            here: false,
            peers: &self.peers,
        };
        hosts.map(context).collect()
    }
}

/// Plans for hosts with these roles, then for more, and then for fewer.
fn changes(runtime: &str, roles: &[Role], more: &[Role], leaving: &[&str]) -> [Plan; 3] {
    changes_with(&image(runtime), &Options::default(), roles, more, leaving)
}

fn changes_with(image: &ClusterImage, options: &Options, roles: &[Role], more: &[Role], leaving: &[&str]) -> [Plan; 3] {
    let others = [
        "bin/k0s",
        "bin/k3s",
        "scripts/runtime/init.sh",
        "scripts/runtime/join.sh",
    ];
    let rootfs = rootfs(&[&others[..], &KUBERNETES].concat());
    let files = ClusterFiles::new(&options.root, &options.cluster);
    let runtime = runtime::of(image).unwrap();
    let first = Hosts::new(roles);
    let plan = Plan::decide(&first.contexts(image, &rootfs, options, &files), runtime).unwrap();
    let all = Hosts::new(&[roles, more].concat());
    let contexts: Vec<Context<'_>> = all
        .contexts(image, &rootfs, options, &files)
        .into_iter()
        .enumerate()
        .filter(|(number, _)| *number == 0 || *number >= roles.len())
        .map(|(_, context)| context)
        .collect();
    let naming = |generation| Naming { many: true, generation };
    let grown = plan.clone().grown(&contexts, runtime, naming(2)).unwrap();
    let leaving: Vec<IpAddr> = leaving.iter().map(|address| address.parse().unwrap()).collect();
    let shrunk = grown
        .clone()
        .shrunk(&files, &leaving, &[], runtime, options, naming(3))
        .unwrap();
    [plan, grown, shrunk]
}

/// The ids of steps from a phase on, a line for each phase.
fn phases(plan: &Plan, from: u32) -> Vec<String> {
    let steps: Vec<&Step> = plan.steps.iter().filter(|step| step.phase >= from).collect();
    steps
        .chunk_by(|one, next| one.phase == next.phase)
        .map(|phase| phase.iter().map(|step| step.id.as_str()).collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn k3s_on_three_masters_and_two_nodes() {
    let roles = [Role::Master, Role::Master, Role::Master, Role::Node, Role::Node];
    let [plan, ..] = changes("k3s", &roles, &[], &[]);
    // Masters join one after the other, nodes together.
    let joins: Vec<String> = phases(&plan, 3);
    assert!(joins[0].starts_with("k3s@10.88.0.11 k3s-ready@10.88.0.11"), "{joins:?}");
    assert!(joins[1].starts_with("k3s@10.88.0.12 k3s-ready@10.88.0.12"), "{joins:?}");
    assert!(joins[2].starts_with("k3s@10.88.0.13 k3s-ready@10.88.0.13"), "{joins:?}");
    assert!(
        joins[3].contains("k3s@10.88.0.14") && joins[3].contains("k3s@10.88.0.15"),
        "{joins:?}"
    );
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(
        text.matches("cluster-init: true").count(),
        1,
        "one host founds the cluster"
    );
    assert_eq!(text.matches("server: \\\"https://10.88.0.11:6443\\\"").count(), 4);
}

#[test]
fn a_single_k3s_grows_into_three_and_shrinks_again() {
    let [plan, grown, shrunk] = changes(
        "k3s",
        &[Role::Master],
        &[Role::Master, Role::Master, Role::Node],
        &["10.88.0.13", "10.88.0.14"],
    );
    assert!(
        plan.steps.iter().all(|step| !step.id.contains('@')),
        "one host's steps have plain names"
    );
    let from = plan.next_phase();
    assert_eq!(
        phases(&grown, from)[1],
        "k3s-etcd@10.88.0.11#2 k3s-again@10.88.0.11#2 k3s-ready@10.88.0.11#2",
        "SQLite becomes etcd before another master comes"
    );
    let from = grown.next_phase();
    assert_eq!(
        phases(&shrunk, from),
        [
            "drain-10.88.0.14@10.88.0.11#3",
            "remove@10.88.0.14#3",
            "delete-node-10.88.0.14@10.88.0.11#3",
            "drain-10.88.0.13@10.88.0.11#3 leave-etcd-10.88.0.13@10.88.0.11#3 left-etcd-10.88.0.13@10.88.0.11#3",
            "remove@10.88.0.13#3",
            "delete-node-10.88.0.13@10.88.0.11#3",
        ]
    );
    let settled = shrunk.settled(from);
    let addresses: Vec<String> = settled.hosts.iter().map(|peer| peer.address.to_string()).collect();
    assert_eq!(addresses, ["10.88.0.11", "10.88.0.12"]);
    let left = |step: &Step| step.id.contains("10.88.0.13") || step.id.contains("10.88.0.14");
    let stays: Vec<&str> = settled
        .steps
        .iter()
        .filter(|step| left(step))
        .map(|step| step.id.as_str())
        .collect();
    assert_eq!(stays, [""; 0], "nothing is left of hosts that are gone");
}

#[test]
fn k0s_on_three_masters_and_three_nodes() {
    let roles = [&[Role::Master; 3][..], &[Role::Node; 3]].concat();
    let [plan, ..] = changes("k0s", &roles, &[], &[]);
    let joins: Vec<String> = phases(&plan, 3);
    // A token is known while its host joins, and no longer.
    let master = "k0s-token-10.88.0.12@10.88.0.11 k0s-invite-10.88.0.12@10.88.0.11";
    let at = joins.iter().position(|phase| phase == master);
    let at = at.unwrap_or_else(|| panic!("{joins:#?}"));
    assert!(joins[at + 1].contains("k0s-ready@10.88.0.12"), "{joins:#?}");
    assert_eq!(joins[at + 2], "k0s-forget-10.88.0.12@10.88.0.11");
}

#[test]
fn k0s_grows_and_shrinks() {
    let [_, grown, shrunk] = changes(
        "k0s",
        &[Role::Master],
        &[Role::Master, Role::Master, Role::Node],
        &["10.88.0.13", "10.88.0.14"],
    );
    let from = grown.next_phase();
    assert_eq!(
        phases(&shrunk, from),
        [
            "drain-10.88.0.14@10.88.0.11#3",
            "remove@10.88.0.14#3",
            "delete-node-10.88.0.14@10.88.0.11#3",
            "drain-10.88.0.13@10.88.0.11#3 leave-etcd-10.88.0.13@10.88.0.11#3",
            "remove@10.88.0.13#3",
            "delete-node-10.88.0.13@10.88.0.11#3",
        ]
    );
}

#[test]
fn kubernetes_on_three_masters_and_two_nodes() {
    let roles = [&[Role::Master; 3][..], &[Role::Node; 2]].concat();
    let [plan, _, shrunk] = changes("kubernetes", &roles, &[Role::Node], &["10.88.0.13"]);
    let joins: Vec<String> = phases(&plan, 3);
    let init = joins.iter().position(|phase| phase.contains("kubeadm-init@10.88.0.11"));
    let second = joins.iter().position(|phase| phase.contains("kubeadm-join@10.88.0.12"));
    let third = joins.iter().position(|phase| phase.contains("kubeadm-join@10.88.0.13"));
    assert!(init < second && second < third, "{joins:#?}");
    // Nodes may only be ready when the image has started their network.
    let last = joins.last().unwrap();
    assert!(
        last.ends_with("command-1@10.88.0.11 kubernetes-all-ready@10.88.0.11"),
        "{last}"
    );
    let leaves = phases(&shrunk, 0).into_iter().rev().take(3).collect::<Vec<_>>();
    assert!(leaves[2].contains("leave-etcd-10.88.0.13"), "{leaves:#?}");
}
