use super::*;
use crate::facts::tests::server;
use crate::facts::{Disk, Listener};
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
        registry: host,
    };
    findings(facts, image, options, crate::runtime::of(image).unwrap(), place)
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
        interest(crate::runtime::of(&image).unwrap(), &options)
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
    let disk = |device, free| Disk { device, free };
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
