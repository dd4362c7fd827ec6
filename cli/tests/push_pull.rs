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
use serde_json::Value;
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
