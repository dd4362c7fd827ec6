//! Container images in a ClusterImage: asked for by lists, pulled from real registries, and served again by
//! sealrs's registry and by Debian's, under the names and digests that they had.

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
use serde_json::json;
use support::fault_proxy::FaultProxy;
use support::http::{Response, Server};
use support::images::{answers, pull, push, serve, write_registry};
use support::registry::{Registry, Setup};
use support::{Scratch, assert_has, fail, needs, noise, run};

const HERE: &[&str] = &["linux/amd64"];

fn host_platform() -> String {
    sealrs_image::platform::Platform::host().to_string()
}

/// The registry's data of an image, behind both registries.
fn each_registry(scratch: &Scratch, image: &str, check: impl Fn(&str)) {
    let folder = scratch.path(&format!("unpacked-{}", image.replace(':', "-")));
    write_registry(&scratch.rootfs(image), Path::new(&folder));
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
fn names_keep_answering_by_tag_digest_and_both() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    let large = noise(1, 600_000);
    let one = push(
        &scratch,
        &upstream,
        "team/one:v1",
        HERE,
        &[large.clone(), b"small".to_vec()],
    );
    let two = push(&scratch, &upstream, "two:v1", HERE, std::slice::from_ref(&large));
    let three = push(&scratch, &upstream, "three:v1", HERE, &[b"three".to_vec()]);
    let four = push(&scratch, &upstream, "four:v1", HERE, &[b"four".to_vec()]);
    scratch.write(
        "context/imageList",
        format!("# of the root\n{host}/team/one:v1\n\n{host}/two:v1 # again\n"),
    );
    scratch.write(
        "context/manifests/imageList",
        format!("{host}/two:v1\n\"{host}/three@{three}\"\n"),
    );
    let more = scratch.write("more.txt", format!("{host}/four:v1@{four}\n{host}/never:v1\n"));
    let less = scratch.write("less.txt", format!("{host}/never:v1\n"));
    let flags = ["--image-list", &more, "--ignored-image-list", &less];
    let built = scratch.build("a:1", "FROM scratch\nCOPY . .\n", &flags);
    assert_eq!(built.0["containerImages"], 4);

    // The lock, the annotation and inspect agree.
    let rootfs = scratch.rootfs("a:1");
    let lock: serde_json::Value = serde_json::from_str(&rootfs.file("images.lock")).unwrap();
    let locked = |name: &str| {
        let images = lock["images"].as_array().unwrap();
        images
            .iter()
            .find(|image| image["image"] == format!("{host}/{name}"))
            .unwrap()
            .clone()
    };
    assert_eq!(lock["schemaVersion"], 1);
    for (name, digest, asked_by) in [
        ("team/one:v1", one, json!(["imageList:2"])),
        ("two:v1", two, json!(["imageList:4", "manifests/imageList:1"])),
        (&format!("three@{three}"), three, json!(["manifests/imageList:2"])),
        (&format!("four:v1@{four}"), four, json!([format!("{more}:1")])),
    ] {
        let image = locked(name);
        assert_eq!(image["digest"], digest.to_string(), "{name}");
        assert_eq!(
            (&image["manifest"], &image["askedBy"]),
            (&image["digest"], &asked_by),
            "{name}"
        );
        assert_eq!(image["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(image["platform"], json!({"os": "linux", "architecture": "amd64"}));
    }
    assert!(locked("team/one:v1")["size"].as_u64().unwrap() > 600_000);
    let listed = scratch.json(&["inspect", "a:1"])["containerImageList"].clone();
    let names = |list: &serde_json::Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|image| image["image"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&listed), names(&lock["images"]));
    assert_eq!(scratch.json(&["images"])[0]["containerImages"], 4);

    // One blob, one layer; both images share it.
    let layers = scratch.layers("a:1");
    let blobs: Vec<_> = layers
        .iter()
        .filter(|layer| layer.paths()[0].ends_with("/data"))
        .collect();
    assert_eq!(
        blobs.len(),
        1,
        "{:?}",
        blobs.iter().map(|layer| layer.paths()).collect::<Vec<_>>()
    );
    assert_eq!(blobs[0].media_type, "application/vnd.oci.image.layer.v1.tar");
    assert_eq!(blobs[0].entries.len(), 1);

    drop(upstream);
    let folder = host.replace(':', "_");
    each_registry(&scratch, "a:1", |private| {
        for (name, digest) in [
            ("team/one:v1".to_owned(), one),
            (format!("team/one@{one}"), one),
            (format!("{folder}/team/one:v1"), one),
            ("two:v1".to_owned(), two),
            (format!("three@{three}"), three),
            (format!("{folder}/three@{three}"), three),
            ("four:v1".to_owned(), four),
            (format!("four@{four}"), four),
        ] {
            assert_eq!(pull(private, &name), digest, "{name} from {private}");
        }
        for name in ["three:v1", "never:v1", "two:v2"] {
            assert!(!answers(private, name), "{name} from {private}");
        }
    });
}

#[test]
fn umoci_unpacks_what_a_registry_can_serve() {
    needs!("docker-registry", "skopeo", "umoci");
    support::needs_root!();
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let digest = push(
        &scratch,
        &upstream,
        "one:v1",
        HERE,
        &[noise(1, 600_000), b"small".to_vec()],
    );
    scratch.write("context/imageList", format!("{}/one:v1", upstream.host()));
    scratch.build("a:1", "FROM scratch\nCOPY . .\n", &["--compression", "gzip"]);
    scratch.ok(&["save", "a:1", "-o", "a.tar"]);
    drop(upstream);
    let archive = format!("oci-archive:{}", scratch.path("a.tar"));
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "--quiet",
            &archive,
            &format!("oci:{}:a", scratch.path("layout")),
        ],
    );
    run(
        "umoci",
        &[
            "raw",
            "unpack",
            "--image",
            &format!("{}:a", scratch.path("layout")),
            &scratch.path("rootfs"),
        ],
    );
    let registry = Path::new(&scratch.path("rootfs")).join("registry");
    let ours = serve(&scratch, &registry, &[]);
    assert_eq!(pull(&ours.host, "one:v1"), digest);
    drop(ours);
    let theirs = Registry::start(&Setup {
        storage: Some(registry),
        ..Setup::default()
    });
    assert_eq!(pull(&theirs.host(), "one:v1"), digest);
}

#[test]
fn the_same_path_of_two_hosts_stays_two_images() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (a, b) = (Registry::start(&Setup::default()), Registry::start(&Setup::default()));
    let of_a = push(&scratch, &a, "team/app:v1", HERE, &[b"a".to_vec()]);
    let of_b = push(&scratch, &b, "team/app:v1", HERE, &[b"b".to_vec()]);
    let only_b = push(&scratch, &b, "team/other:v1", HERE, &[b"o".to_vec()]);
    let list = format!(
        "{0}/team/app:v1\n{1}/team/app:v1\n{1}/team/other:v1\n",
        a.host(),
        b.host()
    );
    scratch.write("context/imageList", list);
    scratch.build("a:1", "FROM scratch\nCOPY . .\n", &[]);
    let folder = |registry: &Registry| registry.host().replace(':', "_");
    each_registry(&scratch, "a:1", |private| {
        assert_eq!(pull(private, &format!("{}/team/app:v1", folder(&a))), of_a);
        assert_eq!(pull(private, &format!("{}/team/app:v1", folder(&b))), of_b);
        assert!(!answers(private, "team/app:v1"), "neither passes for the other");
        assert_eq!(pull(private, "team/other:v1"), only_b);
    });
}

#[test]
fn of_an_index_only_one_platform_is_taken_and_its_digest_answers() {
    needs!("docker-registry", "skopeo");
    if host_platform() != "linux/amd64" {
        println!("skipped: skopeo pulls this machine's platform, and the test has another");
        return;
    }
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    let platforms = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
    let index = push(&scratch, &upstream, "multi:v1", &platforms, &[noise(9, 400_000)]);
    scratch.write("context/imageList", format!("{host}/multi:v1\n{host}/multi@{index}\n"));
    scratch.build("a:1", "FROM scratch\nCOPY . .\n", &[]);
    let lock: serde_json::Value = serde_json::from_str(&scratch.rootfs("a:1").file("images.lock")).unwrap();
    for locked in lock["images"].as_array().unwrap() {
        assert_eq!(locked["digest"], index.to_string());
        assert_ne!(locked["manifest"], locked["digest"]);
        assert_eq!(locked["mediaType"], "application/vnd.oci.image.index.v1+json");
    }
    let member: Digest = lock["images"][0]["manifest"].as_str().unwrap().parse().unwrap();
    each_registry(&scratch, "a:1", |private| {
        assert_eq!(pull(private, "multi:v1"), index);
        assert_eq!(pull(private, &format!("multi@{index}")), index);
        assert_eq!(pull(private, &format!("multi@{member}")), member);
    });

    // Another platform of the same index is another image; one that it has not fails, and says what it has.
    let arm = scratch.build("arm:1", "FROM scratch\nCOPY . .\n", &["--platform", "linux/arm64"]);
    assert_ne!(
        arm.digest(),
        scratch.json(&["inspect", "a:1"])["digest"].as_str().unwrap()
    );
    let lock: serde_json::Value = serde_json::from_str(&scratch.rootfs("arm:1").file("images.lock")).unwrap();
    assert_eq!(lock["images"][0]["platform"]["architecture"], "arm64");
    let said = scratch.build_fails(3, "FROM scratch\nCOPY . .\n", &["--platform", "linux/s390x"]);
    assert_has(&said, &["imageList:1", "linux/s390x", "linux/amd64"]);
}

#[test]
fn each_blob_is_fetched_once_and_never_again() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let (large, small) = (noise(1, 500_000), noise(2, 2_000));
    push(&scratch, &upstream, "a:v1", HERE, &[large.clone(), small.clone()]);
    push(
        &scratch,
        &upstream,
        "b:v1",
        HERE,
        &[large.clone(), small.clone(), b"b".to_vec()],
    );
    push(&scratch, &upstream, "c:v1", HERE, &[large.clone(), b"c".to_vec()]);
    let proxy = FaultProxy::start(upstream.address);
    let host = proxy.host();
    scratch.write("context/imageList", format!("{host}/a:v1\n{host}/b:v1\n{host}/c:v1\n"));
    let kubefile = "FROM scratch\nCOPY . .\n";
    let first = scratch.build("a:1", kubefile, &[]);
    let mut fetched: Vec<String> = proxy
        .passed("/blobs/")
        .into_iter()
        .filter(|passed| passed.request.method == "GET")
        .map(|passed| passed.request.target.rsplit('/').next().unwrap().to_owned())
        .collect();
    fetched.sort();
    let all = fetched.len();
    fetched.dedup();
    assert_eq!(fetched.len(), all, "a blob was fetched twice: {fetched:?}");
    // Four layers and three configs.
    assert_eq!(all, 7, "{fetched:?}");

    // A rebuild asks for the tags only.
    let before = proxy.passed("").len();
    let again = scratch.build("a:1", kubefile, &[]);
    assert_eq!((again.digest(), again.packed()), (first.digest(), 0));
    let asked: Vec<_> = proxy.passed("").split_off(before);
    assert!(
        asked.iter().all(|passed| !passed.request.target.contains("/blobs/")),
        "{asked:?}"
    );

    // One more image costs what only it has.
    push(&scratch, &upstream, "d:v1", HERE, &[large, b"d".to_vec()]);
    let list = scratch.path("context/imageList");
    fs::write(&list, fs::read_to_string(&list).unwrap() + &format!("{host}/d:v1\n")).unwrap();
    let before = proxy.passed("").len();
    scratch.build("a:1", kubefile, &[]);
    let fetched = proxy.passed("").split_off(before);
    let bytes: u64 = fetched.iter().map(|passed| passed.body_bytes).sum();
    assert!(bytes < 10_000, "{bytes} bytes for a new image of a few");

    // The layer of a blob is the same wherever it comes from.
    let other = Scratch::new();
    other.write("context/imageList", format!("{}/a:v1\n", upstream.host()));
    other.build("a:1", kubefile, &[]);
    let blob_layer = |scratch: &Scratch| {
        let layers = scratch.layers("a:1");
        layers
            .into_iter()
            .find(|layer| layer.paths()[0].ends_with("/data"))
            .unwrap()
            .digest
    };
    assert_eq!(blob_layer(&other), blob_layer(&scratch));
}

#[test]
fn what_cannot_be_had_is_named_with_its_line() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    push(&scratch, &upstream, "there:v1", HERE, &[b"x".to_vec()]);
    let digest = Digest::of(b"of nothing");
    let list =
        format!("# three of them\n{host}/there:v1\n{host}/there:v2\n{host}/not/there:v1\n{host}/there@{digest}\n");
    scratch.write("context/manifests/imageList", list);
    let said = scratch.build_fails(3, "FROM scratch\nCOPY . .\n", &[]);
    assert_has(&said, &["3 of 4 container images", "hint:"]);
    for (line, name) in [
        (3, "there:v2".to_owned()),
        (4, "not/there:v1".to_owned()),
        (5, format!("there@{digest}")),
    ] {
        assert_has(
            &said,
            &[&format!("manifests/imageList:{line}: "), &format!("{host}/{name}")],
        );
    }
    assert!(!said.contains("imageList:2:"), "{said}");
    assert_eq!(scratch.json(&["images"]), json!([]));

    scratch.write(
        "context/manifests/imageList",
        "nginx:1\nNO/upper\n{{ .Values.image }}\nhttp://x/y\n",
    );
    let said = scratch.build_fails(2, "FROM scratch\nCOPY . .\n", &[]);
    for line in [2, 3, 4] {
        assert_has(&said, &[&format!("manifests/imageList:{line}: ")]);
    }
    fs::remove_file(scratch.path("context/manifests/imageList")).unwrap();
    let said = scratch.build_fails(3, "FROM scratch\nCOPY . .\n", &["--image-list", "no-list"]);
    assert_has(&said, &["no-list"]);

    // One tag with two meanings can't be served.
    let pinned = push(&scratch, &upstream, "there:v3", HERE, &[b"y".to_vec()]);
    scratch.write(
        "context/imageList",
        format!("{host}/there:v1\n{host}/there:v1@{pinned}\n"),
    );
    let said = scratch.build_fails(2, "FROM scratch\nCOPY . .\n", &[]);
    assert_has(&said, &["two meanings", &format!("{host}/there:v1"), "hint:"]);
}

/// Each failure has its own cause and remedy, and running again would help none but one.
#[test]
fn failures_of_different_kinds_keep_their_own_hints() {
    let scratch = Scratch::new();
    let server = Server::start(|request| match request.target.as_str() {
        target if target.contains("/secret/") => Response::new(403),
        target if target.contains("/odd/") => Response::new(200)
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .body("no document"),
        "/v2/" => Response::new(200),
        _ => Response::new(404),
    });
    let host = server.url().replace("http://", "");
    scratch.write(
        "context/imageList",
        format!("{host}/gone:v1\n{host}/secret/app:v1\n{host}/odd/app:v1\n"),
    );
    let mut command = scratch.building("a:1", "FROM scratch\nCOPY . .\n", &[]);
    let said = fail(command.args(["--output", "json", "--quiet"]), 3);
    let error: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(error["message"], "3 of 3 container images can't be had");
    let errors = error["errors"].as_array().unwrap();
    let codes: Vec<_> = errors
        .iter()
        .map(|error| (error["line"].clone(), error["code"].clone()))
        .collect();
    let expected = [(1, "not-found"), (2, "auth"), (3, "integrity")];
    assert_eq!(codes, expected.map(|(line, code)| (json!(line), json!(code))), "{said}");
    assert_has(errors[1]["hint"].as_str().unwrap(), &["sealrs login"]);
    assert!(
        !errors[0]["hint"].as_str().unwrap_or_default().contains("login"),
        "{said}"
    );
    assert_ne!(errors[0]["causes"], errors[2]["causes"]);
}

#[test]
fn a_child_adds_to_and_replaces_the_images_of_its_base() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (a, b) = (Registry::start(&Setup::default()), Registry::start(&Setup::default()));
    let kept = push(&scratch, &a, "kept:v1", HERE, &[noise(1, 400_000)]);
    push(&scratch, &a, "moving:v1", HERE, &[b"old".to_vec()]);
    let shared_a = push(&scratch, &a, "shared:v1", HERE, &[b"of a".to_vec()]);
    scratch.write(
        "context/imageList",
        format!("{0}/kept:v1\n{0}/moving:v1\n{0}/shared:v1\n", a.host()),
    );
    scratch.build("base:1", "FROM scratch\nCOPY . .\n", &[]);
    let moved = push(&scratch, &a, "moving:v1", HERE, &[b"new".to_vec()]);
    let shared_b = push(&scratch, &b, "shared:v1", HERE, &[b"of b".to_vec()]);
    let added = push(&scratch, &b, "added:v1", HERE, &[b"added".to_vec()]);
    let list = format!("{}/moving:v1\n{1}/shared:v1\n{1}/added:v1\n", a.host(), b.host());
    scratch.write("context/imageList", list);
    scratch.build("child:1", "FROM base:1\nCOPY imageList manifests/\n", &[]);
    assert_eq!(scratch.json(&["images"])[1]["containerImages"], 5);

    // Unpacked with whiteouts, as `run` and other tools do it.
    let layers = scratch.layers("child:1");
    let rootfs = support::insides::applied(&layers);
    let folder = scratch.path("unpacked");
    write_registry(&rootfs, Path::new(&folder));
    let ours = serve(&scratch, Path::new(&folder), &[]);
    let (of_a, of_b) = (a.host().replace(':', "_"), b.host().replace(':', "_"));
    for (name, digest) in [
        ("kept:v1".to_owned(), kept),
        ("moving:v1".to_owned(), moved),
        ("added:v1".to_owned(), added),
        (format!("{of_a}/shared:v1"), shared_a),
        (format!("{of_b}/shared:v1"), shared_b),
    ] {
        assert_eq!(pull(&ours.host, &name), digest, "{name}");
    }
    assert!(
        !answers(&ours.host, "shared:v1"),
        "the base's short name would pass for the other host's image"
    );
}

/// sealer keeps images under their path alone. What another host has under that path may not take the name over.
#[test]
fn a_child_does_not_replace_what_sealer_stored() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    push(&scratch, &registry, "shared:v1", HERE, &[b"here".to_vec()]);
    push(&scratch, &registry, "other:v1", HERE, &[b"other".to_vec()]);
    let theirs = "registry/docker/registry/v2/repositories/shared/_manifests/tags/v1/current/link";
    let digest = Digest::of(b"what sealer stored");
    scratch.write(&format!("context/{theirs}"), digest.to_string());
    scratch.build("plain:1", "FROM scratch\nCOPY . .\n", &[]);
    let store = Store::open(Path::new(&scratch.path("root"))).unwrap();
    let plain = store.resolve(&"plain:1".parse().unwrap()).unwrap().unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&document(&store, &plain).unwrap()).unwrap();
    let listed = serde_json::json!([{"image": "quay.io/shared:v1"}]);
    manifest["annotations"]["sealer.image.container.images"] = listed.to_string().into();
    let sealer = store.put(&plain.media_type, manifest.to_string().as_bytes()).unwrap();
    store.tag(Some(&"sealer:1".parse().unwrap()), &sealer).unwrap();

    let list = format!("{0}/shared:v1\n{0}/other:v1\n", registry.host());
    scratch.write("context/imageList", &list);
    scratch.build("child:1", "FROM sealer:1\nCOPY imageList manifests/\n", &[]);
    let rootfs = scratch.rootfs("child:1");
    assert_eq!(rootfs.file(theirs), digest.to_string());
    rootfs.entry(&theirs.replace("/shared/", "/other/"));
    rootfs.entry(&theirs.replace("/shared/", &format!("/{}/shared/", registry.host().replace(':', "_"))));
    let images = &scratch.json(&["inspect", "child:1"])["containerImageList"];
    let names: Vec<_> = images.as_array().unwrap().iter().map(|image| &image["image"]).collect();
    assert_eq!(
        names,
        [
            &format!("{}/other:v1", registry.host()),
            &format!("{}/shared:v1", registry.host()),
            "quay.io/shared:v1"
        ]
    );
}

#[test]
fn lite_pulls_nothing() {
    let scratch = Scratch::new();
    scratch.write("context/imageList", "registry.invalid/never:v1\n");
    let built = scratch.build("a:1", "FROM scratch\nCOPY . .\n", &["--build-mode", "lite"]);
    assert_eq!(built.0["containerImages"], 0);
    assert_eq!(scratch.rootfs("a:1").paths(), ["imageList"]);
}
