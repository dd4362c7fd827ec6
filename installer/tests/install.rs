//! Installing with runtime `script`, as any user: the whole way, twice, interrupted, refused, and gone again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::time::Duration;

use serde_json::json;
use support::{Place, free_port, processes_of, succeeds, text};

/// Notes what it saw and fails where it is told to; makes one thing, which reset.sh removes.
const INIT: &str = r#"set -eu
env | sort > "$OUT/init.env"
echo "$1 in $PWD" >> "$OUT/calls"
echo "hello from init"
if [ -e "$OUT/fail" ]; then echo "no luck" >&2; exit 3; fi
echo made > "$OUT/made"
echo "kubeconfig of $CLUSTER" > "$KUBECONFIG"
"#;
const RESET: &str = r#"set -eu
. "$(dirname "$0")/common.sh"
remove "$OUT/made"
echo "reset $ROLE" >> "$OUT/calls"
"#;

fn image(place: &Place) -> sealrs_image::spec::Descriptor {
    let files = [
        ("bin/greet", "#!/bin/sh\necho greetings \"$RegistryURL\"\n"),
        ("registry/docker/registry/v2/repositories/keep", ""),
        ("scripts/runtime/common.sh", "remove() { rm -f \"$1\"; }\n"),
        ("scripts/runtime/init.sh", INIT),
        ("scripts/runtime/reset.sh", RESET),
    ]
    .map(|(path, content)| (path, content.as_bytes()));
    let extension = json!({
        "env": {"FROM_IMAGE": "yes", "SvcCIDR": "10.96.0.0/22"},
        "launch": {"cmds": ["greet > \"$OUT/greeting\"", "cat $KUBECONFIG > \"$OUT/kubeconfig\""]},
    });
    place.image("script", &files, &extension)
}

#[test]
fn the_whole_way_and_back() {
    let place = Place::new();
    let image = image(&place);
    let out = place.path("out");
    fs::create_dir(&out).unwrap();
    let variable = format!("OUT={}", out.display());
    let port = free_port();

    let plan = succeeds(&place.run(&image, port, &[&variable, "--dry-run"]));
    assert!(
        plan.contains("[runtime-init]") && plan.contains("[command-2]"),
        "{plan}"
    );
    assert!(!plan.contains("hosts]"), "localhost needs no entry: {plan}");
    assert!(!place.root().exists(), "a dry run makes nothing");

    let said = succeeds(&place.run(&image, port, &[&variable]));
    assert!(said.contains("hello from init") && said.contains("Installed"), "{said}");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(read("greeting"), format!("greetings localhost:{port}\n"));
    assert_eq!(read("kubeconfig"), "kubeconfig of c\n");
    let rootfs = place.data().join("rootfs");
    assert_eq!(read("calls"), format!("master in {}\n", rootfs.display()));
    let environment = read("init.env");
    for line in [
        "CLUSTER=c".to_owned(),
        "FROM_IMAGE=yes".to_owned(),
        "KubeSvcIP=10.96.0.1".to_owned(),
        format!("REGISTRY_URL=localhost:{port}"),
        format!("ROOTFS={}", rootfs.display()),
        "ROLE=master".to_owned(),
    ] {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    assert!(!environment.contains("CARGO"), "{environment}");

    // The same again does nothing but look, and starts what was killed.
    let again = succeeds(&place.run(&image, port, &[&variable]));
    assert!(again.contains("AlreadyInstalled: 0 steps"), "{again}");
    let number = |extension: &str| {
        let file = place
            .data()
            .join("services/sealrs-registry-c")
            .with_extension(extension);
        fs::read_to_string(file).unwrap()
    };
    let program = number("pid");
    let id: u32 = program.strip_suffix('\n').unwrap().parse().unwrap();
    let command = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap();
    assert!(command.contains("registry\0serve"), "{command}");
    assert_eq!(number("restarts"), "0\n");
    for id in [number("lock").trim(), program.trim()] {
        std::process::Command::new("kill").args(["-9", id]).status().unwrap();
    }
    succeeds(&place.run(&image, port, &[&variable]));
    assert_eq!(read("calls").lines().count(), 1, "init.sh ran once");

    // Something else under the same name is refused.
    let other = place.run(&image, port, &[&variable, "MORE=1"]);
    assert!(
        text(&other).contains("is installed with other options"),
        "{}",
        text(&other)
    );
    assert_eq!(other.status.code(), Some(8));

    succeeds(&place.delete());
    assert_eq!(read("calls").lines().last(), Some("reset master"));
    assert!(!out.join("made").exists());
    assert!(!place.root().exists());
    assert_eq!(processes_of(&place.root()), Vec::<String>::new());
    let twice = succeeds(&place.delete());
    assert!(!twice.contains("error"), "{twice}");
}

#[test]
fn goes_on_from_the_step_that_failed() {
    let place = Place::new();
    let image = image(&place);
    let out = place.path("out");
    fs::create_dir(&out).unwrap();
    let variable = format!("OUT={}", out.display());
    let port = free_port();
    fs::write(out.join("fail"), "").unwrap();
    let failed = place.run(&image, port, &[&variable]);
    assert_eq!(failed.status.code(), Some(10));
    let said = text(&failed);
    for part in [
        "step `runtime-init` failed",
        "exit status: 3",
        "no luck",
        "run the same command again",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let before = fs::read_to_string(place.data().join("journal")).unwrap();
    fs::remove_file(out.join("fail")).unwrap();
    let said = succeeds(&place.run(&image, port, &[&variable]));
    assert!(said.contains("taking up the interrupted installation"), "{said}");
    let journal = fs::read_to_string(place.data().join("journal")).unwrap();
    let added = journal.strip_prefix(&before).unwrap();
    assert_eq!(
        added,
        "{\"begin\":\"runtime-init\"}\n{\"done\":\"runtime-init\"}\n\
         {\"begin\":\"command-1\"}\n{\"done\":\"command-1\"}\n\
         {\"begin\":\"command-2\"}\n{\"done\":\"command-2\"}\n\"finished\"\n"
    );
    // A reset that fails is told, keeps what is needed to try again, and does not keep the rest from going.
    fs::write(
        place.data().join("scripts/runtime/common.sh"),
        "remove() { echo stuck >&2; false; }\n",
    )
    .unwrap();
    let failed = place.delete();
    assert!(text(&failed).contains("stuck"), "{}", text(&failed));
    assert!(processes_of(&place.root()).is_empty());
    let run = place.run(&image, port, &[&variable]);
    assert!(
        text(&run).contains("the deletion of cluster `c` was begun"),
        "{}",
        text(&run)
    );
    fs::write(
        place.data().join("scripts/runtime/common.sh"),
        "remove() { rm \"$1\"; }\n",
    )
    .unwrap();
    succeeds(&place.delete());
    assert!(!place.root().exists() && !out.join("made").exists());
}

#[test]
fn a_damaged_image_leaves_nothing() {
    let place = Place::new();
    let image = image(&place);
    let layer = place.read(&image).manifest.layers[0].digest;
    let blob = place.store.blob_path(&layer);
    let mut bytes = fs::read(&blob).unwrap();
    let whole = bytes.len();
    bytes[600] ^= 1;
    for damaged in [bytes.clone(), bytes[..whole - 512].to_vec()] {
        let mut permissions = fs::metadata(&blob).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
        fs::set_permissions(&blob, permissions).unwrap();
        fs::write(&blob, damaged).unwrap();
        let refused = place.run(&image, free_port(), &["OUT=/nowhere"]);
        assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
        assert!(text(&refused).contains(&layer.to_string()), "{}", text(&refused));
        assert!(!place.root().exists());
    }
}

#[test]
fn an_image_that_can_not_be_planned_leaves_nothing() {
    let place = Place::new();
    let image = place.image("script", &[("bin/x", b"".as_slice())], &json!({}));
    let refused = place.run(&image, free_port(), &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("init.sh"), "{}", text(&refused));
    assert!(!place.root().exists());
    let extension = json!({"launch": {"app_names": ["redis"]}});
    let init = ("scripts/runtime/init.sh", b"touch /nowhere/x".as_slice());
    let image = place.image("script", &[init], &extension);
    let refused = place.run(&image, free_port(), &[]);
    assert!(text(&refused).contains("app `redis`"), "{}", text(&refused));
    assert!(!place.root().exists());
}

#[test]
fn a_port_that_is_taken_is_found_before_anything_is_made() {
    let place = Place::new();
    let image = image(&place);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = place.run(&image, port, &["OUT=/nowhere"]);
    assert_eq!(refused.status.code(), Some(9), "{}", text(&refused));
    assert!(text(&refused).contains(&format!("port {port}")), "{}", text(&refused));
    assert!(!place.root().exists());
}

#[test]
fn two_operators_keep_out_of_each_others_way() {
    let place = Place::new();
    let files = [(
        "scripts/runtime/init.sh",
        b"touch \"$OUT\"; while [ -e \"$OUT\" ]; do sleep 0.05; done\n".as_slice(),
    )];
    let image = place.image("script", &files, &json!({}));
    let out = place.path("flag");
    let variable = format!("OUT={}", out.display());
    let port = free_port();
    let mut first = place
        .command(&[])
        .args(place.arguments(&image, port, &[&variable]))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !out.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    for second in [place.run(&image, port, &[&variable]), place.delete()] {
        assert_eq!(second.status.code(), Some(8), "{}", text(&second));
        assert!(text(&second).contains("another sealrs is working"), "{}", text(&second));
    }
    // Killed in the middle of a script, whose second start ends the first.
    first.kill().unwrap();
    first.wait().unwrap();
    let init = processes_of(&place.data().join("rootfs/scripts/runtime/init.sh"));
    assert_eq!(init.len(), 1, "{init:?}");
    let (flag, script) = (out.clone(), place.data().join("rootfs/scripts/runtime/init.sh"));
    let waiter = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        let running = processes_of(&script);
        fs::remove_file(flag).unwrap();
        running
    });
    succeeds(&place.run(&image, port, &[&variable]));
    assert_eq!(waiter.join().unwrap().len(), 1, "the second one is alone");
}

#[test]
fn a_deletion_ends_the_script_of_a_killed_run() {
    let place = Place::new();
    let script = b"touch \"$OUT\"; while :; do sleep 0.05; done\n".as_slice();
    let image = place.image("script", &[("scripts/runtime/init.sh", script)], &json!({}));
    let out = place.path("flag");
    let mut run = place
        .command(&[])
        .args(place.arguments(&image, free_port(), &[&format!("OUT={}", out.display())]))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !out.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    succeeds(&place.delete());
    assert_eq!(processes_of(&place.root()), Vec::<String>::new());
    assert!(!place.root().exists());
}
