//! `sealrs merge`: several ClusterImages into one that installs, and whose registry serves what each of them brought.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::path::Path;

use sealrs_image::digest::Digest;
use sealrs_image::source::document;
use sealrs_image::store::Store;
use serde_json::{Value, json};
use support::cluster::{Cluster, write_archive};
use support::images::{answers, pull, push, serve, write_registry};
use support::insides::{self, Rootfs};
use support::registry::{Registry, Setup};
use support::{Scratch, assert_has, json, needs, noise, run, succeed};

const HERE: &[&str] = &["linux/amd64"];
const RUNTIME: &str = "LABEL cluster.alpha.sealer.io/cluster-runtime-type=script\n";
const INIT: &str = "#!/bin/bash\necho config > \"$KUBECONFIG\"\n";

/// A fresh build context with these files.
fn context(scratch: &Scratch, files: &[(&str, &str)]) {
    let _ = fs::remove_dir_all(scratch.path("context"));
    for (path, content) in files {
        scratch.program(&format!("context/{path}"), content);
    }
}

/// Builds from these files.
fn image(scratch: &Scratch, name: &str, files: &[(&str, &str)], kubefile: &str) {
    context(scratch, files);
    scratch.build(name, kubefile, &[]);
}

/// What a merged image unpacks to: whiteouts hide links that no longer hold.
fn rootfs(scratch: &Scratch, image: &str) -> Rootfs {
    insides::applied(&scratch.layers(image))
}

fn names(list: &Value, key: &str) -> Vec<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
}

/// The registry's data of an image, behind both registries.
fn each_registry(scratch: &Scratch, image: &str, check: impl Fn(&str)) {
    let folder = scratch.path(&format!("unpacked-{}", image.replace(':', "-")));
    write_registry(&rootfs(scratch, image), Path::new(&folder));
    let ours = serve(scratch, Path::new(&folder), &[]);
    check(&ours.host);
    drop(ours);
    let theirs = Registry::start(&Setup {
        storage: Some(folder.into()),
        ..Setup::default()
    });
    check(&theirs.host());
}

#[test]
fn an_app_merged_onto_a_base_is_installed_and_both_are_served() {
    needs!("docker-registry", "skopeo");
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    let large = noise(1, 400_000);
    let of_base = push(scratch, &upstream, "team/base:v1", HERE, std::slice::from_ref(&large));
    let of_app = push(
        scratch,
        &upstream,
        "team/web:v1",
        HERE,
        &[large.clone(), noise(2, 300_000)],
    );
    image(
        scratch,
        "base:1",
        &[
            ("scripts/runtime/init.sh", INIT),
            ("imageList", &format!("{host}/team/base:v1\n")),
            ("net.sh", "echo net > $ROOTFS/launched\n"),
        ],
        &format!(
            "FROM scratch\n{RUNTIME}ENV CIDR=10.0.0.0/16\nCOPY scripts scripts\nCOPY imageList .\nCNI net local://net.sh\nLAUNCH net\n"
        ),
    );
    context(
        scratch,
        &[
            (
                "manifests/imageList",
                &format!("{host}/team/web:v1\n{host}/team/base:v1\n"),
            ),
            ("web.sh", "echo web $GREETING >> $ROOTFS/launched\n"),
        ],
    );
    let kubefile =
        "FROM scratch\nCOPY manifests manifests\nAPP web local://web.sh\nAPPENV web GREETING=hello\nLAUNCH web\n";
    scratch.build("web:1", kubefile, &["--type", "app-installer"]);
    drop(upstream);

    let merged = scratch.json(&["merge", "base:1", "web:1", "-t", "all:1"]);
    assert_eq!(
        (&merged["name"], &merged["containerImages"]),
        (&json!("all:1"), &json!(2))
    );
    let inspected = scratch.json(&["inspect", "all:1"]);
    let extension = &inspected["imageExtension"];
    assert_eq!(extension["type"], "kube-installer");
    assert_eq!(names(&extension["applications"], "name"), ["net", "web"]);
    assert_eq!(extension["launch"], json!({"app_names": ["net", "web"]}));
    assert_eq!(extension["env"], json!({"CIDR": "10.0.0.0/16"}));
    assert_eq!(
        extension["labels"]["cluster.alpha.sealer.io/cluster-runtime-type"],
        "script"
    );
    assert_eq!(extension["labels"]["cluster.alpha.sealer.io/kube-cni"], "[\"net\"]");
    let both = [format!("{host}/team/base:v1"), format!("{host}/team/web:v1")];
    assert_eq!(names(&inspected["containerImageList"], "image"), both);
    let lock: Value = serde_json::from_str(&rootfs(scratch, "all:1").file("images.lock")).unwrap();
    assert_eq!(names(&lock["images"], "image"), both);
    // Each layer once; the history tells of each.
    let digests = names(&inspected["manifestv1"]["layers"], "digest");
    let mut distinct = digests.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), digests.len());
    let history = inspected["ociv1"]["history"].as_array().unwrap().iter();
    assert_eq!(
        history.filter(|entry| entry["empty_layer"] != true).count(),
        digests.len()
    );
    // Again it is the same, and what is there is not packed again.
    let again = scratch.json(&["merge", "base:1", "web:1", "web:1", "-t", "again:1"]);
    assert_eq!(
        (&again["digest"], &again["layersPacked"]),
        (&merged["digest"], &json!(0))
    );

    let folder = host.replace(':', "_");
    each_registry(scratch, "all:1", |private| {
        for (name, digest) in [
            ("team/base:v1".to_owned(), of_base),
            ("team/web:v1".to_owned(), of_app),
            (format!("{folder}/team/web:v1"), of_app),
            (format!("team/base@{of_base}"), of_base),
        ] {
            assert_eq!(pull(private, &name), digest, "{name} from {private}");
        }
    });

    scratch.ok(&["save", "all:1", "-o", "all.tar"]);
    let ran = json(&mut cluster.run("all.tar", &[]));
    assert_eq!(ran["runtime"], "script");
    assert_eq!(cluster.read("rootfs/launched"), "net\nweb hello\n");
    fs::create_dir(scratch.path("certs")).unwrap();
    let authority = scratch.path(&cluster.data("pki/ca.crt"));
    fs::copy(authority, scratch.path("certs/ca.crt")).unwrap();
    for name in ["team/base:v1", "team/web:v1"] {
        let source = format!("docker://localhost:{}/{name}", cluster.port);
        let target = format!("oci:{}:v1", scratch.path(&name.replace(['/', ':'], "-")));
        let options = ["--insecure-policy", "copy", "--quiet", "--src-cert-dir"];
        run(
            "skopeo",
            &[&options[..], &[&scratch.path("certs"), &source, &target]].concat(),
        );
    }
    succeed(&mut cluster.delete());

    // A merged image is a base like any other.
    context(scratch, &[("more", "more")]);
    scratch.build("child:1", "FROM all:1\nCOPY more /\n", &[]);
    assert_eq!(
        names(&scratch.json(&["inspect", "child:1"])["containerImageList"], "image"),
        both
    );
}

#[test]
fn later_files_come_over_earlier_ones_and_a_common_base_is_there_once() {
    let scratch = Scratch::new();
    image(
        &scratch,
        "base:1",
        &[("etc/a", "base"), ("etc/b", "base")],
        "FROM scratch\nCOPY . .\n",
    );
    image(
        &scratch,
        "one:1",
        &[("etc/a", "one"), ("x", "one")],
        "FROM base:1\nCOPY . .\n",
    );
    image(
        &scratch,
        "two:1",
        &[("etc/c", "two"), ("x", "two")],
        "FROM base:1\nENV TWO=2\nLABEL free=two\nCOPY . .\n",
    );
    let output = scratch
        .sealrs(&["merge", "one:1", "two:1", "-t", "both:1"])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_has(
        &support::text(&output.stderr),
        &["two:1 replaces `x` of what it is merged onto"],
    );
    assert_has(&support::text(&output.stdout), &["merged both:1 sha256:"]);
    let found = rootfs(&scratch, "both:1");
    for (path, content) in [("etc/a", "one"), ("etc/b", "base"), ("etc/c", "two"), ("x", "two")] {
        assert_eq!(found.file(path), content, "{path}");
    }
    assert_eq!(scratch.layers("both:1").len(), 3);
    let inspected = scratch.json(&["inspect", "both:1"]);
    assert_eq!(inspected["imageExtension"]["env"], json!({"TWO": "2"}));
    assert_eq!(inspected["imageExtension"]["labels"]["free"], "two");

    // What is covered by another image comes once more: the last image shows as it is.
    image(&scratch, "plain:1", &[("etc/a", "plain")], "FROM scratch\nCOPY . .\n");
    image(&scratch, "cover:1", &[("etc/a", "cover")], "FROM plain:1\nCOPY . .\n");
    image(
        &scratch,
        "last:1",
        &[("etc/a", "plain"), ("y", "y")],
        "FROM scratch\nCOPY y .\nCOPY etc etc\n",
    );
    let [plain, last] = ["plain:1", "last:1"].map(|name| scratch.layers(name).pop().unwrap().digest);
    assert_eq!(plain, last, "the same layer in both");
    scratch.ok(&["merge", "cover:1", "last:1", "-t", "last-on-top:1"]);
    assert_eq!(rootfs(&scratch, "last-on-top:1").file("etc/a"), "plain");

    // From an archive, and for two platforms.
    scratch.ok(&["save", "one:1", "-o", "one.tar"]);
    scratch.ok(&["rmi", "one:1"]);
    let from_archive = scratch.json(&["merge", "one.tar", "two:1", "-t", "archive:1"]);
    assert_eq!(from_archive["digest"], scratch.json(&["inspect", "both:1"])["digest"]);
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    scratch.build("p:1", "FROM scratch\nCOPY <<p .\n$ARCH\np\n", &platforms);
    scratch.build("q:1", "FROM scratch\nCOPY <<q .\n$ARCH\nq\n", &platforms);
    let merged = scratch.json(&[&["merge", "p:1", "q:1", "-t", "pq:1"][..], &platforms].concat());
    assert_eq!(names(&merged["platforms"], "platform"), ["linux/amd64", "linux/arm64"]);
    let arm = scratch.json(&["inspect", "pq:1", "--platform", "linux/arm64"]);
    let arm = insides::merged(&insides::layers(
        Path::new(&scratch.path("root/store")),
        &arm["manifestv1"],
    ));
    assert_eq!(
        (arm.file("p"), arm.file("q")),
        ("arm64\n".to_owned(), "arm64\n".to_owned())
    );
    let other = ["--platform", "linux/s390x"];
    let said = scratch.fails(3, &[&["merge", "base:1", "two:1", "-t", "new:1"][..], &other].concat());
    assert_has(&said, &["cannot merge base:1", "not for linux/s390x"]);
}

#[test]
fn what_contradicts_is_refused_and_names_both() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    let list = format!("{host}/app:v1\n");
    let old = push(&scratch, &upstream, "app:v1", HERE, &[b"old".to_vec()]);
    image(&scratch, "old:1", &[("imageList", &list)], "FROM scratch\nCOPY . .\n");
    let new = push(&scratch, &upstream, "app:v1", HERE, &[b"new".to_vec()]);
    image(&scratch, "new:1", &[("imageList", &list)], "FROM scratch\nCOPY . .\n");
    for (name, kubefile) in [
        ("k3s:1", "LABEL cluster.alpha.sealer.io/cluster-runtime-type=k3s"),
        ("k0s:1", "LABEL cluster.alpha.sealer.io/cluster-runtime-type=k0s"),
        ("env:1", "ENV PORT=1"),
        ("env:2", "ENV PORT=secret"),
        ("app:1", "APP app local://a.sh"),
        ("app:2", "APP app local://b.sh"),
        ("app:3", "APP app local://sub/a.sh"),
        ("app:4", "COPY a.sh other/\nAPP app local://a.sh"),
        ("launch:1", "APP started local://a.sh\nLAUNCH started"),
        ("cmds:1", "CMDS [\"true\"]"),
        ("file:1", "COPY a.sh place"),
        ("folder:1", "COPY sub place/"),
    ] {
        let files = [("a.sh", "echo a"), ("b.sh", "echo b"), ("sub/a.sh", "echo sub")];
        image(&scratch, name, &files, &format!("FROM scratch\n{kubefile}\n"));
    }
    let before = scratch.json(&["images"]);
    for (one, two, words) in [
        ("k3s:1", "k0s:1", &["k3s:1", "k0s:1", "cluster-runtime-type"][..]),
        ("env:1", "env:2", &["env:1", "env:2", "PORT", "APPENV"]),
        ("app:1", "app:2", &["app:1", "app:2", "app `app`", "another name"]),
        ("app:1", "app:3", &["app:1", "app:3", "not the same"]),
        (
            "launch:1",
            "cmds:1",
            &["launch:1 launches apps", "cmds:1 runs commands", "APPCMDS"],
        ),
        ("folder:1", "file:1", &["file:1 would remove `place/a.sh`"]),
        (
            "old:1",
            "new:1",
            &[
                "old:1",
                "new:1",
                &format!("{host}/app:v1"),
                &old.to_string(),
                &new.to_string(),
            ],
        ),
    ] {
        let said = scratch.fails(8, &["merge", one, two, "-t", "merged:1"]);
        assert_has(&said, words);
        assert_has(&said, &["hint:"]);
        assert!(!said.contains("secret"), "{said}");
        assert_eq!(scratch.json(&["images"]), before);
    }
    let said = scratch.fails(2, &["merge", "app:1", "-t", "merged:1"]);
    assert_has(&said, &["NAME|FILE"]);
    // The same app of two images is one app.
    scratch.ok(&["merge", "app:1", "app:4", "-t", "merged:1"]);
    assert_eq!(
        names(
            &scratch.json(&["inspect", "merged:1"])["imageExtension"]["applications"],
            "name"
        ),
        ["app"]
    );
    // What is built on the other knows better.
    image(
        &scratch,
        "app:5",
        &[("b.sh", "echo b")],
        "FROM app:1\nAPP app local://b.sh\n",
    );
    scratch.ok(&["merge", "app:1", "app:5", "-t", "merged:1"]);
    let app = &scratch.json(&["inspect", "merged:1"])["imageExtension"]["applications"][0];
    assert_eq!(app["files"], json!(["b.sh"]));
}

#[test]
fn a_name_that_two_images_use_for_two_hosts_needs_its_host() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (a, b) = (Registry::start(&Setup::default()), Registry::start(&Setup::default()));
    let of_a = push(&scratch, &a, "team/app:v1", HERE, &[b"a".to_vec()]);
    let of_b = push(&scratch, &b, "team/app:v1", HERE, &[b"b".to_vec()]);
    let only_b = push(&scratch, &b, "team/other:v1", HERE, &[b"o".to_vec()]);
    let lists = [
        format!("{}/team/app:v1\n", a.host()),
        format!("{0}/team/app:v1\n{0}/team/other:v1\n", b.host()),
    ];
    for (name, list) in ["a:1", "b:1"].into_iter().zip(&lists) {
        image(&scratch, name, &[("imageList", list)], "FROM scratch\nCOPY . .\n");
    }
    for (order, name) in [(["a:1", "b:1"], "ab:1"), (["b:1", "a:1"], "ba:1")] {
        scratch.ok(&["merge", order[0], order[1], "-t", name]);
        let folder = |registry: &Registry| registry.host().replace(':', "_");
        each_registry(&scratch, name, |private| {
            assert_eq!(pull(private, &format!("{}/team/app:v1", folder(&a))), of_a);
            assert_eq!(pull(private, &format!("{}/team/app:v1", folder(&b))), of_b);
            assert!(!answers(private, "team/app:v1"), "neither passes for the other");
            assert_eq!(pull(private, "team/other:v1"), only_b);
        });
    }
}

#[test]
fn what_deletes_files_of_others_is_refused() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    push(&scratch, &upstream, "app:v1", HERE, &[noise(1, 400_000)]);
    let list = format!("{}/app:v1\n", upstream.host());
    image(
        &scratch,
        "base:1",
        &[("etc/a", "a"), ("imageList", &list)],
        "FROM scratch\nCOPY . .\n",
    );
    let rootfs = rootfs(&scratch, "base:1");
    let blob = |size: usize| {
        let is_it = |entry: &&insides::Entry| matches!(&entry.kind, insides::Kind::File(bytes) if bytes.len() > size);
        let found = rootfs
            .0
            .values()
            .filter(is_it)
            .find(|entry| entry.path.contains("/blobs/"));
        found.unwrap().path.clone()
    };
    let large = blob(300_000);
    let folder = large.strip_suffix("/data").unwrap();
    let (parent, name) = folder.rsplit_once('/').unwrap();
    for (path, lost) in [
        ("etc/.wh.a", "etc/a"),
        (".wh.etc", "etc/a"),
        ("etc/.wh..wh..opq", "etc/a"),
        ("etc", "etc/a"),
        (".wh.registry", "registry/"),
        ("registry/docker/.wh..wh..opq", "registry/docker/registry/v2/"),
        (&format!("{parent}/.wh.{name}"), &large),
    ] {
        let layer = insides::tar(&[(path, b"")]);
        write_archive(&scratch, "other.tar", &layer, "application/vnd.oci.image.layer.v1.tar");
        let said = scratch.fails(8, &["merge", "base:1", "other.tar", "-t", "merged:1"]);
        assert_has(&said, &["other.tar would remove `", lost]);
        // The other way round it is at the bottom, where there is nothing to delete yet.
        scratch.ok(&["merge", "./other.tar", "base:1", "-t", "merged:1"]);
    }
}

/// sealer writes no lock, and knows images by their paths alone.
#[test]
fn what_sealer_stored_keeps_its_names() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    push(&scratch, &registry, "shared:v1", HERE, &[b"here".to_vec()]);
    push(&scratch, &registry, "other:v1", HERE, &[b"other".to_vec()]);
    let store = Store::open(Path::new(&scratch.path("root"))).unwrap();
    let link = "registry/docker/registry/v2/repositories/shared/_manifests/tags/v1/current/link";
    for (name, content) in [("one", "one"), ("two", "two"), ("three", "one")] {
        let content = Digest::of(content.as_bytes()).to_string();
        image(
            &scratch,
            "plain:1",
            &[(link, &content), (name, name)],
            "FROM scratch\nCOPY . .\n",
        );
        let plain = store.resolve(&"plain:1".parse().unwrap()).unwrap().unwrap();
        let mut manifest: Value = serde_json::from_slice(&document(&store, &plain).unwrap()).unwrap();
        let listed = json!([{"image": "quay.io/shared:v1"}]);
        manifest["annotations"]["sealer.image.container.images"] = listed.to_string().into();
        let sealer = store.put(&plain.media_type, manifest.to_string().as_bytes()).unwrap();
        store.tag(Some(&name.parse().unwrap()), &sealer).unwrap();
    }
    for (name, path) in [("locked:1", "shared"), ("free:1", "other")] {
        let list = format!("{}/{path}:v1\n", registry.host());
        image(&scratch, name, &[("imageList", &list)], "FROM scratch\nCOPY . .\n");
    }
    for (one, two) in [("one", "two"), ("one", "locked:1"), ("locked:1", "one")] {
        let said = scratch.fails(8, &["merge", one, two, "-t", "merged:1"]);
        assert_has(&said, &["quay.io/shared:v1", "can't answer to one name", "with sealrs"]);
    }
    scratch.ok(&["merge", "one", "three", "free:1", "-t", "merged:1"]);
    let found = rootfs(&scratch, "merged:1");
    assert_eq!(found.file(link), Digest::of(b"one").to_string());
    found.entry(&link.replace("/shared/", "/other/"));
    let listed = names(&scratch.json(&["inspect", "merged:1"])["containerImageList"], "image");
    assert_eq!(
        listed,
        [format!("{}/other:v1", registry.host()), "quay.io/shared:v1".to_owned()]
    );
}
