//! `sealrs build`: what the instructions about apps, labels and bases make, and how a wrong Kubefile is told.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;

use sealrs_image::platform::Platform;
use sealrs_image::source::document;
use sealrs_image::store::Store;
use serde_json::json;
use support::images::push;
use support::registry::{Registry, Setup};
use support::{Scratch, assert_has, fail, needs, run};

fn write_apps(scratch: &Scratch) {
    for name in [
        "chart/Chart.yaml",
        "chart/values.yaml",
        "chart/templates/pod.yaml",
        "a.yaml",
        "b.yml",
        "one.sh",
        "chart-1.2.tgz",
        "mixed/a.yaml",
        "mixed/b.sh",
    ] {
        scratch.write(&format!("context/{name}"), name);
    }
}

#[test]
fn apps_of_every_kind() {
    let scratch = Scratch::new();
    write_apps(&scratch);
    let kubefile = r#"FROM scratch
ARG SITE=example.com
ENV GREETING=hello PLACE="the world"
APP helm-folder local://chart
APP helm-archive local://chart-1.2.tgz
APP kube local://a.yaml local://b.yml
APP shell local://one.sh
APP mixed local://mixed
CNI calico local://one.sh
CSI "disk" local://a.yaml
APPENV kube domain=$SITE key="a value"
APPENV kube domain=other.example.com
APPCMDS mixed ["bash", "b.sh", "$HOME"]
KUBEVERSION "1.25 - 1.30"
LABEL "cluster.alpha.sealer.io/cluster-runtime-type"="k3s" plain=x
MAINTAINER Somebody <s@example.com>
LAUNCH shell helm-folder kube
"#;
    // Its charts are none that helm could render.
    scratch.build("a:1", kubefile, &["--label", "plain=from the flag", "--no-discovery"]);
    let inspected = scratch.json(&["inspect", "a:1"]);
    let extension = &inspected["imageExtension"];
    let app = |name: &str| {
        let apps = extension["applications"].as_array().unwrap();
        apps.iter().find(|app| app["name"] == name).unwrap().clone()
    };
    for (name, kind, files) in [
        ("helm-folder", "helm", json!(["helm-folder"])),
        ("helm-archive", "helm", json!(["chart-1.2.tgz"])),
        ("kube", "kube", json!(["a.yaml", "b.yml"])),
        ("shell", "shell", json!(["one.sh"])),
        ("mixed", "", json!(null)),
        ("calico", "shell", json!(["one.sh"])),
        ("disk", "kube", json!(["a.yaml"])),
    ] {
        let app = app(name);
        assert_eq!(
            (&app["type"], &app["files"], &app["version"]),
            (&json!(kind), &files, &json!("v1")),
            "{name}"
        );
    }
    assert_eq!(
        app("kube")["env"],
        json!({"domain": "other.example.com", "key": "a value"})
    );
    assert_eq!(app("mixed")["cmds"], json!(["bash", "b.sh", "$HOME"]));
    assert_eq!(extension["env"], json!({"GREETING": "hello", "PLACE": "the world"}));
    assert_eq!(
        extension["launch"],
        json!({"app_names": ["shell", "helm-folder", "kube"]})
    );
    assert_eq!(extension["type"], "kube-installer");
    assert_eq!(extension["schemaVersion"], "v1alpha1");
    let labels = &extension["labels"];
    assert_eq!(labels["cluster.alpha.sealer.io/kube-cni"], r#"["calico"]"#);
    assert_eq!(labels["cluster.alpha.sealer.io/kube-csi"], r#"["disk"]"#);
    assert_eq!(labels["cluster.alpha.sealer.io/cluster-runtime-type"], "k3s");
    assert_eq!(labels["app.alpha.sealer.io/supported-kube-version"], "1.25 - 1.30");
    assert_eq!(labels["plain"], "from the flag");
    assert_eq!(inspected["ociv1"]["author"], "Somebody <s@example.com>");

    let rootfs = scratch.rootfs("a:1");
    for path in [
        "helm-folder/templates/pod.yaml",
        "helm-archive/chart-1.2.tgz",
        "kube/b.yml",
        "shell/one.sh",
        "mixed/b.sh",
        "disk/a.yaml",
    ] {
        rootfs.file(&format!("application/apps/{path}"));
    }

    // What the annotations and labels of the stored documents are called is sealer's contract.
    let manifest: serde_json::Value = {
        let digest = inspected["digest"].as_str().unwrap().replace("sha256:", "");
        serde_json::from_slice(&scratch.read(&format!("root/store/blobs/sha256/{digest}"))).unwrap()
    };
    let annotations = &manifest["annotations"];
    let stored: serde_json::Value =
        serde_json::from_str(annotations["sealer.image.extension"].as_str().unwrap()).unwrap();
    assert_eq!(stored["launch"], extension["launch"]);
    assert_eq!(annotations["sealer.image.container.images"], "[]");
    let digest = inspected["id"].as_str().unwrap().replace("sha256:", "");
    let config: serde_json::Value =
        serde_json::from_slice(&scratch.read(&format!("root/store/blobs/sha256/{digest}"))).unwrap();
    assert_eq!(
        config["config"]["Labels"]["cluster.alpha.sealer.io/kube-cni-calico"],
        "true"
    );
    assert_eq!(
        config["config"]["Labels"]["io.sealer.version"],
        env!("CARGO_PKG_VERSION")
    );
}

#[test]
fn commands_and_variables() {
    let scratch = Scratch::new();
    scratch.write("context/k3s-v2-amd64", "v2");
    let kubefile = "\
# syntax=docker/dockerfile:1
# escape=`
ARG NAME=k3s
FROM scratch
ARG NAME `
    VERSION=v1
ARG EMPTY=
ENV FILE=${NAME}-${VERSION}-$ARCH OS=$TARGETOS
copy $FILE bin/${NAME:-other}${EMPTY:+never}
LABEL a='$NAME' b=\"$NAME\" c=x=y=z
CMDS [\"echo $HOME $VERSION\", \"kubectl apply -f x=y\"]
";
    let flags = ["--build-arg", "VERSION=v2", "--platform", "linux/amd64"];
    scratch.build("a:1", kubefile, &flags);
    assert_eq!(scratch.rootfs("a:1").file("bin/k3s"), "v2");
    let inspected = scratch.json(&["inspect", "a:1", "--platform", "linux/amd64"]);
    let extension = &inspected["imageExtension"];
    assert_eq!(extension["env"], json!({"FILE": "k3s-v2-amd64", "OS": "linux"}));
    assert_eq!(
        extension["launch"]["cmds"],
        json!(["echo $HOME $VERSION", "kubectl apply -f x=y"])
    );
    let labels = &extension["labels"];
    assert_eq!(
        (&labels["a"], &labels["b"], &labels["c"]),
        (&json!("$NAME"), &json!("k3s"), &json!("x=y=z"))
    );

    let said = scratch.build_fails(2, kubefile, &["--build-arg", "VERSON=v2"]);
    assert_has(&said, &["no `ARG` takes `--build-arg VERSON`", "hint:", "VERSION"]);
    let said = scratch.build_fails(2, kubefile, &["--build-arg", "VERSION=v1", "--build-arg", "VERSION=v2"]);
    assert_has(&said, &["`VERSION` is given twice"]);
    // Without a value it is that of the environment, so that a secret is seen by nobody.
    let mut command = scratch.building(
        "b:1",
        kubefile,
        &["--build-arg", "VERSION", "--platform", "linux/amd64"],
    );
    support::succeed(command.env("VERSION", "v2"));
    assert_eq!(scratch.rootfs("b:1").file("bin/k3s"), "v2");
    assert_has(
        &scratch.build_fails(2, kubefile, &["--build-arg", "VERSION"]),
        &["VERSION", "not set in the environment", "NAME=VALUE"],
    );
}

#[test]
fn several_errors_are_shown_together_with_their_lines() {
    let scratch = Scratch::new();
    scratch.write("context/a", "a");
    let kubefile = "\
FROM scratch
COPPY a b
COPY a
COPY --chmod=abc a b
COPY a ${NOWHERE}
APPENV nobody k=v
RUN ls
LAUNCH nobody
COPY a z
";
    let said = scratch.build_fails(2, kubefile, &[]);
    insta::assert_snapshot!("kubefile_errors", said);

    // The same as one JSON document on one line.
    let said = fail(scratch.building("a:1", kubefile, &[]).args(["--output", "json"]), 2);
    let error: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&error["event"], &error["code"]), (&json!("error"), &json!("input")));
    assert_eq!(error["message"], "Kubefile has 8 errors");
    assert_eq!(
        error["errors"][0],
        json!({
            "code": "input",
            "file": "Kubefile",
            "line": 2,
            "column": 1,
            "message": "`COPPY` is not an instruction",
            "causes": [],
            "source": "COPPY a b",
            "hint": "did you mean `COPY`?",
        })
    );
    let lines: Vec<_> = error["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["line"])
        .collect();
    assert_eq!(lines, [2, 3, 4, 5, 6, 7, 8, 8]);

    for (kubefile, words) in [
        ("", "FROM"),
        ("COPY a b\n", "FROM"),
        ("FROM scratch\nAPP x local://a\n", "APPCMDS x"),
        (
            "FROM scratch\nAPP x local://nothing.yaml\n",
            "`nothing.yaml` matches nothing",
        ),
        ("FROM scratch\nAPP x a.yaml\n", "local://"),
        ("FROM scratch\nAPP x/../y local://a\n", "x/../y"),
        ("FROM scratch\nFROM scratch\n", "FROM"),
        ("FROM scratch\nENV A = b\n", "blanks around `=`"),
        ("FROM scratch\nCMD a\nCMDS b\nCMDS c\n", "CMDS"),
        ("FROM scratch\nEXPOSE 80\n", "`EXPOSE`"),
        ("FROM scratch\nCOPY <<E x\nnever ends\n", "E"),
        ("FROM scratch\nCOPY a ../x\n", "../x"),
        ("FROM scratch\n\0\n", ""),
    ] {
        let (code, said) = support::outcome(&mut scratch.building("a:1", kubefile, &[]));
        assert!(matches!(code, Some(2 | 3)), "{kubefile:?}: {code:?} {said}");
        assert_has(&said, &["error:", "hint:", "Kubefile", words]);
    }
    let said = scratch.fails(3, &["build", "-f", "nowhere", "-t", "a:1", "context"]);
    assert_has(&said, &["cannot read the Kubefile nowhere", "`-f`"]);
    let said = scratch.fails(3, &["build", "-f", "Kubefile", "-t", "a:1", "no-context"]);
    assert_has(&said, &["no-context"]);
    assert_eq!(scratch.json(&["images"]), json!([]));
}

/// What the files of the context and the apps tell is shown with what the Kubefile itself does.
#[test]
fn wrong_sources_and_apps_are_shown_together() {
    let scratch = Scratch::new();
    scratch.write("context/a", "a");
    scratch.write("context/packed.tar.gz", "not packed");
    let kubefile = "\
FROM scratch
COPY nothing a gone/*.yaml x/
ADD packed.tar.gz y
COPY a ../z
APP one local://missing.yaml
APPENV tow K=V
LAUNCH one three
";
    let said = fail(scratch.building("a:1", kubefile, &[]).args(["--output", "json"]), 2);
    let error: serde_json::Value = serde_json::from_str(&said).unwrap();
    let told: Vec<_> = error["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["line"].clone(), error["column"].clone(), error["code"].clone()))
        .collect();
    let expected = [
        (2, 6, "not-found"),
        (2, 16, "not-found"),
        (3, 5, "input"),
        (4, 8, "input"),
        (5, 9, "not-found"),
        (6, 8, "input"),
        (7, 12, "input"),
    ];
    assert_eq!(
        told,
        expected.map(|(line, column, code)| (json!(line), json!(column), json!(code))),
        "{said}"
    );

    // The same sort keeps its code.
    let said = scratch.build_fails(3, "FROM scratch\nCOPY x y\nCOPY z y\n", &[]);
    assert_has(
        &said,
        &[
            "Kubefile has 2 errors",
            "Kubefile:2:6: error: `x` matches nothing",
            "Kubefile:3:6",
        ],
    );
    // What a base that is at hand has counts.
    scratch.build(
        "base:1",
        "FROM scratch\nAPP inherited local://a\nAPPCMDS inherited a\n",
        &[],
    );
    let said = scratch.build_fails(2, "FROM base:1\nCOPY x y\nLAUNCH inherited gone\n", &[]);
    assert_has(
        &said,
        &[
            "Kubefile has 2 errors",
            "`gone` does not exist",
            "the image has inherited",
        ],
    );
    let said = scratch.build_fails(3, "FROM nothing.tar\nCOPY x y\n", &[]);
    assert_has(
        &said,
        &[
            "Kubefile has 2 errors",
            "nothing.tar` as the base",
            "`x` matches nothing",
        ],
    );
}

#[test]
fn a_heredoc_without_end_hides_no_error_before_it() {
    let scratch = Scratch::new();
    scratch.write("context/a", "a");
    let kubefile = "\
FROM scratch
COPY a $WHERE
COPY --chmod=abc a b
COPY nothing b
COPY <<EOF x
never ends
LAUNCH x
";
    let said = scratch.build_fails(2, kubefile, &["--build-arg", "LATER=1"]);
    assert_has(
        &said,
        &[
            "Kubefile has 4 errors",
            "Kubefile:2:8: error: `WHERE` is not declared",
            "Kubefile:3:14: error: `abc` is not a mode",
            "Kubefile:4:6: error: `nothing` matches nothing",
            "Kubefile:5:6: error: this heredoc is not closed",
        ],
    );
}

#[test]
fn a_warning_is_called_one_once() {
    let scratch = Scratch::new();
    let kubefile = "FROM scratch\nMAINTAINER Somebody\n";
    let (code, said) = support::outcome(&mut scratch.building("a:1", kubefile, &[]));
    assert_eq!(code, Some(0), "{said}");
    assert_has(
        &said,
        &["warning: Kubefile:2:1: `MAINTAINER` is deprecated\n", "  hint: "],
    );
    assert_eq!(said.matches("warning").count(), 1, "{said}");
}

/// A mistyped runtime would be noticed on the hosts only, where it is too late.
#[test]
fn an_unknown_runtime_is_warned_of() {
    let scratch = Scratch::new();
    let label = "cluster.alpha.sealer.io/cluster-runtime-type";
    let said = |kubefile: &str, flags: &[&str]| {
        let (code, said) = support::outcome(&mut scratch.building("a:1", kubefile, flags));
        assert_eq!(code, Some(0), "{said}");
        said
    };
    let wrong = said(&format!("FROM scratch\nLABEL x=y {label}=k3\n"), &[]);
    assert_has(&wrong, &["warning: Kubefile:2:11: ", "`k3`", "did you mean `k3s`?"]);
    let flag = format!("{label}=kubernets");
    assert_has(
        &said("FROM scratch\n", &["--label", &flag]),
        &["warning: --label", "did you mean `kubernetes`?"],
    );
    for known in ["k3s", "k0s", "kubernetes", "script"] {
        let said = said(&format!("FROM scratch\nLABEL {label}={known}\n"), &[]);
        assert!(!said.contains("warning"), "{said}");
    }
}

/// A misspelt line would pull what was not wanted.
#[test]
fn ignored_images_that_nobody_wants_are_told() {
    let scratch = Scratch::new();
    scratch.write("context/imageList", "example.com/a/one:v1\nexample.com/a/two:v1\n");
    let ignored = "example.com/a/one:v1\nexample.com/a/two:v2\nexample.com/a/two:v1\nother\n";
    scratch.write("ignored", ignored);
    let flags = ["--ignored-image-list", "ignored"];
    let (code, said) = support::outcome(&mut scratch.building("a:1", "FROM scratch\nCOPY . .\n", &flags));
    assert_eq!(code, Some(0), "{said}");
    assert_has(
        &said,
        &[
            "warning: ignored:2: nothing names example.com/a/two:v2; did you mean `example.com/a/two:v1`?",
            "warning: ignored:4: nothing names other:latest\n",
        ],
    );
    assert_eq!(said.matches("warning").count(), 2, "{said}");
}

/// A base with everything that is inherited and everything that is not.
fn build_base(scratch: &Scratch) {
    write_apps(scratch);
    let kubefile = "\
FROM scratch
ENV OF_BASE=1
LABEL cluster.alpha.sealer.io/cluster-runtime-type=script of=base
COPY a.yaml etc/a.yaml
APP kube local://a.yaml
APP shell local://one.sh
CMDS echo base
";
    scratch.build("example.com/base:v1", kubefile, &[]);
}

const ON_BASE: &str = "
LABEL of=child
COPY b.yml etc/b.yml
COPY b.yml etc
APPENV kube k=v
APP shell local://b.yml
LAUNCH kube
";

#[track_caller]
fn check_child(scratch: &Scratch) {
    let (base, child) = (scratch.layers("example.com/base:v1"), scratch.layers("child:1"));
    let digests = |layers: &[support::insides::Layer]| -> Vec<String> {
        layers.iter().map(|layer| layer.digest.clone()).collect()
    };
    assert_eq!(
        digests(&child[..base.len()]),
        digests(&base),
        "the base's layers as they are"
    );
    assert_eq!(child.len(), base.len() + 3);
    let rootfs = scratch.rootfs("child:1");
    assert_eq!(
        (rootfs.file("etc/a.yaml"), rootfs.file("etc/b.yml")),
        ("a.yaml".to_owned(), "b.yml".to_owned())
    );
    let extension = &scratch.json(&["inspect", "child:1"])["imageExtension"];
    let labels = &extension["labels"];
    assert_eq!(labels["cluster.alpha.sealer.io/cluster-runtime-type"], "script");
    assert_eq!(labels["of"], "child");
    let apps = extension["applications"].as_array().unwrap();
    let names: Vec<_> = apps.iter().map(|app| app["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kube", "shell"]);
    assert_eq!(
        (&apps[0]["env"], &apps[1]["type"]),
        (&json!({"k": "v"}), &json!("kube"))
    );
    assert_eq!(extension["launch"], json!({"app_names": ["kube"]}));
}

#[test]
fn from_an_image_of_the_store() {
    let scratch = Scratch::new();
    build_base(&scratch);
    scratch.build(
        "child:1",
        &format!("ARG TAG=v0\nFROM example.com/base:$TAG{ON_BASE}"),
        &["--build-arg", "TAG=v1"],
    );
    check_child(&scratch);
    // The base may lose its name; what is built on it stays whole.
    scratch.ok(&["rmi", "example.com/base:v1"]);
    scratch.ok(&["prune"]);
    assert_eq!(scratch.rootfs("child:1").file("etc/a.yaml"), "a.yaml");
    let kubefile = format!("FROM example.com/base:v1{ON_BASE}");
    let said = scratch.build_fails(3, &kubefile, &["--pull", "never"]);
    assert_has(
        &said,
        &[
            "Kubefile:1",
            "the store has no image example.com/base:v1",
            "sealrs load -i",
        ],
    );
    let said = scratch.build_fails(3, "FROM chidl:1\n", &["--pull", "never"]);
    assert_has(
        &said,
        &["Kubefile:1", "hint: did you mean `child:1`, which is in the store?"],
    );
}

#[test]
fn from_an_archive() {
    let scratch = Scratch::new();
    build_base(&scratch);
    scratch.ok(&["save", "example.com/base:v1", "-o", "context/base.tar"]);
    let other = Scratch::new();
    write_apps(&other);
    std::fs::copy(scratch.path("context/base.tar"), other.path("context/base.tar")).unwrap();
    let absolute = other.path("context/base.tar");
    for name in ["base.tar", "./base.tar", absolute.as_str()] {
        other.build("child:1", &format!("FROM {name}{ON_BASE}"), &[]);
        let images = other.json(&["images"]);
        assert_eq!(images.as_array().unwrap().len(), 1, "the base gets no name: {images}");
        other.ok(&["load", "-i", "context/base.tar"]);
        check_child(&other);
        other.ok(&["rmi", "example.com/base:v1"]);
    }
    assert_has(
        &other.build_fails(3, "FROM nothing.tar\n", &[]),
        &["Kubefile:1", "nothing.tar"],
    );
    other.write("context/broken.tar", "no tar");
    assert_has(
        &other.build_fails(4, "FROM broken.tar\n", &[]),
        &["Kubefile:1", "broken.tar"],
    );
}

fn names(scratch: &Scratch) -> Vec<String> {
    let images = scratch.json(&["images"]);
    let names = images.as_array().unwrap().iter().map(|image| image["name"].to_string());
    names.map(|name| name.replace('"', "")).collect()
}

#[test]
fn from_a_registry() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    build_base(&scratch);
    scratch.ok(&["save", "example.com/base:v1", "-o", "base.tar"]);
    let registry = Registry::start(&Setup::default());
    let target = format!("docker://{}/edge/base:v1", registry.host());
    let source = format!("oci-archive:{}", scratch.path("base.tar"));
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &source,
            &target,
        ],
    );

    let other = Scratch::new();
    write_apps(&other);
    let kubefile = format!("FROM {}/edge/base:v1{ON_BASE}", registry.host());
    let said = other.build_fails(3, &kubefile, &["--pull", "never"]);
    assert_has(&said, &["Kubefile:1", "edge/base:v1", "--pull"]);
    let pulled = other.build("child:1", &kubefile, &[]);
    assert_eq!(names(&other), ["child:1"], "nobody asked to keep the base");
    let missing = format!("FROM {}/edge/base:v2{ON_BASE}", registry.host());
    assert_has(&other.build_fails(3, &missing, &[]), &["Kubefile:1", "edge/base:v2"]);

    // Nor what a failed build pulled. It is not pulled again all the same.
    let no_base = format!("FROM {}/plain:v1\n", registry.host());
    push(
        &other,
        &registry,
        "plain:v1",
        &[&Platform::host().to_string()],
        &[b"x".to_vec()],
    );
    assert_has(
        &other.build_fails(2, &no_base, &[]),
        &["Kubefile:1", "not a ClusterImage"],
    );
    assert_eq!(names(&other), ["child:1"]);

    // Once it is there, the registry is not needed, unless it is asked for.
    drop(registry);
    assert_has(&other.build_fails(2, &no_base, &[]), &["not a ClusterImage"]);
    assert_eq!(other.build("child:1", &kubefile, &[]).digest(), pulled.digest());
    other.ok(&["load", "-i", &scratch.path("base.tar")]);
    check_child(&other);
    let (code, said) = support::outcome(&mut other.building("child:1", &kubefile, &["--pull", "always"]));
    assert_eq!(code, Some(5), "{said}");
}

#[test]
fn what_from_refuses() {
    needs!("umoci");
    let scratch = Scratch::new();
    // An image that is no ClusterImage.
    let layout = scratch.path("context/plain");
    support::image::layout(std::path::Path::new(&layout), "v1", &["linux/amd64"], &[b"x".to_vec()]);
    run("tar", &["-cf", &scratch.path("context/plain.tar"), "-C", &layout, "."]);
    let said = scratch.build_fails(2, "FROM plain.tar\n", &[]);
    assert_has(&said, &["Kubefile:1", "plain.tar", "hint:"]);
    // Another platform.
    build_base(&scratch);
    let said = scratch.build_fails(3, "FROM --platform=linux/riscv64 example.com/base:v1\n", &[]);
    assert_has(&said, &["Kubefile:1", "riscv64"]);
}

/// The base's layers are read by the first build on it, and never again.
#[test]
fn a_base_is_looked_into_once() {
    let scratch = Scratch::new();
    scratch.write("context/x", "x");
    scratch.write("context/tree/folder/y", "y");
    scratch.build("base:1", "FROM scratch\nCOPY tree /\n", &[]);
    let child = "FROM base:1\nCOPY x folder/x\nCOPY x folder\n";
    // As for a base that was built elsewhere.
    fs::remove_dir_all(scratch.path("root/cache")).unwrap();
    let first = scratch.build("child:1", child, &[]);
    assert_eq!(scratch.rootfs("child:1").paths(), ["folder/", "folder/x", "folder/y"]);
    let digest = scratch.layers("base:1")[0].digest.replace(':', "/");
    let blob = format!("root/store/blobs/{digest}");
    let size = scratch.read(&blob).len();
    scratch.write(&blob, vec![0; size]);
    let again = scratch.build("child:1", child, &[]);
    assert_eq!((again.digest(), again.packed()), (first.digest(), 0));
    fs::remove_dir_all(scratch.path("root/cache")).unwrap();
    let said = scratch.build_fails(4, child, &[]);
    assert_has(
        &said,
        &["Kubefile:1", "cannot look into the base", &digest.replace('/', ":")],
    );
}

/// As in a Dockerfile, a link to a folder is a folder: it stays, and what is copied goes to where it leads.
#[test]
fn destinations_behind_links() {
    let scratch = Scratch::new();
    scratch.write("context/x", "x");
    scratch.write("context/tree/real/deep/y", "y");
    scratch.write("context/more/z", "z");
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, scratch.path(name)).unwrap();
    link("real", "context/tree/link");
    link("../real", "context/tree/real/round");
    link("/real/deep", "context/tree/absolute");
    link("../../etc", "context/tree/out");
    let copies = "\
COPY x link/1
COPY x link
COPY more link
COPY x more/z real/round/new/
COPY x absolute/2
APP a local://x
APPCMDS a [\"true\"]
";
    scratch.build("one:1", &format!("FROM scratch\nCOPY tree .\n{copies}"), &[]);
    scratch.build("base:1", "FROM scratch\nCOPY tree .\n", &[]);
    scratch.build("two:1", &format!("FROM base:1\n{copies}"), &[]);
    let expected = [
        "absolute",
        "application/",
        "application/apps/",
        "application/apps/a/",
        "application/apps/a/x",
        "link",
        "out",
        "real/",
        "real/1",
        "real/deep/",
        "real/deep/2",
        "real/deep/y",
        "real/new/",
        "real/new/x",
        "real/new/z",
        "real/round",
        "real/x",
        "real/z",
    ];
    for image in ["one:1", "two:1"] {
        let rootfs = scratch.rootfs(image);
        assert_eq!(rootfs.paths(), expected, "{image}");
        assert_eq!(
            rootfs.entry("link").kind,
            support::insides::Kind::Symlink("real".to_owned())
        );
    }
    let said = scratch.build_fails(2, "FROM base:1\nCOPY x out/passwd\n", &[]);
    assert_has(&said, &["Kubefile:2", "`out/passwd` leads out of the rootfs"]);
}

/// A list that nobody could read must not be passed over.
#[test]
fn an_image_list_behind_a_broken_link() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("context/tree")).unwrap();
    std::os::unix::fs::symlink("nowhere", scratch.path("context/tree/imageList")).unwrap();
    let said = scratch.build_fails(2, "FROM scratch\nCOPY tree .\n", &[]);
    assert_has(&said, &["Kubefile:2", "`imageList`", "leads to nothing"]);
    scratch.write("context/binary", [0xff, 0xfe, 0]);
    let said = scratch.build_fails(2, "FROM scratch\nCOPY binary imageList\n", &[]);
    assert_has(&said, &["Kubefile:2", "`imageList` is not a text"]);
}

/// An image as sealer writes it: no `images.lock`, all that tells of container images is the annotation.
#[test]
fn the_container_images_of_a_base_without_a_lock_stay_listed() {
    let scratch = Scratch::new();
    scratch.write("context/x", "x");
    scratch.build("plain:1", "FROM scratch\nCOPY x x\n", &[]);
    let listed = json!([
        {"image": "docker.io/library/nginx:alpine", "appName": "web",
         "platform": {"architecture": "amd64", "os": "linux"}},
        {"image": "quay.io/a/b:1"}
    ]);
    let store = Store::open(std::path::Path::new(&scratch.path("root"))).unwrap();
    let plain = store.resolve(&"plain:1".parse().unwrap()).unwrap().unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&document(&store, &plain).unwrap()).unwrap();
    manifest["annotations"]["sealer.image.container.images"] = listed.to_string().into();
    let sealer = store.put(&plain.media_type, manifest.to_string().as_bytes()).unwrap();
    store.tag(Some(&"sealer:1".parse().unwrap()), &sealer).unwrap();

    for (name, base, flags) in [
        ("child:1", "sealer:1", &[][..]),
        ("child:2", "sealer:1", &["--build-mode", "lite"]),
        ("grandchild:1", "child:1", &[]),
    ] {
        scratch.build(name, &format!("FROM {base}\nCOPY x y\n"), flags);
        assert_eq!(scratch.json(&["inspect", name])["containerImageList"], listed, "{name}");
    }
}

/// What is wrong in a list given as a flag is told before anything is packed.
#[test]
fn lists_given_as_flags_are_read_first() {
    let scratch = Scratch::new();
    scratch.write("context/x", "x");
    scratch.write("wrong", "nginx\nNOT/an image\n");
    scratch.write("binary", [0xff, 0xfe, 0]);
    for flag in ["--image-list", "--ignored-image-list"] {
        for (path, code, words) in [
            ("wrong", 2, "wrong:2: error: `NOT/an image`"),
            ("binary", 2, "binary is not a text"),
            ("context", 2, "cannot read the image list context"),
            ("nowhere", 3, "cannot read the image list nowhere"),
        ] {
            let said = scratch.build_fails(code, "FROM scratch\nCOPY x x\n", &[flag, path]);
            assert_has(&said, &[words]);
            assert!(!said.contains("packing"), "{said}");
        }
    }
}
