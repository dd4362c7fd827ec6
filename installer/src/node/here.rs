//! This host.

use std::fs;
use std::path::{Path, PathBuf};

use sealrs_image::cluster_image::ClusterImage;
use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use sealrs_image::lock::Lock;
use sealrs_image::progress::Progress;
use sealrs_image::source::Source;

use super::{Begin, Node, Order};
use crate::audit::{self, Found, Question};
use crate::cluster::ClusterFiles;
use crate::environment::Environment;
use crate::execute::Executor;
use crate::facts::{self, HostFacts, Interest};
use crate::host_manifest::{HostManifest, Made};
use crate::rootfs::{self, RootfsFacts};
use crate::runtime::{self, Runtime};
use crate::service::Manager;
use crate::summary::Summary;
use crate::template::Values;
use crate::{apps, delete, files, journal};

/// A file that is read for the operator has no more bytes.
const LARGEST_READ: u64 = 1 << 20;

/// This host.
#[derive(Debug)]
pub(crate) struct Here {
    /// Whether somebody in this process has locked the cluster's folder: the operator's own host has one folder for both.
    is_locked: bool,
    work: Option<Work>,
}

/// What is at hand once it has begun.
#[derive(Debug)]
struct Work {
    begin: Begin,
    environment: Environment,
    files: ClusterFiles,
    runtime: &'static dyn Runtime,
    manager: Manager,
    manifest: HostManifest,
    _lock: Option<Lock>,
}

impl Here {
    /// This host, for another operator than this process.
    pub(crate) fn alone() -> Self {
        Self {
            is_locked: false,
            work: None,
        }
    }

    /// This host, whose cluster this process has locked.
    pub(crate) fn locked() -> Self {
        Self {
            is_locked: true,
            work: None,
        }
    }

    fn work(&mut self) -> Result<&mut Work> {
        self.work
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "it was not begun"))
    }
}

impl Node for Here {
    fn facts(&mut self, interest: &Interest) -> Result<HostFacts> {
        HostFacts::gather(interest)
    }

    fn begin(&mut self, begin: &Begin, above: &[PathBuf]) -> Result<()> {
        let cluster = ClusterFiles::new(&begin.root, &begin.cluster);
        // It may have begun something else before.
        self.work = None;
        let (above, lock) = match self.is_locked {
            true => (above.to_vec(), None),
            false => (missing_folders(&cluster), Some(cluster.hold()?)),
        };
        let runtime = runtime::by_name(&begin.runtime).ok_or_else(|| {
            let what = format!("runtime `{}` is not known here", begin.runtime.escape_debug());
            Error::new(ErrorKind::Internal, what)
        })?;
        let cluster = match &begin.apps {
            Some(id) => {
                let cluster = cluster.of_apps(id);
                let folder = cluster.of_image();
                fs::create_dir_all(&folder).or_io(|| format!("cannot make the folder {}", folder.display()))?;
                cluster
            }
            None => cluster,
        };
        let mut manifest = HostManifest::open(&cluster.host_manifest(), &cluster.backup())?;
        if manifest.is_being_undone() {
            return Err(journal::being_deleted(&begin.cluster));
        }
        for path in above {
            manifest.record(Made::Folder { path })?;
        }
        manifest.make_folder(&cluster.root().join("data"), 0o755)?;
        let environment = match &begin.environment {
            Some(environment) => {
                let bytes =
                    serde_json::to_vec(environment).or_fail(ErrorKind::Internal, || "cannot write the environment")?;
                // Removals need it.
                files::keep(&cluster.environment(), &bytes, 0o600)?;
                environment.clone()
            }
            None => delete::environment(&cluster)?,
        };
        self.work = Some(Work {
            begin: begin.clone(),
            environment,
            runtime,
            manager: facts::manager(),
            manifest,
            files: cluster,
            _lock: lock,
        });
        Ok(())
    }

    fn unpack(&mut self, source: &dyn Source, image: &ClusterImage, progress: &dyn Progress) -> Result<()> {
        let work = self.work()?;
        let values = Values {
            environment: &work.environment,
            given: &work.begin.given,
            planned: work.runtime.layout().documents,
        };
        let configurations = &work.begin.configurations;
        let apps = apps::environments(&image.extension, &work.begin.app_settings, &work.begin.given);
        rootfs::unpack(&work.files, source, image, configurations, &values, &apps, progress)
    }

    fn rootfs(&mut self) -> Result<RootfsFacts> {
        let work = self.work()?;
        RootfsFacts::of_folder(&work.files.rootfs(), work.runtime.layout().documents)
    }

    fn execute(&mut self, order: &Order, progress: &dyn Progress) -> Result<()> {
        let work = self.work()?;
        let mut executor = Executor {
            files: &work.files,
            manifest: &mut work.manifest,
            environment: &work.environment,
            runtime: work.runtime,
            manager: work.manager,
            progress,
        };
        executor.execute(&order.step, &order.action, &order.secrets)
    }

    fn read(&mut self, path: &Path) -> Result<Option<String>> {
        let place = || format!("cannot read {}", path.display());
        match fs::metadata(path) {
            Err(error) if files::is_absent(&error) => Ok(None),
            Ok(metadata) if metadata.len() > LARGEST_READ => Err(Error::new(
                ErrorKind::Integrity,
                format!("{} is too large", path.display()),
            )),
            Ok(_) => fs::read_to_string(path).map(Some).or_io(place),
            Err(error) => Err(error).or_io(place),
        }
    }

    fn audit(&mut self, question: &Question, progress: &dyn Progress) -> Result<Found> {
        audit::answer(question, progress)
    }

    fn delete(&mut self, root: &Path, cluster: &str, progress: &dyn Progress) -> Result<Summary> {
        self.work = None;
        match self.is_locked {
            true => delete::of_this_host_locked(&ClusterFiles::new(root, cluster), progress),
            false => delete::of_this_host(root, cluster, progress),
        }
    }
}

/// The folders above the cluster's that have to be made for it. They go with it if nothing else is in them.
pub(crate) fn missing_folders(files: &ClusterFiles) -> Vec<PathBuf> {
    let data = files.data();
    let mut missing: Vec<_> = data
        .ancestors()
        .skip(1)
        .take_while(|folder| !folder.exists())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    missing
}
