//! What is built here, read by other tools of the field, and the other way round.
//!
//! An image with everything that a layer may hold goes by way of the store and an archive to skopeo, umoci, buildah and
//! GNU tar; each that unpacks must make the tree that we make.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may panic, and says why it is skipped"
)]

mod image;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealrs_image::archive::{Archive, ArchiveSink, DockerArchiveSink};
use sealrs_image::cluster_image::{ClusterImage, name};
use sealrs_image::copy::{StoreSink, copy};
use sealrs_image::digest::Digest;
use sealrs_image::graph;
use sealrs_image::layer::Compression;
use sealrs_image::layout::{Layout, LayoutSink};
use sealrs_image::platform::Platform;
use sealrs_image::progress::Silent;
use sealrs_image::reference::Reference;
use sealrs_image::rootfs;
use sealrs_image::source::{Source, document};
use sealrs_image::spec::{Descriptor, Manifest, parse};
use sealrs_image::store::Store;

use image::{build, nothing_special};
use tree::{assert_same_trees, tree};

const NAME: &str = "registry.example.com/edge/all:v1.2";

/// A store with one image, and room beside it.
struct Built {
    folder: tempfile::TempDir,
    store: Store,
    root: Descriptor,
}

impl Built {
    fn new(compression: Compression) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("root")).unwrap();
        let root = build(&store, compression);
        Self { folder, store, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Saves the image to `saved.tar`.
    fn save(&self) -> PathBuf {
        let path = self.path("saved.tar");
        let sink = ArchiveSink::create(&path, &self.root, Some(&reference()), true).unwrap();
        copy(&self.store, &self.root, Box::new(sink), 1, &Silent).unwrap();
        path
    }

    /// The tree that we unpack.
    fn our_tree(&self) -> BTreeMap<String, String> {
        let image = ClusterImage::read(&self.store, &self.root, &Platform::host()).unwrap();
        unpacked(&self.store, &image, &self.path("ours"))
    }
}

fn reference() -> Reference {
    NAME.parse().unwrap()
}

fn unpacked(source: &dyn Source, image: &ClusterImage, into: &Path) -> BTreeMap<String, String> {
    fs::create_dir(into).unwrap();
    rootfs::unpack(source, image, into, &Silent).unwrap();
    tree(into)
}

/// Whether a tool is installed; says so if not.
fn has(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok();
    if !there {
        println!("skipped: {tool} is not installed");
    }
    there
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: other tools keep owners and attributes only as root");
    }
    root
}

/// Runs a tool, with the umask that they expect, and gives what it printed.
fn run(arguments: &[&str]) -> String {
    let output = Command::new("sh")
        .args(["-c", "umask 022; exec \"$@\"", "sh"])
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Copies every byte as it is: left alone, skopeo packs plain layers on their way into a layout.
fn skopeo_copy_exactly(from: &str, to: &str) {
    run(&[
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        "--preserve-digests",
        from,
        to,
    ]);
}

#[test]
fn skopeo_reads_the_store_as_it_is() {
    if !has("skopeo") {
        return;
    }
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        let built = Built::new(compression);
        let store = format!("oci:{}:{NAME}", built.store.path().display());
        let raw = run(&["skopeo", "inspect", "--raw", &store]);
        assert_eq!(Digest::of(raw.as_bytes()), built.root.digest);
        let inspected: serde_json::Value = serde_json::from_str(&run(&["skopeo", "inspect", &store])).unwrap();
        assert_eq!(inspected["Digest"], built.root.digest.to_string());
        assert_eq!(inspected["Labels"][name::RUNTIME_TYPE], "script");
        assert_eq!(inspected["Layers"].as_array().unwrap().len(), 4);
    }
}

#[test]
fn skopeo_copies_what_was_saved() {
    if !has("skopeo") {
        return;
    }
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        let built = Built::new(compression);
        let archive = format!("oci-archive:{}", built.save().display());
        let layout = built.path("layout");
        skopeo_copy_exactly(&archive, &format!("oci:{}:x", layout.display()));
        // By its name as well, which is how several images in one archive would be told apart.
        skopeo_copy_exactly(&format!("{archive}:{NAME}"), &format!("oci:{}:y", layout.display()));
        let image = ClusterImage::read(&built.store, &built.root, &Platform::host()).unwrap();
        let blobs = image
            .manifest
            .layers
            .iter()
            .chain([&image.manifest.config, &built.root]);
        for blob in blobs {
            let copied = fs::read(layout.join("blobs/sha256").join(blob.digest.hex())).unwrap();
            assert_eq!(Digest::of(&copied), blob.digest);
        }
    }
}

#[test]
fn archives_by_skopeo_load() {
    if !has("skopeo") {
        return;
    }
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        let built = Built::new(compression);
        let ours = built.our_tree();
        let from = format!("oci:{}:{NAME}", built.store.path().display());
        for kind in ["oci-archive", "docker-archive"] {
            let file = built.path(&format!("{kind}.tar"));
            let to = format!("{kind}:{}:{NAME}", file.display());
            if kind == "docker-archive" && compression == Compression::Zstd {
                continue; // skopeo finds that Docker knows no zstd.
            }
            match kind {
                "oci-archive" => skopeo_copy_exactly(&from, &to),
                _ => drop(run(&["skopeo", "--insecure-policy", "copy", "--quiet", &from, &to])),
            }
            let archive = Archive::open(&file).unwrap();
            let (found, root) = archive.images().first().unwrap();
            assert_eq!(found.as_ref(), Some(&reference()), "{kind}");
            let store = Store::open(&built.path(kind)).unwrap();
            let sink = StoreSink {
                store: &store,
                root: root.clone(),
                names: vec![reference()],
            };
            copy(&archive, root, Box::new(sink), 2, &Silent).unwrap();
            let resolved = store.resolve(&reference()).unwrap().unwrap();
            assert_eq!(resolved.digest, root.digest);
            if kind == "oci-archive" {
                assert_eq!(root.digest, built.root.digest);
            }

            // Docker's kind has no room for annotations, so that is no ClusterImage; its tree is the same.
            let manifest: Manifest = parse(&document(&store, &resolved).unwrap(), kind).unwrap();
            let config = document(&store, &manifest.config).unwrap();
            let image = ClusterImage {
                descriptor: resolved,
                config: parse(&config, kind).unwrap(),
                manifest,
                extension: nothing_special(),
                container_images: Vec::new(),
            };
            let tree = unpacked(&store, &image, &built.path(&format!("{kind}-tree")));
            assert_same_trees(&tree, &ours, kind);
        }
    }
}

/// A layout that skopeo made is read and added to, and skopeo reads both images out of it.
#[test]
fn a_layout_is_shared_with_skopeo() {
    if !has("skopeo") {
        return;
    }
    let (built, other) = (Built::new(Compression::Gzip), Built::new(Compression::Zstd));
    let layout = built.path("layout");
    let to = |tag: &str| format!("oci:{}:{tag}", layout.display());
    skopeo_copy_exactly(&format!("oci-archive:{}", built.save().display()), &to("theirs"));
    let sink = LayoutSink::new(&layout, &other.root, Some("ours")).unwrap();
    copy(&other.store, &other.root, Box::new(sink), 2, &Silent).unwrap();
    for (tag, root) in [("theirs", &built.root), ("ours", &other.root)] {
        let raw = run(&["skopeo", "inspect", "--raw", &to(tag)]);
        assert_eq!(Digest::of(raw.as_bytes()), root.digest, "{tag}");
        let found = Layout::open(&layout).unwrap().find(Some(tag)).unwrap();
        assert_eq!(found.digest, root.digest);
        skopeo_copy_exactly(&to(tag), &format!("oci-archive:{}", built.path(tag).display()));
    }
    // And skopeo adds to one of ours.
    let mine = built.path("mine");
    let sink = LayoutSink::new(&mine, &built.root, Some("a")).unwrap();
    copy(&built.store, &built.root, Box::new(sink), 2, &Silent).unwrap();
    skopeo_copy_exactly(&to("ours"), &format!("oci:{}:b", mine.display()));
    let layout = Layout::open(&mine).unwrap();
    for (tag, root) in [("a", &built.root), ("b", &other.root)] {
        let found = layout.find(Some(tag)).unwrap();
        assert_eq!(found.digest, root.digest);
        assert_eq!(graph::blobs(&layout, &found).unwrap().len(), 6);
    }
}

/// Zstd as well: Docker's kind holds plain tars.
#[test]
fn docker_archives_are_read_by_skopeo_and_buildah() {
    if !has("skopeo") {
        return;
    }
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        let built = Built::new(compression);
        let file = built.path("docker.tar");
        let sink = DockerArchiveSink::create(&file, &built.root, &[reference()], false).unwrap();
        copy(&built.store, &built.root, Box::new(sink), 1, &Silent).unwrap();
        let archive = format!("docker-archive:{}", file.display());
        let inspected: serde_json::Value = serde_json::from_str(&run(&["skopeo", "inspect", &archive])).unwrap();
        assert_eq!(inspected["Labels"][name::RUNTIME_TYPE], "script");
        let layout = built.path("layout");
        let named = format!("{archive}:{NAME}");
        run(&[
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            &named,
            &format!("oci:{}:x", layout.display()),
        ]);
        // The tree that skopeo's copy unpacks to is ours.
        let layout = Layout::open(&layout).unwrap();
        let root = layout.find(Some("x")).unwrap();
        let manifest: Manifest = parse(&document(&layout, &root).unwrap(), "x").unwrap();
        let config = parse(&document(&layout, &manifest.config).unwrap(), "x").unwrap();
        let image = ClusterImage {
            descriptor: root,
            config,
            manifest,
            extension: nothing_special(),
            container_images: Vec::new(),
        };
        let tree = unpacked(&layout, &image, &built.path("tree"));
        assert_same_trees(&tree, &built.our_tree(), "skopeo");
        if has("buildah") && is_root() {
            let (storage, state) = (built.path("storage"), built.path("state"));
            let mut buildah = vec!["buildah", "--storage-driver", "vfs"];
            buildah.extend([
                "--root",
                storage.to_str().unwrap(),
                "--runroot",
                state.to_str().unwrap(),
            ]);
            let policy = built.path("policy.json");
            fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
            buildah.extend([
                "from",
                "--quiet",
                "--signature-policy",
                policy.to_str().unwrap(),
                &archive,
            ]);
            run(&buildah);
        }
    }
}

#[test]
fn umoci_unpacks_the_same_tree() {
    if !has("umoci") || !is_root() {
        return;
    }
    // umoci 0.4 knows no zstd.
    for compression in [Compression::Gzip, Compression::None] {
        let built = Built::new(compression);
        let layout = built.path("layout");
        fs::create_dir(&layout).unwrap();
        let archive = built.save();
        run(&["tar", "-xf", archive.to_str().unwrap(), "-C", layout.to_str().unwrap()]);
        let bundle = built.path("bundle");
        let image = format!("{}:{NAME}", layout.display());
        run(&["umoci", "unpack", "--image", &image, bundle.to_str().unwrap()]);
        assert_same_trees(&tree(&bundle.join("rootfs")), &built.our_tree(), "umoci");
    }
}

#[test]
fn buildah_unpacks_the_same_tree() {
    if !has("buildah") || !is_root() {
        return;
    }
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        let built = Built::new(compression);
        let archive = format!("oci-archive:{}", built.save().display());
        let (storage, state) = (built.path("storage"), built.path("state"));
        let buildah = |arguments: &[&str]| {
            let mut all = vec!["buildah", "--storage-driver", "vfs"];
            all.extend(["--root", storage.to_str().unwrap()]);
            all.extend(["--runroot", state.to_str().unwrap()]);
            all.extend(arguments);
            run(&all).trim().to_owned()
        };
        let policy = built.path("policy.json");
        fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
        let policy = policy.to_str().unwrap();
        let container = buildah(&["from", "--quiet", "--signature-policy", policy, &archive]);
        let mounted = buildah(&["mount", &container]);
        assert_same_trees(&tree(Path::new(&mounted)), &built.our_tree(), "buildah");
        buildah(&["umount", &container]);
        buildah(&["rm", &container]);
    }
}

#[test]
fn gnu_tar_unpacks_the_same_layer() {
    if !is_root() {
        return;
    }
    let built = Built::new(Compression::None);
    let image = ClusterImage::read(&built.store, &built.root, &Platform::host()).unwrap();
    let layer = built.store.blob_path(&image.manifest.layers[0].digest);
    let theirs = built.path("theirs");
    fs::create_dir(&theirs).unwrap();
    let into = theirs.to_str().unwrap();
    let layer = layer.to_str().unwrap();
    run(&["tar", "--xattrs", "--numeric-owner", "-xpf", layer, "-C", into]);
    let mut lowest = image.clone();
    lowest.manifest.layers.truncate(1);
    lowest.config.rootfs.diff_ids.truncate(1);
    let mut ours = unpacked(&built.store, &lowest, &built.path("lowest"));
    let mut theirs = tree(&theirs);
    // What lies between the root and a file that the layer alone tells of is tar's own affair.
    for tree in [&mut ours, &mut theirs] {
        tree.retain(|path, _| !path.starts_with("deep") || path.ends_with('ö'));
    }
    assert_same_trees(&theirs, &ours, "tar");
}
