//! Runtime k3s from end to end, on hosts of their own with systemd and no way out: upstream registries, `build`, `save`,
//! `run`, pods from the bundle and from the private registry, a reboot, what goes wrong, `kill -9`, and `delete`.
//!
//! By default k3s is the stand-in of `testdata/k3s`. The same tests run with a real program:
//!
//! | variable | is |
//! | --- | --- |
//! | `SEALRS_TEST_K3S` | the program that goes into the ClusterImage as `bin/k3s` |
//! | `SEALRS_TEST_K3S_PREPARE` | a program that is called as `PREPARE HOSTS.SH N` when a host has booted, for what that k3s needs there |
//! | `SEALRS_TEST_K3S_LEAVES` | paths that it makes besides those of k3s, separated by blanks; they may be left |
//! | `HOSTS_BIND` | what else the hosts see of this machine, as `testdata/hosts.sh` has it |
//!
//! `cargo test -p sealrs --test host_k3s -- --nocapture --test-threads 1` shows the times.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod support;
mod support_runtime;

use std::time::Duration;

use support::assert_has;
use support_runtime::bundle::Bundle;
use support_runtime::host::Host;
use support_runtime::product::K3S;
use support_runtime::scenarios::{self, needs_hosts};
use support_runtime::state::State;

#[test]
fn a_cluster_without_network_that_survives_a_reboot_and_leaves_nothing() {
    needs_hosts!();
    scenarios::lives_and_goes(&K3S);
}

#[test]
fn what_goes_wrong_is_told_soon_with_cause_and_remedy() {
    needs_hosts!();
    let host = Host::boot(&K3S);
    let bundle = Bundle::new(&host);
    let archive = bundle.save("good", None);
    let before = State::of(&host);

    // What is in the way, and what is wrong with the settings, is found before anything is changed.
    let taken = host.occupy(6443);
    let (said, took) = host.run_fails(9, &archive, &[]);
    assert_has(&said, &["port 6443", "in use by"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
    taken.stop(&host);
    host.ok("mkdir -p /var/lib/rancher/k3s/server/db");
    let (said, _) = host.run_fails(9, &archive, &[]);
    assert_has(
        &said,
        &["another k3s is or was on this host", "/var/lib/rancher/k3s/server"],
    );
    host.ok("rm -r /var/lib/rancher");
    let (said, _) = host.run_fails(9, &archive, &["--runtime-config", "disabel=traefik"]);
    assert_has(&said, &["k3s has no setting `disabel`", "did you mean `disable`?"]);
    assert_eq!(before.difference(&State::of(&host)), "");

    // k3s ends because of a setting that only it can judge.
    let (said, took) = host.run_fails(10, &archive, &["--runtime-config", "node-label={a b}"]);
    println!("seen: a kubelet that does not start is told after {took:?}");
    assert_has(
        &said,
        &[
            "step `k3s-ready` failed",
            "service k3s",
            "invalid node labels: '{a b}'",
            "delete --all",
        ],
    );
    assert!(took < Duration::from_secs(40), "{took:?}\n{said}");
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");

    // The image's settings have a typing error.
    let good = bundle.read("rootfs/etc/k3s/config.yaml");
    bundle.write("rootfs/etc/k3s/config.yaml", "disabled: [coredns]\n");
    let (said, _) = host.run_fails(2, &bundle.save("typo", None), &[]);
    assert_has(&said, &["k3s has no setting `disabled`", "did you mean `disable`?"]);
    assert_eq!(before.difference(&State::of(&host)), "");
    assert_eq!(host.delete(), "absent");
    bundle.write("rootfs/etc/k3s/config.yaml", good);

    // An archive is cut short: the cluster comes up without its image.
    let whole = bundle.read("rootfs/images/busybox.tar");
    bundle.write("rootfs/images/cut.tar", &whole[..whole.len() / 3]);
    let (said, took) = host.run_fails(10, &bundle.save("cut", None), &[]);
    println!("seen: an archive that can't be imported is told after {took:?}");
    assert_has(&said, &["/agent/images/cut.tar", "unexpected EOF"]);
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");
}

#[test]
fn a_killed_run_is_finished_or_taken_back_and_what_is_others_stays() {
    needs_hosts!();
    scenarios::is_killed(&K3S);
}
