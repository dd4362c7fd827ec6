//! Runtime k0s from end to end, on hosts of their own with systemd and no way out: upstream registries, `build`, `save`,
//! `run`, pods from the bundle and from the private registry, a reboot, what goes wrong, `kill -9`, and `delete`.
//!
//! By default k0s is the stand-in of `testdata/k0s`. The same tests run with a real program:
//!
//! | variable | is |
//! | --- | --- |
//! | `SEALRS_TEST_K0S` | the program that goes into the ClusterImage as `bin/k0s` |
//! | `SEALRS_TEST_K0S_PREPARE` | a program that is called as `PREPARE HOSTS.SH N` when a host has booted, for what that k0s needs there |
//! | `SEALRS_TEST_K0S_LEAVES` | paths that it makes besides those of k0s, separated by blanks; they may be left |
//! | `HOSTS_BIND` | what else the hosts see of this machine, as `testdata/hosts.sh` has it |
//!
//! `cargo test -p sealrs --test host_k0s -- --nocapture --test-threads 1` shows the times.

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
use support_runtime::product::K0S;
use support_runtime::scenarios::{self, needs_hosts};
use support_runtime::state::State;

#[test]
fn a_cluster_without_network_that_survives_a_reboot_and_leaves_nothing() {
    needs_hosts!();
    scenarios::lives_and_goes(&K0S);
}

#[test]
fn what_goes_wrong_is_told_soon_with_cause_and_remedy() {
    needs_hosts!();
    let host = Host::boot(&K0S);
    let bundle = Bundle::new(&host);
    let archive = bundle.save("good", None);
    let before = State::of(&host);

    // What is in the way, and what is wrong with the settings, is found before anything is changed.
    let taken = host.occupy(9443);
    let (said, took) = host.run_fails(9, &archive, &[]);
    assert_has(&said, &["port 9443", "in use by"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
    taken.stop(&host);
    host.ok("mkdir -p /var/lib/k0s/etcd");
    let (said, _) = host.run_fails(9, &archive, &[]);
    assert_has(&said, &["another k0s is or was on this host", "/var/lib/k0s"]);
    host.ok("rm -r /var/lib/k0s");
    let (said, _) = host.run_fails(9, &archive, &["--runtime-config", "enable-workr=true"]);
    assert_has(&said, &["k0s has no flag `enable-workr`", "did you mean `enable-worker`?"]);
    assert_eq!(before.difference(&State::of(&host)), "");

    // The kubelet ends because of a setting that only it can judge.
    let (said, took) = host.run_fails(10, &archive, &["--runtime-config", "labels=a b=c"]);
    println!("seen: a kubelet that does not start is told after {took:?}");
    assert_has(&said, &["step `k0s-ready` failed", "invalid node labels: 'a b'", "delete --all"]);
    assert!(took < Duration::from_secs(40), "{took:?}\n{said}");
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");

    // The image's settings have a typing error, which k0s itself would let pass.
    let (path, settings) = K0S.settings;
    let path = &format!("rootfs/{path}");
    bundle.write(path, settings.replace("kubeProxy", "kubProxy"));
    let (said, _) = host.run_fails(2, &bundle.save("typo", None), &[]);
    assert_has(&said, &["there is no `spec.network.kubProxy`", "did you mean `kubeProxy`?"]);
    assert_eq!(before.difference(&State::of(&host)), "");
    assert_eq!(host.delete(), "absent");

    // k0s refuses what a worker profile says.
    bundle.write(path, settings.replace("failSwapOn: false", "clusterDNS: [10.96.0.10]"));
    let (said, took) = host.run_fails(10, &bundle.save("profile", None), &[]);
    println!("seen: settings that k0s refuses are told after {took:?}");
    assert_has(&said, &["step `k0s-validate` failed", "may not be used in k0s worker profiles"]);
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");
    bundle.write(path, settings);

    // An archive is cut short: the cluster comes up without its image.
    let whole = bundle.read("rootfs/images/busybox.tar");
    bundle.write("rootfs/images/cut.tar", &whole[..whole.len() / 3]);
    let (said, took) = host.run_fails(10, &bundle.save("cut", None), &[]);
    println!("seen: an archive that can't be imported is told after {took:?}");
    assert_has(&said, &["/var/lib/k0s/images/cut.tar", "unexpected EOF"]);
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");
}

#[test]
fn a_killed_run_is_finished_or_taken_back_and_what_is_others_stays() {
    needs_hosts!();
    scenarios::is_killed(&K0S);
}
