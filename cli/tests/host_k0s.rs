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
mod support_hosts;
mod support_runtime;

use std::env;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{assert_has, run, succeed, text};
use support_hosts::{Hosts, hosts_sh};
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
    assert_has(
        &said,
        &["k0s has no flag `enable-workr`", "did you mean `enable-worker`?"],
    );
    assert_eq!(before.difference(&State::of(&host)), "");

    // k0s ends because of a setting that only it can judge.
    let (said, took) = host.run_fails(10, &archive, &["--runtime-config", "taints=a=b:Bogus"]);
    println!("seen: a k0s that does not stay is told after {took:?}");
    assert_has(
        &said,
        &[
            "step `k0s-ready` failed",
            "service k0scontroller",
            "invalid taint effect: Bogus",
            "delete --all",
        ],
    );
    // It is started again ten seconds after it has ended.
    assert!(took < Duration::from_secs(120), "{took:?}\n{said}");
    assert_eq!(host.delete(), "deleted");
    assert_eq!(before.difference(&State::of(&host)), "");

    // The image's settings have a typing error, which k0s itself would let pass.
    let (path, settings) = K0S.settings;
    let path = &format!("rootfs/{path}");
    bundle.write(path, settings.replace("kubeProxy", "kubProxy"));
    let (said, _) = host.run_fails(2, &bundle.save("typo", None), &[]);
    assert_has(
        &said,
        &["there is no `spec.network.kubProxy`", "did you mean `kubeProxy`?"],
    );
    assert_eq!(before.difference(&State::of(&host)), "");
    assert_eq!(host.delete(), "absent");

    // k0s refuses what a worker profile says.
    bundle.write(path, settings.replace("failSwapOn: false", "clusterDNS: [10.96.0.10]"));
    let (said, took) = host.run_fails(10, &bundle.save("profile", None), &[]);
    println!("seen: settings that k0s refuses are told after {took:?}");
    assert_has(
        &said,
        &["step `k0s-validate` failed", "may not be used in k0s worker profiles"],
    );
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

/// Hosts on which k0s can run pods, some with a network for them.
fn hosts(count: u32, has_network: bool) -> Hosts {
    let settings = vec![
        ("HOSTS_CGROUP", "v1".to_owned()),
        ("HOSTS_SYSCTL", "rw".to_owned()),
        ("HOSTS_BIND", env::var("HOSTS_BIND").unwrap_or_default()),
    ];
    let hosts = Hosts::boot_with(count, settings);
    for number in (1..=count).filter(|_| has_network) {
        match K0S.preparation(&hosts_sh(), number) {
            Ok(mut command) => succeed(hosts.settings(&mut command)),
            Err(line) => hosts.ok(number, &line),
        };
    }
    hosts
}

/// What the API says, asked on a controller.
fn get(hosts: &Hosts, number: u32, what: &str) -> Value {
    let said = hosts.ok(number, &format!("timeout 30 k0s kubectl get {what} -o json"));
    serde_json::from_str(&said).unwrap()
}

/// The names of objects.
fn names(hosts: &Hosts, number: u32, kind: &str) -> Vec<String> {
    let list = get(hosts, number, kind);
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(name).collect()
}

/// The controllers are these: for etcd, for k0s, and for autopilot.
#[track_caller]
fn assert_controllers(hosts: &Hosts, controllers: &[u32]) {
    let wanted: Vec<String> = controllers.iter().map(|number| format!("node{number}")).collect();
    for &number in controllers {
        hosts.ok(number, "timeout 30 k0s kubectl get --raw=/readyz");
        let listed: Value = serde_json::from_str(&hosts.ok(number, "timeout 30 k0s etcd member-list")).unwrap();
        let mut members: Vec<&String> = listed["members"].as_object().unwrap().keys().collect();
        members.sort();
        assert_eq!(members, wanted.iter().collect::<Vec<_>>(), "as node{number} sees it");
        for kind in ["etcdmembers", "controlnodes"] {
            assert_eq!(names(hosts, number, kind), wanted, "{kind} as node{number} sees them");
        }
    }
    for name in wanted {
        let joined = "jsonpath={.status.conditions[?(@.type==\"Joined\")].status}";
        let line = format!("timeout 30 k0s kubectl get etcdmember {name} -o '{joined}'");
        assert_eq!(hosts.ok(1, &line), "True", "{name}");
    }
}

/// Leaves network and balancer to k0s, whose images come as archives.
fn with_defaults(bundle: &Bundle<'_>, hosts: &Hosts) {
    let (path, _) = K0S.settings;
    bundle.write(
        &format!("rootfs/{path}"),
        "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec:\n  workerProfiles:\n  - name: test\n    \
         values: {failCgroupV1: false, cgroupDriver: cgroupfs, failSwapOn: false}\n",
    );
    let program = hosts.scratch.path("context/rootfs/bin/k0s");
    let wanted = run(&program, &["airgap", "list-images", "--all"]);
    let wanted = text(&wanted);
    let of_network = |image: &&str| ["/kube-", "/cni-", "/envoy-"].iter().any(|part| image.contains(part));
    for (number, image) in wanted.lines().filter(of_network).enumerate() {
        bundle.archive("busybox", image, &format!("network-{number}.tar"));
    }
}

/// The worker goes on without the controller that it joined by.
fn the_first_controller_is_away(hosts: &Hosts) {
    succeed(&mut hosts.script(&["stop", "1"]));
    hosts.wait_for(2, "timeout 10 k0s kubectl get --raw=/readyz");
    hosts.wait_for(
        2,
        "timeout 10 k0s kubectl run late --image=busybox:1.35 --command -- sleep 100000",
    );
    hosts.wait_for(2, "timeout 10 k0s kubectl get pod late | grep -w Running");
    succeed(&mut hosts.script(&["start", "1"]));
    hosts.wait_for(1, "timeout 10 k0s kubectl get --raw=/readyz");
    assert_controllers(hosts, &[1, 2, 3]);
}

#[test]
fn three_controllers_and_a_worker_over_ssh_lose_one_get_it_back_and_go() {
    needs_hosts!();
    // The images of k0s's own network and balancer can't be had here: the stand-in takes any of their names.
    let has_defaults = !K0S.is_real();
    let hosts = hosts(4, !has_defaults);
    let bundle = Bundle::of(&K0S, &hosts.scratch);
    if has_defaults {
        with_defaults(&bundle, &hosts);
    }
    fs::create_dir_all(hosts.scratch.path("given")).unwrap();
    bundle.save("many", None);
    let archive = hosts.scratch.path("given/many.tar");
    let before = hosts.states();
    let access = hosts.access();
    let sealrs = |words: &[&str]| {
        let begun = Instant::now();
        let mut command = hosts.operator(words);
        let said = match words[0] {
            "delete" => succeed(&mut command),
            "scale-up" => succeed(command.args(&access)),
            _ => succeed(command.args(&access).args(K0S.flags)),
        };
        println!("seen: {}: {:?}", words[0], begun.elapsed());
        said
    };

    let (masters, node) = ("10.88.0.11,10.88.0.12,10.88.0.13", "10.88.0.14");
    let said = sealrs(&["run", &archive, "-m", masters, "-n", node]);
    assert_has(
        &said,
        &["runtime k0s on masters 10.88.0.11, 10.88.0.12, 10.88.0.13, nodes 10.88.0.14"],
    );
    assert_controllers(&hosts, &[1, 2, 3]);
    // Where there are workers, controllers run no pods.
    assert_eq!(names(&hosts, 2, "nodes"), ["node4"]);
    hosts.wait_for(1, "k0s kubectl get pod bundled | grep -w Running");
    // Nobody can join any more, and the key of the authority is where it is needed alone.
    for role in ["controller", "worker"] {
        let listed = hosts.ok(1, &format!("timeout 30 k0s token list --role {role} 2>&1"));
        assert!(listed.lines().count() <= 1, "{listed}");
    }
    let key = hosts.ok(1, "sed -n 2p /var/lib/k0s/pki/ca.key");
    assert!(!hosts.holds(
        4,
        &format!("grep -rqF '{}' /etc /root /var/lib/k0s /run/k0s", key.trim())
    ));
    if has_defaults {
        the_first_controller_is_away(&hosts);
    }
    // A worker needs its token no longer.
    hosts.ok(4, "systemctl restart k0sworker");
    hosts.wait_for(4, "k0s status");

    let said = sealrs(&["delete", "-m", "10.88.0.13", "--force"]);
    assert_has(&said, &["it has masters 10.88.0.11, 10.88.0.12, nodes 10.88.0.14"]);
    assert_controllers(&hosts, &[1, 2]);
    assert_eq!(hosts.state(3), before[2], "the host that left is as it was");
    let said = sealrs(&["scale-up", &archive, "-m", "10.88.0.13"]);
    assert_has(&said, &["masters 10.88.0.11, 10.88.0.12, 10.88.0.13"]);
    assert_controllers(&hosts, &[1, 2, 3]);

    sealrs(&["delete", "--all", "--force"]);
    hosts.assert_untouched(&before, "deleted");
}
