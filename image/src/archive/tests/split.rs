//! Archives in parts.

use super::*;

const PART: u64 = 10_000;

/// Saves an image of two layers in parts, and as one file beside for comparison.
fn split(scratch: &Scratch) -> (PathBuf, Vec<u8>) {
    let (whole, memory, root) = saved(scratch, "a.b/c:1");
    let name: Reference = "a.b/c:1".parse().unwrap();
    let path = scratch.path("x.tar");
    let output = Output::parts(&path, PART, false).unwrap();
    let sink = ArchiveSink::new(output, &root, Some(&name), Delta::default()).unwrap();
    copy(&memory, &root, Box::new(sink), 1, &Silent).unwrap();
    let bytes = fs::read(&whole).unwrap();
    fs::remove_file(whole).unwrap();
    (path, bytes)
}

fn part(scratch: &Scratch, number: usize) -> PathBuf {
    scratch.path(&format!("x.tar.{number:03}"))
}

#[test]
fn parts_are_the_archive_cut_to_size() {
    let scratch = Scratch::new();
    let (path, whole) = split(&scratch);
    let count = whole.len().div_ceil(usize::try_from(PART).unwrap());
    let mut joined = Vec::new();
    for number in 1..=count {
        let bytes = fs::read(part(&scratch, number)).unwrap();
        assert!(bytes.len() as u64 <= PART);
        joined.extend(bytes);
    }
    assert!(joined == whole);
    assert_eq!(scratch.names().len(), count + 1, "{:?}", scratch.names());
    let sums = fs::read_to_string(scratch.path("x.tar.sha256")).unwrap();
    let digest = Digest::of(&whole[..usize::try_from(PART).unwrap()]).hex();
    assert!(sums.starts_with(&format!("{digest}  x.tar.001\n")), "{sums}");

    for name in [path, part(&scratch, 1), part(&scratch, 3)] {
        load(&scratch, &Archive::open(&name).unwrap()).unwrap();
        fs::remove_dir_all(scratch.path("root")).unwrap();
    }
    // Without the digests and under another name it reads as well.
    fs::remove_file(scratch.path("x.tar.sha256")).unwrap();
    for number in 1..=count {
        fs::rename(part(&scratch, number), scratch.path(&format!("y.{number:03}"))).unwrap();
    }
    load(&scratch, &Archive::open(&scratch.path("y")).unwrap()).unwrap();
}

#[test]
fn a_part_that_is_missing_short_or_damaged_is_named() {
    let (first, middle, last) = (1, 4, 7);
    for with_digests in [true, false] {
        for number in [first, middle, last] {
            let scratch = Scratch::new();
            let (path, _) = split(&scratch);
            if !with_digests {
                fs::remove_file(scratch.path("x.tar.sha256")).unwrap();
            }
            let file = part(&scratch, number);
            let bytes = fs::read(&file).unwrap();
            let name = format!("x.tar.{number:03}");

            fs::remove_file(&file).unwrap();
            let missing = Archive::open(&path).map(drop).unwrap_err();
            let text = format!("{missing:?}");
            match (with_digests, number) {
                (true, _) | (_, 4) => assert!(text.contains(&format!("{name} is missing")), "{text}"),
                // Nobody knows how many there should be.
                (_, 7) => assert!(text.contains("x.tar.006 is not the last part"), "{text}"),
                _ => assert_eq!(missing.kind(), ErrorKind::NotFound, "{text}"),
            }

            fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
            let text = format!("{:?}", Archive::open(&path).unwrap_err());
            assert!(text.contains(&name), "{text}");

            let mut flipped = bytes.clone();
            flipped[bytes.len() / 3] ^= 1;
            fs::write(&file, &flipped).unwrap();
            let read = Archive::open(&path).and_then(|archive| {
                let loaded = load(&scratch, &archive).map(drop);
                loaded.map_err(|error| archive.explain(error))
            });
            if with_digests && number != last {
                let error = read.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Integrity);
                assert!(
                    format!("{error:?}").contains(&format!("{name} is damaged")),
                    "{error:?}"
                );
            }
            let _ = fs::remove_dir_all(scratch.path("root"));
            fs::write(&file, &bytes).unwrap();
            load(&scratch, &Archive::open(&path).unwrap()).unwrap();
        }
    }
}

#[test]
fn what_is_there_is_replaced_only_on_demand_and_wholly() {
    let scratch = Scratch::new();
    let (path, _) = split(&scratch);
    let before = scratch.names().len();
    let conflict = |error: Error| assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    conflict(Output::parts(&path, PART, false).unwrap_err());
    fs::rename(scratch.path("x.tar.001"), scratch.path("x.tar")).unwrap();
    conflict(Output::parts(&path, PART, false).unwrap_err());
    fs::rename(scratch.path("x.tar"), scratch.path("x.tar.001")).unwrap();
    assert_eq!(scratch.names().len(), before);

    // Fewer parts than before: none of the old ones is left to be taken for one of these.
    let mut memory = Memory::default();
    let root = two_layers(&mut memory);
    fs::write(scratch.path("x.tar.008"), "old").unwrap();
    fs::write(scratch.path("x.tar.004.partial"), "old").unwrap();
    let output = Output::parts(&path, 5 * PART, true).unwrap();
    let sink = ArchiveSink::new(output, &root, None, Delta::default()).unwrap();
    copy(&memory, &root, Box::new(sink), 1, &Silent).unwrap();
    let mut names = scratch.names();
    names.sort();
    assert_eq!(names, ["x.tar.001", "x.tar.002", "x.tar.sha256"]);
    load(&scratch, &Archive::open(&path).unwrap()).unwrap();
}

#[test]
fn a_save_in_parts_that_fails_leaves_nothing() {
    let scratch = Scratch::new();
    let mut memory = Memory::default();
    let root = two_layers(&mut memory);
    let save = |memory: &Memory, size| {
        let output = Output::parts(&scratch.path("x.tar"), size, false)?;
        let sink = ArchiveSink::new(output, &root, None, Delta::default())?;
        copy(memory, &root, Box::new(sink), 1, &Silent)
    };
    let error = save(&memory, 50).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.remedy().unwrap().contains("--split"), "{error:?}");
    assert_eq!(scratch.names(), Vec::<String>::new());
    assert_eq!(save(&memory, 0).unwrap_err().kind(), ErrorKind::Input);

    memory.damage(Digest::of(&noise(30_000, 1)), |bytes| bytes[5] ^= 1);
    assert_eq!(save(&memory, PART).unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(scratch.names(), Vec::<String>::new());

    let Some(disk) = Tmpfs::mount("40k") else { return };
    let memory = {
        let mut memory = Memory::default();
        two_layers(&mut memory);
        memory
    };
    let output = Output::parts(&disk.path().join("x.tar"), PART, false).unwrap();
    let sink = ArchiveSink::new(output, &root, None, Delta::default()).unwrap();
    let error = copy(&memory, &root, Box::new(sink), 1, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk);
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
}
