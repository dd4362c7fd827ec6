use super::*;
use crate::cluster::ClusterFiles;
use crate::command::word;
use crate::facts::tests::server;
use crate::rootfs::RootfsFacts;
use crate::runtime::tests::cluster_image;
use sealrs_image::cluster_image::ContainerImage;
use serde_json::{Value, json};

fn image(version: &str) -> ClusterImage {
    let mut image = cluster_image(&[(name::RUNTIME_TYPE, "k0s"), (name::RUNTIME_VERSION, version)]);
    image.container_images = vec![ContainerImage {
        image: "quay.io:5001/a/b:1".to_owned(),
        app_name: String::new(),
        platform: None,
    }];
    image
}

fn rootfs(config: Option<&str>) -> RootfsFacts {
    let mut rootfs = RootfsFacts::default();
    for (path, size) in [("bin/k0s", 250_000_000), ("images/bundle.tar", 400_000_000)] {
        rootfs.files.insert(path.to_owned(), size);
    }
    if let Some(config) = config {
        rootfs.texts.insert(IMAGE_CONFIG.to_owned(), config.to_owned());
    }
    rootfs
}

fn peer(number: u8, role: Role) -> Peer {
    Peer {
        address: [10, 88, 0, 10 + number].into(),
        role,
        hostname: format!("node{number}"),
    }
}

/// The plan for one of these hosts.
fn plan_of(number: u8, roles: &[Role], version: &str, rootfs: &RootfsFacts, options: &Options) -> Result<RuntimePlan> {
    let files = ClusterFiles::new(&options.root, &options.cluster);
    let peers: Vec<Peer> = roles
        .iter()
        .zip(1..)
        .map(|(&role, number)| peer(number, role))
        .collect();
    let host = peer(number, roles[usize::from(number) - 1]);
    let mut facts = server();
    facts.hostname = host.hostname;
    facts.addresses[0].ip = host.address;
    K0s.plan(&Context {
        facts: &facts,
        rootfs,
        image: &image(version),
        options,
        files: &files,
        host: host.address,
        role: host.role,
        here: false,
        peers: &peers,
    })
}

fn single(config: Option<&str>, options: &Options) -> Result<RuntimePlan> {
    plan_of(1, &[Role::Master], "v1.36.3+k0s.2", &rootfs(config), options)
}

fn action<'p>(plan: &'p RuntimePlan, id: &str) -> &'p Action {
    let steps = plan.prepare.iter().chain(&plan.join);
    &steps.into_iter().find(|step| step.id == id).unwrap().action
}

/// k0s.yaml, read as k0s would.
fn config(plan: &RuntimePlan) -> Value {
    let Action::WriteFile {
        content: Content::Text(text),
        ..
    } = action(plan, "k0s-config")
    else {
        panic!();
    };
    serde_saphyr::from_str(text).unwrap()
}

fn arguments(plan: &RuntimePlan) -> Vec<String> {
    match action(plan, "k0s") {
        Action::Service(service) => service.argv[1..].to_vec(),
        other => panic!("{other:?}"),
    }
}

const MASTER: Role = Role::Master;
const NODE: Role = Role::Node;

#[test]
fn merges_the_settings_of_image_clusterfile_and_host() {
    let image = "spec:\n  network: {podCIDR: 10.9.0.0/16, nodeLocalLoadBalancing: {enabled: false}}\n  api: {sans: [a.example]}\n";
    let image = format!("apiVersion: {GROUP_VERSION}\nkind: ClusterConfig\n{image}");
    let options = Options {
        runtime_documents: vec![
            json!({"apiVersion": "kubeadm.k8s.io/v1beta3", "kind": "ClusterConfiguration", "x": 1}),
            json!({"apiVersion": GROUP_VERSION, "kind": "ClusterConfig",
                   "spec": {"network": {"provider": "calico"}, "telemetry": {"enabled": true}}}),
        ],
        ..Options::default()
    };
    let plan = single(Some(&image), &options).unwrap();
    assert_eq!(
        config(&plan)["spec"],
        json!({
            "api": {"address": "10.88.0.11", "sans": ["a.example"]},
            "network": {"podCIDR": "10.9.0.0/16", "nodeLocalLoadBalancing": {"enabled": false}, "provider": "calico"},
            "storage": {"type": "etcd", "etcd": {"peerAddress": "10.88.0.11"}},
            // Nothing calls home.
            "telemetry": {"enabled": false},
        })
    );
}

const GROUP_VERSION: &str = "k0s.k0sproject.io/v1beta1";

#[test]
fn what_would_be_a_broken_cluster_is_refused() {
    let head = format!("apiVersion: {GROUP_VERSION}\nkind: ClusterConfig\n");
    for (config, says) in [
        (format!("{head}spec: {{api: {{adress: x}}}}"), "did you mean `address`?"),
        (
            format!("{head}spec: {{network: {{podCIDR: 10.96.0.0/16}}}}"),
            "the same addresses",
        ),
        (
            format!("{head}spec: {{api: {{address: 10.0.0.9}}}}"),
            "this host is 10.88.0.11",
        ),
        (
            format!("{head}spec: {{storage: {{type: kine, kine: {{dataSource: 'mysql://u:p@tcp(db:3306)/k'}}}}}}"),
            "must not be in images",
        ),
        ("kind: ClusterConfig".to_owned(), "`apiVersion`"),
        (
            format!(
                "{head}spec: {{api: {{externalAddress: lb}}, network: {{nodeLocalLoadBalancing: {{enabled: true}}}}}}"
            ),
            "leave one of them out",
        ),
    ] {
        let error = format!("{:?}", single(Some(&config), &Options::default()).unwrap_err());
        assert!(error.contains(says), "{config}: {error}");
    }
    let mut options = Options {
        runtime_config: vec!["single=true".to_owned()],
        ..Options::default()
    };
    let plan = single(None, &options).unwrap();
    assert!(config(&plan)["spec"].get("storage").is_none());
    assert!(arguments(&plan).contains(&"--single=true".to_owned()));
    let many = plan_of(1, &[MASTER, NODE], "v1.36.3+k0s.2", &rootfs(None), &options);
    assert!(many.unwrap_err().to_string().contains("for one host"));
    options.runtime_config.clear();
    for (version, says) in [("1.x", "not a version of k0s"), ("", "not a version")] {
        let error = plan_of(1, &[MASTER], version, &rootfs(None), &options).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let mut packed = rootfs(None);
    packed.files.insert("images/b.tar.gz".to_owned(), 1);
    let error = plan_of(1, &[MASTER], "v1.36.3+k0s.2", &packed, &options).unwrap_err();
    assert!(error.to_string().contains("images/b.tar.gz"), "{error}");
}

#[test]
fn each_role_has_its_own_flags() {
    let options = Options {
        runtime_config: vec!["disable-components=coredns".into(), "labels=a=b".into()],
        ..Options::default()
    };
    let flags = |number, roles: &[Role]| {
        let plan = plan_of(number, roles, "v1.36.3+k0s.2", &rootfs(None), &options).unwrap();
        arguments(&plan).join(" ")
    };
    assert_eq!(
        flags(1, &[MASTER]),
        "controller --config=/etc/k0s/k0s.yaml --disable-components=coredns,update-prober --enable-worker=true --labels=a=b \
         --no-taints=true"
    );
    // Where there are nodes, controllers run no pods; one that joins has a token.
    assert_eq!(
        flags(2, &[MASTER, MASTER, NODE]),
        "controller --config=/etc/k0s/k0s.yaml --disable-components=coredns,update-prober --labels=a=b --token-file=/etc/k0s/token"
    );
    assert_eq!(
        flags(3, &[MASTER, MASTER, NODE]),
        "worker --labels=a=b --token-file=/etc/k0s/token"
    );
}

#[test]
fn tokens_are_known_for_a_join_alone() {
    let roles = [MASTER, MASTER, NODE];
    let ids = |steps: &[Step]| steps.iter().map(|step| step.id.clone()).collect::<Vec<_>>().join(" ");
    let plan = |number| plan_of(number, &roles, "v1.36.3+k0s.2", &rootfs(None), &Options::default()).unwrap();
    let (founder, joiner, node) = (plan(1), plan(2), plan(3));
    assert_eq!(
        (ids(&founder.invite), ids(&founder.settled)),
        (String::new(), String::new())
    );
    let invite = "k0s-token-10.88.0.12 k0s-invite-10.88.0.12";
    assert_eq!(ids(&joiner.invite), invite);
    assert_eq!(ids(&joiner.settled), "k0s-forget-10.88.0.12");
    assert_eq!(ids(&node.invite), "k0s-token-nodes k0s-invite-nodes");
    // The authority's key is on the founder alone until k0s itself brings it to the others.
    let has_key = |plan: &RuntimePlan| plan.prepare.iter().any(|step| step.id.starts_with("k0s-authorities"));
    assert_eq!([&founder, &joiner, &node].map(has_key), [true, false, false]);
    let text = format!("{:?}", joiner.invite);
    assert!(text.contains("usage-controller-join") && !format!("{:?}", node.invite).contains("controller-join"));
}

#[test]
fn parts_of_k0s_can_read_what_is_no_secret() {
    let plan = single(None, &Options::default()).unwrap();
    let Action::WriteFiles(files) = action(&plan, "k0s-authorities") else {
        panic!();
    };
    let modes: Vec<(String, u32)> = files.iter().map(|file| (word(&file.path), file.mode.0)).collect();
    let pki = |name: &str| format!("/var/lib/k0s/pki/{name}");
    assert_eq!(
        modes,
        [
            (pki("ca.crt"), 0o644),
            (pki("ca.key"), 0o600),
            (pki("sa.key"), 0o600),
            (pki("sa.pub"), 0o644)
        ]
    );
}

#[test]
fn a_drop_in_is_of_the_version_that_containerd_reads() {
    for (version, line) in [
        (
            "v1.34.10+k0s.0",
            "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]",
        ),
        (
            "v1.36.3+k0s.2",
            "version = 3\n\n[plugins.\"io.containerd.cri.v1.images\".registry]",
        ),
    ] {
        let plan = plan_of(1, &[MASTER], version, &rootfs(None), &Options::default()).unwrap();
        let Action::WriteFiles(files) = action(&plan, "k0s-registries") else {
            panic!();
        };
        let text = format!("{:?}", files[0].content);
        assert!(
            text.contains(&format!("{line:?}").trim_matches('"').to_owned()),
            "{text}"
        );
        let names: Vec<String> = files[1..].iter().map(|file| word(&file.path)).collect();
        let folder = "/etc/k0s/containerd.d/certs.d";
        let hosts = ["quay.io:5001", "sea.hub:5000"].map(|host| format!("{folder}/{host}/hosts.toml"));
        assert_eq!(names, hosts);
    }
}

#[test]
fn passwords_of_a_clusterfile_are_no_part_of_the_plan() {
    let options = Options {
        runtime_documents: vec![
            json!({"apiVersion": GROUP_VERSION, "kind": "ClusterConfig", "spec": {"storage": {
            "type": "kine", "kine": {"dataSource": "postgres://k0s:opensesame@10.88.0.9/k0s"}}}}),
        ],
        ..Options::default()
    };
    let plan = |number| plan_of(number, &[MASTER, MASTER], "v1.36.3+k0s.2", &rootfs(None), &options).unwrap();
    let (one, two) = (plan(1), plan(2));
    for plan in [&one, &two] {
        assert!(!format!("{plan:?}").contains("opensesame"));
        let Action::WriteFile { content, .. } = action(plan, "k0s-config") else {
            panic!();
        };
        assert!(format!("{content:?}").contains("options/runtime-documents/0/spec/storage/kine/dataSource"));
        // All controllers share what is there, so they have the same authority from the start and need no token.
        assert!(plan.invite.is_empty());
        assert!(plan.prepare.iter().any(|step| step.id.starts_with("k0s-authorities")));
    }
}

#[test]
fn new_kubelets_need_new_cgroups() {
    let mut facts = server();
    facts.cgroup_v2 = false;
    let mut options = Options::default();
    let found = |version, options: &Options| K0s.preflight(&facts, &image(version), options).len();
    assert_eq!(found("v1.34.10+k0s.0", &options), 0);
    assert_eq!(found("v1.36.3+k0s.2", &options), 1);
    options.runtime_config = vec!["ignore-pre-flight-checks=true".into()];
    assert_eq!(found("v1.36.3+k0s.2", &options), 0);
}
