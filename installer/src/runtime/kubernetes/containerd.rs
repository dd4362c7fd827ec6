//! containerd, apart from any other that the host has: its service, its configuration, and the registry that it pulls from.

use std::collections::BTreeMap;
use std::path::Path;

use sealrs_image::error::Result;

use super::config::{CgroupDriver, Config};
use super::images::Images;
use super::{file, services};
use crate::action::{Action, Content, Probe};
use crate::mirror::Mirror;
use crate::plan::{Context, Step};
use crate::registry::{self, HOSTS_TOML};
use crate::service::Service;

pub(super) const DATA: &str = "/var/lib/sealrs-containerd";
pub(super) const STATE: &str = "/run/sealrs-containerd";
pub(super) const CONFIG: &str = "/etc/sealrs-containerd";
pub(super) const SOCKET: &str = "/run/sealrs-containerd/containerd.sock";
pub(super) const SERVICE: &str = "sealrs-containerd";
const CRICTL: &str = "/etc/crictl.yaml";

/// The socket as kubeadm and crictl want it.
pub(super) fn endpoint() -> String {
    format!("unix://{SOCKET}")
}

/// The steps until it answers.
pub(super) fn start(context: &Context<'_>, config: &Config, images: &Images) -> Result<Vec<Step>> {
    let readable = |path, text| file(path, 0o644, Content::Text(text));
    let folder = Path::new(CONFIG);
    let pause = images.pause(config.repository())?;
    let mut files = vec![
        readable(folder.join("config.toml"), settings(config, &pause)),
        readable(
            CRICTL.into(),
            format!(
                "# Written by sealrs.\nruntime-endpoint: {0}\nimage-endpoint: {0}\n",
                endpoint()
            ),
        ),
    ];
    let places = registry::mirrored_hosts(context)?
        .iter()
        .map(|host| (host.to_string(), vec![host.folder(), String::new()]))
        .collect();
    for (host, text) in Mirror::of_cluster(context).hosts_toml(&places) {
        let text = format!("# Written by sealrs.\n{text}\n");
        files.push(readable(folder.join("certs.d").join(host).join(HOSTS_TOML), text));
    }
    let service = Service {
        name: SERVICE.to_owned(),
        description: "containerd of the cluster".to_owned(),
        // The image's or the host's, whichever comes first in the path.
        argv: ["/bin/sh", "-c", "exec containerd --config \"$CONFIG\""]
            .map(str::to_owned)
            .to_vec(),
        env: BTreeMap::from([
            ("CONFIG".to_owned(), format!("{CONFIG}/config.toml")),
            ("PATH".to_owned(), services::search_path(context)),
        ]),
        notifies: true,
        restart_seconds: 5,
        unit_lines: [
            "ExecStartPre=-/sbin/modprobe overlay",
            "KillMode=process",
            "Delegate=yes",
            "LimitNPROC=infinity",
            "LimitCORE=infinity",
            "LimitNOFILE=1048576",
            "TasksMax=infinity",
            "OOMScoreAdjust=-999",
        ]
        .map(str::to_owned)
        .to_vec(),
    };
    let ready = Action::Wait {
        probes: vec![
            Probe::Service(SERVICE.to_owned()),
            Probe::Prints {
                what: "containerd answers".to_owned(),
                argv: services::crictl(context, &["info"]),
                env: BTreeMap::new(),
                starts: "{".to_owned(),
            },
        ],
        seconds: 60,
        service: Some(SERVICE.to_owned()),
        remedy: None,
    };
    Ok(vec![
        context.step("containerd-config", "configure containerd", Action::WriteFiles(files))?,
        context.step("containerd", "start containerd", Action::Service(service))?,
        context.step("containerd-ready", "wait for containerd", ready)?,
    ])
}

/// Of the second version, which containerd 2 reads as well.
fn settings(config: &Config, pause: &str) -> String {
    let systemd = config.cgroup_driver() == CgroupDriver::Systemd;
    format!(
        r#"# Written by sealrs.
version = 2
root = "{DATA}"
state = "{STATE}"

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{DATA}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{CONFIG}/certs.d"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}
"#
    )
}
