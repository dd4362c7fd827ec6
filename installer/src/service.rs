//! Services, in one way for all: units of systemd where it runs this host, small supervised processes elsewhere
//! (containers, test hosts, and users without root rights).

mod supervised;
mod supervisor;
mod systemd;

use std::collections::BTreeMap;
use std::path::PathBuf;

use sealrs_image::error::Result;
use serde::{Deserialize, Serialize};

pub use supervisor::{Supervise, supervise};
pub(crate) use systemd::unit_path;

use crate::cluster::ClusterFiles;

/// A program that shall run for as long as the cluster is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The unit's name, without `.service`.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// The program, by its absolute path, and its arguments. No secrets: everybody can see them.
    pub argv: Vec<String>,
    /// Set in its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// It tells systemd when it is ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notifies: bool,
    /// Seconds from its end to its next start.
    pub restart_seconds: u32,
    /// More lines for the `[Service]` section of the unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unit_lines: Vec<String>,
}

/// Who runs services on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manager {
    /// systemd as process 1.
    Systemd,
    /// A process of sealrs beside each service.
    Supervised,
}

/// What a service is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    /// It runs, and has told that it is ready if it tells such things.
    pub(crate) active: bool,
    /// It has ended for good.
    pub(crate) failed: bool,
    /// How often it was started again since it was first started.
    pub(crate) restarts: u64,
}

/// A place in a service's log, to read on from there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogMark(u64);

/// The services of one cluster on this host.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    manager: Manager,
    /// Where pid files and logs lie.
    folder: PathBuf,
    /// The program that supervises.
    program: PathBuf,
}

impl Services {
    /// The services of the cluster with these files.
    pub(crate) fn new(manager: Manager, files: &ClusterFiles) -> Self {
        Self {
            manager,
            folder: files.services(),
            program: files.program(),
        }
    }

    /// Installs a service and starts it if it does not run. Does not wait until it is ready.
    pub(crate) fn start(&self, service: &Service) -> Result<()> {
        match self.manager {
            Manager::Systemd => systemd::start(service),
            Manager::Supervised => supervised::start(&self.folder, &self.program, service),
        }
    }

    /// Starts a service anew. Does not wait until it is ready.
    pub(crate) fn restart(&self, service: &Service) -> Result<()> {
        match self.manager {
            Manager::Systemd => systemd::restart(service),
            Manager::Supervised => {
                supervised::stop(&self.folder, &service.name)?;
                supervised::start(&self.folder, &self.program, service)
            }
        }
    }

    /// Stops a service and removes it. One that is not there is no error.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match self.manager {
            Manager::Systemd => systemd::remove(name),
            Manager::Supervised => supervised::stop(&self.folder, name),
        }
    }

    /// What a service is doing.
    pub(crate) fn status(&self, name: &str) -> Result<Status> {
        match self.manager {
            Manager::Systemd => systemd::status(name),
            Manager::Supervised => supervised::status(&self.folder, name),
        }
    }

    /// The present end of a service's log.
    pub(crate) fn mark(&self, name: &str) -> LogMark {
        match self.manager {
            Manager::Systemd => systemd::mark(),
            Manager::Supervised => supervised::mark(&self.folder, name),
        }
    }

    /// What a service has logged since its present start, or the end of that if it is long.
    pub(crate) fn log_of_start(&self, name: &str) -> String {
        match self.manager {
            Manager::Systemd => systemd::log_of_start(name),
            Manager::Supervised => supervised::log_of_start(&self.folder, name),
        }
    }

    /// What a service has logged since.
    pub(crate) fn log_since(&self, name: &str, mark: LogMark) -> String {
        match self.manager {
            Manager::Systemd => systemd::log_since(name, mark),
            Manager::Supervised => supervised::log_since(&self.folder, name, mark),
        }
    }
}
