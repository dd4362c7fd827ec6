//! What refers to container images comes along with them: cosign's tags, lists of registries that keep them (OCI 1.1), and
//! lists that clients keep under a tag where the registry has none (Debian's). The private registry lists all of it.

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
use std::process::Command;

use sealrs_image::digest::Digest;
use serde_json::{Value, json};
use support::fault_proxy::{Fault, FaultProxy};
use support::http::Response;
use support::images::{Served, answers, push, serve, write_registry};
use support::registry::{Registry, Setup};
use support::{Scratch, assert_has, needs, noise, run, succeed};

const KUBEFILE: &str = "FROM scratch\nCOPY . .\n";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A registry that things are put into by its own interface.
struct Upstream {
    scratch: Scratch,
    host: String,
}

impl Upstream {
    fn curl(&self, arguments: &[&str]) -> String {
        succeed(Command::new("curl").args(["-sSf"]).args(arguments))
    }

    fn blob(&self, repository: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        let file = self.scratch.write("blob", bytes);
        let begun = self.curl(&[
            "-X",
            "POST",
            "-D",
            "-",
            &format!("http://{}/v2/{repository}/blobs/uploads/", self.host),
        ]);
        let location = begun
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .starts_with("location:")
                    .then(|| line[9..].trim().to_owned())
            })
            .unwrap();
        let location = match location.starts_with('/') {
            true => format!("http://{}{location}", self.host),
            false => location,
        };
        let mark = if location.contains('?') { '&' } else { '?' };
        let data = format!("@{file}");
        self.curl(&[
            "-X",
            "PUT",
            "--data-binary",
            &data,
            "-H",
            "Content-Type: application/octet-stream",
            &format!("{location}{mark}digest={digest}"),
        ]);
        json!({"mediaType": "application/octet-stream", "digest": digest, "size": bytes.len()})
    }

    /// Puts a document under a tag, or under its digest.
    fn manifest(&self, repository: &str, tag: Option<&str>, document: &Value) -> Value {
        let bytes = document.to_string();
        let digest = Digest::of(bytes.as_bytes());
        let name = tag.map_or_else(|| digest.to_string(), str::to_owned);
        let kind = document["mediaType"].as_str().unwrap();
        let file = self.scratch.write("document", &bytes);
        self.curl(&[
            "-X",
            "PUT",
            "--data-binary",
            &format!("@{file}"),
            "-H",
            &format!("Content-Type: {kind}"),
            &format!("http://{}/v2/{repository}/manifests/{name}", self.host),
        ]);
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    /// Puts something in that holds `content`, and refers to `subject` if there is one.
    fn refer(&self, repository: &str, subject: Option<&Value>, tag: Option<&str>, content: &[u8]) -> Value {
        let mut config = self.blob(repository, b"{}");
        config["mediaType"] = json!(EMPTY);
        let layer = self.blob(repository, content);
        let mut document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "example/sbom",
            "config": config, "layers": [layer]});
        if let Some(subject) = subject {
            document["subject"] = subject.clone();
        }
        self.manifest(repository, tag, &document)
    }
}

fn digest_of(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}

fn subject(digest: &Digest, kind: &str) -> Value {
    json!({"mediaType": kind, "digest": digest, "size": 7})
}

/// The digests that a registry lists as referring to a manifest.
fn listed(host: &str, repository: &str, digest: &Digest) -> Vec<String> {
    let url = format!("http://{host}/v2/{repository}/referrers/{digest}");
    let list: Value = serde_json::from_slice(&run("curl", &["-sSf", &url])).unwrap();
    let all = list["manifests"].as_array().unwrap().iter();
    all.map(|referrer| referrer["digest"].as_str().unwrap().to_owned())
        .collect()
}

/// Serves the registry data of a built image.
fn served(scratch: &Scratch, name: &str) -> Served {
    let folder = scratch.path("unpacked");
    let _ = fs::remove_dir_all(&folder);
    write_registry(&scratch.rootfs(name), Path::new(&folder));
    serve(scratch, Path::new(&folder), &[])
}

fn lock(scratch: &Scratch) -> Value {
    serde_json::from_str(&scratch.rootfs("x:1").file("images.lock")).unwrap()
}

#[test]
fn signatures_and_lists_of_parts_come_along_and_are_listed() {
    needs!("docker-registry", "skopeo", "curl");
    // Debian's registry knows no referrers: clients keep a list under a tag. Ours keeps them itself.
    for knows_referrers in [false, true] {
        let scratch = Scratch::new();
        let theirs = (!knows_referrers).then(|| Registry::start(&Setup::default()));
        fs::create_dir(scratch.path("ours")).unwrap();
        let ours = knows_referrers.then(|| serve(&scratch, Path::new(&scratch.path("ours")), &["--allow-push"]));
        let host = theirs
            .as_ref()
            .map_or_else(|| ours.as_ref().unwrap().host.clone(), Registry::host);
        let upstream = Upstream {
            scratch: Scratch::new(),
            host: host.clone(),
        };
        let layout = scratch.path("layout");
        support::image::layout(
            Path::new(&layout),
            "v1",
            &["linux/amd64", "linux/arm64"],
            &[noise(1, 300_000)],
        );
        run(
            "skopeo",
            &[
                "copy",
                "--quiet",
                "--all",
                "--dest-tls-verify=false",
                &format!("oci:{layout}:v1"),
                &format!("docker://{host}/app:v1"),
            ],
        );
        let raw = run(
            "skopeo",
            &[
                "inspect",
                "--raw",
                "--tls-verify=false",
                &format!("docker://{host}/app:v1"),
            ],
        );
        let root = Digest::of(&raw);
        let index: Value = serde_json::from_slice(&raw).unwrap();
        let manifest: Digest = digest_of(&index["manifests"][0]);

        // cosign signs the index; a list of parts refers to this platform's manifest, and something to that list.
        let tag = format!("sha256-{}.sig", root.hex());
        let signature = digest_of(&upstream.refer("app", None, Some(&tag), b"a signature"));
        let parts = upstream.refer("app", Some(&subject(&manifest, MANIFEST)), None, &noise(5, 300_000));
        let second = upstream.refer("app", Some(&parts), None, b"signed parts");
        if !knows_referrers {
            for (subject, referrer) in [(manifest, &parts), (digest_of(&parts), &second)] {
                let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [referrer]});
                upstream.manifest("app", Some(&format!("sha256-{}", subject.hex())), &list);
            }
        }
        let (parts, second) = (digest_of(&parts), digest_of(&second));

        scratch.write("context/imageList", format!("{host}/app:v1\n"));
        let build = |more: &[&str]| scratch.build("x:1", KUBEFILE, &[&["--platform", "linux/amd64"], more].concat());
        let built = build(&["--update-lock"]);
        let locked = &lock(&scratch)["images"][0]["referrers"];
        let mut expected = vec![
            json!({"subject": root, "digest": signature, "tag": tag}),
            json!({"subject": manifest, "digest": parts}),
            json!({"subject": parts, "digest": second}),
        ];
        expected.sort_by_key(|entry| entry["subject"].as_str().unwrap().to_owned());
        assert_eq!(*locked, json!(expected), "{knows_referrers}");

        // The private registry has all of it, under both names.
        let registry = served(&scratch, "x:1");
        let folder = format!("{}/app", host.replace(':', "_"));
        for repository in ["app", &folder] {
            assert_eq!(listed(&registry.host, repository, &manifest), [parts.to_string()]);
            assert_eq!(listed(&registry.host, repository, &parts), [second.to_string()]);
            assert_eq!(listed(&registry.host, repository, &root), Vec::<String>::new());
            for name in [format!("{repository}:{tag}"), format!("{repository}@{second}")] {
                assert!(answers(&registry.host, &name), "{name}");
            }
            let content = Digest::of(&noise(5, 300_000));
            let blob = format!("http://{}/v2/{repository}/blobs/{content}", registry.host);
            run("curl", &["-sSf", "-o", &scratch.path("got"), &blob]);
            assert_eq!(Digest::of(&scratch.read("got")), content);
        }
        drop(registry);

        // So has a registry that they are sent to, be it one that keeps lists or one that does not.
        let other = Registry::start(&Setup::default());
        fs::create_dir_all(scratch.path("other")).unwrap();
        let keeps = serve(&scratch, Path::new(&scratch.path("other")), &["--allow-push"]);
        for to in [other.host(), keeps.host.clone()] {
            let send = || scratch.json(&["push", "x:1", "--container-images-to", &format!("{to}/mirror")]);
            let sent = send();
            assert_eq!(
                (&sent["referrers"], sent["images"].as_array().unwrap().len()),
                (&json!(3), 1)
            );
            let repository = format!("mirror/{folder}");
            for name in [format!("{repository}:{tag}"), format!("{repository}@{second}")] {
                assert!(answers(&to, &name), "{name}");
            }
            for (subject, referrer) in [(manifest, parts), (parts, second)] {
                if to == keeps.host {
                    assert_eq!(listed(&to, &repository, &subject), [referrer.to_string()]);
                    continue;
                }
                let list = format!("docker://{to}/{repository}:sha256-{}", subject.hex());
                let list = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &list]);
                let list: Value = serde_json::from_slice(&list).unwrap();
                let expected = json!([{"mediaType": MANIFEST, "digest": referrer, "artifactType": "example/sbom",
                    "size": list["manifests"][0]["size"]}]);
                assert_eq!(list["manifests"], expected);
            }
            assert_eq!(send()["blobs"], 0);
        }
        // A list that somebody else has added to stays.
        let repository = format!("mirror/{folder}");
        let at_other = Upstream {
            scratch: Scratch::new(),
            host: other.host(),
        };
        let more = at_other.refer(&repository, Some(&subject(&manifest, MANIFEST)), None, b"more");
        let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [more]});
        let list_tag = format!("sha256-{}", manifest.hex());
        at_other.manifest(&repository, Some(&list_tag), &list);
        scratch.ok(&[
            "push",
            "x:1",
            "--container-images-to",
            &format!("{}/mirror", other.host()),
        ]);
        let list = format!("docker://{}/{repository}:{list_tag}", other.host());
        let list = support::text(&run("skopeo", &["inspect", "--raw", "--tls-verify=false", &list]));
        assert_has(&list, &[&parts.to_string(), &digest_of(&more).to_string()]);
        drop((other, keeps));

        // The same again, also by the lock; and without.
        assert_eq!(build(&["--frozen"]).digest(), built.digest());
        let without = build(&["--no-referrers"]);
        assert_ne!(without.digest(), built.digest());
        assert_eq!(lock(&scratch)["images"][0].get("referrers"), None);

        // An image on this one keeps them, and a later list adds to them.
        build(&[]);
        scratch.write("context/imageList", format!("{host}/app@{root}\n"));
        scratch.build("y:1", "FROM x:1\nCOPY . .\n", &["--platform", "linux/amd64"]);
        let registry = served(&scratch, "y:1");
        assert_eq!(listed(&registry.host, "app", &manifest), [parts.to_string()]);
        assert!(answers(&registry.host, &format!("app:{tag}")));
        drop(registry);

        // What is pinned needs no registry a second time.
        build(&[]);
        drop((theirs, ours));
        build(&[]);
        assert_eq!(lock(&scratch)["images"][0]["referrers"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn what_can_not_be_had_fails_the_build_and_old_registries_do_not() {
    needs!("docker-registry", "skopeo");
    let scratch = Scratch::new();
    let upstream = Registry::start(&Setup::default());
    let root = push(&scratch, &upstream, "app:v1", &["linux/amd64"], &[b"x".to_vec()]);
    let proxy = FaultProxy::start(upstream.address);
    scratch.write("context/imageList", format!("{}/app:v1\n", proxy.host()));
    let build = || scratch.build("x:1", KUBEFILE, &[]);
    // Whatever an old registry says to a question that it does not know.
    for status in [404, 405, 400, 501] {
        proxy.next("/referrers/", [Fault::Answer(Response::new(status))]);
        build();
    }
    proxy.next(
        "/referrers/",
        [Fault::Answer(Response::new(200).body("<html>hello</html>"))],
    );
    build();
    // A list that names what is not there.
    let gone = Digest::of(b"gone");
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [subject(&gone, MANIFEST)]});
    let answer = Response::new(200).header("Content-Type", INDEX).body(list.to_string());
    proxy.next(&format!("/referrers/{root}"), [Fault::Answer(answer)]);
    let said = scratch.build_fails(3, KUBEFILE, &[]);
    assert_has(
        &said,
        &[
            "imageList:1",
            "cannot take along what refers to",
            &gone.to_string(),
            "--no-referrers",
        ],
    );
    // Of a kind that is none of ours.
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [subject(&gone, "application/x-old")]});
    let answer = Response::new(200).header("Content-Type", INDEX).body(list.to_string());
    proxy.next(&format!("/referrers/{root}"), [Fault::Answer(answer)]);
    let said = succeed(scratch.building("x:1", KUBEFILE, &[]).args(["--output", "json"]));
    assert!(said.contains("digest"), "{said}");
    // A refusal is no answer; who does not ask needs none.
    proxy.always("/referrers/", Fault::Answer(Response::new(403)));
    assert_has(&scratch.build_fails(6, KUBEFILE, &[]), &["what refers to"]);
    scratch.build("x:1", KUBEFILE, &["--no-referrers"]);
}

#[test]
fn a_layout_brings_what_it_has() {
    needs!("docker-registry", "skopeo", "curl");
    let scratch = Scratch::new();
    let theirs = Registry::start(&Setup::default());
    let host = theirs.host();
    let upstream = Upstream {
        scratch: Scratch::new(),
        host: host.clone(),
    };
    let root = push(&scratch, &theirs, "app:v1", &["linux/amd64"], &[b"x".to_vec()]);
    let tag = format!("sha256-{}.sig", root.hex());
    let signature = digest_of(&upstream.refer("app", None, Some(&tag), b"a signature"));
    let layout = scratch.path("brought");
    for tag in ["v1", &tag] {
        run(
            "skopeo",
            &[
                "copy",
                "--quiet",
                "--src-tls-verify=false",
                &format!("docker://{host}/app:{tag}"),
                &format!("oci:{layout}:registry.invalid/app:{tag}"),
            ],
        );
    }
    drop(theirs);
    scratch.write("context/imageList", "registry.invalid/app:v1\n");
    scratch.build("x:1", KUBEFILE, &["--image-source", &layout]);
    let referrers = &lock(&scratch)["images"][0]["referrers"];
    assert_eq!(*referrers, json!([{"subject": root, "digest": signature, "tag": tag}]));
    let registry = served(&scratch, "x:1");
    assert!(answers(&registry.host, &format!("app:{tag}")));
}
