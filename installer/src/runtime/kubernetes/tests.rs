use super::*;
use crate::facts::tests::server;
use crate::rootfs::RootfsFacts;
use crate::runtime::tests::cluster_image;
use sealrs_image::cluster_image::{ContainerImage, name};
use serde_json::{Value, json};

fn image(version: &str, repository: &str, tags: &[&str]) -> ClusterImage {
    let labels = [(name::RUNTIME_TYPE, "kubernetes"), (name::RUNTIME_VERSION, version)];
    let mut image = cluster_image(&labels);
    let control = [format!("{repository}/kube-apiserver:{version}")];
    let others = tags.iter().map(|tag| format!("{repository}/{tag}"));
    image.container_images = control
        .into_iter()
        .chain(others)
        .map(|image| ContainerImage {
            image,
            app_name: String::new(),
            platform: None,
        })
        .collect();
    image
}

fn rootfs(config: &str) -> RootfsFacts {
    let mut rootfs = RootfsFacts::default();
    for name in NEEDED.iter().chain(&["containerd", "cni/bridge"]) {
        rootfs.files.insert(format!("bin/{name}"), 1 << 20);
    }
    rootfs.texts.insert(IMAGE_CONFIG.to_owned(), config.to_owned());
    rootfs
}

/// The plan for one of hosts with these roles.
fn plan_of(
    number: usize,
    roles: &[Role],
    image: &ClusterImage,
    config: &str,
    documents: &[Value],
) -> Result<RuntimePlan> {
    let options = Options {
        runtime_documents: documents.to_vec(),
        ..Options::default()
    };
    let files = ClusterFiles::new(&options.root, &options.cluster);
    let peers: Vec<Peer> = roles
        .iter()
        .zip(1u8..)
        .map(|(&role, number)| Peer {
            address: [10, 88, 0, 10 + number].into(),
            role,
            hostname: format!("node{number}"),
        })
        .collect();
    let host = &peers[number - 1];
    let mut facts = server();
    facts.hostname.clone_from(&host.hostname);
    facts.addresses[0].ip = host.address;
    Kubernetes.plan(&Context {
        facts: &facts,
        rootfs: &rootfs(config),
        image,
        options: &options,
        files: &files,
        host: host.address,
        role: host.role,
        here: false,
        peers: &peers,
    })
}

/// kubeadm's documents of a plan, by kind, with the names of secrets in their places.
fn documents(plan: &RuntimePlan) -> std::collections::BTreeMap<String, Value> {
    let file = plan.join.iter().find_map(|step| match &step.action {
        Action::WriteFiles(files) => files.first(),
        _ => None,
    });
    let Content::Pieces(pieces) = &file.unwrap().content else {
        panic!("no secrets in it");
    };
    let text: String = pieces
        .iter()
        .map(|piece| match piece {
            crate::action::Piece::Text(text) => text.clone(),
            crate::action::Piece::Secret(name) => format!("<{name}>"),
            other => panic!("{other:?}"),
        })
        .collect();
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let kind = |document: &Value| document["kind"].as_str().unwrap().to_owned();
    all.into_iter().map(|document| (kind(&document), document)).collect()
}

const TAGS: [&str; 3] = ["pause:3.9", "pause:3.10", "coredns/coredns:v1.11.3"];

#[test]
fn documents_are_merged_and_written_as_the_version_reads_them() {
    let config = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nnetworking: {podSubnet: 10.1.0.0/16}\n\
        apiServer: {certSANs: [api.example], extraArgs: {v: \"2\"}, timeoutForControlPlane: 90s}\n---\n\
        apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\n";
    let more = json!({"apiVersion": "kubeadm.k8s.io/v1beta3", "kind": "ClusterConfiguration",
        "networking": {"podSubnet": "10.2.0.0/16"}});
    let image = image("v1.31.2", "registry.k8s.io", &TAGS);
    let plan = plan_of(1, &[Role::Master], &image, config, &[more]).unwrap();
    let found = documents(&plan);
    let cluster = &found["ClusterConfiguration"];
    assert_eq!(cluster["apiVersion"], "kubeadm.k8s.io/v1beta4");
    assert_eq!(cluster["networking"], json!({"podSubnet": "10.2.0.0/16"}));
    assert_eq!(cluster["apiServer"]["extraArgs"], json!([{"name": "v", "value": "2"}]));
    assert_eq!(
        cluster["apiServer"]["certSANs"],
        json!(["api.example", "127.0.0.1", "localhost", "10.88.0.11", "node1"])
    );
    assert_eq!(cluster["controlPlaneEndpoint"], "apiserver.cluster.local:6444");
    assert_eq!(cluster["imageRepository"], "registry.k8s.io");
    // kubeadm looks in that folder by itself.
    assert_eq!(cluster.get("dns"), None);
    let init = &found["InitConfiguration"];
    assert_eq!(init["timeouts"], json!({"controlPlaneComponentHealthCheck": "90s"}));
    assert_eq!(init["bootstrapTokens"][0]["token"], "<kubernetes/founder.token>");
    assert_eq!(init["nodeRegistration"]["taints"], json!([]), "there are no nodes");
    let kubelet = &found["KubeletConfiguration"];
    assert_eq!(
        (&kubelet["maxPods"], &kubelet["cgroupDriver"]),
        (&json!(50), &json!("systemd"))
    );
    let text = serde_json::to_string(&plan.prepare).unwrap();
    assert!(
        text.contains("SystemdCgroup = true") && text.contains("registry.k8s.io/pause:3.10"),
        "{text}"
    );
}

#[test]
fn an_old_kubeadm_gets_fields_and_hosts_join_by_the_hash_of_the_authority() {
    let config = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: cgroupfs\n";
    let image = image("v1.20.2", "r.example/k8s", &TAGS);
    let roles = [Role::Master, Role::Master, Role::Node];
    let plan = plan_of(2, &roles, &image, config, &[]).unwrap();
    let join = &documents(&plan)["JoinConfiguration"];
    assert_eq!(join["apiVersion"], "kubeadm.k8s.io/v1beta2");
    let expected = json!({
        "apiServerEndpoint": "apiserver.cluster.local:6444",
        "token": "<kubernetes/master-10.88.0.12.token>",
        "caCertHashes": ["sha256:<kubernetes/ca.hash>"],
    });
    assert_eq!(join["discovery"]["bootstrapToken"], expected);
    assert_eq!(
        join["nodeRegistration"]["kubeletExtraArgs"],
        json!({"node-ip": "10.88.0.12"})
    );
    assert_eq!(join["nodeRegistration"].get("taints"), None, "pods have nodes");
    assert_eq!(
        join["controlPlane"]["localAPIEndpoint"]["advertiseAddress"],
        "10.88.0.12"
    );
    let text = serde_json::to_string(&plan.prepare).unwrap();
    assert!(
        text.contains("SystemdCgroup = false") && text.contains("front-proxy-ca.key"),
        "{text}"
    );
    // Only masters have keys.
    let node = plan_of(3, &roles, &image, config, &[]).unwrap();
    assert_eq!(documents(&node)["JoinConfiguration"].get("controlPlane"), None);
    assert!(!serde_json::to_string(&node.prepare).unwrap().contains("ca.key"));
    let founder = plan_of(1, &roles, &image, config, &[]).unwrap();
    assert_eq!(
        documents(&founder)["ClusterConfiguration"]["dns"]["imageRepository"],
        "r.example/k8s/coredns"
    );
}

/// In the form of the documents that sealer's base images bring.
const SEALERS: &str = "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nlocalAPIEndpoint: {advertiseAddress: 172.16.0.181}\n\
    nodeRegistration: {criSocket: /var/run/dockershim.sock, taints: null}\n---\n\
    apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nkubernetesVersion: v1.19.8\nimageRepository: sea.hub:5000\n\
    controlPlaneEndpoint: apiserver.cluster.local:6443\ndns: {type: \"\"}\nnetworking: {podSubnet: 100.64.0.0/10}\n\
    apiServer:\n  certSANs:\n  extraArgs: {audit-policy-file: /etc/kubernetes/audit-policy.yml, etcd-servers: https://172.16.0.181:2379}\n";

#[test]
fn base_images_of_sealer_are_used_but_for_their_container_runtime() {
    let image = image("v1.22.15", "k8s.gcr.io", &["pause:3.5", "coredns/coredns:v1.8.4"]);
    let options = Options::default();
    let files = ClusterFiles::new(&options.root, &options.cluster);
    let peers = [Peer {
        address: "10.88.0.11".parse().unwrap(),
        role: Role::Master,
        hostname: "node1".to_owned(),
    }];
    let plan = |rootfs: &RootfsFacts, facts: &HostFacts| {
        Kubernetes.plan(&Context {
            facts,
            rootfs,
            image: &image,
            options: &options,
            files: &files,
            host: peers[0].address,
            role: Role::Master,
            here: false,
            peers: &peers,
        })
    };
    let mut rootfs = rootfs(SEALERS);
    for path in [
        "scripts/init-kube.sh",
        "scripts/docker.sh",
        "cri/docker.tar.gz",
        "statics/audit-policy.yml",
    ] {
        rootfs.files.insert(path.to_owned(), 1);
    }
    let planned = plan(&rootfs, &server()).unwrap();
    let found = documents(&planned);
    let cluster = &found["ClusterConfiguration"];
    assert_eq!(cluster["kubernetesVersion"], "v1.22.15");
    assert_eq!(cluster["imageRepository"], "k8s.gcr.io");
    assert_eq!(cluster["networking"]["podSubnet"], "100.64.0.0/10");
    assert_eq!(
        cluster["apiServer"]["extraArgs"],
        json!({"audit-policy-file": "/etc/kubernetes/audit-policy.yml"})
    );
    assert_eq!(found["InitConfiguration"]["nodeRegistration"]["taints"], json!([]));
    assert!(planned.prepare.iter().any(|step| step.id == "audit-policy"));

    rootfs.files.remove("bin/containerd");
    let error = plan(&rootfs, &server()).unwrap_err();
    assert!(error.to_string().contains("`scripts/docker.sh`"), "{error:?}");
    assert!(error.causes()[0].contains("no Docker from 1.24 on"), "{error:?}");
    rootfs.files.remove("scripts/docker.sh");
    rootfs.files.insert("scripts/containerd.sh".to_owned(), 1);
    assert!(
        plan(&rootfs, &server())
            .unwrap_err()
            .to_string()
            .contains("`scripts/containerd.sh`")
    );
    // The host's own will do.
    let mut facts = server();
    facts.programs.insert("containerd".to_owned());
    plan(&rootfs, &facts).unwrap();
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_done() {
    let good = image("v1.31.2", "registry.k8s.io", &TAGS);
    let cluster = |field: &str| format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{field}\n");
    for (image, config, says) in [
        (&image("v1.19.0", "r", &TAGS), String::new(), "too old"),
        (&image("latest", "r", &TAGS), String::new(), "is not a version"),
        (
            &image("v1.31.2", "registry.k8s.io", &[]),
            String::new(),
            "no container image registry.k8s.io/pause",
        ),
        (
            &good,
            cluster("imageRepository: other.example"),
            "has its control plane in registry.k8s.io",
        ),
        (
            &good,
            cluster("kubernetesVersion: v1.30.0"),
            "`kubernetesVersion` is v1.30.0",
        ),
        (
            &good,
            "apiVersion: v1\nkind: Pod\n".to_owned(),
            "nothing that kubeadm reads",
        ),
    ] {
        let error = plan_of(1, &[Role::Master], image, &config, &[]).unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error:?}");
    }
    // The private registry has them all by their paths alone as well.
    let config = cluster("imageRepository: sea.hub:5000");
    let plan = plan_of(1, &[Role::Master], &good, &config, &[]).unwrap();
    let cluster = &documents(&plan)["ClusterConfiguration"];
    assert_eq!(cluster["dns"]["imageRepository"], "sea.hub:5000/coredns");
    // Who has a balancer of his own needs none of ours.
    let own = json!({"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", "controlPlaneEndpoint": "api.example"});
    let plan = plan_of(1, &[Role::Master], &good, "", &[own]).unwrap();
    assert!(!plan.prepare.iter().any(|step| step.id == "api-balancer"));
}
