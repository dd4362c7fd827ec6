use super::*;
use crate::facts::tests::server;
use crate::facts::{Address, Disk, Listener, Route};
use crate::runtime::tests::{cluster_image, runtime_image};
use sealrs_image::progress::Silent;

fn checks(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.check).collect()
}

fn found(facts: &HostFacts, image: &ClusterImage, options: &Options) -> Vec<Finding> {
    let host = "10.88.0.11".parse().unwrap();
    let place = Place {
        host,
        role: Role::Master,
        registry: Some(host),
    };
    let wanted = Wanted {
        image: Some(image),
        runtime: Some(crate::runtime::of(image).unwrap()),
        options,
    };
    findings(facts, wanted, place)
}

#[test]
fn a_plain_server_is_ready() {
    let options = Options::default();
    for runtime in ["script", "k3s"] {
        let found = found(&server(), &runtime_image(runtime), &options);
        assert!(found.is_empty(), "{runtime}: {found:?}");
    }
}

#[test]
fn a_cluster_of_the_same_name_under_another_root_is_not_overwritten() {
    let (image, options) = (runtime_image("script"), Options::default());
    let mut facts = server();
    facts.hosts =
        crate::facts::parse_hosts("# BEGIN sealrs my-cluster\n10.88.0.11 other.hub\n# END sealrs my-cluster\n");
    assert_eq!(checks(&found(&facts, &image, &options)), ["cluster-name"]);
    let other = Options {
        cluster: "other".into(),
        ..Options::default()
    };
    assert!(found(&facts, &image, &other).is_empty());
    facts.hosts.clear();
    facts.containerd_clusters.insert("my-cluster".to_owned());
    assert_eq!(checks(&found(&facts, &image, &options)), ["cluster-name"]);
    facts.containerd_clusters.clear();
    let unit = "/etc/systemd/system/sealrs-registry-my-cluster.service";
    facts.paths.insert(unit.into());
    assert!(
        interest(Some(crate::runtime::of(&image).unwrap()), &options, true)
            .paths
            .contains(&unit.into())
    );
    assert_eq!(checks(&found(&facts, &image, &options)), ["cluster-name"]);
}

#[test]
fn two_clusters_do_not_share_the_address_of_a_registry() {
    let mut facts = server();
    facts.registry_clusters = vec!["other".into()];
    let found = found(&facts, &runtime_image("script"), &Options::default());
    assert_eq!(checks(&found), ["registry-address"]);
    assert!(found[0].problem.contains("`other`") && found[0].remedy.contains("--registry-port"));
}

#[test]
fn everything_is_found_at_once() {
    let mut facts = server();
    facts.root = false;
    facts.hosts_writable = false;
    facts.programs.clear();
    facts.platform = "linux/arm64".parse().unwrap();
    facts.paths.insert("/var/lib/rancher/k3s/server".into());
    facts.listeners = vec![
        Listener {
            port: 5000,
            process: Some("docker-registry (77)".into()),
        },
        Listener {
            port: 6443,
            process: None,
        },
    ];
    let image = runtime_image("k3s");
    let found = found(&facts, &image, &Options::default());
    assert_eq!(
        checks(&found),
        [
            "platform",
            "bash",
            "root",
            "registry-name",
            "registry-port",
            "runtime-port",
            "leftovers"
        ]
    );
    let error = enforce(&found, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Preflight);
    let text = error.to_string();
    for part in [
        "7 things",
        "docker-registry (77)",
        "--registry-domain localhost",
        "/var/lib/rancher/k3s/server",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_user_without_rights_can_run_scripts_on_localhost() {
    let mut facts = server();
    facts.root = false;
    facts.hosts_writable = false;
    let mut options = Options {
        registry_domain: "localhost".into(),
        ..Options::default()
    };
    assert!(found(&facts, &runtime_image("script"), &options).is_empty());
    options.registry_port = 443;
    assert_eq!(
        checks(&found(&facts, &runtime_image("script"), &options)),
        ["registry-port"]
    );
}

#[test]
fn needs_on_one_file_system_are_added_up() {
    let options = Options::default();
    let data = PathBuf::from("/var/lib/sealer/data/my-cluster");
    let mut image = cluster_image(&[("cluster.alpha.sealer.io/cluster-runtime-type", "k3s")]);
    image.manifest.layers = vec![sealrs_image::spec::Descriptor::new(
        sealrs_image::spec::media_type::LAYER,
        image.descriptor.digest,
        1 << 30,
    )];
    let mut facts = server();
    let disk = |device, free| Disk {
        device,
        free,
        size: 16 << 30,
        no_programs: false,
    };
    // Enough for the rootfs, not for what k3s makes of it: it may do, if images share layers.
    facts.disks.insert(data.clone(), disk(1, 2 << 30));
    facts.disks.insert("/var/lib/rancher/k3s".into(), disk(1, 2 << 30));
    let one = found(&facts, &image, &options);
    assert_eq!(checks(&one), ["disk"]);
    assert!(!one[0].fatal);
    assert!(one[0].problem.contains("have 2048 MiB"), "{one:?}");
    assert!(one[0].problem.contains("1024 MiB for /var/lib/sealer/data/my-cluster"));
    enforce(&one, &Silent).unwrap();
    // On two file systems each has to hold only its own.
    facts.disks.insert("/var/lib/rancher/k3s".into(), disk(2, 8 << 30));
    assert!(found(&facts, &image, &options).is_empty());
    facts.disks.insert(data, disk(1, 1 << 29));
    let small = found(&facts, &image, &options);
    assert!(small[0].fatal && small[0].problem.contains("have 512 MiB"), "{small:?}");
}

/// The checks that fail of a server that was changed in this way, those of errors with a `!`.
fn changed(runtime: &str, change: impl FnOnce(&mut HostFacts)) -> Vec<String> {
    let mut facts = server();
    change(&mut facts);
    let found = found(&facts, &runtime_image(runtime), &Options::default());
    let word = |finding: &Finding| format!("{}{}", finding.check, if finding.fatal { "!" } else { "" });
    found.iter().map(word).collect()
}

#[test]
fn what_pods_can_t_run_on_is_found() {
    type Change = fn(&mut HostFacts);
    let cases: [(&str, Change); 22] = [
        ("kernel!", |facts| facts.system.kernel = "2.6.32-754.el6".into()),
        ("kernel", |facts| facts.system.kernel = "3.10.0-1160.el7".into()),
        ("kernel-options", |facts| facts.system.kernel_config = None),
        ("kernel-options!", |facts| {
            facts.system.kernel_config.as_mut().unwrap().remove("OVERLAY_FS");
        }),
        ("kernel-modules", |facts| facts.system.modules = false),
        ("cgroup-controllers!", |facts| {
            facts.system.cgroups.remove("memory");
        }),
        ("memory!", |facts| facts.system.memory = 400 << 20),
        ("memory", |facts| facts.system.memory = 1 << 30),
        ("swap", |facts| facts.system.swap = 1 << 30),
        ("hostname!", |facts| facts.hostname = "localhost".into()),
        ("network!", |facts| {
            facts.addresses.push(Address {
                ip: "10.42.7.1".parse().unwrap(),
                interface: Some("eth1".into()),
            });
        }),
        ("network!", |facts| {
            facts.system.routes.push(Route {
                interface: "eth1".into(),
                destination: "10.42.8.0".parse().unwrap(),
                prefix: 24,
            });
        }),
        ("network-manager", |facts| facts.system.network_manager = true),
        ("cloud-setup", |facts| facts.system.cloud_setup = true),
        ("localhost", |facts| facts.system.localhost = false),
        ("resolv-conf", |facts| {
            facts.system.nameservers = vec!["127.0.0.1".parse().unwrap()];
        }),
        ("apparmor", |facts| facts.system.apparmor = true),
        ("selinux", |facts| facts.system.selinux = true),
        ("firewall", |facts| {
            facts.system.processes.insert("firewalld".into());
        }),
        ("inotify", |facts| {
            facts.system.sysctls.insert("fs/inotify/max_user_instances".into(), 128);
        }),
        ("leftovers!", |facts| {
            facts.system.interfaces.insert("flannel.1".into());
        }),
        ("disk-speed", |facts| facts.system.sync = Some(40_000)),
    ];
    for (number, (check, change)) in cases.into_iter().enumerate() {
        assert_eq!(changed("k3s", change), [check], "case {number}");
        // Scripts make what they like.
        let of_scripts = changed("script", change);
        assert!(of_scripts.is_empty(), "{of_scripts:?}");
    }
    // Old distributions have a name server of their own that knows the real ones.
    let resolved = changed("k3s", |facts| {
        facts.system.nameservers = vec!["127.0.0.53".parse().unwrap()];
        facts.system.resolved = true;
    });
    assert!(resolved.is_empty(), "{resolved:?}");
}

#[test]
fn clusters_of_other_runtimes_are_leftovers_too() {
    let found = |path: &'static str| {
        let mut facts = server();
        facts.paths.insert(path.into());
        let (image, options) = (runtime_image("k3s"), Options::default());
        let interest = interest(Some(crate::runtime::of(&image).unwrap()), &options, false);
        assert!(interest.paths.contains(&path.into()), "{path} is looked for");
        super::tests::found(&facts, &image, &options)
    };
    for (path, of) in [
        ("/etc/kubernetes/admin.conf", "another kubernetes"),
        ("/var/lib/k0s", "another k0s"),
        ("/etc/rancher/rke2", "another Kubernetes"),
        ("/var/lib/rancher/k3s/server", "another k3s"),
    ] {
        let found = found(path);
        assert_eq!(checks(&found), ["leftovers"]);
        assert!(found[0].fatal && found[0].problem.starts_with(of), "{found:?}");
    }
}

#[test]
fn runtimes_differ_in_what_they_need() {
    let swap = |facts: &mut HostFacts| facts.system.swap = 1 << 30;
    let mut facts = server();
    swap(&mut facts);
    facts.system.cpus = 1;
    facts.programs.insert("ip".into());
    let needs = Needs::of("kubernetes");
    let place = |role| Place {
        host: "10.88.0.11".parse().unwrap(),
        role,
        registry: None,
    };
    let of = |role| checks(&system::findings(&facts, &Options::default(), &needs, place(role)));
    assert_eq!(of(Role::Master), ["cpus", "swap", "tools"]);
    assert_eq!(of(Role::Node), ["swap", "tools"]);
    assert!(system::findings(&facts, &Options::default(), &needs, place(Role::Node))[0].fatal);
    let mut lost = server();
    lost.default_route = false;
    lost.system.own_name = false;
    let of = |runtime: &str| {
        let found = system::findings(&lost, &Options::default(), &Needs::of(runtime), place(Role::Node));
        let mut found = checks(&found);
        found.retain(|check| *check != "tools");
        found
    };
    // k3s is told its address and its interface.
    assert_eq!(of("k3s"), [""; 0]);
    assert_eq!(of("k0s"), ["default-route"]);
    assert_eq!(of("kubernetes"), ["hostname", "default-route"]);
    // Another range is given in each runtime's own way.
    let in_pods = |options: &Options| {
        let mut facts = server();
        facts.addresses[0].ip = "10.42.0.5".parse().unwrap();
        let found = system::findings(&facts, options, &Needs::of("k3s"), place(Role::Node));
        checks(&found) == ["network"]
    };
    assert!(in_pods(&Options::default()));
    let setting = Options {
        runtime_config: vec!["cluster-cidr=10.200.0.0/16,fd01::/56".into()],
        ..Options::default()
    };
    assert!(!in_pods(&setting));
    let document = Options {
        runtime_documents: vec![serde_json::json!({
            "kind": "K3sConfig", "spec": {"server": {"cluster-cidr": ["10.200.0.0/16"]}}
        })],
        ..Options::default()
    };
    assert!(!in_pods(&document));
}

#[test]
fn hosts_are_held_against_each_other() {
    let neighbour = |last: u8, hostname: &str, ahead: i64| Neighbour {
        host: [10, 0, 0, last].into(),
        role: Role::Master,
        hostname: hostname.into(),
        seen: Some(Seen {
            machine_id: format!("id-{last}"),
            ahead: (ahead, 100),
            keeps_time: true,
        }),
    };
    let words = |hosts: &[Neighbour]| -> Vec<String> {
        let found = together(hosts, true);
        let word = |finding: &Finding| {
            let host = finding.host.map_or_else(String::new, |host| format!("{host}: "));
            format!("{}{host}{}", if finding.fatal { "!" } else { "" }, finding.problem)
        };
        found.iter().map(word).collect()
    };
    let good = [neighbour(1, "a", 0), neighbour(2, "b", 20), neighbour(3, "c", -20)];
    assert_eq!(words(&good), [""; 0]);
    let mut bad = good.to_vec();
    bad[1].hostname = "A".into();
    bad[1].seen.as_mut().unwrap().machine_id = "id-1".into();
    bad[2].seen.as_mut().unwrap().keeps_time = false;
    bad.push(neighbour(4, "d", 40_000));
    assert_eq!(
        words(&bad),
        [
            "!10.0.0.2: it has the same name as 10.0.0.1: a",
            "10.0.0.2: it has the same machine-id as 10.0.0.1, as copies have",
            "!10.0.0.4: its clock is 40 s ahead of most others",
            "10.0.0.3: nothing keeps its clock right",
            "4 masters bear the loss of 1, no more than 3 do",
        ]
    );
    // Of two, nobody knows which one is right: certificates are made by the operator's clock.
    assert_eq!(
        words(&[neighbour(1, "a", -8_000)]),
        ["10.0.0.1: its clock is 8 s behind that of this machine"]
    );
    // All agree, and the operator is wrong.
    let all = [1, 2, 3].map(|last| neighbour(last, &format!("n{last}"), 60_000));
    assert_eq!(
        words(&all),
        ["!the clock of this machine, where sealrs runs, is 60 s behind those of the hosts"]
    );
}

#[test]
fn the_same_on_many_hosts_is_told_once() {
    let finding = |last: u8| Finding::error("swap", "it has swap", "turn it off").on([10, 0, 0, last].into());
    let error = enforce(&[finding(1), finding(2)], &Silent).unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 things stand against the installation:\n  - 10.0.0.1, 10.0.0.2: it has swap (turn it off)"
    );
}

#[test]
fn docker_is_refused_where_containerd_is_brought() {
    let options = Options {
        container_runtime: Some("docker".to_owned()),
        ..Options::default()
    };
    for (runtime, fails) in [("k3s", true), ("k0s", true), ("kubernetes", true), ("script", false)] {
        let found = found(&server(), &runtime_image(runtime), &options);
        assert_eq!(
            checks(&found).contains(&"container-runtime"),
            fails,
            "{runtime}: {found:?}"
        );
    }
}

#[test]
fn documents_that_nobody_reads_are_refused() {
    let options = |kind: &str| Options {
        runtime_documents: vec![serde_json::json!({"apiVersion": "x", "kind": kind})],
        ..Options::default()
    };
    for (runtime, kind, fails) in [
        ("k3s", "K3sConfig", false),
        ("k3s", "ClusterConfig", true),
        ("k0s", "K3sConfig", true),
        ("script", "KubeletConfiguration", true),
    ] {
        let found = found(&server(), &runtime_image(runtime), &options(kind));
        assert_eq!(
            checks(&found).contains(&"runtime-documents"),
            fails,
            "{runtime} {kind}: {found:?}"
        );
    }
}
