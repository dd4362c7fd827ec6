//! `push --container-images-to`: the container images of a ClusterImage into registries that are there already, with
//! their tags and digests, straight out of the store or a file.

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
use std::time::Duration;

use sealrs_image::digest::Digest;
use sealrs_image::source::document;
use sealrs_image::store::Store;
use serde_json::{Value, json};
use support::images::{Served, answers, pull, push, serve, write_registry};
use support::registry::{Registry, Setup};
use support::relay::Relay;
use support::{Scratch, assert_has, needs, noise};

const HERE: &[&str] = &["linux/amd64"];
const BOTH: &[&str] = &["linux/amd64", "linux/arm64"];
const KUBEFILE: &str = "FROM scratch\nCOPY . .\n";

fn open_registry(scratch: &Scratch, folder: &str, more: &[&str]) -> Served {
    fs::create_dir_all(scratch.path(folder)).unwrap();
    serve(
        scratch,
        scratch.path(folder).as_ref(),
        &[&["--allow-push"], more].concat(),
    )
}

/// `HOST:PORT` as a part of a path.
fn folder(host: &str) -> String {
    host.replace(':', "_")
}

fn relocate(scratch: &Scratch, image: &str, to: &str) -> Value {
    scratch.json(&["--root", "other", "push", image, "--container-images-to", to])
}

fn moved(result: &Value) -> (u64, u64) {
    (result["blobs"].as_u64().unwrap(), result["bytes"].as_u64().unwrap())
}

/// The image as `(new name without the registry, digest)`.
fn went(result: &Value, image: &str, to: &str) -> (String, String) {
    let images = result["images"].as_array().unwrap().iter();
    let found = images.clone().find(|entry| entry["image"] == image);
    let found = found.unwrap_or_else(|| panic!("{image} is not in {result}"));
    let name = found["name"].as_str().unwrap();
    let path = name.strip_prefix(to).unwrap_or_else(|| panic!("{name} is not in {to}"));
    (
        path.trim_start_matches('/').to_owned(),
        found["digest"].as_str().unwrap().to_owned(),
    )
}

#[test]
fn images_keep_their_tags_and_digests_and_are_sent_once() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (one, two) = (Registry::start(&Setup::default()), Registry::start(&Setup::default()));
    let shared = noise(1, 600_000);
    // The same path on two hosts.
    let app = push(
        &scratch,
        &one,
        "team/app:v1",
        HERE,
        &[shared.clone(), b"small".to_vec()],
    );
    let same = push(
        &scratch,
        &two,
        "team/app:v1",
        HERE,
        &[shared.clone(), noise(2, 300_000)],
    );
    let pinned = push(&scratch, &one, "pinned:v1", HERE, std::slice::from_ref(&shared));
    let (one, two) = (one.host(), two.host());
    scratch.write(
        "context/imageList",
        format!("{one}/team/app:v1\n{two}/team/app:v1\n{one}/pinned@{pinned}\n{one}/pinned:v1@{pinned}\n"),
    );
    scratch.build("a:1", KUBEFILE, &[]);
    scratch.ok(&["save", "a:1", "-o", "a.tar"]);
    scratch.ok(&["save", "a:1", "-o", "split.tar", "--split", "500KB"]);

    let theirs = Registry::start(&Setup::default());
    let ours = open_registry(&scratch, "ours", &[]);
    let targets = [
        (theirs.host(), "mirror/deep", "a.tar"),
        (ours.host.clone(), "mirror", "split.tar.001"),
        (ours.host.clone(), "", "split.tar.001"),
    ];
    for (host, prefix, file) in targets {
        let to = format!("{host}/{prefix}").trim_end_matches('/').to_owned();
        let sent = relocate(&scratch, file, &to);
        // Layers: the shared one, `small` and the noise. Three configs, three manifests.
        assert_eq!(moved(&sent).0, 3 + 3 + 3, "{sent}");
        let (one_in, two_in) = (folder(&one), folder(&two));
        for (image, path, digest) in [
            (format!("{one}/team/app:v1"), format!("{one_in}/team/app:v1"), app),
            (format!("{two}/team/app:v1"), format!("{two_in}/team/app:v1"), same),
            (
                format!("{one}/pinned@{pinned}"),
                format!("{one_in}/pinned@{pinned}"),
                pinned,
            ),
            (
                format!("{one}/pinned:v1@{pinned}"),
                format!("{one_in}/pinned:v1@{pinned}"),
                pinned,
            ),
        ] {
            assert_eq!(went(&sent, &image, &to), (path.clone(), digest.to_string()));
            // skopeo takes a tag or a digest.
            let path = path.replace(":v1@", "@");
            assert_eq!(pull(&to, &path), digest, "{path}");
        }
        assert_eq!(pull(&to, &format!("{one_in}/pinned:v1")), pinned);
        let again = relocate(&scratch, file, &to);
        assert_eq!(moved(&again), (0, 0), "{again}");
        assert_eq!(again["images"], sent["images"]);
    }
    // Nothing of the images came into the store, and nothing was left there.
    let left = fs::read_dir(scratch.path("other/store/blobs/sha256")).map_or(0, Iterator::count);
    assert_eq!((left, scratch.list("other/store/partial").len()), (0, 0));
    // The store's image goes the same way.
    let sent = scratch.json(&[
        "push",
        "a:1",
        "--container-images-to",
        &format!("{}/again", theirs.host()),
    ]);
    assert_eq!(sent["images"].as_array().unwrap().len(), 4);

    let config = scratch.path("config");
    let to = format!("{}/mirror", ours.host);
    let arguments = [
        "push",
        "a.tar",
        "--container-images-to",
        &to,
        "--mirror-config",
        &config,
    ];
    let said = scratch.ok(&arguments);
    let line = format!("{one}/team/app:v1 -> {to}/{}/team/app:v1 {app}\n", folder(&one));
    assert_has(&said, &[&line, "pushed 4 container images", &config]);
    let mut hosts = vec![ours.host.clone(), one.clone(), two];
    hosts.sort();
    assert_eq!(scratch.list("config/certs.d"), hosts);
    let printed = scratch.ok(&arguments[..4]);
    for (file, part) in [
        (
            format!("config/certs.d/{one}/hosts.toml"),
            format!("http://{to}/{}", folder(&one)),
        ),
        ("config/registries.yaml".to_owned(), "mirrors:".to_owned()),
    ] {
        let text = support::text(&scratch.read(&file));
        assert_has(&text, &[&part.replacen("/mirror", "/v2/mirror", 1)]);
        assert_has(&printed, &[&text]);
    }
}

#[test]
fn what_cannot_be_sent_is_said_before_anything_is() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    scratch.write("context/x", "x");
    scratch.build("none:1", KUBEFILE, &[]);
    let target = Registry::start(&Setup::default());
    let to = format!("{}/mirror", target.host());
    let said = scratch.fails(2, &["push", "none:1", "--container-images-to", &to]);
    assert_has(&said, &["has no container images inside"]);
    let said = scratch.fails(2, &["push", "none:1", "--container-images-to", "No/Registry"]);
    assert_has(&said, &["is not a registry"]);
    let said = scratch.fails(2, &["push", "none:1", "--mirror-config", "x"]);
    assert_has(&said, &["--container-images-to"]);
    let said = scratch.fails(2, &["push", "none:1", "x:1", "--container-images-to", &to]);
    assert_has(&said, &["cannot be used with"]);

    let upstream = Registry::start(&Setup::default());
    let name = format!("{}/large:v1", upstream.host());
    push(&scratch, &upstream, "large:v1", HERE, &[noise(1, 600_000)]);
    scratch.write("context/imageList", format!("{name}\n"));
    scratch.build("a:1", KUBEFILE, &[]);
    let long = format!("{}/{}", target.host(), "a".repeat(240));
    let said = scratch.fails(2, &["push", "a:1", "--container-images-to", &long]);
    assert_has(&said, &[&name, "can't have a name below"]);
    // A blob of the image is gone from the store.
    let layers = scratch.layers("a:1");
    let layer = layers.iter().find(|layer| layer.paths()[0].ends_with("/data")).unwrap();
    let hex = layer.digest.trim_start_matches("sha256:").to_owned();
    fs::remove_file(scratch.path(&format!("root/store/blobs/sha256/{hex}"))).unwrap();
    let said = scratch.fails(3, &["push", "a:1", "--container-images-to", &to]);
    assert_has(&said, &[&hex]);
    assert!(!target.storage().join("docker/registry/v2/repositories").exists());
}

#[test]
fn an_index_without_its_other_platforms_is_kept_where_it_can_be() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let index = push(&scratch, &upstream, "many:v1", BOTH, &[noise(1, 600_000)]);
    let host = upstream.host();
    let layout = scratch.path("layouts/many-v1");
    let document = support::insides::document(Path::new(&layout), &json!(index.to_string()));
    let manifest: Digest = document["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
    scratch.write("context/imageList", format!("{host}/many:v1\n"));
    scratch.build("tagged:1", KUBEFILE, &[]);
    scratch.write("context/imageList", format!("{host}/many:v1@{index}\n{host}/many:v1\n"));
    scratch.build("pinned:1", KUBEFILE, &[]);
    for image in ["tagged", "pinned"] {
        scratch.ok(&["save", &format!("{image}:1"), "-o", &format!("{image}.tar")]);
    }
    let name = format!("{}/many", folder(&host));

    // Docker's registry takes no such index: the tag gets the platform's manifest, and that is said.
    let theirs = Registry::start(&Setup::default());
    let to = theirs.host();
    let sent = relocate(&scratch, "tagged.tar", &to);
    let (path, digest) = went(&sent, &format!("{host}/many:v1"), &to);
    assert_eq!((path, digest), (format!("{name}:v1"), manifest.to_string()));
    assert_eq!(sent["images"][0]["index"], index.to_string());
    assert_eq!(pull(&to, &format!("{name}:v1")), manifest);
    assert_eq!(moved(&relocate(&scratch, "tagged.tar", &to)), (0, 0));
    let said = scratch.ok(&["push", "tagged.tar", "--container-images-to", &to]);
    assert_has(&said, &[&format!("{manifest} (its index was {index})")]);

    // A digest can't be another one.
    let other = Registry::start(&Setup::default());
    let to = other.host();
    let said = scratch.fails(3, &["push", "pinned.tar", "--container-images-to", &to]);
    assert_has(
        &said,
        &[
            &format!("{host}/many:v1@{index}"),
            &manifest.to_string(),
            "--allow-sparse",
            "MANIFEST_BLOB_UNKNOWN",
        ],
    );
    assert!(!answers(&to, &format!("{name}@{index}")));
    assert!(
        answers(&to, &format!("{name}:v1")),
        "the one without the digest is there"
    );

    let ours = open_registry(&scratch, "ours", &["--allow-sparse"]);
    for file in ["tagged.tar", "pinned.tar"] {
        let sent = relocate(&scratch, file, &ours.host);
        assert_eq!(sent["images"][0].get("index"), None);
        assert_eq!(pull(&ours.host, &format!("{name}:v1")), index);
    }
    assert_eq!(pull(&ours.host, &format!("{name}@{index}")), index);
}

/// `app1:v1`, `app2:v1` and `app3` by its digest in the ClusterImage `a:1`, each with a layer of 600 kB and one of `size`.
fn three_apps(scratch: &Scratch, size: usize) -> (String, Vec<Digest>) {
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    let mut digests = Vec::new();
    for number in 1..=3 {
        let layers = [noise(number, 600_000), noise(10 + number, size)];
        digests.push(push(scratch, &upstream, &format!("app{number}:v1"), HERE, &layers));
    }
    scratch.write(
        "context/imageList",
        format!("{host}/app1:v1\n{host}/app2:v1\n{host}/app3@{}\n", digests[2]),
    );
    scratch.build("a:1", KUBEFILE, &[]);
    (host, digests)
}

/// Out of ranges of layers, and out of a packed layer that is unpacked once more for the rest of a blob.
#[test]
fn what_is_cut_goes_on_in_the_middle_of_a_blob() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (host, digests) = three_apps(&scratch, 5_000_000);
    // The same images below another one, as a delta that is complete with what the store has.
    scratch.write("context/more", "more");
    scratch.build("a:2", "FROM a:1\nCOPY more etc/\n", &[]);
    scratch.ok(&["save", "a:2", "-o", "delta.tar", "--since", "a:1"]);
    let registry = scratch.path("packed/registry");
    write_registry(&scratch.rootfs("a:1"), Path::new(&registry));
    let lock = scratch.rootfs("a:1").file("images.lock");
    scratch.write("packed/images.lock", lock);
    scratch.write("Kubefile", KUBEFILE);
    let arguments = [
        "build",
        "-f",
        "Kubefile",
        "-t",
        "packed:1",
        "--compression",
        "gzip",
        "packed",
    ];
    scratch.ok(&arguments);
    for (number, image) in ["delta.tar", "packed:1"].into_iter().enumerate() {
        let ours = open_registry(&scratch, &format!("ours{number}"), &[]);
        let cuts: Vec<u64> = (1..8).map(|at| at * 1_700_000).collect();
        let relay = Relay::start(ours.host.parse().unwrap(), Duration::ZERO, &cuts);
        let sent = scratch.json(&["push", image, "--container-images-to", &relay.host()]);
        let (blobs, bytes) = moved(&sent);
        assert_eq!(blobs, 6 + 3 + 3, "{sent}");
        // What waits in the buffers of sockets is lost; a blob that begins anew would be more.
        let lost = cuts.len() as u64 * (1 << 20);
        assert!(relay.sent() < bytes + bytes / 20 + lost, "{} for {bytes}", relay.sent());
        for (number, digest) in digests.iter().enumerate() {
            let name = format!("{}/app{}@{digest}", folder(&host), number + 1);
            assert_eq!(pull(&ours.host, &name), *digest);
        }
    }
    let said = scratch.fails(
        3,
        &[
            "--root",
            "other",
            "push",
            "delta.tar",
            "--container-images-to",
            "localhost:1",
        ],
    );
    assert_has(&said, &["a:1"]);
}

/// As sealer makes them: all of the registry in one packed layer, without hosts' folders and without a lock.
#[test]
fn images_in_one_packed_layer_are_read_as_a_stream() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (host, digests) = three_apps(&scratch, 400_000);
    let registry = scratch.path("packed/registry");
    write_registry(&scratch.rootfs("a:1"), Path::new(&registry));
    fs::remove_dir_all(format!("{registry}/docker/registry/v2/repositories/{}", folder(&host))).unwrap();
    scratch.write("Kubefile", KUBEFILE);
    for compression in ["gzip", "none"] {
        let name = format!("packed:{compression}");
        scratch.ok(&[
            "build",
            "-f",
            "Kubefile",
            "-t",
            &name,
            "--compression",
            compression,
            "packed",
        ]);
        let store = Store::open(Path::new(&scratch.path("root"))).unwrap();
        let plain = store.resolve(&name.parse().unwrap()).unwrap().unwrap();
        let mut manifest: Value = serde_json::from_slice(&document(&store, &plain).unwrap()).unwrap();
        let list = |images: &[String]| {
            let images: Vec<Value> = images.iter().map(|image| json!({"image": image})).collect();
            Value::from(Value::from(images).to_string())
        };
        let mut images = vec![
            format!("{host}/app1:v1"),
            format!("{host}/app2:v1"),
            format!("{host}/app3@{}", digests[2]),
        ];
        manifest["annotations"]["sealer.image.container.images"] = list(&images);
        let sealer = store.put(&plain.media_type, manifest.to_string().as_bytes()).unwrap();
        store.tag(Some(&"sealer:1".parse().unwrap()), &sealer).unwrap();
        scratch.ok(&["save", "sealer:1", "-o", "sealer.tar", "--force"]);

        let target = Registry::start(&Setup::default());
        let to = format!("{}/p", target.host());
        let sent = relocate(&scratch, "sealer.tar", &to);
        assert_eq!(moved(&sent).0, 6 + 3 + 3, "{sent}");
        for (number, digest) in digests.iter().enumerate().take(2) {
            let name = format!("{}/app{}:v1", folder(&host), number + 1);
            assert_eq!(pull(&to, &name), *digest);
        }
        assert_eq!(pull(&to, &format!("{}/app3@{}", folder(&host), digests[2])), digests[2]);
        assert_eq!(moved(&relocate(&scratch, "sealer.tar", &to)), (0, 0));

        images.push(format!("{host}/never:v1"));
        manifest["annotations"]["sealer.image.container.images"] = list(&images);
        let broken = store.put(&plain.media_type, manifest.to_string().as_bytes()).unwrap();
        store.tag(Some(&"broken:1".parse().unwrap()), &broken).unwrap();
        let said = scratch.fails(3, &["push", "broken:1", "--container-images-to", &to]);
        assert_has(&said, &[&format!("lists {host}/never:v1")]);
    }
}
