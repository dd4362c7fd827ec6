//! What container runtimes have to know to pull images by their own names from another registry: containerd's
//! `hosts.toml` for each registry host (containerd, docs/hosts.md), and k3s's `registries.yaml`.
//!
//! k3s is given the place of the images as the path of an endpoint and not as `rewrite`: releases of November 2024 rewrite
//! what they resolve and not what they fetch then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sealrs_image::error::{IoResultExt as _, Result};
use sealrs_image::file;
use sealrs_registry::host::Host;
use serde::Serialize;
use serde_json::json;

use crate::command::word;
use crate::plan::Context;
use crate::registry;
use crate::yaml;

/// A registry that has the images of other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Its URL without a path: `https://registry.local:5000`.
    pub url: String,
    /// The file of its certificate authority on the hosts, if they have to be told.
    pub ca: Option<PathBuf>,
    /// Whether hosts must take any certificate.
    pub unverified: bool,
}

/// Where a registry's images of each host lie, the most likely place first: a path in the registry, or nothing for its root.
pub(crate) type Places = BTreeMap<String, Vec<String>>;

/// The configuration of hosts that shall pull from a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configuration {
    /// For containerd: the text of `hosts.toml` for each registry host, and for the mirror itself.
    pub containerd: BTreeMap<String, String>,
    /// For k3s: the text of `registries.yaml`.
    pub k3s: String,
}

impl Mirror {
    /// The private registry of a cluster.
    pub(crate) fn of_cluster(context: &Context<'_>) -> Self {
        Self {
            url: format!("https://{}", context.options.registry_url()),
            ca: Some(registry::ca(context.files)),
            unverified: false,
        }
    }

    /// The configuration for a mirror that has the images of `hosts`, each below its host's folder in `prefix`.
    #[must_use]
    pub fn configuration(&self, hosts: &BTreeSet<Host>, prefix: &str) -> Configuration {
        let place = |host: &Host| match prefix {
            "" => host.folder(),
            prefix => format!("{prefix}/{}", host.folder()),
        };
        let places = hosts.iter().map(|host| (host.to_string(), vec![place(host)])).collect();
        Configuration {
            containerd: self
                .hosts_toml(&places)
                .into_iter()
                .map(|(host, text)| (host, format!("# Written by sealrs.\n{text}\n")))
                .collect(),
            k3s: self.registries_yaml(&places),
        }
    }

    /// The text of containerd's `hosts.toml` for each host, and for the mirror itself. containerd asks these in their order,
    /// and then the host itself: there is no `server`, because of the mirrors in one file only one could write it.
    pub(crate) fn hosts_toml(&self, places: &Places) -> BTreeMap<String, String> {
        let text = |places: Vec<String>| {
            let entries: Vec<String> = places.iter().map(|place| self.entry(place)).collect();
            entries.join("\n\n")
        };
        let hosts = self.with_itself(places).into_iter();
        hosts.map(|(host, places)| (host, text(places))).collect()
    }

    fn entry(&self, place: &str) -> String {
        let mut text = table(&self.endpoint(place));
        text.push_str("\n  capabilities = [\"pull\", \"resolve\"]");
        if let Some(ca) = &self.ca {
            text.push_str(&format!("\n  ca = {}", toml_string(&word(ca))));
        }
        if self.unverified {
            text.push_str("\n  skip_verify = true");
        }
        if !place.is_empty() {
            text.push_str("\n  override_path = true");
        }
        text
    }

    /// The text of k3s's `registries.yaml`.
    pub(crate) fn registries_yaml(&self, places: &Places) -> String {
        let mirrors = self.with_itself(places).into_iter().map(|(host, places)| {
            let endpoints: Vec<String> = places.iter().map(|place| self.endpoint(place)).collect();
            (host, json!({"endpoint": endpoints}))
        });
        let mut document = json!({"mirrors": mirrors.collect::<serde_json::Map<_, _>>()});
        let tls = match &self.ca {
            Some(ca) => Some(json!({"ca_file": word(ca)})),
            None => self.unverified.then(|| json!({"insecure_skip_verify": true})),
        };
        if let (Some(tls), Some(fields)) = (tls, document.as_object_mut()) {
            fields.insert("configs".to_owned(), json!({self.host(): {"tls": tls}}));
        }
        yaml::document(&document)
    }

    fn endpoint(&self, place: &str) -> String {
        match place {
            "" => self.url.clone(),
            place => format!("{}/v2/{place}", self.url),
        }
    }

    /// Host and port.
    fn host(&self) -> &str {
        self.url.split_once("://").map_or(&self.url, |(_, host)| host)
    }

    /// The mirror answers to its own name as well.
    fn with_itself(&self, places: &Places) -> Places {
        let mut all = places.clone();
        let own = all.entry(self.host().to_owned()).or_default();
        if !own.iter().any(String::is_empty) {
            own.push(String::new());
        }
        all
    }
}

impl Configuration {
    /// Writes it into a folder: `certs.d/HOST/hosts.toml` and `registries.yaml`.
    ///
    /// # Errors
    /// [`Disk`](sealrs_image::error::ErrorKind::Disk) when it can't be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let put = |path: PathBuf, text: &str| {
            let parent = file::folder_of(&path);
            std::fs::create_dir_all(parent).or_io(|| format!("cannot make {}", parent.display()))?;
            file::write(&path, text.as_bytes(), 0o644)
        };
        for (host, text) in &self.containerd {
            put(folder.join("certs.d").join(host).join("hosts.toml"), text)?;
        }
        put(folder.join("registries.yaml"), &self.k3s)
    }
}

/// The head of what `hosts.toml` says of a mirror.
pub(crate) fn table(url: &str) -> String {
    format!("[host.{}]", toml_string(url))
}

/// A basic string of TOML. JSON's escapes are a part of TOML's.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(image: &str) -> Host {
        Host::of(&image.parse().unwrap())
    }

    #[test]
    fn sends_containerd_to_the_registry_first() {
        let mirror = Mirror {
            url: "https://sea.hub:5000".to_owned(),
            ca: Some("/c/ca.crt".into()),
            unverified: false,
        };
        let places = [host("nginx"), host("a.example:5001/b")]
            .iter()
            .map(|host| (host.to_string(), vec![host.folder(), String::new()]))
            .collect();
        let texts = mirror.hosts_toml(&places);
        assert_eq!(
            texts["docker.io"],
            "[host.\"https://sea.hub:5000/v2/docker.io\"]\n  \
               capabilities = [\"pull\", \"resolve\"]\n  \
               ca = \"/c/ca.crt\"\n  \
               override_path = true\n\
             \n\
             [host.\"https://sea.hub:5000\"]\n  \
               capabilities = [\"pull\", \"resolve\"]\n  \
               ca = \"/c/ca.crt\""
        );
        let port = &texts["a.example:5001"];
        assert!(
            port.contains("[host.\"https://sea.hub:5000/v2/a.example_5001\"]"),
            "{port}"
        );
        assert_eq!(texts["sea.hub:5000"].matches("[host.").count(), 1);
    }

    #[test]
    fn a_mirror_with_a_prefix_has_each_host_in_its_folder() {
        let mut mirror = Mirror {
            url: "http://r.local".to_owned(),
            ca: None,
            unverified: false,
        };
        let hosts = BTreeSet::from([host("nginx"), host("r.local/own/app")]);
        let found = mirror.configuration(&hosts, "p/q");
        assert_eq!(
            found.containerd["docker.io"],
            "# Written by sealrs.\n\
             [host.\"http://r.local/v2/p/q/docker.io\"]\n  \
             capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n"
        );
        assert_eq!(
            found.k3s,
            "# Written by sealrs.\nmirrors:\n  \"docker.io\":\n    endpoint:\n      - \"http://r.local/v2/p/q/docker.io\"\n  \
             \"r.local\":\n    endpoint:\n      - \"http://r.local/v2/p/q/r.local\"\n      - \"http://r.local\"\n"
        );
        // Its own images are asked for in both places.
        assert_eq!(found.containerd["r.local"].matches("[host.").count(), 2);
        mirror.url = "https://r.local".to_owned();
        mirror.unverified = true;
        let found = mirror.configuration(&hosts, "");
        assert!(found.containerd["docker.io"].contains("/v2/docker.io\"]\n"));
        assert!(found.containerd["docker.io"].contains("skip_verify = true\n"));
        assert!(
            found
                .k3s
                .contains("configs:\n  \"r.local\":\n    tls:\n      insecure_skip_verify: true\n")
        );
    }
}
