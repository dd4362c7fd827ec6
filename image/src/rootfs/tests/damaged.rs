//! Layers that are not what their digests, sizes or types say.

use super::*;

fn expect_integrity(result: Result<Footprint>, layer: &Descriptor, words: &str) {
    let error = result.unwrap_err();
    let text = format!("{error:?}");
    assert_eq!(error.kind(), ErrorKind::Integrity, "{text}");
    assert!(text.contains(&layer.digest.to_string()), "{text}");
    assert!(text.contains(words), "{text}");
}

#[test]
fn a_tar_cut_anywhere_is_refused() {
    let tar = ordinary().end();
    // The last two blocks say nothing but that the tar ends.
    for cut in (512..tar.len() - 1024).step_by(512) {
        let whole = tar[..cut].to_vec();
        let result = Scratch::new().unpack(&[whole]);
        // The blob is what its digest says, so a cut between two entries makes a shorter tar, not a broken one.
        if let Err(error) = result {
            assert!(format!("{error:?}").contains("the middle"), "{cut}: {error:?}");
        }
        for kind in [media_type::LAYER, media_type::LAYER_GZIP, media_type::LAYER_ZSTD] {
            let scratch = Scratch::new();
            let mut memory = Memory::default();
            // The image promises the whole layer; the source has only a part of it.
            let layer = memory.add(kind, packed(kind, &tar));
            let root = memory.image(vec![(layer.clone(), Digest::of(&tar))]);
            let image = memory.read(&root);
            memory.ends_at = Some(cut as u64 * layer.size / tar.len() as u64);
            expect_integrity(scratch.unpack_from(&memory, &image), &layer, "");
        }
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let tar = ordinary().file("noise", &noise(2000, 2)).end();
    for kind in [media_type::LAYER, media_type::LAYER_GZIP, media_type::LAYER_ZSTD] {
        let mut memory = Memory::default();
        let layer = memory.add(kind, packed(kind, &tar));
        let root = memory.image(vec![(layer.clone(), Digest::of(&tar))]);
        let image = memory.read(&root);
        for at in (0..usize::try_from(layer.size).unwrap()).step_by(97) {
            let scratch = Scratch::new();
            memory.damage(layer.digest, |bytes| bytes[at] ^= 1 << (at % 8));
            expect_integrity(scratch.unpack_from(&memory, &image), &layer, "");
            memory.damage(layer.digest, |bytes| bytes[at] ^= 1 << (at % 8));
        }
        Scratch::new().unpack_from(&memory, &image).unwrap();
    }
}

#[test]
fn layers_that_are_not_what_the_image_says_are_refused() {
    let tar = ordinary().end();
    let zstd = packed(media_type::LAYER_ZSTD, &tar);
    let unpack = |kind: &str, bytes: &[u8], diff_id: Digest, unpacked: Option<&str>| {
        let mut memory = Memory::default();
        let mut layer = memory.add(kind, bytes);
        if let Some(unpacked) = unpacked {
            layer
                .annotations
                .insert(annotation::UNPACKED.to_owned(), unpacked.to_owned());
        }
        let root = memory.image(vec![(layer.clone(), diff_id)]);
        let result = Scratch::new().unpack_from(&memory, &memory.read(&root));
        (result, layer)
    };
    let right = Digest::of(&tar);
    let wrong = Digest::of(b"something else");
    let refused = |(result, layer): (Result<Footprint>, Descriptor), words: &str| {
        expect_integrity(result, &layer, words);
    };
    refused(
        unpack(media_type::LAYER_ZSTD, &zstd, wrong, None),
        "where the image's config says",
    );
    refused(
        unpack(media_type::LAYER, &tar, wrong, None),
        "where the image's config says",
    );
    let less = (tar.len() - 1).to_string();
    refused(
        unpack(media_type::LAYER_ZSTD, &zstd, right, Some(&less)),
        "more bytes than its descriptor says",
    );
    refused(unpack("application/x-unheard-of", &zstd, right, None), "media type");
    refused(unpack(media_type::LAYER_GZIP, &zstd, right, None), "damaged");
    let trailing = [zstd.as_slice(), b"no frame"].concat();
    refused(unpack(media_type::LAYER_ZSTD, &trailing, right, None), "damaged");
    // A nonsensical annotation is as good as none.
    unpack(media_type::LAYER_ZSTD, &zstd, right, Some("a lot")).0.unwrap();
}

#[test]
fn a_bomb_stops_at_its_bound() {
    let scratch = Scratch::new();
    let mut memory = Memory::default();
    let content = vec![0u8; 64 << 20];
    let tar = RawTar::new().file("bomb", &content).end();
    let mut layer = memory.add(media_type::LAYER_ZSTD, packed(media_type::LAYER_ZSTD, &tar));
    assert!(layer.size < 20_000);
    layer
        .annotations
        .insert(annotation::UNPACKED.to_owned(), "3000000".to_owned());
    let root = memory.image(vec![(layer.clone(), Digest::of(&tar))]);
    let result = scratch.unpack_from(&memory, &memory.read(&root));
    expect_integrity(result, &layer, "more bytes than");
    let written = fs::metadata(scratch.root().join("bomb")).unwrap().len();
    assert!(written <= 3_000_000, "{written} bytes were written");
}

/// A window of 2 GiB, as `zstd --long=31` makes, would take that much memory.
#[test]
fn a_zstd_window_that_is_too_large_is_refused() {
    let tar = ordinary().end();
    for (window_log, accepted) in [(27, true), (28, false), (31, false)] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&tar).unwrap();
        let mut memory = Memory::default();
        let layer = memory.add(media_type::LAYER_ZSTD, encoder.finish().unwrap());
        let root = memory.image(vec![(layer.clone(), Digest::of(&tar))]);
        let result = Scratch::new().unpack_from(&memory, &memory.read(&root));
        if accepted {
            result.unwrap();
        } else {
            expect_integrity(result, &layer, "memory");
        }
    }
}

#[test]
fn a_source_that_lacks_a_layer_or_breaks_off_is_told() {
    let mut memory = Memory::default();
    let tar = RawTar::new().file("f", &noise(100_000, 3)).end();
    let layer = memory.add(media_type::LAYER_ZSTD, packed(media_type::LAYER_ZSTD, &tar));
    let root = memory.image(vec![(layer.clone(), Digest::of(&tar))]);
    let image = memory.read(&root);
    memory.breaks_at = Some(60_000);
    let error = Scratch::new().unpack_from(&memory, &image).unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains(&layer.digest.to_string()), "{text}");
    assert!(text.contains("connection reset"), "{text}");
    memory.forget(layer.digest);
    let error = Scratch::new().unpack_from(&memory, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// An error says its kind whichever of the two threads met it first.
#[test]
fn a_disk_error_is_not_taken_for_a_damaged_layer() {
    const NAME: &str = "rootfs::tests::damaged::a_disk_error_is_not_taken_for_a_damaged_layer";
    if is_root() {
        return run_as_nobody(NAME);
    }
    let scratch = Scratch::new();
    fs::set_permissions(scratch.root(), fs::Permissions::from_mode(0o555)).unwrap();
    let tar = RawTar::new().file("f", &noise(3 << 20, 4)).end();
    let mut memory = Memory::default();
    let layer = memory.add(media_type::LAYER_ZSTD, packed(media_type::LAYER_ZSTD, &tar));
    let root = memory.image(vec![(layer, Digest::of(&tar))]);
    let error = scratch.unpack_from(&memory, &memory.read(&root)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error:?}");
}

#[test]
fn a_full_disk_is_told() {
    let Some(disk) = Tmpfs::mount("2m") else {
        return;
    };
    let tar = RawTar::new().file("large", &noise(4 << 20, 5)).end();
    for kind in [media_type::LAYER, media_type::LAYER_ZSTD] {
        let mut memory = Memory::default();
        let layer = memory.add(kind, packed(kind, &tar));
        let root = memory.image(vec![(layer, Digest::of(&tar))]);
        let into = disk.path().join("root");
        fs::create_dir(&into).unwrap();
        let error = unpack(&memory, &memory.read(&root), &into, &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disk, "{error:?}");
        assert!(error.remedy().unwrap().starts_with("free some space"), "{error:?}");
        fs::remove_dir_all(into).unwrap();
    }
}
