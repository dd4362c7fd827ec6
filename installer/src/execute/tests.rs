use super::*;
use crate::action::{Claim, Content, Mode};
use crate::facts::tests::server;
use crate::undo::Remover;
use sealrs_image::progress::Silent;
use std::os::unix::fs::{MetadataExt as _, symlink};

/// A folder that stands for a host, with a cluster's files in it.
struct Host {
    folder: tempfile::TempDir,
    files: ClusterFiles,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = ClusterFiles::new(&folder.path().join("root"), "c");
        fs::create_dir_all(files.data()).unwrap();
        Self { folder, files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("host").join(name)
    }

    fn foreign(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
    }

    fn manifest(&self) -> HostManifest {
        HostManifest::open(&self.files.host_manifest(), &self.files.backup()).unwrap()
    }

    fn execute(&self, actions: &[Action]) {
        // Opened anew for each, as by runs that are interrupted; and each done twice.
        for action in actions {
            for _ in 0..2 {
                let mut executor = Executor {
                    files: &self.files,
                    manifest: &mut self.manifest(),
                    environment: &Environment::new(),
                    runtime: crate::runtime::by_name("script").unwrap(),
                    manager: server().services,
                    progress: &Silent,
                };
                let secrets = crate::secrets::Secrets::new(&self.files).of(action).unwrap();
                executor.execute("step", action, &secrets).unwrap();
            }
        }
    }

    fn undo(&self) {
        let remover = Remover {
            files: &self.files,
            environment: Environment::new(),
            progress: &Silent,
        };
        for _ in 0..2 {
            let manifest = self.manifest();
            for (number, made) in manifest.standing() {
                remover.undo(number, &made, &manifest).unwrap();
            }
        }
    }

    /// Paths, modes, times of files, and contents.
    fn state(&self) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
        let mut state = BTreeMap::new();
        let mut open = vec![self.folder.path().join("host")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                if metadata.is_dir() {
                    open.push(path.clone());
                    state.insert(path, (metadata.mode(), 0, Vec::new()));
                } else {
                    let content = fs::read(&path).unwrap_or_default();
                    // A link can't be given a time.
                    let time = if metadata.is_symlink() { 0 } else { metadata.mtime() };
                    state.insert(path, (metadata.mode(), time, content));
                }
            }
        }
        state
    }
}

fn write(path: PathBuf, text: &str) -> Action {
    Action::WriteFile {
        path,
        mode: Mode(0o600),
        content: Content::Text(text.to_owned()),
    }
}

#[test]
fn what_was_there_comes_back_and_what_was_not_goes() {
    let host = Host::new();
    host.foreign("etc/certs.d/docker.io/hosts.toml", "foreign");
    host.foreign("etc/hosts", "127.0.0.1 localhost");
    host.foreign("source", "binary");
    host.foreign("home/.kube/config", "the user's");
    symlink("elsewhere", host.path("link")).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    let file = fs::File::open(host.path("etc/certs.d/docker.io/hosts.toml")).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(old)).unwrap();
    let before = host.state();
    let copy = |to: &str| FileCopy {
        from: host.path("source"),
        to: host.path(to),
        mode: Some(Mode(0o755)),
    };
    host.execute(&[
        write(host.path("etc/certs.d/docker.io/hosts.toml"), "ours"),
        write(host.path("etc/certs.d/quay.io/hosts.toml"), "ours"),
        write(host.path("etc/k3s/config.yaml"), "ours"),
        write(host.path("link"), "ours"),
        Action::CopyFiles {
            files: vec![copy("usr/local/bin/k3s"), copy("usr/local/bin/other")],
            link: true,
        },
        Action::OfferFile(copy("home/.kube/config")),
        Action::OfferFile(copy("root/.kube/config")),
        Action::Link {
            path: host.path("usr/local/bin/kubectl"),
            target: "k3s".into(),
        },
        Action::MakeFolder {
            path: host.path("opt/x"),
            mode: Mode(0o750),
        },
        Action::HostsEntry {
            path: host.path("etc/hosts"),
            cluster: "c".into(),
            address: "10.0.0.1".parse().unwrap(),
            names: vec!["sea.hub".into()],
        },
    ]);
    let read = |name: &str| fs::read_to_string(host.path(name)).unwrap();
    assert_eq!(read("etc/certs.d/docker.io/hosts.toml"), "ours");
    assert_eq!(read("usr/local/bin/kubectl"), "binary");
    assert_eq!(read("home/.kube/config"), "the user's");
    assert_eq!(read("root/.kube/config"), "binary");
    assert!(read("etc/hosts").contains("10.0.0.1 sea.hub"));
    host.undo();
    let after = host.state();
    // The hosts file is written anew without our block; its time tells.
    let without_time = |mut state: BTreeMap<PathBuf, (u32, i64, Vec<u8>)>| {
        state.get_mut(&host.path("etc/hosts")).unwrap().1 = 0;
        state
    };
    assert_eq!(without_time(after), without_time(before));
}

#[test]
fn what_was_changed_since_stays() {
    let host = Host::new();
    host.foreign("etc/foreign", "foreign");
    host.execute(&[
        write(host.path("root/.kube/config"), "ours"),
        write(host.path("etc/foreign"), "ours"),
        write(host.path("etc/unchanged"), "ours"),
        // Other content in a second try is ours as well.
        write(host.path("etc/unchanged"), "ours anew"),
        Action::Link {
            path: host.path("link"),
            target: "ours".into(),
        },
    ]);
    fs::write(host.path("root/.kube/config"), "ours and more").unwrap();
    fs::write(host.path("etc/foreign"), "edited").unwrap();
    fs::remove_file(host.path("link")).unwrap();
    symlink("theirs", host.path("link")).unwrap();
    host.undo();
    let read = |name: &str| fs::read_to_string(host.path(name)).unwrap();
    assert_eq!(read("root/.kube/config"), "ours and more");
    assert_eq!(read("etc/foreign"), "edited");
    assert_eq!(fs::read_link(host.path("link")).unwrap(), Path::new("theirs"));
    assert!(!host.path("etc/unchanged").exists());
}

#[test]
fn a_hosts_file_that_is_a_link_stays_one() {
    let host = Host::new();
    host.foreign("static/hosts", "127.0.0.1 localhost\n");
    symlink("static/hosts", host.path("hosts")).unwrap();
    host.execute(&[Action::HostsEntry {
        path: host.path("hosts"),
        cluster: "c".into(),
        address: "10.0.0.1".parse().unwrap(),
        names: vec!["sea.hub".into()],
    }]);
    let read = || fs::read_to_string(host.path("static/hosts")).unwrap();
    assert!(read().contains("sea.hub"));
    host.undo();
    assert_eq!(read(), "127.0.0.1 localhost\n");
    assert_eq!(fs::read_link(host.path("hosts")).unwrap(), Path::new("static/hosts"));
}

#[test]
fn trees_that_others_fill_keep_what_was_in_them() {
    let host = Host::new();
    host.foreign("cni/net.d/10-foreign.conf", "foreign");
    host.foreign("log/keep/file", "foreign");
    let before = host.state();
    host.execute(&[
        Action::Claim(vec![
            Claim::Tree(host.path("cni/net.d")),
            Claim::Tree(host.path("log")),
            Claim::Tree(host.path("lib/k3s")),
        ]),
        write(host.path("lib/k3s/agent/images/a.tar"), "ours"),
    ]);
    host.foreign("cni/net.d/20-runtime.conf", "made");
    host.foreign("log/pods/x/0.log", "made");
    host.foreign("lib/k3s/server/db", "made");
    host.undo();
    let mut after = host.state();
    // A tree that goes wholly does not take the folder that it lies in.
    after.remove(&host.path("lib"));
    assert_eq!(after, before);
}

#[test]
fn secrets_are_made_once_and_shown_to_nobody() {
    let host = Host::new();
    let action = Action::WriteFile {
        path: host.path("etc/token"),
        mode: Mode(0o600),
        content: Content::Secret("token".into()),
    };
    host.execute(std::slice::from_ref(&action));
    let secret = fs::read_to_string(host.path("etc/token")).unwrap();
    assert_eq!(secret.len(), 64);
    host.execute(std::slice::from_ref(&action));
    assert_eq!(fs::read_to_string(host.path("etc/token")).unwrap(), secret);
    let kept = host.files.secrets().join("token");
    assert_eq!(fs::metadata(kept).unwrap().mode() & 0o777, 0o600);
    assert!(!format!("{action:?}").contains(&secret));
    let manifest = fs::read_to_string(host.files.host_manifest()).unwrap();
    assert!(!manifest.contains(&secret));
    host.undo();
    assert!(!host.path("etc").exists());
}

#[test]
fn clusters_that_edit_one_file_at_once_lose_nothing() {
    let shared = tempfile::tempdir().unwrap();
    let hosts = shared.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let edit = |cluster: &str| {
        let host = Host::new();
        let mut manifest = host.manifest();
        let mut executor = Executor {
            files: &host.files,
            manifest: &mut manifest,
            environment: &Environment::new(),
            runtime: crate::runtime::by_name("script").unwrap(),
            manager: server().services,
            progress: &Silent,
        };
        for number in 0..60 {
            let address: std::net::IpAddr = [10, 0, 0, number].into();
            let action = Action::HostsEntry {
                path: hosts.clone(),
                cluster: cluster.to_owned(),
                address,
                names: vec![format!("{cluster}.hub")],
            };
            executor
                .execute("step", &action, &crate::secrets::Bundle::new())
                .unwrap();
            let text = fs::read_to_string(&hosts).unwrap();
            assert!(text.contains(&format!("\n{address} {cluster}.hub\n")), "{text}");
        }
        host.undo();
    };
    std::thread::scope(|scope| {
        let clusters = ["one", "two", "three"].map(|cluster| scope.spawn(move || edit(cluster)));
        for cluster in clusters {
            cluster.join().unwrap();
        }
    });
    assert_eq!(fs::read_to_string(&hosts).unwrap(), "127.0.0.1 localhost\n");
}
