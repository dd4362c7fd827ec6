//! The Clusterfile: what a cluster shall be, as YAML documents that are told apart by `kind`.
//!
//! Unknown kinds and unknown fields are errors, and all that is wrong is shown together. Nothing here can be serialised:
//! passwords stay where they were written.

pub mod addresses;
mod application;
mod cluster;
mod config;
mod document;
mod fault;
mod generate;
mod hidden;
mod hosts;
mod k3s;
mod label;
mod mistakes;
#[cfg(test)]
mod random;
mod reader;
mod rules;
mod schema;
mod secret;
mod secrets;
mod taint;
#[cfg(test)]
mod tests;
mod tree;
mod v1;
mod validate;
mod wanted;

pub use application::{AppConfig, AppFile, ApplicationSpec, Commands};
pub use cluster::{
    Certificate, ClusterSpec, ContainerRuntime, ExternalRegistry, Host, HostAlias, LocalRegistry, Registry, Ssh,
    SubjectAltName,
};
pub use config::{ConfigSpec, PluginSpec, Strategy};
pub use document::{Metadata, Named, RuntimeDocument};
pub use generate::Draft;
pub use hidden::is_secret;
pub use schema::schema;
pub use secret::Secret;
pub use secrets::{Ask, SecretSource, Secrets};
pub use taint::Taint;
pub use wanted::Wanted;

use sealrs_image::error::{Error, Result};
use sealrs_image::finding::Finding;
use serde::de::DeserializeOwned;

use self::document::{Document, Family, Source};
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
    /// What may be wrong, to be told to the user.
    pub warnings: Vec<Finding>,
}

/// What is wrong in a Clusterfile, and what may be.
#[derive(Debug, Clone, Default)]
pub struct Lint {
    /// What is wrong, in the order of the lines.
    pub errors: Vec<Finding>,
    /// What may be wrong.
    pub warnings: Vec<Finding>,
}

impl Clusterfile {
    /// Reads `text`, which is what `file` holds.
    ///
    /// # Errors
    ///
    /// One error with all findings, in the order of the lines.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let (mut clusterfile, told) = Self::read(file, text);
        let count = match told.errors.len() {
            0 => {
                clusterfile.warnings = told.warnings;
                return Ok(clusterfile);
            }
            1 => "an error".to_owned(),
            count => format!("{count} errors"),
        };
        Err(Error::together(format!("{file} has {count}"), told.errors))
    }

    /// Tells all that is wrong in `text`, and all that may be.
    #[must_use]
    pub fn lint(file: &str, text: &str) -> Lint {
        Self::read(file, text).1
    }

    fn read(file: &str, text: &str) -> (Self, Lint) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut clusterfile = Self::default();
        if text.len() > MOST_BYTES {
            let mut mistakes = Mistakes::new(file, "");
            mistakes.whole(
                &format!("it has more than {MOST_BYTES} bytes"),
                "give a Clusterfile: YAML documents with a `kind`",
            );
            return (clusterfile, mistakes.told());
        }
        let mut mistakes = Mistakes::new(file, text);
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
        validate::scopes(&clusterfile, &mut mistakes);
        (clusterfile, mistakes.told())
    }

    fn add(&mut self, source: &Source<'_>, mistakes: &mut Mistakes<'_>) {
        mistakes.partial = false;
        let Some(document) = source.open(mistakes) else {
            return;
        };
        let Some((family, head)) = document.head(mistakes) else {
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
                once(self.cluster.is_some(), mistakes);
                if let Some(cluster) = read(&document, mistakes) {
                    self.keep_cluster(cluster, &head, mistakes);
                }
            }
            Family::ClusterV1 => {
                once(self.cluster.is_some(), mistakes);
                if let Some(cluster) = read::<v1::ClusterSpecV1>(&document, mistakes) {
                    let cluster = cluster.map(|spec| spec.convert(head.kind.referenced, mistakes));
                    self.keep_cluster(cluster, &head, mistakes);
                }
            }
            Family::Config => {
                if let Some(config) = read::<ConfigSpec>(&document, mistakes) {
                    validate::config(&config.spec, mistakes);
                    self.configs.push(config);
                }
            }
            Family::Plugin => {
                if let Some(plugin) = read::<PluginSpec>(&document, mistakes) {
                    validate::plugin(&plugin.spec, head.kind.referenced, mistakes);
                    self.plugins.push(plugin);
                }
            }
            Family::Application => {
                once(self.application.is_some(), mistakes);
                if let Some(application) = read::<ApplicationSpec>(&document, mistakes) {
                    validate::application(&application.spec, mistakes);
                    self.application = Some(application);
                }
            }
            Family::Runtime => {
                once(self.runtime.iter().any(|other| other.kind == head.kind.value), mistakes);
                if head.kind.value == k3s::KIND {
                    k3s::settings(&document, mistakes);
                }
                self.runtime.extend(document.keep(&head));
            }
        }
    }

    fn keep_cluster(&mut self, cluster: Named<ClusterSpec>, head: &document::Head, mistakes: &mut Mistakes<'_>) {
        validate::name(cluster.metadata.name.as_deref(), head.kind.referenced, mistakes);
        validate::cluster(&cluster.spec, head.kind.referenced, mistakes);
        self.cluster = Some(cluster);
    }
}

/// The document as a type. What is wrong in it was told, and is not in what is read.
fn read<T: DeserializeOwned>(document: &Document, mistakes: &mut Mistakes<'_>) -> Option<Named<T>> {
    let (read, whole) = document.read(mistakes)?;
    mistakes.partial = !whole;
    Some(read)
}
