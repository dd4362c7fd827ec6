//! Across the gap on real parts: images of public names are built in and saved, the registries they came from go away,
//! and a host without network installs the file. Debian's containerd then pulls every image by its original name.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod support;
mod support_runtime;

use std::process::Command;

use support::{assert_has, needs, needs_root, run, succeed, text};
use support_runtime::host::{CLUSTER, GIVEN, Host, testdata};
use support_runtime::product::K3S;
use support_runtime::state::State;
use support_runtime::upstream::Upstream;

/// Makes this host a "cluster": Debian's containerd, with nothing set up for the private registry but what sealrs wrote.
const INIT: &str = "#!/bin/bash\n\
    set -eu\n\
    systemctl start containerd\n\
    for _ in $(seq 100); do ctr version >/dev/null 2>&1 && exit; sleep 0.1; done\n\
    echo 'containerd does not answer' >&2\n\
    exit 1\n";

const RESET: &str = "#!/bin/bash\n\
    set -eu\n\
    ctr -n k8s.io containers ls -q | xargs -r ctr -n k8s.io containers rm\n\
    systemctl stop containerd\n\
    rm -rf /var/lib/containerd /run/containerd\n\
    rmdir /etc/cni/net.d /etc/cni\n\
    find /sys/fs/cgroup -depth -type d -path '*/k8s.io*' -exec rmdir {} +\n";

/// A busybox with a file `/content`.
fn image_with(host: &Host, content: &str) -> String {
    let file = host.scratch.write(&format!("images/{content}/content"), content);
    let archive = host.scratch.path(&format!("images/{content}.tar"));
    let arguments = ["busybox", "docker.io/library/unnamed:1", &archive, &file];
    succeed(Command::new(testdata("images/make-image.sh")).args(arguments));
    archive
}

/// Builds in the network where the registries are, with layers that umoci can read, and saves for the host.
fn build(host: &Host, upstream: &Upstream<'_>, name: &str, [init, reset]: [&str; 2], image_list: &str) {
    let scratch = &host.scratch;
    let _ = std::fs::remove_dir_all(scratch.path("context"));
    scratch.write("context/imageList", image_list);
    scratch.write("context/etc/deep/motd", "hello");
    scratch.program("context/bin/tool", "#!/bin/sh\necho tool\n");
    if !scratch.exists("context/etc/link") {
        std::os::unix::fs::symlink("../bin/tool", scratch.path("context/etc/link")).unwrap();
        std::fs::hard_link(scratch.path("context/bin/tool"), scratch.path("context/bin/other")).unwrap();
    }
    scratch.program("context/scripts/runtime/init.sh", init);
    scratch.program("context/scripts/runtime/reset.sh", reset);
    let kubefile = "FROM scratch\n\
        LABEL cluster.alpha.sealer.io/cluster-runtime-type=script\n\
        COPY . .\n\
        COPY --chmod=0440 etc/deep/motd etc/\n\
        CMDS [\"bin/tool > said\"]\n";
    let kubefile = scratch.write("Kubefile", kubefile);
    let (root, context, ca) = (scratch.path("root"), scratch.path("context"), upstream.ca());
    let arguments = [
        "--root",
        &root,
        "--quiet",
        "build",
        "-f",
        &kubefile,
        "-t",
        name,
        "--compression",
        "gzip",
        "--ca-file",
        &ca,
        &context,
    ];
    succeed(&mut host.connected(env!("CARGO_BIN_EXE_sealrs"), &arguments));
    scratch.ok(&["save", name, "-o", &scratch.path(&format!("given/{name}.tar"))]);
}

/// Every path of a tree with its kind, mode, owner, link and content; hard links by their number.
const TREE: &str = r"cd $0; find . -mindepth 1 \( -path ./certs -o -path ./said \) -prune \
    -o -type d -printf '%p %y %m %U:%G\n' -o -printf '%p %y %m %U:%G %n %l\n' | sort; \
    find . \( -path ./certs -o -path ./said \) -prune -o -type f -exec sha256sum {} + | sort";

/// Ends the test, with the reason printed, where no host can be made or filled.
macro_rules! needs_hosts {
    () => {
        needs_root!();
        needs!(
            "sshd",
            "mkfs.ext4",
            "containerd",
            "ctr",
            "runc",
            "skopeo",
            "umoci",
            "docker-registry",
            "openssl",
            "gcc",
            "busybox",
        );
    };
}

#[test]
fn containerd_pulls_and_runs_everything_from_one_file() {
    needs_hosts!();
    let host = Host::boot(&K3S);
    let upstream = Upstream::start(&host);
    // The last one has a path that another host has as well.
    let names = [
        "docker.io/library/box:one",
        "quay.io/tools/box:two",
        "localhost:5000/team/box:three",
        "quay.io/team/box:other",
    ];
    let push = |name: &str| upstream.push(&image_with(&host, name.rsplit(':').next().unwrap()), name);
    let [one, two, three, other] = std::thread::scope(|scope| {
        names
            .map(|name| scope.spawn(move || push(name)))
            .map(|pushed| pushed.join().unwrap())
    });
    let list = format!(
        "box:one\nquay.io/tools/box:two@{two}\nlocalhost:5000/team/box@{three}\nlocalhost:5000/team/box:three\nquay.io/team/box:other\n"
    );
    build(&host, &upstream, "airgap", [INIT, RESET], &list);
    drop(upstream);

    // containerd makes them where they are not, and leaves them.
    host.ok("install -d -m 711 /opt/containerd /opt/containerd/bin /opt/containerd/lib");
    let before = State::of(&host);
    let summary = host.run(&format!("{GIVEN}/airgap.tar"), &[]);
    assert_eq!(summary["outcome"], "installed");
    assert_has(&host.ok("cat /etc/hosts"), &["sea.hub"]);
    host.ok("systemctl is-active --quiet sealrs-registry-my-cluster");

    let pull = |name: &str| {
        host.bash(&format!(
            "ctr -n k8s.io images pull --hosts-dir /etc/containerd/certs.d {name}"
        ))
    };
    for (name, digest, content) in [
        ("docker.io/library/box:one".to_owned(), one, "one"),
        (format!("docker.io/library/box@{one}"), one, "one"),
        (format!("docker.io/library/box:one@{one}"), one, "one"),
        ("quay.io/tools/box:two".to_owned(), two, "two"),
        (format!("quay.io/tools/box@{two}"), two, "two"),
        (format!("quay.io/tools/box:two@{two}"), two, "two"),
        ("localhost:5000/team/box:three".to_owned(), three, "three"),
        (format!("localhost:5000/team/box@{three}"), three, "three"),
        (format!("localhost:5000/team/box:three@{three}"), three, "three"),
        ("quay.io/team/box:other".to_owned(), other, "other"),
    ] {
        succeed(&mut pull(&name));
        let listed = host.ok(&format!("ctr -n k8s.io images ls name=={name}"));
        assert_has(&listed, &[&digest.to_string()]);
        if !name.contains('@') {
            assert_eq!(
                host.ok(&format!("ctr -n k8s.io run --rm {name} c cat /content")),
                content,
                "{name}"
            );
        }
    }
    // What is not inside is not had, and no network is to thank for what is.
    assert!(!pull("quay.io/team/box:three").output().unwrap().status.success());
    assert!(host.ok("ip route get 1.1.1.1 >/dev/null 2>&1; timeout 3 bash -c 'exec 3<>/dev/tcp/1.1.1.1/443' 2>/dev/null || echo none").contains("none"));

    // Any OCI tool unpacks the file to the tree that is installed.
    let (archive, layout) = (host.scratch.path("given/airgap.tar"), host.scratch.path("layout"));
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "--quiet",
            &format!("oci-archive:{archive}"),
            &format!("oci:{layout}:1"),
        ],
    );
    let unpacked = host.scratch.path("unpacked");
    run(
        "umoci",
        &["raw", "unpack", "--image", &format!("{layout}:1"), &unpacked],
    );
    let theirs = text(&run("bash", &["-c", TREE, &unpacked]));
    let ours = succeed(&mut host.hosts(&["exec", "1", "bash", "-c", TREE, &format!("{CLUSTER}/rootfs")]));
    assert_has(
        &ours,
        &[
            "./etc/motd f 440 0:0 1",
            "./bin/tool f 755 0:0 2",
            "./etc/link l 777 0:0 1 ../bin/tool",
            "/registry/",
        ],
    );
    assert_eq!(ours, theirs);
    assert_eq!(host.ok(&format!("cat {CLUSTER}/rootfs/said")), "tool\n");

    let again = host.run(&format!("{GIVEN}/airgap.tar"), &[]);
    assert_eq!(
        (&again["outcome"], &again["steps"]),
        (&"already-installed".into(), &0.into())
    );

    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");
    assert_eq!(host.delete(), "absent");
}

#[test]
fn two_clusters_with_images_of_one_registry_share_containerd_and_go_in_either_order() {
    needs_hosts!();
    let host = Host::boot(&K3S);
    let upstream = Upstream::start(&host);
    for name in ["one", "two"] {
        upstream.push(&image_with(&host, name), &format!("docker.io/library/box:{name}"));
        let scripts = ["#!/bin/bash\n"; 2];
        build(&host, &upstream, name, scripts, &format!("box:{name}\n"));
    }
    drop(upstream);
    host.ok("mkdir -p /etc/docker /etc/containerd/certs.d/docker.io
        echo 'server = \"https://mirror.example\"' >/etc/containerd/certs.d/docker.io/hosts.toml
        systemctl start containerd");
    let look = || {
        host.ok("cat /etc/hosts /etc/containerd/certs.d/docker.io/hosts.toml
            find /etc/containerd /etc/docker /var/lib/sealer -printf '%p %y %m\\n' 2>&1 | sort")
    };
    let pulls = |name: &str| {
        let line = format!("ctr images pull --hosts-dir /etc/containerd/certs.d docker.io/library/box:{name}");
        host.bash(&line).output().unwrap().status.success()
    };
    let delete = |name: &str| succeed(&mut host.sealrs(&["delete", "--all", "--force", "--cluster", name]));
    let before = look();
    for [first, last] in [["one", "two"], ["two", "one"]] {
        host.run(&format!("{GIVEN}/one.tar"), &["--cluster", "one"]);
        // Also where the other's registry is down: containerd tells them apart by their address.
        host.ok("systemctl stop sealrs-registry-one");
        let (said, _) = host.run_fails(9, &format!("{GIVEN}/two.tar"), &["--cluster", "two"]);
        assert_has(&said, &["cluster `one`", "sea.hub:5000", "--registry-port"]);
        host.ok("systemctl start sealrs-registry-one");
        let other = ["--cluster", "two", "--registry-port", "5001"];
        host.run(&format!("{GIVEN}/two.tar"), &other);
        host.wait_for(
            "both registries",
            "for p in 5000 5001; do exec 3<>/dev/tcp/127.0.0.1/$p || exit; done",
        );
        assert!(pulls("one") && pulls("two"));
        delete(first);
        assert!(!pulls(first) && pulls(last), "{first} is gone, {last} is not");
        delete(last);
        assert_eq!(look(), before);
    }
}
