//! Which container images the image has, and under which names kubeadm finds them.

use std::collections::BTreeSet;

use sealrs_image::error::{Context as _, Error, ErrorKind, Result};
use sealrs_image::reference::Reference;

use super::version::Version;
use crate::plan::Context;

/// The container images of an image, by the names under which hosts can pull them.
#[derive(Debug)]
pub(super) struct Images {
    /// By their own names, and with the private registry in the place of theirs.
    names: BTreeSet<String>,
    /// The repositories of the API servers, by their own names, each with its tag.
    api_servers: Vec<(String, String)>,
}

impl Images {
    /// # Errors
    /// When the image names one that is no image.
    pub(super) fn of(context: &Context<'_>) -> Result<Self> {
        let registry = context.options.registry_url();
        let (mut names, mut api_servers) = (BTreeSet::new(), Vec::new());
        for inside in &context.image.container_images {
            let reference: Reference = inside
                .image
                .parse()
                .context(|| "the ClusterImage names a container image that can't be read")?;
            let Some(tag) = reference.tag() else { continue };
            let (host, path) = (reference.host(), reference.path());
            names.insert(format!("{host}/{path}:{tag}"));
            names.insert(format!("{registry}/{path}:{tag}"));
            let whole = format!("{host}/{path}");
            if let Some(repository) = whole.strip_suffix("/kube-apiserver") {
                api_servers.push((repository.to_owned(), tag.to_owned()));
            }
        }
        Ok(Self { names, api_servers })
    }

    /// The repository that has the control plane of this version, or whether the one that is `given` does.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when it has not.
    pub(super) fn repository(&self, version: &Version, given: Option<&str>) -> Result<String> {
        let hint = format!(
            "add what `kubeadm config images list --kubernetes-version {}` prints to an imageList, and build the image again",
            version.text
        );
        let found = self.api_servers.iter().find(|(_, tag)| *tag == version.text);
        let Some((found, _)) = found else {
            return Err(Error::new(
                ErrorKind::Input,
                format!("the image has no container image kube-apiserver:{}", version.text),
            )
            .hint(hint));
        };
        match given {
            None => Ok(found.clone()),
            Some(given) if self.names.contains(&format!("{given}/kube-apiserver:{}", version.text)) => {
                Ok(given.to_owned())
            }
            Some(given) => Err(Error::new(
                ErrorKind::Input,
                format!("`imageRepository` is {given}, and the image has its control plane in {found}"),
            )
            .hint("leave `imageRepository` out: images keep their own names, and come from the private registry")),
        }
    }

    /// What `dns.imageRepository` has to be, if it is to be anything.
    pub(super) fn dns_repository(&self, version: &Version, repository: &str) -> Option<String> {
        let has = |start: String| self.names.iter().any(|name| name.starts_with(&start));
        let nested = has(format!("{repository}/coredns/coredns:"));
        (nested && repository != version.default_repository()).then(|| format!("{repository}/coredns"))
    }

    /// The image of pods' own container: the newest one of the repository.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when there is none.
    pub(super) fn pause(&self, repository: &str) -> Result<String> {
        let start = format!("{repository}/pause:");
        let of = |tag: &str| tag.split('.').map(|number| number.parse().unwrap_or(0)).collect();
        let newest = self
            .names
            .iter()
            .filter_map(|name| name.strip_prefix(&start))
            .max_by_key(|tag| -> Vec<u32> { of(tag) });
        newest.map(|tag| format!("{start}{tag}")).ok_or_else(|| {
            Error::new(
                ErrorKind::Input,
                format!("the image has no container image {repository}/pause"),
            )
            .hint("add what `kubeadm config images list` prints to an imageList, and build the image again")
        })
    }

    /// The names below a repository.
    pub(super) fn below(&self, repository: &str) -> Vec<&str> {
        let start = format!("{repository}/");
        self.names
            .iter()
            .filter(|name| name.starts_with(&start))
            .map(String::as_str)
            .collect()
    }
}
