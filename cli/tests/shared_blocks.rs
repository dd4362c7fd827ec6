//! Where the file system can share blocks, a cluster's registry takes no room beside the store or the archive that it was
//! unpacked from.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod support;

use std::fs;

use support::cluster::Cluster;
use support::images::{pull, push};
use support::registry::{Registry, Setup};
use support::small_disk::SmallDisk;
use support::{assert_has, fail, needs, needs_root, noise, run, succeed, text};

/// Container images of many megabytes, and the little that a layer keeps from being whole blocks.
const SIZES: [usize; 2] = [8 << 20, (8 << 20) + 777];
const INIT: &str = "#!/bin/bash\necho config > \"$KUBECONFIG\"\n";

/// How many bytes of the files below a folder are in no other file.
fn own_bytes(folder: &str) -> u64 {
    let said = text(&run("btrfs", &["filesystem", "du", "--raw", "--summarize", folder]));
    let line = said.lines().last().unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_registry_is_unpacked_without_being_written_again() {
    needs_root!();
    needs!("docker-registry", "skopeo", "mkfs.btrfs", "btrfs");
    let cluster = Cluster::new();
    let scratch = &cluster.scratch;
    let Some(disk) = SmallDisk::formatted(scratch, "root", "btrfs") else {
        return;
    };
    let upstream = Registry::start(&Setup::default());
    let layers = SIZES.map(|size| noise(size as u64, size));
    let digest = push(scratch, &upstream, "team/app:v1", &["linux/amd64"], &layers);
    let list = format!("{}/team/app:v1\n", upstream.host());
    cluster.image("x", &[("scripts/runtime/init.sh", INIT), ("imageList", &list)], "");
    drop(upstream);
    let archive = format!("{}/x.tar", disk.path);
    fs::copy(scratch.path("x.tar"), &archive).unwrap();

    let payload: u64 = SIZES.iter().map(|&size| size as u64).sum();
    let registry = scratch.path(&cluster.data("rootfs/registry"));
    for image in ["x:1", &archive] {
        succeed(&mut cluster.run(image, &[]));
        run("sync", &["--file-system", &disk.path]);
        // The rest of the last block of each layer, and documents.
        let own = own_bytes(&registry);
        assert!(
            own < payload / 50,
            "{image}: {own} of {payload} bytes were written again"
        );
        let name = format!("localhost:{}", cluster.port);
        succeed(&mut cluster.command(&[], &["verify", "--cluster", "my-cluster"]));
        assert_eq!(pull(&name, "team/app:v1"), digest, "{image}");
        succeed(&mut cluster.delete());
        cluster.assert_gone(image);
    }
    // On another file system they are copies.
    succeed(&mut cluster.run("x.tar", &[]));
    run("sync", &["--file-system", &disk.path]);
    assert!(own_bytes(&registry) >= payload);
    succeed(&mut cluster.delete());

    // What is shared is verified all the same.
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    assert_has(&fail(&mut cluster.run(&archive, &[]), 4), &["damaged"]);
    cluster.assert_gone("a damaged archive");
}
