//! `sealrs registry serve` takes pushes when it is told to, and not otherwise; `sealrs registry gc` frees what they leave.

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

use support::images::{answers, pull, serve};
use support::kills::killed_at;
use support::{Scratch, assert_has, image, needs, noise, run, succeed};

#[test]
fn pushing_has_to_be_allowed() {
    needs!("skopeo");
    let scratch = Scratch::new();
    let layout = scratch.path("layout");
    image::layout(Path::new(&layout), "v1", &["linux/amd64"], &[b"layer".to_vec()]);
    let folder = scratch.path("registry");
    fs::create_dir(&folder).unwrap();
    let copy = |host: &str| {
        let mut command = scratch.command("skopeo");
        command.args(["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"]);
        command.args([format!("oci:{layout}:v1"), format!("docker://{host}/team/app:v1")]);
        command
    };

    let closed = serve(&scratch, Path::new(&folder), &[]);
    let (code, said) = support::outcome(&mut copy(&closed.host));
    assert_ne!(code, Some(0), "{said}");
    assert_has(&said, &["this registry is read-only"]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    drop(closed);

    let open = serve(&scratch, Path::new(&folder), &["--allow-push"]);
    let (code, said) = support::outcome(&mut copy(&open.host));
    assert_eq!(code, Some(0), "{said}");
    let digest = pull(&open.host, "team/app:v1");
    drop(open);
    let closed = serve(&scratch, Path::new(&folder), &[]);
    assert_eq!(pull(&closed.host, "team/app:v1"), digest);
    drop(closed);

    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
            {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{}","size":9}}]}}"#,
        "0".repeat(64)
    );
    scratch.write("index.json", index);
    for (flags, status) in [
        (&["--allow-push"][..], "400"),
        (&["--allow-push", "--allow-sparse"], "201"),
    ] {
        let served = serve(&scratch, Path::new(&folder), flags);
        let found = run(
            "curl",
            &[
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-X",
                "PUT",
                "-H",
                "Content-Type: application/vnd.oci.image.index.v1+json",
                "--data-binary",
                &format!("@{}", scratch.path("index.json")),
                &format!("http://{}/v2/team/app/manifests/part", served.host),
            ],
        );
        assert_eq!(String::from_utf8(found).unwrap(), status);
    }
    let said = scratch.fails(2, &["registry", "serve", "--dir", &folder, "--allow-sparse"]);
    assert_has(&said, &["--allow-push"]);
}

#[test]
fn garbage_goes_while_it_serves_and_a_kill_does_no_harm() {
    needs!("skopeo", "curl", "strace");
    let scratch = Scratch::new();
    let folder = scratch.path("registry");
    fs::create_dir(&folder).unwrap();
    let served = serve(&scratch, Path::new(&folder), &["--allow-push"]);
    for (tag, seed) in [("v1", 1), ("v2", 2), ("v3", 3)] {
        let layout = scratch.path(tag);
        let layers = [b"common".to_vec(), noise(seed, 300_000)];
        image::layout(Path::new(&layout), "v1", &["linux/amd64"], &layers);
        let mut copy = scratch.command("skopeo");
        copy.args(["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"]);
        succeed(copy.args([
            format!("oci:{layout}:v1"),
            format!("docker://{}/team/app:{tag}", served.host),
        ]));
    }
    let digest = pull(&served.host, "team/app:v1");
    for tag in ["v2", "v3"] {
        let url = format!("http://{}/v2/team/app/manifests/{tag}", served.host);
        run("curl", &["-fsS", "-X", "DELETE", &url]);
    }
    let gc = |folder: &str, more: &[&str]| {
        let arguments = ["registry", "gc", "--dir", folder, "--delete-untagged"];
        scratch.json(&[&arguments[..], more].concat())
    };
    let young = gc(&folder, &[]);
    assert_eq!(
        (&young["blobs"], &young["manifests"]),
        (&0.into(), &0.into()),
        "{young}"
    );
    let dry = gc(&folder, &["--grace", "0", "--dry-run"]);
    assert_eq!(dry["manifests"], 2, "{dry}");
    drop(served);

    // Killed at each file and folder that it removes, on a copy with a registry that serves it.
    let mut kills = 0;
    loop {
        let copy = scratch.path(&format!("copy-{kills}"));
        succeed(scratch.command("cp").args(["-r", &folder, &copy]));
        let served = serve(&scratch, Path::new(&copy), &["--allow-push"]);
        let arguments = ["registry", "gc", "--dir", &copy, "--delete-untagged", "--grace", "0"];
        let was_killed = killed_at(&scratch, "unlink,unlinkat,rmdir", kills + 1, &arguments);
        assert_eq!(pull(&served.host, "team/app:v1"), digest, "killed at {kills}");
        let again = gc(&copy, &["--grace", "0"]);
        assert_eq!(pull(&served.host, "team/app:v1"), digest, "again after {kills}");
        assert!(!answers(&served.host, "team/app:v2"));
        assert_eq!(gc(&copy, &["--grace", "0"])["blobs"], 0);
        fs::remove_dir_all(&copy).unwrap();
        if !was_killed {
            assert_eq!(again["blobs"], 0, "{again}");
            break;
        }
        kills += 1;
    }
    assert!(kills >= 8, "{kills}");
}
