//! A plan that was agreed to, how far its hosts are, and going on with it: real hosts over SSH, with runtime `script`.

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

use serde_json::Value;
use support::{assert_has, fail, needs, needs_root, succeed};
use support_hosts::Hosts;

const JOIN: &str = "#!/bin/bash\ntest -e /var/lib/ready\n";

#[test]
fn a_plan_that_was_agreed_to_is_followed_and_its_way_is_told() {
    needs_root!();
    needs!("sshd", "mkfs.ext4", "nft");
    let hosts = Hosts::boot(3);
    let scratch = &hosts.scratch;
    scratch.program(
        "context/scripts/runtime/init.sh",
        "#!/bin/bash\ntouch \"$KUBECONFIG\"\n",
    );
    scratch.program("context/scripts/runtime/join.sh", JOIN);
    let kubefile = "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=script\nCOPY . .\n";
    scratch.build("x:1", kubefile, &[]);
    scratch.ok(&["save", "x:1", "-o", "x.tar"]);
    let access = hosts.access();
    let before = hosts.states();
    let hosts_of = ["-m", "10.88.0.11", "-n", "10.88.0.12"];
    let sealrs = |words: &[&str]| {
        let mut all = words.to_vec();
        all.extend(access.iter().map(String::as_str));
        hosts.operator(&all)
    };
    let run = |more: &[&str]| sealrs(&[&["run", "x.tar"], &hosts_of[..], more].concat());
    let json = |command: &mut std::process::Command| -> Value { serde_json::from_str(&succeed(command)).unwrap() };
    let status = || json(&mut hosts.operator(&["status", "--output", "json"]));

    assert_has(
        &fail(&mut hosts.operator(&["status"]), 3),
        &["there is no cluster `my-cluster`"],
    );
    assert_has(&fail(&mut run(&["--resume"]), 8), &["nothing was begun"]);
    assert_has(
        &fail(&mut run(&["--plan", "nothing"]), 2),
        &["neither the digest of a plan nor a file"],
    );
    let printed = succeed(&mut run(&["--dry-run", "--output", "json"]));
    scratch.write("plan.json", &printed);
    let plan: Value = serde_json::from_str(&printed).unwrap();
    let digest = plan["digest"].as_str().unwrap().to_owned();
    assert_has(&succeed(&mut run(&["--dry-run"])), &[&format!("plan {digest}")]);

    // Something changes after it was agreed to: nothing is done.
    hosts.ok(2, "hostname other");
    let said = fail(&mut run(&["--plan", &digest]), 8);
    assert_has(&said, &["another one than was agreed to", &digest, "--dry-run"]);
    let said = fail(&mut run(&["--plan", "plan.json"]), 8);
    assert_has(
        &said,
        &["the hosts was", "node 10.88.0.12 (node2)", "node 10.88.0.12 (other)"],
    );
    let said = fail(&mut run(&["--plan", "plan.json", "--registry-port", "5001"]), 8);
    assert_has(&said, &["the registry was sea.hub:5000 and is now sea.hub:5001"]);
    hosts.ok(2, "hostname node2");
    hosts.assert_untouched(&before, "another plan");

    // The plan of a dry run is that of the run. It fails on one host, and both say how far they are.
    assert_has(&fail(&mut run(&["--plan", &digest]), 10), &["runtime-join@10.88.0.12"]);
    let now = status();
    assert_eq!(now["stage"], "running");
    assert_eq!(now["plan"], digest.as_str());
    let [first, second] = now["hosts"].as_array().unwrap().as_slice() else {
        panic!("{now}")
    };
    assert_eq!(
        (&first["host"], &first["role"]),
        (&"10.88.0.11".into(), &"master".into())
    );
    assert_eq!(first["at"], Value::Null);
    assert_eq!(first["done"], first["steps"]);
    assert_eq!(
        (&second["hostname"], &second["role"]),
        (&"node2".into(), &"node".into())
    );
    assert_eq!(second["at"]["id"], "runtime-join@10.88.0.12");
    assert_eq!(second["at"]["begun"], true);
    let next = now["next"].as_str().unwrap();
    assert_has(next, &["sealrs run sha256:", "-m 10.88.0.11 -n 10.88.0.12", "--resume"]);
    let said = succeed(&mut hosts.operator(&["status"]));
    assert_has(
        &said,
        &[
            "its installation has not ended",
            &digest,
            "[runtime-join@10.88.0.12], begun",
            next,
        ],
    );

    // Another plan than the one that was begun is none to go on with.
    let other = format!("sha256:{}", "0".repeat(64));
    assert_has(
        &fail(&mut run(&["--plan", &other]), 8),
        &["another one than was agreed to"],
    );
    hosts.ok(2, "touch /var/lib/ready");
    succeed(&mut run(&["--resume", "--plan", "plan.json"]));
    let now = status();
    assert_eq!((&now["stage"], &now["next"]), (&"finished".into(), &Value::Null));
    assert!(
        now["hosts"]
            .as_array()
            .unwrap()
            .iter()
            .all(|host| host["at"] == Value::Null)
    );
    assert_has(&fail(&mut run(&["--resume"]), 8), &["it is installed"]);

    // A change is told as well, with the hosts that come.
    assert_has(
        &fail(&mut sealrs(&["scale-up", "x.tar", "-n", "10.88.0.13"]), 10),
        &["runtime-join@10.88.0.13#2"],
    );
    let now = status();
    assert_eq!(now["stage"], "running");
    assert_eq!(now["next"], "sealrs scale-up -n 10.88.0.13 --cluster my-cluster");
    assert_eq!(now["hosts"][2]["at"]["id"], "runtime-join@10.88.0.13#2");
    hosts.ok(3, "touch /var/lib/ready");
    succeed(&mut sealrs(&["scale-up", "x.tar", "-n", "10.88.0.13"]));
    assert_eq!(status()["stage"], "finished");

    // A deletion that could not end.
    succeed(&mut hosts.script(&["stop", "3"]));
    fail(&mut hosts.operator(&["delete", "--all", "--force"]), 5);
    assert_eq!(status()["next"], "sealrs delete --all --cluster my-cluster");
    succeed(&mut hosts.script(&["start", "3"]));
    hosts.wait_for(3, "systemctl is-system-running | grep -qE 'running|degraded'");
    succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
    fail(&mut hosts.operator(&["status"]), 3);
}
