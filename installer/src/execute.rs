//! Does what actions say, on this host. Whatever is made is written into the host manifest before.

mod claim;
mod images;
mod script;
mod wait;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sealrs_image::digest::Digest;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::file;
use sealrs_image::progress::Progress;

use crate::action::{Action, FileCopy};
use crate::cluster::ClusterFiles;
use crate::environment::Environment;
use crate::host_manifest::{HostManifest, Made};
use crate::runtime::Runtime;
use crate::secrets::Bundle;
use crate::service::{Manager, Services};
use crate::{files, host_lock, hosts_file, pki, shared_file};

pub(crate) use claim::{NAMESPACES, mounts_below};
pub(crate) use script::{PATIENCE, run_program};

/// What actions are done with.
pub(crate) struct Executor<'e> {
    pub(crate) files: &'e ClusterFiles,
    pub(crate) manifest: &'e mut HostManifest,
    pub(crate) environment: &'e Environment,
    pub(crate) runtime: &'e dyn Runtime,
    pub(crate) manager: Manager,
    pub(crate) progress: &'e dyn Progress,
}

impl std::fmt::Debug for Executor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Executor({})", self.files.cluster())
    }
}

impl Executor<'_> {
    /// Does one action, for the step with this id, with the secrets that it needs.
    ///
    /// # Errors
    /// What the action meets.
    pub(crate) fn execute(&mut self, step: &str, action: &Action, secrets: &Bundle) -> Result<()> {
        let _lock = match self.edits_the_host(action) {
            true => host_lock::hold()?,
            false => None,
        };
        match action {
            Action::Unpack { .. } => Err(Error::new(
                ErrorKind::Internal,
                "the image is unpacked before anything else",
            )),
            Action::MakePki {
                path,
                names,
                addresses,
                years,
            } => pki::make(path, self.files.cluster(), names, addresses, *years),
            Action::MakeFolder { path, mode } => self.make_folder(path, mode.0),
            Action::WriteFile { path, mode, content } => self.write(path, mode.0, &content.text(secrets)?),
            Action::WriteFiles(files) => files
                .iter()
                .try_for_each(|file| self.write(&file.path, file.mode.0, &file.content.text(secrets)?)),
            Action::CopyFiles { files, link } => files.iter().try_for_each(|file| self.copy(file, *link)),
            Action::OfferFile(file) => {
                if files::exists(&file.to) && !self.manifest.has_file(&file.to) {
                    return Ok(());
                }
                self.copy(file, false)
            }
            Action::AddImages { from, to } => images::add(from, to),
            Action::Link { path, target } => self.link(path, target),
            Action::HostsEntry {
                path,
                cluster,
                address,
                names,
            } => self.hosts_entry(path, cluster, &format!("{address} {}", names.join(" "))),
            Action::SharedBlock { path, cluster, text } => {
                self.manifest.make_folder(file::folder_of(path), 0o755)?;
                self.manifest.record(Made::SharedBlock {
                    path: path.clone(),
                    cluster: cluster.clone(),
                })?;
                shared_file::put(path, cluster, text)
            }
            Action::Claim(claims) => claims.iter().try_for_each(|claim| {
                for made in claim::observe(claim, self.manifest, self.files)? {
                    self.manifest.record(made)?;
                }
                Ok(())
            }),
            Action::Service(service) => {
                self.manifest.record(Made::Service {
                    name: service.name.clone(),
                    manager: self.manager,
                })?;
                self.services().start(service)
            }
            Action::Restart(service) => self.services().restart(service),
            Action::Remove => Err(Error::new(
                ErrorKind::Internal,
                "a host is not removed while something is made on it",
            )),
            Action::Run(program) => script::run(self, step, program),
            Action::RunWatched { program, service } => script::run_watched(self, step, program, service),
            Action::Wait {
                probes,
                seconds,
                service,
                remedy,
            } => wait::wait(self, probes, *seconds, service.as_deref(), remedy.as_deref()),
        }
    }

    /// Whether an action changes files that other clusters of this host may change as well.
    fn edits_the_host(&self, action: &Action) -> bool {
        match action {
            Action::WriteFiles(files) => files.iter().any(|file| !self.is_own(&file.path)),
            Action::WriteFile { path, .. }
            | Action::MakeFolder { path, .. }
            | Action::Link { path, .. }
            | Action::HostsEntry { path, .. }
            | Action::SharedBlock { path, .. } => !self.is_own(path),
            Action::OfferFile(file) => !self.is_own(&file.to),
            // Archives of images, which are linked, take long, and lie where nobody else has any.
            Action::CopyFiles { files, link } => !link && files.iter().any(|file| !self.is_own(&file.to)),
            _ => false,
        }
    }

    pub(crate) fn services(&self) -> Services {
        Services::new(self.manager, self.files)
    }

    /// Things in the cluster's own folder go with it and need no entry.
    fn is_own(&self, path: &Path) -> bool {
        path.starts_with(self.files.data())
    }

    fn record_file(&mut self, path: &Path) -> Result<()> {
        if !self.is_own(path) {
            return self.manifest.record_file(path);
        }
        match path.parent() {
            Some(folder) => self.make_folder(folder, 0o755),
            None => Ok(()),
        }
    }

    fn record_content(&mut self, path: &Path, digest: impl FnOnce() -> Result<Digest>) -> Result<()> {
        if self.is_own(path) {
            return Ok(());
        }
        self.manifest.record_content(path, digest)
    }

    fn make_folder(&mut self, path: &Path, mode: u32) -> Result<()> {
        if !self.is_own(path) {
            return self.manifest.make_folder(path, mode);
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .or_io(|| format!("cannot make the folder {}", path.display()))
    }

    fn write(&mut self, path: &Path, mode: u32, text: &str) -> Result<()> {
        self.record_file(path)?;
        self.record_content(path, || Ok(Digest::of(text.as_bytes())))?;
        files::write(path, text.as_bytes(), mode)
    }

    fn copy(&mut self, copied: &FileCopy, link: bool) -> Result<()> {
        self.record_file(&copied.to)?;
        self.record_content(&copied.to, || {
            files::digest(&copied.from)?.ok_or_else(|| {
                let text = format!("{} is not there", copied.from.display());
                Error::new(ErrorKind::NotFound, text)
            })
        })?;
        files::copy(&copied.from, &copied.to, copied.mode.map(|mode| mode.0), link)
    }

    fn link(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.record_file(path)?;
        self.record_content(path, || Ok(files::link_digest(target)))?;
        file::remove_partials(path)?;
        file::link(path, target)
    }

    fn hosts_entry(&mut self, path: &Path, cluster: &str, line: &str) -> Result<()> {
        let path = &files::behind_links(path)?;
        let text = match fs::read_to_string(path) {
            Err(error) if files::is_absent(&error) => String::new(),
            text => text.or_io(|| format!("cannot read {}", path.display()))?,
        };
        let (with, line_break_added) = hosts_file::with_block(&text, cluster, line);
        self.manifest.record(Made::HostsBlock {
            path: path.to_owned(),
            cluster: cluster.to_owned(),
            line_break_added,
        })?;
        let mode = fs::metadata(path).map_or(0o644, |metadata| {
            std::os::unix::fs::MetadataExt::mode(&metadata) & 0o7777
        });
        if with == text {
            return Ok(());
        }
        files::write(path, with.as_bytes(), mode)
    }

    /// The environment of a program: the cluster's, under what the step sets, with the rootfs and the cluster's name,
    /// and with caches kept in the cluster's folder.
    pub(crate) fn program_environment(&self, own: &BTreeMap<String, String>) -> Environment {
        program_environment(self.files, self.environment, own)
    }
}

/// As [`Executor::program_environment`], for removals.
pub(crate) fn program_environment(
    files: &ClusterFiles,
    cluster: &Environment,
    own: &BTreeMap<String, String>,
) -> Environment {
    let mut environment = cluster.clone();
    for (name, path) in [("ROOTFS", files.rootfs())].into_iter().chain(caches(files)) {
        environment.insert(name.to_owned(), path.to_string_lossy().into_owned());
    }
    environment.insert("CLUSTER".to_owned(), files.cluster().to_owned());
    environment.extend(own.clone());
    environment
}

/// Where programs of Kubernetes keep what they have learnt, so that it goes with the cluster.
pub(crate) fn caches(files: &ClusterFiles) -> [(&'static str, PathBuf); 2] {
    [
        ("KUBECACHEDIR", files.kubectl_cache()),
        ("HELM_CACHE_HOME", files.helm_cache()),
    ]
}

/// The folders whose programs come first.
pub(crate) fn program_folders(files: &ClusterFiles) -> Vec<PathBuf> {
    let mut folders = vec![files.rootfs().join("bin"), files.cluster_rootfs().join("bin")];
    folders.dedup();
    folders.push(files.programs());
    folders
}

#[cfg(test)]
mod tests;
