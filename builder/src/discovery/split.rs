//! Images in pieces: `registry`, `repository`, `tag` and `digest`, and the entries of a kustomization.

use crate::discovery::candidates::{Around, names_image};
use crate::discovery::node::Node;

/// An image that was put together.
#[derive(Debug)]
pub(super) struct Split<'n> {
    pub(super) image: String,
    /// The piece that names the repository.
    pub(super) first: &'n Node,
    /// The keys that are pieces of it.
    pub(super) parts: &'static [&'static str],
}

/// The keys that are pieces of an image.
const PARTS: [&str; 13] = [
    "registry",
    "imageRegistry",
    "repository",
    "repo",
    "image",
    "name",
    "newName",
    "newTag",
    "tag",
    "imageTag",
    "digest",
    "sha",
    "imageDigest",
];

/// The image of which a node, which lies at `key`, has the pieces.
pub(super) fn image<'n>(node: &'n Node, key: &str, around: Around<'n>) -> Option<Split<'n>> {
    let piece = |keys: &[&str]| {
        keys.iter().find_map(|key| {
            let node = node.get(key)?;
            node.word().filter(|text| !text.is_empty()).map(|text| (node, text))
        })
    };
    let text = |keys: &[&str]| piece(keys).map(|(_, text)| text);
    let is_named = names_image(key);
    let digest = text(&["digest", "sha", "imageDigest"]);
    let tag = text(&["tag", "newTag", "imageTag"]);
    let registry = text(&["registry", "imageRegistry"]);
    let has_rest = digest.is_some() || tag.is_some() || registry.is_some();
    // A kustomization has `newName` and `newTag`, and `name` where the name stays.
    let renamed = piece(&["newName"]).or_else(|| node.get("newTag").and_then(|_| piece(&["name"])));
    let (first, repository) = renamed
        .or_else(|| piece(&["repository", "repo"]).filter(|(_, text)| has_rest || is_named || has_host(text)))
        .or_else(|| piece(&["image"]).filter(|(_, text)| has_rest && !has_tag(text)))
        .or_else(|| piece(&["name"]).filter(|_| has_rest && (is_named || digest.is_some())))?;
    // What takes the place of registries does so where one is named.
    let registry = registry.map(|own| around.registry.unwrap_or(own));
    let mut image = match registry {
        Some(registry) => format!("{}/{repository}", registry.trim_end_matches('/')),
        None => repository.to_owned(),
    };
    let tag = tag.or_else(|| around.version.filter(|_| digest.is_none() && !has_tag(repository)));
    if let Some(tag) = tag {
        image.push_str(&format!(":{tag}"));
    }
    match digest {
        Some(hex) if hex.len() == 64 => image.push_str(&format!("@sha256:{hex}")),
        Some(digest) => image.push_str(&format!("@{digest}")),
        None => {}
    }
    Some(Split {
        image,
        first,
        parts: &PARTS,
    })
}

/// Whether a repository says its host, so that it is no path of something else.
fn has_host(repository: &str) -> bool {
    let host = repository.split_once('/').map_or("", |(host, _)| host);
    host.contains(['.', ':']) && !host.ends_with(':')
}

/// Whether a reference has a tag or a digest of its own.
fn has_tag(reference: &str) -> bool {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    name.contains([':', '@'])
}
