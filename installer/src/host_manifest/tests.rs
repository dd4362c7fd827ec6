use super::*;

fn open(folder: &Path) -> HostManifest {
    HostManifest::open(&folder.join("host-manifest"), &folder.join("backup")).unwrap()
}

#[test]
fn what_was_there_before_the_first_try_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign");
    fs::write(&path, "foreign").unwrap();
    let mut manifest = open(folder.path());
    manifest.record_file(&path).unwrap();
    fs::write(&path, "ours").unwrap();
    let mut manifest = open(folder.path());
    manifest.record_file(&path).unwrap();
    let standing = manifest.standing();
    let [
        (
            0,
            Made::File {
                before: Before::File { backup, .. },
                ..
            },
        ),
    ] = standing.as_slice()
    else {
        panic!("{standing:?}");
    };
    let kept = fs::read_to_string(folder.path().join("backup").join(backup));
    assert_eq!(kept.unwrap(), "foreign");
}

#[test]
fn a_folder_that_two_clusters_need_is_noted_by_both() {
    let root = tempfile::tempdir().unwrap();
    let cluster = |name: &str| {
        let folder = root.path().join("data").join(name);
        fs::create_dir_all(&folder).unwrap();
        open(&folder)
    };
    let folders = |manifest: &HostManifest| {
        let standing = manifest.standing().into_iter().rev();
        let made = standing.filter(|(_, made)| matches!(made, Made::Folder { .. }));
        made.map(|(_, made)| made.key()).collect::<Vec<_>>()
    };
    let path = |name: &str| root.path().join("etc").join(name);
    fs::create_dir(root.path().join("etc")).unwrap();
    let (mut one, mut two) = (cluster("one"), cluster("two"));
    one.record_file(&path("docker/certs.d/a:1/ca.crt")).unwrap();
    two.record_file(&path("docker/certs.d/b:2/ca.crt")).unwrap();
    let expected =
        ["docker", "docker/certs.d", "docker/certs.d/b:2"].map(|name| format!("folder {}", path(name).display()));
    assert_eq!(folders(&two), expected);
    // What neither of them has made is nobody's.
    fs::create_dir(path("foreign")).unwrap();
    two.record_file(&path("foreign/file")).unwrap();
    assert_eq!(folders(&two), expected);
}

#[test]
fn folders_that_are_made_on_the_way_are_written_down_outermost_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = open(folder.path());
    let path = folder.path().join("a/b/file");
    manifest.record_file(&path).unwrap();
    let paths: Vec<PathBuf> = manifest
        .standing()
        .into_iter()
        .rev()
        .map(|(_, made)| match made {
            Made::Folder { path } | Made::File { path, .. } => path,
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = ["a", "a/b", "a/b/file"].map(|name| folder.path().join(name));
    assert_eq!(paths, expected);
    manifest.undone(2).unwrap();
    assert_eq!(open(folder.path()).standing().len(), 2);
    let error = manifest.record_file(&folder.path().join("a/b")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}
