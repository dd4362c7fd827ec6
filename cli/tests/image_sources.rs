//! `sealrs build --image-source`: container images of archives, layouts, the store, docker, podman and containerd, where no
//! registry is. `registry.invalid` is a name that nobody answers to (RFC 2606).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use sealrs_image::digest::Digest;
use serde_json::Value;
use support::{Running, Scratch, assert_has, image, needs, needs_root, noise, run, succeed, wait_until};

const NAME: &str = "registry.invalid/team/app:v1";

/// Makes a layout `made` with an image of both platforms under its whole name; gives its path and the image's digest.
fn made(scratch: &Scratch) -> (String, Digest) {
    let raw = scratch.path("raw");
    let platforms = ["linux/amd64", "linux/arm64"];
    image::layout(
        Path::new(&raw),
        "v1",
        &platforms,
        &[noise(1, 400_000), b"small".to_vec()],
    );
    let layout = scratch.path("made");
    let target = format!("oci:{layout}:{NAME}");
    run(
        "skopeo",
        &["copy", "--quiet", "--all", &format!("oci:{raw}:v1"), &target],
    );
    let index: Value = serde_json::from_slice(&fs::read(Path::new(&layout).join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
    (layout, digest)
}

/// What `skopeo copy` makes of the layout for this host.
fn copied(layout: &str, target: &str, more: &[&str]) {
    let source = format!("oci:{layout}:{NAME}");
    let arguments = ["copy", "--quiet", "--override-arch", "amd64", "--override-os", "linux"];
    run("skopeo", &[&arguments[..], more, &[&source, target]].concat());
}

/// The context with a list that names the image.
fn list(scratch: &Scratch, name: &str) {
    scratch.write("context/imageList", format!("{name}\n"));
}

const KUBEFILE: &str = "FROM scratch\nCOPY . .\n";

/// The lock's entry of the only image.
fn locked(scratch: &Scratch, built: &str) -> Value {
    let lock: Value = serde_json::from_str(&scratch.rootfs(built).file("images.lock")).unwrap();
    assert_eq!(lock["images"].as_array().unwrap().len(), 1, "{lock}");
    lock["images"][0].clone()
}

/// A root of its own for each build: what one has fetched must not help the next.
fn fresh(scratch: &Scratch) {
    let _ = fs::remove_dir_all(scratch.path("root"));
}

#[test]
fn archives_layouts_and_the_store_stand_in_for_registries() {
    needs!("skopeo");
    let scratch = Scratch::new();
    let (layout, digest) = made(&scratch);
    let single = scratch.path("single");
    copied(&layout, &format!("oci:{single}:{NAME}"), &[]);
    let oci = scratch.path("oci.tar");
    copied(&layout, &format!("oci-archive:{oci}:{NAME}"), &["--all"]);
    let docker = scratch.path("docker.tar");
    copied(&layout, &format!("docker-archive:{docker}:{NAME}"), &[]);

    list(&scratch, NAME);
    for source in [&layout, &oci, &docker, &single] {
        fresh(&scratch);
        let platform = ["--platform", "linux/amd64", "--image-source", source];
        scratch.build("x:1", KUBEFILE, &platform);
        let entry = locked(&scratch, "x:1");
        assert_eq!(entry["image"], NAME);
        assert_eq!(
            entry["digest"] == digest.to_string(),
            *source != docker && *source != single,
            "{source}"
        );
        // All that is in there can be had without the source.
        scratch.build(
            "x:2",
            KUBEFILE,
            &platform[..2]
                .iter()
                .chain(&["--image-source", source])
                .copied()
                .collect::<Vec<_>>(),
        );
    }
    // Both platforms come out of an index.
    fresh(&scratch);
    scratch.build(
        "x:1",
        KUBEFILE,
        &["--platform", "linux/amd64,linux/arm64", "--image-source", &oci],
    );
    // Where an image is for another platform, the next source is asked.
    fresh(&scratch);
    scratch.build(
        "x:1",
        KUBEFILE,
        &[
            "--platform",
            "linux/arm64",
            "--image-source",
            &docker,
            "--image-source",
            &layout,
        ],
    );
    assert_eq!(locked(&scratch, "x:1")["digest"], digest.to_string());

    // The store holds it as loaded.
    fresh(&scratch);
    scratch.ok(&["load", "-i", &oci]);
    scratch.build("x:1", KUBEFILE, &["--image-source", "store"]);
    assert_eq!(locked(&scratch, "x:1")["digest"], digest.to_string());

    // A digest is had from where it is, by whatever name, and not from what was made anew.
    list(&scratch, &format!("{}@{digest}", NAME.replace("app:v1", "other:v3")));
    fresh(&scratch);
    scratch.build("x:1", KUBEFILE, &["--image-source", &docker, "--image-source", &layout]);
    fresh(&scratch);
    let said = scratch.build_fails(5, KUBEFILE, &["--image-source", &docker]);
    assert_has(&said, &["imageList:1", "no image source has", "registry.invalid"]);
}

#[test]
fn what_a_source_has_is_verified_and_what_is_none_is_told() {
    needs!("skopeo");
    let scratch = Scratch::new();
    let (layout, digest) = made(&scratch);
    list(&scratch, NAME);
    let build = |code: i32, source: &str| scratch.build_fails(code, KUBEFILE, &["--image-source", source]);
    assert_has(
        &build(3, "absent.tar"),
        &["there is no image source absent.tar", "OCI layout"],
    );
    scratch.write("file", "no archive");
    assert_has(&build(4, "file"), &["file"]);

    let blob = |digest: &str| Path::new(&layout).join("blobs/sha256").join(&digest[7..]);
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let index: Value = serde_json::from_slice(&fs::read(blob(&digest.to_string())).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let layers: Value = serde_json::from_slice(&fs::read(blob(&manifest)).unwrap()).unwrap();
    let layer = layers["layers"][0]["digest"].as_str().unwrap();
    for damaged in [layer, &manifest, &digest.to_string()] {
        flip(&blob(damaged));
        assert_has(&build(4, &layout), &[damaged, "team/app:v1"]);
        flip(&blob(damaged));
    }
    // A layer that is gone is looked for in the registry.
    fs::rename(blob(layer), scratch.path("away")).unwrap();
    assert_has(&build(5, &layout), &[layer, "registry.invalid"]);
    fs::rename(scratch.path("away"), blob(layer)).unwrap();
    scratch.build("x:1", KUBEFILE, &["--image-source", &layout]);

    // A lock that was written so is kept to so.
    scratch.build("x:1", KUBEFILE, &["--image-source", &layout, "--update-lock"]);
    fresh(&scratch);
    scratch.build("x:1", KUBEFILE, &["--image-source", &layout, "--frozen"]);
}

/// sealrs, with programs of `folder` and this environment.
fn building(scratch: &Scratch, source: &str, env: &[(&str, String)]) -> Command {
    let mut command = scratch.building("x:1", KUBEFILE, &["--image-source", source]);
    command.envs(env.iter().map(|(name, value)| (*name, value)));
    command
}

#[test]
fn containerd_gives_what_it_has() {
    needs_root!();
    needs!("skopeo", "containerd", "ctr");
    let scratch = Scratch::new();
    let (layout, digest) = made(&scratch);
    let oci = scratch.path("oci.tar");
    copied(&layout, &format!("oci-archive:{oci}:{NAME}"), &["--all"]);
    let socket = scratch.path("containerd.sock");
    let config = scratch.write(
        "config.toml",
        "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n",
    );
    let (root, state) = (scratch.path("containerd"), scratch.path("state"));
    let log = fs::File::create(scratch.path("containerd.log")).unwrap();
    let mut command = Command::new("containerd");
    command.args([
        "--config",
        &config,
        "--root",
        &root,
        "--state",
        &state,
        "--address",
        &socket,
    ]);
    let _containerd = Running::start(command.stderr(log));
    let ctr = |arguments: &[&str]| {
        let mut command = Command::new("ctr");
        command.args(["--address", &socket]).args(arguments);
        command
    };
    wait_until("containerd answers", || {
        ctr(&["version"]).output().unwrap().status.success()
    });
    let env = [("CONTAINERD_ADDRESS", socket.clone())];
    list(&scratch, NAME);
    // It has nothing yet.
    let (code, said) = support::outcome(&mut building(&scratch, "containerd", &env));
    assert_eq!(code, Some(5), "{said}");
    for namespace in ["k8s.io", "other"] {
        fresh(&scratch);
        succeed(&mut ctr(&[
            "-n",
            namespace,
            "images",
            "import",
            "--no-unpack",
            "--all-platforms",
            &oci,
        ]));
        succeed(&mut building(&scratch, "containerd", &env));
        assert_eq!(locked(&scratch, "x:1")["digest"], digest.to_string());
        succeed(&mut ctr(&["-n", namespace, "images", "rm", "--sync", NAME]));
    }
    // Nobody answers.
    let env = [("CONTAINERD_ADDRESS", scratch.path("nobody.sock"))];
    let said = support::fail(&mut building(&scratch, "containerd", &env), 2);
    assert_has(&said, &["`ctr` does not give its images"]);
}

/// The folder of docker and podman, or an end with the reason.
macro_rules! engines {
    () => {
        match std::env::var("SEALRS_TEST_ENGINES") {
            Ok(folder) if Path::new(&folder).join("dockerd").is_file() => folder,
            _ => {
                println!("skipped: this test needs the programs of scripts/tools.sh");
                return;
            }
        }
    };
}

fn path_with(folder: &str) -> String {
    format!("{folder}:{}", std::env::var("PATH").unwrap())
}

#[test]
fn podman_gives_what_it_has() {
    needs_root!();
    needs!("skopeo");
    let folder = engines!();
    let scratch = Scratch::new();
    let (layout, _) = made(&scratch);
    let storage = format!(
        "[storage]\ndriver = 'vfs'\ngraphroot = '{}'\nrunroot = '{}'\n",
        scratch.path("graph"),
        scratch.path("run")
    );
    let env = [
        ("PATH", path_with(&folder)),
        ("CONTAINERS_STORAGE_CONF", scratch.write("storage.conf", storage)),
    ];
    let archive = scratch.path("docker.tar");
    copied(&layout, &format!("docker-archive:{archive}:{NAME}"), &[]);
    let load = |name: &str| {
        let mut command = Command::new(Path::new(&folder).join("podman"));
        let target = format!("docker-archive:{}", scratch.path(&format!("{name}.tar")));
        fs::copy(&archive, scratch.path(&format!("{name}.tar"))).unwrap();
        succeed(
            command
                .args(["--conmon", &format!("{folder}/conmon"), "pull", "--quiet", &target])
                .envs(env.clone()),
        );
    };
    list(&scratch, NAME);
    let (code, said) = support::outcome(&mut building(&scratch, "podman", &env));
    assert_eq!(code, Some(5), "{said}");
    load("one");
    succeed(&mut building(&scratch, "podman", &env));
    let entry = locked(&scratch, "x:1");
    assert!(entry["size"].as_u64().unwrap() > 400_000, "{entry}");
    assert_eq!(scratch.partial(), Vec::<String>::new());
}

#[test]
fn docker_gives_what_it_has() {
    needs_root!();
    needs!("skopeo", "containerd");
    let folder = engines!();
    let scratch = Scratch::new();
    let (layout, _) = made(&scratch);
    let socket = format!("unix://{}", scratch.path("docker.sock"));
    let env = [("PATH", path_with(&folder)), ("DOCKER_HOST", socket.clone())];
    list(&scratch, NAME);
    // Without the daemon nothing is passed by in silence.
    let said = support::fail(&mut building(&scratch, "docker", &env), 2);
    assert_has(&said, &["`docker` does not give its images"]);

    let log = fs::File::create(scratch.path("dockerd.log")).unwrap();
    let mut command = Command::new(Path::new(&folder).join("dockerd"));
    command
        .args([
            "--data-root",
            &scratch.path("docker"),
            "--exec-root",
            &scratch.path("exec"),
        ])
        .args([
            "--pidfile",
            &scratch.path("docker.pid"),
            "--host",
            &socket,
            "--storage-driver",
            "vfs",
        ])
        .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
        .envs(env.clone())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let _dockerd = Running::start(&mut command);
    let docker = |arguments: &[&str]| {
        let mut command = Command::new(Path::new(&folder).join("docker"));
        command.args(arguments).envs(env.clone());
        command
    };
    wait_until("docker answers", || {
        docker(&["version"]).output().unwrap().status.success()
    });
    let archive = scratch.path("docker.tar");
    copied(&layout, &format!("docker-archive:{archive}:{NAME}"), &[]);
    succeed(&mut docker(&["load", "--input", &archive]));
    succeed(&mut building(&scratch, "docker", &env));
    assert!(locked(&scratch, "x:1")["size"].as_u64().unwrap() > 400_000);
    assert_eq!(scratch.partial(), Vec::<String>::new());
}
