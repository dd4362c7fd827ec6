//! A base image in the form that sealer's own build gives it: loaded, shown, built on and planned.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use sealrs_image::source::document;
use sealrs_image::store::Store;
use serde_json::json;
use support::{Scratch, assert_has, outcome};

const KUBEFILE: &str = "FROM scratch\nCOPY rootfs .\n\
    LABEL cluster.alpha.sealer.io/cluster-runtime-type=kubernetes cluster.alpha.sealer.io/cluster-runtime-version=v1.22.15\n\
    LABEL cluster.alpha.sealer.io/container-runtime-type=docker cluster.alpha.sealer.io/container-runtime-version=19.03.14\n";

const KUBEADM: &str = "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\n\
    nodeRegistration: {criSocket: /var/run/dockershim.sock, taints: null}\n---\n\
    apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nkubernetesVersion: v1.19.8\nimageRepository: registry.k8s.io\n\
    networking: {podSubnet: 100.64.0.0/10, serviceSubnet: 10.96.0.0/22}\n";

#[test]
fn a_base_image_of_sealer_is_loaded_shown_built_on_and_planned() {
    let scratch = Scratch::new();
    for name in ["kubeadm", "kubelet", "kubectl", "crictl", "conntrack", "seautil"] {
        scratch.write(&format!("context/rootfs/bin/{name}"), name);
    }
    for path in [
        "scripts/docker.sh",
        "scripts/uninstall-docker.sh",
        "scripts/init-kube.sh",
        "cri/docker.tar.gz",
        "statics/audit-policy.yml",
        "registry/docker/registry/v2/blobs/sha256/aa/aa/data",
    ] {
        scratch.write(&format!("context/rootfs/{path}"), path);
    }
    scratch.write("context/rootfs/etc/kubeadm.yml", KUBEADM);
    scratch.build("plain:1", KUBEFILE, &["--no-discovery"]);
    // All that tells of its container images is the annotation.
    let listed = ["kube-apiserver:v1.22.15", "pause:3.5", "coredns/coredns:v1.8.4"]
        .map(|image| json!({"image": format!("k8s.gcr.io/{image}")}));
    let store = Store::open(std::path::Path::new(&scratch.path("root"))).unwrap();
    let plain = store.resolve(&"plain:1".parse().unwrap()).unwrap().unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&document(&store, &plain).unwrap()).unwrap();
    manifest["annotations"]["sealer.image.container.images"] = json!(listed).to_string().into();
    let sealers = store.put(&plain.media_type, manifest.to_string().as_bytes()).unwrap();
    store
        .tag(Some(&"sealerio/kubernetes:1".parse().unwrap()), &sealers)
        .unwrap();

    scratch.ok(&["save", "sealerio/kubernetes:1", "-o", "base.tar"]);
    let other = scratch.path("other");
    scratch.ok(&["--root", &other, "load", "-i", "base.tar"]);
    let shown = scratch.json(&["--root", &other, "inspect", "sealerio/kubernetes:1"]);
    assert_eq!(shown["containerImageList"], json!(listed));

    // Why it can't be installed by itself is told where the host has no containerd, as this machine may (`kubernetes/tests.rs`).
    for name in ["containerd", "containerd-shim-runc-v2", "runc", "cni/bridge"] {
        scratch.write(&format!("context/more/bin/{name}"), name);
    }
    scratch.build("child:1", "FROM sealerio/kubernetes:1\nCOPY more .\n", &[]);
    // What stands against it on this machine is told behind the plan.
    let (_, said) = outcome(&mut scratch.sealrs(&["run", "child:1", "--dry-run"]));
    assert_has(
        &said,
        &[
            "[kubeadm-init]",
            "give the API server its policy for audits",
            "start containerd",
        ],
    );
}
