//! `push` and `pull` with real registries: what one wrote the other reads, and nothing moves twice.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::time::Duration;

use sealrs_image::digest::Digest;
use sealrs_image::platform::Platform;
use sealrs_image::spec::{Descriptor, media_type};
use serde_json::{Value, json};
use support::images::serve;
use support::registry::{Registry, Setup};
use support::relay::Relay;
use support::{Running, Scratch, assert_has, needs, noise, run, wait_until};

/// 21 MB that do not shrink, in three layers.
fn image(scratch: &Scratch, name: &str) -> String {
    scratch.write("context/large", noise(1, 20 << 20));
    scratch.write("context/middle", noise(2, 1 << 20));
    scratch.write("context/small", "small");
    let kubefile = "FROM scratch\nCOPY large bin/\nCOPY middle lib/\nCOPY small etc/\n";
    scratch.build(name, kubefile, &[]).0["digest"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn number(result: &Value, key: &str) -> u64 {
    result[key].as_u64().unwrap()
}

/// What a registry answers to a name.
fn digest_at(host: &str, name: &str) -> String {
    let target = format!("docker://{host}/{name}");
    Digest::of(&run("skopeo", &["inspect", "--raw", "--tls-verify=false", &target])).to_string()
}

#[test]
fn what_is_pushed_is_there_for_all_and_is_pushed_once() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let host = registry.host();
    let name = format!("{host}/edge/one:v1");
    let digest = image(&scratch, &name);

    let pushed = scratch.json(&["--output", "json", "push", &name]);
    assert_eq!(pushed["digest"], digest.as_str());
    assert_eq!((number(&pushed, "blobs"), number(&pushed, "skipped")), (5, 0));
    let again = scratch.json(&["--output", "json", "push", &name]);
    assert_eq!((number(&again, "blobs"), number(&again, "bytes")), (0, 0));
    assert_eq!(digest_at(&host, "edge/one:v1"), digest);
    assert_eq!(support::images::pull(&host, "edge/one:v1").to_string(), digest);

    // Another repository, from a file.
    scratch.ok(&["save", &name, "-o", "one.tar"]);
    let other = format!("{host}/edge/two:v2");
    let pushed = scratch.json(&["--output", "json", "push", "one.tar", &other]);
    assert_eq!(pushed["digest"], digest.as_str());
    // The manifest alone is sent: the rest the registry takes over from the repository that has it.
    assert_eq!((number(&pushed, "blobs"), number(&pushed, "mounted")), (1, 4));
    assert_eq!(digest_at(&host, "edge/two:v2"), digest);
    assert_eq!(scratch.list("root/store/partial"), Vec::<String>::new());

    // Back again, into another store.
    let pull = |more: &[&str]| {
        let arguments = [&["--root", "other", "--output", "json", "pull"], more, &[&other]].concat();
        scratch.json(&arguments)[0].clone()
    };
    let pulled = pull(&[]);
    assert_eq!((&pulled["digest"], number(&pulled, "blobs")), (&Value::from(digest), 5));
    assert_eq!(number(&pull(&[]), "blobs"), 0);
    drop(registry);
    assert_eq!(pull(&["--policy", "missing"])["asked"], false);
    assert_eq!(pull(&["--policy", "ifnewer"])["asked"], false);
    let said = scratch.fails(5, &["--root", "other", "pull", &other]);
    assert_has(&said, &["cannot connect to", &host]);
    let said = scratch.fails(3, &["--root", "other", "pull", "--policy", "never", "edge/none:v1"]);
    assert_has(&said, &["the store has no image edge/none:v1"]);
    let said = scratch.fails(2, &["push", "one.tar", "edge/one@sha256:0000"]);
    assert_has(&said, &["DESTINATION"]);
}

#[test]
fn a_push_that_is_cut_goes_on_where_it_stopped() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("registry")).unwrap();
    let served = serve(&scratch, scratch.path("registry").as_ref(), &["--allow-push"]);
    let cuts: Vec<u64> = (1..10).map(|at| at * 2_000_000).collect();
    let relay = Relay::start(served.host.parse().unwrap(), Duration::ZERO, &cuts);
    let name = format!("{}/edge/one:v1", relay.host());
    let digest = image(&scratch, &name);
    let pushed = scratch.json(&["--output", "json", "push", &name]);
    assert_eq!(pushed["digest"], digest.as_str());
    let bytes = number(&pushed, "bytes");
    let sent = relay.sent();
    // What was on its way in the relay's and the sockets' buffers when a connection broke is sent again.
    let lost = cuts.len() as u64 * (64 << 10);
    assert!(sent < bytes + bytes / 20 + lost, "{sent} bytes sent for {bytes}");
    let back = scratch.json(&["--root", "other", "--output", "json", "pull", &name]);
    assert_eq!(back[0]["digest"], digest.as_str());
}

#[test]
fn a_killed_push_is_continued_by_the_next_one() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("registry")).unwrap();
    let served = serve(&scratch, scratch.path("registry").as_ref(), &["--allow-push"]);
    let relay = Relay::start(served.host.parse().unwrap(), Duration::from_millis(4), &[]);
    let name = format!("{}/edge/one:v1", relay.host());
    let digest = image(&scratch, &name);
    let first = Running::start(&mut scratch.sealrs(&["--quiet", "push", &name]));
    wait_until("half of it is sent", || relay.sent() > 12 << 20);
    first.kill();
    let before = relay.sent();
    assert!(before < 21 << 20, "it had ended already");
    assert_eq!(scratch.list("root/store/partial").len(), 1);
    let pushed = scratch.json(&["--output", "json", "push", &name]);
    assert_eq!(pushed["digest"], digest.as_str());
    let sent = relay.sent() - before;
    assert!(sent < 12 << 20, "{sent} bytes sent again, after {before}");
    assert_eq!(scratch.list("root/store/partial"), Vec::<String>::new());
    let back = scratch.json(&["--root", "other", "--output", "json", "pull", &name]);
    assert_eq!(back[0]["digest"], digest.as_str());
}

#[test]
fn a_part_of_an_index_is_not_pushed_as_the_whole() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let platforms = ["linux/amd64", "linux/arm64"];
    let digest = support::images::push(&scratch, &registry, "edge/many:v1", &platforms, &[noise(3, 1000)]).to_string();
    let name = format!("{}/edge/many:v1", registry.host());
    scratch.ok(&["pull", "--platform", "linux/amd64", &name]);
    let target = format!("{}/edge/copy:v1", registry.host());
    let said = scratch.fails(3, &["push", &name, &target]);
    assert_has(&said, &["linux/arm64 is missing", "--all-platforms", "--platform"]);
    scratch.ok(&["push", "--platform", "linux/amd64", &name, &target]);
    scratch.ok(&["pull", "--all-platforms", &name]);
    scratch.ok(&["push", &name, &target]);
    assert_eq!(digest_at(&registry.host(), "edge/copy:v1"), digest);
    let said = scratch.fails(3, &["pull", "--platform", "linux/s390x", &name]);
    assert_has(&said, &["has no platform linux/s390x", "linux/amd64, linux/arm64"]);
}

#[test]
fn several_images_are_one_piece_of_work_and_one_failure_is_no_others() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let host = registry.host();
    let shared = noise(5, 3_000_000);
    for (name, own) in [("a", 10), ("b", 11)] {
        let layers = [shared.clone(), noise(own, 1000)];
        support::images::push(
            &scratch,
            &registry,
            &format!("edge/{name}:v1"),
            &["linux/amd64"],
            &layers,
        );
    }
    let [a, b, none] = ["a", "b", "none"].map(|name| format!("{host}/edge/{name}:v1"));
    let mut command = scratch.sealrs(&["--output", "json", "--quiet", "pull", &a, &none, &b]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&Value> = rows.as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, [&Value::from(a.clone()), &Value::from(b.clone())]);
    // Config, own layer and manifest each; the shared layer with the first.
    let moved = |row: usize| (number(&rows[row], "blobs"), number(&rows[row], "skipped"));
    assert_eq!((moved(0), moved(1)), ((4, 0), (3, 1)));
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_has(error["message"].as_str().unwrap(), &["1 of 3 images were not pulled"]);
    assert_has(&error["causes"].to_string(), &[&none]);
    assert_eq!(scratch.json(&["images"]).as_array().unwrap().len(), 2);
    // Nobody was asked, so nothing is said of blobs.
    let said = scratch.ok(&["pull", "--policy", "missing", &a, &b]);
    assert_has(&said, &[&format!("{a} sha256:"), "is in the store"]);
    assert!(!said.contains("blobs"), "{said}");
}

/// As buildx pushes it: an index of one platform and what is attested of it.
#[test]
fn attestations_travel_with_their_platform() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let host = registry.host();
    let own = Platform::host().to_string();
    for (name, platforms) in [("one", vec![own.as_str()]), ("two", vec![own.as_str(), "linux/s390x"])] {
        let digest = attested(&scratch, &registry, name, &platforms);
        let image = format!("{host}/edge/{name}:v1");
        scratch.ok(&["pull", &image]);
        let target = format!("{host}/edge/copy-{name}:v1");
        if platforms.len() == 1 {
            scratch.ok(&["push", &image, &target]);
        } else {
            let said = scratch.fails(3, &["push", &image, &target]);
            assert_has(
                &said,
                &[
                    "linux/s390x is missing",
                    &format!("--platform` ({own})"),
                    "--all-platforms",
                ],
            );
            scratch.ok(&["push", "--platform", &own, &image, &target]);
            scratch.ok(&["pull", "--all-platforms", &image]);
            scratch.ok(&["push", &image, &target]);
        }
        assert_eq!(digest_at(&host, &format!("edge/copy-{name}:v1")), digest);
    }
}

/// Pushes `edge/NAME:v1`, an image for these platforms with an attestation for the first; gives its digest.
fn attested(scratch: &Scratch, registry: &Registry, name: &str, platforms: &[&str]) -> String {
    let folder = scratch.path(name);
    let mut members = Vec::new();
    for (number, platform) in platforms.iter().enumerate() {
        let layers = [noise(20 + number as u64, 1000)];
        support::image::layout(folder.as_ref(), "v1", &[platform], &layers);
        let index: Value = serde_json::from_slice(&scratch.read(&format!("{name}/index.json"))).unwrap();
        members.push(index["manifests"][0].clone());
    }
    let blob = |kind: &str, document: &Value| {
        let bytes = serde_json::to_vec(document).unwrap();
        let descriptor = Descriptor::of(kind, &bytes);
        scratch.write(&format!("{name}/blobs/sha256/{}", descriptor.digest.hex()), &bytes);
        serde_json::to_value(descriptor).unwrap()
    };
    let unknown = json!({"architecture": "unknown", "os": "unknown"});
    let mut config = unknown.clone();
    config["rootfs"] = json!({"type": "layers", "diff_ids": []});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": blob(media_type::CONFIG, &config),
        "layers": [blob("application/vnd.in-toto+json", &json!({"provenance": name}))],
    });
    let mut attestation = blob(media_type::MANIFEST, &manifest);
    attestation["platform"] = unknown;
    attestation["annotations"] = json!({
        "vnd.docker.reference.digest": members[0]["digest"], "vnd.docker.reference.type": "attestation-manifest",
    });
    members.push(attestation);
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": members});
    let mut root = blob(media_type::INDEX, &index);
    root["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    let digest = root["digest"].as_str().unwrap().to_owned();
    let list = json!({"schemaVersion": 2, "manifests": [root]});
    scratch.write(&format!("{name}/index.json"), serde_json::to_vec(&list).unwrap());
    registry.push(&format!("{folder}:v1"), &format!("edge/{name}:v1"));
    digest
}

#[test]
fn a_platform_is_checked_of_an_image_without_an_index() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    let (own, other) = (Platform::host().to_string(), "linux/s390x");
    support::images::push(&scratch, &registry, "edge/one:v1", &[other], &[noise(6, 1000)]);
    let name = format!("{}/edge/one:v1", registry.host());
    let wrong = format!("is for {other}, not for {own}");
    let said = scratch.fails(3, &["pull", "--platform", &own, &name]);
    assert_has(&said, &[&wrong, "leave `--platform` out"]);
    assert_eq!(scratch.json(&["images"]), json!([]));
    // Who asks for none takes what there is.
    scratch.ok(&["pull", &name]);
    scratch.ok(&["pull", "--policy", "never", "--platform", other, &name]);
    scratch.fails(3, &["pull", "--policy", "never", "--platform", &own, &name]);
    let target = format!("{}/edge/copy:v1", registry.host());
    let said = scratch.fails(3, &["push", "--platform", &own, &name, &target]);
    assert_has(&said, &[&wrong]);
    scratch.ok(&["push", "--platform", other, &name, &target]);
}
