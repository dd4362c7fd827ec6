//! The movers where things go wrong for real: connections cut at any offset, processes killed, disks full, a long way.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sealrs_image::digest::Digest;
use sealrs_image::spec::{Descriptor, media_type};
use sealrs_registry::layout;
use sealrs_registry::links::{StoredImage, link_files};
use serde_json::{Value, json};
use support::fault_proxy::{Fault, FaultProxy};
use support::images::serve;
use support::kills::{killed_at, written_by};
use support::latency::LongWay;
use support::registry::{Registry, Setup};
use support::small_disk::SmallDisk;
use support::{Running, Scratch, assert_has, needs, needs_root, noise, run, wait_until};

/// An image of 45 MB that do not shrink, in four layers. The largest is pulled over several connections.
fn large_image(scratch: &Scratch, name: &str) -> Image {
    scratch.write("context/huge", noise(1, 36 << 20));
    image(scratch, name, "COPY huge srv/\n")
}

/// The same without the largest layer: 7 MB.
fn small_image(scratch: &Scratch, name: &str) -> Image {
    image(scratch, name, "")
}

struct Image {
    digest: String,
    /// All layers and the config.
    bytes: u64,
    /// The largest layer, and its size.
    largest: (String, u64),
}

fn image(scratch: &Scratch, name: &str, more: &str) -> Image {
    scratch.write("context/large", noise(2, 6 << 20));
    scratch.write("context/middle", noise(3, 1 << 20));
    scratch.write("context/small", "small");
    let kubefile = format!("FROM scratch\n{more}COPY large bin/\nCOPY middle lib/\nCOPY small etc/\n");
    let digest = scratch.build(name, &kubefile, &[]).digest().to_owned();
    let manifest = scratch.json(&["inspect", name])["manifestv1"].clone();
    let size = |blob: &Value| blob["size"].as_u64().unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let largest = layers.iter().max_by_key(|layer| size(layer)).unwrap();
    Image {
        digest,
        bytes: layers.iter().map(size).sum::<u64>() + size(&manifest["config"]),
        largest: (largest["digest"].as_str().unwrap().to_owned(), size(largest)),
    }
}

/// Different numbers below `end`, other ones in each run unless `SEALRS_TEST_SEED` names those of an earlier one.
fn random_offsets(count: usize, end: u64) -> BTreeSet<u64> {
    let given = std::env::var("SEALRS_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| std::process::id().into());
    println!("SEALRS_TEST_SEED={seed}");
    let bytes = noise(seed, 16 * count);
    let numbers = bytes
        .chunks(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()) % end);
    let mut found = BTreeSet::new();
    for number in numbers {
        if found.len() < count {
            found.insert(number);
        }
    }
    assert_eq!(found.len(), count);
    found
}

/// The store below `root` has the image, whole, as skopeo finds too.
#[track_caller]
fn check_store(scratch: &Scratch, root: &str, name: &str, image: &Image) {
    let said = scratch.json(&["--root", root, "verify"]);
    assert_eq!(said["faults"], json!([]), "{said}");
    let store = format!("oci:{}:{name}", scratch.path(&format!("{root}/store")));
    let raw = run("skopeo", &["inspect", "--raw", &store]);
    assert_eq!(Digest::of(&raw).to_string(), image.digest);
    let target = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", target.path().display());
    run("skopeo", &["--insecure-policy", "copy", "--quiet", &store, &target]);
}

/// That so many bytes moved for an image is the image, and hardly more.
#[track_caller]
fn assert_near(moved: u64, image: &Image, allowed_more: u64) {
    println!("{moved} bytes moved for {}", image.bytes);
    let most = image.bytes + image.bytes / 20 + allowed_more;
    assert!(
        (image.bytes..=most).contains(&moved),
        "{moved} bytes moved for {}",
        image.bytes
    );
}

const CUTS: usize = 200;

#[test]
fn a_pull_that_is_cut_at_two_hundred_offsets_moves_hardly_more_than_the_image() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let proxy = FaultProxy::start(registry.address);
    let name = format!("{}/edge/one:v1", proxy.host());
    let image = large_image(&scratch, &name);
    scratch.ok(&["push", &name, &format!("{}/edge/one:v1", registry.host())]);
    proxy.cut_answers("/blobs/", random_offsets(CUTS, image.bytes));
    let pulled = scratch.json(&["--root", "other", "pull", &name]);
    assert_eq!(pulled[0]["digest"], image.digest.as_str());
    assert_eq!(proxy.cuts_left(), 0);
    // All bytes of bodies that the proxy gave to the client.
    assert_near(proxy.body_bytes("/blobs/"), &image, 0);
    check_store(&scratch, "other", &name, &image);
}

#[test]
fn a_push_that_is_cut_at_two_hundred_offsets_moves_hardly_more_than_the_image() {
    needs!("skopeo");
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("registry")).unwrap();
    let served = serve(&scratch, scratch.path("registry").as_ref(), &["--allow-push"]);
    let proxy = FaultProxy::start(served.host.parse().unwrap());
    let name = format!("{}/edge/one:v1", proxy.host());
    let image = large_image(&scratch, &name);
    proxy.cut_requests("/blobs/uploads/", random_offsets(CUTS, image.bytes));
    let pushed = scratch.json(&["push", &name]);
    assert_eq!(pushed["digest"], image.digest.as_str());
    assert_eq!(proxy.cuts_left(), 0);
    // All bytes of bodies that the proxy took from the client and gave to the registry. On a real way what lies in the
    // kernels' buffers when a connection breaks comes on top, for each cut; here nobody reads that.
    assert_near(proxy.sent_bytes("/blobs/"), &image, 0);
    assert_eq!(
        support::images::pull(&served.host, "edge/one:v1").to_string(),
        image.digest
    );
    assert_eq!(scratch.list("root/store/partial"), Vec::<String>::new());
}

/// Docker's registry drops an upload whose request was cut: each cut costs what it had of that blob, and no more.
#[test]
fn a_push_to_dockers_registry_that_is_cut_begins_that_blob_again() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let proxy = FaultProxy::start(registry.address);
    let name = format!("{}/edge/one:v1", proxy.host());
    let image = small_image(&scratch, &name);
    let cuts = random_offsets(3, image.bytes);
    proxy.cut_requests("/blobs/uploads/", cuts.iter().copied());
    let pushed = scratch.json(&["push", &name]);
    assert_eq!(pushed["digest"], image.digest.as_str());
    assert_eq!(proxy.cuts_left(), 0);
    assert_near(proxy.sent_bytes("/blobs/"), &image, cuts.len() as u64 * image.largest.1);
    assert_eq!(
        support::images::pull(&registry.host(), "edge/one:v1").to_string(),
        image.digest
    );
}

/// The sizes of files in a folder.
fn bytes_in(scratch: &Scratch, folder: &str) -> u64 {
    let files = fs::read_dir(scratch.path(folder)).into_iter().flatten().flatten();
    files.map(|file| file.metadata().map_or(0, |all| all.len())).sum()
}

#[test]
fn a_killed_pull_is_continued_by_the_next_one() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let proxy = FaultProxy::start(registry.address);
    let name = format!("{}/edge/one:v1", proxy.host());
    let image = large_image(&scratch, &name);
    scratch.ok(&["push", &name, &format!("{}/edge/one:v1", registry.host())]);
    // One connection: several bring what comes later in the blob as well, and what waits in memory is lost.
    let pull = ["--root", "other", "--quiet", "pull", "--jobs", "1", &name];
    let kept = || bytes_in(&scratch, "other/store/partial") + bytes_in(&scratch, "other/store/blobs/sha256");
    for round in 1..=3 {
        proxy.next(&image.largest.0, [Fault::Stall(7_000_000)]);
        let pull = Running::start(&mut scratch.sealrs(&pull));
        // The manifest comes on top of what the proxy counts.
        wait_until("what came is written", || {
            proxy.body_bytes("/blobs/") >= round * 7_000_000 && kept() >= proxy.body_bytes("/blobs/")
        });
        pull.kill();
    }
    scratch.ok(&pull);
    assert_near(proxy.body_bytes("/blobs/"), &image, 0);
    check_store(&scratch, "other", &name, &image);
    assert_eq!(scratch.list("other/store/partial"), Vec::<String>::new());
}

#[test]
fn a_killed_load_is_continued_by_the_next_one() {
    needs!("strace", "taskset", "skopeo");
    let scratch = Scratch::new();
    let name = "example.com/edge/one:v1";
    let image = small_image(&scratch, name);
    scratch.ok(&["save", name, "-o", "one.tar"]);
    let load = ["--root", "other", "load", "-i", "one.tar"];
    assert!(killed_at(&scratch, "write", 20, &load));
    let kept = bytes_in(&scratch, "other/store/partial") + bytes_in(&scratch, "other/store/blobs/sha256");
    assert!(kept > 2 << 20, "{kept} bytes were written before the kill");
    assert_eq!(scratch.json(&["--root", "other", "images"]), json!([]));
    let written = written_by(&scratch, &load);
    println!("{written} bytes written after {kept}, for {}", image.bytes);
    assert!(
        written + kept < image.bytes + image.bytes / 20,
        "{written} after {kept}"
    );
    check_store(&scratch, "other", name, &image);
    assert_eq!(scratch.list("other/store/partial"), Vec::<String>::new());
}

#[test]
fn a_killed_save_is_continued_by_the_next_one() {
    needs!("strace", "taskset");
    let scratch = Scratch::new();
    let name = "example.com/edge/one:v1";
    let image = small_image(&scratch, name);
    for (file, more, partials) in [
        ("one.tar", vec![], vec!["one.tar.partial"]),
        (
            "two.tar",
            vec!["--split", "2MiB"],
            vec!["two.tar.001.partial", "two.tar.002.partial"],
        ),
    ] {
        let save = [&["save", name, "-o", file][..], &more].concat();
        assert!(killed_at(&scratch, "write", 20, &save));
        assert!(!scratch.exists(file) && !scratch.exists(&format!("{file}.001")));
        let kept: u64 = partials.iter().map(|partial| scratch.read(partial).len() as u64).sum();
        assert!(kept > 2 << 20, "{kept} bytes were written before the kill");
        let written = written_by(&scratch, &save);
        println!("{file}: {written} bytes written after {kept}, for {}", image.bytes);
        assert!(
            written + kept < image.bytes + image.bytes / 20,
            "{written} after {kept}"
        );
        let first = if more.is_empty() {
            file.to_owned()
        } else {
            format!("{file}.001")
        };
        let loaded = scratch.json(&["--root", &format!("root-{file}"), "load", "-i", &first]);
        assert_eq!(loaded[0]["digest"], image.digest.as_str());
    }
    scratch.ok(&["save", name, "-o", "whole.tar"]);
    assert_eq!(scratch.read("one.tar"), scratch.read("whole.tar"));
    let left: Vec<String> = scratch
        .list(".")
        .into_iter()
        .filter(|name| name.contains("partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_full_disk_is_told_with_what_is_needed_and_is_no_harm() {
    needs!("docker-registry", "skopeo");
    needs_root!();
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let name = format!("{}/edge/one:v1", registry.host());
    let image = small_image(&scratch, &name);
    scratch.ok(&["push", &name]);
    scratch.ok(&["save", &name, "-o", "one.tar"]);
    let needed = format!("{} MiB", image.bytes.div_ceil(1 << 20));
    for (mover, arguments) in [("pull", vec!["pull", &name]), ("load", vec!["load", "-i", "one.tar"])] {
        let Some(disk) = SmallDisk::mount(&scratch, mover, "4m") else {
            return;
        };
        let root = format!("{mover}/root");
        let arguments = [&["--root", &root][..], &arguments].concat();
        let said = scratch.fails(7, &arguments);
        // What, of which image, where, and how much room it takes. Which of its blobs finds no room first is chance.
        let about = if mover == "pull" { &name } else { "one.tar" };
        assert_has(
            &said,
            &[
                about,
                "cannot copy blob sha256:",
                "/root/store/",
                "space",
                &needed,
                "--root",
            ],
        );
        // The store is a valid one, without the image.
        assert_eq!(scratch.json(&["--root", &root, "images"]), json!([]));
        assert_eq!(scratch.json(&["--root", &root, "verify"])["faults"], json!([]));
        let kept = bytes_in(&scratch, &format!("{root}/store/partial"));
        assert!(kept > 2 << 20, "{kept} bytes kept");
        disk.grow("32m");
        assert!(written_by(&scratch, &arguments) + kept < image.bytes + image.bytes / 20);
        check_store(&scratch, &root, &name, &image);
    }
    let Some(disk) = SmallDisk::mount(&scratch, "save", "4m") else {
        return;
    };
    for more in [&[][..], &["--split", "1MiB"]] {
        let save = [&["save", &name, "-o", "save/one.tar"][..], more].concat();
        disk.grow("4m");
        let said = scratch.fails(7, &save);
        assert_has(
            &said,
            &["save/one.tar", &name, &image.largest.0, "space", &needed, "-o"],
        );
        assert_eq!(scratch.list("save"), Vec::<String>::new());
        disk.grow("32m");
        scratch.ok(&save);
        let first = if more.is_empty() {
            "save/one.tar"
        } else {
            "save/one.tar.001"
        };
        assert_eq!(scratch.json(&["inspect", first])["digest"], image.digest.as_str());
        for file in scratch.list("save") {
            fs::remove_file(scratch.path(&format!("save/{file}"))).unwrap();
        }
    }
}

/// Writes a registry's folder with 40 images of eight small layers, four of which each has in common with nine others.
/// Gives the paths of the images and the digests of everything in them.
fn forty_images(folder: &Path) -> (Vec<String>, BTreeSet<Digest>) {
    let (mut stored, mut all) = (Vec::new(), BTreeSet::new());
    let put = |kind: &str, bytes: &[u8]| {
        let blob = Descriptor::of(kind, bytes);
        let path = folder.join(layout::blob_data(blob.digest));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        blob
    };
    for image in 0..40_u64 {
        let layers: Vec<Descriptor> = (0..8)
            .map(|layer| {
                let owner = if layer < 4 { image % 4 } else { 100 + image };
                put(media_type::LAYER_GZIP, &noise(owner * 8 + layer, 3000))
            })
            .collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
        let config = json!({"os": "linux", "architecture": "amd64", "config": {"Env": [format!("IMAGE={image}")]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = put(media_type::CONFIG, config.to_string().as_bytes());
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers});
        let root = put(media_type::MANIFEST, manifest.to_string().as_bytes()).digest;
        let layers: Vec<Digest> = layers.iter().chain([&config]).map(|blob| blob.digest).collect();
        all.extend(layers.iter().copied());
        stored.push(StoredImage {
            reference: format!("many/image-{image}:v1").parse().unwrap(),
            root,
            manifests: vec![root],
            layers,
            referrers: Vec::new(),
        });
    }
    for (path, content) in link_files(&stored).unwrap() {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let names = stored.iter().map(|image| image.reference.path().to_owned()).collect();
    (names, all)
}

#[test]
fn forty_images_over_a_long_way_come_at_once_and_each_digest_once() {
    needs!("docker-registry");
    let scratch = Scratch::new();
    let folder = scratch.path("upstream");
    let (names, digests) = forty_images(Path::new(&folder));
    let registry = Registry::start(&Setup {
        storage: Some(folder.into()),
        ..Setup::default()
    });
    // 50 ms each way: 100 ms from a request to its answer.
    let build = |jobs: &str| {
        let relay = LongWay::start(registry.address, Duration::from_millis(50));
        let there = Scratch::new();
        let list: Vec<String> = names
            .iter()
            .map(|name| format!("{}/{name}:v1\n", relay.host()))
            .collect();
        there.write("context/imageList", list.concat());
        let began = Instant::now();
        let flags = ["--platform", "linux/amd64", "--jobs", jobs];
        let built = there.build("many:1", "FROM scratch\nCOPY . .\n", &flags);
        let took = began.elapsed();
        assert_eq!(built.0["containerImages"], 40);
        let requests = relay.requests();
        let blobs: Vec<&str> = requests
            .iter()
            .filter_map(|line| line.split(' ').nth(1)?.rsplit_once("/blobs/").map(|(_, digest)| digest))
            .collect();
        let distinct: BTreeSet<Digest> = blobs.iter().map(|digest| digest.parse().unwrap()).collect();
        assert_eq!(distinct, digests);
        assert_eq!(blobs.len(), distinct.len(), "a blob was asked for twice");
        // What may refer to an image is asked for by tags that are made of its digest.
        let is_image = |line: &&String| line.contains("/manifests/") && !line.contains("/manifests/sha256-");
        assert_eq!(
            requests.iter().filter(is_image).count(),
            40,
            "a manifest was asked for twice"
        );
        let asked = || requests.iter().filter(|line| line.contains("sha256"));
        assert_eq!(
            asked().collect::<BTreeSet<_>>().len(),
            asked().count(),
            "something was asked for twice"
        );
        println!("--jobs {jobs}: {took:?}, {} requests", requests.len());
        took
    };
    let one_by_one = build("1").as_secs_f64();
    let mut factor = 0.0;
    // A machine that has other work makes it slower, and never faster.
    for _ in 0..3 {
        factor = one_by_one / build("8").as_secs_f64();
        println!("{factor:.1} times as fast");
        if factor >= 6.0 {
            break;
        }
    }
    assert!(factor >= 6.0, "only {factor:.1} times as fast");
}
