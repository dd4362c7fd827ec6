//! Apps on a cluster that runs: a real API server, helm and kubectl on a host over SSH, and a registry that pulls are answered by.

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

use std::fs::{self, File};
use std::path::PathBuf;

use serde_json::Value;
use support::images::push;
use support::registry::{Registry, Setup};
use support::{assert_has, fail, needs, needs_root, noise, succeed};
use support_hosts::Hosts;

/// Makes a cluster of an API server and its etcd, which has no nodes and starts no pods.
const INIT: &str = r#"#!/bin/bash
set -eu
mkdir -p /var/lib/api && cd /var/lib/api
systemctl is-active --quiet api-etcd || systemd-run --quiet --unit=api-etcd etcd --data-dir /var/lib/api/etcd --unsafe-no-fsync
[ -e sa.key ] || openssl genrsa -out sa.key 2048 2>/dev/null
echo 'tok,admin,1,"system:masters"' >tokens.csv
systemctl is-active --quiet api || systemd-run --quiet --unit=api kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --cert-dir=/var/lib/api --bind-address=127.0.0.1 --advertise-address=10.88.0.11 --service-account-key-file=/var/lib/api/sa.key \
    --service-account-signing-key-file=/var/lib/api/sa.key --service-account-issuer=https://kubernetes.default.svc \
    --service-cluster-ip-range=10.96.0.0/22 --authorization-mode=RBAC --token-auth-file=/var/lib/api/tokens.csv \
    --disable-admission-plugins=ServiceAccount
cat >"$KUBECONFIG" <<END
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: tok}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
END
for _ in $(seq 300); do kubectl get --raw /readyz >/dev/null 2>&1 && break; sleep 0.2; done
# No kubelet does it.
echo '{apiVersion: v1, kind: Node, metadata: {name: node2}}' | kubectl apply -f -
"#;
const RESET: &str = "#!/bin/bash\nsystemctl stop api api-etcd 2>/dev/null\nrm -rf /var/lib/api /var/lib/told\n";
const CLUSTERFILE: &str = "
---
apiVersion: sealer.io/v2
kind: Application
metadata: {name: apps}
spec:
  launchApps: [base]
  configs:
    - name: base
      env: [COLOR=red]
      launch: {cmds: ['cat application/apps/base/told >> /var/lib/told', 'echo \"$COLOR\" >> /var/lib/told']}
      delete: {cmds: ['echo \"gone\" >> /var/lib/told']}
";

/// The API server of the machine's own build.
fn api_server() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
    Some(cache.join("sealrs-tests/kubernetes-1.20.2/kube-apiserver")).filter(|path| path.exists())
}

fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.exists())
        .unwrap()
}

/// The image of apps in a version.
fn apps(hosts: &Hosts, registry: &Registry, version: u32) {
    let scratch = &hosts.scratch;
    let _ = fs::remove_dir_all(scratch.path("context"));
    let image = format!("{}/app:v{version}", registry.host());
    let write = |path: &str, text: &str| drop(scratch.write(&format!("context/{path}"), text));
    write(
        "web/config.yaml",
        &format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web}}\ndata: {{version: '{version}'}}\n"),
    );
    write(
        "web/deploy.yaml",
        &format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n  template:\n    \
             metadata: {{labels: {{a: b}}}}\n    spec: {{containers: [{{name: c, image: '{image}'}}]}}\n"
        ),
    );
    write(
        "site/kustomization.yaml",
        "resources: [base.yaml]\nnamePrefix: my-\nlabels: [{pairs: {of: site}}]\n",
    );
    write(
        "site/base.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: site}\n",
    );
    write(
        "chart/Chart.yaml",
        &format!("apiVersion: v2\nname: chart\nversion: {version}.0.0\n"),
    );
    write("chart/values.yaml", "color: blue\n");
    write("chart.values.yaml", "color: red\n");
    write(
        "chart/templates/config.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: of-chart}\ndata: {color: '{{ .Values.color }}'}\n",
    );
    write(
        "setup/setup.sh",
        "#!/bin/bash\necho \"setup $COLOR $(kubectl get configmap web -o name)\" >> /var/lib/told\n",
    );
    let kubefile = "FROM scratch\nAPP web local://web/config.yaml local://web/deploy.yaml\nAPP site local://site\n\
        APP chart local://chart\nCOPY chart.values.yaml application/apps/\nAPP setup local://setup/setup.sh\nAPPENV setup COLOR=green\nLAUNCH web site chart setup\n";
    scratch.build(&format!("apps:{version}"), kubefile, &["--type", "app-installer"]);
    scratch.ok(&["save", &format!("apps:{version}"), "-o", &format!("apps{version}.tar")]);
}

#[test]
fn apps_come_onto_a_cluster_are_upgraded_and_go() {
    needs_root!();
    needs!(
        "sshd",
        "mkfs.ext4",
        "nft",
        "etcd",
        "helm",
        "kubectl",
        "docker-registry",
        "skopeo",
        "curl",
        "openssl"
    );
    let Some(api_server) = api_server() else {
        println!("skipped: this test needs kube-apiserver 1.20 in the tests' cache");
        return;
    };
    let hosts = Hosts::boot(2);
    let scratch = &hosts.scratch;
    for program in [api_server, which("helm"), which("kubectl")] {
        let line = format!(
            "cat > /usr/local/bin/{0} && chmod 755 /usr/local/bin/{0}",
            program.file_name().unwrap().to_str().unwrap()
        );
        succeed(
            hosts
                .script(&["exec", "1", "sh", "-c", &line])
                .stdin(File::open(program).unwrap()),
        );
    }
    let registry = Registry::start(&Setup::default());
    let layers = [noise(1, 600_000), noise(2, 700_000)];
    push(scratch, &registry, "app:v1", &["linux/amd64"], &layers[..1]);
    push(scratch, &registry, "app:v2", &["linux/amd64"], &layers);
    apps(&hosts, &registry, 1);
    apps(&hosts, &registry, 2);
    drop(registry);
    let _ = fs::remove_dir_all(scratch.path("context"));
    scratch.program("context/scripts/runtime/init.sh", INIT);
    scratch.program("context/scripts/runtime/join.sh", "#!/bin/bash\n");
    scratch.program("context/scripts/runtime/reset.sh", RESET);
    scratch.write("context/base/told.tmpl", "{{ .COLOR }} of {{ .HostIP }}\n");
    scratch.build(
        "cluster:1",
        "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type=script\nCOPY scripts scripts\n\
         APP base local://base/told.tmpl\nAPPCMDS base [\"false\"]\nAPPENV base COLOR=blue\nLAUNCH base\n",
        &[],
    );
    scratch.ok(&["save", "cluster:1", "-o", "cluster.tar"]);
    let before = hosts.states();
    let access = hosts.access();
    let key = access.iter().skip_while(|word| *word != "-i").nth(1).unwrap();
    let cluster = format!(
        "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {{name: my-cluster}}\nspec:\n  image: cluster.tar\n  ssh: {{pk: {key}}}\n  \
         hosts:\n  - {{roles: [master], ips: [10.88.0.11]}}\n  - {{roles: [node], ips: [10.88.0.12]}}\n{CLUSTERFILE}"
    );
    scratch.write("Clusterfile", cluster);
    let kubectl = |words: &str| {
        let own = format!(
            "export KUBECACHEDIR=/var/lib/api/c HELM_CACHE_HOME=/var/lib/api/h KUBECONFIG={}",
            hosts.data("kubeconfig")
        );
        hosts.ok(1, &format!("{own}; {words}"))
    };
    let list = || -> Vec<(String, String, String)> {
        let printed = succeed(&mut hosts.operator(&["app", "list", "--output", "json"]));
        let apps: Value = serde_json::from_str(&printed).unwrap();
        let word = |app: &Value, name: &str| app[name].as_str().unwrap().to_owned();
        let apps = apps.as_array().unwrap().iter();
        apps.map(|app| (word(app, "name"), word(app, "kind"), word(app, "state")))
            .collect()
    };
    let listed = |apps: &[(&str, &str, &str)]| -> Vec<(String, String, String)> {
        apps.iter()
            .map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned()))
            .collect()
    };

    // There is no cluster yet.
    assert_has(
        &fail(&mut hosts.operator(&["run", "apps1.tar"]), 3),
        &["there is no cluster `my-cluster`"],
    );
    let known = access
        .iter()
        .skip_while(|word| *word != "--known-hosts")
        .nth(1)
        .unwrap();
    let mut apply = hosts.operator(&["apply", "-f", "Clusterfile", "--known-hosts", known]);
    succeed(&mut apply);
    // The Application document counts more than what the image says.
    assert_eq!(hosts.ok(1, "cat /var/lib/told"), "red of 10.88.0.11\nred\n");
    assert_eq!(list(), listed(&[("base", "command", "launched")]));

    let plan = succeed(&mut hosts.operator(&["run", "apps1.tar", "--dry-run"]));
    assert_has(
        &plan,
        &[
            "[app-images]",
            "[app-web]",
            "helm upgrade --install chart application/apps/chart/ ",
        ],
    );
    let said = fail(&mut hosts.operator(&["run", "apps1.tar", "-m", "10.88.0.11"]), 2);
    assert_has(&said, &["comes onto a cluster that runs"]);
    let said = fail(&mut hosts.operator(&["run", "apps1.tar", "--registry-port", "5001"]), 2);
    assert_has(&said, &["comes onto a cluster that runs", "the registry"]);
    assert_eq!(list().len(), 1);

    // Nobody starts pods here: the Deployment is not ready until this test says so.
    let said = fail(&mut hosts.operator(&["run", "apps1.tar", "--wait=2"]), 10);
    assert_has(&said, &["app web is ready", "Deployment web", "kubectl get pods"]);
    assert_eq!(list()[1], listed(&[("web", "kube", "launching")])[0]);
    let ready = |generation: u32| {
        kubectl(&format!(
            "kubectl patch deployment web --subresource=status --type=merge -p '{{\"status\":{{\"observedGeneration\":{generation},\
             \"replicas\":1,\"updatedReplicas\":1,\"readyReplicas\":1,\"availableReplicas\":1}}}}'"
        ));
    };
    ready(1);
    let said = succeed(&mut hosts.operator(&["run", "apps1.tar", "--wait"]));
    assert_has(&said, &["cluster my-cluster has launched web, site, chart, setup"]);
    let all = [
        ("base", "command", "launched"),
        ("web", "kube", "launched"),
        ("site", "kustomize", "launched"),
        ("chart", "helm", "launched"),
        ("setup", "shell", "launched"),
    ];
    assert_eq!(list(), listed(&all));
    assert_eq!(kubectl("kubectl get configmap web -o jsonpath={.data.version}"), "1");
    assert_eq!(
        kubectl("kubectl get configmap my-site -o jsonpath={.metadata.labels.of}"),
        "site"
    );
    assert_has(&kubectl("helm list"), &["chart-1.0.0", "deployed"]);
    let color = "kubectl get configmap of-chart -o jsonpath={.data.color}";
    assert_eq!(kubectl(color), "red", "the values beside the chart count");
    assert_has(&hosts.ok(1, "tail -n 1 /var/lib/told"), &["setup green configmap/web"]);
    // The private registry has what the apps need, for every host.
    let ca = hosts.data("pki/ca.crt");
    let manifest = |number: u32, tag: &str| {
        let line = format!("curl -sSf -o /dev/null --cacert {ca} https://sea.hub:5000/v2/app/manifests/{tag}");
        hosts.holds(number, &line)
    };
    assert!(manifest(1, "v1") && manifest(2, "v1") && !manifest(2, "v2"));

    // Again: all is launched once more, and nothing is sent twice.
    succeed(&mut hosts.operator(&["run", "apps1.tar"]));
    assert_eq!(hosts.ok(1, "grep -c setup /var/lib/told").trim(), "2");
    let images = || hosts.ok(1, &format!("ls {}", hosts.data("apps")));
    assert_eq!(images().lines().count(), 1);
    let first = images();

    // A newer image is an upgrade; that of the older one goes.
    succeed(&mut hosts.operator(&["run", "apps2.tar", "-e", "COLOR=black"]));
    assert_eq!(kubectl("kubectl get configmap web -o jsonpath={.data.version}"), "2");
    assert_has(&kubectl("helm list"), &["chart-2.0.0"]);
    assert_has(&hosts.ok(1, "tail -n 1 /var/lib/told"), &["setup black"]);
    assert!(manifest(2, "v1") && manifest(2, "v2"));
    assert_eq!(images().lines().count(), 1);
    assert_ne!(images(), first);

    // And they go.
    assert_has(
        &fail(&mut hosts.operator(&["app", "delete", "setup", "--force"]), 2),
        &[
            "nothing says how app `setup` of type shell is removed",
            "configs[].delete.cmds",
        ],
    );
    assert_has(
        &fail(&mut hosts.operator(&["app", "delete", "nobody", "--force"]), 3),
        &["no app `nobody`", "it has base, web"],
    );
    assert_has(
        &fail(&mut hosts.operator(&["app", "delete", "web"]), 2),
        &["nobody is there to confirm"],
    );
    succeed(&mut hosts.operator(&["app", "delete", "web", "site", "chart", "base", "--force"]));
    assert_eq!(list(), listed(&[("setup", "shell", "launched")]));
    let left = kubectl("kubectl get configmap,deployment -o name");
    assert_eq!(
        left,
        "configmap/kube-root-ca.crt\n".repeat(usize::from(left.contains("kube-root-ca")))
    );
    assert!(!kubectl("helm list -q").contains("chart"));
    assert_eq!(hosts.ok(1, "tail -n 1 /var/lib/told"), "gone\n");

    succeed(&mut hosts.operator(&["delete", "--all", "--force"]));
    hosts.assert_untouched(&before, "deleted with its apps");
}
