//! The corpus in `testdata/discovery`: what is found is what its hand-made lists say, no more and no less.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sealrs_image::reference::Reference;

use super::{Discovered, Discovery, Kind};

fn discover(root: &Path) -> sealrs_image::error::Result<Discovered> {
    Discovery::default().read(root, &root.display().to_string())
}

/// The folders of the corpus.
fn corpus() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/discovery");
    let entries = std::fs::read_dir(root).unwrap();
    let folders = entries.map(|entry| entry.unwrap().path());
    // Charts need helm: `images_in` of the program's tests reads them.
    let is_chart = |folder: &PathBuf| folder.to_string_lossy().contains("/chart-");
    folders.filter(|folder| !is_chart(folder)).collect()
}

/// What the list of a folder says, and what is found there.
fn read(folder: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let expected = std::fs::read_to_string(folder.join("expected.txt")).unwrap();
    let discovered = discover(folder).unwrap();
    assert_eq!(discovered.wrong, [], "{}", folder.display());
    let found = discovered.images.iter().map(|found| {
        let file = Path::new(&found.file).strip_prefix(folder).unwrap().display();
        format!("{} {} {file}:{}", found.kind.word(), found.image, found.line)
    });
    (expected.lines().map(str::to_owned).collect(), found.collect())
}

#[test]
fn the_corpus_is_found_whole_and_nothing_else() {
    let corpus = corpus();
    assert!(corpus.len() >= 25, "{}", corpus.len());
    for folder in corpus {
        let (expected, found) = read(&folder);
        assert!(!expected.is_empty(), "{}", folder.display());
        assert_eq!(found, expected, "{}", folder.display());
    }
}

#[test]
fn an_image_that_is_renamed_in_a_file_is_missed() {
    for folder in corpus() {
        let (expected, _) = read(&folder);
        for line in &expected {
            let place = line.rsplit(' ').next().unwrap();
            let (file, number) = place.rsplit_once(':').unwrap();
            let number: usize = number.parse().unwrap();
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            // The last part of the name, without host, tag and digest.
            let image: Reference = line.split(' ').nth(1).unwrap().parse().unwrap();
            let name = image.path().rsplit('/').next().unwrap();
            let kept = text.lines().enumerate().map(|(at, line)| match at + 1 == number {
                true => line.replace(name, "changed"),
                false => line.to_owned(),
            });
            let kept = kept.collect::<Vec<_>>().join("\n");
            let scratch = tempfile::tempdir().unwrap();
            let copy = std::process::Command::new("cp")
                .arg("-r")
                .arg(folder.join("."))
                .arg(scratch.path())
                .status();
            assert!(copy.unwrap().success());
            std::fs::write(scratch.path().join(file), kept).unwrap();
            let (_, found) = read(scratch.path());
            assert!(!found.contains(line), "{line}");
        }
    }
}

#[test]
fn what_is_not_understood_is_told_with_its_line() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(scratch.path().join(name), text).unwrap();
    write(
        "a.yaml",
        "kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - image: UPPER/x\n",
    );
    write(
        "a1.yaml",
        "kind: Pod\napiVersion: v1\nspec:\n  containers:\n  - image: {a: b}\n  - image: 5\n  - image: null\n  initContainers: {}\n",
    );
    write("a2.yaml", "kind: X\napiVersion: v1\nimage: ${REGISTRY}/x:1\n");
    write("a3.yaml.tmpl", "image: {{ .Registry }}/x:1\n");
    write("a4.yaml", "a: \"");
    let large = std::fs::File::create(scratch.path().join("a5.yaml")).unwrap();
    large.set_len((16 << 20) + 1).unwrap();
    std::fs::create_dir(scratch.path().join("z")).unwrap();
    std::os::unix::fs::symlink("..", scratch.path().join("z/folder")).unwrap();
    write("b.yaml", "a: b\n{{ if .Values.x }}\n  c: [\n");
    std::fs::create_dir(scratch.path().join("chart")).unwrap();
    write("chart/Chart.yaml", "name: x\n");
    std::os::unix::fs::symlink("/etc/passwd", scratch.path().join("chart/values.yaml")).unwrap();
    write("c-1.tgz", "");
    write("imageList", "ok:1\nNOT/ok\n");
    std::os::unix::fs::symlink("a.yaml", scratch.path().join("d.yaml")).unwrap();
    let discovered = discover(scratch.path()).unwrap();
    assert_eq!(discovered.images.len(), 1);
    assert!(discovered.images.iter().all(|found| found.kind == Kind::List));
    let names = discovered.wrong.iter().map(|finding| {
        let name = Path::new(&finding.file)
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        (name, finding.line.is_some())
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    let expected = [
        ("a.yaml", true),
        ("a1.yaml", true),
        ("a1.yaml", true),
        ("a1.yaml", true),
        ("a2.yaml", true),
        ("a3.yaml.tmpl", true),
        ("a4.yaml", true),
        ("a5.yaml", false),
        ("b.yaml", true),
        ("c-1.tgz", false),
        ("chart", false),
        ("d.yaml", false),
        ("folder", false),
        ("imageList", true),
    ];
    assert_eq!(names, expected.map(|(name, line)| (name.to_owned(), line)));
    assert!(discover(&scratch.path().join("none")).is_err());
}

#[test]
fn kustomizations_that_lead_elsewhere_are_told() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "outside.yaml",
        "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: x:1}]}\n",
    );
    write("in/folder/x.yaml", "a: 1\n");
    write("in/circle/kustomization.yaml", "resources: [../circle]\n");
    write(
        "in/kustomization.yaml",
        "resources:\n- ../outside.yaml\n- https://example.com/x?ref=v1\n- folder\n- 5\nhelmCharts: [{name: x}]\nimages:\n- name: x\n  tagSuffix: y\n",
    );
    let discovered = discover(&scratch.path().join("in")).unwrap();
    assert!(discovered.images.is_empty());
    let lines = |name: &str| {
        let found = discovered.wrong.iter().filter(|finding| finding.file.ends_with(name));
        found.filter_map(|finding| finding.line).collect::<BTreeSet<_>>()
    };
    assert_eq!(lines("in/kustomization.yaml"), BTreeSet::from([2, 3, 4, 5, 6, 8]));
    assert_eq!(lines("in/circle/kustomization.yaml"), BTreeSet::from([1]));
}

/// Images of a kustomization over a Deployment with the containers `main` (a:old) and `side` (b:old).
fn kustomized(patches: &str) -> (BTreeSet<String>, usize) {
    let scratch = tempfile::tempdir().unwrap();
    let deployment = |containers: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: w}}\nspec: {{template: {{spec: {{containers: [{containers}]}}}}}}\n"
        )
    };
    let write = |name: &str, text: &str| {
        // What nobody refers to is a manifest of its own.
        if name == "d.yaml" || name == "kustomization.yaml" || patches.contains(name) {
            std::fs::write(scratch.path().join(name), text).unwrap();
        }
    };
    write(
        "d.yaml",
        &deployment("{name: main, image: 'a:old'}, {name: side, image: 'b:old'}"),
    );
    write("side.yaml", &deployment("{name: side, image: 'b:new'}"));
    write("smp.yaml", &deployment("{name: main, image: 'a:smp'}"));
    write("last.yaml", &deployment("{name: main, image: 'a:last'}"));
    write("more.yaml", &deployment("{name: more, image: 'c:new'}"));
    write("kustomization.yaml", &format!("resources: [d.yaml]\n{patches}"));
    let discovered = discover(scratch.path()).unwrap();
    let names = discovered.images.iter().map(|found| found.image.familiar());
    (names.collect(), discovered.wrong.len())
}

#[test]
fn patches_replace_what_kustomize_replaces_and_never_more() {
    const FIRST: &str = "- target: {kind: Deployment, name: w}\n  patch: |\n    - op: replace\n      \
        path: /spec/template/spec/containers/0/image\n      value: a:new\n";
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    for (patches, expected) in [
        // A container keeps its place, whatever place the patch has it at.
        (
            format!("patches:\n- path: side.yaml\n{FIRST}"),
            set(&["a:new", "b:new"]),
        ),
        // Kustomize applies strategic merges first, wherever they stand.
        (
            "patches: [{path: last.yaml}]\npatchesStrategicMerge: [smp.yaml]\n".to_owned(),
            set(&["a:last", "b:old"]),
        ),
        // A container more may move the others: then nothing is taken away by its place.
        (
            format!("patches:\n- path: more.yaml\n{FIRST}"),
            set(&["a:new", "a:old", "b:old", "c:new"]),
        ),
    ] {
        assert_eq!(kustomized(&patches), (expected, 0), "{patches}");
    }
    assert_eq!(kustomized("configurations: [c.yaml]\n").1, 1);
}

#[test]
fn images_in_lists_and_beside_pieces_are_seen() {
    let scratch = tempfile::tempdir().unwrap();
    let text = "kind: ImageListPullJob\napiVersion: apps.kruise.io/v1alpha1\nspec: {images: ['q.io/list:1', word]}\n---\n\
        kind: X\nimages: {proxy: 'q.io/name:1', size: large}\n---\n\
        kind: Y\na: {repository: q.io/one, tag: v1, image: 'q.io/beside:1', registry: {image: {repository: q.io/below, tag: v2}}}\n";
    std::fs::write(scratch.path().join("a.yaml"), text).unwrap();
    let discovered = discover(scratch.path()).unwrap();
    let names: BTreeSet<String> = discovered.images.iter().map(|found| found.image.familiar()).collect();
    let expected = [
        "q.io/list:1",
        "q.io/name:1",
        "q.io/one:v1",
        "q.io/beside:1",
        "q.io/below:v2",
    ];
    assert_eq!(names, expected.map(str::to_owned).into());
}
