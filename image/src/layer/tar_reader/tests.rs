//! Tars that GNU tar, the tar crate and we write, and bytes that nobody wrote.

use std::io::{Cursor, Write as _};

use proptest::prelude::*;

use super::*;
use crate::layer::{Entry, EntryKind, TarWriter};
use crate::testing::{RawTar, noise};

/// All members with their content.
fn read(bytes: &[u8]) -> Vec<(Member, Vec<u8>)> {
    let mut reader = TarReader::new(bytes);
    let mut all = Vec::new();
    while let Some(member) = reader.next().unwrap() {
        let mut content = Vec::new();
        reader.content().read_to_end(&mut content).unwrap();
        all.push((member, content));
    }
    reader.drain().unwrap();
    all
}

#[test]
fn reads_what_gnu_tar_writes() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(120), "ü".repeat(120));
    std::fs::create_dir_all(folder.path().join(&long)).unwrap();
    let inside = folder.path().join(&long).join("file");
    std::fs::write(&inside, noise(1000, 1)).unwrap();
    std::fs::hard_link(&inside, folder.path().join("hard")).unwrap();
    std::os::unix::fs::symlink(&long, folder.path().join("soft")).unwrap();
    for format in ["gnu", "pax", "posix"] {
        let output = std::process::Command::new("tar")
            .args(["--sort=name", "--format", format, "-cf", "-", "."])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success());
        let members = read(&output.stdout);
        let kinds: Vec<_> = members
            .iter()
            .map(|(member, content)| (member.path.as_str(), &member.kind, content.len()))
            .collect();
        let file = format!("./{long}/file");
        assert_eq!(
            kinds,
            [
                ("./", &MemberKind::Folder, 0),
                (&*format!("./{}/", "d".repeat(120)), &MemberKind::Folder, 0),
                (&*format!("./{long}/"), &MemberKind::Folder, 0),
                (&file, &MemberKind::File(1000), 1000),
                ("./hard", &MemberKind::HardLink(file.clone()), 0),
                ("./soft", &MemberKind::Symlink(long.clone()), 0),
            ],
            "{format}"
        );
        assert_eq!(members[3].1, noise(1000, 1));
    }
}

#[test]
fn content_that_is_not_read_is_skipped() {
    let tar = RawTar::new()
        .file("a", &noise(1000, 1))
        .file("b", &noise(600, 2))
        .file("c", b"")
        .file("d", b"x")
        .end();
    let mut reader = TarReader::new(tar.as_slice());
    let mut names = Vec::new();
    while let Some(member) = reader.next().unwrap() {
        if member.path == "b" {
            // Half of it.
            reader.content().read_exact(&mut [0; 300]).unwrap();
        }
        names.push((member.path, member.offset));
    }
    let expected = [("a", 512), ("b", 2048), ("c", 3584), ("d", 4096)];
    assert_eq!(names, expected.map(|(name, at)| (name.to_owned(), at)));

    let mut seeking = TarReader::new(Cursor::new(&tar));
    let mut found = Vec::new();
    while let Some(member) = seeking.next_seeking().unwrap() {
        found.push((member.path, member.offset));
    }
    assert_eq!(found, names);
}

#[test]
fn files_above_the_octal_limit_have_their_size_and_place() {
    let mut file = tempfile::tempfile().unwrap();
    for size in [(1u64 << 33) - 1, 1 << 33, (1 << 34) + 5] {
        let entry = |path, size| Entry {
            path,
            kind: EntryKind::File { size },
            mode: 0o644,
            uid: 1 << 21,
            gid: u32::MAX,
            mtime: 1 << 33,
            xattrs: &[],
        };
        let start = file.stream_position().unwrap();
        TarWriter::new(&file).append(&entry("large", size)).unwrap();
        let content = file.stream_position().unwrap();
        // A hole: nothing is written.
        file.seek(SeekFrom::Start((content + size).next_multiple_of(BLOCK)))
            .unwrap();
        TarWriter::new(&file).append(&entry("next", 0)).unwrap();
        file.write_all(&[0; 1024]).unwrap();

        file.seek(SeekFrom::Start(start)).unwrap();
        let mut reader = TarReader::new(&file);
        let large = reader.next_seeking().unwrap().unwrap();
        assert_eq!(large.kind, MemberKind::File(size));
        assert_eq!(large.offset, content - start);
        assert_eq!((large.uid, large.gid, large.mtime), (1 << 21, u32::MAX, 1 << 33));
        assert_eq!(reader.next_seeking().unwrap().unwrap().path, "next");
        assert_eq!(reader.next_seeking().unwrap(), None);
    }
}

/// The tar crate's fresh headers have such fields; GNU tar, libarchive and Docker read them as 0.
#[test]
fn empty_numbers_are_zero() {
    for blank in [0, b' '] {
        let mut header = tar::Header::new_gnu();
        header.set_path("folder/").unwrap();
        header.set_entry_type(tar::EntryType::Directory);
        let old = header.as_old_mut();
        for field in [
            &mut old.mode[..],
            &mut old.uid,
            &mut old.gid,
            &mut old.size,
            &mut old.mtime,
        ] {
            field.fill(blank);
        }
        header.set_cksum();
        let members = read(header.as_bytes());
        let (member, _) = &members[0];
        assert_eq!((member.mode, member.uid, member.gid, member.mtime), (0, 0, 0, 0));
        assert_eq!(member.kind, MemberKind::Folder);
    }
    let mut header = tar::Header::new_gnu();
    header.set_path("file").unwrap();
    header.as_old_mut().uid.copy_from_slice(b"12x\0\0\0\0\0");
    header.set_size(0);
    header.set_cksum();
    let error = TarReader::new(header.as_bytes().as_slice()).next().unwrap_err();
    assert_eq!(error.to_string(), "the tar has an owner");
}

#[test]
fn paths_of_every_length_come_back() {
    for length in (95..105).chain(150..160).chain(250..262).chain([1000, 4000]) {
        // One long name, and one that ustar can split at a slash.
        let one = "n".repeat(length);
        let split = format!("{}/{}", "a".repeat(length / 2), "b".repeat(length - length / 2 - 1));
        let umlaut = "ö".repeat(length / 2);
        for path in [one, split, umlaut] {
            for kind in [
                EntryKind::File { size: 0 },
                EntryKind::Folder,
                EntryKind::Symlink(&path),
                EntryKind::HardLink(&path),
            ] {
                let mut tar = TarWriter::new(Vec::new());
                tar.append(&Entry {
                    path: &path,
                    kind,
                    mode: 0o7777,
                    uid: 0,
                    gid: 0,
                    mtime: 0,
                    xattrs: &[],
                })
                .unwrap();
                let bytes = tar.finish().unwrap();
                let members = read(&bytes);
                let (expected_path, expected) = match kind {
                    EntryKind::File { size } => (path.clone(), MemberKind::File(size)),
                    EntryKind::Folder => (format!("{path}/"), MemberKind::Folder),
                    EntryKind::Symlink(_) => (path.clone(), MemberKind::Symlink(path.clone())),
                    EntryKind::HardLink(_) => (path.clone(), MemberKind::HardLink(path.clone())),
                };
                assert_eq!(members[0].0.path, expected_path);
                assert_eq!(members[0].0.kind, expected);
                assert_eq!(members[0].0.mode, 0o7777);
                // The tar crate reads the same.
                let mut archive = tar::Archive::new(bytes.as_slice());
                let entry = archive.entries().unwrap().next().unwrap().unwrap();
                assert_eq!(entry.path_bytes().as_ref(), expected_path.as_bytes());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..3000),
        mend in any::<bool>(),
    ) {
        if mend {
            for block in bytes.chunks_exact_mut(512) {
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(block);
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        let mut reader = TarReader::new(bytes.as_slice());
        while let Ok(Some(_)) = reader.next() {}
        let mut seeking = TarReader::new(Cursor::new(bytes));
        while let Ok(Some(_)) = seeking.next_seeking() {}
    }

    #[test]
    fn what_was_written_comes_back(
        path in "[a-zä/ .-]{1,300}",
        content in prop::collection::vec(any::<u8>(), 0..2000),
        mode in 0u32..0o10000,
        uid in any::<u32>(),
        mtime in 0u64..1 << 40,
        value in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assume!(!path.ends_with('/') && !path.starts_with('/') && !path.contains("//"));
        prop_assume!(path.split('/').all(|part| part != "." && part != ".."));
        let xattrs = [("user.x".to_owned(), value)];
        let entry = Entry {
            path: &path,
            kind: EntryKind::File { size: content.len() as u64 },
            mode, uid, gid: 0, mtime, xattrs: &xattrs,
        };
        let mut tar = TarWriter::new(Vec::new());
        tar.append_file(&entry, &mut content.as_slice(), &mut [0; 99]).unwrap();
        let members = read(&tar.finish().unwrap());
        let (member, read) = &members[0];
        prop_assert_eq!(&member.path, &path);
        prop_assert_eq!((member.mode, member.uid, member.mtime), (mode, uid, mtime));
        prop_assert_eq!(&member.xattrs[..], &xattrs[..]);
        prop_assert_eq!(read, &content);
        prop_assert_eq!(members.len(), 1);
    }
}
