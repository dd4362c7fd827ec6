//! Builds find the container images that manifests, charts and apps name, and fail when one is missing.

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
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::images::push;
use support::registry::{Registry, Setup};
use support::{Scratch, assert_has, needs, succeed, text};

const HERE: &[&str] = &["linux/amd64"];
const KUBEFILE: &str = "FROM scratch\nCOPY . .\n";

fn pod(image: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: {image}\n")
}

fn chart(scratch: &Scratch, folder: &str, values: &str) {
    scratch.write(
        &format!("{folder}/Chart.yaml"),
        "apiVersion: v2\nname: app\nversion: 1.0.0\n",
    );
    scratch.write(&format!("{folder}/values.yaml"), values);
    scratch.write(&format!("{folder}/templates/pod.yaml"), pod("{{ .Values.image }}"));
}

/// The images of the lock, each with who asked for it.
fn lock(scratch: &Scratch, image: &str) -> Vec<(String, Value)> {
    let lock: Value = serde_json::from_str(&scratch.rootfs(image).file("images.lock")).unwrap();
    let images = lock["images"].as_array().unwrap().iter();
    images
        .map(|image| (image["image"].as_str().unwrap().to_owned(), image["askedBy"].clone()))
        .collect()
}

#[test]
fn images_of_manifests_charts_and_apps_are_bundled() {
    needs!("docker-registry", "skopeo", "helm");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    for name in ["pod:1", "tmpl:1", "chart:1", "values:2", "app:1", "listed:1"] {
        push(&scratch, &upstream, name, HERE, &[name.as_bytes().to_vec()]);
    }
    scratch.write("context/manifests/deep/pod.yaml", pod(&format!("{host}/pod:1")));
    scratch.write(
        "context/manifests/imageList",
        format!("{host}/listed:1\n{host}/pod:1\n"),
    );
    scratch.write(
        "context/manifests/x.yaml.tmpl",
        format!("{}  nodeName: {{{{ .Node }}}}\n", pod(&format!("{host}/tmpl:1"))),
    );
    scratch.write("context/other/pod.yaml", pod(&format!("{host}/elsewhere:1")));
    chart(&scratch, "context/charts/app", &format!("image: {host}/chart:1\n"));
    scratch.write("context/apps/a.yaml", pod(&format!("{host}/app:1")));
    let kubefile = format!("{KUBEFILE}APP a local://apps/a.yaml\n");
    scratch.build("a:1", &kubefile, &[]);
    assert_eq!(
        lock(&scratch, "a:1"),
        [
            (format!("{host}/app:1"), json!(["application/apps/a/a.yaml:5"])),
            (format!("{host}/chart:1"), json!(["charts/app/templates/pod.yaml:5"])),
            (format!("{host}/listed:1"), json!(["manifests/imageList:1"])),
            (
                format!("{host}/pod:1"),
                json!(["manifests/imageList:2", "manifests/deep/pod.yaml:5"])
            ),
            (format!("{host}/tmpl:1"), json!(["manifests/x.yaml.tmpl:5"])),
        ]
    );

    // What the base brought is not looked for again; a chart of the base with new values is.
    scratch.write("context/new/app.values.yaml", format!("image: {host}/values:2\n"));
    let built = scratch.build("b:1", "FROM a:1\nCOPY new charts\n", &[]);
    assert_eq!(built.0["containerImages"], 6);
    assert_eq!(
        lock(&scratch, "b:1").pop().unwrap(),
        (format!("{host}/values:2"), json!(["charts/app/templates/pod.yaml:5"]))
    );

    // Only lists, or nothing.
    assert_eq!(
        scratch.build("c:1", &kubefile, &["--no-discovery"]).0["containerImages"],
        2
    );
    let lite = scratch.build("d:1", &kubefile, &["--build-mode", "lite"]);
    assert_eq!(lite.0["containerImages"], 0);
}

#[test]
fn what_can_not_be_had_or_understood_fails_unless_it_is_allowed() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    push(&scratch, &upstream, "there:1", HERE, &[b"there".to_vec()]);
    scratch.write("context/manifests/there.yaml", pod(&format!("{host}/there:1")));
    scratch.write("context/manifests/gone.yaml", pod(&format!("{host}/gone:1")));
    let said = scratch.build_fails(3, KUBEFILE, &[]);
    assert_has(&said, &["manifests/gone.yaml:5: error: cannot resolve", "gone:1"]);

    let ignored = scratch.write("ignored.txt", format!("{host}/gone:1\n"));
    let built = scratch.build("a:1", KUBEFILE, &["--ignored-image-list", &ignored]);
    assert_eq!(built.0["containerImages"], 1);

    scratch.write("context/manifests/broken.yaml", "a: [\n");
    let said = scratch.build_fails(2, KUBEFILE, &[]);
    assert_has(
        &said,
        &[
            "images may be missing",
            "manifests/broken.yaml:",
            "this is not YAML",
            "--allow-unresolved",
        ],
    );
    assert!(scratch.json(&["images"]).as_array().unwrap().len() == 1);

    let allowed = scratch.write(
        "allowed.txt",
        format!("# none of these is needed\n{host}/gone:1 # an old one\nmanifests/broken.yaml\n"),
    );
    let output = scratch
        .building("b:1", KUBEFILE, &["--allow-unresolved", &allowed])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_has(
        &said,
        &["allowed: manifests/gone.yaml:5", "allowed: manifests/broken.yaml"],
    );
    assert_eq!(lock(&scratch, "b:1").len(), 1);
}

/// The folders of the corpus.
fn corpus() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/discovery");
    let mut folders: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// The files in a folder and in those in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// Hosts of the corpus, which are one registry here.
const HOSTS: [&str; 9] = [
    "quay.io/",
    "ghcr.io/",
    "gcr.io/",
    "k8s.gcr.io/",
    "registry.k8s.io/",
    "registry.local/",
    "registry.local:5000/",
    "docker.io/istio/",
    "docker.io/library/",
];

#[test]
fn removing_any_one_image_of_the_corpus_makes_the_build_fail() {
    needs!("docker-registry", "skopeo", "helm");
    let scratch = Scratch::new();
    let storage = scratch.path("storage");
    let upstream = Registry::start(&Setup {
        storage: Some(storage.clone().into()),
        ..Setup::default()
    });
    let host = upstream.host();
    push(&scratch, &upstream, "seed:seed", HERE, &[b"seed".to_vec()]);
    let repositories = Path::new(&storage).join("docker/registry/v2/repositories");

    // All manifests with this registry's name, and the images that their hand-made lists say.
    let (mut here, mut elsewhere) = (BTreeSet::new(), String::new());
    for folder in corpus() {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        for path in files(&folder) {
            let mut text = fs::read_to_string(&path).unwrap();
            if path.ends_with("expected.txt") {
                for line in text.lines() {
                    let image = line.split(' ').nth(1).unwrap();
                    let own = HOSTS.iter().find_map(|host| image.strip_prefix(host));
                    let own = own.filter(|_| !image.contains('@') && !image.starts_with("docker.io/"));
                    match own {
                        Some(own) => drop(here.insert(own.to_owned())),
                        None => elsewhere.push_str(&format!("{image}\n")),
                    }
                }
                continue;
            }
            text.insert(0, '\n');
            for other in HOSTS.iter().filter(|other| !other.starts_with("docker.io/")) {
                for before in [" ", "=", "\"", "\n"] {
                    text = text.replace(&format!("{before}{other}"), &format!("{before}{host}/"));
                }
                let other = other.trim_end_matches('/');
                text = text.replace(&format!("registry: {other}\n"), &format!("registry: {host}\n"));
                text = text.replace(
                    &format!("\"registry\": \"{other}\""),
                    &format!("\"registry\": \"{host}\""),
                );
            }
            let file = path.strip_prefix(&folder).unwrap().display();
            scratch.write(&format!("context/manifests/{name}/{file}"), text);
        }
    }
    assert!(here.len() > 50, "{here:?}");
    let tag = |image: &str| {
        let (path, tag) = image.rsplit_once(':').unwrap();
        let tags = repositories.join(path).join("_manifests/tags");
        (repositories.join(path), tags.join(tag))
    };
    for image in &here {
        let (repository, tag) = tag(image);
        fs::create_dir_all(repository.parent().unwrap()).unwrap();
        let seed = |below: &str| repositories.join("seed").join(below).display().to_string();
        if !repository.exists() {
            succeed(
                std::process::Command::new("cp")
                    .arg("-r")
                    .arg(seed(""))
                    .arg(&repository),
            );
        }
        succeed(
            std::process::Command::new("cp")
                .arg("-r")
                .arg(seed("_manifests/tags/seed"))
                .arg(&tag),
        );
    }
    // What is pinned, or has no host to give it another, can't be had here.
    let pinned = elsewhere
        .lines()
        .map(|image| {
            HOSTS
                .iter()
                .filter(|other| !other.starts_with("docker.io/"))
                .fold(image.to_owned(), |image, other| match image.strip_prefix(other) {
                    Some(rest) => format!("{host}/{rest}"),
                    None => image,
                })
        })
        .collect::<Vec<_>>();
    let ignored = scratch.write("ignored.txt", pinned.join("\n"));
    let flags = ["--ignored-image-list", ignored.as_str()];
    scratch.build("all:1", KUBEFILE, &flags);
    let locked: BTreeSet<String> = lock(&scratch, "all:1").into_iter().map(|(image, _)| image).collect();
    let expected: BTreeSet<String> = here.iter().map(|image| format!("{host}/{image}")).collect();
    assert_eq!(locked, expected);

    for image in &here {
        let (_, tag) = tag(image);
        let aside = scratch.path("aside");
        fs::rename(&tag, &aside).unwrap();
        let said = scratch.build_fails(3, KUBEFILE, &flags);
        assert_has(&said, &["manifests/", &format!("{host}/{image}")]);
        fs::rename(&aside, &tag).unwrap();
    }
}

#[test]
fn a_frozen_build_takes_what_is_locked_or_fails() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    let both = &["linux/amd64", "linux/arm64"];
    push(&scratch, &upstream, "app:1", both, &[b"old".to_vec()]);
    push(&scratch, &upstream, "more:1", both, &[b"more".to_vec()]);
    scratch.write("context/manifests/pod.yaml", pod(&format!("{host}/app:1")));
    let kubefile = "FROM scratch\nCOPY manifests manifests\n";
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let flags = |flag: &'static str| [&platforms[..], &[flag]].concat();
    assert_has(
        &scratch.build_fails(3, kubefile, &flags("--frozen")),
        &["images.lock", "--update-lock"],
    );
    let locked = scratch.build("a:1", kubefile, &flags("--update-lock"));
    let lock: Value = serde_json::from_slice(&scratch.read("images.lock")).unwrap();
    let images = lock["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(images[0]["askedBy"], json!(["manifests/pod.yaml:5"]));
    assert_ne!(images[0]["platform"], images[1]["platform"]);

    // The tag moves on; a frozen build does not, in another store neither.
    fs::remove_dir_all(scratch.path("layouts")).unwrap();
    push(&scratch, &upstream, "app:1", both, &[b"new".to_vec()]);
    assert_ne!(scratch.build("b:1", kubefile, &platforms).digest(), locked.digest());
    let other = scratch.path("other");
    let elsewhere = [&flags("--frozen")[..], &["--root", &other]].concat();
    assert_eq!(scratch.build("c:1", kubefile, &elsewhere).digest(), locked.digest());
    let before = scratch.read("images.lock");

    // More or fewer images than are locked, another platform, or nothing to lock.
    scratch.write("context/manifests/more.yaml", pod(&format!("{host}/more:1")));
    let said = scratch.build_fails(2, kubefile, &flags("--frozen"));
    assert_has(
        &said,
        &[
            "manifests/more.yaml:5: error:",
            "is not in images.lock",
            "--update-lock",
        ],
    );
    fs::remove_file(scratch.path("context/manifests/more.yaml")).unwrap();
    let said = scratch.build_fails(2, kubefile, &[&flags("--frozen")[..], &["--no-discovery"]].concat());
    assert_has(&said, &["app:1 is locked for linux/amd64, and nothing asks for it"]);
    let said = scratch.build_fails(2, kubefile, &["--platform", "linux/s390x", "--frozen"]);
    assert_has(&said, &["is not in images.lock for linux/s390x"]);
    let said = scratch.build_fails(2, kubefile, &["--build-mode", "lite", "--frozen"]);
    assert_has(&said, &["nothing to lock"]);

    // A lock that was changed by hand, or is none.
    let text = text(&before);
    let digest = images[0]["digest"].as_str().unwrap();
    let none = format!("sha256:{}", "0".repeat(64));
    scratch.write("images.lock", text.replace(digest, &none));
    assert_has(
        &scratch.build_fails(3, kubefile, &flags("--frozen")),
        &["manifests/pod.yaml:5", "cannot resolve"],
    );
    let manifest = images[0]["manifest"].as_str().unwrap();
    scratch.write("images.lock", text.replace(manifest, &none));
    assert_has(
        &scratch.build_fails(4, kubefile, &flags("--frozen")),
        &["is not what is locked"],
    );
    scratch.write("images.lock", "{}");
    assert_has(
        &scratch.build_fails(2, kubefile, &flags("--frozen")),
        &["can't be understood"],
    );
    scratch.write("images.lock", &before);
    scratch.build("d:1", kubefile, &flags("--frozen"));
    assert_eq!(scratch.read("images.lock"), before);
}

#[test]
fn a_lock_beside_the_kubefile_is_no_part_of_what_is_copied() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    push(&scratch, &upstream, "app:1", &["linux/amd64"], &[b"app".to_vec()]);
    let folder = scratch.path("whole");
    scratch.write("whole/Kubefile", "FROM scratch\nCOPY . .\n");
    scratch.write("whole/manifests/pod.yaml", pod(&format!("{}/app:1", upstream.host())));
    let kubefile = format!("{folder}/Kubefile");
    let build = |name: &str, flag: &str| {
        let arguments = [
            "build",
            "-f",
            &kubefile,
            "-t",
            name,
            "--platform",
            "linux/amd64",
            flag,
            &folder,
        ];
        scratch.ok(&arguments);
        scratch.json(&["inspect", name])["digest"].clone()
    };
    let first = build("w:1", "--update-lock");
    assert!(scratch.exists("whole/images.lock"));
    assert_eq!(build("w:2", "--update-lock"), first);
    assert_eq!(build("w:3", "--frozen"), first);
    assert_eq!(lock(&scratch, "w:3").len(), 1);
}
