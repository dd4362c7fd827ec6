//! The user's own registry on the far side: a host without network pulls every image by its original name, through the
//! configuration that `push --container-images-to` printed.

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

use support::{assert_has, needs, needs_root, succeed};
use support_runtime::host::{GIVEN, Host, SEALRS, testdata};
use support_runtime::product::K3S;
use support_runtime::upstream::Upstream;

/// A registry with TLS on the host, under a name of its own.
const REGISTRY: &str = "set -eu
    mkdir -p /opt/registry && cd /opt/registry
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 10 \
        -subj /CN=ca -addext basicConstraints=critical,CA:TRUE
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=r
    echo subjectAltName=DNS:registry.local >names
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 10 -extfile names -out server.crt
    cat >config.yml <<END
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: /opt/registry/storage}}
http: {addr: '127.0.0.1:5443', secret: test, tls: {certificate: /opt/registry/server.crt, key: /opt/registry/server.key}}
END
    echo 127.0.0.1 registry.local >>/etc/hosts
    systemd-run --quiet --unit test-registry docker-registry serve /opt/registry/config.yml
    systemctl start containerd
    for _ in $(seq 200); do
        if ctr version >/dev/null 2>&1 && (exec 3<>/dev/tcp/127.0.0.1/5443) 2>/dev/null; then exit; fi
        sleep 0.1
    done
    exit 1
";

#[test]
fn containerd_pulls_by_original_names_from_a_registry_of_ones_own() {
    needs_root!();
    needs!(
        "sshd",
        "mkfs.ext4",
        "containerd",
        "ctr",
        "skopeo",
        "docker-registry",
        "openssl",
        "gcc",
        "busybox"
    );
    let host = Host::boot(&K3S);
    let upstream = Upstream::start(&host);
    let push = |content: &str, name: &str| {
        let file = host.scratch.write(&format!("images/{content}/content"), content);
        let archive = host.scratch.path(&format!("images/{content}.tar"));
        let arguments = ["busybox", "docker.io/library/unnamed:1", &archive, &file];
        succeed(Command::new(testdata("images/make-image.sh")).args(arguments));
        upstream.push(&archive, name)
    };
    let one = push("one", "docker.io/library/box:one");
    let two = push("two", "quay.io/library/box:two");
    let three = push("three", "localhost:5000/team/box:three");
    host.scratch.write(
        "context/imageList",
        format!("box:one\nquay.io/library/box:two\nlocalhost:5000/team/box:three\nquay.io/library/box@{two}\n"),
    );
    let kubefile = host.scratch.write("Kubefile", "FROM scratch\nCOPY . .\n");
    let (root, context, ca) = (host.scratch.path("root"), host.scratch.path("context"), upstream.ca());
    let arguments = [
        "--root",
        &root,
        "--quiet",
        "build",
        "-f",
        &kubefile,
        "-t",
        "a:1",
        "--ca-file",
        &ca,
        &context,
    ];
    succeed(&mut host.connected(env!("CARGO_BIN_EXE_sealrs"), &arguments));
    host.scratch
        .ok(&["save", "a:1", "-o", &host.scratch.path("given/a.tar")]);
    drop(upstream);

    host.script(REGISTRY);
    for prefix in ["/some/mirror", ""] {
        let config = format!("/opt/config{}", prefix.len());
        let to = format!("registry.local:5443{prefix}");
        let said = host.ok(&format!(
            "{SEALRS} push {GIVEN}/a.tar --container-images-to {to} --ca-file /opt/registry/ca.crt --mirror-config {config}"
        ));
        assert_has(
            &said,
            &[
                &format!("docker.io/library/box:one -> {to}/docker.io/library/box:one {one}"),
                &format!("quay.io/library/box:two -> {to}/quay.io/library/box:two {two}"),
                &format!("localhost:5000/team/box:three -> {to}/localhost_5000/team/box:three {three}"),
            ],
        );
        for (name, digest) in [
            ("docker.io/library/box:one".to_owned(), one),
            ("quay.io/library/box:two".to_owned(), two),
            (format!("quay.io/library/box@{two}"), two),
            ("localhost:5000/team/box:three".to_owned(), three),
            (format!("{to}/docker.io/library/box:one"), one),
        ] {
            host.ok(&format!("ctr images pull --hosts-dir {config}/certs.d {name}"));
            let listed = host.ok(&format!("ctr images ls name=={name}"));
            assert_has(&listed, &[&digest.to_string()]);
            // The next pull has to ask the registry again.
            host.ok("ctr images ls -q | xargs -r ctr images rm --sync");
        }
        // The other host's image of that path.
        let missing = format!("ctr images pull --hosts-dir {config}/certs.d docker.io/library/box:two");
        assert!(!host.bash(&missing).output().unwrap().status.success());
    }
    // The built-in registry is asked in the same way.
    host.ok(&format!(
        "systemctl stop test-registry; mkdir /opt/ours; systemd-run --quiet --unit test-ours {SEALRS} registry serve \
         --dir /opt/ours --allow-push --listen 127.0.0.1:5443 --tls-cert /opt/registry/server.crt --tls-key /opt/registry/server.key"
    ));
    host.wait_for("sealrs's registry", "(exec 3<>/dev/tcp/127.0.0.1/5443) 2>/dev/null");
    for prefix in ["/some/mirror", ""] {
        let to = format!("registry.local:5443{prefix}");
        host.ok(&format!(
            "{SEALRS} push {GIVEN}/a.tar --container-images-to {to} --ca-file /opt/registry/ca.crt"
        ));
        let config = format!("/opt/config{}", prefix.len());
        for name in [
            "docker.io/library/box:one",
            "quay.io/library/box:two",
            "localhost:5000/team/box:three",
        ] {
            host.ok(&format!("ctr images pull --hosts-dir {config}/certs.d {name}"));
            host.ok("ctr images ls -q | xargs -r ctr images rm --sync");
        }
    }
}
