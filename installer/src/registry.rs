//! The private registry of a cluster: its certificates, its name, who starts it, and who trusts it.
//!
//! An image that brings `scripts/init-registry.sh` starts its own registry (sealer's contract: `cd ROOTFS/scripts &&
//! bash init-registry.sh PORT ROOTFS/registry DOMAIN`, to serve over TLS with `ROOTFS/certs/DOMAIN.{crt,key}`);
//! `scripts/uninstall-registry.sh` with the same arguments, if it is there, ends it. Otherwise sealrs serves
//! `ROOTFS/registry` itself, as a service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use sealrs_image::error::{Context as _, Result};
use sealrs_image::reference::Reference;
use sealrs_registry::host::Host;

use crate::action::{Action, Claim, FileCopy, Mode, Probe, Program};
use crate::cluster::ClusterFiles;
use crate::command::word;
use crate::facts::{HOSTS_FILE, HostFacts};
use crate::mirror::{self, Mirror};
use crate::plan::{Context, Step};
use crate::runtime::Runtime;
use crate::service::Service;

/// The script that an image may bring to start its own registry.
pub(crate) const INIT_SCRIPT: &str = "scripts/init-registry.sh";
/// The step that runs it.
const INIT_STEP: &str = "registry";
/// The script that an image may bring to end it.
const UNINSTALL_SCRIPT: &str = "scripts/uninstall-registry.sh";
/// The container that sealer's init-registry.sh starts.
const CONTAINER: &str = "sealer-registry";

/// Where containerd and docker keep what they know of registries.
const CONTAINERD_CERTS: &str = "/etc/containerd/certs.d";
const DOCKER_CERTS: &str = "/etc/docker/certs.d";

/// How hosts find the registry by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The name leads to this host already.
    Known,
    /// It has to be written into the hosts file.
    HostsFile,
    /// It leads elsewhere, and says where.
    Elsewhere(IpAddr),
    /// It leads nowhere, and the hosts file can't be changed.
    Unwritable,
}

/// How the registry's name is found on this host.
pub(crate) fn naming(facts: &HostFacts, domain: &str) -> Naming {
    if domain == "localhost" {
        return Naming::Known;
    }
    let leads_to = |ip: IpAddr| {
        if facts.has_address(ip) {
            Naming::Known
        } else {
            Naming::Elsewhere(ip)
        }
    };
    if let Ok(ip) = domain.parse() {
        return leads_to(ip);
    }
    let line = facts
        .hosts
        .iter()
        .find(|line| line.names.iter().any(|name| name.eq_ignore_ascii_case(domain)));
    match (line, facts.registry_addresses.as_slice()) {
        // The line of another cluster goes with that cluster.
        (Some(line), _) if line.cluster.is_some() && facts.hosts_writable && facts.has_address(line.ip) => {
            Naming::HostsFile
        }
        (Some(line), _) => leads_to(line.ip),
        (None, _) if facts.hosts_writable => Naming::HostsFile,
        (None, [first, ..]) => leads_to(*first),
        (None, []) => Naming::Unwritable,
    }
}

/// The name of the service that serves the registry.
pub(crate) fn service_name(cluster: &str) -> String {
    format!("sealrs-registry-{cluster}")
}

/// The registry hosts whose images are inside: `docker.io`, `quay.io`.
///
/// # Errors
/// When the image names one that is no image.
pub(crate) fn mirrored_hosts(context: &Context<'_>) -> Result<BTreeSet<Host>> {
    context
        .image
        .container_images
        .iter()
        .map(|inside| {
            let reference: Reference = inside
                .image
                .parse()
                .context(|| "the ClusterImage names a container image that can't be read")?;
            Ok(Host::of(&reference))
        })
        .collect()
}

/// The certificate authority's file.
pub(crate) fn ca(files: &ClusterFiles) -> PathBuf {
    files.pki().join("ca.crt")
}

/// Where the registry listens, as this host reaches it.
fn address(context: &Context<'_>) -> SocketAddr {
    let options = context.options;
    let ip = match options.registry_domain.as_str() {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => context.host,
    };
    SocketAddr::new(ip, options.registry_port)
}

/// Where the registry shall listen: only for this host if its name says so.
fn listen(context: &Context<'_>) -> SocketAddr {
    let ip = match (context.options.registry_domain.as_str(), context.host) {
        ("localhost", _) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (_, IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        // Takes connections by IPv4 as well.
        (_, IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, context.options.registry_port)
}

/// The steps from nothing to a registry that answers and is trusted.
///
/// # Errors
/// When the image names a container image that can't be read.
pub(crate) fn steps(context: &Context<'_>, runtime: &dyn Runtime) -> Result<Vec<Step>> {
    let mut steps = certificates(context)?;
    if naming(context.facts, &context.options.registry_domain) == Naming::HostsFile {
        steps.push(context.step(
            "registry-name",
            "make the registry known by its name",
            Action::HostsEntry {
                path: HOSTS_FILE.into(),
                cluster: context.options.cluster.clone(),
                address: context.host,
                names: vec![context.options.registry_domain.clone()],
            },
        )?);
    }
    if context.facts.root && !runtime.layout().own_containerd {
        steps.extend(trust(context)?);
    }
    let (service, remedy) = if context.rootfs.has(INIT_SCRIPT) {
        steps.extend(image_registry(context)?);
        (None, Some(remedy(context)))
    } else {
        steps.extend(own_registry(context)?);
        (Some(service_name(&context.options.cluster)), None)
    };
    steps.push(context.step(
        "registry-ready",
        "wait for the private registry",
        Action::Wait {
            probes: vec![Probe::Registry {
                address: address(context),
                name: context.options.registry_domain.clone(),
                ca: ca(context.files),
            }],
            seconds: 60,
            service,
            remedy,
        },
    )?);
    Ok(steps)
}

fn certificates(context: &Context<'_>) -> Result<Vec<Step>> {
    let (files, domain) = (context.files, &context.options.registry_domain);
    let mut names = BTreeSet::from(["localhost".to_owned(), context.facts.hostname.clone()]);
    let mut addresses: BTreeSet<IpAddr> = context.facts.addresses.iter().map(|address| address.ip).collect();
    addresses.extend([context.host, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    match domain.parse() {
        Ok(ip) => drop(addresses.insert(ip)),
        Err(_) => drop(names.insert(domain.clone())),
    }
    let certs = files.rootfs().join("certs");
    let copy = |name: &str, extension: &str, mode: u32| FileCopy {
        from: files.pki().join(name),
        to: certs.join(format!("{domain}.{extension}")),
        mode: Some(Mode(mode)),
    };
    Ok(vec![
        context.step(
            "program",
            "keep a copy of sealrs for the services",
            Action::CopyFiles {
                files: vec![FileCopy {
                    from: context.options.executable.clone(),
                    to: files.program(),
                    mode: Some(Mode(0o755)),
                }],
                link: false,
            },
        )?,
        context.step(
            "registry-pki",
            "make the registry's certificates",
            Action::MakePki {
                path: files.pki(),
                names,
                addresses,
            },
        )?,
        context.step(
            "registry-certs",
            "put the certificates where scripts expect them",
            Action::CopyFiles {
                files: vec![copy("registry.crt", "crt", 0o644), copy("registry.key", "key", 0o600)],
                link: false,
            },
        )?,
        context.step(
            "registry-folder",
            "make the registry's folder",
            Action::MakeFolder {
                path: files.rootfs().join("registry"),
                mode: Mode(0o755),
            },
        )?,
    ])
}

fn own_registry(context: &Context<'_>) -> Result<Vec<Step>> {
    let files = context.files;
    let argv = [
        word(&files.program()),
        "registry".to_owned(),
        "serve".to_owned(),
        "--dir".to_owned(),
        word(&files.rootfs().join("registry")),
        "--listen".to_owned(),
        listen(context).to_string(),
        "--tls-cert".to_owned(),
        word(&files.pki().join("registry.crt")),
        "--tls-key".to_owned(),
        word(&files.pki().join("registry.key")),
    ];
    let cluster = &context.options.cluster;
    Ok(vec![context.step(
        "registry",
        "start the private registry",
        Action::Service(Service {
            name: service_name(cluster),
            description: format!("Private registry of cluster {cluster}"),
            argv: argv.to_vec(),
            env: BTreeMap::new(),
            notifies: false,
            restart_seconds: 2,
            unit_lines: Vec::new(),
        }),
    )?])
}

/// The registry that the image's script starts, and what takes it away.
fn image_registry(context: &Context<'_>) -> Result<Vec<Step>> {
    let files = context.files;
    let scripts = files.rootfs().join("scripts");
    let arguments = [
        context.options.registry_port.to_string(),
        word(&files.rootfs().join("registry")),
        context.options.registry_domain.clone(),
    ];
    let script = |path: String| Program {
        argv: [vec!["bash".to_owned(), path], arguments.to_vec()].concat(),
        folder: scripts.clone(),
        env: BTreeMap::new(),
    };
    let mut steps = Vec::new();
    let mut claims = vec![Claim::Container(CONTAINER.to_owned())];
    if context.rootfs.has(UNINSTALL_SCRIPT) {
        let kept = files.data().join("scripts/uninstall-registry.sh");
        steps.push(context.step(
            "registry-uninstall",
            "keep the script that removes the registry",
            Action::CopyFiles {
                files: vec![FileCopy {
                    from: files.rootfs().join(UNINSTALL_SCRIPT),
                    to: kept.clone(),
                    mode: None,
                }],
                link: false,
            },
        )?);
        claims.push(Claim::Command(script(word(&kept))));
    }
    steps.push(context.step(
        "registry-claim",
        "note how the registry is removed",
        Action::Claim(claims),
    )?);
    steps.push(context.step(
        INIT_STEP,
        "start the private registry by the image's script",
        Action::Run(script("init-registry.sh".to_owned())),
    )?);
    Ok(steps)
}

/// What the image's script owes when its registry does not answer.
fn remedy(context: &Context<'_>) -> String {
    let (files, options) = (context.files, context.options);
    let certificate = files.rootfs().join("certs").join(&options.registry_domain);
    format!(
        "{INIT_SCRIPT} of the image has to start a registry that answers on port {} over TLS, with {certificate}.crt and \
         {certificate}.key; what it printed is in {}",
        options.registry_port,
        files.log().join(format!("{INIT_STEP}.log")).display(),
        certificate = certificate.display(),
    )
}

/// What containerd and docker of this host have to know to pull from the registry, by the images' own names.
fn trust(context: &Context<'_>) -> Result<Vec<Step>> {
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
    Path::new(CONTAINERD_CERTS).join(host).join("hosts.toml")
}

/// The file, and the line in it, by which one sees that a cluster's private registry has this address.
pub(crate) fn entry(url: &str) -> (PathBuf, String) {
    (hosts_toml(url), mirror::table(&format!("https://{url}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::HostsLine;
    use crate::facts::tests::server;

    #[test]
    fn finds_out_how_the_registry_is_found() {
        let mut facts = server();
        assert_eq!(naming(&facts, "localhost"), Naming::Known);
        assert_eq!(naming(&facts, "10.88.0.11"), Naming::Known);
        let elsewhere = "10.88.0.12".parse().unwrap();
        assert_eq!(naming(&facts, "10.88.0.12"), Naming::Elsewhere(elsewhere));
        assert_eq!(naming(&facts, "sea.hub"), Naming::HostsFile);
        facts.hosts_writable = false;
        assert_eq!(naming(&facts, "sea.hub"), Naming::Unwritable);
        facts.registry_addresses = vec!["10.88.0.11".parse().unwrap()];
        assert_eq!(naming(&facts, "sea.hub"), Naming::Known);
        facts.hosts = vec![HostsLine {
            ip: elsewhere,
            names: vec!["x".into(), "Sea.Hub".into()],
            cluster: Some("other".into()),
        }];
        assert_eq!(naming(&facts, "sea.hub"), Naming::Elsewhere(elsewhere));
        // Another cluster's line may go any time; one's own stays.
        facts.hosts[0].ip = "10.88.0.11".parse().unwrap();
        assert_eq!(naming(&facts, "sea.hub"), Naming::Known);
        facts.hosts_writable = true;
        assert_eq!(naming(&facts, "sea.hub"), Naming::HostsFile);
        facts.hosts[0].cluster = None;
        assert_eq!(naming(&facts, "sea.hub"), Naming::Known);
    }
}
