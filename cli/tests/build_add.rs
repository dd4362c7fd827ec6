//! `sealrs build`: what ADD unpacks, and what it fetches.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use sealrs_image::digest::Digest;
use support::fault_proxy::{Fault, FaultProxy};
use support::files::FileServer;
use support::http::{Response, Server};
use support::insides::{self, Kind};
use support::{Scratch, assert_has, needs, noise, run};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// A tar with one entry of a special kind.
fn special(path: &str, kind: tar::EntryType, link: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    // As it is: the library refuses such names.
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    if !link.is_empty() {
        header.set_link_name_literal(link).unwrap();
    }
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, std::io::empty()).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn tars_are_unpacked_whatever_they_are_called() {
    needs!("tar");
    let scratch = Scratch::new();
    scratch.write("src/bin/tool", "tool");
    scratch.program("src/bin/run", "run");
    std::os::unix::fs::symlink("bin/run", scratch.path("src/link")).unwrap();
    fs::hard_link(scratch.path("src/bin/tool"), scratch.path("src/again")).unwrap();
    scratch.write(&format!("src/{}/{}", "d".repeat(120), "f".repeat(200)), "long");
    fs::create_dir(scratch.path("context")).unwrap();
    let plain = scratch.path("context/plain");
    run(
        "tar",
        &[
            "-cf",
            &plain,
            "--owner=1000",
            "--group=1000",
            "-C",
            &scratch.path("src"),
            ".",
        ],
    );
    let tar = fs::read(&plain).unwrap();
    scratch.write("context/a.tar.gz", gzip(&tar));
    scratch.write(
        "context/two-members.tgz",
        [gzip(&tar[..512]), gzip(&tar[512..])].concat(),
    );
    scratch.write("context/odd-name", zstd::encode_all(tar.as_slice(), 1).unwrap());
    run(
        "tar",
        &[
            "-cf",
            &scratch.path("context/gnu"),
            "--format=gnu",
            "-C",
            &scratch.path("src"),
            ".",
        ],
    );
    run(
        "tar",
        &[
            "-cf",
            &scratch.path("context/pax"),
            "--format=pax",
            "-C",
            &scratch.path("src"),
            ".",
        ],
    );

    let mut trees = Vec::new();
    for name in ["plain", "a.tar.gz", "two-members.tgz", "odd-name", "gnu", "pax"] {
        scratch.build("a:1", &format!("FROM scratch\nADD {name} opt\n"), &[]);
        let rootfs = scratch.rootfs("a:1");
        assert_eq!(rootfs.file("opt/bin/run"), "run", "{name}");
        assert_eq!(rootfs.entry("opt/bin/run").mode, 0o755);
        assert_eq!(rootfs.entry("opt/link").kind, Kind::Symlink("bin/run".to_owned()));
        for entry in rootfs.0.values() {
            assert_eq!((entry.uid, entry.gid, entry.mtime), (0, 0, 0), "{name} {}", entry.path);
        }
        let mut paths = rootfs.paths();
        paths.retain(|path| path != "opt/");
        trees.push(paths);
    }
    assert!(trees.iter().all(|tree| *tree == trees[0]), "{trees:#?}");
    assert!(trees[0].iter().any(|path| path.ends_with(&"f".repeat(200))));

    // Flags hold for all entries; COPY takes the file as it is.
    scratch.build(
        "a:1",
        "FROM scratch\nADD --chmod=0500 --chown=7:8 a.tar.gz /\nCOPY a.tar.gz x/\n",
        &[],
    );
    let rootfs = scratch.rootfs("a:1");
    let tool = rootfs.entry("bin/run");
    assert_eq!((tool.mode, tool.uid, tool.gid), (0o500, 7, 8));
    assert_eq!(rootfs.entry("x/a.tar.gz").kind, Kind::File(gzip(&tar)));
}

#[test]
fn what_is_no_tar_is_copied_as_it_is() {
    needs!("xz", "bzip2");
    let scratch = Scratch::new();
    let tar = insides::tar(&[("file", b"content")]);
    scratch.write("context/text", "text");
    scratch.write("context/text.gz", gzip(b"text"));
    scratch.write("context/text.zst", zstd::encode_all(b"text".as_slice(), 1).unwrap());
    scratch.write("context/empty", "");
    scratch.build("a:1", "FROM scratch\nADD text text.gz text.zst empty d/\n", &[]);
    let rootfs = scratch.rootfs("a:1");
    assert_eq!(rootfs.paths(), ["d/", "d/empty", "d/text", "d/text.gz", "d/text.zst"]);
    assert_eq!(rootfs.entry("d/text.gz").kind, Kind::File(gzip(b"text")));

    scratch.write("context/x.tar", &tar);
    run("xz", &["-k", &scratch.path("context/x.tar")]);
    run("bzip2", &["-k", &scratch.path("context/x.tar")]);
    for (name, packing) in [("x.tar.xz", "xz"), ("x.tar.bz2", "bzip2")] {
        let said = scratch.build_fails(2, &format!("FROM scratch\nADD {name} d/\n"), &[]);
        assert_has(
            &said,
            &[
                "Kubefile:2",
                name,
                &format!("packed with {packing}"),
                "zstd or gzip",
                "COPY",
            ],
        );
        scratch.build("a:1", &format!("FROM scratch\nCOPY {name} d/\n"), &[]);
    }
}

#[test]
fn hostile_tars_are_refused_or_contained() {
    let scratch = Scratch::new();
    let whole = insides::tar(&[("first", &noise(1, 4000)), ("second", &noise(2, 4000))]);
    let mut flipped = whole.clone();
    flipped[150] ^= 1;
    let refused = [
        ("up.tar", special("../up", tar::EntryType::Regular, ""), "leads out"),
        (
            "up2.tar",
            special("a/../../up", tar::EntryType::Regular, ""),
            "leads out",
        ),
        (
            "link.tar",
            special("hard", tar::EntryType::Link, "../../etc/passwd"),
            "leads out",
        ),
        (
            "char.tar",
            special("null", tar::EntryType::Char, ""),
            "no place in an image",
        ),
        (
            "fifo.tar",
            special("pipe", tar::EntryType::Fifo, ""),
            "no place in an image",
        ),
        ("cut.tar", whole[..6000].to_vec(), ""),
        ("flipped.tar", flipped, ""),
        (
            "cut.tar.gz",
            {
                let packed = gzip(&whole);
                packed[..packed.len() - 100].to_vec()
            },
            "",
        ),
    ];
    for (name, tar, words) in refused {
        scratch.write(&format!("context/{name}"), tar);
        let kubefile = format!("FROM scratch\nADD {name} d/\n");
        let (code, said) = support::outcome(&mut scratch.building("a:1", &kubefile, &[]));
        assert!(matches!(code, Some(2 | 4)), "{name}: {code:?} {said}");
        assert_has(&said, &["Kubefile:2", name, words]);
    }
    assert_eq!(scratch.json(&["images"]), serde_json::json!([]));

    // An absolute name lies below the destination; a link that leads out is kept and goes nowhere before it is
    // unpacked, which contains it.
    scratch.write("context/absolute.tar", special("/etc/x", tar::EntryType::Regular, ""));
    scratch.write(
        "context/out.tar",
        special("out", tar::EntryType::Symlink, "../../../etc"),
    );
    scratch.build("a:1", "FROM scratch\nADD absolute.tar out.tar d/\n", &[]);
    assert_eq!(scratch.rootfs("a:1").paths(), ["d/etc/x", "d/out"]);
}

/// A hint helps against its own cause only.
#[test]
fn hints_fit_their_causes() {
    let scratch = Scratch::new();
    scratch.write("context/.containerignore", "*.log\n");
    scratch.write("context/deploy.yaml", "a: b");
    scratch.write("context/a.log", "a");
    symlink("nowhere", scratch.path("context/dangling")).unwrap();
    scratch.write("context/up.tar", special("../up", tar::EntryType::Regular, ""));
    scratch.write("context/pipe.tar", special("pipe", tar::EntryType::Fifo, ""));
    scratch.write("context/white.tar", insides::tar(&[(".wh.x", b"")]));
    let server = Server::start(|_| Response::new(403));
    let sum = Digest::of(b"x");
    for (instruction, words) in [
        (
            "COPY deploy.yml x".to_owned(),
            &["`deploy.yml` matches nothing", "hint: did you mean `deploy.yaml`?"][..],
        ),
        (
            "COPY unlike-any x".to_owned(),
            &["hint: paths are relative to the build context"],
        ),
        (
            "COPY *.log x/".to_owned(),
            &[
                "left out of the build context",
                "hint: take the path out of .containerignore",
            ],
        ),
        (
            "COPY dangling x".to_owned(),
            &["a link that leads to nothing", "hint: mend the link"],
        ),
        (
            "COPY ../x x".to_owned(),
            &[
                "leads out of the build context",
                "choose a higher folder as the build context",
            ],
        ),
        ("COPY ftp://h/x x".to_owned(), &["hint: write a path; `ADD` fetches"]),
        (
            "APP a local:/deploy.yaml".to_owned(),
            &["hint: write `local://deploy.yaml`"],
        ),
        (
            "ADD up.tar x/".to_owned(),
            &["`../up` leads out of the destination", "hint: make the archive without"],
        ),
        (
            "ADD pipe.tar x/".to_owned(),
            &["no place in an image", "hint: make the archive without"],
        ),
        (
            "ADD white.tar x/".to_owned(),
            &["would delete files", "hint: make the archive without"],
        ),
        (
            format!("ADD --checksum={sum} deploy.yaml x"),
            &["`--checksum` is for one", "hint: leave it out"],
        ),
        (
            format!("ADD {} x", server.url()),
            &["403", "hint: URLs are fetched without credentials"],
        ),
    ] {
        let kubefile = format!("FROM scratch\n{instruction}\n");
        let (code, said) = support::outcome(&mut scratch.building("a:1", &kubefile, &[]));
        assert!(matches!(code, Some(2 | 3 | 6)), "{instruction}: {code:?} {said}");
        assert_has(&said, words);
    }
}

/// What no host would unpack is not built, also where a link of the base is in the way.
#[test]
fn entries_that_no_host_would_unpack_are_refused() {
    let scratch = Scratch::new();
    let mut through = special("l", tar::EntryType::Symlink, "/etc");
    through.truncate(512);
    through.extend(insides::tar(&[("l/passwd", b"x")]));
    scratch.write("context/through.tar", through);
    scratch.write("context/hard.tar", special("hard", tar::EntryType::Link, "gone"));
    scratch.write("context/fine.tar", insides::tar(&[("l/x", b"x")]));
    fs::create_dir(scratch.path("context/tree")).unwrap();
    symlink("../../etc", scratch.path("context/tree/l")).unwrap();
    scratch.build("base:1", "FROM scratch\nCOPY tree .\n", &[]);
    // The cache must not hide it.
    scratch.build("fine:1", "FROM scratch\nADD fine.tar .\n", &[]);
    for (from, archive, entry, why) in [
        (
            "scratch",
            "through.tar",
            "l/passwd",
            "the link `l` to `/etc`, which leads out of the rootfs",
        ),
        (
            "scratch",
            "hard.tar",
            "hard",
            "a hard link to `gone`, which is neither in the archive",
        ),
        (
            "base:1",
            "fine.tar",
            "l/x",
            "the link `l` to `../../etc`, which leads out of the rootfs",
        ),
    ] {
        let said = scratch.build_fails(2, &format!("FROM {from}\nADD {archive} .\n"), &[]);
        assert_has(
            &said,
            &[
                "Kubefile:2",
                archive,
                &format!("`{entry}`"),
                why,
                "hint: no host would unpack it",
            ],
        );
    }
    assert!(scratch.partial().is_empty());
    // A hard link to what a lower layer holds is one to unpacking.
    scratch.write("context/gone", "x");
    scratch.build("a:1", "FROM scratch\nCOPY gone .\nADD hard.tar .\n", &[]);
}

#[test]
fn a_url_with_its_checksum_is_fetched_once() {
    let scratch = Scratch::new();
    let (tool, packed) = (noise(1, 700_000), gzip(&insides::tar(&[("a", b"b")])));
    let server = FileServer::start(&[("/v1/tool", &tool), ("/pack.tar.gz?x=1", &packed)]);
    let kubefile = format!(
        "FROM scratch\nARG SUM\nADD --chmod=755 --checksum=sha256:$SUM {} bin/\nADD --checksum={} {} /pack\n",
        server.url("/v1/tool"),
        Digest::of(&packed),
        server.url("/pack.tar.gz?x=1")
    );
    let sum = format!("SUM={}", Digest::of(&tool).hex());
    let first = scratch.build("a:1", &kubefile, &["--build-arg", &sum]);
    let rootfs = scratch.rootfs("a:1");
    assert_eq!(rootfs.entry("bin/tool").kind, Kind::File(tool.clone()));
    assert_eq!(rootfs.entry("bin/tool").mode, 0o755);
    assert_eq!(
        rootfs.entry("pack").kind,
        Kind::File(packed),
        "what is fetched is not unpacked"
    );
    assert_eq!(rootfs.entry("pack").mode, 0o644);

    let asked = server.requests().len();
    let again = scratch.build("a:1", &kubefile, &["--build-arg", &sum]);
    assert_eq!((again.digest(), again.packed(), again.cached()), (first.digest(), 0, 2));
    assert_eq!(server.requests().len(), asked, "{:?}", server.requests());
    // The server may be gone by then.
    drop(server);
    assert_eq!(scratch.build("a:1", &kubefile, &["--build-arg", &sum]).packed(), 0);
}

#[test]
fn a_wrong_checksum_fails_and_leaves_nothing() {
    let scratch = Scratch::new();
    let packed = gzip(&noise(1, 9000));
    let server = FileServer::start(&[("/tool", b"what the server has"), ("/packed", &packed)]);
    let wanted = Digest::of(b"what was wanted");
    for (path, instruction) in [("/tool", "ADD"), ("/packed", "ADD"), ("/tool", "APP")] {
        let arguments = match instruction {
            "ADD" => format!("{} bin/", server.url(path)),
            _ => format!("tool {}", server.url(path)),
        };
        let kubefile = format!("FROM scratch\n{instruction} --checksum={wanted} {arguments}\n");
        let said = scratch.build_fails(4, &kubefile, &[]);
        let found = match path {
            "/tool" => Digest::of(b"what the server has"),
            _ => Digest::of(&packed),
        };
        let told = format!("the checksum given in line 2 is {wanted}, what was read has {found}");
        assert_has(
            &said,
            &[
                "Kubefile:2",
                &server.url(path),
                &told,
                "either the file changed at its source",
            ],
        );
        assert!(!said.contains("damaged"), "{said}");
    }
    assert!(scratch.partial().is_empty(), "{:?}", scratch.partial());
    assert!(scratch.list("root/store/blobs/sha256").is_empty());
    assert_eq!(scratch.json(&["images"]), serde_json::json!([]));

    for (checksum, words) in [
        ("sha256:123", "64"),
        ("md5:d41d8cd98f00b204e9800998ecf8427e", "sha256"),
        ("abc", "sha256"),
    ] {
        let kubefile = format!("FROM scratch\nADD --checksum={checksum} {} bin/\n", server.url("/tool"));
        assert_has(
            &scratch.build_fails(2, &kubefile, &[]),
            &["Kubefile:2", "checksum", words],
        );
    }
    let local = format!("FROM scratch\nADD --checksum={wanted} file x\n");
    scratch.write("context/file", "f");
    assert_has(&scratch.build_fails(2, &local, &[]), &["Kubefile:2", "`--checksum`"]);
}

#[test]
fn a_url_without_checksum_is_asked_each_time() {
    let scratch = Scratch::new();
    let server = FileServer::start(&[("/tool", b"one")]);
    let kubefile = format!("FROM scratch\nADD {} bin/\n", server.url("/tool"));
    let mut command = scratch.building("a:1", &kubefile, &[]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    assert_has(
        &support::text(&output.stderr),
        &["warning:", &server.url("/tool"), "has no checksum", "--checksum="],
    );
    let first = scratch.json(&["inspect", "a:1"])["digest"].clone();
    let again = scratch.build("a:1", &kubefile, &[]);
    assert_eq!(
        (again.digest(), again.packed()),
        (first.as_str().unwrap(), 0),
        "it had not changed"
    );
    server.replace("/tool", b"two");
    assert_eq!(scratch.build("a:1", &kubefile, &[]).packed(), 1);
    assert_eq!(scratch.rootfs("a:1").file("bin/tool"), "two");
}

#[test]
fn a_broken_connection_goes_on_where_it_broke() {
    let scratch = Scratch::new();
    let content = noise(5, 1 << 20);
    let packed = zstd::encode_all(noise(6, 1 << 20).as_slice(), 1).unwrap();
    let server = FileServer::start(&[("/plain.sh", &content), ("/packed.sh", &packed)]);
    for (name, bytes) in [("plain.sh", &content), ("packed.sh", &packed)] {
        for (number, instruction) in ["ADD {sum} {url} f", "ADD {url} f", "APP {sum} f {url}"]
            .iter()
            .enumerate()
        {
            let proxy = FaultProxy::start(server.address());
            proxy.next(name, [Fault::Cut(200_000), Fault::Cut(300_000), Fault::Cut(0)]);
            let line = instruction
                .replace("{sum}", &format!("--checksum={}", Digest::of(bytes)))
                .replace("{url}", &format!("http://{}/{name}", proxy.host()));
            let image = format!("{name}:{number}");
            scratch.build(&image, &format!("FROM scratch\n{line}\n"), &["--no-cache"]);
            let path = if line.starts_with("APP") {
                format!("application/apps/f/{name}")
            } else {
                "f".to_owned()
            };
            assert_eq!(
                scratch.rootfs(&image).entry(&path).kind,
                Kind::File(bytes.clone()),
                "{line}"
            );
            let passed = proxy.body_bytes(name);
            // A second start, to see what it is, may fetch a little more.
            assert!(passed <= bytes.len() as u64 + 350_000, "{line}: {passed} bytes came");
        }
    }
    // A server that knows no ranges sends all of it again.
    let proxy = FaultProxy::start(server.address());
    proxy.next("/plain.sh", [Fault::Cut(200_000), Fault::IgnoreRange]);
    scratch.build(
        "a:1",
        &format!("FROM scratch\nADD http://{}/plain.sh f\n", proxy.host()),
        &[],
    );
    assert_eq!(scratch.rootfs("a:1").entry("f").kind, Kind::File(content));
}

#[test]
fn what_servers_refuse_is_told() {
    let scratch = Scratch::new();
    let server = Server::start(|request| match request.target.as_str() {
        "/moved" => Response::new(302).header("Location", "/file"),
        "/file" => Response::new(200).body("moved here"),
        "/loop" => Response::new(302).header("Location", "/loop"),
        "/forbidden" => Response::new(403),
        _ => Response::new(404),
    });
    let host = server.url();
    let url = |path: &str| format!("{host}{path}");
    for (path, code) in [("/nothing", 3), ("/forbidden", 6), ("/loop", 5)] {
        let said = scratch.build_fails(code, &format!("FROM scratch\nADD {} x\n", url(path)), &[]);
        assert_has(&said, &["Kubefile:2", &url(path)]);
    }
    scratch.build("a:1", &format!("FROM scratch\nADD {} x/\n", url("/moved")), &[]);
    assert_eq!(scratch.rootfs("a:1").file("x/moved"), "moved here");

    let said = scratch.build_fails(2, &format!("FROM scratch\nADD {}/ x/\n", url("")), &[]);
    assert_has(&said, &["Kubefile:2:5", "does not end with a file's name"]);
    let said = scratch.build_fails(2, "FROM scratch\nADD ftp://h/x x\n", &[]);
    assert_has(&said, &["Kubefile:2", "ftp"]);
    let gone = url("/file");
    drop(server);
    let said = scratch.build_fails(5, &format!("FROM scratch\nADD {gone} x\n"), &[]);
    assert_has(&said, &["Kubefile:2", &gone, "hint:"]);
}

#[test]
fn image_lists_count_however_they_come() {
    // Each way to bring `imageList` is noticed: the name in it, which is none, fails the build.
    let scratch = Scratch::new();
    let server = FileServer::start(&[("/list", b"NOT/an image\n")]);
    scratch.write("context/list", "NOT/an image\n");
    scratch.write("context/folder/manifests/imageList", "NOT/an image\n");
    scratch.write(
        "context/in.tar",
        insides::tar(&[("manifests/imageList", b"NOT/an image\n")]),
    );
    scratch.write(
        "context/in.tar.gz",
        gzip(&insides::tar(&[("imageList", b"NOT/an image\n")])),
    );
    scratch.write("context/linked/other/imageList", "NOT/an image\n");
    scratch.write("context/linked-name/lists/all", "NOT/an image\n");
    fs::create_dir_all(scratch.path("context/folder-link/other")).unwrap();
    fs::create_dir(scratch.path("context/linked-name/manifests")).unwrap();
    symlink("other", scratch.path("context/linked/manifests")).unwrap();
    symlink("other", scratch.path("context/folder-link/manifests")).unwrap();
    symlink("../lists/all", scratch.path("context/linked-name/manifests/imageList")).unwrap();
    let mut linked = special("manifests", tar::EntryType::Symlink, "other");
    linked.truncate(512);
    linked.extend(insides::tar(&[("other/imageList", b"NOT/an image\n")]));
    scratch.write("context/linked.tar", linked);
    scratch.write(
        "context/in-folder.tar",
        insides::tar(&[("imageList", b"NOT/an image\n")]),
    );
    for instruction in [
        "COPY list imageList".to_owned(),
        "COPY list manifests/imageList".to_owned(),
        "COPY folder .".to_owned(),
        "ADD in.tar /".to_owned(),
        "ADD in.tar.gz /".to_owned(),
        format!("ADD {} imageList", server.url("/list")),
        format!(
            "ADD --checksum={} {} imageList",
            Digest::of(b"NOT/an image\n"),
            server.url("/list")
        ),
        "COPY <<E imageList\nNOT/an image\nE".to_owned(),
        // Behind folders and names that are links, in one instruction or in several.
        "COPY linked .".to_owned(),
        "ADD linked.tar .".to_owned(),
        "COPY linked-name .".to_owned(),
        "COPY folder-link .\nCOPY list manifests/imageList".to_owned(),
        "COPY folder-link .\nCOPY list other/imageList".to_owned(),
        "COPY folder-link .\nADD in-folder.tar other".to_owned(),
    ] {
        // The second time from the cache.
        for _ in 0..2 {
            let said = scratch.build_fails(2, &format!("FROM scratch\n{instruction}\n"), &[]);
            assert_has(&said, &["imageList:1", "NOT/an image"]);
        }
    }
    // The last one counts.
    scratch.write("context/empty", "# none\n");
    scratch.build("a:1", "FROM scratch\nCOPY list imageList\nCOPY empty imageList\n", &[]);
}

/// What `ADD` would have unpacked is not copied in silence when it is damaged.
#[test]
fn damaged_archives_are_refused_by_name() {
    let scratch = Scratch::new();
    let tar = insides::tar(&[("a", &noise(1, 200_000)), ("b", b"b")]);
    let (gz, zst) = (gzip(&tar), zstd::encode_all(tar.as_slice(), 1).unwrap());
    let mut wrong_sum = gz.clone();
    let sum = wrong_sum.len() - 8;
    wrong_sum[sum] ^= 1;
    for (name, bytes) in [
        ("short.tar.gz", gz[..gz.len() / 2].to_vec()),
        ("headless.tgz", gz[..30].to_vec()),
        ("cut-sum.tar.gz", gz[..gz.len() - 4].to_vec()),
        ("wrong-sum.tar.gz", wrong_sum),
        ("garbage.tar.gz", [&gz[..3], &noise(2, 4000)].concat()),
        ("garbage-without-a-name", [&gz[..3], &noise(2, 4000)].concat()),
        ("tail.tar.gz", [&gz[..], b"garbage"].concat()),
        ("short.tar.zst", zst[..zst.len() / 2].to_vec()),
        ("short", zst[..zst.len() / 2].to_vec()),
        ("short.tar", tar[..tar.len() / 2].to_vec()),
    ] {
        scratch.write(&format!("context/{name}"), &bytes);
        let said = scratch.build_fails(4, &format!("FROM scratch\nADD {name} /d/\n"), &[]);
        assert_has(&said, &["Kubefile:2", name, "hint:", "COPY"]);
        let copied = format!("FROM scratch\nCOPY {name} /d/\n");
        scratch.build("a:1", &copied, &[]);
        assert_eq!(
            scratch.rootfs("a:1").entry(&format!("d/{name}")).kind,
            Kind::File(bytes)
        );
    }
    for (name, bytes) in [
        ("plain.tar.gz", b"just text".to_vec()),
        ("empty.tgz", Vec::new()),
        ("text.tar.gz", gzip(b"just text")),
    ] {
        scratch.write(&format!("context/{name}"), &bytes);
        let said = scratch.build_fails(2, &format!("FROM scratch\nADD {name} /d/\n"), &[]);
        assert_has(&said, &["Kubefile:2", name, "is no packed tar", "COPY"]);
    }
    assert!(scratch.partial().is_empty(), "{:?}", scratch.partial());
}

/// A server that tells the size, one that does not, and a URL without checksum: one layer.
#[test]
fn a_url_gives_the_same_layer_whatever_the_server_tells() {
    for bytes in [
        noise(1, 400_000),
        gzip(&noise(2, 100_000)),
        b"text\n".repeat(9000),
        Vec::new(),
    ] {
        let body = bytes.clone();
        let server = Server::start(move |request| match request.target.as_str() {
            "/sized" => Response::new(200).body(body.clone()),
            _ => {
                let mut chunked = Vec::new();
                for chunk in body.chunks(50_000) {
                    chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    chunked.extend_from_slice(chunk);
                    chunked.extend_from_slice(b"\r\n");
                }
                chunked.extend_from_slice(b"0\r\n\r\n");
                Response::new(200).header("Transfer-Encoding", "chunked").body(chunked)
            }
        });
        let sum = format!("--checksum={} ", Digest::of(&bytes));
        for compression in ["zstd", "none"] {
            let mut digests = Vec::new();
            for (sum, path) in [
                (sum.as_str(), "/sized"),
                (&sum, "/chunked"),
                ("", "/sized"),
                ("", "/chunked"),
            ] {
                let scratch = Scratch::new();
                let kubefile = format!("FROM scratch\nADD {sum}{}{path} f\n", server.url());
                scratch.build("a:1", &kubefile, &["--compression", compression]);
                assert_eq!(scratch.rootfs("a:1").entry("f").kind, Kind::File(bytes.clone()));
                // A layer, a config, a manifest, and no copy of the payload.
                assert_eq!(scratch.list("root/store/blobs/sha256").len(), 3);
                assert!(scratch.partial().is_empty());
                digests.push(scratch.layers("a:1")[0].digest.clone());
            }
            digests.dedup();
            assert_eq!(digests.len(), 1, "{compression}, {} bytes", bytes.len());
        }
    }
}
