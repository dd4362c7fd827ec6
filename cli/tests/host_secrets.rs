//! No secret is seen by anybody: those that were made for a cluster, and those that were given for it, are looked for in the
//! arguments of all processes while it is made, and afterwards in logs, journals, plans and files of all hosts and of the
//! operator. k3s (the stand-in of `testdata/k3s`) on two masters and a node, reached by password.

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

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{assert_has, needs, needs_root, succeed};
use support_hosts::Hosts;

const KUBEFILE: &str = "\
FROM scratch
LABEL cluster.alpha.sealer.io/cluster-runtime-type=k3s cluster.alpha.sealer.io/cluster-runtime-version=v1.31.2+k3s1
COPY . .
CMDS [\"test -n \\\"$DB_PASSWORD\\\"\"]
";

/// Writes down the arguments of all processes, again and again.
const WATCH: &str = "while :; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; sleep 0.2; done";

fn testdata(name: &str) -> String {
    format!("{}/../testdata/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn image(hosts: &Hosts) {
    let scratch = &hosts.scratch;
    scratch.write(
        "context/etc/k3s/config.yaml",
        "disable: [coredns, local-storage, metrics-server]\n",
    );
    for folder in ["bin", "images"] {
        fs::create_dir_all(scratch.path(&format!("context/{folder}"))).unwrap();
    }
    succeed(Command::new(testdata("k3s/make-k3s.sh")).arg(scratch.path("context/bin/k3s")));
    let pause = [
        "pause",
        "docker.io/rancher/mirrored-pause:3.6",
        &scratch.path("context/images/pause.tar"),
    ];
    succeed(Command::new(testdata("images/make-image.sh")).args(pause));
    scratch.build("x:1", KUBEFILE, &[]);
    scratch.ok(&["save", "x:1", "-o", "x.tar"]);
}

/// A program that goes on until this is dropped, with its output in a file.
struct Watch(Child);

impl Watch {
    fn start(mut command: Command, output: &str) -> Self {
        let output = fs::File::create(output).unwrap();
        Self(
            command
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A line of a secret that is in nothing else.
fn telling(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    lines.max_by_key(|line| line.len()).unwrap().trim().to_owned()
}

/// Secrets by what they are: all files that were made as such, but for certificates, which are for everybody.
fn made(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            made(&path, found);
            continue;
        }
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let public = ["crt", "pub"]
            .iter()
            .any(|end| path.extension().is_some_and(|extension| extension == *end));
        if public {
            continue;
        }
        assert_eq!(mode, 0o600, "{}", path.display());
        found.insert(path.display().to_string(), telling(&fs::read_to_string(&path).unwrap()));
    }
}

#[test]
fn nobody_sees_a_secret() {
    needs_root!();
    needs!(
        "sshd",
        "mkfs.ext4",
        "nft",
        "containerd",
        "runc",
        "iptables",
        "skopeo",
        "umoci",
        "gcc",
        "busybox",
        "python3",
        "openssl"
    );
    // What is given, each of a kind that goes another way.
    let random = |seed: u64| {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let bytes = support::noise(u64::from(now.subsec_nanos()) * 2 + seed, 12);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (login, variable) = (format!("login-{}", random(0)), format!("variable-{}", random(1)));
    let hosts = Hosts::boot_with(
        3,
        vec![
            ("HOSTS_CGROUP", "v1".to_owned()),
            ("HOSTS_SYSCTL", "rw".to_owned()),
            ("HOSTS_PASSWORD", login.clone()),
        ],
    );
    image(&hosts);
    let scratch = &hosts.scratch;
    let clusterfile = "apiVersion: sealer.io/v2\nkind: Cluster\nmetadata: {name: my-cluster}\nspec:\n  image: x.tar\n  ssh: {passwdEnv: \
         LOGIN}\n  hosts:\n  - {roles: [master], ips: [10.88.0.11, 10.88.0.12]}\n  - {roles: [node], ips: [10.88.0.13]}\n";
    scratch.write("Clusterfile", clusterfile);
    let known = scratch.path("known_hosts");
    let sealrs = |words: &[&str]| {
        let mut all = words.to_vec();
        all.extend(["--known-hosts", &known, "-e", "DB_PASSWORD"]);
        let (program, root) = (scratch.path("sealrs"), hosts.root());
        // With all that it has to say.
        let mut command = hosts.script(&[&["exec", "ctl", &program, "--root", &root], &all[..]].concat());
        command.env_remove("SSH_AUTH_SOCK").current_dir(scratch.path(""));
        command.env("LOGIN", &login).env("DB_PASSWORD", &variable);
        command
    };

    let mut watches = vec![Watch::start(
        {
            let mut command = Command::new("bash");
            command.args(["-c", WATCH]);
            command
        },
        &scratch.path("seen-operator"),
    )];
    for number in 1..=3 {
        watches.push(Watch::start(
            hosts.bash(number, WATCH),
            &scratch.path(&format!("seen-{number}")),
        ));
    }
    // What is in arguments is seen.
    for number in 1..=3 {
        hosts.ok(number, "exec -a canary-in-arguments sleep 1");
    }
    let mut told = succeed(&mut sealrs(&["apply", "-f", "Clusterfile", "--dry-run"]));
    told += &succeed(&mut sealrs(&[
        "apply",
        "-f",
        "Clusterfile",
        "--dry-run",
        "--output",
        "json",
    ]));
    let output = sealrs(&["apply", "-f", "Clusterfile"]).output().unwrap();
    told += &(support::text(&output.stdout) + &support::text(&output.stderr));
    assert!(output.status.success(), "{told}");
    assert_has(&told, &["masters 10.88.0.11, 10.88.0.12, nodes 10.88.0.13"]);
    told += &succeed(&mut hosts.operator(&["status", "--output", "json"]));
    drop(watches);

    let mut secrets = BTreeMap::from([
        ("login".to_owned(), login.clone()),
        ("variable".to_owned(), variable.clone()),
    ]);
    made(Path::new(&hosts.data("secrets")), &mut secrets);
    made(Path::new(&hosts.data("pki")), &mut secrets);
    let has = |part: &str| secrets.keys().filter(|name| name.contains(part)).count();
    assert!(has("token") >= 2 && has(".key") >= 6, "{:?}", secrets.keys());

    // Those who may know: the operator's folder; on hosts k3s's own folders, and files that only root reads.
    let (mut patterns, mut open) = (String::new(), Vec::new());
    for secret in secrets.values() {
        patterns += &format!("{secret}\n");
    }
    scratch.write("patterns", &patterns);
    let what = |text: &str, place: &str| {
        for (name, secret) in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} is in {place}");
        }
    };
    what(&told, "what sealrs says");
    what(
        &fs::read_to_string(scratch.path("Clusterfile")).unwrap(),
        "the Clusterfile",
    );
    for place in ["operator", "1", "2", "3"] {
        let seen = support::text(&scratch.read(&format!("seen-{place}")));
        assert!(seen.contains("canary-in-arguments"), "{place} was not watched");
        what(&seen, &format!("the arguments of a process ({place})"));
    }
    assert!(
        support::text(&scratch.read("seen-1")).contains("\nserver\n"),
        "k3s was seen"
    );
    for name in [
        "journal",
        "plan.json",
        "members.json",
        "host-manifest",
        "apps.json",
        "log",
    ] {
        let path = hosts.data(name);
        let found = Command::new("grep")
            .args(["-rlFf", &scratch.path("patterns"), &path])
            .output()
            .unwrap();
        assert_eq!(support::text(&found.stdout), "", "the operator's {name}");
    }
    for number in 1..=3 {
        let mut put = hosts.script(&[
            "exec",
            &number.to_string(),
            "sh",
            "-c",
            "umask 077; cat > /var/lib/patterns",
        ]);
        succeed(put.stdin(fs::File::open(scratch.path("patterns")).unwrap()));
        let journal = "journalctl --no-pager -o export | grep -acFf /var/lib/patterns";
        assert_eq!(
            hosts.bash(number, journal).output().unwrap().stdout,
            b"0\n",
            "the log of host {number}"
        );
        let line = "grep -rlFf /var/lib/patterns /etc /root /home /var /run /tmp /opt /usr/local --exclude-dir=k3s \
             --exclude=patterns 2>/dev/null; grep -rlFf /var/lib/patterns /etc/rancher /var/log/pods /var/log/containers 2>/dev/null; true";
        let found = hosts.ok(number, line);
        for path in found.lines() {
            let mode = hosts.ok(number, &format!("stat -Lc %a {path}"));
            if mode.trim() != "600" {
                open.push(format!("{number}: {path} {mode}"));
            }
        }
        let known = [
            "/etc/rancher/k3s/token".to_owned(),
            "/etc/rancher/k3s/agent-token".to_owned(),
            hosts.data("environment.json"),
            hosts.data("pki/registry.key"),
            hosts.data("rootfs/certs/sea.hub.key"),
        ];
        let others: Vec<&str> = found
            .lines()
            .filter(|path| !known.iter().any(|known| known == path))
            .collect();
        assert_eq!(others, Vec::<&str>::new(), "host {number}");
    }
    assert_eq!(open, Vec::<String>::new(), "others can read them");
    // The key of the authority that signs for the registry stays with the operator, and agents can't make masters.
    let knows = |number: u32, name: &str| {
        let secret = &secrets[&hosts.data(name)];
        scratch.write("pattern", secret);
        let mut search = hosts.script(&[
            "exec",
            &number.to_string(),
            "grep",
            "-rlFf",
            "/dev/stdin",
            "/etc",
            "/var/lib",
            "/root",
        ]);
        let found = search
            .stdin(fs::File::open(scratch.path("pattern")).unwrap())
            .output()
            .unwrap();
        let found = support::text(&found.stdout);
        found.lines().any(|path| path != "/var/lib/patterns")
    };
    assert!(!knows(1, "pki/ca.key"));
    assert!(knows(1, "secrets/k3s-token") && knows(2, "secrets/k3s-token") && !knows(3, "secrets/k3s-token"));
    assert!(knows(3, "secrets/k3s-agent-token"));
}
