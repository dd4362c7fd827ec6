//! `sealrs build --mirror`: other registries stand in for the one that an image is named after, on real registries. Names of
//! docker.io are never asked of it here: the proxy that is set for it does not exist.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use support::fault_proxy::{Fault, FaultProxy};
use support::http::Response;
use support::images::push;
use support::registry::{Registry, Setup};
use support::{Scratch, assert_has, fail, needs, noise, succeed};

const HERE: &[&str] = &["linux/amd64"];
const KUBEFILE: &str = "FROM scratch\nCOPY . .\n";

/// A build for which public registries are out of reach.
fn building(scratch: &Scratch, kubefile: &str, more: &[&str]) -> std::process::Command {
    let flags = [&["--platform", "linux/amd64"], more].concat();
    let mut command = scratch.building("x:1", kubefile, &flags);
    command
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env("HTTP_PROXY", "http://127.0.0.1:1");
    command
}

#[test]
fn what_mirrors_have_comes_from_there_under_its_own_name() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (one, two) = (Registry::start(&Setup::default()), Registry::start(&Setup::default()));
    let app = push(&scratch, &one, "hub/library/app:1", HERE, &[noise(1, 300_000)]);
    let tool = push(&scratch, &two, "team/tool:2", HERE, &[noise(2, 300_000)]);
    scratch.write("context/imageList", format!("app:1\nteam/tool:2@{tool}\n"));
    let first = format!("docker.io={}/hub", one.host());
    let second = format!("docker.io={}", two.host());
    let build = |mirrors: &[&str]| {
        let flags: Vec<&str> = mirrors.iter().flat_map(|mirror| ["--mirror", mirror]).collect();
        building(&scratch, KUBEFILE, &flags)
    };
    let said = succeed(&mut build(&[&first, &second]));
    assert_has(&said, &["2 container images"]);
    let lock = scratch.rootfs("x:1").file("images.lock");
    assert_has(
        &lock,
        &[
            "\"docker.io/library/app:1\"",
            &app.to_string(),
            "\"docker.io/team/tool:2@",
        ],
    );
    assert!(!lock.contains(&one.host()), "a mirror leaves no trace: {lock}");

    // Only what no mirror has is asked of docker.io, and mirrors of others are not asked.
    let said = fail(&mut build(&[&second, &first.replace("docker.io=", "quay.io=")]), 5);
    assert_has(&said, &["docker.io/library/app:1"]);
    assert!(!said.contains("cannot resolve docker.io/team/tool"), "{said}");
    let said = fail(&mut build(&["docker.io/library=r.local"]), 2);
    assert_has(&said, &["docker.io=registry.local:5000/dockerhub"]);
}

#[test]
fn what_goes_wrong_with_a_mirror_is_told_and_the_next_one_goes_on() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let origin = Registry::start(&Setup::default());
    push(&scratch, &origin, "team/app:1", HERE, &[noise(1, 3 << 20)]);
    let proxy = FaultProxy::start(origin.address);
    scratch.write("context/imageList", format!("{}/team/app:1\n", origin.host()));
    let mirror = |place: &str| format!("{}={place}", origin.host());

    // One that is not there, one that lacks it, and one that breaks off and does not come back.
    let dead = mirror("127.0.0.1:1");
    let other = Registry::start(&Setup::default());
    let lacking = mirror(&other.host());
    let breaking = mirror(&proxy.host());
    proxy.next("/blobs/", [Fault::Cut(1_000_000)]);
    proxy.always("/blobs/", Fault::Answer(Response::new(503)));
    let flags = [
        "--mirror", &dead, "--mirror", &lacking, "--mirror", &breaking, "--jobs", "1",
    ];
    let mut command = building(&scratch, KUBEFILE, &flags);
    let output = command.output().unwrap();
    let said = support::text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_has(
        &said,
        &[
            "the mirror 127.0.0.1:1 of",
            &format!("the mirror {} of {} was given up", proxy.host(), origin.host()),
        ],
    );
    assert!(
        !said.contains(&format!("the mirror {}", other.host())),
        "what lacks something is not broken: {said}"
    );
    assert!(proxy.body_bytes("/blobs/") >= 1_000_000, "the mirror was asked first");
    // The same comes without mirrors.
    let undisturbed = Scratch::new();
    undisturbed.write("context/imageList", format!("{}/team/app:1\n", origin.host()));
    undisturbed.build("x:1", KUBEFILE, &["--platform", "linux/amd64"]);
    let manifest = |scratch: &Scratch| scratch.json(&["inspect", "x:1"])["manifestv1"].clone();
    assert!(manifest(&scratch)["layers"].is_array());
    assert_eq!(manifest(&scratch), manifest(&undisturbed));
}

#[test]
fn from_takes_its_image_from_a_mirror_too() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let registry = Registry::start(&Setup::default());
    scratch.write("context/file", "of the base");
    let name = format!("{}/hub/edge/base:1", registry.host());
    scratch.build(&name, KUBEFILE, &["--platform", "linux/amd64"]);
    scratch.ok(&["push", &name]);
    scratch.ok(&["rmi", &name]);
    let mirror = format!("docker.io={}/hub", registry.host());
    succeed(&mut building(&scratch, "FROM edge/base:1\n", &["--mirror", &mirror]));
    assert_eq!(scratch.rootfs("x:1").file("file"), "of the base");
}
