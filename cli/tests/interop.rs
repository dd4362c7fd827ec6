//! Images as other tools make them, moved by sealrs and bundled into a ClusterImage, and read again by other tools.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use flate2::write::GzEncoder;
use sealrs_image::digest::Digest;
use sealrs_image::spec::{Descriptor, Index, media_type};
use sealrs_registry::layout::blob_data;
use sealrs_registry::links::{StoredImage, link_files};
use serde_json::{Value, json};
use support::http::{Response, Server};
use support::images::{Served, pull, serve, write_registry};
use support::insides;
use support::registry::{Registry, Setup};
use support::{Scratch, assert_has, fail, needs, needs_root, noise, run, succeed};

const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const DOCKER_LAYER: &str = media_type::DOCKER_LAYER_GZIP;

/// An OCI layout that is filled by hand.
struct Layout {
    folder: String,
    members: Vec<Descriptor>,
}

impl Layout {
    fn new(scratch: &Scratch) -> Self {
        let folder = scratch.path("made");
        fs::create_dir_all(Path::new(&folder).join("blobs/sha256")).unwrap();
        fs::write(
            Path::new(&folder).join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        Self {
            folder,
            members: Vec::new(),
        }
    }

    fn put(&self, kind: &str, bytes: &[u8]) -> Descriptor {
        let blob = Descriptor::of(kind, bytes);
        fs::write(
            Path::new(&self.folder).join("blobs/sha256").join(blob.digest.hex()),
            bytes,
        )
        .unwrap();
        blob
    }

    /// A manifest and its config, of which `kinds` are the media types, with these layers.
    fn image(&self, kinds: [&str; 2], architecture: &str, layers: &[(Descriptor, Digest)]) -> Descriptor {
        let diff_ids: Vec<Digest> = layers.iter().map(|(_, diff_id)| *diff_id).collect();
        let config = json!({"os": "linux", "architecture": architecture, "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.put(kinds[1], config.to_string().as_bytes());
        let layers: Vec<&Descriptor> = layers.iter().map(|(layer, _)| layer).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": kinds[0], "config": config, "layers": layers});
        let mut manifest = self.put(kinds[0], manifest.to_string().as_bytes());
        manifest.platform = Some(format!("linux/{architecture}").parse().unwrap());
        manifest
    }

    fn name(&mut self, tag: &str, mut root: Descriptor) -> Digest {
        root.annotations
            .insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
        let digest = root.digest;
        self.members.push(root);
        let index = serde_json::to_vec(&Index::new(self.members.clone())).unwrap();
        fs::write(Path::new(&self.folder).join("index.json"), index).unwrap();
        digest
    }
}

const OCI: [&str; 2] = [media_type::MANIFEST, media_type::CONFIG];
const DOCKER: [&str; 2] = [media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG];

/// A layer with one file: its tar, packed with gzip, packed with zstd.
fn layer(content: &[u8]) -> [Vec<u8>; 3] {
    let tar = insides::tar(&[("file", content)]);
    let packed = (gzip(&tar), zstd::encode_all(tar.as_slice(), 1).unwrap());
    [tar, packed.0, packed.1]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// Makes images of every kind: their tags and digests.
fn images_of_every_kind(layout: &mut Layout, elsewhere: &str, foreign: &[u8]) -> BTreeMap<&'static str, Digest> {
    let [tar, packed, zstandard] = layer(&noise(1, 400_000));
    let [small_tar, small, _] = layer(b"small");
    let (diff_id, small_diff_id) = (Digest::of(&tar), Digest::of(&small_tar));
    let nothing = vec![0; 1024];
    let mut found = BTreeMap::new();
    let mut add = |layout: &mut Layout, tag: &'static str, root: Descriptor| {
        found.insert(tag, layout.name(tag, root));
    };

    let large = (layout.put(media_type::LAYER_ZSTD, &zstandard), diff_id);
    let image = layout.image(OCI, "amd64", &[large]);
    add(layout, "zstd", image);

    let plain = (layout.put(media_type::LAYER, &tar), diff_id);
    let image = layout.image(OCI, "amd64", &[plain]);
    add(layout, "plain", image);

    // Docker has an empty layer for each instruction that changes no file; a tar without even an end is one too.
    let empty = (
        layout.put(media_type::LAYER_GZIP, &gzip(&nothing)),
        Digest::of(&nothing),
    );
    let zero = (layout.put(media_type::LAYER, b""), Digest::of(b""));
    let image = layout.image(OCI, "amd64", &[empty.clone(), zero, empty]);
    add(layout, "empty", image);
    let image = layout.image(OCI, "amd64", &[]);
    add(layout, "none", image);

    let docker_layers = [
        (layout.put(DOCKER_LAYER, &packed), diff_id),
        (layout.put(DOCKER_LAYER, &small), small_diff_id),
    ];
    let schema2 = layout.image(DOCKER, "amd64", &docker_layers);
    add(layout, "schema2", schema2.clone());
    let other = layout.image(DOCKER, "arm64", &docker_layers[1..]);
    let list = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_LIST, "manifests": [schema2, other]});
    let list = layout.put(media_type::DOCKER_LIST, list.to_string().as_bytes());
    add(layout, "list", list);

    // As BuildKit has it: beside the images something about them that is for no platform.
    let small_layer = (layout.put(media_type::LAYER_GZIP, &small), small_diff_id);
    let (one, two) = (
        layout.image(OCI, "amd64", std::slice::from_ref(&small_layer)),
        layout.image(OCI, "arm64", std::slice::from_ref(&small_layer)),
    );
    let mut statement = layout.put("application/vnd.in-toto+json", b"{}");
    statement
        .annotations
        .insert("in-toto.io/predicate-type".to_owned(), "x".to_owned());
    let mut attestation = layout.image(OCI, "amd64", &[(statement, Digest::of(b"{}"))]);
    attestation.platform = Some("unknown/unknown".parse().unwrap());
    attestation.annotations.insert(
        "vnd.docker.reference.type".to_owned(),
        "attestation-manifest".to_owned(),
    );
    let index = serde_json::to_vec(&Index::new(vec![one, two, attestation])).unwrap();
    let index = layout.put(media_type::INDEX, &index);
    add(layout, "buildkit", index);

    // What may not be passed on lies elsewhere. No place but that has the bytes.
    for (tag, kinds, own, kind) in [
        ("foreign", OCI, media_type::LAYER_GZIP, FOREIGN),
        ("docker-foreign", DOCKER, DOCKER_LAYER, DOCKER_FOREIGN),
    ] {
        let mut away = Descriptor::of(kind, foreign);
        away.urls = vec![format!("{elsewhere}/{tag}")];
        let layers = [
            (layout.put(own, &small), small_diff_id),
            (away, Digest::of(b"unpacked")),
        ];
        let image = layout.image(kinds, "amd64", &layers);
        add(layout, tag, image);
    }
    found
}

/// Writes the folder of a registry that has these images, each under its name (`PATH:TAG`). skopeo would push no
/// Docker image out of an OCI layout.
fn registry_folder(layout: &Layout, images: &BTreeMap<&str, Digest>, name: impl Fn(&str) -> String, folder: &Path) {
    let write = |path: String, content: &[u8]| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let mut all = Vec::new();
    for entry in fs::read_dir(Path::new(&layout.folder).join("blobs/sha256")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        all.push(Digest::of(&bytes));
        write(blob_data(Digest::of(&bytes)), &bytes);
    }
    let stored = images.iter().map(|(tag, root)| StoredImage {
        reference: name(tag).parse().unwrap(),
        root: *root,
        // A registry does not mind a link too many.
        manifests: all.clone(),
        layers: all.clone(),
        referrers: Vec::new(),
    });
    for (path, content) in link_files(&stored.collect::<Vec<_>>()).unwrap() {
        write(path, content.as_bytes());
    }
}

/// A registry with TLS and a user `ops`, for sealrs and skopeo alike: `certs` is the folder with its authority.
struct Guarded {
    registry: Registry,
    certs: String,
    config: String,
}

impl Guarded {
    fn start(scratch: &Scratch, storage: String) -> Self {
        let certs = scratch.path("certs");
        fs::create_dir(&certs).unwrap();
        let script = r#"
            cd "$0"
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=registry \
                -addext subjectAltName=IP:127.0.0.1 -keyout ../server.key -out ca.crt
        "#;
        run("bash", &["-ec", script, &certs]);
        scratch.write("htpasswd", run("htpasswd", &["-Bbn", "ops", "s3cret-word"]));
        let registry = Registry::start(&Setup {
            tls: Some((format!("{certs}/ca.crt").into(), scratch.path("server.key").into())),
            htpasswd: Some(scratch.path("htpasswd").into()),
            storage: Some(storage.into()),
            ..Setup::default()
        });
        let auth = base64::engine::general_purpose::STANDARD.encode("ops:s3cret-word");
        let config = json!({"auths": {registry.host(): {"auth": auth}}}).to_string();
        Self {
            config: scratch.write("docker/config.json", config),
            registry,
            certs,
        }
    }

    /// Has skopeo copy an image from here, as it is.
    fn skopeo_copy(&self, scratch: &Scratch, from: &str, to: &str) {
        let mut command = scratch.command("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests"]);
        command.args(["--authfile", &self.config, "--src-cert-dir", &self.certs]);
        succeed(command.args([from, to]));
    }

    fn sealrs(&self, scratch: &Scratch, arguments: &[&str]) -> Command {
        let mut command = scratch.sealrs(arguments);
        command.env("DOCKER_CONFIG", scratch.path("docker"));
        command
    }
}

/// What a plain registry answers to a name, and the bytes of a blob there.
fn raw(host: &str, name: &str) -> Vec<u8> {
    run(
        "skopeo",
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{host}/{name}"),
        ],
    )
}

fn blob(host: &str, repository: &str, digest: &Digest) -> Vec<u8> {
    let url = format!("http://{host}/v2/{repository}/blobs/{digest}");
    let output = Command::new("curl").args(["-sSf", &url]).output().unwrap();
    assert!(output.status.success(), "{url}: {}", support::text(&output.stderr));
    output.stdout
}

fn empty_registry(scratch: &Scratch, folder: &str) -> Served {
    fs::create_dir(scratch.path(folder)).unwrap();
    serve(scratch, Path::new(&scratch.path(folder)), &["--allow-push"])
}

#[test]
fn images_of_every_kind_are_moved_and_keep_their_digests() {
    needs!("docker-registry", "skopeo", "openssl", "htpasswd", "curl");
    let scratch = Scratch::new();
    let foreign = layer(&noise(4, 300_000))[1].clone();
    let served = foreign.clone();
    let elsewhere = Server::start(move |_| Response::new(200).body(served.clone()));
    let mut layout = Layout::new(&scratch);
    let images = images_of_every_kind(&mut layout, &elsewhere.url(), &foreign);
    let storage = scratch.path("storage");
    registry_folder(&layout, &images, |tag| format!("of/every:{tag}"), Path::new(&storage));
    let guarded = Guarded::start(&scratch, storage);
    let host = guarded.registry.host();
    let (ours, theirs) = (empty_registry(&scratch, "ours"), Registry::start(&Setup::default()));
    let ca = format!("{}/ca.crt", guarded.certs);
    for (tag, digest) in &images {
        let name = format!("{host}/of/every:{tag}");
        // Over TLS and with the password, into the store, into a file, into another store.
        let pull = ["pull", "--all-platforms", "--ca-file", &ca, &name];
        succeed(&mut guarded.sealrs(&scratch, &pull));
        scratch.ok(&["save", &name, "-o", &format!("{tag}.tar")]);
        let loaded = scratch.json(&["--root", "other", "load", "-i", &format!("{tag}.tar")]);
        assert_eq!(loaded[0]["digest"], digest.to_string(), "{tag}");
        let verified = scratch.json(&["--root", "other", "verify"]);
        assert_eq!(verified["faults"], json!([]), "{tag}");

        // From there to a plain registry of either kind, and back over TLS under another name.
        for there in [ours.host.clone(), theirs.host()] {
            let target = format!("{there}/of/every:{tag}");
            scratch.ok(&["--root", "other", "push", &name, &target]);
            assert_eq!(Digest::of(&raw(&there, &format!("of/every:{tag}"))), *digest, "{tag}");
            let into = format!(
                "oci:{}:{tag}",
                scratch.path(&format!("back-{}", there.replace(':', "-")))
            );
            let from = format!("docker://{target}");
            let options = [
                "--insecure-policy",
                "copy",
                "--quiet",
                "--all",
                "--src-tls-verify=false",
            ];
            run("skopeo", &[&options[..], &[&from, &into]].concat());
            if tag.ends_with("foreign") {
                // Brought along, so that it is there where the world is not.
                assert!(blob(&there, "of/every", &Digest::of(&foreign)) == foreign, "{tag}");
            }
        }
        let again = format!("{host}/again/every:{tag}");
        let push = ["push", "--ca-file", &ca, &format!("{tag}.tar"), &again];
        succeed(&mut guarded.sealrs(&scratch, &push));
        let into = format!("dir:{}", scratch.path(&format!("dir-{tag}")));
        guarded.skopeo_copy(&scratch, &format!("docker://{again}"), &into);
        let manifest = scratch.read(&format!("dir-{tag}/manifest.json"));
        assert_eq!(Digest::of(&manifest), *digest, "{tag}");
    }
    let said = fail(
        &mut scratch.sealrs(&["pull", "--ca-file", &ca, &format!("{host}/of/every:zstd")]),
        6,
    );
    assert_has(&said, &[&host, "sealrs login"]);
}

#[test]
fn images_of_every_kind_are_bundled() {
    needs!("docker-registry", "skopeo", "curl");
    let scratch = Scratch::new();
    let foreign = layer(&noise(4, 300_000))[1].clone();
    let served = foreign.clone();
    let elsewhere = Server::start(move |_| Response::new(200).body(served.clone()));
    let mut layout = Layout::new(&scratch);
    let images = images_of_every_kind(&mut layout, &elsewhere.url(), &foreign);
    let storage = scratch.path("storage");
    registry_folder(&layout, &images, |tag| format!("every/{tag}:v1"), Path::new(&storage));
    let upstream = Registry::start(&Setup {
        storage: Some(storage.into()),
        ..Setup::default()
    });
    let names = images.keys().map(|tag| format!("{}/every/{tag}:v1\n", upstream.host()));
    let list: String = names.collect();
    scratch.write("context/imageList", list);
    let kubefile = "FROM scratch\nCOPY . .\n";
    let built = scratch.build("every:1", kubefile, &["--platform", "linux/amd64"]);
    assert_eq!(built.0["containerImages"], images.len());
    drop((upstream, elsewhere));
    let folder = scratch.path("unpacked");
    write_registry(&scratch.rootfs("every:1"), Path::new(&folder));
    let check = |host: &str| {
        for (tag, digest) in &images {
            assert_eq!(pull(host, &format!("every/{tag}:v1")), *digest, "{tag}");
            if tag.ends_with("foreign") {
                let found = blob(host, &format!("every/{tag}"), &Digest::of(&foreign));
                assert!(found == foreign, "{tag}");
            }
        }
    };
    let ours = serve(&scratch, Path::new(&folder), &[]);
    check(&ours.host);
    drop(ours);
    let theirs = Registry::start(&Setup {
        storage: Some(folder.into()),
        ..Setup::default()
    });
    check(&theirs.host());
}

/// What others leave out of a file cannot be loaded from it, and that is told.
#[test]
fn an_archive_without_its_foreign_layer_is_refused_by_name() {
    needs!("skopeo");
    let scratch = Scratch::new();
    let foreign = layer(b"foreign")[1].clone();
    let mut layout = Layout::new(&scratch);
    images_of_every_kind(&mut layout, "https://elsewhere.example.com", &foreign);
    let (from, to) = (
        format!("oci:{}:foreign", layout.folder),
        format!("oci-archive:{}:example.com/foreign:v1", scratch.path("foreign.tar")),
    );
    run("skopeo", &["--insecure-policy", "copy", "--quiet", &from, &to]);
    let said = scratch.fails(3, &["load", "-i", "foreign.tar"]);
    assert_has(
        &said,
        &[
            "foreign.tar",
            &Digest::of(&foreign).to_string(),
            "hint:",
            "elsewhere.example.com",
        ],
    );
    assert_eq!(scratch.json(&["images"]), json!([]));
}

#[test]
fn lists_that_buildah_and_skopeo_made_are_moved_and_bundled() {
    needs!("docker-registry", "skopeo", "buildah");
    needs_root!();
    let scratch = Scratch::new();
    let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    scratch.write("home/.config/containers/policy.json", policy);
    let (storage, state) = (scratch.path("storage"), scratch.path("state"));
    let buildah = |arguments: &[&str]| {
        let own = ["--storage-driver", "vfs", "--root", &storage, "--runroot", &state];
        succeed(scratch.command("buildah").args(own).args(arguments))
            .trim()
            .to_owned()
    };
    let upstream = Registry::start(&Setup::default());
    let host = upstream.host();
    buildah(&["manifest", "create", "many"]);
    for architecture in ["amd64", "arm64"] {
        let container = buildah(&["from", "--quiet", "--arch", architecture, "scratch"]);
        let file = scratch.write(architecture, architecture);
        buildah(&["copy", "--quiet", &container, &file, "/file"]);
        buildah(&["config", "--arch", architecture, &container]);
        buildah(&["commit", "--quiet", "--manifest", "many", &container]);
    }
    for (format, name) in [("oci", "made/oci:v1"), ("v2s2", "made/docker:v1")] {
        let target = format!("docker://{host}/{name}");
        buildah(&[
            "manifest",
            "push",
            "--quiet",
            "--all",
            "--tls-verify=false",
            "--format",
            format,
            "many",
            &target,
        ]);
    }
    // skopeo makes a list of Docker's kind of its own out of an index.
    let (from, to) = (
        format!("docker://{host}/made/oci:v1"),
        format!("docker://{host}/made/skopeo:v1"),
    );
    let options = [
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        "--all",
        "--format",
        "v2s2",
    ];
    let copy = [&["--insecure-policy", "copy", "--quiet"], &options[..], &[&from, &to]].concat();
    run("skopeo", &copy);

    let ours = empty_registry(&scratch, "ours");
    let mut digests = BTreeMap::new();
    for (kind, list) in [
        ("oci", media_type::INDEX),
        ("docker", media_type::DOCKER_LIST),
        ("skopeo", media_type::DOCKER_LIST),
    ] {
        let (name, path) = (format!("{host}/made/{kind}:v1"), format!("made/{kind}:v1"));
        let bytes = raw(&host, &path);
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(document["mediaType"], list, "{kind}");
        let digest = Digest::of(&bytes);
        scratch.ok(&["pull", "--all-platforms", &name]);
        scratch.ok(&["save", &name, "-o", &format!("{kind}.tar")]);
        scratch.ok(&["push", &format!("{kind}.tar"), &format!("{}/{path}", ours.host)]);
        assert_eq!(Digest::of(&raw(&ours.host, &path)), digest, "{kind}");
        assert_eq!(pull(&ours.host, &path), digest, "{kind}");
        digests.insert(path, digest);
    }
    // Each platform unpacks where it belongs.
    for architecture in ["amd64", "arm64"] {
        let source = format!("docker://{}/made/docker:v1", ours.host);
        let container = buildah(&["from", "--quiet", "--arch", architecture, "--tls-verify=false", &source]);
        let mounted = buildah(&["mount", &container]);
        assert_eq!(
            fs::read_to_string(Path::new(&mounted).join("file")).unwrap(),
            architecture
        );
    }
    buildah(&["rm", "--all"]);
    buildah(&["rmi", "--all", "--force"]);

    let list: Vec<String> = digests.keys().map(|path| format!("{host}/{path}\n")).collect();
    scratch.write("context/imageList", list.concat());
    scratch.build(
        "lists:1",
        "FROM scratch\nCOPY imageList manifests/\n",
        &["--platform", "linux/amd64"],
    );
    let folder = scratch.path("unpacked");
    write_registry(&scratch.rootfs("lists:1"), Path::new(&folder));
    let bundled = serve(&scratch, Path::new(&folder), &[]);
    for (path, digest) in &digests {
        assert_eq!(pull(&bundled.host, path), *digest);
    }
}
