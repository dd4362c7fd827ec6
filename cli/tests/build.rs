//! `sealrs build`: the same input gives the same digest, and what was packed before is not packed again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant, SystemTime};

use sealrs_image::digest::Digest;
use support::fault_proxy::{Fault, FaultProxy};
use support::files::FileServer;
use support::insides::{self, Kind};
use support::kills::{RENAMES, killed_at};
use support::{Running, Scratch, assert_has, fail, needs, noise, outcome, succeed, wait_until};

const KUBEFILE: &str = "\
FROM scratch
LABEL cluster.alpha.sealer.io/cluster-runtime-type=script
ENV GREETING=hello
COPY bin bin
COPY etc etc/
ADD extra.tar opt/
COPY hello.sh scripts/
APP dashboard local://dashboard.yaml
LAUNCH dashboard
";

/// The files of a context. What must not matter: whether the files were made `later` and in another order, and the
/// umask of whoever made them.
fn write_context(scratch: &Scratch, folder: &str, later: bool, umask: u32) {
    let mut files = vec![
        ("bin/tool", 0o777, noise(1, 300_000)),
        ("bin/other", 0o777, b"other".to_vec()),
        ("etc/a.conf", 0o666, b"a=1".to_vec()),
        ("etc/deep/er/b.conf", 0o666, b"b=1".to_vec()),
        ("hello.sh", 0o777, b"echo hello".to_vec()),
        ("dashboard.yaml", 0o666, b"kind: Pod".to_vec()),
    ];
    if later {
        files.reverse();
    }
    let set_mode = |path: &str, mode: u32| {
        let mode = fs::Permissions::from_mode(mode & !umask);
        fs::set_permissions(path, mode).unwrap();
    };
    for (name, mode, content) in &files {
        set_mode(&scratch.write(&format!("{folder}/{name}"), content), *mode);
    }
    for name in ["bin", "etc", "etc/deep", "etc/deep/er"] {
        set_mode(&scratch.path(&format!("{folder}/{name}")), 0o777);
    }
    scratch.write(&format!("{folder}/extra.tar"), insides::tar(&[("inside", b"inner")]));
    if later {
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (name, ..) in &files {
            touch(&scratch.path(&format!("{folder}/{name}")), long_ago);
        }
    }
}

fn touch(path: &str, time: SystemTime) {
    fs::File::options()
        .append(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

/// The trusted digest of a file needs it to be older than the coarsest time stamps.
fn settle() {
    std::thread::sleep(Duration::from_millis(2_200));
}

#[test]
fn the_same_files_give_the_same_digest_anywhere() {
    let (here, there) = (Scratch::new(), Scratch::new());
    write_context(&here, "context", false, 0o022);
    let first = here.build("a:1", KUBEFILE, &[]);

    // Another folder, another root, other time stamps, another order, another umask, nothing cached, another name.
    write_context(&there, "elsewhere/context", true, 0o002);
    for (umask, more) in [("000", ""), ("077", "--no-cache")] {
        let script = format!(
            "umask {umask}; exec \"$0\" build {more} -f elsewhere/Kubefile -t b:2 --output json elsewhere/context"
        );
        there.write("elsewhere/Kubefile", KUBEFILE);
        let out = succeed(there.command("sh").args(["-c", &script, env!("CARGO_BIN_EXE_sealrs")]));
        let built: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(built["digest"], first.digest(), "umask {umask} {more}");
    }
    for layer in here.layers("a:1") {
        for entry in layer.entries {
            assert_eq!((entry.uid, entry.gid, entry.mtime), (0, 0, 0), "{}", entry.path);
            assert!(entry.mode & 0o022 == 0, "{entry:?}");
        }
    }
    write_context(&there, "strict", true, 0o077);
    let strict = there.json(&["build", "-f", "elsewhere/Kubefile", "-t", "c:1", "strict"]);
    assert_eq!(strict["digest"], first.digest());
    // Content matters, of course.
    there.write("elsewhere/context/etc/a.conf", "a=2");
    let changed = there.json(&["build", "-f", "elsewhere/Kubefile", "-t", "b:2", "elsewhere/context"]);
    assert_ne!(changed["digest"], first.digest());
}

#[test]
fn compression_and_epoch_are_part_of_the_input() {
    let scratch = Scratch::new();
    write_context(&scratch, "context", false, 0o022);
    let mut digests = std::collections::BTreeSet::new();
    for compression in ["zstd", "gzip", "none"] {
        let flags = ["--compression", compression];
        let built = scratch.build("a:1", KUBEFILE, &flags);
        let again = scratch.build("a:1", KUBEFILE, &[&flags[..], &["--no-cache"]].concat());
        assert_eq!(built.digest(), again.digest(), "{compression}");
        assert_eq!(again.cached(), 0, "{compression}");
        digests.insert(built.digest().to_owned());
    }
    for epoch in ["0", "1700000000"] {
        let build = |name| support::json(scratch.building(name, KUBEFILE, &[]).env("SOURCE_DATE_EPOCH", epoch));
        let built = build("epoch:1");
        assert_eq!(built["digest"], build("epoch:2")["digest"]);
        digests.insert(built["digest"].as_str().unwrap().to_owned());
    }
    assert_eq!(digests.len(), 5, "each way of packing has its own digest");
    let times: Vec<u64> = scratch.rootfs("epoch:1").0.values().map(|entry| entry.mtime).collect();
    assert!(times.iter().all(|time| *time == 1_700_000_000), "{times:?}");
    let inspected = scratch.json(&["inspect", "epoch:1"]);
    assert_eq!(inspected["ociv1"]["created"], "2023-11-14T22:13:20Z");

    let said = fail(
        scratch
            .building("a:1", KUBEFILE, &[])
            .env("SOURCE_DATE_EPOCH", "yesterday"),
        2,
    );
    assert_has(&said, &["SOURCE_DATE_EPOCH", "yesterday", "hint:"]);
}

#[test]
fn a_rebuild_packs_what_changed_and_nothing_else() {
    let scratch = Scratch::new();
    write_context(&scratch, "context", false, 0o022);
    let first = scratch.build("a:1", KUBEFILE, &[]);
    assert_eq!((first.packed(), first.cached()), (5, 0));

    // At once, before any time stamp can be trusted.
    let again = scratch.build("a:1", KUBEFILE, &[]);
    assert_eq!((again.digest(), again.packed(), again.cached()), (first.digest(), 0, 5));

    touch(&scratch.path("context/bin/tool"), SystemTime::now());
    let touched = scratch.build("a:1", KUBEFILE, &[]);
    assert_eq!((touched.digest(), touched.packed()), (first.digest(), 0));

    scratch.write("context/etc/a.conf", "a=2");
    let changed = scratch.build("a:1", KUBEFILE, &[]);
    assert_eq!((changed.packed(), changed.cached()), (1, 4));
    assert_ne!(changed.digest(), first.digest());
    assert_eq!(scratch.rootfs("a:1").file("etc/a.conf"), "a=2");

    // The same size and time stamp: the inode's own time tells.
    let path = scratch.path("context/etc/a.conf");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    settle();
    scratch.build("a:1", KUBEFILE, &[]);
    scratch.write("context/etc/a.conf", "a=3");
    touch(&path, time);
    assert_eq!(scratch.build("a:1", KUBEFILE, &[]).packed(), 1);
    assert_eq!(scratch.rootfs("a:1").file("etc/a.conf"), "a=3");

    // A new mode is a change as well; a new label packs nothing.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(scratch.build("a:1", KUBEFILE, &[]).packed(), 1);
    let labelled = scratch.build("a:1", KUBEFILE, &["--label", "x=y"]);
    assert_eq!((labelled.packed(), labelled.cached()), (0, 5));
}

#[test]
fn a_fresh_checkout_is_cached() {
    let scratch = Scratch::new();
    write_context(&scratch, "context", false, 0o022);
    let first = scratch.build("a:1", KUBEFILE, &[]);
    fs::remove_dir_all(scratch.path("context")).unwrap();
    write_context(&scratch, "context", true, 0o002);
    let fresh = scratch.build("a:1", KUBEFILE, &[]);
    assert_eq!((fresh.digest(), fresh.packed(), fresh.cached()), (first.digest(), 0, 5));
}

#[test]
fn an_unchanged_rebuild_does_not_even_read_the_files() {
    needs!("strace");
    let scratch = Scratch::new();
    scratch.write("context/big/payload", noise(2, 64 << 20));
    settle();
    let kubefile = "FROM scratch\nCOPY big /\n";
    let began = Instant::now();
    scratch.build("a:1", kubefile, &[]);
    let first = began.elapsed();
    let began = Instant::now();
    let again = scratch.build("a:1", kubefile, &[]);
    assert_eq!(again.packed(), 0);
    assert!(began.elapsed() < first / 2, "{:?} after {first:?}", began.elapsed());

    let log = scratch.path("log");
    let traced = [
        "-f",
        "-qq",
        "-e",
        "trace=openat,open",
        "-o",
        &log,
        env!("CARGO_BIN_EXE_sealrs"),
    ];
    succeed(
        scratch
            .command("strace")
            .args(traced)
            .args(["build", "-f", "Kubefile", "-t", "a:1", "context"]),
    );
    let log = support::text(&scratch.read("log"));
    assert!(log.contains("Kubefile"), "strace saw nothing:\n{log}");
    assert!(!log.contains("big/payload"), "the file was opened:\n{log}");
}

#[test]
fn prune_keeps_images_and_makes_the_cache_forget() {
    let scratch = Scratch::new();
    write_context(&scratch, "context", false, 0o022);
    scratch.build("a:1", KUBEFILE, &[]);
    scratch.write("context/etc/a.conf", "a=2");
    let second = scratch.build("a:1", KUBEFILE, &[]);
    let before = scratch.list("root/store/blobs/sha256").len();
    // The first image's manifest, config and changed layer.
    let pruned = scratch.json(&["prune"]);
    assert_eq!(pruned["files"], 3, "{pruned}");
    assert_eq!(scratch.list("root/store/blobs/sha256").len(), before - 3);
    assert_eq!(scratch.rootfs("a:1").file("etc/a.conf"), "a=2");
    assert_eq!(scratch.json(&["prune"])["files"], 0);

    // The layer that went is packed anew, as it was; the others are still cached.
    scratch.write("context/etc/a.conf", "a=1");
    let third = scratch.build("b:1", KUBEFILE, &[]);
    assert_eq!((third.packed(), third.cached()), (1, 4));
    assert_ne!(third.digest(), second.digest());

    // A lost cache costs time only.
    fs::remove_dir_all(scratch.path("root/cache")).unwrap();
    let fourth = scratch.build("b:1", KUBEFILE, &[]);
    assert_eq!((fourth.digest(), fourth.cached()), (third.digest(), 0));
}

#[test]
fn a_build_killed_at_any_step_can_be_run_again() {
    needs!("strace", "taskset");
    let undisturbed = Scratch::new();
    write_context(&undisturbed, "context", false, 0o022);
    let wanted = undisturbed.build("a:1", KUBEFILE, &[]);

    let scratch = Scratch::new();
    write_context(&scratch, "context", false, 0o022);
    scratch.write("Kubefile", KUBEFILE);
    let mut killed = 0;
    for call in RENAMES {
        for step in 1..100 {
            let build = ["build", "--no-cache", "-f", "Kubefile", "-t", "a:1", "context"];
            if !killed_at(&scratch, call, step, &build) {
                break;
            }
            killed += 1;
            // What is there is whole: the store can be listed, and the image is there or not.
            scratch.ok(&["images"]);
            if step % 3 == 0 {
                scratch.ok(&["prune"]);
                assert!(scratch.partial().is_empty(), "{:?}", scratch.partial());
            }
        }
    }
    assert!((10..100).contains(&killed), "{killed} steps were killed");
    let built = scratch.build("a:1", KUBEFILE, &["--no-cache"]);
    assert_eq!(built.digest(), wanted.digest());
    scratch.ok(&["prune"]);
    assert!(scratch.partial().is_empty());
    undisturbed.ok(&["prune"]);
    let blobs = "root/store/blobs/sha256";
    assert_eq!(scratch.list(blobs), undisturbed.list(blobs));
}

#[test]
fn a_build_killed_in_the_middle_of_a_download_can_be_run_again() {
    let scratch = Scratch::new();
    let content = noise(4, 1 << 20);
    let server = FileServer::start(&[("/file.sh", &content)]);
    let proxy = FaultProxy::start(server.address());
    scratch.write("context/first", "first");
    let (digest, host) = (Digest::of(&content), proxy.host());
    for (name, instruction) in [
        (
            "add:1",
            format!("ADD --checksum={digest} http://{host}/file.sh /file.sh"),
        ),
        ("app:1", format!("APP --checksum={digest} file http://{host}/file.sh")),
    ] {
        // The first connection breaks, which is mended at once; the one that goes on there hangs.
        proxy.next("/file.sh", [Fault::Cut(300_000), Fault::Stall(400_000)]);
        let before = proxy.passed("/file.sh").len();
        let kubefile = format!("FROM scratch\nCOPY first /\n{instruction}\n");
        let build = Running::start(&mut scratch.building(name, &kubefile, &["--quiet"]));
        let got = || -> u64 {
            proxy.passed("/file.sh")[before..]
                .iter()
                .map(|passed| passed.body_bytes)
                .sum()
        };
        wait_until("the download hangs", || got() >= 700_000);
        build.kill();
        assert_eq!(scratch.partial().len(), 1);
        assert!(!scratch.ok(&["images"]).contains(name));

        let built = scratch.build(name, &kubefile, &[]);
        assert_eq!(built.cached(), 1, "the layer before the kill was kept");
        scratch.ok(&["prune"]);
        assert!(scratch.partial().is_empty(), "{:?}", scratch.partial());
        let path = if name == "add:1" {
            "file.sh"
        } else {
            "application/apps/file/file.sh"
        };
        assert_eq!(scratch.rootfs(name).entry(path).kind, Kind::File(content.clone()));
    }
}

#[test]
fn two_builds_at_once_and_a_prune_get_along() {
    let scratch = Scratch::new();
    write_context(&scratch, "context", false, 0o022);
    scratch.write("Kubefile", KUBEFILE);
    let root = scratch.path("root");
    let build = |name: &str| {
        let mut command = scratch.sealrs(&[
            "build",
            "--quiet",
            "--no-cache",
            "-f",
            "Kubefile",
            "-t",
            name,
            "context",
        ]);
        command.env("SEALRS_ROOT", &root);
        Running::start(&mut command)
    };
    let mut builds: Vec<Running> = ["a:1", "b:1", "a:1"].into_iter().map(build).collect();
    let mut prunes = 0;
    while builds.iter_mut().any(Running::is_running) {
        // Either nobody uses the store at this moment, or it says so.
        match outcome(&mut scratch.sealrs(&["prune"])) {
            (Some(0), _) => {}
            (Some(8), said) => assert_has(&said, &["another sealrs is using the store", "hint:"]),
            (code, said) => panic!("{code:?} {said}"),
        }
        prunes += 1;
    }
    for mut build in builds {
        assert!(build.0.wait().unwrap().success());
    }
    assert!(prunes > 0);
    let images = scratch.json(&["images"]);
    let names: Vec<&str> = images
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a:1", "b:1"]);
    assert_eq!(images[0]["digest"], images[1]["digest"]);
    assert_eq!(scratch.rootfs("a:1").file("etc/a.conf"), "a=1");
}
