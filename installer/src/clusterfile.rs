//! The Clusterfile: what a cluster shall be, as YAML documents that are told apart by `kind`.
//!
//! Unknown kinds and unknown fields are errors, and all that is wrong is shown together. Nothing here can be serialised:
//! passwords stay where they were written.

pub mod addresses;
mod application;
mod cluster;
mod config;
mod document;
mod label;
mod mistakes;
mod secret;
mod taint;
#[cfg(test)]
mod tests;
mod v1;
mod validate;

pub use application::{AppConfig, AppFile, ApplicationSpec, Commands};
pub use cluster::{
    Certificate, ClusterSpec, ContainerRuntime, ExternalRegistry, Host, HostAlias, LocalRegistry, Registry, Ssh,
    SubjectAltName,
};
pub use config::{ConfigSpec, PluginSpec, Strategy};
pub use document::{Metadata, Named, RuntimeDocument};
pub use secret::Secret;
pub use taint::Taint;

use sealrs_image::error::{Error, ErrorKind, Result};

use self::document::{Family, Source};
use self::mistakes::Mistakes;

/// A Clusterfile is written by people: more is a mistake.
pub const MOST_BYTES: usize = 1 << 20;

/// A Clusterfile whose documents are right, each for itself and with each other.
#[derive(Debug, Clone, Default)]
pub struct Clusterfile {
    /// The cluster: those of version 1 are converted.
    pub cluster: Option<Named<ClusterSpec>>,
    /// What is written into the rootfs, in the order of the file.
    pub configs: Vec<Named<ConfigSpec>>,
    /// Hooks, in the order of the file.
    pub plugins: Vec<Named<PluginSpec>>,
    /// Which apps are launched, and how.
    pub application: Option<Named<ApplicationSpec>>,
    /// What the cluster runtimes read themselves.
    pub runtime: Vec<RuntimeDocument>,
}

impl Clusterfile {
    /// Reads `text`, which is what `file` holds.
    ///
    /// # Errors
    ///
    /// One error with all findings, in the order of the lines.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        if text.len() > MOST_BYTES {
            return Err(
                Error::new(ErrorKind::Input, format!("{file} has more than {MOST_BYTES} bytes"))
                    .hint("give a Clusterfile: YAML documents with a `kind`"),
            );
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut mistakes = Mistakes::new(file, text);
        let mut clusterfile = Self::default();
        let sources = document::split(text);
        if sources.is_empty() {
            mistakes.whole("there is no document in it", "write a document of `kind: Cluster`");
        }
        if sources.len() > document::MOST {
            mistakes.whole(
                &format!("it has more than {} documents", document::MOST),
                "split it: a Clusterfile describes one cluster",
            );
        } else {
            for source in &sources {
                clusterfile.add(source, &mut mistakes);
            }
        }
        mistakes.into_result()?;
        Ok(clusterfile)
    }

    fn add(&mut self, source: &Source, mistakes: &mut Mistakes<'_>) {
        let Some((family, head)) = source.head(mistakes) else {
            return;
        };
        let once = |there: bool, mistakes: &mut Mistakes<'_>| {
            if there {
                let message = format!("there is a second document of kind `{}`", head.kind.value);
                mistakes.at(head.kind.referenced, message, "keep one of them");
            }
        };
        match family {
            Family::Cluster => {
                let cluster = source.read::<ClusterSpec>(mistakes);
                once(self.cluster.is_some(), mistakes);
                self.keep_cluster(cluster, &head, mistakes);
            }
            Family::ClusterV1 => {
                let cluster = source.read::<v1::ClusterSpecV1>(mistakes);
                let cluster = cluster.map(|cluster| cluster.map(|spec| spec.convert(head.kind.referenced, mistakes)));
                once(self.cluster.is_some(), mistakes);
                self.keep_cluster(cluster, &head, mistakes);
            }
            Family::Config => {
                if let Some(config) = source.read::<ConfigSpec>(mistakes) {
                    validate::config(&config.spec, mistakes);
                    self.configs.push(config);
                }
            }
            Family::Plugin => {
                if let Some(plugin) = source.read::<PluginSpec>(mistakes) {
                    validate::plugin(&plugin.spec, head.kind.referenced, mistakes);
                    self.plugins.push(plugin);
                }
            }
            Family::Application => {
                once(self.application.is_some(), mistakes);
                if let Some(application) = source.read::<ApplicationSpec>(mistakes) {
                    validate::application(&application.spec, mistakes);
                    self.application = Some(application);
                }
            }
            Family::Runtime => {
                once(self.runtime.iter().any(|other| other.kind == head.kind.value), mistakes);
                if let Some(document) = source.keep(&head, mistakes) {
                    self.runtime.push(document);
                }
            }
        }
    }

    fn keep_cluster(
        &mut self,
        cluster: Option<Named<ClusterSpec>>,
        head: &document::Head,
        mistakes: &mut Mistakes<'_>,
    ) {
        if let Some(cluster) = cluster {
            validate::cluster(&cluster.spec, head.kind.referenced, mistakes);
            self.cluster = Some(cluster);
        }
    }
}
