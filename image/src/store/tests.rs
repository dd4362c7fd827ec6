//! The store on a real disk: names, blobs, resuming, removing, two at once, and no space left.

mod fetch;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::thread;

use super::*;
use crate::copy::{StoreSink, copy};
use crate::layer::{Compression, LayerWriter, single_file};
use crate::progress::Silent;
use crate::source::document;
use crate::spec::{Manifest, media_type};
use crate::testing::{Memory, Tmpfs, again, given, is_root, noise, run_as_nobody};

struct Scratch {
    folder: tempfile::TempDir,
    store: Store,
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    Scratch { folder, store }
}

fn task() -> Task<'static> {
    Task::begin(&Silent, "testing", None)
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// The names of the files in one of the store's folders.
fn files(store: &Store, folder: &str) -> BTreeSet<String> {
    fs::read_dir(store.path().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Puts an image with these layers into the store, without a name.
fn image(store: &Store, layers: &[&[u8]]) -> Descriptor {
    let mut memory = Memory::default();
    let layers = layers
        .iter()
        .map(|layer| (memory.add(media_type::LAYER, *layer), Digest::of(layer)))
        .collect();
    let root = memory.image(layers);
    let sink = StoreSink {
        store,
        root: root.clone(),
        names: Vec::new(),
    };
    copy(&memory, &root, Box::new(sink), 2, &Silent).unwrap();
    root
}

fn layers_of(store: &Store, image: &Descriptor) -> Vec<Digest> {
    let manifest: Manifest = spec::parse(&document(store, image).unwrap(), "manifest").unwrap();
    manifest.layers.iter().map(|layer| layer.digest).collect()
}

#[test]
fn is_an_image_layout() {
    let Scratch { folder, store } = scratch();
    assert_eq!(
        fs::read_to_string(store.path().join("oci-layout")).unwrap(),
        r#"{"imageLayoutVersion":"1.0.0"}"#
    );
    let blob = store.put(media_type::CONFIG, b"{}").unwrap();
    assert_eq!(fs::read(store.blob_path(&blob.digest)).unwrap(), b"{}");
    let mode = fs::metadata(store.blob_path(&blob.digest)).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o644);
    // Opening it again changes nothing.
    let again = Store::open(folder.path()).unwrap();
    assert!(again.has(&blob.digest));
    assert_eq!(again.size(&blob.digest), Some(2));
    assert!(!again.has(&Digest::of(b"other")));
    assert_eq!(files(&store, "partial"), BTreeSet::new());
}

#[test]
fn refuses_to_be_where_something_else_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store"), "a file").unwrap();
    assert!(Store::open(folder.path()).is_err());
    assert_eq!(fs::read(folder.path().join("store")).unwrap(), b"a file");
}

#[test]
fn names_stand_for_one_image_each() {
    let Scratch { folder: _folder, store } = scratch();
    let (one, two) = (image(&store, &[b"one"]), image(&store, &[b"two"]));
    let digest = |text: &str| store.resolve(&name(text)).unwrap().map(|found| found.digest);

    store.tag(Some(&name("a.b/c:1")), &one).unwrap();
    store.tag(Some(&name("a.b/c:2")), &one).unwrap();
    assert_eq!(digest("a.b/c:1"), Some(one.digest));
    assert_eq!(digest("a.b/c:2"), Some(one.digest));
    assert_eq!(digest("a.b/c:3"), None);
    assert_eq!(digest("a.b/d:1"), None);
    // What comes out carries no name, so that it can be given another.
    let found = store.resolve(&name("a.b/c:1")).unwrap().unwrap();
    assert!(found.annotations.is_empty());

    // A name that is given again leaves the image that had it.
    store.tag(Some(&name("a.b/c:1")), &two).unwrap();
    assert_eq!(digest("a.b/c:1"), Some(two.digest));
    assert_eq!(digest("a.b/c:2"), Some(one.digest));

    // A pinned digest has to agree.
    let pinned = |tag: &str, digest: Digest| format!("a.b/c{tag}@{digest}");
    assert_eq!(digest(&pinned(":1", two.digest)), Some(two.digest));
    assert_eq!(digest(&pinned(":1", one.digest)), None);
    assert_eq!(digest(&pinned("", one.digest)), Some(one.digest));

    let listed: Vec<_> = store.list().unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|(name, image)| (name.as_ref().map(ToString::to_string), image.digest))
        .collect();
    assert_eq!(
        listed,
        [
            (Some("a.b/c:1".to_owned()), two.digest),
            (Some("a.b/c:2".to_owned()), one.digest)
        ]
    );
}

#[test]
fn an_image_without_a_name_is_listed_until_it_gets_one() {
    let Scratch { folder: _folder, store } = scratch();
    let one = image(&store, &[b"one"]);
    let listed = || -> Vec<_> {
        let all = store.list().unwrap().into_iter();
        all.map(|(name, image)| (name.map(|name| name.to_string()), image.digest))
            .collect()
    };
    assert_eq!(listed(), [(None, one.digest)]);
    let named = [(Some("a.b/c:1".to_owned()), one.digest)];
    store.tag(Some(&name("a.b/c:1")), &one).unwrap();
    assert_eq!(listed(), named);
    // Coming in once more without a name takes nothing away.
    store.tag(None, &one).unwrap();
    assert_eq!(listed(), named);
    assert_eq!(store.resolve_prefix(&one.digest.short()).unwrap(), [one]);
    assert_eq!(store.resolve_prefix("ffffffff").unwrap(), []);
}

#[test]
fn removing_a_name_keeps_what_others_need() {
    let Scratch { folder: _folder, store } = scratch();
    let one = image(&store, &[b"shared", b"only in one"]);
    let two = image(&store, &[b"shared", b"only in two"]);
    store.tag(Some(&name("x/one:1")), &one).unwrap();
    store.tag(Some(&name("x/one:2")), &one).unwrap();
    store.tag(Some(&name("x/two:1")), &two).unwrap();
    let before = files(&store, "blobs/sha256");
    assert_eq!(before.len(), 7, "3 layers, 2 configs, 2 manifests");

    // Another name is left, so nothing goes.
    let collected = store.remove(&one, Some(&name("x/one:1"))).unwrap();
    assert_eq!(collected, Collected::default());
    assert_eq!(files(&store, "blobs/sha256"), before);

    let collected = store.remove(&one, Some(&name("x/one:2"))).unwrap();
    assert_eq!(collected.files, 3);
    assert!(!store.has(&Digest::of(b"only in one")));
    assert!(!store.has(&one.digest));
    for layer in layers_of(&store, &two) {
        assert!(store.has(&layer), "{layer} of the other image is gone");
    }

    // By digest: all names at once.
    store.tag(Some(&name("x/two:2")), &two).unwrap();
    let collected = store.remove(&two, None).unwrap();
    assert_eq!(collected.files, 4);
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(files(&store, "blobs/sha256"), BTreeSet::new());
}

#[test]
fn a_damaged_image_can_be_removed() {
    let Scratch { folder: _folder, store } = scratch();
    let (one, two) = (image(&store, &[b"one"]), image(&store, &[b"two"]));
    fs::remove_file(store.blob_path(&one.digest)).unwrap();
    // While it is there, nobody knows what it needs: nothing may go.
    let error = store.prune().unwrap_err();
    assert!(format!("{error:?}").contains(&one.digest.to_string()));
    assert!(store.has(&Digest::of(b"one")));
    store.remove(&one, None).unwrap();
    assert_eq!(store.list().unwrap(), [(None, two.clone())]);
    store.prune().unwrap();
    assert!(!store.has(&Digest::of(b"one")));
    assert!(store.has(&Digest::of(b"two")));
}

#[test]
fn prune_removes_what_nothing_reaches() {
    let Scratch { folder: _folder, store } = scratch();
    let one = image(&store, &[b"one"]);
    let kept = files(&store, "blobs/sha256");
    store.put(media_type::LAYER, b"orphan").unwrap();
    // Not even the partial copy of a blob that is needed.
    let partial = store.path().join("partial").join(one.digest.hex());
    fs::write(partial, "12345").unwrap();
    fs::write(store.path().join("blobs/sha256/no-digest"), "1").unwrap();
    let collected = store.prune().unwrap();
    assert_eq!(
        collected,
        Collected {
            files: 3,
            bytes: 6 + 5 + 1
        }
    );
    assert_eq!(files(&store, "blobs/sha256"), kept);
    assert_eq!(files(&store, "partial"), BTreeSet::new());
    assert_eq!(store.prune().unwrap(), Collected::default());
    assert_eq!(store.list().unwrap(), [(None, one)]);
}

#[test]
fn an_index_with_a_platform_that_was_not_shipped_is_kept_whole() {
    let Scratch { folder: _folder, store } = scratch();
    let one = image(&store, &[b"one"]);
    store.remove(&one, None).unwrap();
    let one = image(&store, &[b"one"]);
    let absent = Descriptor::of(media_type::MANIFEST, b"elsewhere");
    let index = spec::canonical(&Index::new(vec![absent, one.clone()])).unwrap();
    let index = store.put(media_type::INDEX, &index).unwrap();
    store.tag(Some(&name("x/y:1")), &index).unwrap();
    store.remove(&one, None).unwrap();
    store.prune().unwrap();
    assert!(store.has(&index.digest) && store.has(&one.digest) && store.has(&Digest::of(b"one")));
}

/// A blob that is there but can't be opened must not count as absent, or collecting would take what it names.
#[test]
fn an_unreadable_manifest_is_not_an_absent_one() {
    const NAME: &str = "store::tests::an_unreadable_manifest_is_not_an_absent_one";
    if is_root() && given().is_none() {
        return run_as_nobody(NAME);
    }
    let root = tempfile::tempdir().unwrap();
    let root = given().map_or(root.path().to_owned(), PathBuf::from);
    let store = Store::open(&root).unwrap();
    let one = image(&store, &[b"one"]);
    let index = spec::canonical(&Index::new(vec![one.clone()])).unwrap();
    let index = store.put(media_type::INDEX, &index).unwrap();
    store.tag(Some(&name("x/y:1")), &index).unwrap();
    store.remove(&one, None).unwrap();
    let manifest = store.blob_path(&one.digest);
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(store.prune().unwrap_err().kind(), ErrorKind::Disk);
    assert!(store.has(&Digest::of(b"one")));
}

#[test]
fn nothing_is_removed_while_somebody_holds_the_store() {
    let Scratch { folder: _folder, store } = scratch();
    let one = image(&store, &[b"one"]);
    let first = store.share().unwrap();
    let second = store.share().unwrap();
    for _ in 0..2 {
        let error = store.prune().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.remedy().is_some());
        assert_eq!(store.remove(&one, None).unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert_eq!(store.list().unwrap(), [(None, one)]);
    drop(first);
    assert!(store.prune().is_err());
    drop(second);
    store.prune().unwrap();
}

#[test]
fn nothing_is_removed_while_another_process_holds_the_store() {
    const NAME: &str = "store::tests::nothing_is_removed_while_another_process_holds_the_store";
    if let Some(root) = given() {
        let _held = Store::open(Path::new(&root)).unwrap().share().unwrap();
        println!("\nheld");
        io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let Scratch { folder, store } = scratch();
    let mut child = again(NAME, folder.path().to_str().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    assert_eq!(store.prune().unwrap_err().kind(), ErrorKind::Conflict);
    // A process that dies gives its locks back.
    child.kill().unwrap();
    child.wait().unwrap();
    store.prune().unwrap();
}

#[test]
fn names_given_at_once_are_all_kept() {
    let Scratch { folder: _folder, store } = scratch();
    let one = image(&store, &[b"one"]);
    thread::scope(|scope| {
        for at in 0..8 {
            let (store, one) = (&store, &one);
            scope.spawn(move || store.tag(Some(&name(&format!("x/y:{at}"))), one).unwrap());
        }
    });
    assert_eq!(store.list().unwrap().len(), 8);
}

#[test]
fn what_other_tools_write_into_the_index_is_borne() {
    let Scratch { folder: _folder, store } = scratch();
    // umoci writes null for an empty list.
    fs::write(
        store.path().join("index.json"),
        r#"{"schemaVersion":2,"manifests":null}"#,
    )
    .unwrap();
    assert_eq!(store.list().unwrap(), []);
    let one = image(&store, &[b"one"]);
    assert_eq!(store.list().unwrap(), [(None, one)]);
    fs::write(store.path().join("index.json"), "{").unwrap();
    let error = store.list().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert!(format!("{error:?}").contains("index.json"));
}

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    const NAME: &str = "store::tests::a_full_disk_is_told_and_harms_nothing";
    if given().is_none() {
        // Alone: a child that another test forks keeps removed files, and their room, until it runs its own program.
        return assert!(again(NAME, "").status().unwrap().success());
    }
    let Some(disk) = Tmpfs::mount("2m") else {
        return;
    };
    let store = Store::open(disk.path()).unwrap();
    let one = image(&store, &[b"one"]);
    let told = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Disk);
        assert!(error.remedy().unwrap().starts_with("free some space"), "{error:?}");
    };
    let valid = || {
        assert_eq!(store.list().unwrap(), [(None, one.clone())]);
        assert_eq!(document(&store, &one).unwrap().len() as u64, one.size);
    };

    let bytes = noise(4 << 20, 8);
    told(store.put(media_type::LAYER, &bytes).unwrap_err());
    valid();
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        let mut layer = LayerWriter::new(&store, compression).unwrap();
        let written = layer.write_all(&bytes).or_io(|| "cannot write");
        told(written.and_then(|()| layer.finish().map(drop)).unwrap_err());
        valid();
        // What failed took its file along, and the room with it.
        assert_eq!(files(&store, "partial"), BTreeSet::new());
    }
    let mut memory = Memory::default();
    let blob = memory.add(media_type::LAYER, bytes);
    told(store.fetch(&blob, &memory, &task()).unwrap_err());
    valid();

    // Even the index can't be replaced now, and stays as it was.
    told(store.tag(Some(&name("x/y:1")), &one).unwrap_err());
    valid();

    // With more room the copy goes on where it stopped.
    disk.grow("8m");
    store.fetch(&blob, &memory, &task()).unwrap();
    let offsets = memory.offsets(blob.digest);
    assert!(matches!(offsets.as_slice(), [0, again] if *again > 0), "{offsets:?}");
    store.tag(Some(&name("x/y:1")), &one).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
}
