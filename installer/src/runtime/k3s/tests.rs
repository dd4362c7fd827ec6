use super::*;
use crate::action::Content;
use crate::cluster::ClusterFiles;
use crate::command::word;
use crate::facts::tests::server;
use crate::plan::Peer;
use crate::registry;
use crate::rootfs::RootfsFacts;
use crate::runtime::tests::runtime_image;
use sealrs_image::cluster_image::ContainerImage;

fn rootfs(config: Option<&str>) -> RootfsFacts {
    let mut rootfs = RootfsFacts::default();
    for (path, size) in [
        ("bin/k3s", 75_000_000),
        ("images/k3s-airgap-images-amd64.tar.zst", 200_000_000),
        ("images/app.TAR", 80_000_000),
        ("images/readme.md", 10),
        ("images/sub/x.tar", 10),
    ] {
        rootfs.files.insert(path.to_owned(), size);
    }
    if let Some(config) = config {
        rootfs.files.insert(IMAGE_CONFIG.to_owned(), 1);
        rootfs.texts.insert(IMAGE_CONFIG.to_owned(), config.to_owned());
    }
    rootfs
}

fn image() -> ClusterImage {
    let mut image = runtime_image("k3s");
    image.container_images = ["docker.io/library/nginx:1", "quay.io:5001/a/b:1", "docker.io/x/y:2"]
        .map(|image| ContainerImage {
            image: image.to_owned(),
            app_name: String::new(),
            platform: None,
        })
        .to_vec();
    image
}

fn plan(facts: &HostFacts, rootfs: &RootfsFacts, options: &Options) -> Result<RuntimePlan> {
    let files = ClusterFiles::new(&options.root, &options.cluster);
    K3s.plan(&Context {
        facts,
        rootfs,
        image: &image(),
        options,
        files: &files,
        host: "10.88.0.11".parse().unwrap(),
        role: Role::Master,
        here: true,
        peers: &[peer("10.88.0.11", Role::Master, "node1")],
    })
}

fn peer(address: &str, role: Role, hostname: &str) -> Peer {
    Peer {
        address: address.parse().unwrap(),
        role,
        hostname: hostname.to_owned(),
    }
}

fn text(plan: &RuntimePlan, id: &str) -> String {
    let step = plan
        .prepare
        .iter()
        .chain(&plan.join)
        .find(|step| step.id == id)
        .unwrap();
    match &step.action {
        Action::WriteFile {
            mode: Mode(0o600),
            content: Content::Text(text),
            ..
        } => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn merges_the_settings_of_image_user_and_host() {
    let rootfs = rootfs(Some(
        "disable: [traefik]\ntls-san: [k3s.example]\nsnapshotter: native\n",
    ));
    let mut options = Options {
        runtime_config: vec!["disable=servicelb,coredns".into(), "node-label=a=b".into()],
        ..Options::default()
    };
    let mut facts = server();
    let plan_of = |facts: &HostFacts, options: &Options| plan(facts, &rootfs, options).unwrap();
    assert_eq!(
        text(&plan_of(&facts, &options), "k3s-config"),
        "# Written by sealrs.\n\
         agent-token-file: \"/etc/rancher/k3s/agent-token\"\n\
         disable:\n  - \"servicelb\"\n  - \"coredns\"\n\
         node-label:\n  - \"a=b\"\n\
         snapshotter: \"native\"\n\
         tls-san:\n  - \"k3s.example\"\n  - \"10.88.0.11\"\n  - \"node1\"\n\
         token-file: \"/etc/rancher/k3s/token\"\n"
    );
    facts.default_route = false;
    assert!(text(&plan_of(&facts, &options), "k3s-config").contains("node-ip:\n  - \"10.88.0.11\"\n"));
    let config = text(&plan_of(&facts, &options), "k3s-config");
    assert!(config.contains("flannel-iface: \"eth0\"\n"), "{config}");
    options.runtime_config.push("node-ip=10.0.0.9".into());
    let config = text(&plan_of(&facts, &options), "k3s-config");
    assert!(config.contains("node-ip:\n  - \"10.0.0.9\"\n"), "{config}");
}

#[test]
fn mirrors_every_registry_host_of_the_images() {
    let mut rootfs = rootfs(None);
    let options = Options::default();
    let plain = plan(&server(), &rootfs, &options).unwrap();
    assert_eq!(
        text(&plain, "k3s-registries"),
        "# Written by sealrs.\n\
         configs:\n  \"sea.hub:5000\":\n    tls:\n      \
           ca_file: \"/var/lib/sealer/data/my-cluster/pki/ca.crt\"\n\
         mirrors:\n  \
           \"docker.io\":\n    endpoint:\n      - \"https://sea.hub:5000\"\n  \
           \"quay.io:5001\":\n    endpoint:\n      - \"https://sea.hub:5000\"\n  \
           \"sea.hub:5000\":\n    endpoint:\n      - \"https://sea.hub:5000\"\n"
    );
    rootfs.files.insert(registry::INIT_SCRIPT.to_owned(), 1);
    let foreign = text(&plan(&server(), &rootfs, &options).unwrap(), "k3s-registries");
    assert!(
        foreign.contains("- \"https://sea.hub:5000/v2/quay.io_5001\""),
        "{foreign}"
    );
}

#[test]
fn gives_k3s_its_archives_and_the_time_to_import_them() {
    let plan = plan(&server(), &rootfs(None), &Options::default()).unwrap();
    let step = |id: &str| {
        &plan
            .prepare
            .iter()
            .chain(&plan.join)
            .find(|step| step.id == id)
            .unwrap()
            .action
    };
    let Action::CopyFiles { files, link: true } = step("k3s-images") else {
        panic!();
    };
    let to: Vec<String> = files.iter().map(|file| word(&file.to)).collect();
    assert_eq!(
        to,
        [
            "/var/lib/rancher/k3s/agent/images/app.TAR",
            "/var/lib/rancher/k3s/agent/images/k3s-airgap-images-amd64.tar.zst",
        ]
    );
    let Action::Wait { seconds, .. } = step("k3s-ready") else {
        panic!();
    };
    assert_eq!(*seconds, 300 + (80 + 4 * 200) / 80);
    assert_eq!(plan.notes.len(), 1);
    assert!(plan.notes[0].contains("images/readme.md"));
}

#[test]
fn links_only_what_the_host_lacks_and_goes_where_it_can_write() {
    let mut facts = server();
    facts.programs.insert("kubectl".into());
    facts.usr_local_read_only = true;
    let plan = plan(&facts, &rootfs(None), &Options::default()).unwrap();
    let links: Vec<String> = plan
        .prepare
        .iter()
        .filter_map(|step| match &step.action {
            Action::Link { path, .. } if path.starts_with("/opt") => Some(word(path)),
            _ => None,
        })
        .collect();
    assert_eq!(links, ["/opt/bin/crictl", "/opt/bin/ctr"]);
}

#[test]
fn an_image_without_k3s_or_with_wrong_settings_is_refused() {
    let error = plan(&server(), &RootfsFacts::default(), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("bin/k3s"));
    let error = plan(&server(), &rootfs(Some("disabel: x\n")), &Options::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
}

#[test]
fn new_kubelets_need_new_cgroups() {
    let mut facts = server();
    facts.cgroup_v2 = false;
    let labels = |version| {
        crate::runtime::tests::cluster_image(&[
            ("cluster.alpha.sealer.io/cluster-runtime-type", "k3s"),
            ("cluster.alpha.sealer.io/cluster-runtime-version", version),
        ])
    };
    let mut options = Options::default();
    let found = |version, options: &Options| K3s.preflight(&facts, &labels(version), options).len();
    assert_eq!(found("v1.34.9+k3s1", &options), 0);
    assert_eq!(found("v1.35.0+k3s1", &options), 1);
    options.runtime_config = vec!["kubelet-arg=fail-cgroupv1=false".into()];
    assert_eq!(found("v1.36.3+k3s1", &options), 0);
}

#[test]
fn documents_of_a_clusterfile_are_for_their_role() {
    let rootfs = rootfs(Some("disable: [traefik]\n"));
    let document = serde_json::json!({
        "apiVersion": "sealer.io/v2", "kind": "K3sConfig",
        "spec": {"server": {"disable+": ["servicelb"], "cluster-init": false}, "agent": {"node-label": ["a=b"]}},
    });
    let mut options = Options {
        runtime_documents: vec![document],
        ..Options::default()
    };
    let of = |options: &Options, role: Role, peers: &[Peer]| {
        let files = ClusterFiles::new(&options.root, &options.cluster);
        let planned = K3s.plan(&Context {
            facts: &server(),
            rootfs: &rootfs,
            image: &image(),
            options,
            files: &files,
            host: "10.88.0.11".parse().unwrap(),
            role,
            here: true,
            peers,
        });
        planned.map(|plan| text(&plan, "k3s-config"))
    };
    let one = [peer("10.88.0.11", Role::Master, "node1")];
    let config = of(&options, Role::Master, &one).unwrap();
    assert!(
        config.contains("disable:\n  - \"traefik\"\n  - \"servicelb\"\n"),
        "{config}"
    );
    assert!(!config.contains("node-label"), "{config}");
    let two = [one[0].clone(), peer("10.88.0.12", Role::Master, "node2")];
    let error = of(&options, Role::Master, &two).unwrap_err();
    assert!(error.to_string().contains("`cluster-init` is false"), "{error:?}");
    let founder = [
        peer("10.88.0.10", Role::Master, "node0"),
        peer("10.88.0.11", Role::Node, "node1"),
    ];
    let config = of(&options, Role::Node, &founder).unwrap();
    assert!(
        config.contains("node-label:\n  - \"a=b\"\n") && !config.contains("disable"),
        "{config}"
    );
    options.runtime_documents[0]["spec"]["agent"]["node-ip"] = "10.0.0.1".into();
    let error = of(&options, Role::Node, &founder).unwrap_err();
    assert!(
        error.to_string().contains("`node-ip` can't be given for several hosts"),
        "{error:?}"
    );
    let found = |options: &Options| {
        let found = K3s.preflight(&server(), &runtime_image("k3s"), options);
        found.iter().map(|finding| finding.problem.clone()).collect::<String>()
    };
    assert_eq!(found(&options), "");
    options.runtime_documents[0]["spec"]["server"]["disabel"] = "x".into();
    assert!(
        found(&options).contains("`spec.server.disabel` of K3sConfig"),
        "{}",
        found(&options)
    );
    options.runtime_documents = vec![serde_json::json!({
        "kind": "K3sConfig", "spec": {"server": {"node-name": "First"}}
    })];
    assert_eq!(K3s.node_name(&one[0], &options), "first");
}

#[test]
fn a_datastore_elsewhere_is_shared_by_all_servers_and_in_no_plan() {
    let rootfs = rootfs(None);
    let endpoint =
        |text: &str| serde_json::json!({"kind": "K3sConfig", "spec": {"server": {"datastore-endpoint": text}}});
    let mut options = Options {
        runtime_documents: vec![
            serde_json::json!({"kind": "Other"}),
            endpoint("postgres://u:pass@h/kine"),
        ],
        ..Options::default()
    };
    let peers = [
        peer("10.88.0.11", Role::Master, "node1"),
        peer("10.88.0.12", Role::Master, "node2"),
        peer("10.88.0.13", Role::Node, "node3"),
    ];
    let of = |options: &Options, peer: &Peer| {
        let files = ClusterFiles::new(&options.root, &options.cluster);
        K3s.plan(&Context {
            facts: &server(),
            rootfs: &rootfs,
            image: &image(),
            options,
            files: &files,
            host: peer.address,
            role: peer.role,
            here: true,
            peers: &peers,
        })
    };
    let config = |peer: &Peer| {
        let plan = of(&options, peer).unwrap();
        let step = plan.prepare.iter().find(|step| step.id == "k3s-config").unwrap();
        assert!(!format!("{plan:?}").contains("pass@"), "{plan:?}");
        format!("{:?}", step.action)
    };
    let [first, second, node] = [0, 1, 2].map(|number| config(&peers[number]));
    for server in [&first, &second] {
        assert!(
            server.contains("options/runtime-documents/1/spec/server/datastore-endpoint"),
            "{server}"
        );
        assert!(!server.contains("cluster-init") && !server.contains("6443"), "{server}");
    }
    assert!(
        !node.contains("datastore") && node.contains("https://10.88.0.11:6443"),
        "{node}"
    );
    options.runtime_documents[0] = serde_json::json!({"kind": "K3sConfig", "spec": {"server": {"cluster-init": true}}});
    let error = of(&options, &peers[0]).unwrap_err();
    assert!(
        error.to_string().contains("each a place for the cluster's data"),
        "{error:?}"
    );
    options.runtime_documents = vec![endpoint("postgres://u:pa\"ss@h/kine")];
    let error = of(&options, &peers[0]).unwrap_err();
    assert!(error.to_string().contains("can't be written"), "{error:?}");
    assert!(!format!("{error:?}").contains("pa\"ss"), "{error:?}");
}
