//! Images of several platforms: built at once, moved whole or in part, run on the one that fits.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealrs_image::platform::Platform;
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::fault_proxy::FaultProxy;
use support::http::{Response, Server};
use support::images::push;
use support::insides::{self, document};
use support::registry::{Registry, Setup};
use support::{Scratch, assert_has, json, needs, noise, succeed};

/// This machine's platform, and one that sorts before it: what comes first in an archive is not for this machine.
fn host_and_other() -> (String, String) {
    let host = Platform::host().to_string();
    let other = if host == "linux/386" { "linux/196" } else { "linux/386" };
    (host, other.to_owned())
}

fn architecture(platform: &str) -> &str {
    platform.split('/').nth(1).unwrap()
}

/// An image of two platforms that share a layer, which comes after each platform's own.
fn build_two(scratch: &Scratch, name: &str) -> Value {
    let (host, other) = host_and_other();
    for platform in [&host, &other] {
        let own = architecture(platform);
        scratch.write(&format!("context/{own}/bin/tool"), format!("for {own}"));
    }
    scratch.write("context/shared", noise(1, 400_000));
    let kubefile = "FROM scratch\n\
        LABEL cluster.alpha.sealer.io/cluster-runtime-type=script\n\
        COPY ${ARCH} .\n\
        COPY shared /\n\
        COPY --chmod=755 <<'init.sh' scripts/runtime/\n#!/bin/bash\necho config > \"$KUBECONFIG\"\ninit.sh\n";
    scratch
        .build(name, kubefile, &["--platform", &format!("{host},{other}")])
        .0
}

fn members(scratch: &Scratch, digest: &Value) -> Vec<Value> {
    let index = document(Path::new(&scratch.path("root/store")), digest);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    index["manifests"].as_array().unwrap().clone()
}

fn rootfs(scratch: &Scratch, image: &str, platform: &str) -> insides::Rootfs {
    let inspected = scratch.json(&["inspect", image, "--platform", platform]);
    insides::merged(&insides::layers(
        Path::new(&scratch.path("root/store")),
        &inspected["manifestv1"],
    ))
}

#[test]
fn two_platforms_become_one_index_and_share_what_is_equal() {
    let scratch = Scratch::new();
    let (host, other) = host_and_other();
    let built = build_two(&scratch, "a:1");
    // Two of each platform's own; the shared ones and the script only once.
    assert_eq!((&built["layersPacked"], &built["layersCached"]), (&json!(4), &json!(2)));
    let digest = &built["digest"];
    let found = members(&scratch, digest);
    let architectures: Vec<&Value> = found.iter().map(|member| &member["platform"]["architecture"]).collect();
    assert_eq!(architectures, [architecture(&other), architecture(&host)]);
    // Four layers, two configs, two manifests, an index.
    assert_eq!(scratch.list("root/store/blobs/sha256").len(), 9);
    for platform in [&host, &other] {
        let own = architecture(platform);
        let inspected = scratch.json(&["inspect", "a:1", "--platform", platform]);
        assert_eq!(inspected["platforms"], json!([other, host]));
        assert_eq!(inspected["ociv1"]["architecture"], own);
        let rootfs = rootfs(&scratch, "a:1", platform);
        assert_eq!(rootfs.file("bin/tool"), format!("for {own}"));
    }
    assert_eq!(
        scratch.json(&["inspect", "a:1"])["ociv1"]["architecture"],
        architecture(&host)
    );
    let rows = scratch.json(&["images"]);
    assert_eq!(rows[0]["platforms"], json!([other, host]));
    assert_eq!((&rows[0]["digest"], &rows[0]["runtime"]), (digest, &json!("script")));
    assert_has(&scratch.ok(&["images"]), &["PLATFORM", &format!("{other},{host}")]);

    // The order does not matter, nor where it was built, nor the cache: what is packed anew is packed once.
    let both = ["--platform", &other, "--platform", &host];
    let again = scratch
        .building("b:1", &support::text(&scratch.read("Kubefile")), &both)
        .output();
    assert!(again.unwrap().status.success());
    assert_eq!(&scratch.json(&["images"])[1]["digest"], digest);
    let kubefile = support::text(&scratch.read("Kubefile"));
    let anew = scratch.build("c:1", &kubefile, &[&both[..], &["--no-cache"]].concat());
    assert_eq!(
        (anew.packed(), anew.cached(), anew.digest()),
        (4, 2, digest.as_str().unwrap())
    );
    let cached = scratch.build("c:1", &kubefile, &both);
    assert_eq!((cached.packed(), cached.cached()), (0, 6));

    // One platform alone is no index, and is the very member.
    let alone = scratch.build("d:1", &kubefile, &["--platform", &other]);
    assert_eq!(alone.digest(), found[0]["digest"].as_str().unwrap());
    assert_eq!(
        scratch.json(&["inspect", "d:1", "--platform", &other])["platforms"],
        json!([other])
    );

    let said = scratch.build_fails(2, &kubefile, &["--platform", &format!("{host},{host}")]);
    assert_has(&said, &["is given twice"]);
}

#[test]
fn bases_lists_and_variables_are_those_of_each_platform() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let platforms = ["linux/amd64", "linux/arm64"];
    let index = push(&scratch, &upstream, "many:v1", &platforms, &[noise(9, 400_000)]);
    let proxy = FaultProxy::start(upstream.address);
    let host = proxy.host();
    let both = ["--platform", "linux/amd64,linux/arm64"];
    scratch.write("context/x", "x");
    let base = format!("{host}/base:1");
    scratch.build(&base, "FROM scratch\nCOPY <<own base/\n$TARGETARCH\nown\n", &both);
    scratch.ok(&["push", &base]);
    scratch.ok(&["rmi", &base]);
    // What has no checksum is something else each time.
    let count = AtomicUsize::new(0);
    let served = Server::start(move |_| Response::new(200).body(count.fetch_add(1, Ordering::Relaxed).to_string()));
    let kubefile = format!(
        "FROM {base}\nARG TARGETARCH\nADD {}/file /\nCOPY <<own own/\n$TARGETPLATFORM\nown\nCOPY <<imageList .\n{host}/many:v1\nimageList\n",
        served.url()
    );
    let before = proxy.passed("").len();
    let built = scratch.build("a:1", &kubefile, &both).0;
    // A tag and a URL mean one thing in all of the build.
    let asked = proxy.passed("").split_off(before).into_iter();
    let asked: Vec<String> = asked.map(|passed| passed.request.target).collect();
    for tag in ["base/manifests/1", "many/manifests/v1"] {
        let count = asked.iter().filter(|target| target.ends_with(tag)).count();
        assert_eq!(count, 1, "{tag}: {asked:?}");
    }
    assert_eq!(served.requests().len(), 1);
    assert_eq!(built["containerImages"], 1);
    for platform in platforms {
        let own = architecture(platform);
        let rootfs = rootfs(&scratch, "a:1", platform);
        assert_eq!(rootfs.file("base/own"), format!("{own}\n"));
        assert_eq!(rootfs.file("own/own"), format!("{platform}\n"));
        assert_eq!(rootfs.file("file"), "0");
        let lock: Value = serde_json::from_str(&rootfs.file("images.lock")).unwrap();
        assert_eq!(lock["images"][0]["digest"], index.to_string());
        assert_eq!(lock["images"][0]["platform"]["architecture"], own);
        let list = &scratch.json(&["inspect", "a:1", "--platform", platform])["containerImageList"];
        assert_eq!(list[0]["platform"]["architecture"], own);
    }
}

#[test]
fn what_fails_for_one_platform_fails_and_names_nothing() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    push(&scratch, &upstream, "one:v1", &["linux/amd64"], &[b"one".to_vec()]);
    push(
        &scratch,
        &upstream,
        "two:v1",
        &["linux/amd64", "linux/s390x"],
        &[b"two".to_vec()],
    );
    let both = ["--platform", "linux/amd64,linux/arm64"];
    scratch.write("context/amd64/x", "x");
    let kubefile = "FROM scratch\nCOPY ${ARCH} .\n";
    let said = scratch.build_fails(3, kubefile, &both);
    assert_has(
        &said,
        &["cannot build for linux/arm64", "Kubefile:2", "`arm64` matches nothing"],
    );
    // What is wrong for all of them is the Kubefile's fault.
    let said = scratch.build_fails(2, "FROM scratch\nCOPPY x .\n", &both);
    assert_has(&said, &["Kubefile:2", "did you mean `COPY`"]);
    assert!(!said.contains("cannot build for"), "{said}");
    for name in ["one", "two"] {
        scratch.write("context/imageList", format!("{}/{name}:v1\n", upstream.host()));
        let said = scratch.build_fails(3, "FROM scratch\nCOPY imageList .\n", &both);
        assert_has(&said, &["cannot build for linux/arm64", "imageList:1"]);
    }
    assert_eq!(scratch.json(&["images"]), json!([]));
    // What has the name keeps it.
    let one = scratch.build(
        "fails:1",
        "FROM scratch\nCOPY amd64 .\n",
        &["--platform", "linux/amd64"],
    );
    scratch.build_fails(3, kubefile, &both);
    assert_eq!(scratch.json(&["images"])[0]["digest"], one.digest());
    // A base that lacks a platform.
    let said = scratch.build_fails(3, "FROM fails:1\nCOPY imageList .\n", &both);
    assert_has(&said, &["cannot build for linux/arm64", "FROM failed", "linux/amd64"]);
    scratch.build(
        "base:1",
        "FROM scratch\nCOPY imageList .\n",
        &["--platform", "linux/amd64,linux/s390x", "--build-mode", "lite"],
    );
    let said = scratch.build_fails(
        3,
        "FROM base:1\nCOPY imageList .\n",
        &[&both[..], &["--pull", "never"]].concat(),
    );
    assert_has(&said, &["cannot use `base:1` as the base"]);
}

#[test]
fn an_index_is_moved_whole_or_in_part_and_removed() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let (host, other) = host_and_other();
    let registry = Registry::start(&Setup::default());
    let name = format!("{}/edge/many:v1", registry.host());
    let built = build_two(&scratch, &name);
    let digest = &built["digest"];

    // By file.
    scratch.ok(&["save", &name, "-o", "a.tar"]);
    let inspected = scratch.json(&["inspect", "a.tar", "--platform", &other]);
    assert_eq!(inspected["platforms"], json!([other, host]));
    let loaded = scratch.json(&["--root", "loaded", "load", "-i", "a.tar"]);
    assert_eq!((&loaded[0]["digest"], &loaded[0]["blobs"]), (digest, &json!(9)));
    assert_has(&scratch.ok(&["--root", "loaded", "verify"]), &["9"]);
    scratch.ok(&["--root", "loaded", "save", &name, "-o", "b.tar"]);
    assert_eq!(scratch.read("a.tar"), scratch.read("b.tar"));

    // By registry: all, and what other tools see there; one by one.
    let pushed = scratch.json(&["push", &name]);
    assert_eq!((&pushed["digest"], &pushed["blobs"]), (digest, &json!(9)));
    let target = format!("docker://{name}");
    let raw = support::run("skopeo", &["inspect", "--raw", "--tls-verify=false", &target]);
    assert_eq!(sealrs_image::digest::Digest::of(&raw).to_string(), *digest);
    for (root, flags, blobs, platforms) in [
        ("all", &["--all-platforms"][..], 9, json!([other, host])),
        (
            "both",
            &["--platform", &format!("{host},{other}")],
            9,
            json!([other, host]),
        ),
        ("host", &[], 6, json!([host])),
        ("other", &["--platform", &other], 6, json!([other])),
    ] {
        let pulled = scratch.json(&[&["--root", root, "pull", &name], flags].concat());
        assert_eq!(
            (&pulled[0]["digest"], &pulled[0]["blobs"]),
            (digest, &json!(blobs)),
            "{root}"
        );
        assert_eq!(
            scratch.json(&["--root", root, "images"])[0]["platforms"],
            platforms,
            "{root}"
        );
    }
    scratch.ok(&["push", "--platform", &other, "a.tar", &format!("{name}-one")]);
    let alone = scratch.json(&["--root", "one", "pull", "--platform", &other, &format!("{name}-one")]);
    assert_eq!(alone[0]["digest"], members(&scratch, digest)[0]["digest"]);

    // What another image uses stays; the rest goes.
    scratch.ok(&["tag", &name, "second:1"]);
    assert_eq!(scratch.json(&["rmi", &name])["blobs"], 0);
    scratch.build("d:1", "FROM scratch\nCOPY shared /\n", &[]);
    assert_eq!(scratch.json(&["prune"])["files"], 0);
    assert_eq!(scratch.json(&["rmi", "second:1"])["blobs"], 8);
    assert_eq!(scratch.rootfs("d:1").paths(), ["shared"]);
}

#[test]
fn the_platform_of_this_host_is_run() {
    needs!("bash");
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    let (host, other) = host_and_other();
    build_two(scratch, "a:1");
    scratch.ok(&["save", "a:1", "-o", "a.tar"]);
    for (image, before) in [("a:1", ""), ("a.tar", ""), ("-", "cat a.tar | ")] {
        let command = cluster.run(image, &[]);
        let words: Vec<&str> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_str().unwrap())
            .collect();
        let line = format!("{before}\"$@\"");
        let mut shell = scratch.command("bash");
        shell.args(["-euo", "pipefail", "-c", &line, "bash"]).args(&words);
        let ran = json(&mut shell);
        assert_eq!(ran["runtime"], "script", "{image}");
        assert_eq!(
            cluster.read("rootfs/bin/tool"),
            format!("for {}", architecture(&host)),
            "{image}"
        );
        succeed(&mut cluster.delete());
    }
    // An image that has no such platform.
    let kubefile = support::text(&scratch.read("Kubefile"));
    scratch.write("context/s390x/x", "");
    scratch.build("b:1", &kubefile, &["--platform", &format!("{other},linux/s390x")]);
    let said = support::fail(&mut cluster.run("b:1", &[]), 3);
    assert_has(&said, &[&format!("has no platform {host}"), &other, "linux/s390x"]);
}
