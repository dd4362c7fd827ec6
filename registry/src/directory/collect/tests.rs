use std::process::{Command, Stdio};
use std::sync::Arc;

use sealrs_image::digest::Digest;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::directory::{Pushed, Upload};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const NOW: Collect = Collect {
    dry_run: false,
    delete_untagged: true,
    grace: Duration::ZERO,
    uploads_expire: Duration::from_secs(3600),
};

fn opened(dir: &TempDir) -> Arc<Directory> {
    let directory = Arc::new(Directory::open(dir.path()).unwrap());
    directory.prepare().unwrap();
    directory
}

fn name() -> Repository {
    "docker.io/team/app".parse().unwrap()
}

fn blob(directory: &Arc<Directory>, text: &str) -> Digest {
    let digest = Digest::of(text.as_bytes());
    let id = Upload::begin(directory, &name()).unwrap();
    let mut upload = Upload::open(directory, &name(), &id, None).unwrap().unwrap();
    upload.append(text.as_bytes()).unwrap();
    upload.finish(&digest.into()).unwrap();
    digest
}

fn push(directory: &Directory, document: &Value, tags: &[&str]) -> Digest {
    let bytes = document.to_string().into_bytes();
    let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    let digest = Digest::of(&bytes);
    let pushed = Pushed {
        digest: digest.into(),
        bytes: &bytes,
        manifest: &Manifest::parse(&bytes, None).unwrap(),
        tags: &tags,
        may_be_sparse: true,
    };
    assert!(directory.push(&name(), &pushed).unwrap().is_none());
    digest
}

/// A manifest with a config and a layer of its own.
fn manifest(directory: &Arc<Directory>, text: &str, subject: Option<Digest>, tags: &[&str]) -> Digest {
    let (config, layer) = (format!("config {text}"), format!("layer {text}"));
    let entry = |text: &str| json!({"mediaType": "x/y", "digest": blob(directory, text), "size": text.len()});
    let mut document =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": entry(&config), "layers": [entry(&layer)]});
    if let Some(subject) = subject {
        document["subject"] = json!({"mediaType": MANIFEST, "digest": subject, "size": 1});
    }
    push(directory, &document, tags)
}

fn index(directory: &Directory, members: &[Digest], tags: &[&str]) -> Digest {
    let size = |digest: &Digest| {
        directory
            .manifest(&name(), &digest.into())
            .unwrap()
            .map_or(9, |it| it.bytes.len())
    };
    let members: Vec<Value> = members
        .iter()
        .map(|digest| json!({"mediaType": MANIFEST, "digest": digest, "size": size(digest)}))
        .collect();
    let document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": members});
    push(directory, &document, tags)
}

/// Whether a manifest is there, which then has to have all of its content but `elsewhere`.
fn is_whole(directory: &Directory, digest: Digest) -> bool {
    let digest = BlobDigest::from(digest);
    let Some(stored) = directory.manifest(&name(), &digest).unwrap() else {
        return false;
    };
    let manifest = Manifest::parse(&stored.bytes, None).unwrap();
    for blob in &manifest.blobs {
        let stored = directory.blob(&name(), &blob.digest).unwrap();
        assert_eq!(
            stored.map(|stored| stored.size),
            Some(blob.size),
            "{} of {digest}",
            blob.digest
        );
    }
    for member in &manifest.members {
        if member.digest != Digest::of(b"elsewhere").into() {
            assert!(
                directory.manifest(&name(), &member.digest).unwrap().is_some(),
                "{}",
                member.digest
            );
        }
    }
    true
}

#[test]
fn what_something_leads_to_stays() {
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let member = manifest(&directory, "member", None, &[]);
    let sparse = index(&directory, &[member, Digest::of(b"elsewhere")], &["v1"]);
    let referrer = manifest(&directory, "referrer", Some(member), &[]);
    let signed = manifest(&directory, "signed", None, &[]);
    let signature = manifest(
        &directory,
        "signature",
        None,
        &[&format!("sha256-{}.sig", signed.hex())],
    );
    let kept = [member, sparse, referrer, signed, signature];
    let alone = manifest(&directory, "alone", None, &[]);
    let unused = blob(&directory, "unused");

    let all_stays = Collect {
        grace: Duration::from_secs(600),
        ..NOW
    };
    assert_eq!(directory.collect(&all_stays).unwrap(), Collected::default());
    let links_stay = Collect {
        delete_untagged: false,
        ..NOW
    };
    let freed = directory
        .collect(&Collect {
            dry_run: true,
            ..links_stay
        })
        .unwrap();
    assert_eq!((freed.manifests, freed.layers), (0, 1));
    assert!(directory.blob(&name(), &unused.into()).unwrap().is_some());
    let freed = directory.collect(&links_stay).unwrap();
    assert_eq!((freed.layers, freed.blobs, freed.bytes), (1, 1, 6));
    assert!(is_whole(&directory, alone));

    let freed = directory.collect(&NOW).unwrap();
    assert_eq!((freed.manifests, freed.layers, freed.blobs), (1, 2, 3));
    assert!(!is_whole(&directory, alone));
    for digest in kept {
        assert!(is_whole(&directory, digest), "{digest}");
    }
    assert_eq!(directory.collect(&NOW).unwrap(), Collected::default());
}

#[test]
fn what_a_client_asked_for_stays() {
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let (asked, other) = (blob(&directory, "asked"), blob(&directory, "other"));
    std::thread::sleep(Duration::from_millis(3100));
    directory.lease(&name(), &asked.into()).unwrap();
    let options = Collect {
        grace: Duration::from_secs(2),
        ..NOW
    };
    directory.collect(&options).unwrap();
    assert!(directory.blob(&name(), &asked.into()).unwrap().is_some());
    assert!(directory.blob(&name(), &other.into()).unwrap().is_none());
}

#[test]
fn a_damaged_manifest_stops_it_before_anything_goes() {
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let damaged = manifest(&directory, "damaged", None, &["v1"]);
    let unused = blob(&directory, "unused");
    std::fs::write(dir.path().join(layout::blob_data(damaged)), b"{}").unwrap();
    assert_eq!(directory.collect(&NOW).unwrap_err().kind(), ErrorKind::Integrity);
    assert!(directory.blob(&name(), &unused.into()).unwrap().is_some());
}

#[test]
fn it_waits_for_who_adds_in_another_place() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (opened(&dir), opened(&dir));
    let adding = one.adding().unwrap();
    let collecting = std::thread::spawn(move || other.collect(&NOW).unwrap());
    std::thread::sleep(Duration::from_millis(200));
    assert!(!collecting.is_finished());
    drop(adding);
    collecting.join().unwrap();
}

const CHILD: &str = "SEALRS_TEST_COLLECT";

/// Not a test of its own: the process that the next one kills.
#[test]
fn child() {
    if let Some(dir) = std::env::var_os(CHILD) {
        Directory::open(dir.as_ref()).unwrap().collect(&NOW).unwrap();
    }
}

#[test]
fn a_kill_leaves_whole_images() {
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let tagged = manifest(&directory, "tagged", None, &["v1"]);
    let mut killed = 0;
    for round in 0..16u64 {
        let mut garbage = Vec::new();
        for number in 0..4 {
            let member = manifest(&directory, &format!("{round} {number}"), None, &[]);
            garbage.extend([index(&directory, &[member], &[]), member]);
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "directory::collect::tests::child"])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1 + round * 4));
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        assert!(is_whole(&directory, tagged));
        for digest in garbage {
            is_whole(&directory, digest);
        }
    }
    assert!(killed > 3, "only {killed} were killed before their end");
    directory.collect(&NOW).unwrap();
    assert!(is_whole(&directory, tagged));
    assert_eq!(directory.collect(&NOW).unwrap(), Collected::default());
}
