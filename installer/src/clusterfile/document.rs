//! One YAML document of a Clusterfile.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_saphyr::Spanned;

use super::mistakes::{Mistakes, suggestion};

/// More documents than this are no Clusterfile.
pub(super) const MOST: usize = 256;

/// What a document is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Cluster,
    ClusterV1,
    Config,
    Plugin,
    Application,
    Runtime,
}

const V1: &[&str] = &["sealer.io/v1", "sealer.cloud/v1", "sealer.aliyun.com/v1alpha1"];
const V2: &[&str] = &["sealer.io/v2", "sealer.cloud/v2"];
const KUBEADM: &[&str] = &[
    "kubeadm.k8s.io/v1beta2",
    "kubeadm.k8s.io/v1beta3",
    "kubeadm.k8s.io/v1beta4",
];

/// All kinds with their versions.
const KINDS: [(&str, &[&str], Family); 12] = [
    ("Cluster", V2, Family::Cluster),
    ("Cluster", V1, Family::ClusterV1),
    ("Config", V1, Family::Config),
    ("Plugin", V1, Family::Plugin),
    ("Application", V2, Family::Application),
    ("InitConfiguration", KUBEADM, Family::Runtime),
    ("ClusterConfiguration", KUBEADM, Family::Runtime),
    ("JoinConfiguration", KUBEADM, Family::Runtime),
    (
        "KubeletConfiguration",
        &["kubelet.config.k8s.io/v1beta1"],
        Family::Runtime,
    ),
    (
        "KubeProxyConfiguration",
        &["kubeproxy.config.k8s.io/v1alpha1"],
        Family::Runtime,
    ),
    ("ClusterConfig", &["k0s.k0sproject.io/v1beta1"], Family::Runtime),
    ("K3sConfig", &["sealer.io/v2"], Family::Runtime),
];

/// What tells documents apart.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    #[serde(default)]
    api_version: Option<Spanned<String>>,
    pub(super) kind: Spanned<String>,
}

/// A document with a name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Named<T> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Its name.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it says.
    pub spec: T,
    /// Files that sealer has written have one.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

impl<T> Named<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Named<U> {
        Named {
            _api_version: self._api_version,
            _kind: self._kind,
            metadata: self.metadata,
            spec: change(self.spec),
            _status: self._status,
        }
    }
}

/// Kubernetes' metadata, as far as they make sense here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Metadata {
    /// The name.
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default, rename = "namespace")]
    _namespace: Option<String>,
    #[serde(default, rename = "labels")]
    _labels: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "annotations")]
    _annotations: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "creationTimestamp")]
    _creation_timestamp: Option<String>,
}

/// A document that a cluster runtime reads itself.
#[derive(Clone)]
pub struct RuntimeDocument {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its `kind`.
    pub kind: String,
    /// The document as it was written.
    pub text: String,
}

impl std::fmt::Debug for RuntimeDocument {
    // The text may have tokens in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RuntimeDocument({} {})", self.api_version, self.kind)
    }
}

/// The text of a document, below as many empty lines as it has lines above: places are those of the file.
pub(super) struct Source {
    padded: String,
}

/// The documents of `text` that say anything. In YAML, `---` at the start of a line is nothing else anywhere.
pub(super) fn split(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut document = String::new();
    let mut start = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.trim_end();
        if marker == "---" || marker.starts_with("--- ") || marker.starts_with("---\t") {
            keep(start, &std::mem::take(&mut document), &mut sources);
            start = number;
        }
        document.push_str(line);
    }
    keep(start, &document, &mut sources);
    sources
}

fn keep(start: usize, document: &str, sources: &mut Vec<Source>) {
    let says = |line: &str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with(['#', '%']) && line != "---" && line != "..."
    };
    // One more is enough to know that they are too many.
    if sources.len() <= MOST && document.lines().any(says) {
        let padded = "\n".repeat(start) + document;
        sources.push(Source { padded });
    }
}

impl Source {
    /// What the document is; what is wrong with its kind goes to `mistakes`.
    pub(super) fn head(&self, mistakes: &mut Mistakes<'_>) -> Option<(Family, Head)> {
        let head: Head = self.parse(mistakes)?;
        let kind = head.kind.value.as_str();
        let place = head.kind.referenced;
        let of_kind: Vec<_> = KINDS.iter().filter(|(known, ..)| *known == kind).collect();
        if of_kind.is_empty() {
            let known = KINDS.map(|(known, ..)| known);
            mistakes.at(place, format!("there is no kind `{kind}`"), suggestion(kind, &known));
            return None;
        }
        let versions: Vec<&str> = of_kind
            .iter()
            .flat_map(|(_, versions, _)| versions.iter().copied())
            .collect();
        let Some(version) = &head.api_version else {
            let hint = format!("add `apiVersion: {}`", versions.first().unwrap_or(&""));
            mistakes.at(place, "the field `apiVersion` is missing", hint);
            return None;
        };
        let family = of_kind
            .iter()
            .find(|(_, versions, _)| versions.contains(&version.value.as_str()));
        let Some((_, _, family)) = family else {
            let message = format!("kind `{kind}` has no version `{}`", version.value);
            mistakes.at(version.referenced, message, suggestion(&version.value, &versions));
            return None;
        };
        Some((*family, head))
    }

    /// The document as a type.
    pub(super) fn read<T: DeserializeOwned>(&self, mistakes: &mut Mistakes<'_>) -> Option<Named<T>> {
        self.parse(mistakes)
    }

    /// The document as it is.
    pub(super) fn keep(&self, head: &Head, mistakes: &mut Mistakes<'_>) -> Option<RuntimeDocument> {
        let _: serde_json::Value = self.parse(mistakes)?;
        Some(RuntimeDocument {
            api_version: head.api_version.as_ref()?.value.clone(),
            kind: head.kind.value.clone(),
            text: self.padded.trim_start_matches('\n').to_owned(),
        })
    }

    fn parse<T: DeserializeOwned>(&self, mistakes: &mut Mistakes<'_>) -> Option<T> {
        let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
        match serde_saphyr::from_str_with_options(&self.padded, options) {
            Ok(read) => Some(read),
            Err(error) => {
                mistakes.yaml(&error);
                None
            }
        }
    }
}
