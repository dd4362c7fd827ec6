//! The private registry of a cluster: its certificates, its name, who starts it, and who trusts it.
//!
//! An image that brings `scripts/init-registry.sh` starts its own registry (sealer's contract: `cd ROOTFS/scripts &&
//! bash init-registry.sh PORT ROOTFS/registry DOMAIN`, to serve over TLS with `ROOTFS/certs/DOMAIN.{crt,key}`);
//! `scripts/uninstall-registry.sh` with the same arguments, if it is there, ends it. Otherwise sealrs serves
//! `ROOTFS/registry` itself, as a service.

mod naming;
mod script;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use sealrs_image::error::{Context as _, Result};
use sealrs_image::reference::Reference;
use sealrs_registry::host::Host;

use crate::action::{Action, Content, FileCopy, FileWrite, Mode, Probe};
use crate::cluster::ClusterFiles;
use crate::command::word;
use crate::facts::HOSTS_FILE;
use crate::options::Options;
use crate::plan::{Context, Step};
use crate::runtime::Runtime;
use crate::service::Service;

pub(crate) use naming::{Naming, naming};
pub(crate) use script::INIT_SCRIPT;
pub(crate) use trust::{CONTAINERD_CERTS, HOSTS_TOML, entry};

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

/// Where the registry is reached that the founder has.
pub(crate) fn reached(options: &Options, founder: IpAddr) -> SocketAddr {
    let ip = match options.registry_domain.as_str() {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => founder,
    };
    SocketAddr::new(ip, options.registry_port)
}

fn address(context: &Context<'_>) -> SocketAddr {
    reached(context.options, context.founder())
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

/// The steps on the founder from nothing to a registry that answers and is trusted.
///
/// # Errors
/// When the image names a container image that can't be read.
pub(crate) fn serve(context: &Context<'_>, runtime: &dyn Runtime) -> Result<Vec<Step>> {
    let mut steps = certificates(context)?;
    steps.extend(name_and_trust(context, runtime)?);
    let (service, remedy) = if context.rootfs.has(INIT_SCRIPT) {
        steps.extend(script::steps(context)?);
        (None, Some(script::remedy(context)))
    } else {
        steps.extend(own_registry(context)?);
        (Some(service_name(&context.options.cluster)), None)
    };
    steps.push(ready(context, service, remedy)?);
    Ok(steps)
}

/// The steps on another host until it reaches and trusts the registry.
///
/// # Errors
/// As [`serve`].
pub(crate) fn reach(context: &Context<'_>, runtime: &dyn Runtime) -> Result<Vec<Step>> {
    let mut steps = vec![program(context)?];
    if !context.here {
        steps.push(context.step(
            "registry-ca",
            "give the host the registry's certificate authority",
            Action::WriteFiles(vec![sent(context, "ca.crt", 0o644)]),
        )?);
    }
    steps.extend(name_and_trust(context, runtime)?);
    let at = address(context);
    let remedy = format!("see that no firewall stands between {} and {at}", context.host);
    steps.push(ready(context, None, Some(remedy))?);
    Ok(steps)
}

fn name_and_trust(context: &Context<'_>, runtime: &dyn Runtime) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    if naming(context.facts, &context.options.registry_domain, context.founder()) == Naming::HostsFile {
        steps.push(context.step(
            "registry-name",
            "make the registry known by its name",
            Action::HostsEntry {
                path: HOSTS_FILE.into(),
                cluster: context.options.cluster.clone(),
                address: context.founder(),
                names: vec![context.options.registry_domain.clone()],
            },
        )?);
    }
    if context.facts.root && !runtime.layout().own_containerd {
        steps.extend(trust::trust(context)?);
    }
    Ok(steps)
}

fn ready(context: &Context<'_>, service: Option<String>, remedy: Option<String>) -> Result<Step> {
    context.step(
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
    )
}

fn program(context: &Context<'_>) -> Result<Step> {
    context.step(
        "program",
        "keep a copy of sealrs for the services",
        Action::CopyFiles {
            files: vec![FileCopy {
                from: context.options.executable.clone(),
                to: context.files.program(),
                mode: Some(Mode(0o755)),
            }],
            link: false,
        },
    )
}

/// A file of the registry's certificates, which the operator sends.
fn sent(context: &Context<'_>, name: &str, mode: u32) -> FileWrite {
    FileWrite {
        path: context.files.pki().join(name),
        mode: Mode(mode),
        content: Content::Secret(format!("pki/{name}")),
    }
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
    let mut steps = vec![
        program(context)?,
        context.step(
            "registry-pki",
            "make the registry's certificates",
            Action::MakePki {
                path: files.pki(),
                names,
                addresses,
                years: context.options.certificate_years,
            },
        )?,
    ];
    if !context.here {
        let files = [("ca.crt", 0o644), ("registry.crt", 0o644), ("registry.key", 0o600)];
        steps.push(context.step(
            "registry-pki-files",
            "give the host the registry's certificates",
            Action::WriteFiles(files.iter().map(|&(name, mode)| sent(context, name, mode)).collect()),
        )?);
    }
    steps.extend([
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
    ]);
    Ok(steps)
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
