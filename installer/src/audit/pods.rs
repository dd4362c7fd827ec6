//! The container images that pods of a cluster name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealrs_image::error::{ErrorKind, Result, ResultExt as _};
use sealrs_image::reference::Reference;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cluster::ClusterFiles;
use crate::command::{self, word};

/// How long kubectl may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How a pod is told apart from a line of a file.
pub(super) const POD: &str = "pod ";

/// All images that pods name, as they write them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pods {
    pub(super) images: BTreeMap<String, Image>,
}

/// An image that pods name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// Each, as `pod namespace/name`.
    pub(super) pods: Vec<String>,
    /// Whether each of these pods is on a node that has the image.
    pub(super) on_all_nodes: bool,
}

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    init_containers: Vec<Container>,
    #[serde(default)]
    ephemeral_containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    #[serde(default)]
    image: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "imageID", default)]
    image_id: String,
}

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    images: Vec<NodeImage>,
}

#[derive(Deserialize)]
struct NodeImage {
    #[serde(default)]
    names: Vec<String>,
}

impl Pods {
    /// Those of the cluster on this host; none where it has no API.
    ///
    /// # Errors
    /// [`ErrorKind::Step`] when no API server answers.
    pub(super) fn of(files: &ClusterFiles) -> Result<Option<Self>> {
        let folders = [files.programs(), files.rootfs().join("bin")];
        if !files.kubeconfig().exists() || !command::is_installed("kubectl", &folders) {
            return Ok(None);
        }
        let pods = get(files, &folders, &["pods", "-A"])?;
        let nodes = get(files, &folders, &["nodes"])?;
        Ok(Some(Self::new(pods, &nodes)))
    }

    fn new(pods: Vec<Pod>, nodes: &[Node]) -> Self {
        let nodes: BTreeMap<&str, BTreeSet<Reference>> = nodes
            .iter()
            .map(|node| {
                let names = node.status.images.iter().flat_map(|image| &image.names);
                (
                    node.metadata.name.as_str(),
                    names.filter_map(|name| name.parse().ok()).collect(),
                )
            })
            .collect();
        let mut found = Self::default();
        for pod in pods {
            let name = format!("{POD}{}/{}", pod.metadata.namespace, pod.metadata.name);
            let status = &pod.status;
            let statuses = [
                &status.container_statuses,
                &status.init_container_statuses,
                &status.ephemeral_container_statuses,
            ];
            let node = pod.spec.node_name.as_deref().and_then(|node| nodes.get(node));
            let spec = pod.spec.containers.iter().chain(&pod.spec.init_containers);
            for container in spec.chain(&pod.spec.ephemeral_containers) {
                // A node tells of its largest images alone; a container that was made has its image.
                let mut made = statuses.iter().copied().flatten();
                let is_made = made.any(|status| status.name == container.name && !status.image_id.is_empty());
                let is_there = is_made || node.is_some_and(|node| has(node, &container.image));
                let image = found.images.entry(container.image.clone()).or_insert_with(|| Image {
                    pods: Vec::new(),
                    on_all_nodes: true,
                });
                image.on_all_nodes &= is_there;
                if image.pods.last() != Some(&name) {
                    image.pods.push(name.clone());
                }
            }
        }
        found
    }
}

/// Whether a node has an image under this name. It knows those with a digest without their tag.
fn has(node: &BTreeSet<Reference>, image: &str) -> bool {
    let Ok(image) = image.parse::<Reference>() else {
        return false;
    };
    node.contains(&image)
        || image.digest().is_some_and(|digest| {
            let same = |known: &&Reference| known.repository() == image.repository();
            node.iter().filter(same).any(|known| known.digest() == Some(digest))
        })
}

fn get<T: DeserializeOwned>(files: &ClusterFiles, folders: &[std::path::PathBuf], what: &[&str]) -> Result<Vec<T>> {
    let cache = format!("--cache-dir={}", word(&files.kubectl_cache()));
    let argv: Vec<String> = ["kubectl", &cache, "get"]
        .iter()
        .chain(what)
        .chain(&["-o", "json", "--request-timeout=30s"])
        .map(|&word| word.to_owned())
        .collect();
    let env = [("KUBECONFIG".to_owned(), word(&files.kubeconfig()))].into();
    let what = what.first().copied().unwrap_or_default();
    let done = command::output(command::prepare(&argv, &env, folders)?, None, LIMIT)?
        .checked(|| format!("the {what} can't be listed"))?;
    let list: List<T> =
        serde_json::from_str(&done.stdout).or_fail(ErrorKind::Step, || format!("the list of {what} can't be read"))?;
    Ok(list.items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_container_counts_and_what_its_node_has() {
        let pods = json!([
            {"metadata": {"namespace": "a", "name": "one"},
             "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "big:1"}, {"name": "d", "image": "made"}],
                      "initContainers": [{"name": "i", "image": "init:1"}],
                      "ephemeralContainers": [{"name": "e", "image": "debug:1"}]},
             "status": {"containerStatuses": [{"name": "d", "imageID": "sha256:x"}, {"name": "c", "imageID": ""}]}},
            {"metadata": {"namespace": "a", "name": "two"},
             "spec": {"nodeName": "n2", "containers": [{"name": "c", "image": "big:1"}]}},
            {"metadata": {"namespace": "a", "name": "waits"},
             "spec": {"containers": [{"name": "c", "image": "init:1"}]}},
        ]);
        let nodes = json!([
            {"metadata": {"name": "n1"}, "status": {"images": [
                {"names": ["docker.io/library/big:1"]}, {"names": ["docker.io/library/init:1"]}]}},
            {"metadata": {"name": "n2"}, "status": {"images": [{"names": ["docker.io/library/big:1"]}]}},
        ]);
        let pods = serde_json::from_value(pods).unwrap();
        let nodes: Vec<Node> = serde_json::from_value(nodes).unwrap();
        let found = Pods::new(pods, &nodes);
        let shown: Vec<_> = found
            .images
            .iter()
            .map(|(name, image)| (name.as_str(), image.on_all_nodes, image.pods.join(" ")))
            .collect();
        assert_eq!(
            shown,
            [
                ("big:1", true, "pod a/one pod a/two".to_owned()),
                ("debug:1", false, "pod a/one".to_owned()),
                ("init:1", false, "pod a/one pod a/waits".to_owned()),
                ("made", true, "pod a/one".to_owned()),
            ]
        );
    }

    #[test]
    fn a_digest_is_known_without_its_tag() {
        let digest = sealrs_image::digest::Digest::of(b"x");
        let node = BTreeSet::from([format!("quay.io/a/b@{digest}").parse().unwrap()]);
        assert!(has(&node, &format!("quay.io/a/b:v1@{digest}")));
        assert!(!has(&node, &format!("quay.io/a/c:v1@{digest}")));
        assert!(!has(&node, "quay.io/a/b:v1"));
    }
}
