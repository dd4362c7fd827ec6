//! What containerd and docker of this host know of the registry.

use std::path::{Path, PathBuf};

use sealrs_image::error::Result;

use super::{ca, mirrored_hosts};
use crate::action::{Action, FileCopy, Mode};
use crate::mirror::{self, Mirror};
use crate::plan::{Context, Step};

/// Where containerd and docker keep what they know of registries.
pub(crate) const CONTAINERD_CERTS: &str = "/etc/containerd/certs.d";
pub(crate) const HOSTS_TOML: &str = "hosts.toml";
const DOCKER_CERTS: &str = "/etc/docker/certs.d";

/// What containerd and docker of this host have to know to pull from the registry, by the images' own names.
pub(super) fn trust(context: &Context<'_>) -> Result<Vec<Step>> {
    let has = |program: &str, folder: &str| {
        context.facts.programs.contains(program) || context.facts.paths.contains(Path::new(folder))
    };
    let mut steps = Vec::new();
    let url = context.options.registry_url();
    if has("containerd", "/etc/containerd") {
        // Images lie below the folder of their host; those of other tools lie there without it, so both places are asked.
        let places = mirrored_hosts(context)?
            .iter()
            .map(|host| (host.to_string(), vec![host.folder(), String::new()]))
            .collect();
        for (host, text) in Mirror::of_cluster(context).hosts_toml(&places) {
            steps.push(context.step(
                format!("trust-{}", host.replace(':', "-")),
                format!("let containerd pull images of {host} from the registry"),
                Action::SharedBlock {
                    path: hosts_toml(&host),
                    cluster: context.options.cluster.clone(),
                    text,
                },
            )?);
        }
    }
    if has("docker", "/etc/docker") {
        steps.push(context.step(
            "trust-docker",
            "let docker trust the registry",
            Action::CopyFiles {
                files: vec![FileCopy {
                    from: ca(context.files),
                    to: Path::new(DOCKER_CERTS).join(&url).join("ca.crt"),
                    mode: Some(Mode(0o644)),
                }],
                link: false,
            },
        )?);
    }
    Ok(steps)
}

/// What containerd knows of a registry host (containerd, docs/hosts.md).
fn hosts_toml(host: &str) -> PathBuf {
    Path::new(CONTAINERD_CERTS).join(host).join(HOSTS_TOML)
}

/// The file, and the line in it, by which one sees that a cluster's private registry has this address.
pub(crate) fn entry(url: &str) -> (PathBuf, String) {
    (hosts_toml(url), mirror::table(&format!("https://{url}")))
}
