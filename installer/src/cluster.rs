//! Where the things of a cluster lie: `<root>/data/<cluster>/`, and the lock that keeps two operators apart.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sealrs_image::error::{Error, ErrorKind, IoResultExt as _, Result};
use sealrs_image::lock::{self, Lock};

/// The folder of one cluster and the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFiles {
    root: PathBuf,
    cluster: String,
    /// The apps whose image is meant instead of the cluster's.
    apps: Option<String>,
}

impl ClusterFiles {
    /// The files of `cluster` under `root`. Nothing is made.
    #[must_use]
    pub fn new(root: &Path, cluster: &str) -> Self {
        Self {
            root: root.to_owned(),
            cluster: cluster.to_owned(),
            apps: None,
        }
    }

    /// The same with another rootfs: that of an image of apps, which is called `id` here.
    #[must_use]
    pub(crate) fn of_apps(&self, id: &str) -> Self {
        Self {
            apps: Some(id.to_owned()),
            ..self.clone()
        }
    }

    /// The apps whose image is meant, if it is not the cluster's.
    pub(crate) fn apps(&self) -> Option<&str> {
        self.apps.as_deref()
    }

    /// Where an image has what is its own.
    pub(crate) fn of_image(&self) -> PathBuf {
        match &self.apps {
            Some(id) => self.data().join("apps").join(id),
            None => self.data(),
        }
    }

    /// The cluster's own rootfs, with the registry that all hosts pull from.
    pub(crate) fn cluster_rootfs(&self) -> PathBuf {
        self.data().join("rootfs")
    }

    /// The apps of the cluster, and how they go.
    pub(crate) fn app_list(&self) -> PathBuf {
        self.data().join("apps.json")
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// `<root>`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `<root>/data/<cluster>`.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data").join(&self.cluster)
    }

    /// The unpacked ClusterImage.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.of_image().join("rootfs")
    }

    /// Where the image is unpacked before all its digests are known to hold.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.of_image().join("rootfs.partial")
    }

    /// What was begun and what was done.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.of_image().join("journal")
    }

    /// What was made on this host.
    #[must_use]
    pub fn host_manifest(&self) -> PathBuf {
        self.data().join("host-manifest")
    }

    /// The cluster's hosts, when it has others than the operator's own.
    #[must_use]
    pub fn members(&self) -> PathBuf {
        self.data().join("members.json")
    }

    /// What was wanted of the cluster, which may hold secrets of the user: 0600.
    #[must_use]
    pub fn options(&self) -> PathBuf {
        self.data().join("options.json")
    }

    /// The cluster's plan.
    #[must_use]
    pub fn plan(&self) -> PathBuf {
        self.data().join("plan.json")
    }

    /// The plan that the cluster is being changed by.
    #[must_use]
    pub fn next_plan(&self) -> PathBuf {
        self.data().join("plan.next.json")
    }

    /// The cluster's environment, which may hold what the user gave as secrets: 0600.
    #[must_use]
    pub fn environment(&self) -> PathBuf {
        self.of_image().join("environment.json")
    }

    /// Certificates and keys.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.data().join("pki")
    }

    /// Generated secrets, one file each, 0600.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.data().join("secrets")
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.data().join("kubeconfig")
    }

    /// The output of scripts and commands, one file a step.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.data().join("log")
    }

    /// Files that mark a running script: it has its step's file as standard input.
    #[must_use]
    pub fn running(&self) -> PathBuf {
        self.data().join("running")
    }

    /// Pid files and logs of supervised services.
    #[must_use]
    pub fn services(&self) -> PathBuf {
        self.data().join("services")
    }

    /// Copies of files that were on the host before.
    #[must_use]
    pub fn backup(&self) -> PathBuf {
        self.data().join("backup")
    }

    /// What kubectl has learnt of the cluster's API.
    #[must_use]
    pub fn kubectl_cache(&self) -> PathBuf {
        self.data().join("cache/kube")
    }

    /// What helm has fetched.
    #[must_use]
    pub fn helm_cache(&self) -> PathBuf {
        self.data().join("cache/helm")
    }

    /// Programs for services, scripts and commands, beside those of the rootfs.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.data().join("bin")
    }

    /// The copy of sealrs that services run.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.programs().join("sealrs")
    }

    /// Takes the cluster for this process alone, making its folder if need be.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another process has it.
    pub fn hold(&self) -> Result<Lock> {
        loop {
            let data = self.data();
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&data)
                .or_io(|| format!("cannot make the cluster's folder {}", data.display()))?;
            // The folder itself is locked: a file in it would have to go before the folder can.
            let lock = lock::try_folder(&data, || {
                Error::new(
                    ErrorKind::Conflict,
                    format!("another sealrs is working on cluster `{}`", self.cluster),
                )
                .hint("wait until it has finished and try again")
            })?;
            // Otherwise the folder went away meanwhile, because a deletion ended.
            if let Some(lock) = lock {
                return Ok(lock);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_a_cluster() {
        let root = tempfile::tempdir().unwrap();
        let files = ClusterFiles::new(root.path(), "c");
        let first = files.hold().unwrap();
        assert_eq!(files.hold().unwrap_err().kind(), ErrorKind::Conflict);
        ClusterFiles::new(root.path(), "d").hold().unwrap();
        drop(first);
        files.hold().unwrap();
    }
}
