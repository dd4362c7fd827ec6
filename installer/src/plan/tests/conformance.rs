//! Every runtime by the same cases, in two versions. What is planned for each is in `snapshots`; of the newer version stands there
//! what is different.

use super::*;
use serde_json::{Value, json};

const MASTER: Role = Role::Master;
const NODE: Role = Role::Node;
const PASSWORD: &str = "p4ssw0rd";

/// A runtime, two of its versions, and the document by which a Clusterfile has it keep its data elsewhere.
struct Subject {
    runtime: &'static str,
    versions: [&'static str; 2],
    elsewhere: Value,
}

fn subjects() -> [Subject; 3] {
    let source = format!("postgres://k:{PASSWORD}@10.88.0.20:5432/kine");
    [
        Subject {
            runtime: "k3s",
            versions: ["v1.31.2+k3s1", "v1.36.3+k3s1"],
            elsewhere: json!({
                "apiVersion": "sealer.io/v2", "kind": "K3sConfig", "spec": {"server": {"datastore-endpoint": source}}
            }),
        },
        Subject {
            runtime: "k0s",
            versions: ["v1.34.10+k0s.0", "v1.36.3+k0s.2"],
            elsewhere: json!({
                "apiVersion": "k0s.k0sproject.io/v1beta1", "kind": "ClusterConfig",
                "spec": {"storage": {"type": "kine", "kine": {"dataSource": source}}}
            }),
        },
        Subject {
            runtime: "kubernetes",
            versions: ["v1.20.2", "v1.34.1"],
            elsewhere: json!({
                "apiVersion": "kubeadm.k8s.io/v1beta3", "kind": "ClusterConfiguration",
                "etcd": {"external": {
                    "endpoints": ["https://10.88.0.20:2379"], "caFile": "/etc/etcd/ca.crt",
                    "certFile": "/etc/etcd/client.crt", "keyFile": "/etc/etcd/client.key",
                }}
            }),
        },
    ]
}

impl Subject {
    fn image(&self, version: &str) -> ClusterImage {
        let mut image = cluster_image(&[(name::RUNTIME_TYPE, self.runtime), (name::RUNTIME_VERSION, version)]);
        let control = ["kube-apiserver".to_owned(), "pause".to_owned()].map(|name| ContainerImage {
            image: format!("registry.k8s.io/{name}:{version}"),
            app_name: String::new(),
            platform: None,
        });
        if self.runtime == "kubernetes" {
            image.container_images = control.to_vec();
        }
        image
    }

    /// Plans a case for both versions, and checks its text: of the first version, and how the second one differs.
    fn check(&self, case: &str, plan: impl Fn(&ClusterImage) -> String) {
        let [first, second] = self.versions.map(|version| {
            let image = self.image(version);
            let text = plan(&image);
            assert_eq!(plan(&image), text, "a plan is the same each time");
            assert!(!text.contains(PASSWORD), "{text}");
            text.replace(version, "VERSION")
        });
        let only = |one: &str, other: &str, sign: &str| -> String {
            let known: std::collections::HashSet<&str> = other.lines().collect();
            let lines = one.lines().filter(|line| !known.contains(line));
            lines.map(|line| format!("{sign} {line}\n")).collect()
        };
        let [old, new] = self.versions;
        let differences = only(&first, &second, "-") + &only(&second, &first, "+");
        let text = format!("{old}:\n{first}\n{new}:\n{differences}");
        insta::assert_snapshot!(format!("{}_{case}", self.runtime), text);
    }
}

/// The steps of a plan from a phase on, with all that they write.
fn whole(plan: &Plan, from: u32) -> String {
    let steps = plan.steps.iter().filter(|step| step.phase >= from);
    let lines = steps.map(|step| {
        let action = serde_json::to_string(&step.action).unwrap();
        format!("{} {} {action}", step.phase, step.id)
    });
    // A line of a file on a line, so that two versions can be compared.
    lines.collect::<Vec<_>>().join("\n").replace("\\n", "\n    ")
}

#[test]
fn one_host() {
    for subject in subjects() {
        subject.check("single", |image| {
            let [plan, ..] = changes_with(image, &Options::default(), &[MASTER], &[], &[]);
            whole(&plan, 0)
        });
    }
}

#[test]
fn masters_join_one_after_the_other_and_nodes_together() {
    for subject in subjects() {
        for (case, roles) in [
            ("three", vec![MASTER; 3]),
            ("three_and_three", [[MASTER; 3], [NODE; 3]].concat()),
        ] {
            subject.check(case, |image| {
                let [plan, ..] = changes_with(image, &Options::default(), &roles, &[], &[]);
                let starts = |step: &&Step| matches!(step.action, Action::Wait { .. });
                let phase = |host: u8| {
                    let host = IpAddr::from([10, 88, 0, 10 + host]);
                    let last = plan.steps.iter().filter(starts).rfind(|step| step.host == host);
                    last.map(|step| step.phase)
                };
                assert!(phase(2) < phase(3), "{}", subject.runtime);
                if roles.len() == 6 {
                    assert_eq!(phase(4), phase(6), "{}", subject.runtime);
                    assert!(phase(3) < phase(4), "{}", subject.runtime);
                }
                plan.to_string()
            });
        }
    }
}

#[test]
fn data_that_is_kept_elsewhere() {
    for subject in subjects() {
        let options = Options {
            runtime_documents: vec![subject.elsewhere.clone()],
            ..Options::default()
        };
        let runtime = runtime::by_name(subject.runtime).unwrap();
        assert!(runtime.has_quorum(&Options::default()) && !runtime.has_quorum(&options));
        subject.check("elsewhere", |image| {
            let [plan, _, shrunk] = changes_with(image, &options, &[MASTER, MASTER, NODE], &[], &["10.88.0.12"]);
            format!("{}\n\n{}", whole(&plan, 0), whole(&shrunk, plan.next_phase()))
        });
    }
}

#[test]
fn hosts_come_and_go() {
    for subject in subjects() {
        for (case, more) in [("master_more_and_less", MASTER), ("node_more_and_less", NODE)] {
            subject.check(case, |image| {
                let options = Options::default();
                let [plan, grown, shrunk] = changes_with(image, &options, &[MASTER; 3], &[more], &["10.88.0.14"]);
                let part = |plan: &Plan, from: u32| {
                    let mut part = plan.clone();
                    part.steps.retain(|step| step.phase >= from);
                    part.to_string()
                };
                let (more, less) = (part(&grown, plan.next_phase()), part(&shrunk, grown.next_phase()));
                format!("{more}\n\n{less}")
            });
        }
    }
}
