//! A run, or a change of hosts, under way: its steps are done on its hosts and noted in the journal.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, Result};
use sealrs_image::layer::annotation;
use sealrs_image::progress::{Progress, Task};
use sealrs_image::source::Source;

use crate::action::Action;
use crate::cluster::ClusterFiles;
use crate::environment::Environment;
use crate::journal::Journal;
use crate::node::{Begin, Order, Pass, Upstream, upstream_of};
use crate::options::Options;
use crate::plan::{Naming, Step, UNPACK};
use crate::rootfs::RootfsFacts;
use crate::runtime::Runtime;
use crate::secrets::Secrets;
use crate::sites::{self, Named, Site};
use crate::{environment, pki};

/// So many hosts get an image from the operator each; more pass it on.
const DIRECTLY: usize = 2;

/// What is done, and with what.
pub(crate) struct Work<'w> {
    pub(crate) options: &'w Options,
    pub(crate) files: &'w ClusterFiles,
    pub(crate) journal: Mutex<Journal>,
    pub(crate) naming: Naming,
    /// How to go on when it fails.
    pub(crate) resume: String,
    pub(crate) progress: &'w dyn Progress,
    secrets: Mutex<Secrets<'w>>,
}

impl<'w> Work<'w> {
    pub(crate) fn new(
        options: &'w Options,
        files: &'w ClusterFiles,
        journal: Journal,
        naming: Naming,
        resume: String,
        progress: &'w dyn Progress,
    ) -> Self {
        Self {
            options,
            files,
            journal: Mutex::new(journal),
            naming,
            resume,
            progress,
            secrets: Mutex::new(Secrets::new(files)),
        }
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever watches many hosts has to know which one is meant.
    fn on<T>(&self, site: &mut Site, work: impl FnOnce(&mut Site, &dyn Progress) -> Result<T>) -> Result<T> {
        if self.naming.many {
            let named = Named::new(&site.name(), self.progress);
            return work(site, &named);
        }
        work(site, self.progress)
    }

    /// Takes the cluster's place on all hosts. Those that an image is installed on get its environment, others have one.
    pub(crate) fn begin(
        &self,
        sites: &mut [Site],
        runtime: &dyn Runtime,
        image: Option<&ClusterImage>,
        above: &[PathBuf],
    ) -> Result<()> {
        sites::on_all(sites, Site::name, |site| {
            let environment = image.map(|image| environment::of(image, self.options, site.address()));
            let begin = Begin {
                root: self.options.root.clone(),
                cluster: self.options.cluster.clone(),
                runtime: runtime.name().to_owned(),
                environment: environment.transpose()?,
                given: given(self.options, site.address()),
                configurations: self.options.configurations.clone(),
                apps: self.files.apps().map(str::to_owned),
                app_settings: self.options.app_settings.clone(),
            };
            site.node.begin(&begin, above)
        })?;
        Ok(())
    }

    /// Unpacks the image on all hosts; `registry` is the address of the one that has the private registry.
    pub(crate) fn unpack(
        &self,
        sites: &mut [Site],
        image: &ClusterImage,
        source: &dyn Source,
        registry: IpAddr,
    ) -> Result<()> {
        let is_left = |site: &Site| !self.journal().is_done(&self.naming.key(UNPACK, site.address()));
        let mut left: Vec<&mut Site> = sites.iter_mut().filter(|site| is_left(site)).collect();
        let upstreams = self.pass_on(&mut left, registry)?;
        let unpacked = sites::on_all(
            &mut left,
            |site| site.name(),
            |site| {
                self.on(site, |site, progress| {
                    let step = self.naming.key(UNPACK, site.address());
                    self.journal().begin(&step)?;
                    let part = part_for(image, registry == site.address());
                    let upstream = upstreams.get(&site.address());
                    site.node.unpack(source, &part, upstream, progress)?;
                    self.journal().done(&step)
                })
            },
        );
        for site in &mut left {
            // A host that is gone by now has been told of, or will be.
            let _ = site.node.unshare();
        }
        unpacked.map(drop)
    }

    /// Lets hosts pass the image on, where they are more than the operator should send it to: which one each gets it from.
    /// The host of the registry is the first, for it needs what the others do and more.
    fn pass_on(&self, sites: &mut [&mut Site], registry: IpAddr) -> Result<BTreeMap<IpAddr, Upstream>> {
        let mut line: Vec<&mut &mut Site> = sites.iter_mut().filter(|site| !site.here).collect();
        if line.len() <= DIRECTLY {
            return Ok(BTreeMap::new());
        }
        line.sort_by_key(|site| site.address() != registry);
        let addresses: Vec<IpAddr> = line.iter().map(|site| site.address()).collect();
        let passes = pki::new_passes(&addresses)?;
        let passers = 1 + upstream_of(line.len() - 1).unwrap_or_default();
        let mut first: Vec<_> = line.into_iter().zip(&passes).take(passers).collect();
        let ports = sites::on_all(
            &mut first,
            |(site, _)| site.name(),
            |(site, pass)| site.node.share(pass),
        )?;
        let upstream = |(place, (&address, pass)): (usize, (&IpAddr, &Pass))| {
            let from = upstream_of(place)?;
            let upstream = Upstream {
                address: SocketAddr::new(*addresses.get(from)?, *ports.get(from)?),
                pass: pass.clone(),
            };
            Some((address, upstream))
        };
        Ok(addresses.iter().zip(&passes).enumerate().filter_map(upstream).collect())
    }

    /// Does the steps, phase by phase; gives how many there were to do.
    pub(crate) fn execute(&self, steps: &[Step], sites: &mut [Site]) -> Result<usize> {
        let executed = AtomicUsize::new(0);
        for phase in steps.chunk_by(|one, next| one.phase == next.phase) {
            let steps_of = |host: IpAddr| {
                let is_unpack = |step: &Step| matches!(step.action, Action::Unpack { .. });
                phase.iter().filter(move |step| step.host == host && !is_unpack(step))
            };
            let mut busy: Vec<&mut Site> = sites
                .iter_mut()
                .filter(|site| steps_of(site.address()).next().is_some())
                .collect();
            sites::on_all(
                &mut busy,
                |site| site.name(),
                |site| {
                    self.on(site, |site, progress| {
                        for step in steps_of(site.address()) {
                            let done = self.do_step(site, step, progress)?;
                            executed.fetch_add(usize::from(done), Ordering::Relaxed);
                        }
                        Ok(())
                    })
                },
            )?;
        }
        Ok(executed.into_inner())
    }

    /// Does a step that was not done, and makes sure again of what has to run.
    fn do_step(&self, site: &mut Site, step: &Step, progress: &dyn Progress) -> Result<bool> {
        let done = self.journal().is_done(&step.id);
        if done && !step.action.assures() {
            return Ok(false);
        }
        if !done {
            self.journal().begin(&step.id)?;
        }
        // Looking again at what was done is worth a word only when it takes long, and then the waiting says so.
        let task = (!done).then(|| Task::begin(progress, &step.title, None));
        self.act(site, step, progress).map_err(|error| {
            let hint = match error.remedy() {
                Some(remedy) => format!("{remedy}; then {}", self.resume),
                None => self.resume.clone(),
            };
            Error::new(error.kind(), format!("step `{}` failed: {}", step.id, step.title))
                .because(error)
                .hint(hint)
        })?;
        drop(task);
        if !done {
            self.journal().done(&step.id)?;
        }
        Ok(!done)
    }

    fn act(&self, site: &mut Site, step: &Step, progress: &dyn Progress) -> Result<()> {
        match &step.action {
            // The key of the authority never leaves the operator.
            Action::MakePki {
                path,
                names,
                addresses,
                years,
            } => pki::make(path, self.files.cluster(), names, addresses, *years),
            Action::Remove => site
                .node
                .delete(self.files.root(), self.files.cluster(), progress)
                .map(drop),
            action => {
                let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).of(action)?;
                let order = Order {
                    step: step.id.clone(),
                    action: action.clone(),
                    secrets,
                };
                site.node.execute(&order, progress)
            }
        }
    }
}

/// What the user gave of a host's environment.
pub(crate) fn given(options: &Options, host: IpAddr) -> Environment {
    let mut given = options.env.clone();
    given.extend(
        options
            .member(host)
            .map(|member| member.env.clone())
            .unwrap_or_default(),
    );
    given
}

/// Looks at the rootfs of all hosts.
///
/// # Errors
/// What hosts meet.
pub(crate) fn rootfs_of(sites: &mut [Site]) -> Result<Vec<RootfsFacts>> {
    sites::on_all(sites, Site::name, |site| site.node.rootfs())
}

/// What a host needs of an image: container images are for the one that has the registry.
pub(crate) fn part_for(image: &ClusterImage, has_registry: bool) -> ClusterImage {
    let mut part = image.clone();
    if !has_registry {
        let is_rootfs: Vec<bool> = image
            .manifest
            .layers
            .iter()
            .map(|layer| !layer.annotations.contains_key(annotation::BLOB))
            .collect();
        let mut keep = is_rootfs.iter().copied();
        part.manifest.layers.retain(|_| keep.next().unwrap_or(true));
        let mut keep = is_rootfs.iter().copied();
        part.config.rootfs.diff_ids.retain(|_| keep.next().unwrap_or(true));
    }
    part
}
