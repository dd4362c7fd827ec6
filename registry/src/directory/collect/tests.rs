use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use sealrs_image::digest::Digest;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::directory::{Pushed, Upload, kill};
use crate::name::UploadId;

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
    let (image, gone) = (
        manifest(&directory, "a", None, &[]),
        manifest(&directory, "b", None, &[]),
    );
    std::thread::sleep(Duration::from_millis(3100));
    directory.lease_blob(&name(), &asked.into()).unwrap();
    directory.lease_manifest(&name(), &image.into()).unwrap();
    let options = Collect {
        grace: Duration::from_secs(2),
        ..NOW
    };
    directory.collect(&options).unwrap();
    assert!(directory.blob(&name(), &asked.into()).unwrap().is_some());
    assert!(directory.blob(&name(), &other.into()).unwrap().is_none());
    assert!(is_whole(&directory, image));
    assert!(!is_whole(&directory, gone));
}

#[test]
fn who_asks_for_a_manifest_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let image = manifest(&directory, "a", None, &["v1"]);
    let alone = directory.lock(FlockOperation::LockExclusive).unwrap();
    opened(&dir).lease_manifest(&name(), &image.into()).unwrap();
    drop(alone);
    let removing = directory.removing.write().unwrap();
    directory.lease_manifest(&name(), &image.into()).unwrap();
    drop(removing);
}

#[test]
fn what_a_link_leads_to_stays() {
    // As docker-distribution keeps a blob that was pushed by its sha512.
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let canonical = blob(&directory, "layer");
    let asked = BlobDigest::Sha512([0; 64]).same_of(b"layer");
    let link = dir.path().join(layout::layer_link(&name(), asked));
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    fs::write(&link, canonical.to_string()).unwrap();
    let config = blob(&directory, "config");
    let entry = |digest: &str, size: usize| json!({"mediaType": "x/y", "digest": digest, "size": size});
    let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": entry(&config.to_string(), 6),
        "layers": [entry(&asked.to_string(), 5)]});
    let image = push(&directory, &document, &["v1"]);
    assert_eq!(directory.collect(&NOW).unwrap(), Collected::default());
    assert!(is_whole(&directory, image));

    // A link that cannot be read may lead to anything.
    fs::write(&link, "sha256:").unwrap();
    assert_eq!(directory.collect(&NOW).unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn what_it_does_not_understand_stops_it_before_anything_goes() {
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let image = manifest(&directory, "image", None, &["v1"]);
    let unused = blob(&directory, "unused");
    let home = dir.path().join("docker/registry/v2");
    let (name_folder, elsewhere) = (home.join("repositories/docker.io/team"), home.join("elsewhere"));
    let app = name_folder.join("app");
    let refused = |part: &str| {
        let error = directory.collect(&NOW).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        let text = error.to_string();
        assert!(text.contains(part) && text.contains("nothing was removed"), "{text}");
        assert!(directory.blob(&name(), &unused.into()).unwrap().is_some());
    };
    // Folders that really are elsewhere, from the top to the bottom, among them one of an image that is served.
    for path in [
        name_folder.clone(),
        app.clone(),
        app.join("_layers"),
        app.join("_manifests"),
        app.join("_manifests/tags/v1"),
        app.join(format!("_manifests/revisions/sha256/{}", image.hex())),
        home.join("blobs/sha256"),
        home.join(format!("blobs/sha256/{}/{}", &unused.hex()[..2], unused.hex())),
    ] {
        fs::rename(&path, &elsewhere).unwrap();
        let up = "../".repeat(path.strip_prefix(&home).unwrap().components().count() - 1);
        symlink(format!("{up}elsewhere"), &path).unwrap();
        assert!(is_whole(&directory, image), "{}", path.display());
        refused("is a symbolic link");
        fs::remove_file(&path).unwrap();
        fs::rename(&elsewhere, &path).unwrap();
    }
    for (path, part) in [
        (home.join("repositories/NOT"), "not the name of a repository"),
        (app.join("_other"), "not the name of a repository"),
        (app.join("_manifests/tags/.bad"), "is no tag"),
        (app.join("_manifests/revisions/sha256/abc"), "is no digest"),
        (app.join("_layers/sha384/abc"), "is no digest"),
    ] {
        fs::create_dir_all(&path).unwrap();
        refused(part);
        fs::remove_dir(&path).unwrap();
        let _ = fs::remove_dir(app.join("_layers/sha384"));
    }
    let freed = directory.collect(&NOW).unwrap();
    assert_eq!((freed.layers, freed.blobs), (1, 1));
    assert!(is_whole(&directory, image));
}

#[test]
fn what_a_crash_left_goes_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let image = manifest(&directory, "image", None, &["v1"]);
    let aside = UploadId::random().unwrap();
    let home = dir.path().join("docker/registry/v2");
    let app = home.join("repositories/docker.io/team/app");
    let (revision, blobs) = (app.join("_manifests/revisions/sha256"), home.join("blobs/sha256"));
    let left = [
        revision.join(format!("{}/link.{aside}", image.hex())),
        app.join(format!("_manifests/tags/v1/current/link.{aside}")),
        app.join(format!("_manifests/tags/v2/index/sha256/{}/link", image.hex())),
        app.join(format!("_layers/sha256/{}/link.{aside}", "0".repeat(64))),
        blobs.join(format!("00/{}/data.{aside}", "0".repeat(64))),
    ];
    let stays = revision.join(format!("{}/note", image.hex()));
    for file in left.iter().chain([&stays]) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "x").unwrap();
    }
    let empty = blobs.join(format!("01/{}", "01".repeat(32)));
    fs::create_dir_all(&empty).unwrap();

    let patient = Collect {
        grace: Duration::from_secs(600),
        ..NOW
    };
    assert_eq!(directory.collect(&patient).unwrap(), Collected::default());
    let dry = Collect { dry_run: true, ..NOW };
    let told = directory.collect(&dry).unwrap();
    assert!(left.iter().all(|file| file.exists()) && empty.exists());
    let collected = directory.collect(&NOW).unwrap();
    assert!(collected.leftovers >= 8, "{collected:?}");
    assert_eq!(told.leftovers, collected.leftovers);
    assert!(!left.iter().any(|file| file.exists()) && !empty.exists() && !app.join("_manifests/tags/v2").exists());
    assert!(stays.exists() && is_whole(&directory, image));
    assert_eq!(directory.collect(&NOW).unwrap(), Collected::default());
}

#[test]
fn an_upload_that_somebody_goes_on_with_stays() {
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let (age, id) = (Duration::from_millis(10), Upload::begin(&directory, &name()).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(directory.idle_uploads(age).unwrap(), [(name(), id.clone())]);
    let mut upload = Upload::open(&directory, &name(), &id, None).unwrap().unwrap();
    assert!(!opened(&dir).expire_upload(&name(), &id, age).unwrap(), "it is open");
    upload.append(b"blob").unwrap();
    drop(upload);
    let long = Duration::from_secs(60);
    assert!(!directory.expire_upload(&name(), &id, long).unwrap(), "it just grew");
    std::thread::sleep(Duration::from_millis(50));
    assert!(directory.expire_upload(&name(), &id, age).unwrap());
    assert!(Upload::open(&directory, &name(), &id, None).unwrap().is_none());
}

#[test]
fn a_damaged_manifest_stops_it_before_anything_goes() {
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let damaged = manifest(&directory, "damaged", None, &["v1"]);
    let unused = blob(&directory, "unused");
    fs::write(dir.path().join(layout::blob_data(damaged)), b"{}").unwrap();
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

/// Not a test of its own: the process that the next one kills.
#[test]
fn collecting() {
    if let Some(dir) = kill::dir() {
        Directory::open(&dir).unwrap().collect(&NOW).unwrap();
    }
}

#[test]
fn a_kill_after_any_change_leaves_whole_images() {
    let dir = tempfile::tempdir().unwrap();
    let directory = opened(&dir);
    let tagged = manifest(&directory, "tagged", None, &["v1"]);
    let signature = manifest(&directory, "signature", Some(tagged), &[]);
    let mut changes = 0;
    loop {
        let member = manifest(&directory, "member", None, &[]);
        let referrer = manifest(&directory, "referrer", Some(member), &[]);
        let garbage = [index(&directory, &[member], &[]), member, referrer];
        let unused = blob(&directory, "unused");
        changes += 1;
        let is_done = kill::runs_through("directory::collect::tests::collecting", dir.path(), changes);
        for digest in [tagged, signature] {
            assert!(is_whole(&directory, digest), "killed after {changes} changes");
        }
        for digest in garbage {
            is_whole(&directory, digest);
        }
        if is_done {
            assert!(directory.blob(&name(), &unused.into()).unwrap().is_none());
            break;
        }
        // What is left of it is collected as well.
        if changes % 5 == 0 {
            directory.collect(&NOW).unwrap();
            assert_eq!(directory.collect(&NOW).unwrap(), Collected::default());
        }
    }
    assert!(changes > 20, "it was done after {changes} changes");
}

/// Not a test of its own: the process that the next one kills.
#[test]
fn pushing() {
    if let Some(dir) = kill::dir() {
        let directory = Arc::new(Directory::open(&dir).unwrap());
        directory.prepare().unwrap();
        manifest(&directory, "image", None, &["v1", "latest"]);
    }
}

#[test]
fn a_kill_after_any_change_of_a_push_shows_nothing_half() {
    let mut changes = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        changes += 1;
        let is_done = kill::runs_through("directory::collect::tests::pushing", dir.path(), changes);
        let directory = opened(&dir);
        let check = || {
            for digest in directory.all_blobs().unwrap() {
                if let Some(stored) = directory.content(&digest).unwrap() {
                    assert_eq!(
                        digest.same_of_all(stored.file).unwrap(),
                        digest,
                        "killed after {changes}"
                    );
                }
            }
            for tag in ["v1", "latest"] {
                if let Some(digest) = directory.tag(&name(), &tag.parse().unwrap()).unwrap() {
                    let BlobDigest::Sha256(digest) = digest else {
                        panic!("{digest}")
                    };
                    assert!(is_whole(&directory, digest), "killed after {changes} changes");
                }
            }
        };
        check();
        // The collection takes what is half, and the push can be made again.
        let all = Collect {
            uploads_expire: Duration::ZERO,
            ..NOW
        };
        directory.collect(&all).unwrap();
        check();
        let image = manifest(&directory, "image", None, &["v1", "latest"]);
        assert!(is_whole(&directory, image));
        if is_done {
            break;
        }
    }
    assert!(changes > 30, "it was done after {changes} changes");
}
