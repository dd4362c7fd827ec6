use super::*;
use crate::facts::tests::server;
use crate::runtime;
use crate::runtime::tests::runtime_image;
use crate::service::Manager;
use sealrs_image::cluster_image::ContainerImage;

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
    let mut image = runtime_image(runtime);
    image.extension.launch.cmds = vec!["kubectl apply -f manifests".into()];
    image.container_images = ["docker.io/library/nginx:1", "quay.io:5001/a/b:1"]
        .map(|image| ContainerImage {
            image: image.to_owned(),
            app_name: String::new(),
            platform: None,
        })
        .to_vec();
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

#[test]
fn k3s_on_a_plain_server() {
    let rootfs = rootfs(&["bin/k3s", "images/airgap.tar.zst", "images/readme.txt.md"]);
    let plan = decide(&image("k3s"), &server(), &rootfs, &Options::default()).unwrap();
    insta::assert_json_snapshot!("k3s", plan);
}

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
