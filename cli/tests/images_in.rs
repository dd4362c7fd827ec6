//! `sealrs images-in`: which container images files name, why, and what is said of those that can't be understood.

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
use std::process::Command;

use serde_json::{Value, json};
use support::{Scratch, assert_has, needs, shape, succeed, text};

const POD: &str = "\
apiVersion: v1
kind: Pod
spec:
  containers:
  - image: nginx:1.27
    args: [--sidecar-image, quay.io/acme/sidecar:1]
";

#[test]
fn images_are_listed_once_and_why_says_every_place() {
    let scratch = Scratch::new();
    scratch.write("m/pod.yaml", POD);
    scratch.write("m/imageList", "# both\nnginx:1.27\n");
    scratch.write("m/README.md", "image: quay.io/acme/told:1\n");
    let list = scratch.write("list.txt", "quay.io/acme/more:1\n");

    let images = scratch.ok(&["images-in", "m", &list]);
    assert_eq!(
        images,
        "docker.io/library/nginx:1.27\nquay.io/acme/more:1\nquay.io/acme/sidecar:1\n"
    );
    let why = scratch.ok(&["images-in", "m", &list, "--why"]);
    let expected = [
        "docker.io/library/nginx:1.27  typed  m/pod.yaml:5  spec.containers[0].image",
        "docker.io/library/nginx:1.27  list  m/imageList:2",
        &format!("quay.io/acme/more:1  list  {list}:1"),
        "quay.io/acme/sidecar:1  candidate  m/pod.yaml:6  spec.containers[0].args[1]",
    ];
    assert_eq!(why.lines().collect::<Vec<_>>(), expected);

    let found = scratch.json(&["images-in", "m"]);
    assert_eq!(
        found[0],
        json!({
            "image": "docker.io/library/nginx:1.27", "kind": "typed", "file": "m/pod.yaml", "line": 5,
            "path": "spec.containers[0].image", "chart": null, "value": null,
        })
    );
    assert_eq!(found.as_array().unwrap().len(), 3);
    assert_eq!(shape(&found[0]), shape(&found[1]));

    // Nothing was made: no store, no cache.
    assert!(!scratch.exists("root"));
    scratch.write("empty/x.txt", "");
    assert_eq!(scratch.ok(&["images-in", "empty"]), "");
    assert_eq!(scratch.json(&["images-in", "empty"]), json!([]));
}

#[test]
fn what_is_not_understood_fails_with_its_place_after_the_list() {
    let scratch = Scratch::new();
    scratch.write("m/pod.yaml", POD);
    scratch.write("m/broken.yaml", "a: [\n");
    scratch.write("m/odd.yaml", POD.replace("nginx:1.27", "{name: nginx}"));
    scratch.write("m/imageList", "ok:1\nNOT/ok\n");
    std::os::unix::fs::symlink("/etc", scratch.path("m/linked")).unwrap();

    let output = scratch.sealrs(&["images-in", "m"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_has(
        &text(&output.stdout),
        &["docker.io/library/nginx:1.27\n", "docker.io/library/ok:1\n"],
    );
    assert_has(
        &text(&output.stderr),
        &[
            "images may be missing",
            "m/broken.yaml:",
            "this is not YAML",
            "m/odd.yaml:5: error: `spec.containers[0].image` is not what it has to be",
            "m/imageList:2",
            "m/linked: error: this is a link",
        ],
    );

    let mut command = scratch.sealrs(&["images-in", "m", "--output", "json"]);
    let output = command.output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 4);
    let said = text(&output.stderr);
    let error: Value = said.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap();
    assert_has(&error.to_string(), &["m/broken.yaml", "\"code\":\"input\""]);

    let said = scratch.fails(3, &["images-in", "none"]);
    assert_has(&said, &["there is no file `none`, and no such image in the store"]);
    assert!(!scratch.exists("root"));
}

#[test]
fn images_of_the_store_are_read_with_their_bases() {
    let scratch = Scratch::new();
    scratch.write("context/manifests/pod.yaml", POD);
    scratch.write("context/imageList", "quay.io/acme/listed:1\n");
    scratch.write("context/more/odd.yaml", POD.replace("nginx:1.27", "quay.io/acme/odd:1"));
    scratch.write(
        "context/other/pod.yaml",
        POD.replace("nginx:1.27", "quay.io/acme/not:1"),
    );
    let lite = ["--build-mode", "lite"];
    scratch.build(
        "base:1",
        "FROM scratch\nCOPY manifests manifests\nCOPY imageList other ./\n",
        &lite,
    );
    scratch.build("top:1", "FROM base:1\nCOPY more manifests\n", &lite);
    let why = scratch.ok(&["images-in", "top:1", "--why"]);
    let lines: Vec<&str> = why.lines().filter(|line| !line.contains("sidecar")).collect();
    let expected = [
        "docker.io/library/nginx:1.27  typed  manifests/pod.yaml:5  spec.containers[0].image",
        "quay.io/acme/listed:1  list  imageList:1",
        "quay.io/acme/odd:1  typed  manifests/odd.yaml:5  spec.containers[0].image",
    ];
    assert_eq!(lines, expected);
    assert_has(&scratch.fails(3, &["images-in", "tip:1"]), &["did you mean `top:1`"]);
}

/// The corpus of charts.
fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/discovery/chart-app")
}

/// What the hand-made list `name` says.
fn expected(name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(corpus().join(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The same of what was found, in files whose names begin after `root`.
fn lines(found: &Value, root: &str) -> BTreeSet<String> {
    let text = |image: &Value, key: &str| image[key].as_str().unwrap().to_owned();
    let lines = found.as_array().unwrap().iter().map(|image| {
        let file = text(image, "file");
        let file = file.strip_prefix(root).unwrap_or(&file);
        format!("{} {} {file}", text(image, "kind"), text(image, "image"))
    });
    lines.collect()
}

/// A command that finds no helm.
fn without_helm(scratch: &Scratch, arguments: &[&str]) -> Command {
    let mut command = scratch.sealrs(arguments);
    command.env("PATH", scratch.path("none"));
    command
}

#[test]
fn charts_are_rendered_with_their_sub_charts_and_each_set_of_values() {
    needs!("helm");
    let scratch = Scratch::new();
    let root = corpus().join("charts").display().to_string();
    let found = scratch.json(&["images-in", &root]);
    assert_eq!(
        lines(&found, root.strip_suffix("charts").unwrap()),
        expected("expected.txt")
    );

    // Which value an image is from.
    let images = found.as_array().unwrap();
    let redis = images.iter().find(|found| found["image"] == "quay.io/acme/redis:7.4");
    assert_eq!(redis.unwrap()["chart"], format!("{root}/app"));
    assert_eq!(
        redis.unwrap()["value"],
        format!("{root}/app/charts/redis/values.yaml:2 redis.image")
    );
    assert_has(
        &scratch.ok(&["images-in", &root, "--why"]),
        &[&format!("by {root}/app/values.yaml:3 image\n")],
    );

    // The versions of the cluster, and values for all.
    let values = scratch.write(
        "more.yaml",
        "sidecar: {image: quay.io/acme/other:5}\nredis: {enabled: false}\n",
    );
    let cluster = ["--kube-version", "1.33.1", "--api-versions", "acme.example.com/v1"];
    let flags = ["images-in", &root, "--values", &values];
    let images = scratch.ok(&[&flags[..], &cluster].concat());
    assert_has(&images, &["quay.io/acme/other:5\n", "quay.io/acme/thing:33\n"]);
    assert!(!images.contains("redis") && !images.contains("quay.io/acme/sidecar"));

    // helm by its place, and nothing of the user's settings.
    let helm = succeed(Command::new("sh").args(["-c", "command -v helm"]));
    let mut command = without_helm(&scratch, &["images-in", &root, "--helm", helm.trim()]);
    command.env("HELM_NAMESPACE", "not a namespace");
    assert_has(&succeed(&mut command), &["quay.io/acme/worker:2.1\n"]);
}

#[test]
fn archives_of_charts_and_of_sub_charts_are_unpacked() {
    needs!("helm", "tar");
    let scratch = Scratch::new();
    let charts = corpus().join("charts").display().to_string();
    succeed(Command::new("cp").args(["-r", &charts, &scratch.path("work")]));
    let pack = |folder: &str, name: &str, archive: &str| {
        let (folder, archive) = (scratch.path(folder), scratch.path(archive));
        succeed(Command::new("tar").args(["-C", &folder, "-czf", &archive, name]));
        fs::remove_dir_all(Path::new(&folder).join(name)).unwrap();
    };
    for sub in ["redis", "metrics", "backup"] {
        pack("work/app/charts", sub, &format!("work/app/charts/{sub}-1.0.0.tgz"));
    }
    pack("work", "app", "work/app-1.0.0.tgz");
    // Something else that is packed.
    scratch.write("work/other/file", "image: quay.io/acme/no:1\n");
    pack("work", "other", "work/other.tar.gz");

    let images = |folder: &str| scratch.ok(&["images-in", folder]);
    assert_eq!(images("work"), images(&charts));
    let found = scratch.json(&["images-in", "work"]);
    assert_eq!(found[0]["chart"], "work/app-1.0.0.tgz");
    assert_has(
        &scratch.fails(2, &["images-in", "work/other.tar.gz"]),
        &["this is no chart"],
    );
}

#[test]
fn without_helm_the_values_of_charts_are_read_and_it_is_said() {
    let scratch = Scratch::new();
    let root = corpus().join("charts").display().to_string();
    let output = without_helm(&scratch, &["images-in", &root, "--output", "json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        lines(&found, root.strip_suffix("charts").unwrap()),
        expected("expected-without-helm.txt")
    );
    assert_has(&text(&output.stderr), &["charts/app: there is no helm to render it"]);

    // A name of an image that no value has.
    scratch.write("c/Chart.yaml", "apiVersion: v2\nname: c\nversion: 1.0.0\n");
    scratch.write("c/templates/a.yaml", "a: 1\nimage: {{ include \"x\" . }}\n");
    let said = support::fail(&mut without_helm(&scratch, &["images-in", "c"]), 2);
    assert_has(&said, &["c/templates/a.yaml:2", "no value says which", "--helm"]);
}

#[test]
fn charts_that_can_not_be_rendered_fail() {
    let scratch = Scratch::new();
    let chart = |name: &str, template: &str| {
        scratch.write(
            &format!("{name}/Chart.yaml"),
            format!("apiVersion: v2\nname: {name}\nversion: 1.0.0\n"),
        );
        scratch.write(&format!("{name}/templates/a.yaml"), template);
    };
    // What is somebody else's work gets no further than its folder.
    chart("linked", "a: 1\n");
    std::os::unix::fs::symlink("/etc/passwd", scratch.path("linked/secret")).unwrap();
    assert_has(
        &scratch.fails(2, &["images-in", "linked"]),
        &["`secret` is neither a file nor a folder"],
    );
    scratch.write("climbing/Chart.yaml", "name: c\n");
    scratch.write("climbing/out", "x");
    let climb = [
        "-C",
        &scratch.path("climbing"),
        "--transform",
        "s,^out,c/../../../out,;s,^Chart,c/Chart,",
    ];
    let into = ["-P", "-czf", &scratch.path("climbs.tgz"), "Chart.yaml", "out"];
    succeed(Command::new("tar").args(climb).args(into));
    assert_has(
        &scratch.fails(2, &["images-in", "climbs.tgz"]),
        &["leads out of the chart"],
    );
    let zeros = vec![0; 257 << 20];
    let tar = support::insides::tar(&[("c/Chart.yaml", b"name: c\n"), ("c/zeros", &zeros)]);
    let bomb = gzip(&tar);
    scratch.write("bomb.tgz", &bomb);
    assert_has(
        &scratch.fails(2, &["images-in", "bomb.tgz"]),
        &["too large", "`zeros` is where"],
    );
    scratch.write("cut.tgz", &bomb[..1000]);
    assert_has(&scratch.fails(4, &["images-in", "cut.tgz"]), &["cut.tgz: error"]);

    // A helm that says too much, and one that is none.
    chart("app", "a: 1\n");
    let flood = scratch.program("flood", "#!/bin/sh\nexec /usr/bin/yes image: x\n");
    let said = scratch.fails(2, &["images-in", "app", "--helm", &flood]);
    assert_has(&said, &["app: error", "more than 64 MiB"]);
    assert_has(
        &scratch.fails(3, &["images-in", "app", "--helm", "none"]),
        &["cannot find helm at none"],
    );

    needs!("helm");
    chart("needs-value", "image: {{ required \"which image?\" .Values.image }}\n");
    let said = scratch.fails(2, &["images-in", "needs-value"]);
    assert_has(
        &said,
        &[
            "needs-value: error: helm can't render it",
            "which image?",
            "CHART.values.yaml",
        ],
    );
    scratch.write("needs-value.values.yaml", "image: quay.io/acme/needed:1\n");
    assert_eq!(scratch.ok(&["images-in", "needs-value"]), "quay.io/acme/needed:1\n");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}
