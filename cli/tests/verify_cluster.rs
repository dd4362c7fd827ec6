//! `sealrs verify --cluster`: the private registry of a cluster is asked for every image of the lock and of pods. Whatever
//! is taken out of it or damaged is found. Many hosts are in host_many.rs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use sealrs_image::digest::Digest;
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::images::push;
use support::registry::{Registry, Setup};
use support::{assert_has, fail, needs, noise, outcome, succeed, text};

const INIT: &str = "#!/bin/bash\nset -eu\n[ -z \"${API-}\" ] || echo config > \"$KUBECONFIG\"\n";

/// Prints what lies in `PODS` and `NODES` of its folder.
const KUBECTL: &str = "#!/bin/bash\ncd \"$(dirname \"$0\")\"\n[ ! -e down ] || { echo 'connection refused' >&2; exit 1; }\n\
    case \"$*\" in *'get pods -A'*) cat pods;; *'get nodes'*) cat nodes;; *) exit 9;; esac\n";

/// A cluster with three images, of which two share a layer, one is an index, and one is named by digest.
fn cluster(run: &[&str]) -> (Cluster, Vec<Digest>, String) {
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    let shared = noise(1, 400_000);
    let here = ["linux/amd64"];
    let one = push(
        scratch,
        &upstream,
        "team/one:v1",
        &here,
        &[shared.clone(), b"one".to_vec()],
    );
    let two = push(scratch, &upstream, "two:v1", &["linux/amd64", "linux/arm64"], &[shared]);
    let three = push(scratch, &upstream, "three:v1", &here, &[noise(3, 300_000)]);
    let list = format!("{host}/team/one:v1\n{host}/two:v1\n{host}/three@{three}\n");
    let files = [
        ("scripts/runtime/init.sh", INIT),
        ("bin/kubectl", KUBECTL),
        ("imageList", &list),
    ];
    cluster.image("x", &files, "");
    succeed(&mut cluster.run("x.tar", run));
    (cluster, vec![one, two, three], host)
}

fn verify(cluster: &Cluster) -> std::process::Command {
    cluster.command(&[], &["verify", "--cluster", "my-cluster", "--quiet"])
}

/// What it found, and that its exit code says so.
#[track_caller]
fn audit(cluster: &Cluster) -> Value {
    let mut command = verify(cluster);
    let output = command.args(["--output", "json"]).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let has_gaps = found["gaps"].as_array().is_some_and(|gaps| !gaps.is_empty());
    let code = if has_gaps { Some(4) } else { Some(0) };
    assert_eq!(output.status.code(), code, "{output:?}");
    found
}

/// All files of the registry below a folder of its.
fn files(cluster: &Cluster, below: &str) -> Vec<PathBuf> {
    let folder = cluster
        .scratch
        .path(&cluster.data(&format!("rootfs/registry/docker/registry/v2/{below}")));
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn whatever_is_taken_out_of_the_registry_is_found() {
    needs!("docker-registry", "skopeo");
    let (cluster, roots, host) = cluster(&[]);
    let whole = audit(&cluster);
    assert_eq!((&whole["images"], &whole["gaps"]), (&json!(3), &json!([])), "{whole}");
    assert_eq!(
        (&whole["podImages"], &whole["hosts"].as_array().unwrap().len()),
        (&Value::Null, &1)
    );
    let blobs = files(&cluster, "blobs");
    assert_eq!(
        whole["blobs"],
        blobs.len(),
        "each blob of the folder is asked for: {blobs:?}"
    );
    let bytes: u64 = blobs.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(whole["bytes"], bytes);

    // Each blob in turn is taken away, and damaged.
    let mut images = BTreeSet::new();
    for path in &blobs {
        let digest = format!(
            "sha256:{}",
            path.parent().unwrap().file_name().unwrap().to_str().unwrap()
        );
        let content = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        let found = audit(&cluster);
        let gap = &found["gaps"][0];
        assert_eq!(
            (&gap["blob"], &gap["problem"]),
            (&json!(digest), &json!("missing")),
            "{found}"
        );
        assert_eq!(gap["host"], whole["hosts"][0]);
        images.insert(gap["image"].as_str().unwrap().to_owned());
        let said = fail(&mut verify(&cluster), 4);
        assert_has(
            &said,
            &[
                &digest,
                gap["image"].as_str().unwrap(),
                whole["hosts"][0].as_str().unwrap(),
            ],
        );

        let mut damaged = content.clone();
        damaged[content.len() / 2] ^= 1;
        fs::write(path, damaged).unwrap();
        let found = audit(&cluster);
        assert!(found["gaps"][0]["image"].is_string(), "{digest}: {found}");
        fs::write(path, content).unwrap();
    }
    let expected = [
        "team/one:v1".to_owned(),
        "two:v1".to_owned(),
        format!("three@{}", roots[2]),
    ];
    assert_eq!(images, expected.iter().map(|name| format!("{host}/{name}")).collect());

    // So is each link of the names that hosts ask for. What the classic names alone need is not asked for.
    let own: Vec<PathBuf> = files(&cluster, "repositories")
        .into_iter()
        .filter(|path| path.to_str().unwrap().contains("localhost_") || path.to_str().unwrap().contains("127.0.0.1_"))
        .filter(|path| !path.to_str().unwrap().contains("/tags/v1/index/"))
        .collect();
    assert!(own.len() > 10, "{own:?}");
    for path in own {
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let found = audit(&cluster);
        assert_ne!(found["gaps"], json!([]), "{}", path.display());
        fs::write(&path, content).unwrap();
    }
    assert_eq!(audit(&cluster)["gaps"], json!([]), "all is back");

    // A tag that stands for another image.
    let tag = files(&cluster, "repositories")
        .into_iter()
        .find(|path| path.to_str().unwrap().contains("_") && path.ends_with("one/_manifests/tags/v1/current/link"))
        .unwrap();
    let content = fs::read(&tag).unwrap();
    fs::write(&tag, roots[1].to_string()).unwrap();
    assert_ne!(audit(&cluster)["gaps"], json!([]));
    fs::write(&tag, content).unwrap();

    succeed(&mut cluster.delete());
    let said = fail(&mut verify(&cluster), 3);
    assert_has(&said, &["there is no cluster `my-cluster`"]);
}

#[test]
fn what_pods_name_has_to_be_somewhere() {
    needs!("docker-registry", "skopeo");
    let (cluster, roots, host) = cluster(&["-e", "API=1"]);
    let bin = |name: &str, content: &str| {
        cluster
            .scratch
            .write(&cluster.data(&format!("rootfs/bin/{name}")), content);
    };
    let pods = |images: &[&str]| {
        let containers: Vec<Value> = images
            .iter()
            .enumerate()
            .map(|(number, image)| json!({"name": format!("c{number}"), "image": image}))
            .collect();
        let pod = json!({"metadata": {"namespace": "shop", "name": "web-1"},
            "spec": {"nodeName": "n1", "initContainers": containers}});
        bin("pods", &json!({"items": [pod]}).to_string());
    };
    let nodes = json!({"items": [{"metadata": {"name": "n1"},
        "status": {"images": [{"names": ["docker.io/library/pause:3"]}]}}]});
    bin("nodes", &nodes.to_string());
    let one = format!("{host}/team/one:v1");
    pods(&[&one, &format!("{host}/two@{}", roots[1]), "pause:3"]);
    let found = audit(&cluster);
    assert_eq!(
        (&found["podImages"], &found["gaps"]),
        (&json!(3), &json!([])),
        "{found}"
    );

    pods(&[&one, "ghcr.io/acme/other:2"]);
    let found = audit(&cluster);
    let gap = &found["gaps"][0];
    assert_eq!(
        (&gap["image"], &gap["askedBy"], &gap["problem"]),
        (
            &json!("ghcr.io/acme/other:2"),
            &json!(["pod shop/web-1"]),
            &json!("missing")
        ),
        "{found}"
    );
    assert_has(
        &fail(&mut verify(&cluster), 4),
        &["ghcr.io/acme/other:2", "pod shop/web-1"],
    );

    // Without an API server the lock is all that there is, and that is said.
    bin("down", "");
    let (code, said) = outcome(&mut cluster.command(&[], &["verify", "--cluster", "my-cluster"]));
    assert_eq!(code, Some(0), "{said}");
    assert_has(&said, &["pods were not looked at", "connection refused", "3 images"]);

    // Without its registry, nothing can be had.
    cluster.kill_all();
    let output = verify(&cluster).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_has(
        &text(&output.stderr),
        &["does not reach localhost:", "see that the registry runs"],
    );
    succeed(&mut cluster.delete());
}
