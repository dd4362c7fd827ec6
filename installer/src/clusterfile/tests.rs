use sealrs_image::error::Error;
use sealrs_image::finding::listed;

use super::{Clusterfile, SecretSource};

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

/// A wrong type, an unknown field or a missing one hides nothing else that is wrong, and adds nothing that is not.
#[test]
fn every_wrong_field_of_a_document_is_told() {
    let text = "\
apiVersion: sealer.io/v2
kind: Cluster
metadata: {nmae: a}
spec:
  env: {A: 1}
  imgae: x
  hosts:
  - {ips: 10.0.0.1, roles: [master]}
  - {ips: [10.0.0.2], rols: [node]}
  - {ips: [[10.0.0.3], 10.0.0.400], roles: [node]}
  ssh: [root]
  hostAliases: [{hostnames: [a]}, {ip: x, hostnames: [b]}]
  registry: {localRegistry: {ha: maybe, port: {}}, externalRegistry: {port: 1}}
---
apiVersion: sealer.io/v1
kind: Config
metadata: {}
spec: {path: [a], strategy: mrege, data: 1, more: 2}
---
apiVersion: sealer.io/v1
kind: Config
specs: {}
---
apiVersion: sealer.io/v2
kind: [Cluster]
";
    let error = refused(text);
    let told: Vec<_> = error
        .findings()
        .iter()
        .map(|finding| format!("{} {}", finding.line.unwrap(), finding.message))
        .collect();
    let expected = [
        "3 there is no field `nmae`",
        "5 a group of fields stands where a list belongs",
        "6 there is no field `imgae`",
        "8 a text stands where a list belongs",
        "9 there is no field `rols`",
        "10 a list stands where a text belongs",
        "10 `10.0.0.400` is no IP address",
        "11 a list stands where a group of fields belongs",
        "12 the field `ip` is missing",
        "12 `x` is no IP address",
        "13 a text stands where `true` or `false` belongs",
        "13 a group of fields stands where a text belongs",
        "13 the field `domain` is missing",
        "18 a list stands where a text belongs",
        "18 `mrege` is not known here",
        "18 there is no field `more`",
        "20 the field `spec` is missing",
        "22 there is no field `specs`",
        "25 a list stands where a text belongs",
    ];
    assert_eq!(told, expected, "{}", listed(error.findings()));
}

#[test]
fn nothing_stands_for_an_empty_list_and_for_no_fields() {
    let text = "\
apiVersion: sealer.io/v2
kind: Cluster
metadata:
spec:
  image:
  env:
  cmd: ~
  appNames: null
  ssh:
  registry: {localRegistry: , externalRegistry: }
  hostAliases:
  hosts:
  - ips: [10.0.0.1]
    roles: [master]
    env:
    labels:
    taints: null
";
    let cluster = parse(text).cluster.unwrap();
    assert_eq!(cluster.spec.hosts.len(), 1);
    assert!(cluster.spec.env.is_empty() && cluster.spec.app_names.is_none());
    let error = refused("apiVersion: sealer.io/v2\nkind: Cluster\nspec:\n");
    assert_eq!(error.findings()[0].message, "the cluster has no master");
    let error = refused("apiVersion: sealer.io/v1\nkind: Config\nspec:\n");
    assert_eq!(error.findings()[0].message, "the field `path` is missing");
}

#[test]
fn leftovers_of_kubectl_are_no_errors() {
    let text = "\
apiVersion: sealer.io/v2
kind: Cluster
metadata:
  name: a
  namespace: default
  creationTimestamp: null
  uid: 8a3f
  resourceVersion: \"12\"
  generation: 1
  labels: {a: b}
  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}'}
  managedFields: [{manager: kubectl}]
spec:
  hosts: [{ips: [10.0.0.1], roles: [master]}]
status: {}
";
    assert_eq!(parse(text).cluster.unwrap().metadata.name.as_deref(), Some("a"));
}

#[test]
fn files_of_other_systems_are_read() {
    let text = format!("\u{feff}{}", cluster("  image: ä\n  imgae: b\n").replace('\n', "\r\n"));
    let error = refused(&text);
    let [finding] = error.findings() else {
        panic!("{}", listed(error.findings()))
    };
    assert_eq!(finding.place(), "Clusterfile:6:3");
    assert_eq!(finding.source.as_deref(), Some("  imgae: b"));
    assert!(parse(&text.replace("imgae: b", "dataRoot: /b")).cluster.is_some());
}

#[test]
fn documents_end_where_yaml_ends_them() {
    let config = "apiVersion: sealer.io/v1\nkind: Config\nspec: {path: a, data: b}\n";
    for text in [
        format!("{config}...\n"),
        format!("%YAML 1.2\n--- # first\n{config}...\n# last\n"),
        format!("...\n---\n{config}---\n---\n...\n"),
    ] {
        assert_eq!(parse(&text).configs.len(), 1, "{text}");
    }
    let clusterfile = parse(&format!("{config}...\n{config}... # end\n--- \n{config}"));
    assert_eq!(clusterfile.configs.len(), 3);
    assert_eq!(clusterfile.configs[2].spec.path.referenced.line(), 12);
    let block = "apiVersion: sealer.io/v1\nkind: Config\nspec:\n  path: a\n  data: |\n    ---\n    ...\n    x\n";
    assert_eq!(parse(block).configs[0].spec.data.value, "---\n...\nx\n");
}

#[test]
fn clusters_of_ipv6() {
    let text = "apiVersion: sealer.io/v2\nkind: Cluster\nspec:\n  hosts:\n  - {ips: [\"fd00::1\", fd00::2-fd00::3], roles: [master]}\n  - ips:\n    - fd00::ffff\n    roles: [node]\n  hostAliases: [{ip: \"::1\", hostnames: [a]}]\n";
    let hosts = parse(text).cluster.unwrap().spec.hosts;
    assert_eq!(hosts[0].ips[1].value, "fd00::2-fd00::3");
    let error = refused(&text.replace("fd00::ffff", "fd00:0::3"));
    assert_eq!(
        error.findings()[0].message,
        "the host fd00::3 is there already, in line 5"
    );
    let error = refused(&text.replace("fd00::ffff", "10.0.0.1"));
    assert!(
        error.findings()[0].message.contains("not of the same family"),
        "{error:?}"
    );
}

/// Whatever is wrong, the excerpt, the message and the hint hold no secret.
#[test]
fn secrets_are_never_shown() {
    for spec in [
        "  env: [TOKEN=hunter2, B]\n",
        "  env: [AWS_SECRET_ACCESS_KEY=hunter2, B]\n",
        "  env: [[KEY=hunter2]]\n",
        "  env: {DB_PASSWORD: hunter2}\n",
        "  ssh:\n    passwd:\n      [hunter2]\n",
        "  ssh:\n    passwd:\n    - hunter2\n",
        "  ssh:\n    passwd: |\n      hunter2\n    pasword: x\n",
        "  ssh: {user: root, passwd hunter2}\n",
        "  ssh: {passwd: *hunter2}\n",
        "  ssh: {passwd: &hunter2 }\n  env: [A]\n",
        "  ssh: {passwd: !hunter2 }\n  env: [A]\n",
        "  ssh: {passwd: @hunter2}\n",
        "  ssh: {passwd: %hunter2}\n",
        "  ssh: {passwd: \"hunter2}\n",
        "  ssh: {passwd: \"hunter2\\q\"}\n",
        "  ssh:\n    passwd: hunter2: a\n",
        "  ssh:\n    passwd: hunter2\n   port: 1\n",
        "  registry: {localRegistry: {password: {hunter2: 1}}}\n",
    ] {
        for text in [cluster(spec), cluster(spec).replace("v2", "v1")] {
            let error = refused(&text);
            let json = serde_json::to_string(error.findings()).unwrap();
            let told = format!("{} {json} {error:?}", listed(error.findings()));
            assert!(!told.contains("hunter2"), "{spec}: {told}");
        }
    }
    let clusterfile = cluster("  ssh: {passwd: hunter2}\n");
    assert!(!format!("{:?}", parse(&clusterfile)).contains("hunter2"));
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
    // Bounded by what aliases repeat, which is far less than what a document may hold.
    let told = refused(bomb).findings()[0].message.clone();
    assert!(told.contains("too many aliases"), "{told}");
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
    assert!(refused(&big).findings()[0].message.contains("more than"));
}

#[test]
fn settings_of_k3s_are_those_of_the_role() {
    let text = "\
apiVersion: sealer.io/v2
kind: K3sConfig
metadata: {name: a}
spec:
  server: {disable: [traefik], tls-sans: [a], token: b, cluster-cidr: {a: b}}
  agent:
    kubelet-arg+: [max-pods=50]
    tls-san: [a]
    v: 5
    selinux: 1
  servers: {}
";
    let error = refused(text);
    let told: Vec<_> = error
        .findings()
        .iter()
        .map(|finding| (finding.place(), finding.hint.clone().unwrap_or_default()))
        .collect();
    let places: Vec<_> = told
        .iter()
        .map(|(place, _)| place.trim_start_matches("Clusterfile:"))
        .collect();
    assert_eq!(
        places,
        ["5:32", "5:47", "5:57", "8:5", "10:5", "11:3"],
        "{}",
        listed(error.findings())
    );
    assert_eq!(told[0].1, "did you mean `tls-san`?");
    assert!(told[3].1.contains("below `server`"));
    assert_eq!(told[5].1, "did you mean `server`?");
    let valid = "apiVersion: sealer.io/v2\nkind: K3sConfig\nspec: {agent: {node-label: [a=b]}, server: }\n";
    assert_eq!(parse(valid).runtime.len(), 1);
}

#[test]
fn what_may_be_wrong_is_a_warning() {
    let text = "\
apiVersion: sealer.io/v2
kind: Cluster
spec:
  env: [TOKEN=a, A=b, PASSWORD=]
  ssh: {passwd: a}
  registry: {localRegistry: {password: b}}
  hosts:
  - {ips: [10.0.0.1-3], roles: [master]}
  - {ips: [10.0.0.4], roles: [master, db], ssh: {pkPasswd: c}}
---
apiVersion: sealer.io/v1
kind: Plugin
spec: {type: SHELL, action: pre-init-host|pre-install, scope: nod|bd, data: x}
---
apiVersion: sealer.io/v1
kind: Plugin
spec: {type: SHELL, action: pre-init-host, scope: node|db, data: x}
---
apiVersion: sealer.io/v1
kind: Plugin
spec: {type: SHELL, action: pre-install, scope: nowhere, data: x}
---
apiVersion: sealer.io/v2
kind: Application
spec: {launchApps: [a], configs: [{name: b}]}
";
    let warnings = parse(text).warnings;
    let lines: Vec<_> = warnings.iter().map(|finding| finding.line.unwrap()).collect();
    assert_eq!(lines, [4, 5, 6, 8, 9, 13, 25], "{}", listed(&warnings));
    assert!(warnings[3].message.contains("4 masters"), "{}", warnings[3]);
    let lint = Clusterfile::lint("Clusterfile", text);
    assert_eq!((lint.errors.len(), lint.warnings), (0, warnings));
    let quiet = cluster("  env: [A=b]\n  ssh: {passwdFile: a, pkPasswdEnv: B}\n");
    assert!(parse(&quiet).warnings.is_empty());
}

#[test]
fn contents_of_documents_are_checked() {
    let config = |spec: &str| format!("apiVersion: sealer.io/v1\nkind: Config\nspec: {{path: a, {spec}}}\n");
    for spec in [
        "strategy: merge, data: text",
        "strategy: merge, data: '[a]'",
        "process: tojson, data: a",
    ] {
        assert_eq!(refused(&config(spec)).findings().len(), 1, "{spec}");
    }
    for spec in [
        "strategy: merge, data: 'a: {b: 1}'",
        "strategy: merge, data: '{{ .A }}'",
        "process: value|toBase64, strategy: merge, data: a",
    ] {
        parse(&config(spec));
    }
    for path in ["/etc/x", "../x", "a/../../x", "\"\""] {
        let text = config("data: a").replace("path: a", &format!("path: {path}"));
        assert!(refused(&text).findings()[0].message.contains("no path below"), "{path}");
    }
    let plugin = |scope: &str| {
        format!(
            "apiVersion: sealer.io/v1\nkind: Plugin\nspec: {{type: SHELL, action: pre-init-host, scope: '{scope}', data: x}}\n"
        )
    };
    assert!(refused(&plugin("")).findings()[0].message.contains("no scope"));
    assert!(
        refused(&plugin("master,node")).findings()[0]
            .hint
            .as_ref()
            .unwrap()
            .contains("`|`")
    );
    parse(&plugin("master | node"));
}

#[test]
fn a_secret_has_one_source() {
    let spec = parse(&cluster(
        "  ssh: {passwdFile: a, pkPasswdEnv: B}\n  registry: {externalRegistry: {domain: r, passwordEnv: C}, localRegistry: {password: d}}\n",
    ));
    let spec = spec.cluster.unwrap().spec;
    assert_eq!(spec.ssh.password(), Some(SecretSource::File("a")));
    assert_eq!(spec.ssh.passphrase(), Some(SecretSource::Environment("B")));
    assert_eq!(
        spec.registry.external_registry.unwrap().password(),
        Some(SecretSource::Environment("C"))
    );
    assert!(matches!(
        spec.registry.local_registry.unwrap().password(),
        Some(SecretSource::Clear(_))
    ));
    assert_eq!(spec.hosts[0].ssh.password(), None);
    let error = refused(&cluster(
        "  registry: {localRegistry: {password: a, passwordFile: b}}\n  ssh: {passwdEnv: ''}\n",
    ));
    assert_eq!(error.findings().len(), 2, "{}", listed(error.findings()));
}

/// Names become folders, lines of files and variables of scripts.
#[test]
fn names_stay_in_their_places() {
    for spec in [
        "  dataRoot: data\n",
        "  dataRoot: /\n",
        "  dataRoot: /var/../etc\n",
        "  hostAliases: [{ip: 10.0.0.9, hostnames: [\"a b\"]}]\n",
        "  hostAliases: [{ip: 10.0.0.9, hostnames: [\"a\\n10.0.0.1 b\"]}]\n",
        "  registry: {localRegistry: {domain: \"a:5000\"}}\n",
        "  registry: {externalRegistry: {domain: \"\"}}\n",
        "  env: [a-b=1]\n",
        "  env: [\"A\\nB=1\"]\n",
        "metadata: {name: ../x}\n",
        "---\napiVersion: sealer.io/v1\nkind: Config\nspec: {path: a, data: b, appName: ../..}\n",
        "---\napiVersion: sealer.io/v2\nkind: Application\nspec: {configs: [{name: a/b}]}\n",
    ] {
        let error = refused(&cluster(spec));
        assert_eq!(error.findings().len(), 1, "{spec}: {}", listed(error.findings()));
    }
    let spec = "  dataRoot: /data\n  hostAliases: [{ip: 10.0.0.9, hostnames: [A.b-1]}]\n  registry: {externalRegistry: {domain: \"fd00::9\"}}\nmetadata: {name: a_1}\n";
    parse(&cluster(spec));
}

#[test]
fn too_many_errors_end_the_reading_of_a_document() {
    let wrong: String = (0..200).map(|number| format!("  wrong{number}: 1\n")).collect();
    let error = refused(&cluster(&wrong));
    assert_eq!(error.findings().len(), 101);
    assert!(
        error.findings()[0].message.contains("more than 100"),
        "{}",
        error.findings()[0]
    );
}
