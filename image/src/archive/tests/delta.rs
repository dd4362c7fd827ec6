//! Archives that lack what another image has.

use super::*;

/// Two images with one layer in common, the newer one without a base in the archive.
struct Two {
    memory: Memory,
    old: Descriptor,
    new: Descriptor,
}

fn two() -> Two {
    let mut memory = Memory::default();
    let mut image = |seeds: &[u64]| {
        let layers = seeds.iter().map(|&seed| {
            let bytes = noise(20_000, seed);
            (memory.add(media_type::LAYER, bytes.clone()), Digest::of(&bytes))
        });
        let layers = layers.collect();
        memory.image(layers)
    };
    let (old, new) = (image(&[1, 2]), image(&[1, 3]));
    Two { memory, old, new }
}

impl Two {
    fn save(&self, scratch: &Scratch) -> Archive {
        let mut delta = Delta::default();
        let name = Some("a.b/old:1".parse().unwrap());
        delta
            .since(&self.memory, &self.new, &self.memory, &self.old, name)
            .unwrap();
        let path = scratch.path("delta.tar");
        let output = Output::file(&path, true).unwrap();
        let sink = ArchiveSink::new(output, &self.new, None, delta).unwrap();
        let copied = copy(&self.memory, &self.new, Box::new(sink), 1, &Silent).unwrap();
        assert_eq!((copied.blobs, copied.skipped), (3, 1));
        Archive::open(&path).unwrap()
    }

    fn load(&self, store: &Store, image: &Descriptor) {
        let sink = StoreSink {
            store,
            root: image.clone(),
            names: Vec::new(),
        };
        copy(&self.memory, image, Box::new(sink), 1, &Silent).unwrap();
    }
}

#[test]
fn it_loads_where_its_base_is_and_says_which_one_it_needs_elsewhere() {
    let scratch = Scratch::new();
    let two = two();
    let archive = two.save(&scratch);
    assert_eq!(archive.bases()[0].digest, two.old.digest);
    // What is said of the archive is not said of the image.
    assert_eq!(archive.images(), [(None, two.new.clone())]);

    let store = Store::open(&scratch.path("root")).unwrap();
    for store in [None, Some(&store)] {
        let error = archive.check_complete(&two.new, store).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let text = format!("{error:?}");
        let needed = format!("needs the image a.b/old:1 ({})", two.old.digest);
        assert!(text.contains(&needed), "{text}");
    }
    two.load(&store, &two.old);
    archive.check_complete(&two.new, Some(&store)).unwrap();
    let (store, copied) = load(&scratch, &archive).unwrap();
    assert_eq!((copied[0].blobs, copied[0].skipped), (3, 1));

    // Without loading: from both together.
    let completed = Completed { archive, store };
    for seed in [1, 3] {
        let layer = Descriptor::of(media_type::LAYER, &noise(20_000, seed));
        let mut bytes = Vec::new();
        completed.open(&layer, 7).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == noise(20_000, seed)[7..]);
    }
}

#[test]
fn a_blob_that_the_base_lost_is_named_with_the_base() {
    let scratch = Scratch::new();
    let two = two();
    let archive = two.save(&scratch);
    let store = Store::open(&scratch.path("root")).unwrap();
    two.load(&store, &two.old);
    let lost = Digest::of(&noise(20_000, 1));
    fs::remove_file(store.blob_path(&lost)).unwrap();
    let error = archive.check_complete(&two.new, Some(&store)).unwrap_err();
    assert!(error.to_string().contains(&lost.to_string()));
    assert!(error.remedy().unwrap().contains("a.b/old:1"), "{error:?}");
}

#[test]
fn a_base_without_anything_in_common_is_not_asked_for() {
    let scratch = Scratch::new();
    let mut two = two();
    let bytes = noise(100, 9);
    let layer = two.memory.add(media_type::LAYER, bytes.clone());
    let other = two.memory.image(vec![(layer, Digest::of(&bytes))]);
    let mut delta = Delta::default();
    for base in [&other, &two.old, &two.old] {
        delta.since(&two.memory, &two.new, &two.memory, base, None).unwrap();
    }
    let bases: Vec<_> = delta.bases().iter().map(|base| base.digest).collect();
    assert_eq!(bases, [two.old.digest]);
    drop(scratch);
}

#[test]
fn nonsense_about_bases_is_refused() {
    let scratch = Scratch::new();
    for bases in ["", "{}", "[{}]", r#"[{\"digest\":\"sha256:x\"}]"#] {
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{}","size":2,"annotations":{{"dev.sealrs.archive.bases":"{bases}"}}}}]}}"#,
            media_type::MANIFEST,
            Digest::of(b"{}")
        );
        let text = failure_of_index(&scratch, &index);
        assert!(text.contains("dev.sealrs.archive.bases"), "{text}");
    }
}

fn failure_of_index(scratch: &Scratch, index: &str) -> String {
    let tar = RawTar::new().file("index.json", index.as_bytes()).end();
    format!("{:?}", Archive::open(&scratch.write(&tar)).unwrap_err())
}
