//! `sealrs registry serve` takes pushes when it is told to, and not otherwise.

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

use support::images::{pull, serve};
use support::{Scratch, assert_has, image, needs, run};

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
