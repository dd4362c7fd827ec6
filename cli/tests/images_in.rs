//! `sealrs images-in`: which container images files name, why, and what is said of those that can't be understood.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use serde_json::{Value, json};
use support::{Scratch, assert_has, shape, text};

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
            "path": "spec.containers[0].image",
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

    assert_has(&scratch.fails(2, &["images-in", "none"]), &["can't read none"]);
}
