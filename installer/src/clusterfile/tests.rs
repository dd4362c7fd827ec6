use sealrs_image::error::Error;
use sealrs_image::finding::listed;

use super::Clusterfile;

fn parse(text: &str) -> Clusterfile {
    Clusterfile::parse("Clusterfile", text).unwrap_or_else(|error| panic!("{}", listed(error.findings())))
}

fn refused(text: &str) -> Error {
    Clusterfile::parse("Clusterfile", text).unwrap_err()
}

fn cluster(spec: &str) -> String {
    format!("apiVersion: sealer.io/v2\nkind: Cluster\nspec:\n  hosts: [{{ips: [10.0.0.1], roles: [master]}}]\n{spec}")
}

#[test]
fn every_field_of_sealers_example() {
    let clusterfile = parse(include_str!("example.yaml"));
    let cluster = clusterfile.cluster.unwrap();
    assert_eq!(cluster.metadata.name.as_deref(), Some("my-cluster"));
    let port = cluster.spec.registry.local_registry.as_ref().unwrap().port.as_ref();
    assert_eq!(port.unwrap().value, "5000");
    let hosts = &cluster.spec.hosts;
    assert_eq!((hosts.len(), hosts[0].ips.len()), (2, 3));
    assert_eq!(hosts[1].ssh.passwd.as_ref().unwrap().value.reveal(), "yyy");
    assert!(!format!("{cluster:?}").contains("yyy"));
    assert_eq!((clusterfile.configs.len(), clusterfile.plugins.len()), (1, 1));
    let application = clusterfile.application.unwrap();
    assert_eq!(application.spec.configs[0].launch.cmds.len(), 1);
}

#[test]
fn version_1_becomes_version_2() {
    let spec = "
  image: k:v1
  provider: BAREMETAL
  env: [SvcCIDR=10.97.0.0/16]
  network: {podCIDR: 10.1.0.0/16, svcCIDR: 10.96.0.0/16}
  certSANS: [a.example, 10.0.0.9]
  masters: {cpu: 4, ipList: [10.0.0.1]}
  nodes: {ipList: [10.0.0.2, 10.0.0.3]}
";
    for version in ["sealer.cloud/v1", "sealer.aliyun.com/v1alpha1"] {
        let cluster = parse(&format!("apiVersion: {version}\nkind: Cluster\nspec:{spec}")).cluster;
        let cluster = cluster.unwrap().spec;
        let env: Vec<_> = cluster.env.iter().map(|variable| variable.value.as_str()).collect();
        let expected = [
            "PodCIDR=10.1.0.0/16",
            "SvcCIDR=10.96.0.0/16",
            "CertSANs=a.example,10.0.0.9",
            "SvcCIDR=10.97.0.0/16",
        ];
        assert_eq!(env, expected);
        assert_eq!(cluster.hosts[1].roles[0].value, "node");
        assert_eq!(cluster.hosts[1].ips.len(), 2);
    }
}

#[test]
fn documents_of_runtimes_are_kept_as_they_are() {
    let kubeadm = "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nanything: [1] # as it is\n";
    let k3s = "---\napiVersion: sealer.io/v2\nkind: K3sConfig\nspec: {server: {disable: [traefik]}}\n";
    let clusterfile = parse(&format!("# first\n{kubeadm}{k3s}---\n# nothing\n"));
    let texts: Vec<_> = clusterfile
        .runtime
        .iter()
        .map(|document| document.text.as_str())
        .collect();
    assert_eq!(texts, [kubeadm, k3s]);
    let error = refused(&kubeadm.repeat(2));
    assert!(error.findings()[0].message.contains("second document"), "{error:?}");
}

#[test]
fn errors_have_a_place_and_a_suggestion() {
    for (spec, place, message, hint) in [
        ("  imgae: a\n", "5:3", "no field `imgae`", "did you mean `image`?"),
        ("  env: [A=1, B]\n", "5:14", "no variable", "`NAME=VALUE`"),
        ("  ssh: {port: 70000}\n", "5:15", "`70000` is no port", "65535"),
        ("  ssh: {encrypted: true}\n", "5:20", "not supported", "passwdFile"),
        (
            "  containerRuntime: {type: dcoker}\n",
            "5:28",
            "no container runtime",
            "`docker`",
        ),
        (
            "  hostAliases: [{ip: x, hostnames: [a]}]\n",
            "5:22",
            "no IP address",
            "address",
        ),
    ] {
        let error = refused(&cluster(spec));
        let [finding] = error.findings() else {
            panic!("{spec}: {}", listed(error.findings()))
        };
        assert_eq!(finding.place(), format!("Clusterfile:{place}"), "{spec}");
        assert!(finding.message.contains(message), "{finding}");
        assert!(finding.hint.as_ref().unwrap().contains(hint), "{finding}");
        assert!(finding.source.is_some(), "{finding}");
    }
}

#[test]
fn all_errors_are_shown_together() {
    let text = "\
apiVersion: sealer.io/v2
kind: Cluster
spec:
  hosts:
  - {ips: [10.0.0.1-3], roles: [mastr]}
  - {ips: [10.0.0.3, fd00::1], roles: [node], taints: [a-b], labels: {a: -b}}
---
kind: Clutser
---
apiVersion: sealer.io/v3
kind: Config
---
apiVersion: sealer.io/v1
kind: Plugin
spec: {type: SHELL, action: pre-init-hots, data: x}
---
apiVersion: sealer.io/v1
kind: Config
spec: {path: ../x, data: a}
";
    let error = refused(text);
    let places: Vec<_> = error.findings().iter().map(|finding| finding.line.unwrap()).collect();
    assert_eq!(
        places,
        [2, 5, 6, 6, 6, 6, 8, 10, 15, 19],
        "{}",
        listed(error.findings())
    );
}

#[test]
fn a_line_with_a_password_is_not_shown() {
    let error = refused(&cluster("  ssh: {passwd: hunter2, passwdEnv: PW, port: x}\n"));
    let text = listed(error.findings());
    assert_eq!(error.findings().len(), 2, "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn what_is_no_clusterfile_is_refused() {
    let bomb = "apiVersion: sealer.io/v2\nkind: K3sConfig\na: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
        c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
        e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    let many = "---\nkind: x\n".repeat(300);
    let big = " ".repeat(super::MOST_BYTES + 1);
    for text in [
        "",
        "# only\n---\n",
        "a",
        "- a",
        "kind: [",
        "kind: Cluster\nkind: Cluster\n",
        bomb,
        &many,
    ] {
        let error = refused(text);
        assert!(!error.findings().is_empty(), "{text}");
    }
    assert!(refused(&big).to_string().contains("more than"));
}
