//! `sealrs run` and `delete` with runtime `script`, without root rights and under a scratch root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};
use support::cluster::{Cluster, below};
use support::images::push;
use support::registry::{Registry, Setup};
use support::{Running, assert_has, fail, json, needs, noise, outcome, run, shape, succeed, text, wait_until};

const INIT: &str =
    "#!/bin/bash\nset -eu\nenv | sort > \"$ROOTFS/../seen\"\necho \"init $*\"\necho config > \"$KUBECONFIG\"\n";

fn minimal() -> [(&'static str, &'static str); 2] {
    [("scripts/runtime/init.sh", INIT), ("etc/motd", "hello")]
}

#[test]
fn installs_serves_and_is_removed_without_a_trace() {
    needs!("docker-registry", "skopeo", "curl");
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    let upstream = Registry::start(&Setup::default());
    let digest = push(
        scratch,
        &upstream,
        "team/app:v1",
        &["linux/amd64"],
        &[noise(1, 300_000), b"x".to_vec()],
    );
    let list = format!("{}/team/app:v1\n", upstream.host());
    let files = [minimal()[0], minimal()[1], ("imageList", &list)];
    cluster.image(
        "x",
        &files,
        "ENV GREETING=hello\nCMDS [\"echo $GREETING $WHO > commands-ran\"]",
    );
    drop(upstream);

    let before = below(&scratch.path(""));
    let ran = json(&mut cluster.run("x.tar", &["-e", "WHO=you"]));
    assert_eq!(
        (&ran["cluster"], &ran["runtime"]),
        (&json!("my-cluster"), &json!("script")),
        "{ran}"
    );
    assert_eq!(cluster.read("kubeconfig"), "config\n");
    assert_eq!(cluster.read("rootfs/etc/motd"), "hello");
    assert_eq!(cluster.read("rootfs/commands-ran"), "hello you\n");
    assert_has(&cluster.read("log/runtime-init.log"), &["init master"]);
    let seen = format!("\n{}", cluster.read("seen"));
    let root = scratch.path("root/data/my-cluster");
    for (name, value) in [
        ("ROOTFS", format!("{root}/rootfs")),
        ("CLUSTER", "my-cluster".to_owned()),
        ("ROLE", "master".to_owned()),
        ("REGISTRY_URL", format!("localhost:{}", cluster.port)),
        ("RegistryURL", format!("localhost:{}", cluster.port)),
        ("REGISTRY_CA", format!("{root}/pki/ca.crt")),
        ("KUBECONFIG", format!("{root}/kubeconfig")),
        ("GREETING", "hello".to_owned()),
        ("WHO", "you".to_owned()),
    ] {
        assert_has(&seen, &[&format!("\n{name}={value}\n")]);
    }
    // Secrets are nobody else's.
    for (path, entry) in below(&root) {
        if path.ends_with(".key") {
            assert!(entry.starts_with("100600 "), "{path} {entry}");
        }
    }

    // The private registry serves the image under a certificate of its own authority.
    fs::create_dir(scratch.path("certs")).unwrap();
    fs::copy(format!("{root}/pki/ca.crt"), scratch.path("certs/ca.crt")).unwrap();
    let target = format!("oci:{}", scratch.path("pulled"));
    for name in ["team/app:v1".to_owned(), format!("team/app@{digest}")] {
        let source = format!("docker://localhost:{}/{name}", cluster.port);
        run(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--quiet",
                "--src-cert-dir",
                &scratch.path("certs"),
                &source,
                &target,
            ],
        );
    }
    fs::remove_dir_all(scratch.path("pulled")).unwrap();
    fs::remove_dir_all(scratch.path("certs")).unwrap();

    // Again: nothing is done, but what has died is started.
    let installed = cluster.state();
    let journal = cluster.read("journal");
    assert_has(
        &succeed(&mut cluster.run("x.tar", &["-e", "WHO=you"])),
        &["was installed before"],
    );
    assert_eq!(cluster.read("journal"), journal);
    for line in cluster.processes() {
        assert_has(&line, &["sealrs"]);
    }
    cluster.kill_all();
    succeed(&mut cluster.run("x.tar", &["-e", "WHO=you"]));
    let health = format!("https://localhost:{}/v2/", cluster.port);
    run("curl", &["-sf", "--cacert", &format!("{root}/pki/ca.crt"), &health]);
    assert_eq!(cluster.state(), installed);

    // Another image or other options are another installation.
    let said = fail(&mut cluster.run("x.tar", &["-e", "WHO=me"]), 8);
    assert_has(
        &said,
        &[
            "is installed with other options: -e WHO has another value now",
            "sealrs delete --all --force",
        ],
    );
    let said = fail(&mut cluster.command(&[], &["delete", "--all"]), 2);
    assert_has(&said, &["--force"]);
    assert_has(&fail(&mut cluster.command(&[], &["delete"]), 2), &["--all"]);

    let deleted = json(&mut cluster.delete());
    cluster.assert_gone("deleted");
    assert_eq!(below(&scratch.path("")), before, "and nothing beside it");
    insta::assert_json_snapshot!("json-shapes", [shape(&ran), shape(&deleted)]);
    assert_has(&succeed(&mut cluster.delete()), &["there is no cluster `my-cluster`"]);
}

#[test]
fn dry_run_prints_the_plan_and_does_nothing() {
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    cluster.image("x", &minimal(), "ENV OF_IMAGE=1\nCMDS [\"login --password $PASSWORD\"]");
    let before = below(&scratch.path(""));
    // A value that is not on the command line.
    let run = |more: &[&str]| {
        let flags = [&["--dry-run", "-e", "PASSWORD"], more].concat();
        let mut command = cluster.run("x.tar", &flags);
        command.env("PASSWORD", "s3cret-word");
        command
    };
    let plan = succeed(&mut run(&[]));
    let document = json(&mut run(&[]));
    let of_plan = document["digest"].as_str().unwrap().to_owned();
    let document = document.to_string();
    assert_eq!(below(&scratch.path("")), before);
    let said = fail(&mut run(&["-e", "UNSET"]), 2);
    assert_has(&said, &["UNSET", "is not set"]);
    for text in [&plan, &document, &said] {
        assert!(!text.contains("s3cret-word"), "{text}");
    }
    for text in [&plan, &document] {
        assert_has(text, &["login --password $PASSWORD"]);
    }
    let host = succeed(scratch.command("cat").arg("/proc/sys/kernel/hostname"));
    let digest = scratch.json(&["inspect", "x.tar"])["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let plan = plan
        .replace(&scratch.path("root"), "ROOT")
        .replace(&cluster.port.to_string(), "PORT")
        .replace(&digest, "DIGEST")
        .replace(&of_plan, "PLAN")
        .replace(host.trim(), "HOST");
    let (_, address) = plan.split_once(" on ").unwrap();
    let plan = plan.replace(address.split_once(':').unwrap().0, "ADDRESS");
    insta::assert_snapshot!("plan", plan);
    cluster.assert_gone("a dry run");
}

#[test]
fn a_dry_run_tells_what_stands_against_the_plan() {
    let cluster = Cluster::new();
    cluster.image("x", &minimal(), "");
    let dry_run = |more: &[&str]| cluster.run("x.tar", &[&["--dry-run"], more].concat());
    let taken = TcpListener::bind(("127.0.0.1", cluster.port)).unwrap();
    let refused = dry_run(&[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(9));
    assert_has(&text(&refused.stdout), &["[runtime-init]"]);
    assert_has(&text(&refused.stderr), &[&format!("port {}", cluster.port), "hint:"]);
    drop(taken);
    cluster.assert_gone("a dry run");

    // An installed cluster's own registry is not in the way; other options are.
    succeed(&mut cluster.run("x.tar", &[]));
    succeed(&mut dry_run(&[]));
    let said = fail(&mut dry_run(&["-e", "A=b"]), 8);
    assert_has(&said, &["is installed with other options"]);
}

#[test]
fn a_failed_step_is_told_and_taken_up_when_it_is_mended() {
    let cluster = Cluster::new();
    let init = "#!/bin/bash\nset -eu\necho attempt >> \"$ROOTFS/../attempts\"\necho checking the disk\n\
                test -e \"$MARK\" || { echo 'the disk is on fire' >&2; exit 7; }\n";
    let reset = "#!/bin/bash\necho reset >> \"$MARK.reset\"\n";
    let files = [("scripts/runtime/init.sh", init), ("scripts/runtime/reset.sh", reset)];
    cluster.image("x", &files, "CMDS [\"test -e $MARK.second\"]");
    let mark = cluster.scratch.path("mark");
    let variable = format!("MARK={mark}");
    let flags = ["-e", variable.as_str()];
    let said = fail(&mut cluster.run("x.tar", &flags), 10);
    assert_has(
        &said,
        &[
            "make the cluster",
            "the disk is on fire",
            "7",
            "runtime-init.log",
            "hint:",
        ],
    );
    assert_has(
        &cluster.read("log/runtime-init.log"),
        &["checking the disk", "the disk is on fire"],
    );
    let said = fail(&mut cluster.run("x.tar", &flags), 10);
    assert_has(
        &said,
        &["taking up the interrupted installation", "the disk is on fire"],
    );

    cluster.scratch.write("mark", "");
    let said = fail(&mut cluster.run("x.tar", &flags), 10);
    assert_has(&said, &["test -e $MARK.second", "command-1.log"]);
    cluster.scratch.write("mark.second", "");
    succeed(&mut cluster.run("x.tar", &flags));
    assert_eq!(
        cluster.read("attempts").lines().count(),
        3,
        "what was done is not done again"
    );
    assert_eq!(cluster.read("journal").matches(r#"{"begin":"unpack"}"#).count(), 1);

    succeed(&mut cluster.delete());
    cluster.assert_gone("deleted");
    assert_eq!(text(&cluster.scratch.read("mark.reset")), "reset\n");

    // Removed after a failure, it is as if it had never been.
    fs::remove_file(&mark).unwrap();
    fail(&mut cluster.run("x.tar", &flags), 10);
    succeed(&mut cluster.delete());
    cluster.assert_gone("deleted after a failure");
    succeed(&mut cluster.delete());
    assert_eq!(text(&cluster.scratch.read("mark.reset")).lines().count(), 2);
}

#[test]
fn two_operators_at_once() {
    let cluster = Cluster::new();
    let init = "#!/bin/bash\ntouch \"$ROOTFS/../waiting\"\nwhile ! [ -e \"$GO\" ]; do sleep 0.05; done\n";
    cluster.image("x", &[("scripts/runtime/init.sh", init)], "");
    let variable = format!("GO={}", cluster.scratch.path("go"));
    let mut first = Running::start(&mut cluster.run("x.tar", &["-e", &variable, "--quiet"]));
    wait_until("the first is at work", || {
        cluster.scratch.exists(&cluster.data("waiting"))
    });
    for command in [&mut cluster.run("x.tar", &["-e", &variable]), &mut cluster.delete()] {
        let said = fail(command, 8);
        assert_has(&said, &["my-cluster", "hint:"]);
    }
    assert!(first.is_running());
    cluster.scratch.write("go", "");
    assert!(first.0.wait().unwrap().success());
    succeed(&mut cluster.run("x.tar", &["-e", &variable]));
}

#[test]
fn preflight_tells_everything_before_anything_is_done() {
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    let init = [minimal()[0]];
    cluster.image("x", &init, "");
    let taken = TcpListener::bind(("127.0.0.1", cluster.port)).unwrap();
    let before = below(&scratch.path(""));
    let said = fail(&mut cluster.run("x.tar", &[]), 9);
    assert_has(&said, &[&cluster.port.to_string(), "hint:"]);
    assert_eq!(below(&scratch.path("")), before);
    let error: Value =
        serde_json::from_str(fail(cluster.run("x.tar", &[]).args(["--output", "json", "--quiet"]), 9).trim()).unwrap();
    assert_eq!(error["code"], "preflight");
    drop(taken);

    // Images that can't be installed.
    scratch.write("context/a", "a");
    for (name, kubefile, flags, words) in [
        (
            "odd",
            "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=odd\nCOPY . .\n",
            &[][..],
            "odd",
        ),
        (
            "noinit",
            "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=script\nCOPY a /\n",
            &[],
            "init.sh",
        ),
    ] {
        scratch.build(&format!("{name}:1"), kubefile, flags);
        let (code, said) = outcome(&mut cluster.run(&format!("{name}:1"), &[]));
        assert_eq!(code, Some(2), "{name}: {said}");
        assert_has(&said, &[words, "hint:"]);
        cluster.assert_gone(name);
    }
    // The platform of another machine.
    let kubefile = "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=script\nCOPY . .\n";
    scratch.build("other:1", kubefile, &["--platform", "linux/s390x"]);
    let (code, said) = outcome(&mut cluster.run("other:1", &[]));
    assert!(matches!(code, Some(3 | 9)), "{said}");
    assert_has(&said, &["s390x"]);
    let (same, said) = outcome(&mut cluster.run("other:1", &["--dry-run"]));
    assert_eq!(same, code);
    assert_has(&said, &["s390x"]);
    // Options that make no sense.
    for flags in [
        ["--cluster", "../x"],
        ["--registry-domain", "a b"],
        ["--registry-port", "0"],
        ["--host-ip", "x"],
        ["--host-ip", "192.0.2.77"],
        ["-e", "X"],
    ] {
        let (code, said) = outcome(&mut cluster.run("x.tar", &flags));
        assert_eq!(code, Some(2), "{flags:?}: {said}");
    }
    cluster.assert_gone("refused");

    // What was refused for its place can be installed there later, from the store as well.
    succeed(&mut cluster.run("x:1", &[]));
    assert_eq!(cluster.read("kubeconfig"), "config\n");
}

#[test]
fn a_disk_that_is_too_small_is_noticed_first() {
    support::needs_root!();
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    scratch.write("context/payload", noise(1, 3 << 20));
    scratch.program("context/scripts/runtime/init.sh", INIT);
    let kubefile = "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=script\nCOPY . .\n";
    scratch.build("x:1", kubefile, &[]);
    scratch.ok(&["save", "x:1", "-o", "x.tar"]);
    fs::create_dir_all(scratch.path("root/data")).unwrap();
    let data = scratch.path("root/data");
    if !scratch
        .command("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs", &data])
        .status()
        .unwrap()
        .success()
    {
        println!("skipped: no tmpfs can be mounted here");
        return;
    }
    let (code, said) = outcome(&mut cluster.run("x.tar", &[]));
    let left = below(&data);
    succeed(scratch.command("umount").args(["-l", &data]));
    assert_eq!(code, Some(9), "{said}");
    assert_has(&said, &[&data, "MiB", "free", "hint:"]);
    assert!(left.is_empty(), "{left:?}");
    fs::remove_dir(&data).unwrap();
}

#[test]
fn the_images_own_registry_script_wins_and_apps_are_launched() {
    let cluster = Cluster::new();
    let record = "#!/bin/bash\necho \"${0##*/} $*\" >> \"$ROOTFS/../calls\"\n";
    // It is called in its folder, with the port, the registry's folder and the domain.
    let registry = "#!/bin/bash\nset -eu\necho \"init-registry $*\" >> ../../calls\n\
        setsid sealrs registry serve --dir \"$2\" --listen \"127.0.0.1:$1\" --tls-cert \"../certs/$3.crt\" \
        --tls-key \"../certs/$3.key\" </dev/null >/dev/null 2>&1 &\necho $! > \"$CALLS.pid\"\n";
    let gone = "#!/bin/bash\necho \"uninstall-registry $*\" >> \"$CALLS\"\nkill -9 \"$(cat \"$CALLS.pid\")\"\n";
    let files = [
        minimal()[0],
        ("scripts/init-registry.sh", registry),
        ("scripts/uninstall-registry.sh", gone),
        ("bin/kubectl", record),
        ("bin/helm", record),
        ("web.yaml", "kind: Pod"),
        ("chart/Chart.yaml", "name: c"),
        ("chart/values.yaml", ""),
        ("chart/templates/a.yaml", ""),
        ("hello.sh", "echo \"shell $WHO\" >> \"$ROOTFS/../calls\""),
    ];
    let instructions = "APP web local://web.yaml\nAPP chart local://chart\nAPP hello local://hello.sh\nAPP own local://web.yaml\nAPPCMDS own [\"echo own $WHO >> $ROOTFS/../calls\"]\nAPPENV hello WHO=world\nAPPENV own WHO=you\nLAUNCH web hello chart own";
    cluster.image("x", &files, instructions);
    let calls = format!("CALLS={}", cluster.scratch.path("calls-of-delete"));
    succeed(&mut cluster.run("x.tar", &["-e", &calls]));
    let called = cluster.read("calls");
    let lines: Vec<&str> = called.lines().collect();
    let registry = cluster.scratch.path(&cluster.data("rootfs/registry"));
    let arguments = format!("{} {registry} localhost", cluster.port);
    assert_eq!(lines[0], format!("init-registry {arguments}"));
    assert_has(lines[1], &["kubectl", "apply -f", "web.yaml"]);
    assert_eq!(lines[2], "shell world");
    assert_has(lines[3], &["helm", "upgrade", "chart"]);
    assert_eq!(lines[4], "own you");
    assert_eq!(
        cluster.processes().len(),
        1,
        "its own script, its own registry: {:?}",
        cluster.processes()
    );
    succeed(&mut cluster.delete());
    cluster.assert_gone("deleted");
    let called = text(&cluster.scratch.read("calls-of-delete"));
    assert_eq!(called, format!("uninstall-registry {arguments}\n"));

    // What is launched can be chosen.
    let record = format!("OUT={}", cluster.scratch.path("out"));
    succeed(&mut cluster.run(
        "x.tar",
        &[
            "-e",
            &record,
            "-e",
            &calls,
            "--cmds",
            "echo chosen > $OUT",
            "--cluster",
            "other",
        ],
    ));
    assert_eq!(text(&cluster.scratch.read("out")), "chosen\n");
    assert!(Path::new(&cluster.scratch.path("root/data/other")).exists());
    succeed(&mut cluster.command(&[], &["delete", "--all", "--force", "--cluster", "other"]));
    cluster.assert_gone("the other one deleted");
}

/// Stands for docker: knows one container, whose id is in a file beside it.
const DOCKER: &str = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ncase \"$1\" in\n\
    run) test -e id || echo ours >id ;;\n\
    ps) test -e down && exit 1; test -e id && echo \"$(cat id) sealer-registry\"; exit 0 ;;\n\
    rm) echo \"$*\" >removed; rm id ;;\nesac\n";

#[test]
fn a_container_of_the_registrys_name_stays_if_it_was_there_before() {
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    let registry = "#!/bin/bash\nset -eu\ndocker run --name sealer-registry registry\n\
        setsid sealrs registry serve --dir \"$2\" --listen \"127.0.0.1:$1\" --tls-cert \"../certs/$3.crt\" \
        --tls-key \"../certs/$3.key\" </dev/null >/dev/null 2>&1 &\necho $! > \"$PID\"\n";
    let gone = "#!/bin/bash\nkill -9 \"$(cat \"$PID\")\"\n";
    let files = [
        minimal()[0],
        ("scripts/init-registry.sh", registry),
        ("scripts/uninstall-registry.sh", gone),
    ];
    cluster.image("x", &files, "");
    scratch.program("tools/docker", DOCKER);
    let path = format!("{}:{}", scratch.path("tools"), std::env::var("PATH").unwrap());
    let variable = format!("PID={}", scratch.path("pid"));
    let there_and_back = || {
        succeed(cluster.run("x.tar", &["-e", &variable]).env("PATH", &path));
        succeed(cluster.delete().env("PATH", &path));
        cluster.assert_gone("deleted");
    };
    there_and_back();
    assert_eq!(text(&scratch.read("tools/removed")), "rm --force ours\n");
    fs::remove_file(scratch.path("tools/removed")).unwrap();
    scratch.write("tools/id", "theirs");
    there_and_back();
    assert_eq!(text(&scratch.read("tools/id")), "theirs");
    assert!(!scratch.exists("tools/removed"));
    // What did not answer then may have had it before.
    scratch.write("tools/down", "");
    let registry_down = registry.replace("docker run --name sealer-registry registry\n", "");
    cluster.image(
        "y",
        &[files[0], ("scripts/init-registry.sh", &registry_down), files[2]],
        "",
    );
    succeed(cluster.run("y.tar", &["-e", &variable]).env("PATH", &path));
    fs::remove_file(scratch.path("tools/down")).unwrap();
    let (_, said) = outcome(cluster.delete().env("PATH", &path));
    assert_has(&said, &["kept the container sealer-registry", "did not answer"]);
    assert_eq!(text(&scratch.read("tools/id")), "theirs");
    cluster.assert_gone("deleted, but for the container");
}

#[test]
fn templates_are_filled_in_before_anything_reads_them() {
    let cluster = Cluster::new();
    let template = "registry: {{ .RegistryURL }}\nwho: {{ .WHO | b64enc }}\nreplicas: {{ or .Replicas \"1\" }}\n";
    let files = [
        (
            "scripts/runtime/init.sh",
            "cat ../etc/app.yaml etc/app.yaml > \"$ROOTFS/../seen\" 2>/dev/null || true\n",
        ),
        ("etc/app.yaml.tmpl", template),
        ("scripts/left.tmpl", "{{ .Alone }}"),
    ];
    cluster.image("x", &files, "ENV WHO=image");
    let ran = json(&mut cluster.run("x.tar", &["-e", "WHO=you"]));
    assert_eq!(ran["cluster"], json!("my-cluster"), "{ran}");
    let expected = format!("registry: localhost:{}\nwho: eW91\nreplicas: 1\n", cluster.port);
    assert_eq!(cluster.read("rootfs/etc/app.yaml"), expected);
    assert_eq!(cluster.read("seen"), expected);
    assert_eq!(cluster.read("rootfs/scripts/left.tmpl"), "{{ .Alone }}");
}

#[test]
fn a_template_that_prints_what_is_not_set_changes_nothing() {
    let cluster = Cluster::new();
    let files = [
        minimal()[0],
        ("manifests/app.yaml.tmpl", "a: 1\nkey: {{ .LicenceKey }}\n"),
    ];
    cluster.image("x", &files, "");
    let before = below(&cluster.scratch.path(""));
    for flags in [&[][..], &["--dry-run"]] {
        let error = fail(&mut cluster.run("x.tar", flags), 2);
        let words = [
            "manifests/app.yaml.tmpl:2",
            "`LicenceKey` is not set",
            "-e LicenceKey=VALUE",
        ];
        assert_has(&error, &words);
    }
    assert_eq!(below(&cluster.scratch.path("")), before);
    succeed(&mut cluster.run("x.tar", &["-e", "LicenceKey=1"]));
    assert_eq!(cluster.read("rootfs/manifests/app.yaml"), "a: 1\nkey: 1\n");
}

#[test]
fn variables_can_neither_hide_the_hosts_programs_nor_replace_what_sealrs_sets() {
    let cluster = Cluster::new();
    cluster.image("x", &minimal(), "ENV PATH=/opt/nothing");
    for (variable, hint) in [("CLUSTER=c4", "--cluster"), ("RegistryURL=x", "--registry-domain")] {
        let said = fail(&mut cluster.run("x.tar", &["-e", variable]), 2);
        assert_has(&said, &["is set by sealrs itself", hint]);
    }
    for flags in [&[][..], &["-e", "PATH=/x:/y"]] {
        succeed(&mut cluster.run("x.tar", flags));
        let first = flags
            .last()
            .map_or("/opt/nothing", |path| path.trim_start_matches("PATH="));
        let seen = cluster.read("seen");
        let path = seen.lines().find(|line| line.starts_with("PATH=")).unwrap();
        assert_has(path, &[&format!(":{first}:"), "/usr/bin"]);
        succeed(&mut cluster.delete());
        cluster.assert_gone("deleted");
    }
}

/// An app whose script fails until `$MARK` is there, in a version.
fn app(cluster: &Cluster, version: &str) {
    let _ = fs::remove_dir_all(cluster.scratch.path("context"));
    let script = format!("#!/bin/bash\nset -e\necho {version} >> \"$ROOTFS/../../../launched\"\ntest -e \"$MARK\"\n");
    cluster.scratch.program("context/shop.sh", &script);
    let kubefile = "FROM scratch\nAPP shop local://shop.sh\nLAUNCH shop\n";
    cluster
        .scratch
        .build(&format!("shop:{version}"), kubefile, &["--type", "app-installer"]);
}

#[test]
fn apps_come_onto_a_cluster_of_this_host_and_go_on_when_they_failed() {
    let cluster = Cluster::new();
    cluster.image("x", &minimal(), "");
    let variable = format!("MARK={}", cluster.scratch.path("mark"));
    let run = |image: &str| cluster.command(&[], &["run", image, "-e", &variable]);
    app(&cluster, "1");
    app(&cluster, "2");
    assert_has(
        &fail(&mut run("shop:1"), 3),
        &["there is no cluster `my-cluster`", "hint: install it first"],
    );
    cluster.assert_gone("apps without a cluster");
    succeed(&mut cluster.run("x.tar", &["-e", &variable]));
    let whole = cluster.state();
    let list = || json(&mut cluster.command(&[], &["app", "list"]));
    assert_eq!(list(), serde_json::json!([]));
    assert_has(
        &fail(&mut run("shop:1"), 10),
        &["step `app-shop` failed", "app-shop.log"],
    );
    assert_eq!(
        (&list()[0]["name"], &list()[0]["state"]),
        (&"shop".into(), &"launching".into())
    );
    // The cluster's own life is another one.
    assert_has(
        &succeed(&mut cluster.run("x.tar", &["-e", &variable])),
        &["was installed before"],
    );
    cluster.scratch.write("mark", "");
    succeed(&mut run("shop:1"));
    assert_eq!(
        (&list()[0]["kind"], &list()[0]["state"]),
        (&"shell".into(), &"launched".into())
    );
    succeed(&mut run("shop:2"));
    assert_eq!(cluster.read("launched"), "1\n1\n2\n");
    assert_eq!(
        cluster.scratch.list(&cluster.data("apps")).len(),
        1,
        "the older one's files are gone"
    );

    let clusterfile = "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: my-cluster}\nspec:\n  hosts: [{roles: [master], ips: \
        [127.0.0.1]}]\n---\napiVersion: sealer.io/v2\nkind: Application\nmetadata: {name: a}\nspec:\n  configs:\n  - name: shop\n    \
        env: [WHAT=sold]\n    launch: {cmds: ['echo $WHAT >> ../../../launched']}\n    delete: {cmds: ['echo out >> ../../../launched']}\n";
    cluster.scratch.write("Shop", clusterfile);
    assert_has(
        &fail(&mut cluster.command(&[], &["app", "delete", "shop", "--force"]), 2),
        &["type shell"],
    );
    succeed(&mut cluster.command(&[], &["apply", "-f", "Shop", "shop:2"]));
    succeed(&mut cluster.command(&[], &["app", "delete", "shop", "--force"]));
    assert_eq!(cluster.read("launched"), "1\n1\n2\nsold\nout\n");
    assert_eq!(list(), serde_json::json!([]));
    assert!(cluster.scratch.list(&cluster.data("apps")).is_empty());
    let left = cluster.state();
    let others = left.keys().filter(|path| !whole.contains_key(*path));
    let known = |path: &&String| {
        !["apps", "apps.json", "launched", "log/"]
            .iter()
            .any(|known| path.starts_with(known))
    };
    assert_eq!(others.filter(known).collect::<Vec<_>>(), Vec::<&String>::new());
    succeed(&mut cluster.delete());
    cluster.assert_gone("deleted with its apps");
}
