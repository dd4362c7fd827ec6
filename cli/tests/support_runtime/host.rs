//! One host of testdata/hosts.sh with systemd, cgroups for containers, and no packet that gets out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::product::{Product, words};
use crate::support::{Running, Scratch, fail, outcome, succeed, text};

/// Where the host sees the folder `given` of the scratch folder.
pub const GIVEN: &str = "/opt/given";
/// The program under test, on the host.
pub const SEALRS: &str = "/opt/given/sealrs";
/// The folder of the cluster on the host.
pub const CLUSTER: &str = "/var/lib/sealer/data/my-cluster";
/// How long anything may take before the test gives up. A program that is no stand-in needs some of it.
const PATIENCE: Duration = Duration::from_secs(150);

/// The host, and the folder where things for it are made.
#[derive(Debug)]
pub struct Host {
    pub scratch: Scratch,
    /// What is installed on it.
    pub product: &'static Product,
    name: String,
}

impl Host {
    pub fn boot(product: &'static Product) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Process ids have at most seven digits; names of hosts.sh at most eight letters.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let letter = char::from(b'h' + u8::try_from(number % 16).unwrap());
        let host = Self {
            scratch: Scratch::new(),
            product,
            name: format!("{letter}{:x}", std::process::id()),
        };
        fs::create_dir(host.scratch.path("given")).unwrap();
        // The program stays the same though it be built anew meanwhile.
        let program = host.scratch.path("given/sealrs");
        if fs::hard_link(env!("CARGO_BIN_EXE_sealrs"), &program).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_sealrs"), &program).unwrap();
        }
        succeed(&mut host.hosts(&["up", "1"]));
        match product.preparation(&hosts_sh(), 1) {
            Ok(mut command) => succeed(host.settings(&mut command)),
            Err(line) => host.ok(&line),
        };
        // As it is after the second boot.
        host.ok("chmod 700 /root");
        // A unit that still starts would be a difference later.
        host.wait_for("systemd", "systemctl is-system-running | grep -qE 'running|degraded'");
        host
    }

    /// `hosts.sh` for this host.
    pub fn hosts(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(hosts_sh());
        self.settings(&mut command).args(arguments);
        command
    }

    fn settings<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let mut binds = words("HOSTS_BIND");
        binds.push(format!("{}:{GIVEN}", self.scratch.path("given")));
        command
            .env("HOSTS_NAME", &self.name)
            .env("HOSTS_CGROUP", "v1")
            .env("HOSTS_SYSCTL", "rw")
            .env("HOSTS_BIND", binds.join(" "))
            .env_remove("HOSTS_STATE")
            .stdin(Stdio::null())
    }

    /// A command line of bash on the host.
    pub fn bash(&self, line: &str) -> Command {
        self.hosts(&["exec", "1", "bash", "-c", line])
    }

    /// It has to succeed; gives what it printed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        succeed(&mut self.bash(line))
    }

    /// Runs a script from standard input, so that it is not seen in the list of processes.
    #[track_caller]
    pub fn script(&self, script: &str) -> String {
        let path = self.scratch.write("script", script);
        succeed(
            self.hosts(&["exec", "1", "bash", "-s"])
                .stdin(fs::File::open(path).unwrap()),
        )
    }

    /// A command in the network that the host's cable leads to, with this machine's files but for its hosts file.
    pub fn connected(&self, program: &str, arguments: &[&str]) -> Command {
        let line = "mount --bind \"$HOSTS_FILE\" /etc/hosts; exec \"$@\"";
        let mut command = self.hosts(&["exec", "ctl", "unshare", "--mount", "bash", "-c", line, "-", program]);
        command.args(arguments).env("HOSTS_FILE", self.scratch.path("hosts"));
        command
    }

    pub fn sealrs(&self, arguments: &[&str]) -> Command {
        let mut command = self.hosts(&["exec", "1", SEALRS]);
        command.args(arguments);
        command
    }

    /// `sealrs run` of the image's archive has to succeed; gives its result.
    #[track_caller]
    pub fn run(&self, archive: &str, more: &[&str]) -> Value {
        let mut command = self.sealrs(&["--quiet", "--output", "json", "run", archive]);
        let (code, said) = outcome(command.args(self.product.flags).args(more));
        assert_eq!(code, Some(0), "{said}\n{}", self.explain());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// `sealrs run` has to end with this code; gives what it said and how long that took.
    #[track_caller]
    pub fn run_fails(&self, code: i32, archive: &str, more: &[&str]) -> (String, Duration) {
        let begun = Instant::now();
        let said = fail(self.sealrs(&["run", archive]).args(self.product.flags).args(more), code);
        (said, begun.elapsed())
    }

    /// Starts `sealrs run` and kills it when the step has begun.
    #[track_caller]
    pub fn run_killed(&self, archive: &str, step: &str) {
        let mut run = Running::start(self.sealrs(&["--quiet", "run", archive]).args(self.product.flags));
        let begun = format!("grep -qF '{{\"begin\":\"{step}\"}}' {CLUSTER}/journal");
        self.wait_for(step, &begun);
        // The command that is waited for here is only the way into the host.
        self.ok(&format!("kill -KILL $(pgrep -f '^{SEALRS} --quiet run')"));
        self.wait_until("the killed command ends", || !run.is_running());
    }

    /// `sealrs delete` has to succeed; gives its outcome.
    #[track_caller]
    pub fn delete(&self) -> String {
        let mut command = self.sealrs(&["--quiet", "--output", "json", "delete", "--all", "--force"]);
        let printed = succeed(&mut command);
        let summary: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
        summary["outcome"].as_str().unwrap().to_owned()
    }

    /// Waits until a line of bash succeeds.
    #[track_caller]
    pub fn wait_for(&self, what: &str, line: &str) {
        self.wait_until(what, || self.bash(line).output().unwrap().status.success());
    }

    #[track_caller]
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "waited too long: {what}\n{}", self.explain());
            sleep(Duration::from_millis(100));
        }
    }

    /// The Kubernetes API's answer as JSON; nothing while it does not answer.
    pub fn get(&self, what: &str) -> Option<Value> {
        let Output { status, stdout, .. } = self
            .bash(&format!("{} kubectl get {what} -o json", self.product.name))
            .output()
            .unwrap();
        serde_json::from_slice(&stdout).ok().filter(|_| status.success())
    }

    /// The pods by name, with the image and the phase of each.
    pub fn pods(&self) -> BTreeMap<String, (String, String)> {
        let pods = self.get("pods").unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let pod = |pod: &Value| {
            let image = word(&pod["spec"]["containers"][0]["image"]);
            (word(&pod["metadata"]["name"]), (image, word(&pod["status"]["phase"])))
        };
        pods.iter().map(pod).collect()
    }

    #[track_caller]
    pub fn wait_for_pods(&self, names: &[&str]) {
        self.wait_until(&format!("pods {names:?} run"), || {
            let pods = self.pods();
            names
                .iter()
                .all(|&name| pods.get(name).is_some_and(|(_, phase)| phase == "Running"))
        });
    }

    /// `kubectl apply`.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        self.scratch.write("given/manifest.yaml", manifest);
        self.ok(&format!("{} kubectl apply -f {GIVEN}/manifest.yaml", self.product.name));
    }

    /// What a pod's container has printed.
    pub fn logs(&self, pod: &str) -> String {
        let printed = self
            .bash(&format!("{} kubectl logs {pod}", self.product.name))
            .output()
            .unwrap()
            .stdout;
        text(&printed).trim().to_owned()
    }

    /// Writes down again and again which processes run on the host, with their arguments.
    pub fn watch_processes(&self) -> Background {
        let line = "mkdir -p /tmp/sealrs-test; while :; do ps -eo args=; sleep 0.2; done >/tmp/sealrs-test/processes";
        Background::start(self, line)
    }

    /// Listens on a port.
    pub fn occupy(&self, port: u16) -> Background {
        let background = Background::start(self, &format!("exec python3 -m http.server {port}"));
        self.wait_for("somebody listens", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}"));
        background
    }

    /// The pods that really have a running container, whatever the API still remembers.
    pub fn running(&self) -> Vec<String> {
        let line = "ctr() { $PRODUCT ctr -n k8s.io \"$@\"; }; \
            for id in $(ctr tasks ls | awk '$3 == \"RUNNING\" {print $1}'); do ctr containers info $id; done";
        let printed = self
            .bash(&format!("PRODUCT={}; {line}", self.product.name))
            .output()
            .unwrap()
            .stdout;
        let containers = serde_json::Deserializer::from_slice(&printed).into_iter::<Value>();
        // Sandboxes have no container's name.
        let pod = |container: Value| {
            let labels = &container["Labels"];
            labels["io.kubernetes.container.name"].as_str()?;
            labels["io.kubernetes.pod.name"].as_str().map(str::to_owned)
        };
        let mut pods: Vec<String> = containers.map_while(Result::ok).filter_map(pod).collect();
        pods.sort();
        pods
    }

    /// Pulls the plug and boots again.
    pub fn reboot(&self) {
        succeed(&mut self.hosts(&["stop", "1"]));
        succeed(&mut self.hosts(&["start", "1"]));
    }

    /// What one wants to see when something went wrong.
    fn explain(&self) -> String {
        let Product { name, service, .. } = self.product;
        let line = &format!(
            "{name} kubectl get pods,nodes; systemctl --no-pager --lines 0 status {service}; \
             journalctl --no-pager -u {service} -o cat | grep -vE 'level=info|^I[0-9]' | tail -40"
        );
        let (_, said) = outcome(&mut self.bash(line));
        said
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.hosts(&["down"]).output();
    }
}

/// A command that goes on until it is stopped.
#[derive(Debug)]
pub struct Background {
    /// The way into the host.
    _way: Running,
    /// Where its process id on the host is.
    file: &'static str,
}

impl Background {
    fn start(host: &Host, line: &str) -> Self {
        let file = "/tmp/sealrs-test/background";
        host.ok("mkdir -p /tmp/sealrs-test");
        let line = format!("echo $$ >{file}; {line}");
        let way = Running::start(host.bash(&line).stderr(Stdio::null()));
        host.wait_for("the background begins", &format!("test -s {file}"));
        Self { _way: way, file }
    }

    /// Ends it; gives what it wrote down.
    pub fn stop(self, host: &Host) -> String {
        let Self { file, .. } = &self;
        host.ok(&format!(
            "kill $(cat {file}); cat /tmp/sealrs-test/processes 2>/dev/null; rm -r /tmp/sealrs-test"
        ))
    }
}

/// The repository's folder with this path.
pub fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(path)
}

pub fn hosts_sh() -> PathBuf {
    testdata("hosts.sh").canonicalize().unwrap()
}
