//! The version of Kubernetes, and what of kubeadm's documents depends on it.

use sealrs_image::cluster_image::{ClusterImage, name};
use sealrs_image::error::{Error, ErrorKind, Result};

use crate::plan::{runtime_minor, runtime_version};

/// The oldest one whose documents are known.
const OLDEST: (u32, u32) = (1, 20);

/// A version of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// With its `v`: `v1.31.2`.
    pub(super) text: String,
    pub(super) minor: (u32, u32),
}

impl Version {
    /// That of an image.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] when it does not say, or is too old.
    pub(super) fn of(image: &ClusterImage) -> Result<Self> {
        let wrong = |what: String| {
            Error::new(ErrorKind::Input, what).hint(format!(
                "build the image with LABEL \"{}\"=\"v1.31.2\", or whatever `kubeadm version -o short` prints",
                name::RUNTIME_VERSION
            ))
        };
        let Some(text) = runtime_version(image) else {
            return Err(wrong("the image does not say which Kubernetes it has".to_owned()));
        };
        let numbers = text.trim_start_matches('v');
        let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-+".contains(letter);
        match runtime_minor(image) {
            Some(minor) if minor >= OLDEST && numbers.chars().all(plain) => Ok(Self {
                text: format!("v{numbers}"),
                minor,
            }),
            Some(minor) if minor < OLDEST => Err(wrong(format!(
                "Kubernetes {text} is too old: the oldest one is {}.{}",
                OLDEST.0, OLDEST.1
            ))),
            _ => Err(wrong(format!(
                "`{}` is not a version of Kubernetes",
                text.escape_debug()
            ))),
        }
    }

    /// The version of kubeadm's documents.
    pub(super) fn api(&self) -> &'static str {
        if self.minor < (1, 23) {
            "kubeadm.k8s.io/v1beta2"
        } else if self.has_lists() {
            "kubeadm.k8s.io/v1beta4"
        } else {
            "kubeadm.k8s.io/v1beta3"
        }
    }

    /// Whether arguments are lists of names and values, and time-outs have a place of their own.
    pub(super) fn has_lists(&self) -> bool {
        self.minor >= (1, 31)
    }

    /// The registry that kubeadm takes images from when it is told nothing: it looks for coredns in a folder of its own there.
    pub(super) fn default_repository(&self) -> &'static str {
        if self.minor < (1, 25) {
            "k8s.gcr.io"
        } else {
            "registry.k8s.io"
        }
    }
}
